#include "lib/log/log.h"
#include "qmgr/qmgr.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

struct qmgr qmgr = {.dir = -1};

/* Directories that names were removed from since they were last synced. */
static struct {
    bool new, hold;
    unsigned char cur[1024 / 8];
    struct loop_timer timer;
} removals;

enum {
    FREE_INODES_MIN = 100,
    FREE_BYTES_MIN = 16 << 20,
    REMOVALS_SYNC_MS = 5000,
    REMOVALS_A_TURN = 4,
    REMOVALS_PAUSE_MS = 10
};
/* In order of the alphabet, so that names sort by time. */
static const char alphabet[] = "234567abcdefghijklmnopqrstuvwxyz";

static int
subdirectory(const char *name, struct err *e)
{
    if (mkdirat(qmgr.dir, name, 0700) < 0 && errno != EEXIST)
        return err_errno(e, "queue/%s", name);
    int fd = openat(qmgr.dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? err_errno(e, "queue/%s", name) : fd;
}

/* Whether the file system tells by a lease that a file is open for writing (NFS does not). */
static void
try_lease(void)
{
    static const char name[] = "lease";
    close(openat(qmgr.tmp, name, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
    int fd = store_reopen(name);
    qmgr.leases = fd >= 0 && fcntl(fd, F_SETLEASE, F_RDLCK) == 0;
    close(fd);
    unlinkat(qmgr.tmp, name, 0);
    if (!qmgr.leases)
        log_warn("queue: this file system has no leases; a session that is taken over could change "
                 "what it has committed");
}

bool
store_is_written(int fd)
{
    return qmgr.leases && fcntl(fd, F_SETLEASE, F_RDLCK) < 0 && errno == EAGAIN;
}

int
store_open(const char *path_or_null, struct err *e)
{
    if (path_or_null && mkdir(path_or_null, 0700) < 0 && errno != EEXIST)
        return err_errno(e, "queue directory %s", path_or_null);
    if (path_or_null)
        qmgr.dir = open(path_or_null, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (qmgr.dir < 0)
        return err_errno(e, "queue directory %s", path_or_null ? path_or_null : "");
    qmgr.tmp = subdirectory("tmp", e);
    qmgr.new = subdirectory("new", e);
    qmgr.cur = subdirectory("cur", e);
    qmgr.hold = subdirectory("hold", e);
    qmgr.journal = subdirectory("journal", e);
    qmgr.corrupt = subdirectory("corrupt", e);
    if (qmgr.tmp < 0 || qmgr.new < 0 || qmgr.cur < 0 || qmgr.hold < 0 || qmgr.journal < 0 ||
        qmgr.corrupt < 0)
        return -1;
    try_lease();
    return fsync(qmgr.dir) < 0 ? err_errno(e, "queue") : 0;
}

/* 45 bits of milliseconds, then 55 random ones: names sort by age, and cannot be guessed. */
void
store_new_id(char id_r[ID_LEN + 1])
{
    uint64_t ms = (uint64_t)(wall_us() / 1000 + clock_shift.wall_s * 1000), random;
    if (getrandom(&random, sizeof random, 0) != sizeof random)
        log_fatal("getrandom: %s", strerror(errno));
    for (int i = 8; i >= 0; i--, ms >>= 5)
        id_r[i] = alphabet[ms & 31];
    for (int i = 9; i < ID_LEN; i++, random >>= 5)
        id_r[i] = alphabet[random & 31];
    id_r[ID_LEN] = '\0';
}

bool
store_id_ok(struct str id)
{
    if (id.n != ID_LEN)
        return false;
    for (size_t i = 0; i < id.n; i++)
        if (!memchr(alphabet, (unsigned char)id.p[i], sizeof alphabet - 1))
            return false;
    return true;
}

int
store_create(const char *id, struct err *e)
{
    int fd = openat(qmgr.tmp, id, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    return fd < 0 ? err_errno(e, "cannot make a queue file") : fd;
}

int
store_reopen(const char *id)
{
    return openat(qmgr.tmp, id, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
}

void
store_discard(const char *id)
{
    if (unlinkat(qmgr.tmp, id, 0) < 0 && errno != ENOENT)
        log_error("tmp/%s: %s", id, strerror(errno));
}

static const char *
file_name(const char *id, char origin, uint32_t user)
{
    static char name[ID_LEN + 16];
    if (user)
        snprintf(name, sizeof name, "%.*s.%c.%u", ID_LEN, id, origin, (unsigned)user);
    else
        snprintf(name, sizeof name, "%.*s.%c", ID_LEN, id, origin);
    return name;
}

static const char *
name_of(const struct entry *entry)
{
    return file_name(entry->id, entry->origin, entry->user);
}

int
store_commit_name(const char *id, char origin, uint32_t user)
{
    return renameat(qmgr.tmp, id, qmgr.new, file_name(id, origin, user));
}

void
store_uncommit(const char *id, char origin, uint32_t user)
{
    (void)unlinkat(qmgr.new, file_name(id, origin, user), 0);
}

void
store_new_syncing(void)
{
    removals.new = false;
}

int
store_sync_new(void)
{
    store_new_syncing();
    return fsync(qmgr.new);
}

int
store_subdir(int dir, const char *id, bool make)
{
    char name[3] = {id[ID_LEN - 2], id[ID_LEN - 1], '\0'};
    /* A new one is made known above at once: a name moved into it may become durable by the sync of
     * the directory that it was moved from. */
    if (make && (mkdirat(dir, name, 0700) == 0 ? fsync(dir) < 0 : errno != EEXIST))
        return -1;
    return openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

/* The directory that an entry's file is in; close_place() it. */
static int
open_place(const struct entry *entry)
{
    return entry->place == PLACE_NEW    ? qmgr.new
           : entry->place == PLACE_HOLD ? qmgr.hold
                                        : store_subdir(qmgr.cur, entry->id, false);
}

static void
close_place(const struct entry *entry, int dir)
{
    if (entry->place == PLACE_CUR && dir >= 0)
        close(dir);
}

int
store_read_fd(const struct entry *entry)
{
    int dir = open_place(entry);
    int fd =
        dir < 0 ? -1 : openat(dir, name_of(entry), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    int saved = errno;
    close_place(entry, dir);
    errno = saved;
    return fd;
}

static int
value_of(char c)
{
    return c >= 'a' ? c - 'a' + 6 : c - '2';
}

static int
sync_cur(unsigned xx)
{
    char id[ID_LEN];
    id[ID_LEN - 2] = alphabet[xx >> 5];
    id[ID_LEN - 1] = alphabet[xx & 31];
    int dir = store_subdir(qmgr.cur, id, false);
    if (dir < 0)
        return 0; /* nothing was ever there */
    int ok = fsync(dir);
    close(dir);
    return ok;
}

/* What was removed shall not come back after a power cut: synced within seconds, a few directories
 * in a turn. */
static void
sync_removals(struct loop_timer *t)
{
    int left = REMOVALS_A_TURN;
    bool failed = (removals.new &&store_sync_new() < 0) || (removals.hold && fsync(qmgr.hold) < 0);
    removals.new = removals.hold = false;
    for (unsigned xx = 0; xx < sizeof removals.cur * 8 && left && !failed; xx++)
        if (removals.cur[xx / 8] & 1u << xx % 8) {
            failed = sync_cur(xx) < 0;
            removals.cur[xx / 8] &= (unsigned char)~(1u << xx % 8);
            left--;
        }
    if (failed)
        log_fatal("leaving after a failed sync: %s", strerror(errno));
    if (left == 0)
        loop_timer_set(&qmgr.loop, t, now_ms() + REMOVALS_PAUSE_MS);
}

static void
note_removal(const struct entry *entry)
{
    unsigned xx =
        (unsigned)(value_of(entry->id[ID_LEN - 2]) << 5 | value_of(entry->id[ID_LEN - 1]));
    if (entry->place == PLACE_NEW)
        removals.new = true;
    else if (entry->place == PLACE_HOLD)
        removals.hold = true;
    else
        removals.cur[xx / 8] |= (unsigned char)(1u << xx % 8);
    if (!loop_timer_is_set(&removals.timer)) {
        removals.timer.fire = sync_removals;
        loop_timer_set(&qmgr.loop, &removals.timer, now_ms() + REMOVALS_SYNC_MS);
    }
}

int
store_defer(struct entry *entry)
{
    const char *name = name_of(entry);
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = clock_to_wall_s(entry->due_s)}};
    int dir = store_subdir(qmgr.cur, entry->id, true);
    if (dir < 0)
        return -1;
    int ok = 0;
    if (entry->place == PLACE_NEW) {
        /* Both names are of one message: if the move is lost in a crash, it is found in new/ and
         * tried at once. */
        ok = renameat(qmgr.new, name, dir, name);
        if (ok == 0) {
            note_removal(entry);
            entry->place = PLACE_CUR;
        }
    }
    if (ok == 0)
        ok = utimensat(dir, name, times, AT_SYMLINK_NOFOLLOW);
    close(dir);
    return ok;
}

static int
move(struct entry *entry, int to, enum place place)
{
    const char *name = name_of(entry);
    int from = open_place(entry);
    int ok = from < 0 ? -1 : renameat(from, name, to, name);
    close_place(entry, from);
    if (ok == 0)
        entry->place = (uint8_t)place;
    return ok;
}

int
store_hold(struct entry *entry)
{
    return move(entry, qmgr.hold, PLACE_HOLD);
}

/* Into new/, as if it had just come: one directory to sync, however many are released. */
int
store_release(struct entry *entry)
{
    return move(entry, qmgr.new, PLACE_NEW);
}

int
store_sync_hold(void)
{
    removals.hold = false;
    return fsync(qmgr.hold) < 0 || store_sync_new() < 0 ? -1 : 0;
}

static int
remove_at(int dir, const char *name)
{
    int ok = dir < 0 ? -1 : unlinkat(dir, name, 0);
    if (ok < 0 && errno == ENOENT)
        ok = 0;
    if (ok < 0)
        log_error("cannot remove %s: %s", name, strerror(errno));
    return ok;
}

static int
remove_below(int dir, const char *id, const char *name)
{
    int sub = store_subdir(dir, id, false);
    int ok = remove_at(sub, name);
    if (sub >= 0)
        close(sub);
    return ok;
}

int
store_remove(const struct entry *entry, bool journaled)
{
    const char *name = name_of(entry);
    char id[ID_LEN + 1];
    int dir = open_place(entry);
    /* The message before its journal: a journal without a message is nothing, a message without its
     * journal would be delivered again. */
    int ok = remove_at(dir, name);
    close_place(entry, dir);
    if (ok < 0)
        return -1;
    note_removal(entry);
    memcpy(id, entry->id, ID_LEN);
    id[ID_LEN] = '\0';
    if (journaled)
        (void)remove_below(qmgr.journal, id, id); /* without its message it means nothing */
    return 0;
}

void
store_drop_twins(const struct entry *kept, uint64_t inode)
{
    static const enum place places[] = {PLACE_NEW, PLACE_CUR, PLACE_HOLD};
    const char *name = name_of(kept);
    struct entry twin = *kept;
    struct stat st;
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        twin.place = (uint8_t)places[i];
        int dir = twin.place == kept->place ? -1 : open_place(&twin);
        if (dir >= 0 && fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_ino == inode &&
            remove_at(dir, name) == 0) {
            log_info("%s: a move that was cut short is undone", name);
            note_removal(&twin);
        }
        close_place(&twin, dir);
    }
}

static bool
is_in(int dir, const char *name)
{
    struct stat st;
    return fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 || errno != ENOENT;
}

bool
store_drop_orphan(const char *id)
{
    static const char origins[] = "sulb";
    int cur = store_subdir(qmgr.cur, id, false);
    bool orphan = cur >= 0 || errno == ENOENT;
    for (const char *o = origins; *o; o++) {
        const char *name = file_name(id, *o, 0);
        if (is_in(qmgr.new, name) || is_in(qmgr.hold, name) || is_in(qmgr.corrupt, name) ||
            (cur >= 0 && is_in(cur, name)))
            orphan = false;
    }
    /* The message's removal may not be durable yet: it could come back, and would find no journal.
     */
    if (orphan && (fsync(qmgr.new) < 0 || fsync(qmgr.hold) < 0 || (cur >= 0 && fsync(cur) < 0)))
        orphan = false;
    if (cur >= 0)
        close(cur);
    if (orphan)
        remove_below(qmgr.journal, id, id);
    return orphan;
}

void
store_quarantine(const struct entry *entry, const char *why)
{
    char plain[ID_LEN + 3];
    const char *name = name_of(entry);
    int from = open_place(entry);
    log_error("%.*s: %s: moved to corrupt/", ID_LEN, entry->id, why);
    snprintf(plain, sizeof plain, "%.*s.%c", ID_LEN, entry->id, entry->origin);
    if (from < 0 || renameat(from, name, qmgr.corrupt, plain) < 0)
        log_error("%s: %s", name, strerror(errno));
    close_place(entry, from);
}

bool
store_room(uint64_t want)
{
    struct statfs fs;
    if (fstatfs(qmgr.dir, &fs) < 0)
        return true;
    uint64_t free_bytes = (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize;
    return free_bytes >= want + FREE_BYTES_MIN && (fs.f_files == 0 || fs.f_ffree > FREE_INODES_MIN);
}
