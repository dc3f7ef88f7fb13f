/* Listings while a foreign program renames: readdir() may pass over a file that is there all the
 * time. What it passes over is chosen here. */
#include "lib/mailbox/mailbox.h"
#include "tests/unit/fault_calls.h"
#include "tests/unit/maildir.h"
#include "tests/unit/unit.h"
#include <stdbool.h>

static struct mailbox box;

static void
open_box(void)
{
    struct err e = {0};
    ck_assert_msg(mailbox_open(&box, root, STR("INBOX"), false, &e) == 0, "%s", e.text);
}

static void
look(void)
{
    struct err e = {0};
    ck_assert_msg(mailbox_refresh(&box, &e) == 0, "%s", e.text);
}

/* Messages 1 to 4, all in cur/. */
static void
four(void)
{
    plant("new/1.a.h", "Subject: a\r\n\r\na\r\n");
    plant("new/2.b.h", "Subject: b\r\n\r\nb\r\n");
    plant("new/3.c.h", "Subject: c\r\n\r\nc\r\n");
    plant("new/4.d.h", "Subject: d\r\n\r\nd\r\n");
    open_box();
    ck_assert_uint_eq(box.n, 4);
}

static void
path_of(size_t i, char path[300])
{
    struct buf name = buf_new(255);
    ck_assert_int_eq(mailbox_name(&box, i, &name), 0);
    snprintf(path, 300, "cur/%s", buf_z(&name));
    buf_free(&name);
}

/* ---- the foreign program ---- */

static char names[4][300]; /* of the files as they are now */
static unsigned listings;  /* of cur/ */
static unsigned movers;    /* so many of them move */
static unsigned ends;      /* the listing from which on nothing is done any more */
static char moving;        /* the letter in the bases of what moves in this listing */
static bool moved;

/* Flags come and go, as when mutt syncs. */
static void
rename_one(size_t i)
{
    char to[300];
    size_t n = strlen(names[i]);
    bool flagged = names[i][n - 1] == 'F';
    snprintf(to, sizeof to, "%.*s%s", (int)(flagged ? n - 1 : n), names[i], flagged ? "" : "F");
    ck_assert_int_eq(renameat(root, names[i], root, to), 0);
    snprintf(names[i], sizeof names[i], "%s", to);
}

/* In each listing another file is renamed from where readdir() has not been to where it has. */
static bool
shy(const char *dir, const char *name)
{
    if (strcmp(dir, "cur") != 0)
        return false;
    if (!name) {
        listings++;
        moved = false;
        moving = (char)('a' + (listings - 1) % movers);
        return false;
    }
    if (listings >= ends)
        return false;
    if (!moved) {
        moved = true;
        rename_one((size_t)(moving - 'a'));
    }
    return name[1] == '.' && name[2] == moving;
}

static void
begin(unsigned until, unsigned of)
{
    for (size_t i = 0; i < 4; i++)
        path_of(i, names[i]);
    ends = until;
    movers = of;
    rename_one(0); /* so that cur/ is listed */
    fault_readdir(shy);
}

START_TEST(a_file_passed_over_is_not_gone)
{
    four();
    begin(4, 4);
    look();
    ck_assert_uint_eq(listings, 4);
    for (size_t i = 0; i < 4; i++) {
        ck_assert_msg(!box.msgs[i].gone, "message %zu is there", i + 1);
        ck_assert_uint_eq(box.msgs[i].uid, i + 1);
    }
    ck_assert_uint_eq(box.ix.ngone, 0);
    mailbox_close(&box);
}
END_TEST

/* While it does not end nobody is called gone, and others wait for the lock no longer than that. */
START_TEST(restless_for_ever)
{
    four();
    begin(1000000, 3);
    ck_assert_int_eq(unlinkat(root, names[3], 0), 0);
    plant("cur/5.e.h:2,", "x\r\n");
    look();
    for (size_t i = 0; i < 4; i++)
        ck_assert(!box.msgs[i].gone);
    ends = 0;
    look();
    for (size_t i = 0; i < 3; i++)
        ck_assert(!box.msgs[i].gone && box.msgs[i].uid == i + 1);
    ck_assert(box.msgs[3].gone);
    ck_assert_uint_eq(box.n, 5);
    /* And it is still again. */
    listings = 0;
    look();
    ck_assert_uint_eq(listings, 0);
    mailbox_close(&box);
}
END_TEST

/* Moved to cur/ by a foreign program after cur/ was looked at and before new/ is read. */
static bool
taken(const char *dir, const char *name)
{
    if (strcmp(dir, "new") == 0 && !name && !moved) {
        moved = true;
        ck_assert_int_eq(renameat(root, "new/5.e.h", root, "cur/5.e.h:2,F"), 0);
    }
    return false;
}

START_TEST(moved_between_new_and_cur_is_told)
{
    four();
    plant("new/5.e.h", "Subject: e\r\n\r\ne\r\n");
    plant("new/6.f.h", "Subject: f\r\n\r\nf\r\n");
    fault_readdir(taken);
    look();
    ck_assert(moved);
    ck_assert_uint_eq(box.n, 6);
    ck_assert_uint_eq(box.msgs[4].uid, 5);
    mailbox_close(&box);
}
END_TEST

/* The same behind readdir(), before we move it ourselves. */
static bool
taken_late(const char *dir, const char *name)
{
    if (strcmp(dir, "new") == 0 && name && strcmp(name, "5.e.h") == 0 && !moved) {
        moved = true;
        ck_assert_int_eq(renameat(root, "new/5.e.h", root, "cur/5.e.h:2,F"), 0);
    }
    return false;
}

START_TEST(moved_under_our_hands_is_told)
{
    four();
    plant("new/5.e.h", "Subject: e\r\n\r\ne\r\n");
    fault_readdir(taken_late);
    look();
    ck_assert(moved);
    ck_assert_uint_eq(box.n, 5);
    ck_assert_uint_eq(box.msgs[4].flags, MAILBOX_FLAGGED);
    mailbox_close(&box);
}
END_TEST

Suite *suite_still(void);
Suite *
suite_still(void)
{
    Suite *s = suite_create("still");
    TCase *t = tcase_create("still");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 60);
    tcase_add_test(t, a_file_passed_over_is_not_gone);
    tcase_add_test(t, restless_for_ever);
    tcase_add_test(t, moved_between_new_and_cur_is_told);
    tcase_add_test(t, moved_under_our_hands_is_told);
    suite_add_tcase(s, t);
    return s;
}
