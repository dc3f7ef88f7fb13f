/* mbox files, and what other servers left beside a Maildir: well formed, and not. */
#include "lib/mailbox/durable.h"
#include "lib/mailbox/mailexport.h"
#include "lib/mailbox/mailforeign.h"
#include "lib/mailbox/mailimport.h"
#include "lib/mailbox/mbox.h"
#include "tests/unit/maildir.h"
#include "tests/unit/unit.h"

static void
put(const char *name, const char *text)
{
    ck_assert_int_eq(durable_replace(root, name, str_z(text), NULL), 0);
}

START_TEST(lines_that_begin_a_message)
{
    static const struct {
        const char *line;
        int64_t date_s; /* -1: none */
    } rows[] = {{"From a@b Wed Jun 30 21:49:08 1993", 741476948},
                {"From a@b  Thu Jan  1 00:00:00 1970", 0},
                {"From - Wed Jun 30 21:49 1993", 741476940},
                {"From a b c Wed Jun 30 21:49:08 EST 1993", 741476948},
                {"From a@b Wed Jun 30 21:49:08 +0200 1993", 741476948},
                {"From here to there", -1},
                {"From a@b Wed Jun 30 21:49:08", -1},
                {"From a@b Wed Jun 31 25:49:08 1993", -1},
                {"From a@b Wed Jun 00 21:49:08 1993", -1},
                {">From a@b Wed Jun 30 21:49:08 1993", -1},
                {"From", -1},
                {"", -1}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        int64_t date_s = -1;
        bool is = mbox_from_line(str_z(rows[i].line), &date_s);
        ck_assert_msg(is == (rows[i].date_s >= 0), "%s", rows[i].line);
        ck_assert_msg(!is || date_s == rows[i].date_s, "%s: %lld", rows[i].line, (long long)date_s);
    }
}
END_TEST

START_TEST(fields_about_a_message)
{
    struct mbox_meta m = {0};
    ck_assert(mbox_meta_line(STR("Status: RO"), &m) && m.old && m.flags == MAILBOX_SEEN);
    ck_assert(mbox_meta_line(STR("x-status: AFDT"), &m));
    ck_assert_uint_eq(m.flags, MAILBOX_SEEN | MAILBOX_ANSWERED | MAILBOX_FLAGGED | MAILBOX_DELETED |
                                   MAILBOX_DRAFT);
    ck_assert(mbox_meta_line(STR("X-UID: 17"), &m) && m.uid == 17);
    ck_assert(mbox_meta_line(STR("X-UID: 4294967295"), &m) && m.uid == 0);
    ck_assert(mbox_meta_line(STR("X-IMAPbase: 1234 0000000041 a b"), &m));
    ck_assert(m.validity == 1234 && m.next == 42);
    ck_assert(mbox_meta_line(STR("X-IMAP: nonsense"), &m) && m.validity == 0);
    ck_assert(mbox_meta_line(STR("Content-Length: 5"), &m));
    ck_assert(!mbox_meta_line(STR("Subject: x"), &m) && !mbox_meta_line(STR("Status"), &m));
}
END_TEST

static uint32_t
uid_of(const char *list, const char *base, uint32_t *validity_r, uint32_t *next_r)
{
    struct mailforeign f;
    put("dovecot-uidlist", list);
    ck_assert_int_eq(mailforeign_load(&f, root, NULL), 0);
    uint32_t uid = mailadopt_find(&f.uids, str_z(base));
    *validity_r = f.validity;
    *next_r = f.next;
    mailforeign_free(&f);
    return uid;
}

START_TEST(lists_of_uids)
{
    uint32_t validity, next;
    const char *good = "3 V1700000000 N5 Gabc\n3 W12 :1.a.h,S=9\n7 :2.b.h\n";
    ck_assert_uint_eq(uid_of(good, "1.a.h", &validity, &next), 3);
    ck_assert(validity == 1700000000 && next == 8);
    ck_assert_uint_eq(uid_of(good, "2.b.h", &validity, &next), 7);
    ck_assert_uint_eq(uid_of("1 17 5\n3 1.a.h,S=9\n", "1.a.h", &validity, &next), 3);
    ck_assert(validity == 17 && next == 5);
    /* UIDs that do not ascend, or come twice, and lines of anything. */
    const char *bad = "3 V17 N5\n3 :1.a\n3 :2.b\n2 :3.c\n\n:x\n99999999999 :4.d\n9 :1.a\n10 :5.e";
    ck_assert_uint_eq(uid_of(bad, "1.a", &validity, &next), 3);
    ck_assert_uint_eq(uid_of(bad, "2.b", &validity, &next), 0);
    ck_assert_uint_eq(uid_of(bad, "3.c", &validity, &next), 0);
    ck_assert_uint_eq(uid_of(bad, "4.d", &validity, &next), 0);
    ck_assert_uint_eq(uid_of(bad, "5.e", &validity, &next), 10);
    static const char *const none[] = {"", "\n", "3 N5\n1 :a\n", "9 V1 N1\n", "x", "0 1 2\n1 a\n"};
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++) {
        ck_assert_uint_eq(uid_of(none[i], "a", &validity, &next), 0);
        ck_assert_uint_eq(validity, 0);
    }
}
END_TEST

static int
no_sync(void *arg)
{
    (void)arg;
    return 0;
}

/* Bytes that are done only grow, and are those of the file at last. */
static void
note_progress(void *arg, uint64_t done)
{
    uint64_t *seen = arg;
    ck_assert_uint_gt(done, *seen);
    *seen = done;
}

/* What became of an mbox: how many messages, and the last one's text. */
static size_t
import(const char *text, bool mboxo, char *last, size_t size)
{
    uint64_t seen = 0;
    struct mailimport im = {.sync = no_sync, .progress = note_progress, .arg = &seen};
    struct mailbox mb;
    put("in.mbox", text);
    int fd = openat(root, "in.mbox", O_RDONLY);
    last[0] = '\0';
    int result = mailimport_mbox(&im, fd, mboxo, root, STR("INBOX"), NULL);
    ck_assert_uint_eq(seen, result == 0 || strlen(text) < 1000 ? strlen(text) : seen);
    close(fd);
    ck_assert_int_eq(mailbox_open(&mb, root, STR("INBOX"), false, NULL), 0);
    size_t n = mb.n;
    if (n && result == 0) {
        int message = mailbox_open_message(&mb, n - 1, NULL);
        ssize_t got = read(message, last, size - 1);
        last[got > 0 ? got : 0] = '\0';
        close(message);
    }
    mailbox_close(&mb);
    teardown();
    setup();
    return n;
}

#define FROM "From a@b Wed Jun 30 21:49:08 1993\n"

START_TEST(mbox_files)
{
    char last[400];
    ck_assert_uint_eq(import("", false, last, sizeof last), 0);
    ck_assert_uint_eq(import("no mbox\n", false, last, sizeof last), 0);
    ck_assert_uint_eq(import("\n\n" FROM "a: b\n\nx\n", false, last, sizeof last), 1);
    ck_assert_str_eq(last, "a: b\n\nx\n");
    /* The last line has no end; there is no body; there is nothing. */
    ck_assert_uint_eq(import(FROM "a: b\n\nx", false, last, sizeof last), 1);
    ck_assert_str_eq(last, "a: b\n\nx");
    ck_assert_uint_eq(import(FROM "a: b\n", false, last, sizeof last), 1);
    ck_assert_str_eq(last, "a: b\n");
    ck_assert_uint_eq(import(FROM, false, last, sizeof last), 1);
    ck_assert_str_eq(last, "");
    ck_assert_uint_eq(import(FROM "\n" FROM "\n" FROM "a: b\n", false, last, sizeof last), 3);
    /* Quoted lines, and one that only looks like the beginning of a message. */
    ck_assert_uint_eq(import(FROM "a: b\n\n>From x\n>>From y\nz\n" FROM, false, last, sizeof last),
                      1);
    ck_assert_str_eq(last, "a: b\n\nFrom x\n>From y\nz\n" FROM);
    ck_assert_uint_eq(import(FROM "a: b\n\n>From x\n>>From y\n", true, last, sizeof last), 1);
    ck_assert_str_eq(last, "a: b\n\nFrom x\n>>From y\n");
    /* Fields about the message go; behind our mark only as many as it says. */
    ck_assert_uint_eq(import(FROM "Status: RO\na: b\nX-UID: 3\n\nx\n", false, last, sizeof last),
                      1);
    ck_assert_str_eq(last, "a: b\n\nx\n");
    ck_assert_uint_eq(import(FROM "X-Bulkhead: 1 open\nStatus: RO\nStatus: mine\n\nx\n\n", false,
                             last, sizeof last),
                      1);
    ck_assert_str_eq(last, "Status: mine\n\nx");
    ck_assert_uint_eq(import(FROM "X-Bulkhead: 99999999999\n\nx\n", false, last, sizeof last), 1);
    ck_assert_str_eq(last, "X-Bulkhead: 99999999999\n\nx\n");
}
END_TEST

START_TEST(lines_of_any_length)
{
    struct buf text = buf_new(1 << 20);
    char last[400];
    buf_addz(&text, FROM "a: ");
    for (int i = 0; i < 300000; i++)
        buf_addc(&text, i % 70000 == 65535 ? '>' : 'x');
    buf_addz(&text, "\n\n");
    for (int i = 0; i < 200000; i++)
        buf_addc(&text, 'y');
    buf_addz(&text, "\n\n" FROM "b: c\n\nz\n");
    ck_assert_uint_eq(import(buf_z(&text), false, last, sizeof last), 2);
    ck_assert_str_eq(last, "b: c\n\nz\n");
    buf_free(&text);
}
END_TEST

/* An export that is repeated finds what it has written, also when flags have changed since. */
START_TEST(a_maildir_is_exported_twice)
{
    struct mailbox mb;
    plant("cur/1000.a.h:2,", "a: b\n");
    plant("cur/1000.a.h:2,F", "a: c\n"); /* a foreign program's copy */
    ck_assert_int_eq(mkdirat(root, "to", 0700), 0);
    struct mailexport x = {.root_fd = root, .to_fd = openat(root, "to", O_RDONLY | O_DIRECTORY)};
    ck_assert_int_eq(mailexport_all(&x, NULL), 0);
    ck_assert(x.messages == 2 && x.already == 0);
    ck_assert_int_eq(mailbox_open(&mb, root, STR("INBOX"), false, NULL), 0);
    for (size_t i = 0; i < 2; i++)
        ck_assert_int_eq(mailbox_store(&mb, i, MAILBOX_ADD, MAILBOX_SEEN, 0, NULL), 0);
    mailbox_close(&mb);
    plant("cur/1002.c.h:2,", "a: b\n");
    x.messages = 0;
    ck_assert_int_eq(mailexport_all(&x, NULL), 0);
    ck_assert(x.messages == 1 && x.already == 2);
    ck_assert_int_eq(mailbox_open(&mb, x.to_fd, STR("INBOX"), true, NULL), 0);
    ck_assert_uint_eq(mb.n, 3);
    ck_assert_uint_eq(mb.msgs[0].flags, MAILBOX_SEEN);
    mailbox_close(&mb);
    close(x.to_fd);
}
END_TEST

Suite *suite_mbox(void);
Suite *
suite_mbox(void)
{
    Suite *s = suite_create("mbox");
    TCase *t = tcase_create("mbox");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 60);
    tcase_add_test(t, lines_that_begin_a_message);
    tcase_add_test(t, fields_about_a_message);
    tcase_add_test(t, lists_of_uids);
    tcase_add_test(t, mbox_files);
    tcase_add_test(t, lines_of_any_length);
    tcase_add_test(t, a_maildir_is_exported_twice);
    suite_add_tcase(s, t);
    return s;
}
