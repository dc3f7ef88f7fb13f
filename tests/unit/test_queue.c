/* qmgr: store, journal, entries, bounces, and lanes with local played by the test. */
#include "lib/ipc/channel.h"
#include "lib/role/sockets.h"
#include "qmgr/journal.h"
#include "qmgr/qmgr.h"
#include "tests/unit/temp.h"
#include "tests/unit/unit.h"
#include <errno.h>
#include <sys/socket.h>
#include <sys/stat.h>

enum { JOURNAL_TEST_MAX = 100 };
static struct conf conf;
static struct start st;
static char *dir;
static int door; /* local's side */

static void
on_message(struct client *c, struct msg *m)
{
    if (c->role == R_LOCAL)
        route_message(c, m);
    else
        operate_message(c, m);
}

static void
on_gone(struct client *c)
{
    if (c->role == R_LOCAL)
        route_gone(c);
}

static void
setup(void)
{
    static struct conf_errors errors;
    struct err e = {0};
    int pair[2];
    temp_quiet();
    dir = temp_dir();
    ck_assert_int_eq(conf_parse(&conf, STR("c"),
                                STR("version 1\nhostname mx.example.org\ndomain example.org\n"
                                    "queue {\n retry 10s\n retry-max 20s\n expire 60s\n}\n"),
                                &errors),
                     0);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    st.role = R_QMGR;
    start_add_fd(&st, pair[0], "to.local");
    door = pair[1];
    qmgr.conf = &conf;
    qmgr.start = &st;
    ck_assert_msg(store_open(dir, &e) == 0, "%s", e.text);
    ck_assert_int_eq(loop_init(&qmgr.loop, NULL), 0);
    qmgr.service = (struct service){.clients_max = 50, .message = on_message, .gone = on_gone};
    ck_assert_int_eq(service_init(&qmgr.service, &qmgr.loop, &st), 0);
}

static void
teardown(void)
{
    temp_remove(dir);
}

static void
stop(struct loop_timer *t)
{
    (void)t;
    qmgr.loop.stop = true;
}

static void
turn_ms(int ms)
{
    struct loop_timer end = {.fire = stop};
    qmgr.loop.stop = false;
    loop_timer_set(&qmgr.loop, &end, now_ms() + ms);
    loop_run(&qmgr.loop);
}

static void
turn(void)
{
    turn_ms(15);
}

static size_t
files(const char *sub)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, sub);
    return temp_count(path);
}

/* A message in new/, and its entry. */
static struct entry *
accept_message(const char *sender, const char *const *rcpts, size_t n)
{
    static const char text[] = "Subject: hello\r\nX-Odd: \xff\r\n\r\nbody\r\n";
    char id[ID_LEN + 1];
    struct qfile_rcpt to[300];
    struct err e;
    struct buf b = buf_new(1 << 20);
    struct envelope env = {.sender = str_z(sender),
                           .origin = STR("smtp"),
                           .arrived_us = wall_us(),
                           .message_size = sizeof text - 1,
                           .rcpts = to,
                           .nrcpt = n};
    for (size_t i = 0; i < n; i++)
        to[i].address = str_z(rcpts[i]);
    store_new_id(id);
    int fd = store_create(id, &e);
    ck_assert_int_eq(qfile_write(&b, &env, &e), 0);
    buf_addz(&b, text);
    ck_assert_int_eq(write(fd, b.p, b.n), (ssize_t)b.n);
    close(fd);
    buf_free(&b);
    ck_assert_int_eq(store_commit_name(id, 's'), 0);
    return entry_add(id, 's', PLACE_NEW, wall_s());
}

static struct message *
load(struct entry *entry)
{
    struct err e = {0};
    struct message *m = message_load(entry, &e);
    ck_assert_msg(m != NULL, "%s", e.text);
    return m;
}

static const char *const alice[] = {"alice@example.org"};
static const char *const both[] = {"alice@example.org", "bob@example.org"};

START_TEST(ids_sort_and_are_checked)
{
    char id[ID_LEN + 1], next[ID_LEN + 1];
    store_new_id(id);
    usleep(2000);
    store_new_id(next);
    ck_assert(strcmp(id, next) < 0);
    ck_assert(store_id_ok(str_z(id)));
    ck_assert(!store_id_ok(STR("../../../etc/passwd0")));
    ck_assert(!store_id_ok(str_sub(str_z(id), 0, ID_LEN - 1)));
    id[3] = '1';
    ck_assert(!store_id_ok(str_z(id)));
    id[3] = '\0';
    ck_assert(!store_id_ok(str_of(id, ID_LEN)));
}
END_TEST

START_TEST(entries_page_in_order)
{
    struct entry *page[10];
    char id[ID_LEN + 1];
    bool more;
    for (int i = 0; i < 5000; i++) {
        store_new_id(id);
        ck_assert_ptr_nonnull(entry_add(id, 's', PLACE_NEW, 0));
        ck_assert_ptr_nonnull(entry_find(str_z(id)));
    }
    ck_assert_ptr_null(entry_find(STR("")));
    struct str after = STR("");
    size_t seen = 0;
    do {
        size_t n = entry_page(after, page, 10, &more);
        for (size_t i = 0; i < n; i++)
            ck_assert(i == 0 || memcmp(page[i - 1]->id, page[i]->id, ID_LEN) < 0);
        seen += n;
        after = str_of(page[n - 1]->id, ID_LEN);
    } while (more && seen < 200);
    ck_assert_uint_eq(seen, 200);
    while (entry_count()) {
        entry_page(STR(""), page, 1, &more);
        entry_drop(page[0]);
    }
    ck_assert_uint_eq(entry_page(STR(""), page, 10, &more), 0);
    ck_assert(!more);
}
END_TEST

START_TEST(new_to_cur_to_nothing)
{
    struct entry *entry = accept_message("s@example.com", alice, 1);
    size_t before = temp_fds();
    entry->due_s = wall_s() + 100;
    ck_assert_int_eq(store_defer(entry), 0);
    ck_assert_int_eq(store_defer(entry), 0);
    ck_assert_uint_eq(files("new"), 0);
    ck_assert_uint_eq(files("cur"), 1);
    struct message *m = load(entry);
    struct buf b = buf_new(1000);
    struct err e;
    journal_put_attempt(&b, 7);
    ck_assert_int_eq(journal_append(m, &b, true, &e), 0);
    message_free(m);
    entry->attempts = 0;
    m = load(entry);
    ck_assert_uint_eq(entry->attempts, 7);
    store_remove(entry, m->journaled);
    message_free(m);
    ck_assert_ptr_null(message_load(entry, &e));
    ck_assert_int_eq(e.class, ERR_CLOSED);
    ck_assert_uint_eq(temp_fds(), before);
    buf_free(&b);
}
END_TEST

static void
journal_path(const struct entry *entry, char path[160])
{
    snprintf(path, 160, "%s/journal/%.2s/%.*s", dir, entry->id + ID_LEN - 2, ID_LEN, entry->id);
}

static struct buf
records(struct message *m)
{
    struct buf b = buf_new(1 << 16);
    ck_assert_int_eq(message_add_rcpt(m, STR("carol@example.net")), 0);
    ck_assert_int_eq(message_add_rcpt(m, STR("BOB@example.org")), 0); /* known */
    ck_assert_int_eq(message_add_rcpt(m, STR("")), -1);
    journal_put_expanded(&b, 0, m->rcpts + 2, m->nrcpt - 2);
    journal_put_rcpt(&b, 1, RCPT_DONE);
    journal_put_deferred(&b, 2, STR("busy"));
    journal_put_attempt(&b, 3);
    return b;
}

START_TEST(a_journal_is_replayed)
{
    struct entry *entry = accept_message("s@example.com", both, 2);
    struct err e;
    struct message *m = load(entry);
    struct buf b = records(m);
    ck_assert_int_eq(journal_append(m, &b, true, &e), 0);
    message_free(m);
    m = load(entry);
    ck_assert_uint_eq(m->nrcpt, 3);
    ck_assert_int_eq(m->rcpts[0]->state, RCPT_DONE);
    ck_assert_int_eq(m->rcpts[1]->state, RCPT_DONE);
    ck_assert_int_eq(m->rcpts[2]->state, RCPT_TODO);
    ck_str(m->rcpts[2]->address, "carol@example.net");
    ck_str(m->rcpts[2]->text, "busy");
    ck_assert_uint_eq(entry->attempts, 3);
    message_free(m);
    buf_free(&b);
}
END_TEST

/* Flipped anywhere or cut anywhere: what stands before it counts, what is appended later too. */
START_TEST(a_damaged_journal_is_cut)
{
    struct entry *entry = accept_message("s@example.com", both, 2);
    struct err e;
    char path[160];
    struct message *m = load(entry);
    struct buf b = records(m), after = buf_new(100);
    ck_assert_int_eq(journal_append(m, &b, true, &e), 0);
    message_free(m);
    journal_path(entry, path);
    journal_put_attempt(&after, 99);
    for (size_t i = 0; i < 2 * b.n; i++) {
        int fd = open(path, O_WRONLY | O_TRUNC);
        ck_assert_int_eq(write(fd, b.p, i < b.n ? b.n : i - b.n),
                         (ssize_t)(i < b.n ? b.n : i - b.n));
        char flipped = (char)(b.p[i % b.n] ^ 0x41);
        if (i < b.n)
            ck_assert_int_eq(pwrite(fd, &flipped, 1, (off_t)i), 1);
        close(fd);
        m = load(entry);
        ck_assert_uint_le(m->nrcpt, 3);
        ck_assert_int_eq(journal_append(m, &after, true, &e), 0);
        message_free(m);
        m = load(entry);
        ck_assert_uint_eq(entry->attempts, 99);
        message_free(m);
    }
    buf_free(&b);
    buf_free(&after);
}
END_TEST

START_TEST(expansion_at_its_ceiling)
{
    struct entry *entry = accept_message("s@example.com", alice, 1);
    struct message *m = load(entry);
    char z[64];
    for (int i = 1; i < EXPANDED_MAX; i++) {
        snprintf(z, sizeof z, "u%d@example.net", i);
        ck_assert_int_eq(message_add_rcpt(m, str_z(z)), 0);
    }
    ck_assert_int_eq(message_add_rcpt(m, STR("one@too.many")), -1);
    ck_assert_int_eq(message_add_rcpt(m, STR("u1@example.net")), 0);
    message_free(m);
}
END_TEST

static struct buf
only_file_in(const char *sub)
{
    char path[600];
    struct buf b = buf_new(1 << 20);
    snprintf(path, sizeof path, "%s/%s", dir, sub);
    DIR *d = opendir(path);
    for (struct dirent *x; (x = readdir(d));)
        if (x->d_name[0] != '.') {
            snprintf(path, sizeof path, "%s/%s/%s", dir, sub, x->d_name);
            int fd = open(path, O_RDONLY);
            char *to = buf_reserve(&b, 100000);
            ssize_t n = read(fd, to, 100000);
            ck_assert_int_gt(n, 0);
            buf_commit(&b, (size_t)n);
            close(fd);
        }
    closedir(d);
    return b;
}

START_TEST(a_bounce_tells_what_failed)
{
    struct entry *entry = accept_message("s@example.com", both, 2);
    struct err e = {0};
    struct message *m = load(entry);
    entry->due_s = wall_s();
    ck_assert_int_eq(store_defer(entry), 0);
    m->open = 2;
    message_outcome(m, m->rcpts[0], OUTCOME_DONE, STR("2.0.0"), STR("ok"), STR("local"));
    message_outcome(m, m->rcpts[1], OUTCOME_NEVER, STR("5.1.1"),
                    STR("no\r\nFinal-Recipient: x\xff"), STR("local"));
    ck_assert_uint_eq(m->open, 0);
    ck_assert_msg(bounce_send(m, &e) == 0, "%s", e.text);
    struct buf b = only_file_in("new");
    struct str text = buf_str(&b);
    static const char *const wanted[] = {
        "To: <s@example.com>\r\n",
        "Content-Type: multipart/report; report-type=delivery-status;",
        "Reporting-MTA: dns; mx.example.org\r\n",
        "Final-Recipient: rfc822; bob@example.org\r\nAction: failed\r\nStatus: 5.1.1\r\n",
        "Diagnostic-Code: smtp; no\\x0D\\x0AFinal-Recipient: x\\xFF\r\n",
        "Auto-Submitted: auto-replied\r\n",
        "Content-Type: text/rfc822-headers\r\n\r\nSubject: hello\r\nX-Odd: ?\r\n",
    };
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++)
        ck_assert_msg(str_find(text, str_z(wanted[i])) >= 0, "%s not in %.*s", wanted[i],
                      (int)text.n, text.p);
    ck_assert_int_lt(str_find(text, STR("alice")), 0);
    ck_assert_int_lt(str_find(text, STR("body\r\n")), 0);
    buf_free(&b);
    message_free(m);
    ck_assert_uint_eq(entry_count(), 2);
}
END_TEST

START_TEST(the_null_sender_gets_none)
{
    struct entry *entry = accept_message("", alice, 1);
    struct message *m = load(entry);
    m->open = 1;
    message_outcome(m, m->rcpts[0], OUTCOME_NEVER, STR("5.1.1"), STR("no"), STR("local"));
    message_settle(m);
    ck_assert_uint_eq(entry_count(), 0);
    ck_assert_uint_eq(files("new") + files("cur"), 0);
}
END_TEST

START_TEST(damage_is_put_aside)
{
    struct entry *entry = accept_message("s@example.com", alice, 1);
    struct entry *deferred = accept_message("s@example.com", alice, 1);
    store_defer(deferred);
    int fd = openat(qmgr.new, ".", O_RDONLY | O_DIRECTORY);
    char name[ID_LEN + 3];
    snprintf(name, sizeof name, "%.*s.s", ID_LEN, entry->id);
    int file = openat(fd, name, O_WRONLY);
    ck_assert_int_eq(pwrite(file, "X", 1, 0), 1);
    close(file);
    close(fd);
    message_start(entry);
    ck_assert_uint_eq(files("corrupt"), 1);
    ck_assert_uint_eq(files("new"), 0);
    store_quarantine(deferred, "for the test");
    ck_assert_uint_eq(files("corrupt"), 2);
}
END_TEST

/* Local, played. */
static int
take_lane(void)
{
    struct msg m = {0};
    struct err e;
    ck_assert_int_eq(chan_recv(door, &m, R_QMGR, R_LOCAL, 0, &e), 1);
    ck_assert_int_eq(m.type, M_DOOR_OPEN);
    int lane = msg_take_fd(&m, 0);
    ck_assert_int_eq(chan_recv(lane, &m, R_QMGR, R_LOCAL, 0, &e), 1);
    ck_assert_int_eq(m.type, M_ROUTE);
    msg_free(&m);
    return lane;
}

/* A DELIVER: how many recipients, and their indexes. */
static uint32_t
take_job(int lane, uint32_t *index_r, bool *again_r)
{
    struct msg m = {0};
    struct err e = {0};
    ck_assert_msg(chan_recv(lane, &m, R_QMGR, R_LOCAL, 0, &e) == 1, "%s", e.text);
    ck_assert_int_eq(m.type, M_DELIVER);
    (void)msg_get_str(&m), (void)msg_get_str(&m);
    (void)msg_get_u64(&m), (void)msg_get_u64(&m), (void)msg_get_u64(&m);
    *again_r = msg_get_bool(&m);
    (void)msg_get_u32(&m);
    uint32_t n = msg_get_u32(&m);
    for (uint32_t i = 0; i < n; i++) {
        index_r[i] = msg_get_u32(&m);
        (void)msg_get_str(&m);
    }
    ck_assert(msg_end(&m));
    msg_free(&m);
    return n;
}

static void
outcome(int lane, uint32_t index, enum outcome what)
{
    struct msg m = {0};
    msg_begin(&m, M_OUTCOME);
    msg_put_u32(&m, index);
    msg_put_u32(&m, what);
    msg_put_str(&m, STR("2.0.0"));
    msg_put_str(&m, STR("text"));
    msg_put_str(&m, STR(""));
    ck_assert_int_eq(msg_send(lane, &m), 0);
    msg_free(&m);
}

static void
expand(int lane, uint32_t index, const char *const *to, uint32_t n)
{
    struct msg m = {0};
    msg_begin(&m, M_EXPAND);
    msg_put_u32(&m, index);
    msg_put_u32(&m, n);
    for (uint32_t i = 0; i < n; i++)
        msg_put_str(&m, str_z(to[i]));
    ck_assert_int_eq(msg_send(lane, &m), 0);
    msg_free(&m);
}

static bool
closed(int lane)
{
    char c;
    turn();
    return recv(lane, &c, 1, MSG_DONTWAIT) == 0;
}

START_TEST(delivered_and_gone)
{
    uint32_t index[JOURNAL_TEST_MAX];
    bool again;
    message_start(accept_message("s@example.com", both, 2));
    turn();
    int lane = take_lane();
    ck_assert_uint_eq(take_job(lane, index, &again), 2);
    outcome(lane, index[0], OUTCOME_DONE);
    outcome(lane, index[1], OUTCOME_DONE);
    turn();
    ck_assert_uint_eq(entry_count(), 0);
    ck_assert_uint_eq(qmgr.nactive, 0);
    ck_assert_uint_eq(files("new") + files("cur") + files("journal"), 0);
}
END_TEST

START_TEST(one_done_one_later)
{
    uint32_t index[JOURNAL_TEST_MAX];
    bool again;
    struct entry *entry = accept_message("s@example.com", both, 2);
    message_start(entry);
    turn();
    int lane = take_lane();
    ck_assert_uint_eq(take_job(lane, index, &again), 2);
    outcome(lane, 0, OUTCOME_DONE);
    outcome(lane, 1, OUTCOME_LATER);
    turn();
    ck_assert_uint_eq(files("cur"), 1);
    ck_assert_uint_eq(entry->attempts, 1);
    ck_assert(entry->due_s >= wall_s() + 9 && entry->due_s <= wall_s() + 12);
    message_start(entry);
    turn();
    ck_assert_uint_eq(take_job(lane, index, &again), 1);
    ck_assert_uint_eq(index[0], 1);
    ck_assert(again);
    outcome(lane, 1, OUTCOME_DONE);
    turn();
    ck_assert_uint_eq(entry_count(), 0);
}
END_TEST

START_TEST(an_alias_is_recorded_first)
{
    static const char *const to[] = {"\\alice@example.org", "carol@example.org"};
    uint32_t index[JOURNAL_TEST_MAX];
    bool again;
    struct entry *entry = accept_message("s@example.com", alice, 1);
    message_start(entry);
    turn();
    int lane = take_lane();
    take_job(lane, index, &again);
    expand(lane, 0, to, 1);
    expand(lane, 0, to + 1, 1);
    outcome(lane, 0, OUTCOME_EXPANDED);
    turn();
    ck_assert_uint_eq(files("journal"), 1);
    struct message *copy = load(entry); /* as a successor would find it */
    ck_assert_uint_eq(copy->nrcpt, 3);
    ck_assert_int_eq(copy->rcpts[0]->state, RCPT_DONE);
    copy->entry = NULL;
    message_free(copy);
    ck_assert_uint_eq(take_job(lane, index, &again), 2);
    outcome(lane, 1, OUTCOME_DONE);
    outcome(lane, 2, OUTCOME_DONE);
    turn();
    ck_assert_uint_eq(entry_count(), 0);
}
END_TEST

/* Each closes that lane, and the job goes to another; after three the message waits. */
static void
misbehave(int lane, int how)
{
    static const char *const to[] = {"x@example.org"};
    struct err e;
    switch (how) {
    case 0:
        outcome(lane, 77, OUTCOME_DONE);
        break;
    case 1:
        outcome(lane, 0, 4);
        break;
    case 2:
        outcome(lane, 0, OUTCOME_EXPANDED);
        break;
    case 3:
        expand(lane, 9, to, 1);
        break;
    case 4:
        ck_assert_int_ge(chan_open(lane, NULL, &e), 0);
        break;
    case 5:
        ck_assert_int_eq(send(lane, "", 0, 0), 0);
        break;
    case 6:
        ck_assert_int_eq(send(lane, "junk", 4, 0), 4);
        break;
    default:
        shutdown(lane, SHUT_RDWR);
    }
}

START_TEST(a_lane_that_breaks_the_rules)
{
    uint32_t index[JOURNAL_TEST_MAX];
    bool again;
    struct entry *entry = accept_message("s@example.com", alice, 1);
    message_start(entry);
    turn();
    for (int i = 0; i < 3; i++) {
        int lane = take_lane();
        take_job(lane, index, &again);
        ck_assert(again == true);
        misbehave(lane, _i);
        ck_assert(closed(lane));
        close(lane);
        turn_ms(130);
    }
    ck_assert_ptr_null(entry->active);
    ck_assert_uint_eq(entry->attempts, 1);
    ck_assert_uint_eq(qmgr.service.nclients, 0);
}
END_TEST

/* The process at the other end of an idle lane has just gone: that is nobody's failure. */
START_TEST(a_lane_that_has_just_gone)
{
    uint32_t index[JOURNAL_TEST_MAX];
    bool again;
    message_start(accept_message("s@example.com", alice, 1));
    turn();
    int lane = take_lane();
    take_job(lane, index, &again);
    outcome(lane, 0, OUTCOME_DONE);
    turn();
    close(lane);
    struct entry *entry = accept_message("s@example.com", alice, 1);
    message_start(entry);
    turn_ms(150);
    lane = take_lane();
    ck_assert_uint_eq(take_job(lane, index, &again), 1);
    ck_assert_uint_eq(entry->attempts, 0);
    outcome(lane, 0, OUTCOME_DONE);
    turn();
    ck_assert_uint_eq(entry_count(), 0);
    turn_ms(2100); /* idle: closed by us, and a job in that very turn finds another */
    ck_assert(closed(lane));
}
END_TEST

START_TEST(many_recipients_go_in_parts)
{
    static char names[120][32];
    const char *to[120];
    uint32_t index[JOURNAL_TEST_MAX];
    bool again;
    size_t got = 0;
    for (int i = 0; i < 120; i++) {
        snprintf(names[i], sizeof names[i], "u%d@example.org", i);
        to[i] = names[i];
    }
    message_start(accept_message("s@example.com", to, 120));
    turn();
    for (int i = 0; i < 3; i++) {
        int lane = take_lane();
        uint32_t n = take_job(lane, index, &again);
        ck_assert_uint_le(n, 50);
        for (uint32_t k = 0; k < n; k++, got++)
            outcome(lane, index[k], OUTCOME_DONE);
        turn();
    }
    ck_assert_uint_eq(got, 120);
    ck_assert_uint_eq(entry_count(), 0);
}
END_TEST

START_TEST(the_file_goes_while_it_waits)
{
    struct entry *entry = accept_message("s@example.com", alice, 1);
    message_start(entry);
    store_remove(entry, false);
    turn();
    ck_assert_ptr_null(entry->active);
    ck_assert_uint_eq(qmgr.nactive, 0);
    message_start(entry);
    ck_assert_uint_eq(entry_count(), 0);
}
END_TEST

Suite *suite_queue(void);
Suite *
suite_queue(void)
{
    Suite *s = suite_create("queue");
    TCase *t = tcase_create("queue");
    tcase_set_timeout(t, 300);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, ids_sort_and_are_checked);
    tcase_add_test(t, entries_page_in_order);
    tcase_add_test(t, new_to_cur_to_nothing);
    tcase_add_test(t, a_journal_is_replayed);
    tcase_add_test(t, a_damaged_journal_is_cut);
    tcase_add_test(t, expansion_at_its_ceiling);
    tcase_add_test(t, a_bounce_tells_what_failed);
    tcase_add_test(t, the_null_sender_gets_none);
    tcase_add_test(t, damage_is_put_aside);
    tcase_add_test(t, delivered_and_gone);
    tcase_add_test(t, one_done_one_later);
    tcase_add_test(t, an_alias_is_recorded_first);
    tcase_add_loop_test(t, a_lane_that_breaks_the_rules, 0, 8);
    tcase_add_test(t, a_lane_that_has_just_gone);
    tcase_add_test(t, many_recipients_go_in_parts);
    tcase_add_test(t, the_file_goes_while_it_waits);
    suite_add_tcase(s, t);
    return s;
}
