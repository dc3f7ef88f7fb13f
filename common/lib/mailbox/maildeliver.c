/* Writing messages: delivery (mailbox_deliver) and the writer that APPEND shares with it. */
#include "lib/base/clock.h"
#include "lib/mailbox/durable.h"
#include "lib/mailbox/folder.h"
#include "lib/mailbox/mailfile.h"
#include "lib/mailbox/mailname.h"
#include "lib/mailbox/mailscan.h"
#include "lib/mailbox/mailview.h"
#include "lib/mailbox/quota.h"
#include "lib/queue/qfile.h"
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

static int
writer_open(struct mailbox_writer *w, int tmp_fd)
{
    w->tmp_fd = tmp_fd;
    w->size = w->vsize = 0;
    w->cr = false;
    w->fd = openat(tmp_fd, w->tmp_name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    return w->fd < 0 ? -1 : 0;
}

int
mailbox_write_begin(struct mailbox_writer *w, int tmp_fd, struct err *e)
{
    struct buf name = buf_on(w->tmp_name, sizeof w->tmp_name, sizeof w->tmp_name - 1);
    mailname_fresh(&name, 0);
    w->tmp_name[name.n] = '\0';
    return writer_open(w, tmp_fd) < 0 ? err_errno(e, "create a file in tmp") : 0;
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

/* On the disk, with its date. */
static int
settle_file(const struct mailbox_writing *x, struct err *e)
{
    const struct timespec times[2] = {{.tv_nsec = UTIME_NOW}, {.tv_sec = x->date_s}};
    if (x->date_s && futimens(x->w.fd, times) < 0)
        return err_errno(e, "set the date of a message");
    return fsync(x->w.fd) < 0 ? err_errno(e, "sync a message") : 0;
}

static bool
goes_to_new(const struct mailbox_writing *x)
{
    return !x->flags && !x->keywords;
}

static int
place(struct mailbox *mb, struct mailbox_writing *x, uint32_t uid, struct err *e)
{
    struct buf base = buf_new(100), name = buf_new(sizeof x->name - 1);
    struct mailname fresh = {.size = UINT64_MAX, .vsize = UINT64_MAX};
    mailname_fresh(&base, 0);
    fresh.base = buf_str(&base);
    fresh.fields = fresh.info = str_of("", 0);
    mailname_build(&name, &fresh,
                   &(struct mailname_new){.size = x->w.size,
                                          .vsize = x->w.vsize,
                                          .uid = uid,
                                          .validity = mb->uids.validity,
                                          .flags = x->flags,
                                          .keywords = x->keywords,
                                          .info = !goes_to_new(x)});
    snprintf(x->name, sizeof x->name, "%s", buf_z(&name));
    buf_free(&base);
    buf_free(&name);
    if (mailview_rename(mb, x->w.tmp_fd, x->w.tmp_name, goes_to_new(x) ? mb->new_fd : mb->cur_fd,
                        x->name) == 0)
        return 0;
    x->name[0] = '\0';
    return err_errno(e, "rename a message");
}

/* All of them in their places, and the directories synced; or none. */
static int
place_all(struct mailbox *mb, struct mailbox_writing *at, size_t n, uint32_t first, struct err *e)
{
    bool to_new = false, to_cur = false;
    int result = 0;
    for (size_t i = 0; i < n && result == 0; i++) {
        result = place(mb, &at[i], first + (uint32_t)i, e);
        to_new |= goes_to_new(&at[i]);
        to_cur |= !goes_to_new(&at[i]);
    }
    if (result == 0 && ((to_new && fsync(mb->new_fd) < 0) || (to_cur && fsync(mb->cur_fd) < 0)))
        result = err_errno(e, "sync the folder");
    for (size_t i = 0; i < n && result < 0; i++)
        if (at[i].name[0])
            mb->guard.expect +=
                unlinkat(goes_to_new(&at[i]) ? mb->new_fd : mb->cur_fd, at[i].name, 0) == 0;
    return result;
}

static void
tell_added(struct mailbox *mb, const struct mailbox_writing *x, uint32_t uid)
{
    struct mailbox_message m = {.uid = uid,
                                .size = x->w.size,
                                .vsize = x->w.vsize,
                                .flags = x->flags,
                                .keywords = x->keywords,
                                .in_new = goes_to_new(x),
                                .date_s = x->date_s ? x->date_s : wall_s(),
                                .saved_s = (uint32_t)wall_s()};
    mailview_added(mb, &m, str_z(x->name));
}

int
mailbox_write_commit_all(struct mailbox_writing *at, size_t n, struct mailbox *mb,
                         uint32_t *first_uid_r, struct err *e)
{
    uint64_t bytes = 0;
    struct quota_room room = {0};
    int result = 0;
    for (size_t i = 0; i < n && result == 0; i++) {
        at[i].name[0] = '\0';
        bytes += at[i].w.size;
        result = settle_file(&at[i], e);
    }
    if (result == 0)
        result = quota_take(mb->root_fd, bytes, n, &room, e);
    if (result == 0 && (result = mailview_reserve(mb, (uint32_t)n, first_uid_r, e)) == 0) {
        result = place_all(mb, at, n, *first_uid_r, e);
        for (size_t i = 0; i < n && result == 0; i++)
            tell_added(mb, &at[i], *first_uid_r + (uint32_t)i);
        mailview_end(mb);
    }
    quota_end(&room, result == 0);
    for (size_t i = 0; i < n; i++)
        writer_close(&at[i].w, result < 0);
    return result;
}

int
mailbox_write_commit(struct mailbox_writer *w, struct mailbox *mb, uint8_t flags, uint32_t keywords,
                     int64_t date_s, uint32_t *uid_r, struct err *e)
{
    struct mailbox_writing x = {.w = *w, .flags = flags, .keywords = keywords, .date_s = date_s};
    int result = mailbox_write_commit_all(&x, 1, mb, uid_r, e);
    *w = x.w;
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

/* The head, and the source: most go out in one write. What is not as it was put into the queue goes
 * nowhere. */
static int
copy(struct mailbox_writer *w, const struct mailbox_delivery *d, struct err *e)
{
    static char piece[COPY_PIECE];
    struct siphash check = qfile_check_begin();
    uint64_t at = d->offset, left = d->size;
    size_t held = d->head.n < sizeof piece / 2 ? d->head.n : 0;
    if (held)
        memcpy(piece, d->head.p, held);
    else if (d->head.n && mailbox_write(w, d->head, e) < 0)
        return -1;
    do {
        size_t room = sizeof piece - held;
        ssize_t n = pread(d->fd, piece + held, left < room ? left : room, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_errno(e, "read the queued message");
        if (n == 0 && left)
            return err_set(e, ERR_TEMPORARY, "the queued message is shorter than announced");
        siphash_add(&check, str_of(piece + held, (size_t)n));
        if (mailbox_write(w, str_of(piece, held + (size_t)n), e) < 0)
            return -1;
        held = 0;
        at += (uint64_t)n;
        left -= (uint64_t)n;
    } while (left);
    return qfile_check_end(&check, d->check, e);
}

static int
open_dir(int root_fd, const char *sub)
{
    return openat(root_fd, sub, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

struct mailbox_inbox
mailbox_inbox(int root_fd)
{
    return (struct mailbox_inbox){.root_fd = root_fd, .tmp_fd = -1, .new_fd = -1};
}

void
mailbox_inbox_close(struct mailbox_inbox *in)
{
    if (in->tmp_fd >= 0)
        close(in->tmp_fd);
    if (in->new_fd >= 0)
        close(in->new_fd);
    *in = mailbox_inbox(in->root_fd);
}

static bool
open_dirs(struct mailbox_inbox *in)
{
    mailbox_inbox_close(in);
    in->tmp_fd = open_dir(in->root_fd, "tmp");
    in->new_fd = open_dir(in->root_fd, "new");
    return in->tmp_fd >= 0 && in->new_fd >= 0;
}

static int
open_inbox(struct mailbox_inbox *in, struct err *e)
{
    struct stat cur;
    if (in->new_fd >= 0)
        return 0;
    if (fstatat(in->root_fd, "cur", &cur, AT_SYMLINK_NOFOLLOW) == 0 && open_dirs(in))
        return 0;
    if (folder_make_subdirs(in->root_fd, -1, e) < 0)
        return -1;
    return open_dirs(in) ? 0 : err_errno(e, "open the Maildir");
}

/* In tmp/ under the name that it will have, unless another try has left it there, or is at it. */
static int
begin(struct mailbox_writer *w, const struct mailbox_inbox *in, struct str base, struct err *e)
{
    memcpy(w->tmp_name, base.p, base.n);
    w->tmp_name[base.n] = '\0';
    if (writer_open(w, in->tmp_fd) == 0)
        return 0;
    return errno == EEXIST ? mailbox_write_begin(w, in->tmp_fd, e)
                           : err_errno(e, "create a file in tmp");
}

/* Written, and on its way to the disk, so that the sync of one waits for all of a batch. */
static int
write_one(const struct mailbox_inbox *in, const struct mailbox_delivery *d, struct mailbox_put *p,
          struct err *e)
{
    if (begin(&p->w, in, d->base, e) < 0)
        return -1;
    if (quota_take(in->root_fd, d->head.n + d->size, 1, &p->room, e) < 0 || copy(&p->w, d, e) < 0) {
        quota_end(&p->room, false);
        mailbox_write_abort(&p->w);
        return -1;
    }
    (void)sync_file_range(p->w.fd, 0, 0, SYNC_FILE_RANGE_WRITE); /* fsync() tells of failures */
    buf_add(&p->file, d->base);
    buf_addf(&p->file, ",S=%llu,W=%llu", (unsigned long long)p->w.size,
             (unsigned long long)p->w.vsize);
    return 0;
}

int
mailbox_put(struct mailbox_inbox *in, const struct mailbox_delivery *d, struct mailbox_put *p,
            struct err *e)
{
    p->w.fd = -1;
    p->already = false;
    p->room = (struct quota_room){0};
    p->file = buf_on(p->name, sizeof p->name, MAILBOX_FILE_MAX);
    if (!mailbox_base_ok(d->base))
        return err_set(e, ERR_PERMANENT, "not a base for a file name");
    if (open_inbox(in, e) < 0)
        return -1;
    if (d->again && (look_for(in->root_fd, "new", d->base, &p->file, e) < 0 ||
                     (p->file.n == 0 && look_for(in->root_fd, "cur", d->base, &p->file, e) < 0)))
        return -1;
    if (p->file.n) {
        p->already = in->already = true;
        return 0;
    }
    if (write_one(in, d, p, e) < 0)
        return -1;
    /* Nobody counts a mailbox while somebody holds room in it: not we, for the next. */
    return p->room.held ? mailbox_place(in, p, e) : 0;
}

int
mailbox_place(struct mailbox_inbox *in, struct mailbox_put *p, struct err *e)
{
    if (p->w.fd < 0) /* it is */
        return 0;
    int result = fsync(p->w.fd) < 0 ? err_errno(e, "sync a message") : 0;
    if (result == 0 &&
        mailscan_rename(in->tmp_fd, p->w.tmp_name, in->new_fd, buf_z(&p->file)) < 0) {
        p->already = errno == EEXIST;
        in->already |= p->already;
        result = p->already ? 0 : err_errno(e, "rename a message");
    }
    quota_end(&p->room, result == 0 && !p->already);
    writer_close(&p->w, result < 0 || p->already);
    return result;
}

/* The name of what was there already may not be durable: the try that put it there may have ended
 * before its sync. */
int
mailbox_settle_inbox(struct mailbox_inbox *in, struct err *e)
{
    int cur_fd = in->already ? open_dir(in->root_fd, "cur") : -1;
    int result = in->new_fd < 0 ? 0 : fsync(in->new_fd);
    if (in->already && (cur_fd < 0 || fsync(cur_fd) < 0))
        result = -1;
    if (result < 0)
        err_errno(e, "sync the folder");
    if (cur_fd >= 0)
        close(cur_fd);
    return result;
}

/* Never a second fsync (catalogue J8): what is not known to be durable goes away. */
void
mailbox_take_back(struct mailbox_inbox *in, struct mailbox_put *p)
{
    if (!p->already)
        unlinkat(in->new_fd, buf_z(&p->file), 0);
}

int
mailbox_deliver(int root_fd, const struct mailbox_delivery *d, struct buf *file_r, bool *already_r,
                struct err *e)
{
    struct mailbox_inbox in = mailbox_inbox(root_fd);
    struct mailbox_put p;
    int result = mailbox_put(&in, d, &p, e);
    if (result == 0)
        result = mailbox_place(&in, &p, e);
    if (result == 0 && (result = mailbox_settle_inbox(&in, e)) < 0)
        mailbox_take_back(&in, &p);
    *already_r = p.already;
    if (result == 0 && file_r)
        buf_add(file_r, buf_str(&p.file));
    mailbox_inbox_close(&in);
    return result;
}
