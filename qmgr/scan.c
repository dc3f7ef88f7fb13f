#include "lib/log/log.h"
#include "qmgr/qmgr.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* What a process before us left: tmp/ is cleared, new/ and cur/ are taken in, a little in each
 * turn, so that accepting and delivering go on meanwhile. */
enum { PER_TURN = 500, TIME_PART = 9 };

static struct {
    struct loop_timer timer;
    int stage;      /* 0 tmp, 1 new, 2 the directories of cur, 3 one of them */
    DIR *dir, *cur; /* what is being read; cur/ itself in stage 3 */
    size_t found;
    char started[ID_LEN + 1]; /* IDs from this one on are of our own sessions */
} the;

static DIR *
open_stage(int fd)
{
    int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return copy < 0 ? NULL : fdopendir(copy);
}

static bool
name_ok(const char *name)
{
    struct str s = str_z(name);
    return s.n == ID_LEN + 2 && store_id_ok(str_sub(s, 0, ID_LEN)) && s.p[ID_LEN] == '.' &&
           strchr("sulb", s.p[ID_LEN + 1]);
}

static void
take_in(const char *name, enum place place)
{
    struct stat st = {0};
    if (!name_ok(name)) {
        log_warn("queue: %s is not ours: left alone", log_str(str_z(name)));
        return;
    }
    if (entry_find(str_of(name, ID_LEN)) || intake_has(str_of(name, ID_LEN)))
        return;
    if (place == PLACE_CUR && fstatat(dirfd(the.dir), name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return;
    struct entry *entry = entry_add(name, name[ID_LEN + 1], place,
                                    place == PLACE_CUR ? (int64_t)st.st_mtime : wall_s());
    if (!entry)
        log_fatal("out of memory for the queue");
    entry_wait(entry);
    the.found++;
}

/* A file in tmp/ whose session went with our predecessor: nobody was told 250 for it. Those of our
 * own life carry a later time in their name. */
static void
clear(const char *name)
{
    if (strlen(name) != ID_LEN || memcmp(name, the.started, TIME_PART) < 0)
        store_discard(name);
}

static void
next_stage(void)
{
    closedir(the.dir);
    the.dir = NULL;
    the.stage++;
    if (the.stage == 1)
        the.dir = open_stage(qmgr.new);
    else if (the.stage == 2)
        the.dir = the.cur = open_stage(qmgr.cur);
    else if (the.stage == 4) {
        the.stage = 2;
        the.dir = the.cur;
    }
}

static void
descend(const char *name)
{
    int fd = openat(qmgr.cur, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *sub = fd < 0 ? NULL : fdopendir(fd);
    if (!sub)
        return;
    the.dir = sub;
    the.stage = 3;
}

/* One name; false at the very end. */
static bool
step(void)
{
    struct dirent *d = the.dir ? readdir(the.dir) : NULL;
    if (!d && the.stage == 2)
        return false;
    if (!d && !the.dir)
        return false;
    if (!d) {
        next_stage();
        return true;
    }
    if (d->d_name[0] == '.')
        return true;
    if (the.stage == 0)
        clear(d->d_name);
    else if (the.stage == 2)
        descend(d->d_name);
    else
        take_in(d->d_name, the.stage == 1 ? PLACE_NEW : PLACE_CUR);
    return true;
}

static void
on_turn(struct loop_timer *t)
{
    for (int i = 0; i < PER_TURN; i++)
        if (!step()) {
            if (the.dir)
                closedir(the.dir);
            the.dir = NULL;
            log_info("queue: %zu messages found", the.found);
            return;
        }
    loop_timer_set(&qmgr.loop, t, now_ms() + 1);
}

void
scan_start(void)
{
    the.timer.fire = on_turn;
    the.dir = open_stage(qmgr.tmp);
    store_new_id(the.started);
    loop_timer_set(&qmgr.loop, &the.timer, now_ms());
}
