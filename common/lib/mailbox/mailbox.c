#include "lib/mailbox/mailbox.h"
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
        if (fstatat(mb->tmp_fd, mailscan_name(&s, &s.at[i]), &st, AT_SYMLINK_NOFOLLOW) == 0 &&
            S_ISREG(st.st_mode) && st.st_mtime < now - TMP_AGE_S)
            unlinkat(mb->tmp_fd, mailscan_name(&s, &s.at[i]), 0);
    mailscan_free(&s);
}

static void
close_fds(struct mailbox *mb, bool all)
{
    int *const fds[] = {&mb->new_fd, &mb->cur_fd, &mb->tmp_fd, &mb->lock_fd, &mb->dir_fd};
    for (size_t i = 0; i < (all ? sizeof fds / sizeof fds[0] : 3); i++) {
        if (*fds[i] >= 0)
            close(*fds[i]);
        *fds[i] = -1;
    }
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
    for (int tries = 0; tries < 2; tries++) {
        mb->new_fd = openat(mb->dir_fd, "new", how);
        mb->cur_fd = openat(mb->dir_fd, "cur", how);
        mb->tmp_fd = openat(mb->dir_fd, "tmp", how);
        if (mb->new_fd >= 0 && mb->cur_fd >= 0 && mb->tmp_fd >= 0)
            break;
        if (tries)
            return err_errno(e, "open new, cur, tmp");
        close_fds(mb, false);
        if (folder_make_subdirs(mb->dir_fd, strcmp(mb->path, ".") == 0 ? -1 : mb->root_fd, e) < 0)
            return -1;
    }
    mb->lock_fd = mailview_open_lock(mb->dir_fd, e);
    return mb->lock_fd < 0 ? -1 : 0;
}

int
mailview_open_dirs(struct mailbox *mb, int root_fd, struct str folder, bool read_only,
                   struct err *e)
{
    *mb = (struct mailbox){.root_fd = root_fd,
                           .dir_fd = -1,
                           .new_fd = -1,
                           .cur_fd = -1,
                           .tmp_fd = -1,
                           .lock_fd = -1,
                           .read_only = read_only};
    mailindex_init(&mb->ix);
    mailcache_init(&mb->cache);
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
    if (mailbox_peek(mb, root_fd, folder, read_only, e) < 0)
        return -1;
    if (mailbox_load(mb, e) == 0)
        return 0;
    mailbox_close(mb);
    return -1;
}

int
mailbox_peek(struct mailbox *mb, int root_fd, struct str folder, bool read_only, struct err *e)
{
    if (mailview_open_dirs(mb, root_fd, folder, read_only, e) < 0)
        return -1;
    int listed = mailview_open(mb, e);
    if (listed < 0)
        mailbox_close(mb);
    else if (listed && !read_only)
        clean_tmp(mb);
    return listed < 0 ? -1 : 0;
}

int
mailbox_open_target(struct mailbox *mb, int root_fd, struct str folder, struct err *e)
{
    if (mailview_open_dirs(mb, root_fd, folder, true, e) < 0)
        return -1;
    mb->target = true;
    int result = keywords_load(&mb->keywords, mb->dir_fd, e);
    if (result == 0)
        result = uidfile_read(&mb->uids, mb->dir_fd, e);
    mb->validity = mb->uids.validity;
    /* Without the file, the names must be read once to make it. */
    if (result == 0 && !mb->validity && (result = mailview_begin(mb, e)) == 0) {
        result = mailview_relist(mb, e);
        mailview_end(mb);
    }
    if (result < 0)
        mailbox_close(mb);
    return result;
}

void
mailbox_close(struct mailbox *mb)
{
    while (mb->owes && mailview_pay_names(mb))
        ;
    if (mb->lock_fd >= 0)
        uidfile_close(&mb->uids, mb->lock_fd, mb->dir_fd);
    close_fds(mb, true);
    mailindex_free(&mb->ix);
    mailcache_free(&mb->cache);
    free(mb->msgs);
    mb->msgs = NULL;
    mb->n = mb->cap = 0;
}

int
mailbox_name(struct mailbox *mb, size_t i, struct buf *name)
{
    return mailindex_name(&mb->ix, &mb->msgs[i], name);
}

int
mailbox_base(struct mailbox *mb, size_t i, struct str *base_r)
{
    return mailindex_base(&mb->ix, &mb->msgs[i], base_r);
}

void
mailbox_drop_gone(struct mailbox *mb)
{
    size_t n = 0;
    for (size_t i = 0; i < mb->n; i++)
        if (!mb->msgs[i].gone && n++ != i)
            mb->msgs[n - 1] = mb->msgs[i];
    mb->n = n;
    mb->owed_from = 0;
}

struct mailbox_counts
mailbox_count(const struct mailbox *mb)
{
    const struct mailindex_counts *known = &mb->ix.state.counts;
    if (mb->lazy)
        return (struct mailbox_counts){known->messages, known->in_new, known->unseen,
                                       known->deleted, known->first_unseen};
    struct mailbox_counts c = {0};
    for (size_t i = 0; i < mb->n; i++) {
        bool unseen = !(mb->msgs[i].flags & MAILBOX_SEEN);
        c.messages++;
        c.recent += mb->msgs[i].recent;
        c.unseen += unseen;
        c.deleted += (mb->msgs[i].flags & MAILBOX_DELETED) != 0;
        if (unseen && !c.first_unseen)
            c.first_unseen = c.messages;
    }
    return c;
}

uint32_t
mailbox_uidnext(const struct mailbox *mb)
{
    uint32_t next = mb->ix.state.next_uid > mb->uids.next ? mb->ix.state.next_uid : mb->uids.next;
    return mb->n && mb->msgs[mb->n - 1].uid >= next ? mb->msgs[mb->n - 1].uid + 1 : next;
}

int
mailbox_claim(struct mailbox *mb, struct err *e)
{
    return uidfile_claim(mb->lock_fd, e);
}

bool
mailbox_is_named(const struct mailbox *mb)
{
    return folder_is_at(mb->root_fd, mb->path, mb->dir_fd);
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
    if (n >= 0 && inotify_add_watch(fd, path, what) >= 0 && mailbox_is_named(mb))
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
