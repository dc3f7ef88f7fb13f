/* Renames that come later: of files that are taken in by a list (mailadopt.h), and of flags that
 * are in the index first. */
#include "lib/mailbox/durable.h"
#include "lib/mailbox/mailadopt.h"
#include "lib/mailbox/mailbox.h"
#include "lib/mailbox/mailname.h"
#include "lib/mailbox/mailscan.h"
#include "tests/unit/fault_calls.h"
#include "tests/unit/maildir.h"
#include "tests/unit/unit.h"
#include <dirent.h>
#include <sys/wait.h>

enum { MANY = MAILSCAN_ADOPT_MIN + 20, SOME = MAILBOX_DIRECT + 20 };

static void
plant_many(unsigned from, unsigned to)
{
    for (unsigned i = from; i < to; i++) {
        char path[64];
        snprintf(path, sizeof path, "cur/%u.M1.host:2,%s", 1000 + i, i % 2 ? "S" : "");
        plant(path, "a: b\n\nx\n");
    }
}

static void
open_box(struct mailbox *mb)
{
    struct err e = {0};
    ck_assert_msg(mailbox_open(mb, root, STR("INBOX"), false, &e) == 0, "%s", e.text);
}

static void
settle(struct mailbox *mb)
{
    for (int n = 0; mailbox_settle(mb); n++)
        ck_assert_int_lt(n, 1000);
}

/* How many names in cur/ say a UID. */
static unsigned
named(void)
{
    unsigned n = 0;
    struct mailname m;
    struct dirent *d;
    DIR *dir = opendir("cur");
    while ((d = readdir(dir)))
        n += mailname_parse(str_z(d->d_name), &m) == 0 && m.uid;
    closedir(dir);
    return n;
}

static bool
has_list(void)
{
    return faccessat(root, "bulkhead-adopt", F_OK, 0) == 0;
}

/* What a client knows: by the number in the name, which is the order. */
struct known {
    uint32_t validity, n;
    uint32_t uid[MANY + 8];
    uint8_t flags[MANY + 8];
};

static void
know(struct mailbox *mb, struct known *k)
{
    memset(k, 0, sizeof *k);
    k->validity = mb->validity;
    ck_assert_uint_le(mb->n, MANY + 8);
    for (size_t i = 0; i < mb->n; i++) {
        ck_assert(!mb->msgs[i].gone);
        k->uid[k->n] = mb->msgs[i].uid;
        k->flags[k->n++] = mb->msgs[i].flags;
    }
}

static void
look(struct known *k)
{
    struct mailbox mb;
    open_box(&mb);
    know(&mb, k);
    for (size_t i = 0; i < mb.n; i += 7) {
        int fd = mailbox_open_message(&mb, i, NULL);
        ck_assert_int_ge(fd, 0);
        close(fd);
    }
    mailbox_close(&mb);
}

START_TEST(a_foreign_folder_is_taken_in_by_a_list)
{
    static struct known first, then;
    struct mailbox mb;
    plant_many(0, MANY);
    open_box(&mb);
    know(&mb, &first);
    ck_assert_uint_eq(first.n, MANY);
    ck_assert(has_list() && named() == 0);
    ck_assert_uint_eq(mb.ix.state.counts.owed, MANY);
    mailbox_close(&mb);
    /* Without the index, and without the line of UIDs, the list says the same. */
    unlinkat(root, "bulkhead.index", 0);
    look(&then);
    ck_assert_mem_eq(&first, &then, sizeof first);
    unlinkat(root, "bulkhead.index", 0);
    unlinkat(root, "bulkhead-uid", 0);
    look(&then);
    ck_assert_mem_eq(&first, &then, sizeof first);
    /* More of them come, some go. */
    plant_many(MANY, MANY + 3);
    ck_assert_int_eq(unlinkat(root, "cur/1004.M1.host:2,", 0), 0);
    ck_assert_int_eq(renameat(root, "cur/1006.M1.host:2,", root, "cur/1006.M1.host:2,FS"), 0);
    open_box(&mb);
    ck_assert_uint_eq(mb.n, MANY + 2);
    ck_assert_uint_eq(mb.msgs[5].uid, first.uid[6]);
    ck_assert_uint_eq(mb.msgs[5].flags, MAILBOX_FLAGGED | MAILBOX_SEEN);
    settle(&mb);
    ck_assert(!has_list());
    ck_assert_uint_eq(named(), MANY + 2);
    know(&mb, &first);
    mailbox_close(&mb);
    unlinkat(root, "bulkhead.index", 0);
    look(&then);
    ck_assert_mem_eq(&first, &then, sizeof first);
}
END_TEST

START_TEST(two_files_of_one_base)
{
    struct mailbox mb;
    plant_many(0, MANY);
    ck_assert_int_eq(linkat(root, "cur/1004.M1.host:2,", root, "cur/1004.M1.host:2,T", 0), 0);
    open_box(&mb);
    ck_assert_uint_eq(mb.n, MANY + 1);
    for (size_t i = 1; i < mb.n; i++)
        ck_assert_uint_gt(mb.msgs[i].uid, mb.msgs[i - 1].uid);
    ck_assert_uint_eq(named(), 1);
    settle(&mb);
    ck_assert_uint_eq(named(), MANY + 1);
    mailbox_close(&mb);
}
END_TEST

/* Those of one base lie apart in the order of whole names; and one may come when its base is in the
 * list already. */
START_TEST(files_of_one_base_apart_and_later)
{
    struct mailbox mb;
    struct mailadopt a;
    plant_many(0, MANY);
    plant("cur/1007.M1.host,S=8:2,S", "a: b\n\nx\n");
    plant("cur/1007.M1.host-x:2,S", "a: b\n\nx\n");
    plant("cur/1007.M1.host+y:2,S", "a: b\n\nx\n");
    open_box(&mb);
    ck_assert_uint_eq(mb.n, MANY + 3);
    ck_assert(has_list());
    ck_assert_int_eq(mailadopt_load(&a, root, NULL), 0);
    ck_assert_uint_eq(a.n, MANY + 2);
    mailadopt_free(&a);
    ck_assert_uint_eq(named(), 1);
    /* As many again, before the first ones have their names. */
    plant_many(MANY, 2 * MANY);
    plant("cur/1003.M1.host,X=1:2,S", "a: b\n\nx\n");
    ck_assert_int_eq(mailbox_refresh(&mb, NULL), 0);
    ck_assert_uint_eq(mb.n, 2 * MANY + 4);
    ck_assert_int_eq(mailadopt_load(&a, root, NULL), 0);
    ck_assert_uint_eq(a.n, 2 * MANY + 2);
    mailadopt_free(&a);
    ck_assert_uint_eq(named(), 2);
    settle(&mb);
    ck_assert(!has_list());
    ck_assert_uint_eq(named(), 2 * MANY + 4);
    mailbox_close(&mb);
}
END_TEST

START_TEST(a_damaged_list_is_none)
{
    static struct known k;
    struct buf whole = buf_new(1 << 20);
    bool there;
    struct mailadopt a;
    plant_many(0, MANY);
    look(&k);
    ck_assert_int_eq(durable_read(root, "bulkhead-adopt", &whole, &there, NULL), 0);
    for (size_t n = 0; n < whole.n; n++) {
        whole.p[n] = (char)(whole.p[n] ^ 0x20);
        ck_assert_int_eq(durable_replace(root, "bulkhead-adopt", buf_str(&whole), NULL), 0);
        whole.p[n] = (char)(whole.p[n] ^ 0x20);
        ck_assert_int_eq(mailadopt_load(&a, root, NULL), 0);
        ck_assert_uint_eq(a.validity, 0);
        n += n > 100 ? 97 : 0;
    }
    buf_free(&whole);
}
END_TEST

static void
store_all(struct mailbox *mb, enum mailbox_store_op op, uint8_t flags)
{
    ck_assert_int_eq(mailbox_changes_begin(mb, NULL), 0);
    for (size_t i = 0; i < mb->n; i++)
        (void)mailbox_store(mb, i, op, flags, 0, NULL);
    mailbox_changes_end(mb);
}

START_TEST(flags_of_many_are_in_the_index_first)
{
    struct mailbox a, b;
    plant_many(0, SOME);
    open_box(&a);
    open_box(&b);
    store_all(&a, MAILBOX_ADD, MAILBOX_FLAGGED);
    ck_assert_uint_eq(a.ix.state.counts.owed, SOME - MAILBOX_DIRECT);
    ck_assert_int_eq(mailbox_refresh(&b, NULL), 0);
    for (size_t i = 0; i < b.n; i++)
        ck_assert(b.msgs[i].changed && (b.msgs[i].flags & MAILBOX_FLAGGED));
    /* Taken back before it was done: nothing is owed any more. */
    store_all(&a, MAILBOX_REMOVE, MAILBOX_FLAGGED);
    ck_assert_uint_eq(a.ix.state.counts.owed, MAILBOX_DIRECT);
    store_all(&a, MAILBOX_ADD, MAILBOX_FLAGGED);
    int fd = mailbox_open_message(&a, SOME - 1, NULL);
    ck_assert_int_ge(fd, 0);
    close(fd);
    ck_assert_int_eq(mailbox_unlink(&a, SOME - 1, NULL), 0);
    mailbox_close(&b);
    mailbox_close(&a); /* pays */
    unlinkat(root, "bulkhead.index", 0);
    open_box(&a);
    ck_assert_uint_eq(a.n, SOME - 1);
    ck_assert_uint_eq(a.ix.state.counts.owed, 0);
    for (size_t i = 0; i < a.n; i++)
        ck_assert_uint_eq(a.msgs[i].flags, MAILBOX_FLAGGED | (i % 2 ? MAILBOX_SEEN : 0));
    mailbox_close(&a);
}
END_TEST

START_TEST(who_dies_owing_is_paid_for)
{
    struct mailbox a;
    plant_many(0, SOME);
    open_box(&a);
    store_all(&a, MAILBOX_ADD, MAILBOX_FLAGGED);
    a.owes = false; /* as if killed */
    mailbox_close(&a);
    open_box(&a);
    for (size_t i = 0; i < a.n; i++)
        ck_assert(a.msgs[i].flags & MAILBOX_FLAGGED);
    ck_assert_uint_gt(a.ix.state.counts.owed, 0);
    settle(&a);
    ck_assert_uint_eq(a.ix.state.counts.owed, 0);
    mailbox_close(&a);
}
END_TEST

START_TEST(a_foreign_change_of_flags_that_are_owed)
{
    struct mailbox a;
    struct buf name = buf_new(300);
    char from[320], to[320];
    plant_many(0, SOME);
    open_box(&a);
    store_all(&a, MAILBOX_ADD, MAILBOX_FLAGGED);
    /* Seen, by its name; somebody takes that away, and answers it. */
    ck_assert_int_eq(mailbox_name(&a, 41, &name), 0);
    ck_assert(str_ends(buf_str(&name), STR(":2,S")));
    snprintf(from, sizeof from, "cur/%s", buf_z(&name));
    snprintf(to, sizeof to, "cur/%.*sR", (int)(name.n - 1), name.p);
    ck_assert_int_eq(renameat(root, from, root, to), 0);
    ck_assert_int_eq(mailbox_refresh(&a, NULL), 0);
    ck_assert_uint_eq(a.msgs[41].flags, MAILBOX_FLAGGED | MAILBOX_ANSWERED);
    ck_assert(a.msgs[41].changed);
    settle(&a);
    mailbox_close(&a);
    unlinkat(root, "bulkhead.index", 0);
    open_box(&a);
    ck_assert_uint_eq(a.msgs[41].flags, MAILBOX_FLAGGED | MAILBOX_ANSWERED);
    ck_assert_uint_eq(a.n, SOME);
    mailbox_close(&a);
    buf_free(&name);
}
END_TEST

/* ---- dying, and a full disk, at each call ---- */

static void
op_adopt(int tell_fd)
{
    struct mailbox mb;
    static struct known k;
    if (mailbox_open(&mb, root, STR("INBOX"), false, NULL) < 0)
        return;
    know(&mb, &k);
    (void)!write(tell_fd, &k, sizeof k);
    for (int n = 0; n < 1000 && mailbox_settle(&mb); n++)
        ;
    mailbox_close(&mb);
}

static void
op_flag(int tell_fd)
{
    struct mailbox mb;
    (void)tell_fd;
    if (mailbox_open(&mb, root, STR("INBOX"), false, NULL) < 0)
        return;
    if (mailbox_changes_begin(&mb, NULL) == 0) {
        for (size_t i = 0; i < mb.n; i++)
            (void)mailbox_store(&mb, i, MAILBOX_ADD, MAILBOX_FLAGGED, 0, NULL);
        mailbox_changes_end(&mb);
    }
    mailbox_close(&mb);
}

static bool
run_faulty(void (*op)(int), enum fault_how how, unsigned n, struct known *told_r)
{
    int ends[2], status;
    memset(told_r, 0, sizeof *told_r);
    ck_assert_int_eq(pipe(ends), 0);
    pid_t pid = fork();
    if (pid == 0) {
        fault_arm(how, n);
        op(ends[1]);
        fault_arm(FAULT_NONE, 0);
        _exit(0);
    }
    close(ends[1]);
    (void)!read(ends[0], told_r, sizeof *told_r);
    close(ends[0]);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert(WIFEXITED(status));
    ck_assert(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == FAULT_STATUS);
    return WEXITSTATUS(status) == FAULT_STATUS;
}

/* Every call of the first, then some of the many renames. */
static unsigned
next_call(unsigned n)
{
    return n < 40 ? n + 1 : n + 83;
}

static void
adopt_faulty(enum fault_how how, unsigned most)
{
    static struct known told, after, again;
    bool more = true;
    for (unsigned n = 1; more && n < most; n = next_call(n)) {
        plant_many(0, MANY);
        more = run_faulty(op_adopt, how, n, &told) || how == FAULT_FAIL;
        look(&after);
        ck_assert_uint_eq(after.n, MANY);
        if (told.n)
            ck_assert_mem_eq(&told, &after, sizeof told);
        unlinkat(root, "bulkhead.index", 0);
        look(&again);
        ck_assert_mem_eq(&again, &after, sizeof after);
        ck_assert(!run_faulty(op_adopt, FAULT_NONE, 0, &told));
        ck_assert(!has_list());
        ck_assert_uint_eq(named(), MANY);
        unlinkat(root, "bulkhead.index", 0);
        look(&again);
        ck_assert_mem_eq(&again, &after, sizeof after);
        teardown();
        setup();
    }
    ck_assert(how == FAULT_FAIL || !more);
}

START_TEST(taking_in_dies_at_each_call)
{
    adopt_faulty(FAULT_DIE, 3000);
}
END_TEST

START_TEST(taking_in_with_a_full_disk)
{
    adopt_faulty(FAULT_FAIL, 60);
}
END_TEST

START_TEST(flagging_dies_at_each_call)
{
    static struct known told, before, after;
    bool more = true;
    for (unsigned n = 1; more && n < 1000; n += n < 12 || n > 70 ? 2 : 7) {
        plant_many(0, SOME);
        look(&before);
        more = run_faulty(op_flag, FAULT_DIE, n, &told);
        look(&after);
        ck_assert_uint_eq(after.n, before.n);
        for (size_t i = 0; i < after.n; i++) {
            ck_assert_uint_eq(after.uid[i], before.uid[i]);
            ck_assert((after.flags[i] & ~MAILBOX_FLAGGED) == before.flags[i]);
        }
        ck_assert(!run_faulty(op_flag, FAULT_NONE, 0, &told));
        unlinkat(root, "bulkhead.index", 0);
        look(&after);
        for (size_t i = 0; i < after.n; i++)
            ck_assert(after.flags[i] == (before.flags[i] | MAILBOX_FLAGGED));
        teardown();
        setup();
    }
    ck_assert(!more);
}
END_TEST

Suite *suite_owed(void);
Suite *
suite_owed(void)
{
    Suite *s = suite_create("owed");
    TCase *t = tcase_create("owed");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 300);
    tcase_add_test(t, a_foreign_folder_is_taken_in_by_a_list);
    tcase_add_test(t, two_files_of_one_base);
    tcase_add_test(t, files_of_one_base_apart_and_later);
    tcase_add_test(t, a_damaged_list_is_none);
    tcase_add_test(t, flags_of_many_are_in_the_index_first);
    tcase_add_test(t, who_dies_owing_is_paid_for);
    tcase_add_test(t, a_foreign_change_of_flags_that_are_owed);
    tcase_add_test(t, taking_in_dies_at_each_call);
    tcase_add_test(t, taking_in_with_a_full_disk);
    tcase_add_test(t, flagging_dies_at_each_call);
    suite_add_tcase(s, t);
    return s;
}
