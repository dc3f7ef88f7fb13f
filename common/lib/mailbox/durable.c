#include "lib/mailbox/durable.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/random.h>
#include <unistd.h>

static int
open_regular(int dir_fd, const char *name, int mode, struct stat *st_r)
{
    int fd = openat(dir_fd, name, mode | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return -1;
    if (fstat(fd, st_r) == 0 && S_ISREG(st_r->st_mode))
        return fd;
    close(fd);
    errno = EINVAL;
    return -1;
}

int
durable_open(int dir_fd, const char *name, struct stat *st_r)
{
    return open_regular(dir_fd, name, O_RDONLY, st_r);
}

int
durable_open_rw(int dir_fd, const char *name, struct stat *st_r)
{
    return open_regular(dir_fd, name, O_RDWR, st_r);
}

int
durable_read(int dir_fd, const char *name, struct buf *out, bool *there_r, struct err *e)
{
    struct stat st;
    *there_r = false;
    int fd = durable_open(dir_fd, name, &st);
    if (fd < 0)
        return errno == ENOENT || errno == EINVAL || errno == ELOOP ? 0
                                                                    : err_errno(e, "open %s", name);
    *there_r = true;
    size_t room = buf_room(out), want = st.st_size < 0 ? 0 : (size_t)st.st_size;
    char *to = buf_reserve(out, want < room ? want : room);
    size_t got = 0;
    ssize_t n = to ? 1 : -1;
    while (to && n > 0 && got < want && got < room) {
        n = read(fd, to + got, (want < room ? want : room) - got);
        if (n > 0)
            got += (size_t)n;
        else if (n < 0 && errno == EINTR)
            n = 1;
    }
    buf_commit(out, got);
    if (n < 0)
        err_errno(e, "read %s", name);
    close(fd);
    return n < 0 ? -1 : 0;
}

int
durable_write(int fd, struct str text)
{
    while (text.n) {
        ssize_t n = write(fd, text.p, text.n);
        if (n < 0 && errno != EINTR)
            return -1;
        if (n > 0)
            text = str_from(text, (size_t)n);
    }
    return 0;
}

void
durable_random_hex(char *to, size_t n)
{
    static const char digits[] = "0123456789abcdef";
    unsigned char raw[32];
    if (n > sizeof raw)
        n = sizeof raw;
    /* Up to 256 bytes come whole (getrandom(2)); before the pool is ready we wait. */
    while (getrandom(raw, n, 0) < 0 && errno == EINTR)
        ;
    for (size_t i = 0; i < n; i++) {
        to[2 * i] = digits[raw[i] >> 4];
        to[2 * i + 1] = digits[raw[i] & 15];
    }
    to[2 * n] = '\0';
}

int
durable_replace(int dir_fd, const char *name, struct str text, struct err *e)
{
    char hex[17], tmp[40];
    durable_random_hex(hex, 8);
    snprintf(tmp, sizeof tmp, "bulkhead-tmp-%s", hex);
    int fd = openat(dir_fd, tmp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_errno(e, "create %s", tmp);
    if (durable_write(fd, text) < 0 || fsync(fd) < 0) {
        err_errno(e, "write %s", name);
        goto fail;
    }
    if (renameat(dir_fd, tmp, dir_fd, name) < 0 || fsync(dir_fd) < 0) {
        err_errno(e, "put %s in place", name);
        goto fail;
    }
    close(fd);
    return 0;
fail:
    unlinkat(dir_fd, tmp, 0);
    close(fd);
    return -1;
}
