#include "lib/log/log.h"
#include "qmgr/qmgr.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* What a process before us left: tmp/ is cleared; new/ and cur/ are taken in, a little in each
 * turn, so that accepting and delivering go on meanwhile. */
enum { PER_TURN = 500 /* names */ };

static struct {
    struct loop_timer timer;
    enum stage { HOLD, NEW, CUR, CUR_XX, JOURNAL, JOURNAL_XX, END } stage;
    DIR *dir, *above; /* what is being read; the directory above in stages _XX */
    size_t found, orphans, undone, empty;
    bool partly; /* something could not be read: what looks like an orphan may be none */
} the;

static DIR *
open_stage(int fd)
{
    int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return copy < 0 ? NULL : fdopendir(copy);
}

/* ID.O, or with a user: ID.u.1000 */
static bool
name_ok(const char *name, uint32_t *user_r)
{
    struct str s = str_z(name);
    *user_r = 0;
    if (s.n < ID_LEN + 2 || !store_id_ok(str_sub(s, 0, ID_LEN)) || s.p[ID_LEN] != '.' ||
        !strchr("sulb", s.p[ID_LEN + 1]))
        return false;
    return s.n == ID_LEN + 2 ||
           (s.p[ID_LEN + 1] == 'u' && s.p[ID_LEN + 2] == '.' && s.p[ID_LEN + 3] >= '1' &&
            s.p[ID_LEN + 3] <= '9' && str_u32(str_from(s, ID_LEN + 3), UINT32_MAX, user_r) == 0);
}

/* When it is to be tried, of what was put off. A time that no back-off reaches was written by a
 * clock that was wrong: then some time within the longest wait, not all at once. */
static int64_t
due_of(const struct stat *st, const char *name)
{
    int64_t wait_s = (int64_t)st->st_mtime - clock_wall_s();
    int64_t max = (int64_t)qmgr.conf->queue.retry_max_s;
    if (wait_s > max + max / 10 + 1)
        wait_s = (unsigned char)name[ID_LEN - 1] * 131 % max;
    return clock_steady_s() + (wait_s > 0 ? wait_s : 0);
}

static void
take_in(const char *name, enum place place)
{
    struct stat st = {0};
    uint32_t user;
    if (!name_ok(name, &user)) {
        log_warn("queue: %s is not ours: left alone", log_str(str_z(name)));
        return;
    }
    if (index_find(str_of(name, ID_LEN)) || intake_has(str_of(name, ID_LEN)))
        return;
    if (fstatat(dirfd(the.dir), name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
        the.partly = the.partly || errno != ENOENT; /* moved meanwhile, by us who know it */
        return;
    }
    if (!S_ISREG(st.st_mode)) {
        log_warn("queue: %s is not a file: left alone", name);
        return;
    }
    if (place == PLACE_NEW && st.st_size == 0) {
        the.empty += unlinkat(dirfd(the.dir), name, 0) == 0;
        return;
    }
    /* With two names it was being put off, or held. */
    bool put_off = place == PLACE_CUR || st.st_nlink > 1;
    int64_t due_s = put_off ? due_of(&st, name) : clock_steady_s();
    struct entry *entry = entry_add(name, name[ID_LEN + 1], place, due_s);
    if (!entry)
        log_fatal("out of memory for the queue");
    if (place == PLACE_NEW)
        entry->flags |= ENTRY_FOUND;
    if (user)
        entry_own(entry, user, users_kib((uint64_t)st.st_size));
    if (st.st_nlink > 1)
        the.undone += place_drop_twins(entry, st.st_ino);
    if (place != PLACE_HOLD)
        entry_wait(entry);
    the.found++;
}

/* A crash between the removals of a message and of its journal. */
static void
look_at_journal(const char *name)
{
    struct str id = str_z(name);
    if (!store_id_ok(id) || index_find(id) || intake_has(id) || the.partly)
        return;
    the.orphans += store_drop_orphan(name);
}

static void
next_stage(void)
{
    static const enum stage next[] = {NEW, CUR, JOURNAL, CUR, END, JOURNAL};
    enum stage was = the.stage;
    if (the.dir)
        closedir(the.dir);
    the.stage = next[was];
    the.dir = NULL;
    if (was == CUR_XX || was == JOURNAL_XX) {
        the.dir = the.above;
        return;
    }
    int fd = the.stage == NEW       ? qmgr.new
             : the.stage == CUR     ? qmgr.cur
             : the.stage == JOURNAL ? qmgr.journal
                                    : -1;
    if (fd >= 0)
        the.dir = open_stage(fd);
    if (fd >= 0 && !the.dir) {
        log_error("queue: cannot be read: %s", strerror(errno));
        the.partly = true;
    }
}

static void
descend(const char *name)
{
    int fd = openat(dirfd(the.dir), name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *sub = fd < 0 ? NULL : fdopendir(fd);
    if (!sub) {
        the.partly = the.partly || (errno != ENOTDIR && errno != ELOOP);
        return;
    }
    the.above = the.dir;
    the.dir = sub;
    the.stage = the.stage == CUR ? CUR_XX : JOURNAL_XX;
}

static void
look_at(const char *name)
{
    switch (the.stage) {
    case HOLD:
        take_in(name, PLACE_HOLD);
        break;
    case NEW:
        take_in(name, PLACE_NEW);
        break;
    case CUR_XX:
        take_in(name, PLACE_CUR);
        break;
    case JOURNAL_XX:
        look_at_journal(name);
        break;
    default:
        descend(name);
    }
}

/* One name; false at the very end. */
static bool
step(void)
{
    errno = 0;
    const struct dirent *d = the.dir ? readdir(the.dir) : NULL;
    if (!d) {
        if (errno)
            the.partly = true;
        next_stage();
    } else if (d->d_name[0] != '.') {
        look_at(d->d_name);
    }
    return the.stage != END;
}

static void
on_turn(struct loop_timer *t)
{
    for (int i = 0; i < PER_TURN; i++)
        if (!step()) {
            log_info("queue: %zu messages found", the.found);
            if (the.undone)
                log_info("queue: %zu moves that were cut short undone", the.undone);
            if (the.empty)
                log_info("queue: %zu empty files removed, of what nobody was told is accepted",
                         the.empty);
            if (the.orphans)
                log_info("queue: %zu journals without a message removed", the.orphans);
            return;
        }
    loop_timer_set(&qmgr.loop, t, now_ms() + 1);
}

/* Files whose sessions went with our predecessor: nobody was told 250 for them. There are no more
 * of them than it had sessions, and none is of ours yet. */
static void
clear_tmp(void)
{
    const struct dirent *d;
    DIR *dir = open_stage(qmgr.tmp);
    while (dir && (d = readdir(dir)))
        if (d->d_name[0] != '.')
            store_discard(d->d_name);
    if (dir)
        closedir(dir);
}

void
scan_start(void)
{
    the.timer.fire = on_turn;
    clear_tmp();
    the.dir = open_stage(qmgr.hold);
    if (!the.dir) {
        log_error("queue: cannot be read: %s", strerror(errno));
        the.partly = true;
    }
    loop_timer_set(&qmgr.loop, &the.timer, now_ms());
}
