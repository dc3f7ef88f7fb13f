#include "lib/mailbox/mailbox.h"
#include "lib/base/clock.h"
#include "lib/mailbox/durable.h"
#include "lib/mailbox/folder.h"
#include "lib/mailbox/mailfile.h"
#include "lib/mailbox/mailname.h"
#include "lib/mailbox/mailscan.h"
#include "lib/mailbox/mailview.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <unistd.h>

enum { TMP_AGE_S = 36 * 3600, TMP_CLEAN_MAX = 1000 };

int
mailview_lock(struct mailbox *mb, struct err *e)
{
    for (int tries = 0; tries < 3; tries++) {
        struct stat st;
        if (uidfile_lock(mb->lock_fd, e) < 0)
            return -1;
        if (fstat(mb->lock_fd, &st) == 0 && st.st_nlink > 0)
            return 0;
        /* Somebody removed the file under us: the lock is on nothing. */
        int fd = mailview_open_lock(mb->dir_fd, e);
        if (fd < 0)
            return -1;
        close(mb->lock_fd);
        mb->lock_fd = fd;
        mb->uids.holding = false;
    }
    return err_set(e, ERR_TEMPORARY, "the lock file keeps vanishing");
}

void
mailview_unlock(struct mailbox *mb)
{
    uidfile_unlock(mb->lock_fd);
}

int
mailview_open_lock(int dir_fd, struct err *e)
{
    struct stat st;
    int fd = openat(dir_fd, "bulkhead-lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC,
                    0600);
    if (fd < 0 && errno == ENOENT && fstat(dir_fd, &st) == 0 && st.st_nlink == 0)
        return err_set(e, ERR_PERMANENT, "the folder has been deleted");
    if (fd < 0)
        return err_errno(e, "open bulkhead-lock");
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
        return fd;
    close(fd);
    return err_set(e, ERR_TEMPORARY, "bulkhead-lock is not a file");
}

static bool
same_time(struct timespec a, struct timespec b)
{
    return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

/* The directories' times now; settled when both are old enough that the next change, however small
 * the file system's clock tick, cannot carry the same time. */
static int
read_times(const struct mailbox *mb, struct mailbox_times *t_r, struct err *e)
{
    struct stat n, c;
    struct timespec now;
    if (fstat(mb->new_fd, &n) < 0 || fstat(mb->cur_fd, &c) < 0)
        return err_errno(e, "stat the folder");
    clock_gettime(CLOCK_REALTIME, &now);
    t_r->new_dir = n.st_mtim;
    t_r->cur_dir = c.st_mtim;
    t_r->settled = now.tv_sec - n.st_mtim.tv_sec >= 2 && now.tv_sec - c.st_mtim.tv_sec >= 2;
    return 0;
}

static int
reserve(struct mailbox *mb, size_t n)
{
    if (n <= mb->cap)
        return 0;
    size_t cap = n + n / 4 + 64;
    struct mailbox_message *msgs = reallocarray(mb->msgs, cap, sizeof *msgs);
    if (!msgs)
        return -1;
    mb->msgs = msgs;
    mb->cap = cap;
    return 0;
}

static void
take_name(struct mailbox_message *m, struct mailscan_entry *x)
{
    if (strcmp(m->name, x->name) != 0) {
        free(m->name);
        m->name = x->name;
        x->name = NULL;
    }
    m->in_new = x->in_new;
    if (x->vsize != UINT64_MAX)
        m->vsize = x->vsize;
    if (m->flags != x->flags || m->keywords != x->keywords) {
        m->flags = x->flags;
        m->keywords = x->keywords;
        m->changed = true;
    }
}

static int
append(struct mailbox *mb, struct mailscan_entry *x, struct err *e)
{
    if (reserve(mb, mb->n + 1) < 0)
        return err_set(e, ERR_TEMPORARY, "out of memory");
    mb->msgs[mb->n++] = (struct mailbox_message){.name = x->name,
                                                 .size = x->size,
                                                 .vsize = x->vsize,
                                                 .uid = x->uid,
                                                 .keywords = x->keywords,
                                                 .flags = x->flags,
                                                 .in_new = x->in_new,
                                                 .recent = x->recent};
    x->name = NULL;
    return 0;
}

/* Bring the view up to what was listed. Messages not listed are counted, and with really_gone set
 * marked gone. */
static int
merge(struct mailbox *mb, struct mailscan *s, bool really_gone, size_t *missing_r, struct err *e)
{
    size_t old = mb->n, i = 0;
    uint32_t seen_next = mb->seen_next;
    *missing_r = 0;
    for (size_t k = 0; k < s->n; k++) {
        struct mailscan_entry *x = &s->at[k];
        for (; i < old && mb->msgs[i].uid < x->uid; i++) {
            *missing_r += !mb->msgs[i].gone;
            mb->msgs[i].gone |= really_gone;
        }
        if (i < old && mb->msgs[i].uid == x->uid) {
            if (!mb->msgs[i].gone)
                take_name(&mb->msgs[i], x);
            i++;
        } else if (x->uid >= seen_next) {
            if (append(mb, x, e) < 0)
                return -1;
            mb->seen_next = x->uid + 1;
        }
    }
    for (; i < old; i++) {
        *missing_r += !mb->msgs[i].gone;
        mb->msgs[i].gone |= really_gone;
    }
    return 0;
}

static int
find_validity(struct mailbox *mb, const struct mailscan *s, struct err *e)
{
    struct uid_evidence seen;
    uint32_t before = mb->uids.validity;
    if (uidfile_read(&mb->uids, mb->dir_fd, e) < 0)
        return -1;
    if (!mb->uids.validity && (mailscan_evidence(s, &seen, e) < 0 ||
                               uidfile_make(&mb->uids, mb->dir_fd, mb->root_fd, &seen, e) < 0))
        return -1;
    if (before && before != mb->uids.validity)
        return err_set(e, ERR_PERMANENT, "UIDVALIDITY has changed");
    return 0;
}

/* The numbers are used up (or a name claims the highest one): start over with a new UIDVALIDITY.
 * Only a session that has told its client nothing yet can go on. */
static int
start_over(struct mailbox *mb, struct mailscan *s, struct err *e)
{
    const struct uid_evidence none = {.validity = mb->uids.validity, .highest = UINT32_MAX};
    bool told = mb->seen_next > 0;
    if (uidfile_make(&mb->uids, mb->dir_fd, mb->root_fd, &none, e) < 0)
        return -1;
    if (told)
        return err_set(e, ERR_PERMANENT, "UIDVALIDITY has changed");
    return mailscan_settle(s, mb, e);
}

static int
list_once(struct mailbox *mb, bool really_gone, size_t *missing_r, struct err *e)
{
    struct mailscan s = {0};
    struct err why = {0};
    if (mailscan_read(&s, mb, e) < 0)
        return -1;
    int result = find_validity(mb, &s, e);
    if (result == 0 && mailscan_settle(&s, mb, &why) < 0) {
        if (e)
            *e = why;
        result = why.class == ERR_LIMIT ? start_over(mb, &s, e) : -1;
    }
    if (result == 0)
        result = merge(mb, &s, really_gone, missing_r, e);
    if (mb->uids.next > mb->seen_next)
        mb->seen_next = mb->uids.next;
    mailscan_free(&s);
    return result;
}

int
mailview_relist(struct mailbox *mb, struct err *e)
{
    size_t missing = 0;
    if (keywords_load(&mb->keywords, mb->dir_fd, e) < 0 || read_times(mb, &mb->times, e) < 0 ||
        list_once(mb, false, &missing, e) < 0)
        return -1;
    /* readdir() may miss a file that a foreign program renames at this moment: look again. */
    return missing ? list_once(mb, true, &missing, e) : 0;
}

int
mailbox_refresh(struct mailbox *mb, struct err *e)
{
    struct mailbox_times now;
    if (read_times(mb, &now, e) < 0)
        return -1;
    if (mb->times.settled && same_time(now.new_dir, mb->times.new_dir) &&
        same_time(now.cur_dir, mb->times.cur_dir))
        return 0;
    if (mailview_lock(mb, e) < 0)
        return -1;
    int result = mailview_relist(mb, e);
    mailview_unlock(mb);
    return result;
}

/* What crashed deliveries left in tmp/, after the 36 hours that maildir(5) gives them. */
static void
clean_tmp(const struct mailbox *mb)
{
    struct stat st;
    struct mailscan s = {0};
    time_t now = time(NULL);
    if (fstat(mb->tmp_fd, &st) < 0 || st.st_nlink == 0)
        return;
    if (mailview_list_dir(&s, mb->dir_fd, "tmp") < 0)
        return;
    for (size_t i = 0; i < s.n && i < TMP_CLEAN_MAX; i++)
        if (fstatat(mb->tmp_fd, s.at[i].name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
            S_ISREG(st.st_mode) && st.st_mtime < now - TMP_AGE_S)
            unlinkat(mb->tmp_fd, s.at[i].name, 0);
    mailscan_free(&s);
}

static int
open_dirs(struct mailbox *mb, struct err *e)
{
    const int how = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    mb->dir_fd = openat(mb->root_fd, mb->path, how);
    if (mb->dir_fd < 0 && (errno == ENOENT || errno == ELOOP || errno == ENOTDIR))
        return err_set(e, ERR_PERMANENT, "no such folder");
    if (mb->dir_fd < 0)
        return err_errno(e, "open the folder");
    if (folder_make_subdirs(mb->dir_fd, e) < 0)
        return -1;
    mb->new_fd = openat(mb->dir_fd, "new", how);
    mb->cur_fd = openat(mb->dir_fd, "cur", how);
    mb->tmp_fd = openat(mb->dir_fd, "tmp", how);
    if (mb->new_fd < 0 || mb->cur_fd < 0 || mb->tmp_fd < 0)
        return err_errno(e, "open new, cur, tmp");
    mb->lock_fd = mailview_open_lock(mb->dir_fd, e);
    return mb->lock_fd < 0 ? -1 : 0;
}

static int
open_unlisted(struct mailbox *mb, int root_fd, struct str folder, bool read_only, struct err *e)
{
    *mb = (struct mailbox){.root_fd = root_fd,
                           .dir_fd = -1,
                           .new_fd = -1,
                           .cur_fd = -1,
                           .tmp_fd = -1,
                           .lock_fd = -1,
                           .read_only = read_only};
    if (folder_path(folder, mb->path) < 0)
        return err_set(e, ERR_PERMANENT, "no such folder");
    if (open_dirs(mb, e) == 0)
        return 0;
    mailbox_close(mb);
    return -1;
}

int
mailbox_open(struct mailbox *mb, int root_fd, struct str folder, bool read_only, struct err *e)
{
    if (open_unlisted(mb, root_fd, folder, read_only, e) < 0)
        return -1;
    int listed = mailview_lock(mb, e);
    if (listed == 0) {
        listed = mailview_relist(mb, e);
        mailview_unlock(mb);
    }
    if (listed < 0)
        mailbox_close(mb);
    else if (!read_only)
        clean_tmp(mb);
    return listed;
}

int
mailbox_open_target(struct mailbox *mb, int root_fd, struct str folder, struct err *e)
{
    if (open_unlisted(mb, root_fd, folder, true, e) < 0)
        return -1;
    int result = mailview_lock(mb, e);
    if (result == 0) {
        result = keywords_load(&mb->keywords, mb->dir_fd, e);
        if (result == 0)
            result = uidfile_read(&mb->uids, mb->dir_fd, e);
        /* Without the file, the names must be read once to make it. */
        if (result == 0 && !mb->uids.validity)
            result = mailview_relist(mb, e);
        mailview_unlock(mb);
    }
    if (result < 0)
        mailbox_close(mb);
    return result;
}

void
mailbox_close(struct mailbox *mb)
{
    int *const fds[] = {&mb->new_fd, &mb->cur_fd, &mb->tmp_fd, &mb->lock_fd, &mb->dir_fd};
    if (mb->lock_fd >= 0)
        uidfile_close(&mb->uids, mb->lock_fd, mb->dir_fd);
    for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++) {
        if (*fds[i] >= 0)
            close(*fds[i]);
        *fds[i] = -1;
    }
    for (size_t i = 0; i < mb->n; i++)
        free(mb->msgs[i].name);
    free(mb->msgs);
    mb->msgs = NULL;
    mb->n = mb->cap = 0;
}

void
mailbox_drop_gone(struct mailbox *mb)
{
    size_t n = 0;
    for (size_t i = 0; i < mb->n; i++)
        if (mb->msgs[i].gone)
            free(mb->msgs[i].name);
        else
            mb->msgs[n++] = mb->msgs[i];
    mb->n = n;
}

struct mailbox_counts
mailbox_count(const struct mailbox *mb)
{
    struct mailbox_counts c = {0};
    for (size_t i = 0; i < mb->n; i++) {
        c.messages++;
        c.recent += mb->msgs[i].recent;
        c.unseen += !(mb->msgs[i].flags & MAILBOX_SEEN);
    }
    return c;
}

int
mailbox_claim(struct mailbox *mb, struct err *e)
{
    return uidfile_claim(mb->lock_fd, e);
}

int
mailbox_watch(const struct mailbox *mb)
{
    const uint32_t what =
        IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_ONLYDIR | IN_DONT_FOLLOW;
    char path[sizeof mb->path + 8];
    int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (fd < 0)
        return -1;
    snprintf(path, sizeof path, "%s/new", mb->path);
    int n = inotify_add_watch(fd, path, what);
    snprintf(path, sizeof path, "%s/cur", mb->path);
    if (n >= 0 && inotify_add_watch(fd, path, what) >= 0)
        return fd;
    close(fd);
    return -1;
}

void
mailbox_watch_drain(int watch_fd)
{
    char room[8192];
    while (read(watch_fd, room, sizeof room) > 0)
        ;
}
