/* Writing messages: delivery (mailbox_deliver) and the writer that APPEND shares with it. */
#include "lib/base/clock.h"
#include "lib/mailbox/durable.h"
#include "lib/mailbox/folder.h"
#include "lib/mailbox/mailfile.h"
#include "lib/mailbox/mailname.h"
#include "lib/mailbox/mailscan.h"
#include "lib/mailbox/mailview.h"
#include "lib/mailbox/quota.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BASE_MAX = 150, COPY_PIECE = 32768 };

bool
mailbox_base_ok(struct str base)
{
    if (base.n == 0 || base.n > BASE_MAX || !ch_digit(base.p[0]))
        return false;
    for (size_t i = 0; i < base.n; i++)
        if (!ch_alnum(base.p[i]) && !(base.p[i] && strchr("._=+-", base.p[i])))
            return false;
    return true;
}

int
mailbox_write_begin(struct mailbox_writer *w, int tmp_fd, struct err *e)
{
    struct buf name = buf_new(sizeof w->tmp_name - 1);
    *w = (struct mailbox_writer){.tmp_fd = tmp_fd, .fd = -1};
    mailname_fresh(&name, 0);
    snprintf(w->tmp_name, sizeof w->tmp_name, "%s", buf_z(&name));
    buf_free(&name);
    w->fd = openat(tmp_fd, w->tmp_name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    return w->fd < 0 ? err_errno(e, "create a file in tmp") : 0;
}

int
mailbox_write(struct mailbox_writer *w, struct str data, struct err *e)
{
    if (w->fd < 0 || durable_write(w->fd, data) < 0)
        return err_errno(e, "write a message");
    w->size += data.n;
    w->vsize += data.n + mailfile_bare_lf(data, &w->cr);
    return 0;
}

static void
writer_close(struct mailbox_writer *w, bool remove)
{
    if (w->fd < 0)
        return;
    if (remove)
        unlinkat(w->tmp_fd, w->tmp_name, 0);
    close(w->fd);
    w->fd = -1;
}

void
mailbox_write_abort(struct mailbox_writer *w)
{
    writer_close(w, true);
}

int
mailbox_write_commit(struct mailbox_writer *w, struct mailbox *mb, uint8_t flags, uint32_t keywords,
                     int64_t date_s, uint32_t *uid_r, struct err *e)
{
    struct buf base = buf_new(100), name = buf_new(MAILNAME_MAX + 200);
    struct mailname fresh = {.size = UINT64_MAX, .vsize = UINT64_MAX};
    uint32_t uid = 0;
    bool taken = false;
    int result = -1;
    const struct timespec times[2] = {{.tv_nsec = UTIME_NOW}, {.tv_sec = date_s}};
    if (date_s && futimens(w->fd, times) < 0) {
        err_errno(e, "set the date of a message");
        goto out;
    }
    if (fsync(w->fd) < 0) {
        err_errno(e, "sync a message");
        goto out;
    }
    if (quota_take(mb->root_fd, w->size, 1, e) < 0)
        goto out;
    taken = true;
    if (mailview_reserve(mb, 1, &uid, e) < 0)
        goto out;
    mailname_fresh(&base, 0);
    fresh.base = buf_str(&base);
    fresh.fields = fresh.info = str_of("", 0);
    bool to_new = !flags && !keywords;
    mailname_build(&name, &fresh,
                   &(struct mailname_new){.size = w->size,
                                          .vsize = w->vsize,
                                          .uid = uid,
                                          .validity = mb->uids.validity,
                                          .flags = flags,
                                          .keywords = keywords,
                                          .info = !to_new});
    int to_fd = to_new ? mb->new_fd : mb->cur_fd;
    if (mailview_rename(mb, w->tmp_fd, w->tmp_name, to_fd, buf_z(&name)) < 0)
        err_errno(e, "rename a message");
    else if (fsync(to_fd) < 0) {
        err_errno(e, "sync the folder");
        mb->guard.expect += unlinkat(to_fd, buf_z(&name), 0) == 0;
    } else {
        struct mailbox_message m = {.uid = uid,
                                    .size = w->size,
                                    .vsize = w->vsize,
                                    .flags = flags,
                                    .keywords = keywords,
                                    .in_new = to_new,
                                    .date_s = date_s ? date_s : wall_s(),
                                    .saved_s = (uint32_t)wall_s()};
        mailview_added(mb, &m, buf_str(&name));
        result = 0;
    }
    mailview_end(mb);
    *uid_r = uid;
out:
    if (result < 0 && taken)
        quota_give(mb->root_fd, w->size, 1);
    writer_close(w, result < 0);
    buf_free(&base);
    buf_free(&name);
    return result;
}

/* ---- delivery ---- */

/* Whether a file of this base is in the directory; its name to found. */
static int
look_for(int root_fd, const char *sub, struct str base, struct buf *found, struct err *e)
{
    struct mailscan s = {0};
    if (mailview_list_dir(&s, root_fd, sub) < 0)
        return err_set(e, ERR_TEMPORARY, "cannot list %s", sub);
    for (size_t i = 0; i < s.n && found->n == 0; i++) {
        struct str name = str_z(mailscan_name(&s, &s.at[i]));
        if (str_starts(name, base) &&
            (name.n == base.n || name.p[base.n] == ',' || name.p[base.n] == ':'))
            buf_add(found, name);
    }
    mailscan_free(&s);
    return 0;
}

static int
copy_source(struct mailbox_writer *w, const struct mailbox_delivery *d, struct err *e)
{
    char piece[COPY_PIECE];
    uint64_t at = d->offset, left = d->size;
    while (left) {
        ssize_t n = pread(d->fd, piece, left < sizeof piece ? left : sizeof piece, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_errno(e, "read the queued message");
        if (n == 0)
            return err_set(e, ERR_TEMPORARY, "the queued message is shorter than announced");
        if (mailbox_write(w, str_of(piece, (size_t)n), e) < 0)
            return -1;
        at += (uint64_t)n;
        left -= (uint64_t)n;
    }
    return 0;
}

struct delivery_dirs {
    int tmp_fd, new_fd, cur_fd;
};

static void
close_dirs(struct delivery_dirs *dirs)
{
    const int fds[] = {dirs->tmp_fd, dirs->new_fd, dirs->cur_fd};
    for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++)
        if (fds[i] >= 0)
            close(fds[i]);
}

static int
open_dirs(int root_fd, struct delivery_dirs *dirs, struct err *e)
{
    const int how = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    *dirs = (struct delivery_dirs){-1, -1, -1};
    if (folder_make_subdirs(root_fd, e) < 0)
        return -1;
    dirs->tmp_fd = openat(root_fd, "tmp", how);
    dirs->new_fd = openat(root_fd, "new", how);
    dirs->cur_fd = openat(root_fd, "cur", how);
    if (dirs->tmp_fd >= 0 && dirs->new_fd >= 0 && dirs->cur_fd >= 0)
        return 0;
    err_errno(e, "open the Maildir");
    close_dirs(dirs);
    return -1;
}

/* Write, sync, put in place. 1: the name was taken. */
static int
put(int root_fd, const struct mailbox_delivery *d, const struct delivery_dirs *dirs,
    struct buf *name, struct err *e)
{
    struct mailbox_writer w;
    if (mailbox_write_begin(&w, dirs->tmp_fd, e) < 0)
        return -1;
    if (quota_take(root_fd, d->head.n + d->size, 1, e) < 0) {
        mailbox_write_abort(&w);
        return -1;
    }
    if (mailbox_write(&w, d->head, e) < 0 || copy_source(&w, d, e) < 0)
        goto fail;
    if (fsync(w.fd) < 0) {
        err_errno(e, "sync a message");
        goto fail;
    }
    buf_add(name, d->base);
    buf_addf(name, ",S=%llu,W=%llu", (unsigned long long)w.size, (unsigned long long)w.vsize);
    bool taken = false;
    if (mailscan_rename(dirs->tmp_fd, w.tmp_name, dirs->new_fd, buf_z(name)) < 0) {
        taken = errno == EEXIST;
        if (!taken) {
            err_errno(e, "rename a message");
            goto fail;
        }
    }
    if (taken)
        quota_give(root_fd, d->head.n + d->size, 1);
    writer_close(&w, taken);
    return taken;
fail:
    quota_give(root_fd, d->head.n + d->size, 1);
    mailbox_write_abort(&w);
    return -1;
}

int
mailbox_deliver(int root_fd, const struct mailbox_delivery *d, struct buf *file_r, bool *already_r,
                struct err *e)
{
    struct delivery_dirs dirs;
    struct buf name = buf_new(MAILNAME_MAX);
    int result = -1;
    *already_r = false;
    if (!mailbox_base_ok(d->base))
        return err_set(e, ERR_PERMANENT, "not a base for a file name");
    if (open_dirs(root_fd, &dirs, e) < 0)
        return -1;
    if (d->again && (look_for(root_fd, "new", d->base, &name, e) < 0 ||
                     (name.n == 0 && look_for(root_fd, "cur", d->base, &name, e) < 0)))
        goto out;
    *already_r = name.n > 0;
    int put_it = *already_r ? 1 : put(root_fd, d, &dirs, &name, e);
    if (put_it < 0)
        goto out;
    *already_r = put_it;
    /* Also for what was there: the try that put it there may have ended before its sync. */
    if (fsync(dirs.new_fd) < 0 || (*already_r && fsync(dirs.cur_fd) < 0)) {
        err_errno(e, "sync the folder");
        /* Never a second fsync (catalogue J8): what is not known to be durable goes away. */
        if (!*already_r)
            unlinkat(dirs.new_fd, buf_z(&name), 0);
        goto out;
    }
    if (file_r)
        buf_add(file_r, buf_str(&name));
    result = 0;
out:
    close_dirs(&dirs);
    buf_free(&name);
    return result;
}
