/* folder: names, patterns, and making, renaming and removing. */
#include "lib/base/clock.h"
#include "lib/mailbox/durable.h"
#include "lib/mailbox/folder.h"
#include "lib/mailbox/mailbox.h"
#include "tests/unit/temp.h"
#include "tests/unit/unit.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char top[64];
static int root = -1;

static void
setup(void)
{
    /* In memory where there is any: ten thousand folders are many for a disk. */
    snprintf(top, sizeof top, "%s/bh-folder-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(top));
    root = open(top, O_RDONLY | O_DIRECTORY);
}

static void
teardown(void)
{
    close(root);
    temp_remove(top);
}

START_TEST(names_that_can_be_folders)
{
    static const char *const good[] = {"a",  "INBOX", "A.B",    "&AOQ-",
                                       "&-", "a b",   "~peter", "Sent Mail"};
    static const char *const bad[] = {"",    ".",    "..",        "a..b", ".a",   "a.",
                                      "a/b", "/",    "a*",        "%",    "&",    "&AOQ",
                                      "&!-", "a\nb", "a\xc3\xbc", "a\"b", "a\\b", "a.."};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        ck_assert_msg(folder_check(str_z(good[i])), "%s", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        ck_assert_msg(!folder_check(str_z(bad[i])), "%s", bad[i]);
    ck_assert(!folder_check(str_of("a\0b", 3)));
    char name[2 * FOLDER_NAME_MAX];
    memset(name, 'a', sizeof name);
    ck_assert(folder_check(str_of(name, FOLDER_NAME_MAX)));
    ck_assert(!folder_check(str_of(name, FOLDER_NAME_MAX + 1)));
    for (size_t i = 1; i < sizeof name; i += 2)
        name[i] = '.';
    ck_assert(folder_check(str_of(name, 2 * FOLDER_DEPTH_MAX - 1)));
    ck_assert(!folder_check(str_of(name, 2 * FOLDER_DEPTH_MAX + 1)));
}
END_TEST

START_TEST(patterns)
{
    static const struct {
        const char *pattern, *name;
        bool want;
    } cases[] = {
        {"*", "a.b", true},        {"%", "a.b", false},     {"%", "a", true},
        {"a.%", "a.b", true},      {"a.%", "a.b.c", false}, {"a.*", "a.b.c", true},
        {"%.%", "a.b", true},      {"*b", "a.b", true},     {"a*c", "abbc", true},
        {"a*c", "abbd", false},    {"", "a", false},        {"", "", true},
        {"%*", "a.b", true},       {"*%", "a.b", true},     {"inbox", "INBOX", true},
        {"INBOX*", "INBOX", true}, {"iNb%", "INBOX", true}, {"abc", "ABC", false},
        {"*a*a*b", "aaa", false},  {"%a%.b", "xa.b", true}, {"**", "x", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        ck_assert_msg(folder_match(str_z(cases[i].pattern), str_z(cases[i].name)) == cases[i].want,
                      "%s on %s", cases[i].pattern, cases[i].name);
}
END_TEST

START_TEST(patterns_take_linear_time)
{
    char name[FOLDER_NAME_MAX];
    for (size_t i = 0; i < sizeof name; i++)
        name[i] = i % 2 ? '.' : 'a';
    int64_t begin = now_ms();
    for (int i = 0; i < 1000; i++)
        ck_assert(!folder_match(STR("%*%*%*%*%*%*%*%*%*%*%*%*%*%*b"), str_of(name, 199)));
    ck_assert_int_lt(now_ms() - begin, 500);
}
END_TEST

static void
list_names(struct buf *out)
{
    struct arena arena = arena_new(1 << 20);
    struct folder_list list;
    struct err e;
    ck_assert_int_eq(folder_list(root, &arena, &list, &e), 0);
    buf_reset(out);
    for (size_t i = 0; i < list.n; i++)
        buf_addf(out, "%.*s%s%s ", STR_ARG(list.at[i].name), list.at[i].exists ? "" : "!",
                 list.at[i].children ? "+" : "");
    arena_free(&arena);
}

START_TEST(create_rename_delete)
{
    struct err e = {0};
    struct buf out = buf_new(4096);
    ck_assert_int_eq(folder_create(root, STR("A.B.C"), &e), 0);
    ck_assert_int_eq(folder_create(root, STR("A.B"), &e), 0);
    ck_assert_int_eq(folder_create(root, STR("A B"), &e), 0);
    ck_assert_int_lt(folder_create(root, STR("A.B"), &e), 0);
    ck_assert_int_lt(folder_create(root, STR("inbox"), &e), 0);
    list_names(&out);
    ck_str(buf_str(&out), "INBOX A!+ A B A.B+ A.B.C ");
    ck_assert_int_eq(folder_rename(root, STR("A.B"), STR("X"), &e), 0);
    list_names(&out);
    ck_str(buf_str(&out), "INBOX A B X+ X.C ");
    ck_assert_int_lt(folder_rename(root, STR("X"), STR("X.Y"), &e), 0);
    ck_assert_int_lt(folder_rename(root, STR("X"), STR("X"), &e), 0);
    ck_assert_int_lt(folder_rename(root, STR("no"), STR("Y"), &e), 0);
    ck_assert_int_eq(folder_delete(root, STR("X"), &e), 0);
    list_names(&out);
    ck_str(buf_str(&out), "INBOX A B X!+ X.C ");
    ck_assert_int_lt(folder_delete(root, STR("X"), &e), 0);
    ck_assert_int_lt(folder_delete(root, STR("INBOX"), &e), 0);
    buf_free(&out);
}
END_TEST

/* Who was making it was killed after the first call, or just before cur/ got its name. */
START_TEST(a_folder_half_made)
{
    struct err e = {0};
    struct buf out = buf_new(4096);
    ck_assert_int_eq(mkdirat(root, ".first", 0700), 0);
    ck_assert_int_eq(mkdirat(root, ".last", 0700), 0);
    ck_assert_int_eq(mkdirat(root, ".last/tmp", 0700), 0);
    ck_assert_int_eq(mkdirat(root, ".last/new", 0700), 0);
    ck_assert_int_eq(mkdirat(root, ".last/bulkhead-cur", 0700), 0);
    for (int again = 0; again < 2; again++) {
        ck_assert_int_eq(folder_create(root, STR("first"), &e), -again);
        ck_assert_int_eq(folder_create(root, STR("last"), &e), -again);
        list_names(&out);
        ck_str(buf_str(&out), "INBOX first last ");
    }
    buf_free(&out);
}
END_TEST

/* A power cut has taken back that new/ got its name, after mail had come into it. */
START_TEST(a_directory_under_its_first_name)
{
    struct err e = {0};
    struct stat st;
    ck_assert_int_eq(mkdirat(root, "cur", 0700), 0);
    ck_assert_int_eq(mkdirat(root, "bulkhead-new", 0700), 0);
    ck_assert_int_eq(mkdirat(root, "bulkhead-new/mail", 0700), 0);
    ck_assert_int_eq(folder_make_subdirs(root, -1, &e), 0);
    ck_assert_int_eq(fstatat(root, "new/mail", &st, 0), 0);
    ck_assert_int_eq(fstatat(root, "tmp", &st, 0), 0);
    ck_assert_int_lt(fstatat(root, "bulkhead-new", &st, 0), 0);
    ck_assert_int_lt(fstatat(root, "bulkhead-tmp", &st, 0), 0);
    ck_assert_int_eq(folder_make_subdirs(root, -1, &e), 0);
}
END_TEST

/* What is watched is the folder, not another that has its name now. */
START_TEST(a_folder_that_was_renamed)
{
    struct mailbox mb;
    struct err e = {0};
    ck_assert_int_eq(chdir(top), 0);
    ck_assert_int_eq(folder_create(root, STR("one"), &e), 0);
    ck_assert_int_eq(mailbox_open(&mb, root, STR("one"), false, &e), 0);
    int fd = mailbox_watch(&mb);
    ck_assert(fd >= 0 && mailbox_is_named(&mb));
    close(fd);
    ck_assert_int_eq(folder_rename(root, STR("one"), STR("two"), &e), 0);
    ck_assert(mailbox_watch(&mb) == -1 && !mailbox_is_named(&mb));
    ck_assert_int_eq(folder_create(root, STR("one"), &e), 0);
    ck_assert(mailbox_watch(&mb) == -1 && !mailbox_is_named(&mb));
    mailbox_close(&mb);
}
END_TEST

START_TEST(subscriptions_are_kept)
{
    struct err e;
    struct arena arena = arena_new(1 << 20);
    struct folder_list list;
    ck_assert_int_eq(folder_subscribe(root, STR("b"), true, &e), 0);
    ck_assert_int_eq(folder_subscribe(root, STR("a.x"), true, &e), 0);
    ck_assert_int_eq(folder_subscribe(root, STR("inbox"), true, &e), 0);
    ck_assert_int_eq(folder_subscribe(root, STR("b"), false, &e), 0);
    ck_assert_int_lt(folder_subscribe(root, STR("../x"), true, &e), 0);
    ck_assert_int_eq(folder_subscriptions(root, &arena, &list, &e), 0);
    ck_assert_uint_eq(list.n, 2);
    ck_str(list.at[1].name, "a.x");
    arena_free(&arena);
}
END_TEST

/* All that may be are listed, the next one is refused, also beside more of a foreign program's; in
 * the place of one that has gone there is room. */
START_TEST(folders_at_their_ceiling)
{
    struct err e = {0};
    struct arena arena = arena_new(32 << 20);
    struct folder_list list;
    char path[40];
    for (int i = 0; i < FOLDERS_MAX - 1; i++) {
        snprintf(path, sizeof path, ".f%d", i);
        ck_assert_int_eq(mkdirat(root, path, 0700), 0);
        snprintf(path, sizeof path, ".f%d/cur", i);
        ck_assert_int_eq(mkdirat(root, path, 0700), 0);
    }
    ck_assert_msg(folder_create(root, STR("last"), &e) == 0, "%s", e.text);
    ck_assert_int_eq(folder_create(root, STR("beyond"), &e), -1);
    ck_assert_int_eq(e.class, ERR_LIMIT);
    ck_assert_str_eq(e.text, "too many folders");
    ck_assert(!folder_exists(root, STR("beyond")));
    ck_assert_int_eq(folder_create(root, STR("last"), &e), -1);
    ck_assert_int_eq(e.class, ERR_PERMANENT);
    ck_assert_int_eq(folder_list(root, &arena, &list, &e), 0);
    ck_assert_uint_eq(list.n, FOLDERS_MAX + 1); /* with INBOX */
    ck_assert_int_eq(mkdirat(root, ".beyond", 0700), 0);
    ck_assert_int_eq(mkdirat(root, ".beyond/cur", 0700), 0);
    ck_assert_int_eq(folder_list(root, &arena, &list, &e), 0);
    ck_assert_uint_eq(list.n, FOLDERS_MAX + 1);
    ck_assert_int_eq(folder_rename(root, STR("last"), STR("moved"), &e), 0);
    ck_assert_int_eq(folder_delete(root, STR("moved"), &e), 0);
    ck_assert_int_eq(folder_delete(root, STR("f7"), &e), 0);
    ck_assert_int_eq(folder_create(root, STR("new"), &e), 0);
    ck_assert_int_eq(folder_create(root, STR("newer"), &e), -1);
    arena_free(&arena);
}
END_TEST

START_TEST(subscriptions_at_their_ceiling)
{
    struct err e = {0};
    struct arena arena = arena_new(32 << 20);
    struct folder_list list;
    struct buf text = buf_new(1 << 20);
    for (int i = 0; i < FOLDERS_MAX - 1; i++)
        buf_addf(&text, "f%d\n", i);
    ck_assert_int_eq(durable_replace(root, "subscriptions", buf_str(&text), &e), 0);
    ck_assert_int_eq(folder_subscribe(root, STR("last"), true, &e), 0);
    ck_assert_int_eq(folder_subscribe(root, STR("beyond"), true, &e), -1);
    ck_assert_int_eq(e.class, ERR_LIMIT);
    ck_assert_int_eq(folder_subscribe(root, STR("last"), true, &e), 0);
    ck_assert_int_eq(folder_subscriptions(root, &arena, &list, &e), 0);
    ck_assert_uint_eq(list.n, FOLDERS_MAX);
    ck_assert_int_eq(folder_subscribe(root, STR("f7"), false, &e), 0);
    ck_assert_int_eq(folder_subscribe(root, STR("beyond"), true, &e), 0);
    ck_assert_int_eq(folder_subscriptions(root, &arena, &list, &e), 0);
    ck_assert_uint_eq(list.n, FOLDERS_MAX);
    buf_free(&text);
    arena_free(&arena);
}
END_TEST

Suite *suite_folder(void);
Suite *
suite_folder(void)
{
    Suite *s = suite_create("folder");
    TCase *t = tcase_create("folder");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, names_that_can_be_folders);
    tcase_add_test(t, patterns);
    tcase_add_test(t, patterns_take_linear_time);
    tcase_add_test(t, create_rename_delete);
    tcase_add_test(t, a_folder_half_made);
    tcase_add_test(t, a_directory_under_its_first_name);
    tcase_add_test(t, a_folder_that_was_renamed);
    tcase_add_test(t, subscriptions_are_kept);
    tcase_add_test(t, folders_at_their_ceiling);
    tcase_add_test(t, subscriptions_at_their_ceiling);
    suite_add_tcase(s, t);
    return s;
}
