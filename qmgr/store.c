#include "lib/log/log.h"
#include "qmgr/qmgr.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

struct qmgr qmgr = {.dir = -1};

enum { FREE_INODES_MIN = 100, FREE_BYTES_MIN = 16 << 20 };
static const char alphabet[] = ID_LETTERS;

static int
subdirectory(const char *name, struct err *e)
{
    if (mkdirat(qmgr.dir, name, 0700) < 0 && errno != EEXIST)
        return err_errno(e, "queue/%s", name);
    int fd = openat(qmgr.dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? err_errno(e, "queue/%s", name) : fd;
}

/* place.c moves with them. */
static int
try_link(struct err *e)
{
    static const char name[] = "link", other[] = "link2";
    int fd = openat(qmgr.tmp, name, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_errno(e, "queue/tmp/%s", name);
    close(fd);
    unlinkat(qmgr.tmp, other, 0);
    int ok = linkat(qmgr.tmp, name, qmgr.tmp, other, 0);
    if (ok < 0)
        err_errno(e, "the queue's file system must have hard links");
    unlinkat(qmgr.tmp, other, 0);
    unlinkat(qmgr.tmp, name, 0);
    return ok;
}

static int
open_to_read(const char *name)
{
    return openat(qmgr.tmp, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
}

/* Whether the file system tells by a lease that a file is open for writing (NFS does not). */
static void
try_lease(void)
{
    static const char name[] = "lease";
    close(openat(qmgr.tmp, name, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
    int fd = open_to_read(name);
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
    if (try_link(e) < 0)
        return -1;
    try_lease();
    /* And what a process before us made in them, and had no time to sync. */
    if (fsync(qmgr.dir) < 0 || fsync(qmgr.cur) < 0 || fsync(qmgr.journal) < 0)
        return err_errno(e, "queue");
    return 0;
}

void
store_lock(void)
{
    /* Held until this process ends. Opened here: what master holds open would keep it locked. */
    int fd = openat(qmgr.dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0)
        return;
    if (fd >= 0 && errno == EWOULDBLOCK) {
        log_info("queue: waiting for another process to leave it");
        if (flock(fd, LOCK_EX) == 0)
            return;
    }
    log_warn("queue: cannot be locked: %s", strerror(errno));
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
store_create(const char *id, int *read_fd_or_null, struct err *e)
{
    int fd = openat(qmgr.tmp, id, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_errno(e, "cannot make a queue file");
    if (!read_fd_or_null)
        return fd;
    /* Before the first byte is written: a sync by it tells of whatever cannot be. */
    *read_fd_or_null = open_to_read(id);
    if (*read_fd_or_null >= 0)
        return fd;
    err_errno(e, "cannot open a queue file");
    close(fd);
    store_discard(id);
    return -1;
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

const char *
store_name(const struct entry *entry)
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
    place_new_changed();
}

void
store_sync(int fd)
{
    if (fsync(fd) < 0)
        log_fatal("leaving after a failed sync of the queue: %s", strerror(errno));
}

int
store_subdir(int dir, const char *id, bool make)
{
    char name[3] = {id[ID_LEN - 2], id[ID_LEN - 1], '\0'};
    bool fresh = make && mkdirat(dir, name, 0700) == 0;
    if (make && !fresh && errno != EEXIST)
        return -1;
    int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    /* First that it is one, then its name: what comes into it may be synced before it. */
    if (fd >= 0 && fresh) {
        store_sync(fd);
        store_sync(dir);
    }
    return fd;
}

int
store_read_fd(const struct entry *entry)
{
    int dir = place_open(entry);
    int fd = dir < 0
                 ? -1
                 : openat(dir, store_name(entry), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    int saved = errno;
    place_close(entry, dir);
    errno = saved;
    return fd;
}

static void
remove_below(int dir, const char *id)
{
    int sub = store_subdir(dir, id, false);
    if (sub >= 0 && unlinkat(sub, id, 0) < 0 && errno != ENOENT)
        log_error("journal/%s: %s", id, strerror(errno));
    if (sub >= 0)
        close(sub);
}

int
store_remove(struct entry *entry, bool journaled)
{
    char id[ID_LEN + 1];
    /* The message before its journal: a journal without a message is nothing, a message without its
     * journal would be delivered again. */
    if (place_remove(entry) < 0)
        return -1;
    memcpy(id, entry->id, ID_LEN);
    id[ID_LEN] = '\0';
    if (journaled)
        remove_below(qmgr.journal, id); /* without its message it means nothing */
    return 0;
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
    if (orphan) {
        store_sync(qmgr.new);
        store_sync(qmgr.hold);
    }
    if (orphan && cur >= 0)
        store_sync(cur);
    if (cur >= 0)
        close(cur);
    if (orphan)
        remove_below(qmgr.journal, id);
    return orphan;
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
