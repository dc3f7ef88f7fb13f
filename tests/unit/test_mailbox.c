/* mailbox: UIDs that stay, foreign programs beside us, hostile content, delivery, in a directory of
 * its own. */
#include "lib/mailbox/durable.h"
#include "lib/mailbox/folder.h"
#include "lib/mailbox/mailbox.h"
#include "lib/mailbox/mailfile.h"
#include "lib/mailbox/mailname.h"
#include "lib/mailbox/mailscan.h"
#include "lib/mailbox/mailview.h"
#include "lib/queue/qfile.h"
#include "tests/unit/temp.h"
#include "tests/unit/unit.h"
#include <sys/mman.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char top[64];
static int root = -1;

static void
setup(void)
{
    snprintf(top, sizeof top, "/tmp/bh-mailbox-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(top));
    root = open(top, O_RDONLY | O_DIRECTORY);
    ck_assert_int_ge(root, 0);
}

static void
teardown(void)
{
    close(root);
    temp_remove(top);
}

/* A file below the Maildir, as a foreign program writes it. */
static void
plant(const char *path, const char *text)
{
    char full[400];
    struct err e;
    (void)folder_make_subdirs(root, -1, &e);
    snprintf(full, sizeof full, "%s/%s", top, path);
    FILE *f = fopen(full, "w");
    ck_assert_msg(f != NULL, "%s", full);
    fputs(text, f);
    fclose(f);
}

static void
open_box(struct mailbox *mb, const char *folder, bool read_only)
{
    struct err e = {0};
    ck_assert_msg(mailbox_open(mb, root, str_z(folder), read_only, &e) == 0, "%s", e.text);
}

static void
refresh(struct mailbox *mb)
{
    struct err e = {0};
    ck_assert_msg(mailbox_refresh(mb, &e) == 0, "%s", e.text);
}

/* The name of a message's file, good until the next call but three. */
static const char *
name_of(struct mailbox *mb, size_t i)
{
    static char names[4][256];
    static unsigned turn;
    struct buf name = buf_new(255);
    ck_assert_int_eq(mailbox_name(mb, i, &name), 0);
    char *to = names[turn++ % 4];
    snprintf(to, 256, "%s", buf_z(&name));
    buf_free(&name);
    return to;
}

static uint32_t
append(struct mailbox *mb, const char *text)
{
    struct mailbox_writer w;
    struct err e = {0};
    uint32_t uid;
    ck_assert_int_eq(mailbox_write_begin(&w, mb->tmp_fd, &e), 0);
    ck_assert_int_eq(mailbox_write(&w, str_z(text), &e), 0);
    ck_assert_msg(mailbox_write_commit(&w, mb, 0, 0, 0, &uid, &e) == 0, "%s", e.text);
    return uid;
}

/* ---- names ---- */

START_TEST(names_are_taken_apart)
{
    struct mailname m;
    ck_assert_int_eq(mailname_parse(STR("1700000000.M1P2.host,S=10,X=y,W=12,U=3.4:2,FPSab,q"), &m),
                     0);
    ck_str(m.base, "1700000000.M1P2.host");
    ck_assert_uint_eq(m.size, 10);
    ck_assert_uint_eq(m.vsize, 12);
    ck_assert_uint_eq(m.uid, 3);
    ck_assert_uint_eq(m.validity, 4);
    ck_assert_uint_eq(m.flags, MAILBOX_FLAGGED | MAILBOX_SEEN);
    ck_assert_uint_eq(m.keywords, 3);
    ck_assert(m.time_s == 1700000000);
    struct buf out = buf_new(600);
    mailname_build(&out, &m,
                   &(struct mailname_new){.size = 1,
                                          .vsize = 2,
                                          .uid = 7,
                                          .validity = 8,
                                          .flags = MAILBOX_SEEN | MAILBOX_DRAFT,
                                          .keywords = 2,
                                          .info = true});
    ck_str(buf_str(&out), "1700000000.M1P2.host,S=10,X=y,W=12,U=7.8:2,DPSb,q");
    static const char *const bad[] = {"", ".hidden", "a/b", "x:2,\nS", "\x7f"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        ck_assert_int_eq(mailname_parse(str_z(bad[i]), &m), -1);
    static const char *const no_uid[] = {
        "a,U=", "a,U=1", "a,U=0.1", "a,U=1.0", "a,U=4294967296.1", "a,U=-1.1", "a,U=1.x"};
    for (size_t i = 0; i < sizeof no_uid / sizeof no_uid[0]; i++) {
        ck_assert_int_eq(mailname_parse(str_z(no_uid[i]), &m), 0);
        ck_assert_uint_eq(m.uid, 0);
    }
    /* A base as long as a name can be leaves no room: it is replaced. */
    char longest[256];
    memset(longest, '1', 255);
    longest[255] = '\0';
    ck_assert_int_eq(mailname_parse(str_z(longest), &m), 0);
    mailname_build(&out, &m, &(struct mailname_new){.uid = 7, .validity = 8, .info = true});
    ck_assert_uint_le(out.n, MAILNAME_MAX);
    ck_assert_int_eq(mailname_parse(buf_str(&out), &m), 0);
    ck_assert_uint_eq(m.uid, 7);
    buf_free(&out);
}
END_TEST

START_TEST(every_prefix_of_a_name)
{
    static const char name[] = "1700000000.M1P2.host,S=10,W=12,U=3.4:2,FPSab,q";
    for (size_t n = 0; n < sizeof name; n++) {
        struct mailname m;
        struct buf out = buf_new(600);
        if (mailname_parse(str_of(name, n), &m) == 0)
            mailname_build(&out, &m, &(struct mailname_new){.info = true});
        buf_free(&out);
    }
}
END_TEST

/* ---- UIDs ---- */

START_TEST(uids_stay)
{
    struct mailbox mb;
    plant("new/1000.b.h", "b\n");
    plant("new/999.a.h", "a\r\n");
    plant("cur/1001.c.h:2,S", "c\n");
    open_box(&mb, "INBOX", false);
    ck_assert_uint_eq(mb.n, 3);
    ck_assert_uint_eq(mb.msgs[0].uid, 1);
    ck_assert(str_starts(str_z(name_of(&mb, 0)), STR("999.a.h")));
    ck_assert(mb.msgs[0].recent);
    ck_assert(!mb.msgs[2].recent && (mb.msgs[2].flags & MAILBOX_SEEN));
    uint32_t validity = mb.uids.validity;
    mailbox_close(&mb);
    open_box(&mb, "inbox", false);
    ck_assert_uint_eq(mb.uids.validity, validity);
    ck_assert_uint_eq(mb.uids.next, 4);
    ck_assert(!mb.msgs[0].recent);
    ck_assert_uint_eq(append(&mb, "d\r\n"), 4);
    refresh(&mb);
    ck_assert_uint_eq(mb.n, 4);
    mailbox_close(&mb);
}
END_TEST

START_TEST(lost_uid_file_keeps_validity_and_jumps)
{
    struct mailbox mb;
    plant("new/1.a.h", "a\n");
    plant("new/2.b.h", "b\n");
    open_box(&mb, "INBOX", false);
    uint32_t validity = mb.uids.validity;
    mailbox_close(&mb);
    ck_assert_int_eq(unlinkat(root, "bulkhead-uid", 0), 0);
    plant("new/3.c.h", "c\n");
    open_box(&mb, "INBOX", false);
    ck_assert_uint_eq(mb.uids.validity, validity);
    ck_assert_uint_eq(mb.msgs[1].uid, 2);
    ck_assert_uint_ge(mb.msgs[2].uid, 2 + UIDFILE_JUMP);
    struct err e;
    for (size_t i = 0; i < 3; i++)
        ck_assert_int_eq(mailbox_unlink(&mb, i, &e), 0);
    mailbox_close(&mb);
    /* With no name left there is nothing to keep: a greater UIDVALIDITY. */
    ck_assert_int_eq(unlinkat(root, "bulkhead-uid", 0), 0);
    open_box(&mb, "INBOX", false);
    ck_assert_uint_gt(mb.uids.validity, validity);
    mailbox_close(&mb);
}
END_TEST

START_TEST(torn_uid_file_counts_as_lost)
{
    struct mailbox mb;
    struct buf whole = buf_new(200);
    bool there;
    struct err e;
    plant("new/1.a.h", "a\n");
    open_box(&mb, "INBOX", false);
    uint32_t validity = mb.uids.validity;
    mailbox_close(&mb);
    ck_assert_int_eq(durable_read(root, "bulkhead-uid", &whole, &there, &e), 0);
    for (size_t n = 0; n <= whole.n; n++) {
        ck_assert_int_eq(durable_replace(root, "bulkhead-uid", str_sub(buf_str(&whole), 0, n), &e),
                         0);
        open_box(&mb, "INBOX", false);
        ck_assert_uint_eq(mb.uids.validity, validity);
        ck_assert_uint_eq(mb.msgs[0].uid, 1);
        ck_assert(mb.uids.next == 2 || mb.uids.next > UIDFILE_JUMP);
        mailbox_close(&mb);
    }
    buf_free(&whole);
}
END_TEST

START_TEST(killed_holder_makes_no_uid_twice)
{
    struct mailbox mb;
    open_box(&mb, "INBOX", false);
    mailbox_close(&mb);
    pid_t pid = fork();
    if (pid == 0) {
        struct mailbox child;
        open_box(&child, "INBOX", false);
        for (int i = 0; i < 3; i++)
            append(&child, "x\r\n");
        refresh(&child);
        for (size_t i = 0; i < child.n; i++)
            mailbox_unlink(&child, i, NULL);
        _exit(0); /* without a close, as if killed */
    }
    ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
    open_box(&mb, "INBOX", false);
    ck_assert_uint_ge(append(&mb, "y\r\n"), 4);
    mailbox_close(&mb);
}
END_TEST

START_TEST(many_at_once_get_different_uids)
{
    enum { CHILDREN = 4, EACH = 25 };
    struct mailbox mb;
    open_box(&mb, "INBOX", false);
    mailbox_close(&mb);
    for (int c = 0; c < CHILDREN; c++)
        if (fork() == 0) {
            for (int i = 0; i < EACH; i++) {
                struct mailbox child;
                char path[64];
                snprintf(path, sizeof path, "new/%d.c%d.h", 1000 + i, c);
                plant(path, "x\n");
                open_box(&child, "INBOX", i % 2);
                append(&child, "y\r\n");
                mailbox_close(&child);
            }
            _exit(0);
        }
    for (int c = 0; c < CHILDREN; c++) {
        int status;
        wait(&status);
        ck_assert_int_eq(status, 0);
    }
    open_box(&mb, "INBOX", false);
    ck_assert_uint_eq(mb.n, 2 * CHILDREN * EACH);
    for (size_t i = 1; i < mb.n; i++)
        ck_assert_uint_gt(mb.msgs[i].uid, mb.msgs[i - 1].uid);
    mailbox_close(&mb);
}
END_TEST

START_TEST(copied_file_gets_its_own_uid)
{
    struct mailbox mb;
    char from[400], to[400];
    plant("new/1.a.h", "a\n");
    open_box(&mb, "INBOX", false);
    snprintf(from, sizeof from, "%s/cur/%s", top, name_of(&mb, 0));
    snprintf(to, sizeof to, "%s/cur/9.z.h,U=%u.%u:2,", top, mb.msgs[0].uid, mb.uids.validity);
    ck_assert_int_eq(link(from, to), 0);
    refresh(&mb);
    ck_assert_uint_eq(mb.n, 2);
    ck_assert_uint_eq(mb.msgs[1].uid, 2);
    mailbox_close(&mb);
}
END_TEST

START_TEST(highest_uid_in_a_name_is_survived)
{
    struct mailbox mb;
    char name[100];
    plant("new/1.a.h", "a\n");
    open_box(&mb, "INBOX", false);
    uint32_t validity = mb.uids.validity;
    mailbox_close(&mb);
    snprintf(name, sizeof name, "cur/2.b.h,U=4294967295.%u:2,", validity);
    plant(name, "b\n");
    plant("new/3.c.h", "c\n");
    open_box(&mb, "INBOX", false);
    ck_assert_uint_eq(mb.n, 3);
    ck_assert_uint_gt(mb.uids.validity, validity);
    ck_assert_uint_eq(mb.msgs[2].uid, 3);
    mailbox_close(&mb);
}
END_TEST

/* ---- a view, and others beside it ---- */

START_TEST(foreign_changes_are_seen)
{
    struct mailbox mb;
    char from[400], to[400];
    plant("new/1.a.h", "a\n");
    plant("new/2.b.h", "b\n");
    plant("new/3.c.h", "c\n");
    open_box(&mb, "INBOX", false);
    snprintf(from, sizeof from, "%s/cur/%s", top, name_of(&mb, 0));
    snprintf(to, sizeof to, "%s/cur/%sFS", top, name_of(&mb, 0));
    ck_assert_int_eq(rename(from, to), 0);
    ck_assert_int_eq(unlinkat(mb.cur_fd, name_of(&mb, 1), 0), 0);
    plant("new/4.d.h", "d\n");
    refresh(&mb);
    ck_assert_uint_eq(mb.n, 4);
    ck_assert(mb.msgs[0].changed && mb.msgs[0].flags == (MAILBOX_FLAGGED | MAILBOX_SEEN));
    ck_assert(mb.msgs[1].gone && !mb.msgs[2].gone);
    ck_assert_uint_eq(mb.msgs[3].uid, 4);
    mailbox_drop_gone(&mb);
    ck_assert_uint_eq(mb.n, 3);
    mailbox_close(&mb);
}
END_TEST

START_TEST(store_finds_a_renamed_message)
{
    struct mailbox a, b;
    struct err e = {0};
    plant("new/1.a.h", "a\n");
    open_box(&a, "INBOX", false);
    open_box(&b, "INBOX", false);
    ck_assert_int_eq(mailbox_store(&a, 0, MAILBOX_ADD, MAILBOX_SEEN, 0, &e), 0);
    ck_assert_int_eq(mailbox_store(&b, 0, MAILBOX_ADD, MAILBOX_FLAGGED, 0, &e), 0);
    ck_assert_uint_eq(b.msgs[0].flags, MAILBOX_SEEN | MAILBOX_FLAGGED);
    ck_assert_int_eq(mailbox_store(&a, 0, MAILBOX_REMOVE, MAILBOX_SEEN, 0, &e), 0);
    ck_assert_uint_eq(a.msgs[0].flags, MAILBOX_FLAGGED);
    int fd = mailbox_open_message(&b, 0, &e);
    ck_assert_int_ge(fd, 0);
    close(fd);
    ck_assert_int_eq(mailbox_store(&b, 0, MAILBOX_REPLACE, MAILBOX_DELETED, 0, &e), 0);
    ck_assert_int_eq(mailbox_store(&a, 0, MAILBOX_REPLACE, 0, 0, &e), 0);
    /* Not deleted any more on disk: must not be removed. */
    ck_assert_int_eq(mailbox_expunge(&b, 0, &e), 0);
    ck_assert(!b.msgs[0].gone);
    ck_assert_int_eq(mailbox_unlink(&a, 0, &e), 0);
    ck_assert_int_eq(mailbox_store(&b, 0, MAILBOX_ADD, MAILBOX_SEEN, 0, &e), 0);
    ck_assert(b.msgs[0].gone);
    mailbox_close(&a);
    mailbox_close(&b);
}
END_TEST

START_TEST(foreign_flags_and_fields_are_kept)
{
    struct mailbox mb;
    struct err e;
    plant("cur/1.a.h,Z=q:2,PS", "a\n");
    open_box(&mb, "INBOX", false);
    ck_assert_int_eq(mailbox_store(&mb, 0, MAILBOX_ADD, MAILBOX_FLAGGED, 0, &e), 0);
    ck_assert_ptr_nonnull(strstr(name_of(&mb, 0), ",Z=q,"));
    ck_assert_ptr_nonnull(strstr(name_of(&mb, 0), ":2,FPS"));
    mailbox_close(&mb);
}
END_TEST

START_TEST(examine_leaves_new_where_it_is)
{
    struct mailbox mb;
    plant("new/1.a.h", "a\n");
    open_box(&mb, "INBOX", true);
    ck_assert_uint_eq(mb.msgs[0].uid, 1);
    ck_assert(mb.msgs[0].in_new && mb.msgs[0].recent);
    mailbox_close(&mb);
    open_box(&mb, "INBOX", false);
    ck_assert_uint_eq(mb.msgs[0].uid, 1);
    ck_assert(!mb.msgs[0].in_new && mb.msgs[0].recent);
    mailbox_close(&mb);
}
END_TEST

START_TEST(hostile_content_is_passed_over)
{
    char path[400];
    struct mailbox mb;
    struct err e;
    plant("cur/1.ok.h:2,", "fine\n");
    snprintf(path, sizeof path, "%s/cur/2.fifo", top);
    ck_assert_int_eq(mkfifo(path, 0600), 0);
    snprintf(path, sizeof path, "%s/cur/3.link", top);
    ck_assert_int_eq(symlink("/etc/passwd", path), 0);
    snprintf(path, sizeof path, "%s/new/4.dir", top);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    plant("cur/5.x:2,\nS", "x");
    plant("cur/6.zero", "");
    snprintf(path, sizeof path, "%s/.Link", top);
    ck_assert_int_eq(symlink("/tmp", path), 0);
    open_box(&mb, "INBOX", false);
    ck_assert_uint_eq(mb.n, 2);
    /* What was a file becomes a link under our eyes. */
    const char *name = name_of(&mb, 0);
    ck_assert_int_eq(unlinkat(mb.cur_fd, name, 0), 0);
    ck_assert_int_eq(symlinkat("/etc/passwd", mb.cur_fd, name), 0);
    ck_assert_int_lt(mailbox_open_message(&mb, 0, &e), 0);
    mailbox_close(&mb);
    ck_assert_int_lt(mailbox_open(&mb, root, STR("Link"), false, &e), 0);
    struct arena arena = arena_new(1 << 20);
    struct folder_list list;
    ck_assert_int_eq(folder_list(root, &arena, &list, &e), 0);
    ck_assert_uint_eq(list.n, 1);
    arena_free(&arena);
}
END_TEST

START_TEST(sizes_are_learnt_once)
{
    struct mailbox mb;
    struct err e;
    uint64_t size;
    plant("new/1.a.h", "a\nb\r\n\n");
    open_box(&mb, "INBOX", false);
    ck_assert_int_eq(mailbox_vsize(&mb, 0, &size, &e), 0);
    ck_assert_uint_eq(size, 8);
    ck_assert_ptr_nonnull(strstr(name_of(&mb, 0), ",S=6,W=8,"));
    struct mailfile f;
    int fd = mailbox_open_message(&mb, 0, &e);
    ck_assert_int_eq(mailfile_load(&f, fd, false, &e), 0);
    ck_str(f.text, "a\r\nb\r\n\r\n");
    mailfile_free(&f);
    mailbox_close(&mb);
}
END_TEST

START_TEST(mailfile_converts_at_every_offset)
{
    static const char text[] = "\n\r\n\rx\n\n\0y\r\n\r";
    for (size_t n = 0; n < sizeof text; n++) {
        char path[400];
        uint64_t size, vsize;
        struct err e;
        struct mailfile f;
        snprintf(path, sizeof path, "%s/f", top);
        int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
        ck_assert(write(fd, text, n) == (ssize_t)n);
        ck_assert_int_eq(mailfile_measure(fd, &size, &vsize, &e), 0);
        ck_assert_int_eq(mailfile_load(&f, dup(fd), false, &e), 0);
        ck_assert_uint_eq(f.text.n, vsize);
        for (size_t i = 0; i < f.text.n; i++) {
            ck_assert(f.text.p[i] != '\0');
            ck_assert(f.text.p[i] != '\n' || (i && f.text.p[i - 1] == '\r'));
        }
        mailfile_free(&f);
        close(fd);
    }
}
END_TEST

/* The longest that is held, and one that is not: the same bytes of both, from any place. */
START_TEST(a_message_held_whole_at_its_ceiling)
{
    static char text[MAILFILE_WHOLE + 1];
    struct buf out = buf_new(MAILFILE_WHOLE + 1);
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (char)('a' + i % 23);
    memcpy(text, "A: b\r\n\r\n", 8);
    for (size_t n = MAILFILE_WHOLE; n <= MAILFILE_WHOLE + 1; n++) {
        struct err e;
        struct mailfile f;
        uint64_t size;
        char path[400];
        snprintf(path, sizeof path, "%s/f", top);
        int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
        size_t before = temp_fds();
        ck_assert(write(fd, text, n) == (ssize_t)n);
        ck_assert_int_eq(mailfile_load(&f, dup(fd), false, &e), 0);
        ck_assert_int_eq(f.whole, n == MAILFILE_WHOLE);
        ck_assert_int_eq(mailfile_size(&f, &size, &e), 0);
        ck_assert_uint_eq(size, n);
        ck_assert_uint_eq(f.body_at, 8);
        static const size_t from[] = {0, 7, MAILFILE_HEAD - 1, MAILFILE_WHOLE - 2};
        for (size_t i = 0; i < sizeof from / sizeof from[0]; i++) {
            buf_reset(&out);
            ck_assert_int_eq(mailfile_range(&f, from[i], n, &out, &e), 0);
            ck_assert(str_eq(buf_str(&out), str_of(text + from[i], n - from[i])));
        }
        mailfile_free(&f);
        ck_assert_uint_eq(temp_fds(), before);
        close(fd);
    }
    buf_free(&out);
}
END_TEST

/* ---- copy, keywords, locks ---- */

START_TEST(copy_keeps_flags_keywords_and_dates)
{
    struct mailbox a, b;
    struct err e = {0};
    int k;
    uint32_t first;
    const size_t both[] = {0, 1};
    ck_assert_int_eq(folder_create(root, STR("Sub"), &e), 0);
    plant("new/1.a.h", "a\n");
    plant("new/2.b.h", "b\n");
    open_box(&a, "INBOX", false);
    open_box(&b, "Sub", false);
    ck_assert_int_eq(mailbox_keyword(&b, STR("other"), &k, &e), 0);
    ck_assert_int_eq(mailbox_keyword(&a, STR("$Work"), &k, &e), 0);
    ck_assert_int_eq(mailbox_store(&a, 0, MAILBOX_ADD, MAILBOX_SEEN, 1u << k, &e), 0);
    ck_assert_msg(mailbox_copy(&a, both, 2, false, &b, &first, &e) == 0, "%s", e.text);
    refresh(&b);
    ck_assert_uint_eq(b.n, 2);
    ck_assert_uint_eq(b.msgs[0].uid, first);
    ck_assert_uint_eq(b.msgs[0].flags, MAILBOX_SEEN);
    ck_assert_uint_eq(b.msgs[0].keywords, 1u << keywords_find(&b.keywords, STR("$work")));
    ck_assert(mailbox_date(&b, 0) == mailbox_date(&a, 0));
    ck_assert_uint_ne(a.uids.validity, b.uids.validity);
    /* All or none. */
    ck_assert_int_eq(unlinkat(a.cur_fd, name_of(&a, 1), 0), 0);
    ck_assert_int_lt(mailbox_copy(&a, both, 2, false, &b, &first, &e), 0);
    refresh(&b);
    ck_assert_uint_eq(b.n, 2);
    mailbox_close(&a);
    mailbox_close(&b);
}
END_TEST

START_TEST(keywords_fill_up)
{
    struct mailbox mb;
    struct err e;
    int k;
    open_box(&mb, "INBOX", false);
    for (int i = 0; i < KEYWORDS_MAX; i++) {
        char name[16];
        snprintf(name, sizeof name, "key%d", i);
        ck_assert_int_eq(mailbox_keyword(&mb, str_z(name), &k, &e), 0);
        ck_assert_int_eq(k, i);
    }
    ck_assert_int_eq(mailbox_keyword(&mb, STR("KEY3"), &k, &e), 0);
    ck_assert_int_eq(k, 3);
    ck_assert_int_lt(mailbox_keyword(&mb, STR("more"), &k, &e), 0);
    ck_assert_int_eq(e.class, ERR_LIMIT);
    mailbox_close(&mb);
    open_box(&mb, "INBOX", false);
    ck_assert_int_eq(keywords_find(&mb.keywords, STR("key25")), 25);
    mailbox_close(&mb);
    ck_assert(!keywords_valid(STR("a b")) && !keywords_valid(STR("\\x")) &&
              !keywords_valid(STR("")));
}
END_TEST

START_TEST(dovecot_keywords_are_taken_over)
{
    struct mailbox mb;
    plant("cur/1.a.h:2,b", "a\n");
    plant("dovecot-keywords", "0 $Junk\n1 $Work\n99 bad\nnonsense\n");
    open_box(&mb, "INBOX", false);
    ck_assert_int_eq(keywords_find(&mb.keywords, STR("$Work")), 1);
    ck_assert_uint_eq(mb.msgs[0].keywords, 2);
    mailbox_close(&mb);
}
END_TEST

START_TEST(one_claim_at_a_time)
{
    struct mailbox a, b;
    struct err e;
    open_box(&a, "INBOX", false);
    open_box(&b, "INBOX", false);
    ck_assert_int_eq(mailbox_claim(&a, &e), 0);
    ck_assert_int_lt(mailbox_claim(&b, &e), 0);
    ck_assert_int_eq(e.class, ERR_LIMIT);
    mailbox_close(&a);
    ck_assert_int_eq(mailbox_claim(&b, &e), 0);
    mailbox_close(&b);
}
END_TEST

/* ---- delivery ---- */

static int
deliver(const char *base, const char *text, bool again, bool *already_r, struct err *e)
{
    char path[100];
    snprintf(path, sizeof path, "%s/source", top);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    ck_assert(write(fd, "HEAD", 4) == 4 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    struct mailbox_delivery d = {.base = str_z(base),
                                 .head = STR("Return-Path: <a@b>\r\n"),
                                 .fd = fd,
                                 .offset = 4,
                                 .size = strlen(text),
                                 .check = qfile_check(str_z(text)),
                                 .again = again};
    int result = mailbox_deliver(root, &d, NULL, already_r, e);
    close(fd);
    return result;
}

/* Several, without a limit, and with one of two messages: the third finds it full, and waits for
 * nobody. */
START_TEST(several_at_once)
{
    static struct mailbox_put put[3];
    struct mailbox_inbox in = mailbox_inbox(root);
    struct stat st;
    struct err e = {0};
    size_t fds = temp_fds();
    if (_i)
        plant("maildirsize", "2C\n0 0\n");
    for (int i = 0; i < 3; i++) {
        char base[20], path[300];
        snprintf(base, sizeof base, "%d.batch", i % 2 + 1);
        struct mailbox_delivery d = {.base = str_z(base), .check = qfile_check(STR(""))};
        if (_i)
            base[0] = (char)('1' + i);
        int result = mailbox_put(&in, &d, &put[i], &e);
        ck_assert_msg(result == (_i && i == 2 ? -1 : 0), "%d: %s", i, e.text);
        if (result < 0) {
            ck_assert_int_eq(e.class, ERR_LIMIT);
            continue;
        }
        snprintf(path, sizeof path, "new/%s", put[i].name);
        ck_assert_int_eq(fstatat(root, path, &st, 0), _i ? 0 : -1);
    }
    for (int i = 0; i < 3 - _i; i++) {
        ck_assert_int_eq(mailbox_place(&in, &put[i], &e), 0);
        ck_assert_int_eq(put[i].already, i == 2); /* without a limit: the first once more */
    }
    ck_assert_int_eq(mailbox_settle_inbox(&in, &e), 0);
    struct mailscan s = {0};
    ck_assert_int_eq(mailview_list_dir(&s, root, "new"), 0);
    ck_assert_uint_eq(s.n, 2);
    for (int i = 0; i < 3 - _i; i++)
        mailbox_take_back(&in, &put[i]);
    mailscan_free(&s);
    ck_assert_int_eq(mailview_list_dir(&s, root, "new"), 0);
    ck_assert_uint_eq(s.n, 0);
    mailscan_free(&s);
    ck_assert_int_eq(mailview_list_dir(&s, root, "tmp"), 0);
    ck_assert_uint_eq(s.n, 0);
    mailscan_free(&s);
    mailbox_inbox_close(&in);
    ck_assert_uint_eq(temp_fds(), fds);
}
END_TEST

START_TEST(delivery_is_done_once)
{
    struct mailbox mb;
    struct err e = {0};
    bool already;
    ck_assert_int_eq(deliver("5.Qabc.0", "X: y\r\n\r\nz\n", false, &already, &e), 0);
    ck_assert(!already);
    ck_assert_int_eq(deliver("5.Qabc.0", "X: y\r\n\r\nz\n", false, &already, &e), 0);
    ck_assert(already);
    open_box(&mb, "INBOX", false);
    ck_assert_uint_eq(mb.n, 1);
    ck_assert_uint_eq(mb.msgs[0].size, 30);
    ck_assert_uint_eq(mb.msgs[0].vsize, 31);
    ck_assert_int_eq(mailbox_store(&mb, 0, MAILBOX_ADD, MAILBOX_SEEN, 0, &e), 0);
    ck_assert_int_eq(deliver("5.Qabc.0", "X: y\r\n\r\nz\n", true, &already, &e), 0);
    ck_assert(already);
    /* Another name that only begins alike is another message. */
    ck_assert_int_eq(deliver("5.Qabc", "X: y\r\n\r\nz\n", true, &already, &e), 0);
    ck_assert(!already);
    refresh(&mb);
    ck_assert_uint_eq(mb.n, 2);
    mailbox_close(&mb);
    DIR *tmp = fdopendir(openat(root, "tmp", O_RDONLY | O_DIRECTORY));
    struct dirent *d;
    while ((d = readdir(tmp)))
        ck_assert(d->d_name[0] == '.');
    closedir(tmp);
}
END_TEST

START_TEST(delivery_makes_what_is_missing)
{
    static const char *const subs[] = {"tmp", "new", "cur"};
    struct err e = {0};
    bool already;
    for (size_t i = 0; i < 3; i++) {
        char base[8];
        struct stat st;
        snprintf(base, sizeof base, "5.Q%zu", i);
        (void)unlinkat(root, subs[i], AT_REMOVEDIR);
        ck_assert_msg(deliver(base, "x", false, &already, &e) == 0, "%s: %s", subs[i], e.text);
        for (size_t k = 0; k < 3; k++)
            ck_assert_int_eq(fstatat(root, subs[k], &st, 0), 0);
        char path[100];
        snprintf(path, sizeof path, "new/%s,S=21,W=21", base);
        ck_assert_msg(unlinkat(root, path, 0) == 0, "%s", path);
    }
}
END_TEST

/* Around the pieces in which a message is copied. */
START_TEST(delivery_of_every_size)
{
    static const size_t sizes[] = {0, 1, 32748, 32749, 32750, 32768, 65516, 65517, 100000};
    static const size_t heads[] = {0, 19, 16383, 16384, 40000};
    static char head[40000], text[100000], back[140000];
    char path[100];
    memset(head, 'h', sizeof head);
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (char)('a' + i % 23);
    int fd = memfd_create("source", MFD_CLOEXEC);
    ck_assert_int_eq(write(fd, text, sizeof text), sizeof text);
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++)
        for (size_t h = 0; h < sizeof heads / sizeof heads[0]; h++) {
            struct err e = {0};
            struct buf name = buf_new(255);
            char base[16];
            bool already;
            snprintf(base, sizeof base, "5.%zu-%zu", s, h);
            struct mailbox_delivery d = {.base = str_z(base),
                                         .head = str_of(head, heads[h]),
                                         .fd = fd,
                                         .size = sizes[s],
                                         .check = qfile_check(str_of(text, sizes[s]))};
            ck_assert_int_eq(mailbox_deliver(root, &d, &name, &already, &e), 0);
            snprintf(path, sizeof path, "new/%s", buf_z(&name));
            int got = openat(root, path, O_RDONLY);
            ck_assert_int_eq(read(got, back, sizeof back), (ssize_t)(sizes[s] + heads[h]));
            ck_assert(memcmp(back, head, heads[h]) == 0);
            ck_assert(memcmp(back + heads[h], text, sizes[s]) == 0);
            close(got);
            buf_free(&name);
        }
    close(fd);
}
END_TEST

START_TEST(delivery_refuses_what_is_no_base)
{
    struct err e;
    bool already;
    static const char *const bad[] = {"", "a", "1/2", "1:2", "1,2", "../1", "1\n", "1 2"};
    char longest[152];
    memset(longest, '1', 151);
    longest[151] = '\0';
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        ck_assert_int_lt(deliver(bad[i], "x", false, &already, &e), 0);
        ck_assert_int_eq(e.class, ERR_PERMANENT);
    }
    ck_assert(!mailbox_base_ok(str_z(longest)));
    ck_assert(mailbox_base_ok(str_of(longest, 150)));
    struct mailbox_delivery d = {.base = STR("1.short"), .fd = root, .size = 10};
    ck_assert_int_lt(mailbox_deliver(root, &d, NULL, &already, &e), 0);
    ck_assert_int_eq(e.class, ERR_TEMPORARY);
}
END_TEST

static size_t
files_in(const char *sub)
{
    char path[100];
    snprintf(path, sizeof path, "%s/%s", top, sub);
    return temp_count(path);
}

/* Nothing of it is left, and the next try finds the place free. */
START_TEST(what_does_not_fit_its_check_is_not_delivered)
{
    bool already;
    struct err e = {0};
    int fd = openat(root, "queued", O_RDWR | O_CREAT | O_TRUNC, 0600);
    ck_assert_int_eq(write(fd, "Subject: x\r\n", 12), 12);
    struct mailbox_delivery d = {.base = STR("1.flipped"), .fd = fd, .size = 12};
    d.check = qfile_check(STR("Subject: y\r\n"));
    ck_assert_int_lt(mailbox_deliver(root, &d, NULL, &already, &e), 0);
    ck_assert_int_eq(e.class, ERR_DAMAGED);
    ck_assert_uint_eq(files_in("new"), 0);
    ck_assert_uint_eq(files_in("tmp"), 0);
    d.check = qfile_check(STR("Subject: x\r\n"));
    ck_assert_int_eq(mailbox_deliver(root, &d, NULL, &already, &e), 0);
    ck_assert(!already);
    ck_assert_uint_eq(files_in("new"), 1);
    close(fd);
}
END_TEST

Suite *suite_mailbox(void);
Suite *
suite_mailbox(void)
{
    Suite *s = suite_create("mailbox");
    TCase *t = tcase_create("mailbox");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, what_does_not_fit_its_check_is_not_delivered);
    tcase_set_timeout(t, 300);
    tcase_add_test(t, names_are_taken_apart);
    tcase_add_test(t, every_prefix_of_a_name);
    tcase_add_test(t, uids_stay);
    tcase_add_test(t, lost_uid_file_keeps_validity_and_jumps);
    tcase_add_test(t, torn_uid_file_counts_as_lost);
    tcase_add_test(t, killed_holder_makes_no_uid_twice);
    tcase_add_test(t, many_at_once_get_different_uids);
    tcase_add_test(t, copied_file_gets_its_own_uid);
    tcase_add_test(t, highest_uid_in_a_name_is_survived);
    tcase_add_test(t, foreign_changes_are_seen);
    tcase_add_test(t, store_finds_a_renamed_message);
    tcase_add_test(t, foreign_flags_and_fields_are_kept);
    tcase_add_test(t, examine_leaves_new_where_it_is);
    tcase_add_test(t, hostile_content_is_passed_over);
    tcase_add_test(t, sizes_are_learnt_once);
    tcase_add_test(t, mailfile_converts_at_every_offset);
    tcase_add_test(t, a_message_held_whole_at_its_ceiling);
    tcase_add_test(t, copy_keeps_flags_keywords_and_dates);
    tcase_add_test(t, keywords_fill_up);
    tcase_add_test(t, dovecot_keywords_are_taken_over);
    tcase_add_test(t, one_claim_at_a_time);
    tcase_add_loop_test(t, several_at_once, 0, 2);
    tcase_add_test(t, delivery_is_done_once);
    tcase_add_test(t, delivery_makes_what_is_missing);
    tcase_add_test(t, delivery_of_every_size);
    tcase_add_test(t, delivery_refuses_what_is_no_base);
    suite_add_tcase(s, t);
    return s;
}
