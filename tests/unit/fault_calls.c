#include "tests/unit/fault_calls.h"
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static enum fault_how armed;
static unsigned left;

void
fault_arm(enum fault_how how, unsigned n)
{
    armed = how;
    left = n;
}

/* Whether this call is to fail. */
static bool
fault(bool on_full_disk)
{
    if (armed == FAULT_NONE)
        return false;
    if (left)
        left--;
    if (left == 0 && armed == FAULT_DIE)
        _exit(FAULT_STATUS);
    if (left == 0 && on_full_disk) {
        if (armed == FAULT_ONCE)
            armed = FAULT_NONE;
        errno = ENOSPC;
        return true;
    }
    return false;
}

int
openat(int dir, const char *name, int flags, ...)
{
    va_list ap;
    va_start(ap, flags);
    mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(ap, mode_t) : 0;
    va_end(ap);
    if ((flags & O_CREAT) && fault(true))
        return -1;
    return (int)syscall(SYS_openat, dir, name, flags, mode);
}

/* ---- reading directories ---- */

static bool (*hide)(const char *dir, const char *name);

void
fault_readdir(bool (*hide_)(const char *dir, const char *name))
{
    hide = hide_;
}

static const char *
name_of(int fd, char room[static 4096])
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, room, 4095);
    room[n < 0 ? 0 : n] = '\0';
    const char *slash = strrchr(room, '/');
    return slash ? slash + 1 : room;
}

DIR *
fdopendir(int fd)
{
    DIR *(*real)(int) = (DIR * (*)(int)) dlsym(RTLD_NEXT, "fdopendir");
    char room[4096];
    if (hide)
        (void)hide(name_of(fd, room), NULL);
    return real(fd);
}

struct dirent *
readdir(DIR *d)
{
    struct dirent *(*real)(DIR *) = (struct dirent * (*)(DIR *)) dlsym(RTLD_NEXT, "readdir");
    char room[4096];
    struct dirent *x;
    do
        x = real(d);
    while (x && hide && hide(name_of(dirfd(d), room), x->d_name));
    return x;
}

ssize_t
write(int fd, const void *p, size_t n)
{
    return fault(true) ? -1 : syscall(SYS_write, fd, p, n);
}

ssize_t
pwrite(int fd, const void *p, size_t n, off_t at)
{
    return fault(true) ? -1 : syscall(SYS_pwrite64, fd, p, n, at);
}

int
renameat(int from, const char *a, int to, const char *b)
{
    return fault(true) ? -1 : (int)syscall(SYS_renameat, from, a, to, b);
}

int
renameat2(int from, const char *a, int to, const char *b, unsigned flags)
{
    return fault(true) ? -1 : (int)syscall(SYS_renameat2, from, a, to, b, flags);
}

int
linkat(int from, const char *a, int to, const char *b, int flags)
{
    return fault(true) ? -1 : (int)syscall(SYS_linkat, from, a, to, b, flags);
}

int
unlinkat(int dir, const char *name, int flags)
{
    return fault(false) ? -1 : (int)syscall(SYS_unlinkat, dir, name, flags);
}

static int (*sync_fails)(int fd);

void
fault_sync(int (*fails)(int fd))
{
    sync_fails = fails;
}

static int
synced(long call, int fd)
{
    int why = sync_fails ? sync_fails(fd) : 0;
    if (why)
        errno = why;
    return why || fault(true) ? -1 : (int)syscall(call, fd);
}

int
fsync(int fd)
{
    return synced(SYS_fsync, fd);
}

int
fdatasync(int fd)
{
    return synced(SYS_fdatasync, fd);
}

int
ftruncate(int fd, off_t size)
{
    return fault(true) ? -1 : (int)syscall(SYS_ftruncate, fd, size);
}

int
futimens(int fd, const struct timespec t[2])
{
    return fault(true) ? -1 : (int)syscall(SYS_utimensat, fd, NULL, t, 0);
}
