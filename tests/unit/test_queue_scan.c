/* qmgr: what a start finds in the queue's directories. */
#include "tests/unit/fault_calls.h"
#include "tests/unit/queue_world.h"
#include <sys/resource.h>

static void
put_file(const char *sub, const char *name, int64_t wait_s)
{
    char path[700];
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = clock_wall_s() + wait_s}};
    snprintf(path, sizeof path, "%s/%s/%s", dir, sub, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
    ck_assert_msg(fd >= 0, "%s", path);
    ck_assert_int_eq(write(fd, "x", 1), 1);
    ck_assert_int_eq(futimens(fd, times), 0);
    close(fd);
}

static void
make_dir(const char *sub)
{
    char path[700];
    snprintf(path, sizeof path, "%s/%s", dir, sub);
    ck_assert(mkdir(path, 0700) == 0 || errno == EEXIST);
}

static void
scan(void)
{
    scan_start();
    turn_ms(60);
}

static struct entry *
found(const char *name)
{
    return index_find(str_of(name, ID_LEN));
}

/* Other names may be anything: they stay. */
START_TEST(names_that_are_ours)
{
    static const char *const ours[] = {
        "2222222222222222222a.s",      "2222222222222222222b.u",
        "2222222222222222222c.l",      "2222222222222222222d.b",
        "2222222222222222222e.u.1000", "2222222222222222222f.u.4294967295",
        "2222222222222222222g.s",
    };
    static const char *const others[] = {
        "2222222222222222222h",          "2222222222222222222h.",
        "2222222222222222222h.x",        "2222222222222222222h-s",
        "2222222222222222222h.ss",       "2222222222222222222h.s.1000",
        "2222222222222222222h.u1000",    "2222222222222222222h.u.",
        "2222222222222222222h.u.0",      "2222222222222222222h.u.01",
        "2222222222222222222h.u.1x",     "2222222222222222222h.u.4294967296",
        "2222222222222222222h.u.-1",     "2222222222222222222h.u-1000",
        "222222222222222222.s",          "22222222222222222222h.s",
        "222222222222222222_h.s",        "222222222222222222Ah.s",
        "2222222222222222222h.u.1000.1",
    };
    enum { OURS = sizeof ours / sizeof ours[0], OTHERS = sizeof others / sizeof others[0] };
    char path[700];
    for (size_t i = 0; i < OURS; i++)
        put_file("hold", ours[i], 0);
    for (size_t i = 0; i < OTHERS; i++)
        put_file("hold", others[i], 0);
    snprintf(path, sizeof path, "hold/2222222222222222222i.s");
    make_dir(path);
    scan();
    for (size_t i = 0; i < OURS; i++) {
        const struct entry *entry = found(ours[i]);
        ck_assert_msg(entry != NULL, "%s", ours[i]);
        ck_assert_str_eq(store_name(entry), ours[i]);
        ck_assert_int_eq(entry->state, ENTRY_HELD);
    }
    ck_assert_uint_eq(index_count(), OURS);
    ck_assert_uint_eq(files("hold"), OURS + OTHERS + 1);
}
END_TEST

/* What a user has in the queue is counted again. */
START_TEST(users_are_counted)
{
    struct err e = {0};
    char path[700];
    conf.queue.user_messages_max = 2;
    conf.queue.user_size_max = 100 << 10;
    put_file("hold", "2222222222222222222a.u.1000", 0);
    put_file("hold", "2222222222222222222b.u", 0);
    snprintf(path, sizeof path, "%s/hold/2222222222222222222a.u.1000", dir);
    ck_assert_int_eq(truncate(path, 50 << 10), 0);
    scan();
    ck_assert_int_eq(users_room(1000, 1, 49, &e), 0);
    ck_assert_int_eq(users_room(1000, 1, 50, &e), -1);
    ck_assert_int_eq(users_room(1000, 2, 1, &e), -1);
}
END_TEST

/* Each at its time; a time that no back-off reaches was written by a wrong clock. */
START_TEST(each_at_its_time)
{
    static const char *const absurd[] = {"2222222222222222bb22.s", "2222222222222222bb23.s",
                                         "2222222222222222bb24.s", "2222222222222222bb25.s"};
    int64_t now = clock_steady_s(), first = -1;
    bool spread = false;
    char sub[60];
    for (size_t i = 0; i < 4; i++) {
        snprintf(sub, sizeof sub, "cur/2%zu", i + 2);
        make_dir(sub);
        put_file(sub, absurd[i], 10 * 365 * 86400ll);
    }
    put_file("cur/22", "2222222222222222aa22.s", 15);
    put_file("cur/22", "2222222222222222ab22.s", 22); /* retry-max is 20s, and a tenth */
    put_file("cur/22", "2222222222222222ac22.s", -1000);
    put_file("new", "2222222222222222ad22.s", 15);
    put_file("hold", "2222222222222222ae22.s", 15);
    scan();
    ck_assert_int_eq(found("2222222222222222aa22")->state, ENTRY_WAITS);
    ck_assert(found("2222222222222222aa22")->due_s - now >= 14 &&
              found("2222222222222222aa22")->due_s - now <= 16);
    ck_assert(found("2222222222222222ab22")->due_s - now >= 21);
    for (size_t i = 0; i < 4; i++) {
        int64_t wait_s = found(absurd[i])->due_s - now;
        ck_assert(wait_s >= 0 && wait_s <= 21);
        spread = spread || (i && (wait_s < first - 1 || wait_s > first + 1));
        first = i ? first : wait_s;
    }
    ck_assert(spread);
    /* Their time had come: they are no messages, and are put aside. */
    ck_assert_ptr_null(found("2222222222222222ac22"));
    ck_assert_ptr_null(found("2222222222222222ad22"));
    ck_assert_uint_eq(files("corrupt"), 2);
    ck_assert_int_eq(found("2222222222222222ae22")->state, ENTRY_HELD);
}
END_TEST

/* What was accepted before the scan came to it is there once. */
START_TEST(what_is_known_already)
{
    struct entry *entry = accept_message("s@example.com", alice, 1);
    entry->due_s = clock_steady_s() + 15;
    entry_wait(entry);
    scan();
    ck_assert_uint_eq(index_count(), 1);
    ck_assert_ptr_eq(index_find(str_of(entry->id, ID_LEN)), entry);
    ck_assert_int_eq(entry->state, ENTRY_WAITS);
}
END_TEST

/* As a session does it, as far as the commit. */
static void
commit(struct client *c, int session)
{
    struct msg m = {0};
    struct err e = {0};
    struct buf b = buf_new(1 << 20);
    struct qfile_rcpt to = {.address = STR("alice@example.org")};
    struct envelope env = {.origin = STR("smtp"), .rcpts = &to, .nrcpt = 1};
    msg_begin(&m, M_QUEUE_NEW);
    msg_put_u32(&m, 0);
    intake_message(c, &m);
    ck_assert_int_eq(chan_recv(session, &m, R_QMGR, R_SMTPD, 1000, &e), 1);
    ck_assert_int_eq(m.type, M_QUEUE_FILE);
    ck_assert_int_eq(qfile_whole(&b, msg_get_str(&m), &env, STR("text\r\n"), &e), 0);
    int file = msg_take_fd(&m, 0);
    ck_assert_int_eq(write(file, b.p, b.n), (ssize_t)b.n);
    close(file);
    close(msg_take_fd(&m, 1));
    msg_begin(&m, M_QUEUE_COMMIT);
    intake_message(c, &m);
    msg_free(&m);
    buf_free(&b);
}

/* It has its name, and becomes a message when that is durable: not by way of the scan, too. */
START_TEST(what_is_being_committed)
{
    int pair[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    struct client *c = service_adopt(&qmgr.service, pair[0], R_SMTPD, NULL);
    commit(c, pair[1]);
    ck_assert_uint_eq(files("new"), 1);
    scan();
    ck_assert_uint_eq(index_count(), 0);
    ck_assert_uint_eq(files("new"), 1);
}
END_TEST

static bool
in_tmp(const char *name)
{
    char path[700];
    snprintf(path, sizeof path, "%s/tmp/%s", dir, name);
    return access(path, F_OK) == 0;
}

/* Of sessions that have gone, also when the clock was ahead then; those of our own life go on
 * writing. */
START_TEST(half_written_ones_go)
{
    enum { MANY = 1200 };
    char before[ID_LEN + 1], ahead[ID_LEN + 1], ours[ID_LEN + 1], name[40];
    size_t fds = temp_fds();
    for (int i = 0; i < MANY; i++) {
        snprintf(name, sizeof name, "junk%d", i);
        put_file("tmp", name, 0);
    }
    put_file("tmp", "zzzzzzzzzzzzzzzzzzzzz", 0);
    store_new_id(before);
    put_file("tmp", before, 0);
    clock_shift.wall_s = 10 * 365 * 86400;
    store_new_id(ahead);
    put_file("tmp", ahead, 0);
    clock_shift.wall_s = 0;
    scan_start();
    clock_shift.wall_s = -10;
    store_new_id(ours);
    put_file("tmp", ours, 0);
    turn_ms(100);
    clock_shift.wall_s = 0;
    ck_assert(!in_tmp(before));
    ck_assert(!in_tmp(ahead));
    ck_assert(in_tmp(ours));
    ck_assert_uint_eq(files("tmp"), 1);
    ck_assert_uint_eq(temp_fds(), fds);
}
END_TEST

/* A message of a user and its journal, a journal alone, and what is none. */
static const char kept[] = "2222222222222222aa22", alone[] = "2222222222222222ab22",
                  odd[] = "2222222222222222_b22";

static void
put_journals(void)
{
    char name[ID_LEN + 10];
    snprintf(name, sizeof name, "%s.u.1000", kept);
    make_dir("cur/22");
    put_file("cur/22", name, 15);
    make_dir("journal/22");
    put_file("journal/22", kept, 0);
    put_file("journal/22", alone, 0);
    put_file("journal/22", odd, 0);
    put_file("journal", "junk", 0);
}

static bool
has_journal(const char *id)
{
    char path[700];
    snprintf(path, sizeof path, "%s/journal/22/%s", dir, id);
    return access(path, F_OK) == 0;
}

/* Whatever else lies about is not read, and keeps nothing from being done. */
START_TEST(a_journal_alone)
{
    char path[700], to[700];
    put_journals();
    put_file("cur", "junk", 0);
    make_dir("elsewhere");
    put_file("elsewhere", "2222222222222222ac33.s", 0);
    snprintf(path, sizeof path, "%s/cur/33", dir);
    snprintf(to, sizeof to, "%s/elsewhere", dir);
    ck_assert_int_eq(symlink(to, path), 0);
    scan();
    ck_assert(has_journal(kept));
    ck_assert(!has_journal(alone));
    ck_assert(has_journal(odd));
    ck_assert_uint_eq(index_count(), 1);
}
END_TEST

/* What goes while it is looked at is known to who moved it. */
static bool
moved_away(const char *name, const char *x)
{
    if (x && strcmp(name, "22") == 0 && str_ends(str_z(x), STR(".u.1000"))) {
        int sub = store_subdir(qmgr.cur, kept, false);
        (void)!renameat(sub, x, qmgr.corrupt, kept);
        close(sub);
    }
    return false;
}

START_TEST(moved_while_it_is_looked_at)
{
    put_journals();
    fault_readdir(moved_away);
    scan();
    fault_readdir(NULL);
    ck_assert_uint_eq(index_count(), 0);
    ck_assert_uint_eq(files("corrupt"), 1);
    ck_assert(!has_journal(alone));
}
END_TEST

static int saved_cur, devnull;

/* The directory cannot be opened. */
static bool
not_opened(const char *name, const char *x)
{
    if (!x && strcmp(name, "new") == 0)
        qmgr.cur = devnull;
    if (!x && strcmp(name, "journal") == 0)
        qmgr.cur = saved_cur;
    return false;
}

static struct rlimit full;

/* What is below it cannot. */
static bool
not_entered(const char *name, const char *x)
{
    if (x && strcmp(name, "cur") == 0) {
        struct rlimit none = {3, full.rlim_max};
        ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, strcmp(x, "22") == 0 ? &none : &full), 0);
        return strcmp(x, "22") != 0;
    }
    return false;
}

/* The descriptor of cur/22, while it is read; or -1. */
static int
cur_22(void)
{
    char link[64], path[600];
    for (int fd = 3; fd < 100; fd++) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t n = readlink(link, path, sizeof path - 1);
        if (n > 7 && memcmp(path + n - 7, "/cur/22", 7) == 0)
            return fd;
    }
    return -1;
}

/* It is opened, and cannot be read to its end. */
static bool
not_read(const char *name, const char *x)
{
    int fd = x && strcmp(name, "22") == 0 ? cur_22() : -1;
    if (fd >= 0)
        ck_assert_int_eq(dup2(devnull, fd), fd);
    return x && str_ends(str_z(x), STR(".u.1000"));
}

/* A name in it cannot be looked at. */
static bool
not_seen(const char *name, const char *x)
{
    static int broken = -1, copy;
    if (broken >= 0) {
        ck_assert_int_eq(dup2(copy, broken), broken);
        close(copy);
        broken = -1;
    }
    if (x && strcmp(name, "22") == 0 && str_ends(str_z(x), STR(".u.1000"))) {
        broken = cur_22();
        copy = dup(broken);
        ck_assert_int_eq(dup2(devnull, broken), broken);
    }
    return false;
}

/* As long as something may have been missed, what looks alone may not be. */
START_TEST(something_cannot_be_read)
{
    static bool (*const hide[])(const char *, const char *) = {not_opened, not_entered, not_read,
                                                               not_seen};
    char name[60];
    make_dir("cur/22");
    for (int i = 0; i < 20; i++) { /* before it and behind it, in whatever order they are read */
        snprintf(name, sizeof name, "cur/%c%d", i < 10 ? 'y' : 'z', i % 10);
        make_dir(name);
        put_file("cur/22", name + 4, 0);
        if (i == 9)
            put_journals();
    }
    saved_cur = qmgr.cur;
    devnull = open("/dev/null", O_RDONLY | O_CLOEXEC);
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &full), 0);
    fault_readdir(hide[_i]);
    scan();
    fault_readdir(NULL);
    ck_assert_uint_eq(index_count(), 0);
    ck_assert(has_journal(kept));
    ck_assert(has_journal(alone));
}
END_TEST

Suite *suite_queue_scan(void);
Suite *
suite_queue_scan(void)
{
    Suite *s = suite_create("queue_scan");
    TCase *t = tcase_create("scan");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, names_that_are_ours);
    tcase_add_test(t, users_are_counted);
    tcase_add_test(t, each_at_its_time);
    tcase_add_test(t, what_is_known_already);
    tcase_add_test(t, what_is_being_committed);
    tcase_add_test(t, half_written_ones_go);
    tcase_add_test(t, a_journal_alone);
    tcase_add_test(t, moved_while_it_is_looked_at);
    tcase_add_loop_test(t, something_cannot_be_read, 0, 4);
    suite_add_tcase(s, t);
    return s;
}
