#include "tests/unit/fault_calls.h"
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
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

int
fsync(int fd)
{
    return fault(true) ? -1 : (int)syscall(SYS_fsync, fd);
}

int
fdatasync(int fd)
{
    return fault(true) ? -1 : (int)syscall(SYS_fdatasync, fd);
}

int
futimens(int fd, const struct timespec t[2])
{
    return fault(true) ? -1 : (int)syscall(SYS_utimensat, fd, NULL, t, 0);
}
