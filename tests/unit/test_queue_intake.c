/* qmgr's intake: sessions that bring messages, what is synced before they are answered, and what
 * becomes of a sync that fails. The syncer is the real one. */
#include "tests/unit/fault_calls.h"
#include "tests/unit/queue_world.h"
#include <fcntl.h>
#include <sys/wait.h>
#include <time.h>

struct session {
    int channel, file, read_file;
    char id[ID_LEN + 1];
};

static void
after_turn(struct loop *l)
{
    (void)l;
    intake_after_turn();
}

static void
setup_with(int (*sync_fails)(int fd))
{
    setup();
    fault_sync(sync_fails);
    syncer_start();
    ck_assert_int_eq(syncer_serve(intake_synced), 0);
    qmgr.loop.after_turn = after_turn;
    qmgr.service.clients_max = 200;
}

static void
ask(struct session *s, enum role role, uint32_t user)
{
    struct msg m = {0};
    int pair[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    ck_assert_ptr_nonnull(service_adopt(&qmgr.service, pair[0], role, NULL));
    *s = (struct session){.channel = pair[1], .file = -1, .read_file = -1};
    msg_begin(&m, M_QUEUE_NEW);
    msg_put_u32(&m, user);
    ck_assert_int_eq(msg_send(s->channel, &m), 0);
    msg_free(&m);
}

static struct session
take(struct session s, enum role role)
{
    struct msg m = {0};
    struct err e = {0};
    turn();
    ck_assert_int_eq(chan_recv(s.channel, &m, R_QMGR, role, 1000, &e), 1);
    ck_assert_int_eq(m.type, M_QUEUE_FILE);
    struct str id = msg_get_str(&m);
    ck_assert_uint_eq(id.n, ID_LEN);
    memcpy(s.id, id.p, ID_LEN);
    s.file = msg_take_fd(&m, 0);
    s.read_file = msg_take_fd(&m, 1);
    ck_assert(msg_end(&m) && s.file >= 0 && s.read_file >= 0);
    msg_free(&m);
    return s;
}

/* It has its file. */
static struct session
begin(enum role role)
{
    struct session s;
    ask(&s, role, 0);
    return take(s, role);
}

static void
fill(struct session *s, const char *to, const char *text)
{
    struct err e;
    struct buf b = buf_new(2 << 20);
    struct qfile_rcpt rcpt = {.address = str_z(to)};
    struct envelope env = {.sender = STR("s@example.com"),
                           .origin = STR("smtp"),
                           .client = STR("[192.0.2.1]"),
                           .arrived_us = wall_us(),
                           .rcpts = &rcpt,
                           .nrcpt = 1};
    ck_assert_int_eq(qfile_whole(&b, str_z(s->id), &env, str_z(text), &e), 0);
    ck_assert_int_eq(write(s->file, b.p, b.n), (ssize_t)b.n);
    buf_free(&b);
}

static void
let_go(struct session *s)
{
    close(s->file);
    s->file = -1;
}

static void
say(struct session *s, enum msg_type type)
{
    struct msg m = {0};
    msg_begin(&m, type);
    ck_assert_int_eq(msg_send(s->channel, &m), 0);
    msg_free(&m);
}

/* It has written all of it, and commits. */
static void
commit(struct session *s)
{
    let_go(s);
    say(s, M_QUEUE_COMMIT);
}

/* And says that it is synced. */
static void
bring(struct session *s)
{
    commit(s);
    say(s, M_QUEUE_SYNCED);
}

/* So many, each with its message written. */
static void
begin_all(struct session *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        s[i] = begin(R_SMTPD);
        fill(&s[i], "alice@example.org", "text\r\n");
    }
}

/* Whether qmgr ends by itself, and not well. */
static bool
qmgr_leaves(void)
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        turn_ms(2000);
        _exit(0); /* it did not leave */
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) && WEXITSTATUS(status) != 0;
}

/* -1: QUEUE_DONE; else the class of the failure. */
static int
answer(struct session *s, enum role role)
{
    struct msg m = {0};
    struct err e = {0};
    int got;
    for (int turns = 0; (got = chan_recv(s->channel, &m, R_QMGR, role, 0, &e)) < 0 && turns < 400;
         turns++)
        turn_ms(5);
    ck_assert_msg(got == 1, "%s", e.text);
    int class = m.type == M_QUEUE_DONE ? -1 : (int)msg_get_u32(&m);
    msg_free(&m);
    return class;
}

static bool
is_in(const char *sub, const struct session *s)
{
    char path[700];
    struct stat about;
    snprintf(path, sizeof path, "%s/%s/%s%s", dir, sub, s->id, strcmp(sub, "tmp") ? ".s" : "");
    return stat(path, &about) == 0;
}

static uint64_t
stat_of(const char *name)
{
    struct msg m = {0};
    uint64_t value = UINT64_MAX;
    msg_begin(&m, M_QUEUE_STATS);
    ask_qmgr(&m, M_QUEUE_STATS_ARE);
    for (uint32_t n = msg_get_u32(&m); n > 0; n--) {
        struct str s = msg_get_str(&m);
        uint64_t v = msg_get_u64(&m);
        if (str_eq(s, str_z(name)))
            value = v;
    }
    msg_free(&m);
    return value;
}

/* ---- syncs ---- */

static size_t nsyncs;

static bool
is_directory(int fd)
{
    struct stat about;
    return fstat(fd, &about) == 0 && S_ISDIR(about.st_mode);
}

static int
count(int fd)
{
    nsyncs += is_directory(fd);
    return 0;
}

static int
the_directory_fails(int fd)
{
    return is_directory(fd) ? EIO : 0;
}

static int
the_directory_is_slow(int fd)
{
    if (is_directory(fd))
        nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
    return 0;
}

/* ---- tests ---- */

static bool
answered(const struct session *s)
{
    char c;
    turn();
    return recv(s->channel, &c, 1, MSG_DONTWAIT | MSG_PEEK) >= 0;
}

/* One alone: its name waits for its bytes, so that both can be one entry of a journal. */
START_TEST(the_file_and_then_its_name)
{
    struct session s = begin(R_SMTPD);
    ck_assert(is_in("tmp", &s));
    fill(&s, "alice@example.org", "text\r\n");
    let_go(&s);
    fault_sync(count);
    say(&s, M_QUEUE_COMMIT);
    ck_assert(!answered(&s));
    ck_assert(is_in("new", &s) && !is_in("tmp", &s));
    ck_assert_uint_eq(nsyncs, 0);
    ck_assert_uint_eq(index_count(), 0);
    say(&s, M_QUEUE_SYNCED);
    ck_assert_int_eq(answer(&s, R_SMTPD), -1);
    fault_sync(NULL);
    ck_assert_uint_eq(nsyncs, 1);
    ck_assert(is_in("new", &s));
    ck_assert_uint_eq(index_count(), 1);
    ck_assert_uint_eq(stat_of("accepted"), 1);
}
END_TEST

/* The other's sync of new/ is for its name as well; of its bytes it has to say so itself. */
START_TEST(the_name_and_then_its_file)
{
    struct session s = begin(R_SMTPD), other = begin(R_SMTPD);
    fill(&s, "alice@example.org", "text\r\n");
    fill(&other, "alice@example.org", "text\r\n");
    commit(&s);
    turn();
    bring(&other);
    ck_assert_int_eq(answer(&other, R_SMTPD), -1);
    ck_assert(!answered(&s));
    ck_assert_uint_eq(index_count(), 1);
    uint64_t syncs = stat_of("syncs");
    say(&s, M_QUEUE_SYNCED);
    ck_assert_int_eq(answer(&s, R_SMTPD), -1);
    ck_assert_uint_eq(index_count(), 2);
    ck_assert_uint_eq(stat_of("syncs"), syncs);
}
END_TEST

START_TEST(several_at_once)
{
    struct session s[5];
    begin_all(s, 5);
    for (size_t i = 0; i < 5; i++)
        bring(&s[i]);
    for (size_t i = 0; i < 5; i++) {
        ck_assert_int_eq(answer(&s[i], R_SMTPD), -1);
        ck_assert(is_in("new", &s[i]));
    }
    ck_assert_uint_eq(index_count(), 5);
    ck_assert_uint_ge(stat_of("batch_max"), 2);
}
END_TEST

/* Its session gives up, or has gone: nobody was told of it, whatever its name is. _i: how; and
 * whether the name is synced already, by another's sync. */
START_TEST(the_file_cannot_be_synced)
{
    struct session s = begin(R_SMTPD), other = begin(R_SMTPD);
    fill(&s, "alice@example.org", "text\r\n");
    fill(&other, "alice@example.org", "text\r\n");
    commit(&s);
    turn();
    ck_assert(is_in("new", &s));
    if (_i & 1) {
        bring(&other);
        ck_assert_int_eq(answer(&other, R_SMTPD), -1);
    }
    if (_i & 2)
        say(&s, M_QUEUE_ABORT);
    else
        close(s.channel);
    turn();
    ck_assert(!is_in("new", &s) && !is_in("tmp", &s));
    if (!(_i & 1)) {
        bring(&other);
        ck_assert_int_eq(answer(&other, R_SMTPD), -1);
    }
    ck_assert(is_in("new", &other));
    ck_assert_uint_eq(index_count(), 1);
    ck_assert_uint_eq(files("new"), 1);
}
END_TEST

/* What is synced is answered, what is not goes. */
START_TEST(told_to_stop)
{
    struct session s[3];
    begin_all(s, 3);
    bring(&s[0]);
    ck_assert_int_eq(answer(&s[0], R_SMTPD), -1);
    commit(&s[1]);
    turn();
    qmgr.loop.after_turn = NULL; /* the stop comes in this turn */
    bring(&s[2]);
    turn();
    ck_assert(!answered(&s[2]));
    intake_leave();
    ck_assert_int_eq(answer(&s[2], R_SMTPD), -1);
    ck_assert(is_in("new", &s[0]) && !is_in("new", &s[1]) && is_in("new", &s[2]));
    ck_assert(!answered(&s[1]));
}
END_TEST

/* SYNCED before COMMIT, or twice: the channel goes. After a refusal it says nothing. */
START_TEST(synced_out_of_turn)
{
    struct session s[3] = {begin(R_SMTPD), begin(R_SMTPD), begin(R_SMTPD)};
    char c;
    say(&s[0], M_QUEUE_SYNCED);
    fill(&s[1], "alice@example.org", "text\r\n");
    let_go(&s[1]);
    qmgr.loop.after_turn = NULL;
    say(&s[1], M_QUEUE_COMMIT);
    say(&s[1], M_QUEUE_SYNCED);
    say(&s[1], M_QUEUE_SYNCED);
    commit(&s[2]); /* nothing is in it */
    say(&s[2], M_QUEUE_SYNCED);
    turn();
    ck_assert_int_eq(recv(s[0].channel, &c, 1, MSG_DONTWAIT), 0);
    ck_assert_int_eq(recv(s[1].channel, &c, 1, MSG_DONTWAIT), 0);
    ck_assert(is_in("new", &s[1])); /* synced it is, though */
    ck_assert_int_eq(answer(&s[2], R_SMTPD), ERR_DAMAGED);
    ck_assert_int_eq(recv(s[2].channel, &c, 1, MSG_DONTWAIT), -1);
    ck_assert_uint_eq(files("tmp"), 0);
}
END_TEST

/* A later sync would look like a success: all go, and so does qmgr. _i: how many bring one. */
START_TEST(the_directory_cannot_be_synced)
{
    struct session s[3];
    begin_all(s, (size_t)_i);
    struct session named = begin(R_SMTPD); /* and its file is not synced yet */
    fill(&named, "alice@example.org", "text\r\n");
    commit(&named);
    turn();
    ck_assert(is_in("new", &named));
    for (int i = 0; i < _i; i++)
        bring(&s[i]);
    ck_assert(qmgr_leaves());
    for (int i = 0; i < _i; i++) {
        struct msg m = {0};
        struct err e = {0};
        ck_assert_int_eq(chan_recv(s[i].channel, &m, R_QMGR, R_SMTPD, 1000, &e), 1);
        ck_assert_int_eq(m.type, M_FAILED);
        ck_assert_uint_eq(msg_get_u32(&m), ERR_TEMPORARY);
        msg_free(&m);
    }
    ck_assert_uint_eq(files("new") + files("tmp"), 0);
}
END_TEST

static void
setup_intake(void)
{
    setup_with(NULL);
}

static int
the_directory_fails_slowly(int fd)
{
    (void)the_directory_is_slow(fd);
    return the_directory_fails(fd);
}

static void
setup_slow_failure(void)
{
    setup_with(the_directory_fails_slowly);
}

static void
setup_slow_directory(void)
{
    setup_with(the_directory_is_slow);
}

static void
setup_bad_directory(void)
{
    setup_with(the_directory_fails);
}

/* While the syncer is at it others come: the next sync is for them. A scan that comes by takes none
 * of them for an old one. */
START_TEST(while_a_sync_is_under_way)
{
    struct session s[4];
    begin_all(s, 4);
    commit(&s[3]);
    bring(&s[0]);
    turn();
    bring(&s[1]);
    bring(&s[2]);
    turn_ms(3);
    scan_start();
    turn();
    ck_assert_uint_eq(index_count(), 0);
    for (size_t i = 0; i < 3; i++)
        ck_assert_int_eq(answer(&s[i], R_SMTPD), -1);
    ck_assert_uint_eq(index_count(), 3);
    ck_assert_uint_eq(stat_of("syncs"), 2);
    say(&s[3], M_QUEUE_SYNCED);
    ck_assert_int_eq(answer(&s[3], R_SMTPD), -1);
    ck_assert_uint_eq(index_count(), 4);
}
END_TEST

/* The name is synced, and nothing else. */
START_TEST(a_scan_while_one_waits)
{
    struct session s[2];
    begin_all(s, 2);
    commit(&s[1]);
    turn();
    bring(&s[0]);
    ck_assert_int_eq(answer(&s[0], R_SMTPD), -1);
    scan_start();
    turn_ms(50);
    ck_assert_uint_eq(index_count(), 1);
}
END_TEST

START_TEST(told_to_stop_while_a_sync_is_under_way)
{
    struct session s[2];
    begin_all(s, 2);
    bring(&s[0]);
    turn();
    char c;
    intake_leave();
    ck_assert_int_eq(recv(s[0].channel, &c, 1, MSG_DONTWAIT | MSG_PEEK), 1);
    ck_assert_int_eq(answer(&s[0], R_SMTPD), -1);
    ck_assert(is_in("new", &s[0]));
}
END_TEST

/* One that was named while the sync was under way that then failed. */
START_TEST(named_when_the_directory_cannot_be_synced)
{
    struct session s[2];
    begin_all(s, 2);
    bring(&s[0]);
    turn();
    commit(&s[1]);
    turn();
    ck_assert(is_in("new", &s[1]));
    ck_assert(qmgr_leaves());
    ck_assert_uint_eq(files("new") + files("tmp"), 0);
}
END_TEST

/* It is in new/: it stays, whether anybody hears of it or not. */
START_TEST(a_session_that_goes_before_the_answer)
{
    struct session s = begin(R_SMTPD), other = begin(R_SMTPD);
    fill(&s, "alice@example.org", "text\r\n");
    bring(&s);
    close(s.channel);
    turn_ms(100);
    ck_assert(is_in("new", &s));
    ck_assert_uint_eq(index_count(), 1);
    close(other.channel);
    turn();
    ck_assert_uint_eq(files("tmp"), 0);
}
END_TEST

/* A second QUEUE_NEW gives the first message up. */
static void
ask_again(struct session *s)
{
    struct msg m = {0};
    msg_begin(&m, M_QUEUE_NEW);
    msg_put_u32(&m, 0);
    ck_assert_int_eq(msg_send(s->channel, &m), 0);
    msg_free(&m);
}

START_TEST(given_up_and_gone)
{
    struct session s[3] = {begin(R_SMTPD), begin(R_SUBMITD), begin(R_SMTPD)};
    ck_assert_uint_eq(files("tmp"), 3);
    say(&s[0], M_QUEUE_ABORT);
    close(s[1].channel);
    ask_again(&s[2]);
    turn();
    ck_assert_uint_eq(files("tmp"), 1);
    ck_assert(!is_in("tmp", &s[2]));
    say(&s[2], M_QUEUE_ABORT);
    turn();
    ck_assert_uint_eq(files("tmp") + files("new"), 0);
    say(&s[0], M_QUEUE_COMMIT);
    ck_assert_int_eq(answer(&s[0], R_SMTPD), ERR_PERMANENT);
}
END_TEST

/* Catalogue B: what it could still write after the check would be delivered unchecked. */
START_TEST(a_session_that_keeps_the_file_open)
{
    struct session s = begin(R_SMTPD);
    fill(&s, "alice@example.org", "text\r\n");
    say(&s, M_QUEUE_COMMIT);
    say(&s, M_QUEUE_SYNCED);
    int class = answer(&s, R_SMTPD);
    ck_assert_int_eq(class, qmgr.leases ? ERR_TEMPORARY : -1);
    ck_assert(is_in("new", &s) == !qmgr.leases);
    ck_assert_uint_eq(files("tmp"), 0);
}
END_TEST

/* What is no queue file, lacks its end, is too large, or may not go there. */
START_TEST(what_is_refused)
{
    struct session s = begin(R_SMTPD);
    ck_assert_int_eq(write(s.file, "rubbish", 7), 7);
    bring(&s);
    ck_assert_int_eq(answer(&s, R_SMTPD), ERR_DAMAGED);
    s = begin(R_SMTPD);
    fill(&s, "alice@example.org", "text\r\n");
    ck_assert_int_eq(write(s.file, "more", 4), 4);
    bring(&s);
    ck_assert_int_eq(answer(&s, R_SMTPD), ERR_DAMAGED);
    s = begin(R_SMTPD);
    fill(&s, "bob@elsewhere.example", "text\r\n");
    bring(&s);
    ck_assert_int_eq(answer(&s, R_SMTPD), ERR_PERMANENT);
    s = begin(R_SUBMITD);
    fill(&s, "bob@elsewhere.example", "text\r\n");
    bring(&s);
    ck_assert_int_eq(answer(&s, R_SUBMITD), -1);
    for (int over = 0; over < 2; over++) {
        conf.message_size_max = 6 - (uint64_t)over;
        s = begin(R_SMTPD);
        fill(&s, "alice@example.org", "text\r\n");
        bring(&s);
        ck_assert_int_eq(answer(&s, R_SMTPD), over ? ERR_PERMANENT : -1);
    }
    ck_assert_uint_eq(files("new"), 2);
    ck_assert_uint_eq(files("tmp"), 0);
    ck_assert_uint_eq(stat_of("commits_refused"), 4);
}
END_TEST

/* The file of another message under its name, as a file system without a journal may leave it. */
START_TEST(another_message)
{
    struct session s = begin(R_SMTPD), other = begin(R_SMTPD);
    char id[ID_LEN + 1];
    memcpy(id, s.id, sizeof id);
    memcpy(s.id, other.id, sizeof id);
    fill(&s, "alice@example.org", "text\r\n");
    memcpy(s.id, id, sizeof id);
    bring(&s);
    ck_assert_int_eq(answer(&s, R_SMTPD), ERR_DAMAGED);
    ck_assert(!is_in("new", &s));
}
END_TEST

/* What was in new/ at a start is checked whole before its first attempt; a byte of it is flipped,
 * or not: _i. */
START_TEST(found_at_the_start)
{
    char path[700];
    struct entry *entry = accept_message("s@example.com", alice, 1);
    snprintf(path, sizeof path, "%s/new/%.*s.s", dir, ID_LEN, entry->id);
    entry_drop(entry);
    int fd = open(path, O_RDWR);
    if (_i)
        ck_assert_int_eq(pwrite(fd, "X", 1, lseek(fd, -1, SEEK_END)), 1);
    close(fd);
    scan_start();
    turn_ms(50);
    ck_assert_uint_eq(index_count(), 1 - (size_t)_i);
    ck_assert_uint_eq(files("new"), 1 - (size_t)_i);
    ck_assert_uint_eq(files("corrupt"), (size_t)_i);
    ck_assert_uint_eq(qmgr.nactive, 1 - (size_t)_i);
}
END_TEST

/* Two at once, of a local user: what the first has is counted before it is accepted. */
START_TEST(a_user_at_the_limit)
{
    struct session s[2];
    char text[1100];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    conf.queue.user_messages_max = 2;
    conf.queue.user_size_max = 3 << 10;
    for (size_t i = 0; i < 2; i++) {
        ask(&s[i], R_SUBMITD, 1000);
        s[i] = take(s[i], R_SUBMITD);
        fill(&s[i], "alice@example.org", text); /* 2 KiB, counted by the KiB */
    }
    for (size_t i = 0; i < 2; i++) {
        commit(&s[i]);
        turn();
    }
    say(&s[0], M_QUEUE_SYNCED);
    ck_assert_int_eq(answer(&s[0], R_SUBMITD), -1);
    ck_assert_int_eq(answer(&s[1], R_SUBMITD), ERR_LIMIT);
    ck_assert_uint_eq(files("new"), 1);
    ck_assert_uint_eq(files("tmp"), 0);
    struct err e;
    ck_assert_int_eq(users_room(1000, 1, 1, &e), 0);
    ck_assert_int_eq(users_room(1000, 1, 2, &e), -1);
}
END_TEST

static ino_t want[2];
static size_t seen;

static int
note_two(int fd)
{
    struct stat about;
    if (fstat(fd, &about) == 0)
        for (size_t i = 0; i < 2; i++)
            seen |= (size_t)(about.st_ino == want[i]) << i;
    return 0;
}

/* A process before may have made directories there, and had no time to sync them. */
START_TEST(cur_and_journal_are_synced_at_the_start)
{
    struct err e;
    struct stat about;
    ck_assert_int_eq(fstat(qmgr.cur, &about), 0);
    want[0] = about.st_ino;
    ck_assert_int_eq(fstat(qmgr.journal, &about), 0);
    want[1] = about.st_ino;
    fault_sync(note_two);
    ck_assert_int_eq(store_open(dir, &e), 0);
    ck_assert_uint_eq(seen, 3);
}
END_TEST

/* Of a power cut before the sync an empty file may be left, under its name. */
START_TEST(an_empty_file_is_removed_at_the_start)
{
    char path[700];
    snprintf(path, sizeof path, "%s/new/3oc23rf4urypz2gimhkw.s", dir);
    close(open(path, O_WRONLY | O_CREAT, 0600));
    snprintf(path, sizeof path, "%s/hold/3oc23rf4urypz2gimhkx.s", dir);
    close(open(path, O_WRONLY | O_CREAT, 0600));
    struct entry *entry = accept_message("s@example.com", alice, 1);
    entry_drop(entry);
    scan_start();
    turn_ms(50);
    ck_assert_uint_eq(files("new"), 1);
    ck_assert_uint_eq(files("corrupt"), 0);
    ck_assert_uint_eq(files("hold"), 1); /* never one that the operator held */
    ck_assert_uint_eq(index_count(), 2);
}
END_TEST

Suite *suite_queue_intake(void);
Suite *
suite_queue_intake(void)
{
    Suite *s = suite_create("queue_intake");
    TCase *t = tcase_create("intake"), *directory = tcase_create("bad directory"),
          *slow = tcase_create("slow directory"), *late = tcase_create("slow failure");
    tcase_add_checked_fixture(t, setup_intake, teardown);
    tcase_add_test(t, the_file_and_then_its_name);
    tcase_add_test(t, the_name_and_then_its_file);
    tcase_add_test(t, several_at_once);
    tcase_add_loop_test(t, the_file_cannot_be_synced, 0, 4);
    tcase_add_test(t, told_to_stop);
    tcase_add_test(t, synced_out_of_turn);
    tcase_add_test(t, a_session_that_goes_before_the_answer);
    tcase_add_test(t, a_scan_while_one_waits);
    tcase_add_test(t, given_up_and_gone);
    tcase_add_test(t, a_session_that_keeps_the_file_open);
    tcase_add_test(t, what_is_refused);
    tcase_add_test(t, another_message);
    tcase_add_loop_test(t, found_at_the_start, 0, 2);
    tcase_add_test(t, a_user_at_the_limit);
    tcase_add_test(t, cur_and_journal_are_synced_at_the_start);
    tcase_add_test(t, an_empty_file_is_removed_at_the_start);
    suite_add_tcase(s, t);
    tcase_add_checked_fixture(directory, setup_bad_directory, teardown);
    tcase_add_loop_test(directory, the_directory_cannot_be_synced, 1, 4);
    suite_add_tcase(s, directory);
    tcase_add_checked_fixture(slow, setup_slow_directory, teardown);
    tcase_add_test(slow, while_a_sync_is_under_way);
    tcase_add_test(slow, told_to_stop_while_a_sync_is_under_way);
    suite_add_tcase(s, slow);
    tcase_add_checked_fixture(late, setup_slow_failure, teardown);
    tcase_add_test(late, named_when_the_directory_cannot_be_synced);
    suite_add_tcase(s, late);
    return s;
}
