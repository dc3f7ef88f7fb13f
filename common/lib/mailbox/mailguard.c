#include "lib/mailbox/mailguard.h"
#include "lib/mailbox/folder.h"
#include "lib/mailbox/mailbox.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NAME_EVENTS = IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO };

static int notify_fd = -1;

static struct mailindex_time
time_of(int dir_fd)
{
    struct stat st;
    if (fstat(dir_fd, &st) < 0)
        return (struct mailindex_time){0};
    return (struct mailindex_time){st.st_mtim.tv_sec, st.st_mtim.tv_nsec};
}

static bool
same(struct mailindex_time a, struct mailindex_time b)
{
    return a.s == b.s && a.ns == b.ns && a.s != 0;
}

bool
mailguard_new_same(const struct mailbox *mb)
{
    return same(time_of(mb->new_fd), mb->ix.state.new_);
}

bool
mailguard_cur_same(const struct mailbox *mb)
{
    return same(time_of(mb->cur_fd), mb->ix.state.cur);
}

void
mailguard_mark(int dir_fd, struct mailindex_time *time_r)
{
    struct timespec t[2] = {{.tv_nsec = UTIME_OMIT}};
    clock_gettime(CLOCK_REALTIME, &t[1]);
    const struct mailindex_time want = {t[1].tv_sec, t[1].tv_nsec};
    *time_r = want;
    if (futimens(dir_fd, t) < 0 || !same(time_of(dir_fd), want))
        *time_r = (struct mailindex_time){0};
}

static int
watch(const struct mailbox *mb, const char *sub, int fd)
{
    char path[sizeof mb->path + 8];
    snprintf(path, sizeof path, "%s/%s", mb->path, sub);
    int w = inotify_add_watch(notify_fd, path, NAME_EVENTS | IN_ONLYDIR | IN_DONT_FOLLOW);
    if (w >= 0 && folder_is_at(AT_FDCWD, path, fd))
        return w;
    if (w >= 0)
        inotify_rm_watch(notify_fd, w);
    return -1;
}

/* Count the names that came or went; very many when that cannot be told. */
static void
count_events(struct mailguard *g)
{
    char room[16384] __attribute__((aligned(8)));
    for (;;) {
        ssize_t got = notify_fd < 0 ? 0 : read(notify_fd, room, sizeof room);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return;
        for (ssize_t at = 0; at + (ssize_t)sizeof(struct inotify_event) <= got;) {
            struct inotify_event ev;
            memcpy(&ev, room + at, sizeof ev);
            g->seen += ev.mask & IN_Q_OVERFLOW ? 1u << 30 : (ev.mask & NAME_EVENTS) != 0;
            g->left |= (ev.mask & (IN_MOVED_FROM | IN_DELETE | IN_Q_OVERFLOW)) != 0;
            at += (ssize_t)(sizeof ev + ev.len);
        }
    }
}

void
mailguard_begin(struct mailbox *mb)
{
    struct mailguard *g = &mb->guard;
    *g = (struct mailguard){.new_watch = -1, .cur_watch = -1};
    if (notify_fd < 0)
        notify_fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (notify_fd < 0)
        return;
    count_events(g);
    g->seen = 0;
    g->left = false;
    g->new_watch = watch(mb, "new", mb->new_fd);
    g->cur_watch = watch(mb, "cur", mb->cur_fd);
    g->watching = g->new_watch >= 0 && g->cur_watch >= 0;
    /* Asked once the watches stand: what came before them shows in the times. */
    g->clean = g->watching && mailguard_new_same(mb) && mailguard_cur_same(mb);
}

void
mailguard_reading(struct mailbox *mb)
{
    count_events(&mb->guard);
    mb->guard.seen = 0;
    mb->guard.left = false;
}

bool
mailguard_was_still(struct mailbox *mb)
{
    if (!mb->guard.watching)
        return mailguard_cur_same(mb);
    count_events(&mb->guard);
    return !mb->guard.left;
}

void
mailguard_end(struct mailbox *mb)
{
    struct mailguard *g = &mb->guard;
    if (g->clean && g->expect) {
        struct mailindex_time new_ = mb->ix.state.new_, cur = mb->ix.state.cur;
        if (!mailguard_new_same(mb))
            mailguard_mark(mb->new_fd, &new_);
        if (!mailguard_cur_same(mb))
            mailguard_mark(mb->cur_fd, &cur);
        count_events(g);
        if (g->seen == g->expect) {
            mb->ix.state.new_ = new_;
            mb->ix.state.cur = cur;
        }
    }
    if (g->new_watch >= 0)
        inotify_rm_watch(notify_fd, g->new_watch);
    if (g->cur_watch >= 0 && g->cur_watch != g->new_watch)
        inotify_rm_watch(notify_fd, g->cur_watch);
    *g = (struct mailguard){.new_watch = -1, .cur_watch = -1};
}
