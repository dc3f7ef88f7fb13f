/* What SELECT tells from the ends of the index, without reading what lies between: it must be what
 * is read later, whatever happens in the meantime. */
#include "lib/mailbox/durable.h"
#include "lib/mailbox/mailbox.h"
#include "lib/mailbox/mailindexfile.h"
#include "tests/unit/maildir.h"
#include "tests/unit/unit.h"

static void
open_box(struct mailbox *mb)
{
    ck_assert_int_eq(mailbox_open(mb, root, STR("INBOX"), false, NULL), 0);
}

static void
peek(struct mailbox *mb, bool lazy)
{
    struct err e = {0};
    ck_assert_msg(mailbox_peek(mb, root, STR("INBOX"), false, &e) == 0, "%s", e.text);
    ck_assert_int_eq(mb->lazy, lazy);
}

/* UIDs 1 to 5: seen, unseen, seen, deleted and unseen, seen; none in new/. */
static void
five(void)
{
    struct mailbox mb;
    plant("cur/1.a.h:2,S", "a: b\n\nx\n");
    plant("cur/2.b.h:2,", "a: b\n\nx\n");
    plant("cur/3.c.h:2,S", "a: b\n\nx\n");
    plant("cur/4.d.h:2,T", "a: b\n\nx\n");
    plant("cur/5.e.h:2,S", "a: b\n\nx\n");
    open_box(&mb);
    ck_assert_uint_eq(mb.n, 5);
    mailbox_close(&mb);
}

/* What is counted is what is loaded. */
static void
agree(void)
{
    struct mailbox mb;
    ck_assert_int_eq(mailbox_peek(&mb, root, STR("INBOX"), true, NULL), 0);
    ck_assert(mb.lazy);
    struct mailbox_counts told = mailbox_count(&mb);
    uint32_t next = mailbox_uidnext(&mb);
    uint64_t modseq = mb.ix.state.modseq;
    ck_assert_int_eq(mailbox_load(&mb, NULL), 0);
    struct mailbox_counts are = mailbox_count(&mb);
    ck_assert_mem_eq(&told, &are, sizeof are);
    ck_assert_uint_eq(told.messages, mb.n);
    ck_assert_uint_eq(next, mailbox_uidnext(&mb));
    ck_assert_uint_eq(modseq, mb.ix.state.modseq);
    ck_assert(mb.ix.fd >= 0 && !mb.suspect);
    mailbox_close(&mb);
}

static uint32_t
append(struct mailbox *mb, uint8_t flags)
{
    struct mailbox_writer w;
    uint32_t uid;
    ck_assert_int_eq(mailbox_write_begin(&w, mb->tmp_fd, NULL), 0);
    ck_assert_int_eq(mailbox_write(&w, STR("a: b\r\n\r\nx\r\n"), NULL), 0);
    ck_assert_int_eq(mailbox_write_commit(&w, mb, flags, 0, 0, &uid, NULL), 0);
    return uid;
}

START_TEST(counts_are_right_after_each_change)
{
    struct mailbox mb;
    five();
    agree();
    open_box(&mb);
    struct mailbox_counts c = mailbox_count(&mb);
    ck_assert(c.messages == 5 && c.unseen == 2 && c.deleted == 1 && c.first_unseen == 2);
    ck_assert_int_eq(mailbox_store(&mb, 1, MAILBOX_ADD, MAILBOX_SEEN, 0, NULL), 0);
    agree();
    ck_assert_int_eq(mailbox_expunge(&mb, 3, NULL), 0);
    agree();
    mailbox_drop_gone(&mb);
    append(&mb, MAILBOX_SEEN);
    agree();
    append(&mb, 0);
    append(&mb, MAILBOX_DELETED);
    agree();
    ck_assert_int_eq(mailbox_changes_begin(&mb, NULL), 0);
    append(&mb, 0);
    ck_assert_int_eq(mailbox_store(&mb, 0, MAILBOX_REMOVE, MAILBOX_SEEN, 0, NULL), 0);
    ck_assert_int_eq(mailbox_unlink(&mb, 2, NULL), 0);
    mailbox_changes_end(&mb);
    agree();
    plant("cur/9.z.h:2,", "a: b\n\nx\n");
    ck_assert_int_eq(mailbox_refresh(&mb, NULL), 0);
    agree();
    mailbox_close(&mb);
    agree();
}
END_TEST

START_TEST(a_target_that_is_only_put_into_counts_too)
{
    struct mailbox from, to;
    uint32_t uid;
    const size_t all[] = {0, 1, 2};
    five();
    open_box(&from);
    ck_assert_int_eq(mailbox_open_target(&to, root, STR("INBOX"), NULL), 0);
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(mailbox_copy(&from, all, 3, false, &to, &uid, NULL), 0);
        append(&to, i ? MAILBOX_SEEN : 0);
        agree();
    }
    mailbox_close(&to);
    mailbox_close(&from);
}
END_TEST

START_TEST(nothing_moves_between_the_look_and_the_reading)
{
    struct mailbox a, b;
    five();
    peek(&b, true);
    open_box(&a);
    ck_assert_int_eq(mailbox_unlink(&a, 0, NULL), 0);
    append(&a, 0);
    /* The snapshot, too, is another one now. */
    ck_assert_int_eq(mailindex_write(&a.ix, a.dir_fd, &a.rows, false), 0);
    ck_assert_int_eq(mailbox_load(&b, NULL), 0);
    ck_assert_uint_eq(b.n, 5);
    for (unsigned i = 0; i < 5; i++)
        ck_assert(b.msgs[i].uid == i + 1 && !b.msgs[i].gone);
    ck_assert_int_eq(mailbox_refresh(&b, NULL), 0);
    ck_assert_uint_eq(b.n, 6);
    ck_assert(b.msgs[0].gone && b.news);
    mailbox_close(&a);
    mailbox_close(&b);
    /* And when the look is followed by a refresh only. */
    peek(&b, true);
    ck_assert_int_eq(mailbox_refresh(&b, NULL), 0);
    ck_assert(b.lazy);
    plant("new/7.g.h", "a: b\n\nx\n");
    ck_assert_int_eq(mailbox_refresh(&b, NULL), 0);
    ck_assert(!b.lazy && b.n == 6 && b.news);
    mailbox_close(&b);
    agree();
}
END_TEST

START_TEST(what_is_new_is_taken_in_first)
{
    struct mailbox mb;
    five();
    plant("new/7.g.h", "a: b\n\nx\n");
    ck_assert_int_eq(mailbox_peek(&mb, root, STR("INBOX"), true, NULL), 0);
    ck_assert_uint_eq(mailbox_count(&mb).recent, 1);
    mailbox_close(&mb);
    /* It lies in new/ still, and the index knows: counted, and recent, for who only looks. */
    ck_assert_int_eq(mailbox_peek(&mb, root, STR("INBOX"), true, NULL), 0);
    ck_assert(mb.lazy && mailbox_count(&mb).recent == 1 && mailbox_count(&mb).messages == 6);
    ck_assert_int_eq(mailbox_load(&mb, NULL), 0);
    ck_assert_uint_eq(mailbox_count(&mb).recent, 1);
    mailbox_close(&mb);
    peek(&mb, false);
    ck_assert_uint_eq(mailbox_count(&mb).recent, 1);
    mailbox_close(&mb);
    agree();
}
END_TEST

static void
damage(size_t at)
{
    char c;
    int fd = openat(root, "bulkhead.index", O_RDWR);
    ck_assert(pread(fd, &c, 1, (off_t)at) == 1);
    c = (char)(c ^ 4);
    ck_assert(pwrite(fd, &c, 1, (off_t)at) == 1);
    close(fd);
}

START_TEST(damage_is_found_when_it_is_read)
{
    struct mailbox mb;
    const size_t in_records = sizeof(struct mailindex_head) + 70;
    five();
    peek(&mb, true);
    damage(in_records);
    ck_assert_int_eq(mailbox_load(&mb, NULL), 0);
    ck_assert_uint_eq(mb.n, 5);
    for (unsigned i = 0; i < 5; i++)
        ck_assert_uint_eq(mb.msgs[i].uid, i + 1);
    mailbox_close(&mb);
    agree();
    /* When the folder is another meanwhile the session cannot go on. */
    peek(&mb, true);
    damage(in_records);
    plant("cur/9.z.h:2,", "a: b\n\nx\n");
    struct err e = {0};
    ck_assert_int_lt(mailbox_load(&mb, &e), 0);
    ck_assert_int_eq(e.class, ERR_PERMANENT);
    mailbox_close(&mb);
    agree();
}
END_TEST

START_TEST(an_index_cut_short_under_a_session)
{
    struct mailbox mb;
    five();
    peek(&mb, true);
    ck_assert_int_eq(truncate("bulkhead.index", 100), 0);
    ck_assert_int_eq(mailbox_load(&mb, NULL), 0);
    ck_assert_uint_eq(mb.n, 5);
    mailbox_close(&mb);
    agree();
}
END_TEST

Suite *suite_peek(void);
Suite *
suite_peek(void)
{
    Suite *s = suite_create("peek");
    TCase *t = tcase_create("peek");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 30);
    tcase_add_test(t, counts_are_right_after_each_change);
    tcase_add_test(t, a_target_that_is_only_put_into_counts_too);
    tcase_add_test(t, nothing_moves_between_the_look_and_the_reading);
    tcase_add_test(t, what_is_new_is_taken_in_first);
    tcase_add_test(t, damage_is_found_when_it_is_read);
    tcase_add_test(t, an_index_cut_short_under_a_session);
    suite_add_tcase(s, t);
    return s;
}
