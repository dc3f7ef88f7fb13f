#include "lib/mailbox/mailexport.h"
#include "lib/mailbox/durable.h"
#include "lib/mailbox/folder.h"
#include "lib/mailbox/mailadopt.h"
#include "lib/mailbox/mailbox.h"
#include "lib/mailbox/mailfile.h"
#include "lib/mailbox/mailname.h"
#include "lib/mailbox/mailscan.h"
#include "lib/mailbox/mailview.h"
#include "lib/mailbox/mbox.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PIECE = 65536, TABLE_MAX = 256 << 20 };

static int
each_folder(struct mailexport *x, int (*what)(struct mailexport *, struct str, struct err *),
            struct err *e)
{
    struct arena arena = arena_new(32 << 20);
    struct folder_list list;
    int result = folder_list(x->root_fd, &arena, &list, e);
    for (size_t i = 0; result == 0 && i < list.n; i++)
        if (list.at[i].exists) {
            result = what(x, list.at[i].name, e);
            x->folders++;
        }
    arena_free(&arena);
    return result;
}

static void
did_one(struct mailexport *x)
{
    x->messages++;
    if (x->progress)
        x->progress(x->arg, x->messages + x->already);
}

/* ---- to a Maildir ---- */

static int
copy_to(int from, int to, struct err *e)
{
    char piece[PIECE];
    for (;;) {
        ssize_t n = read(from, piece, sizeof piece);
        if (n < 0 && errno == EINTR)
            continue;
        if (n == 0)
            return 0;
        if (n < 0 || durable_write(to, str_of(piece, (size_t)n)) < 0)
            return err_errno(e, "copy a message");
    }
}

/* What an export before this one has left in cur/: by base and UID, which two files of one base
 * have each its own. */
struct there {
    struct mailscan scan;
    struct mailadopt keys; /* number k + 1: the k-th of the scan */
    struct buf key;
};

static struct str
key_of(struct there *t, const char *name)
{
    struct mailname is;
    buf_reset(&t->key);
    if (mailname_parse(str_z(name), &is) < 0 || !is.uid)
        return STR("");
    buf_add(&t->key, is.base);
    buf_addf(&t->key, ",%u.%u", is.uid, is.validity);
    return buf_str(&t->key);
}

static int
look_there(struct there *t, int dir_fd, struct err *e)
{
    *t = (struct there){.key = buf_new(MAILNAME_MAX + 64)};
    if (mailview_list_dir(&t->scan, dir_fd, "cur") < 0)
        return err_set(e, ERR_TEMPORARY, "cannot list cur");
    if (mailadopt_begin(&t->keys, 1, t->scan.n + 1, true) < 0)
        return err_set(e, ERR_TEMPORARY, "out of memory");
    for (size_t k = 0; k < t->scan.n; k++) {
        struct str key = key_of(t, mailscan_name(&t->scan, &t->scan.at[k]));
        if (key.n)
            (void)mailadopt_add(&t->keys, key, (uint32_t)k + 1);
    }
    return 0;
}

/* Whether it is there, perhaps with the flags of that time. */
static bool
is_there(struct there *t, int cur_fd, const char *name)
{
    struct stat st;
    if (fstatat(cur_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
        return true;
    struct str key = key_of(t, name);
    uint32_t k = key.n ? mailadopt_find(&t->keys, key) : 0;
    return k && renameat(cur_fd, mailscan_name(&t->scan, &t->scan.at[k - 1]), cur_fd, name) == 0;
}

/* Written beside, with its date, then renamed: what has its name is whole. */
static int
export_file(struct mailexport *x, struct mailbox *mb, size_t i, int tmp_fd, int cur_fd,
            const char *name, struct err *e)
{
    struct stat st;
    int from = mailbox_open_message(mb, i, e), result = -1;
    if (from < 0)
        return mb->msgs[i].gone ? 0 : -1;
    unlinkat(tmp_fd, name, 0);
    int to = openat(tmp_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (to < 0 || fstat(from, &st) < 0)
        err_errno(e, "write %s", name);
    else if (copy_to(from, to, e) == 0)
        result = futimens(to, (struct timespec[2]){st.st_atim, st.st_mtim}) < 0 ||
                         renameat(tmp_fd, name, cur_fd, name) < 0
                     ? err_errno(e, "write %s", name)
                     : 0;
    close(from);
    if (to >= 0)
        close(to);
    if (result == 0)
        did_one(x);
    return result;
}

static int
put_file(int dir_fd, const char *name, const struct buf *text, struct err *e)
{
    return buf_ok(text) ? durable_replace(dir_fd, name, buf_str(text), e)
                        : err_set(e, ERR_LIMIT, "%s is too long", name);
}

static int
export_tables(const struct mailbox *mb, int dir_fd, const struct buf *uidlist, struct err *e)
{
    struct buf words = buf_new(65536);
    for (int k = 0; k < KEYWORDS_MAX; k++)
        if (mb->keywords.name[k][0])
            buf_addf(&words, "%d %s\n", k, mb->keywords.name[k]);
    int result = put_file(dir_fd, "dovecot-uidlist", uidlist, e);
    if (result == 0 && words.n)
        result = put_file(dir_fd, "dovecot-keywords", &words, e);
    buf_free(&words);
    return result;
}

static int
export_messages(struct mailexport *x, struct mailbox *mb, int dir_fd, struct err *e)
{
    const int how = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    struct buf name = buf_new(MAILNAME_MAX + 64), uidlist = buf_new(TABLE_MAX);
    int tmp_fd = openat(dir_fd, "tmp", how), cur_fd = openat(dir_fd, "cur", how);
    struct there there;
    int result = look_there(&there, dir_fd, e);
    if (tmp_fd < 0 || cur_fd < 0)
        result = err_errno(e, "open cur");
    buf_addf(&uidlist, "3 V%u N%u\n", mb->validity, mailbox_uidnext(mb));
    for (size_t i = 0; result == 0 && i < mb->n; i++) {
        if (mb->msgs[i].gone || mailbox_name(mb, i, &name) < 0)
            continue;
        ptrdiff_t colon = str_find(buf_str(&name), STR(":2,"));
        struct str stem = str_sub(buf_str(&name), 0, colon < 0 ? name.n : (size_t)colon);
        buf_addf(&uidlist, "%u :", mb->msgs[i].uid);
        buf_add(&uidlist, stem);
        buf_addc(&uidlist, '\n');
        if (colon < 0)
            buf_addz(&name, ":2,");
        if (is_there(&there, cur_fd, buf_z(&name)))
            x->already++;
        else
            result = export_file(x, mb, i, tmp_fd, cur_fd, buf_z(&name), e);
    }
    if (result == 0)
        result = export_tables(mb, dir_fd, &uidlist, e);
    if (tmp_fd >= 0)
        close(tmp_fd);
    if (cur_fd >= 0)
        close(cur_fd);
    mailscan_free(&there.scan);
    mailadopt_free(&there.keys);
    buf_free(&there.key);
    buf_free(&name);
    buf_free(&uidlist);
    return result;
}

static int
export_folder(struct mailexport *x, struct str folder, struct err *e)
{
    char path[FOLDER_NAME_MAX + 8];
    struct mailbox mb;
    if (folder_path(folder, path) < 0)
        return 0;
    if (!folder_is_inbox(folder) && !folder_exists(x->to_fd, folder) &&
        folder_create(x->to_fd, folder, e) < 0)
        return -1;
    int dir_fd = openat(x->to_fd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (dir_fd < 0)
        return err_errno(e, "open %s", path);
    int result = folder_make_subdirs(dir_fd, folder_is_inbox(folder) ? -1 : x->to_fd, e);
    if (result == 0 && (result = mailbox_open(&mb, x->root_fd, folder, true, e)) == 0) {
        result = export_messages(x, &mb, dir_fd, e);
        mailbox_close(&mb);
    }
    close(dir_fd);
    return result;
}

static int
export_subscriptions(struct mailexport *x, struct err *e)
{
    struct arena arena = arena_new(32 << 20);
    struct folder_list list;
    int result = folder_subscriptions(x->root_fd, &arena, &list, e);
    for (size_t i = 0; result == 0 && i < list.n; i++)
        result = folder_subscribe(x->to_fd, list.at[i].name, true, e);
    arena_free(&arena);
    return result;
}

/* ---- to mbox files ---- */

/* "From " behind any number of '>' at the start of a line. */
static bool
wants_quote(struct str rest)
{
    size_t n = 0;
    while (n < rest.n && rest.p[n] == '>')
        n++;
    return str_starts(str_from(rest, n), STR("From "));
}

static void
put_quoted(struct buf *out, struct str text)
{
    while (text.n) {
        if (wants_quote(text))
            buf_addc(out, '>');
        ptrdiff_t end = str_chr(text, '\n');
        size_t n = end < 0 ? text.n : (size_t)end + 1;
        buf_add(out, str_sub(text, 0, n));
        text = str_from(text, n);
    }
}

static void
put_keywords(struct buf *words, const struct mailbox *mb, uint32_t bits)
{
    for (int k = 0; k < KEYWORDS_MAX; k++)
        if ((bits >> k & 1) && mb->keywords.name[k][0])
            buf_addf(words, "%s%s", words->n ? " " : "", mb->keywords.name[k]);
}

/* The first that is there carries what is of the folder. */
static int
put_message(struct mailbox *mb, size_t i, int out_fd, bool *first, struct err *e)
{
    struct buf out = buf_new(SIZE_MAX / 4), words = buf_new(65536), text = buf_new(SIZE_MAX / 4);
    const struct mailbox_message *m = &mb->msgs[i];
    int fd = mailbox_open_message(mb, i, e), result = -1;
    if (fd < 0)
        return mb->msgs[i].gone ? 0 : -1;
    char *to = buf_reserve(&text, (size_t)m->size);
    ssize_t n = to ? pread(fd, to, (size_t)m->size, 0) : -1;
    if (n < 0) {
        err_errno(e, "read a message");
        goto out;
    }
    buf_commit(&text, (size_t)n);
    put_keywords(&words, mb, m->keywords);
    const struct mbox_meta meta = {.validity = *first ? mb->validity : 0,
                                   .next = *first ? mailbox_uidnext(mb) : 0,
                                   .uid = m->uid,
                                   .flags = m->flags,
                                   .old = !m->in_new,
                                   .no_newline = n == 0 || text.p[n - 1] != '\n',
                                   .keywords = buf_str(&words)};
    mbox_put_meta(&out, &meta, mailbox_date(mb, i));
    put_quoted(&out, buf_str(&text));
    buf_addz(&out, meta.no_newline ? "\n\n" : "\n");
    result = buf_ok(&out) && durable_write(out_fd, buf_str(&out)) == 0
                 ? 0
                 : err_errno(e, "write the mbox");
    *first = false;
out:
    close(fd);
    buf_free(&out);
    buf_free(&words);
    buf_free(&text);
    return result;
}

/* Written beside, then renamed. */
static int
export_mbox(struct mailexport *x, struct str folder, struct err *e)
{
    char tmp[FOLDER_NAME_MAX + 16], name[FOLDER_NAME_MAX + 1];
    struct mailbox mb;
    snprintf(name, sizeof name, "%.*s", STR_ARG(folder));
    snprintf(tmp, sizeof tmp, ".new-%s", name);
    if (mailbox_open(&mb, x->root_fd, folder, true, e) < 0)
        return -1;
    unlinkat(x->to_fd, tmp, 0);
    int fd = openat(x->to_fd, tmp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    int result = fd < 0 ? err_errno(e, "write %s", name) : 0;
    bool first = true;
    for (size_t i = 0; result == 0 && i < mb.n; i++)
        if ((result = put_message(&mb, i, fd, &first, e)) == 0)
            did_one(x);
    if (result == 0 && (fsync(fd) < 0 || renameat(x->to_fd, tmp, x->to_fd, name) < 0))
        result = err_errno(e, "write %s", name);
    if (fd >= 0)
        close(fd);
    mailbox_close(&mb);
    return result;
}

int
mailexport_all(struct mailexport *x, struct err *e)
{
    if (each_folder(x, x->mbox ? export_mbox : export_folder, e) < 0)
        return -1;
    return x->mbox ? 0 : export_subscriptions(x, e);
}

/* ---- looking, and making anew ---- */

static void
problem(struct mailexport *x, struct str folder, const char *what, uint32_t uid)
{
    char text[100];
    snprintf(text, sizeof text, "message %u: %s", uid, what);
    x->problems++;
    x->report(x->arg, folder, text);
}

static void
check_message(struct mailexport *x, struct mailbox *mb, size_t i, struct str folder)
{
    struct buf name = buf_new(MAILNAME_MAX + 64);
    struct mailname parsed;
    uint64_t size, vsize;
    const uint32_t uid = mb->msgs[i].uid;
    int fd = mailbox_open_message(mb, i, NULL);
    if (fd < 0) {
        if (!mb->msgs[i].gone)
            problem(x, folder, "its file cannot be opened", uid);
        buf_free(&name);
        return;
    }
    if (mailfile_measure(fd, &size, &vsize, NULL) < 0)
        problem(x, folder, "its file cannot be read", uid);
    else if (mailbox_name(mb, i, &name) < 0 || mailname_parse(buf_str(&name), &parsed) < 0)
        problem(x, folder, "its name is not known", uid);
    else if ((parsed.size != UINT64_MAX && parsed.size != size) ||
             (parsed.vsize != UINT64_MAX && parsed.vsize != vsize))
        problem(x, folder, "its name tells another size than it has", uid);
    else if (mb->msgs[i].vsize != MAILBOX_SIZE_UNKNOWN && mb->msgs[i].vsize != vsize)
        problem(x, folder, "the index tells another size than it has", uid);
    close(fd);
    buf_free(&name);
}

static int
check_folder(struct mailexport *x, struct str folder, struct err *e)
{
    struct mailbox mb;
    struct mailindex ix;
    struct mailindex_rows rows = {0};
    if (mailbox_open(&mb, x->root_fd, folder, true, e) < 0)
        return -1;
    mailindex_init(&ix);
    if (mailindex_load(&ix, mb.dir_fd, mb.validity, &rows) < 0 || rows.n != mb.n) {
        x->problems++;
        x->report(x->arg, folder, "the index does not hold");
    }
    mailindex_free(&ix);
    free(rows.at);
    for (size_t i = 0; i < mb.n; i++) {
        check_message(x, &mb, i, folder);
        did_one(x);
    }
    mailbox_close(&mb);
    return 0;
}

int
mailexport_check(struct mailexport *x, struct err *e)
{
    return each_folder(x, check_folder, e);
}

static int
rebuild_folder(struct mailexport *x, struct str folder, struct err *e)
{
    char path[FOLDER_NAME_MAX + 8];
    struct mailbox mb;
    if (folder_path(folder, path) < 0)
        return 0;
    int dir_fd = openat(x->root_fd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (dir_fd < 0)
        return err_errno(e, "open %s", path);
    unlinkat(dir_fd, "bulkhead.index", 0);
    unlinkat(dir_fd, "bulkhead.cache", 0);
    close(dir_fd);
    if (mailbox_open(&mb, x->root_fd, folder, false, e) < 0)
        return -1;
    for (size_t i = 0; i < mb.n; i++) {
        uint64_t vsize;
        (void)mailbox_vsize(&mb, i, &vsize, NULL);
        did_one(x);
    }
    while (mailbox_settle(&mb))
        ;
    mailbox_close(&mb);
    return 0;
}

int
mailexport_rebuild(struct mailexport *x, struct err *e)
{
    return each_folder(x, rebuild_folder, e);
}
