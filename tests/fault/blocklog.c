/*
 * blocklog: one file, for a loop device to lie on, that remembers every write and every flush in
 * its order.
 *
 *   blocklog IMAGE LOG MOUNTPOINT [MICROSECONDS]
 *
 * A FUSE file system with one file, "disk", whose bytes are those of IMAGE. A write goes to IMAGE
 * and, as a record, to LOG; what a file system on a loop device syncs arrives here as a flush, and
 * is a record, too. From a copy of IMAGE of before and LOG a disk can be made as a power cut at any
 * record would leave it: what was written before the last flush, and any part of what was written
 * since. Needs root. Says "ready" once it is mounted; ends when it is unmounted.
 *
 * With MICROSECONDS a flush takes that long if anything was written since the last, as that of a
 * disk without a cache that survives, and flushes come one after the other; writes go on meanwhile.
 *
 * A record: {u64 offset, u64 length, i64 time}, then the bytes; offset 2^64-1 and no bytes: a
 * flush. Time is CLOCK_MONOTONIC in nanoseconds, taken when the write had been answered.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum {
    WRITE_MAX = 1 << 20,
    REQUEST_MAX = WRITE_MAX + 4096,
    DISK_INODE = 2,
    MAX_PAGES = 256,
    FLUSHES_MAX = 1024
};

struct record {
    uint64_t offset, length;
    int64_t time_ns;
};

static struct {
    int64_t flush_ns;
    bool dirty; /* since the last flush */
    size_t nflushes;
    struct flush {
        struct fuse_in_header in;
        int64_t end_ns;
    } flushes[FLUSHES_MAX]; /* under way */
    int fuse, image, log;
    uint64_t size;
    char request[REQUEST_MAX], data[WRITE_MAX];
} the;

static void
die(const char *what)
{
    fprintf(stderr, "blocklog: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void
reply(const struct fuse_in_header *in, int error, const void *body, size_t n)
{
    struct fuse_out_header out = {
        .len = (uint32_t)(sizeof out + n), .error = -error, .unique = in->unique};
    struct iovec v[] = {{&out, sizeof out}, {(void *)(uintptr_t)body, n}};
    if (writev(the.fuse, v, n ? 2 : 1) < 0 && errno != ENOENT)
        die("answer");
}

static int64_t
now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void
note(uint64_t offset, const void *data, size_t n)
{
    struct record r = {offset, n, now_ns()};
    struct iovec v[] = {{&r, sizeof r}, {(void *)(uintptr_t)data, n}};
    if (writev(the.log, v, n ? 2 : 1) != (ssize_t)(sizeof r + n))
        die("log");
}

static void
flush(const struct fuse_in_header *in)
{
    size_t n = the.nflushes;
    note(UINT64_MAX, NULL, 0);
    if (!the.flush_ns || (!the.dirty && n == 0) || n == FLUSHES_MAX) {
        reply(in, 0, NULL, 0);
        return;
    }
    int64_t begin = n ? the.flushes[n - 1].end_ns : now_ns();
    the.flushes[n] = (struct flush){*in, begin + (the.dirty ? the.flush_ns : 0)};
    the.nflushes++;
    the.dirty = false;
}

/* Answer the flushes that have had their time, until a request comes or none is left. */
static void
wait_for_request(void)
{
    struct pollfd p = {.fd = the.fuse, .events = POLLIN};
    while (the.nflushes) {
        int64_t left = the.flushes[0].end_ns - now_ns();
        struct timespec t = {.tv_nsec = left > 0 ? (long)left : 0};
        if (left > 0 && ppoll(&p, 1, &t, NULL) != 0)
            return;
        reply(&the.flushes[0].in, 0, NULL, 0);
        memmove(the.flushes, the.flushes + 1, --the.nflushes * sizeof the.flushes[0]);
    }
}

static struct fuse_attr
attr_of(uint64_t inode)
{
    bool disk = inode == DISK_INODE;
    return (struct fuse_attr){.ino = inode,
                              .size = disk ? the.size : 0,
                              .blocks = disk ? the.size / 512 : 0,
                              .mode = disk ? S_IFREG | 0600 : S_IFDIR | 0700,
                              .nlink = 1,
                              .blksize = 4096};
}

static void
on_init(const struct fuse_in_header *in, const struct fuse_init_in *init)
{
    struct fuse_init_out out = {
        .major = FUSE_KERNEL_VERSION,
        .minor = init->minor < FUSE_KERNEL_MINOR_VERSION ? init->minor : FUSE_KERNEL_MINOR_VERSION,
        .max_readahead = init->max_readahead,
        .flags = init->flags & (FUSE_BIG_WRITES | FUSE_MAX_PAGES),
        .max_background = 32,
        .congestion_threshold = 24,
        .max_write = WRITE_MAX,
        .max_pages = MAX_PAGES};
    reply(in, 0, &out, sizeof out);
}

static void
on_lookup(const struct fuse_in_header *in, const char *name)
{
    struct fuse_entry_out out = {
        .nodeid = DISK_INODE, .entry_valid = 3600, .attr_valid = 3600, .attr = attr_of(DISK_INODE)};
    if (strcmp(name, "disk") != 0)
        reply(in, ENOENT, NULL, 0);
    else
        reply(in, 0, &out, sizeof out);
}

static void
on_read(const struct fuse_in_header *in, const struct fuse_read_in *r)
{
    size_t want = r->size < sizeof the.data ? r->size : sizeof the.data;
    ssize_t n = pread(the.image, the.data, want, (off_t)r->offset);
    reply(in, n < 0 ? errno : 0, the.data, n < 0 ? 0 : (size_t)n);
}

static void
on_write(const struct fuse_in_header *in, const struct fuse_write_in *w)
{
    struct fuse_write_out out = {.size = w->size};
    const char *data = (const char *)(w + 1);
    if (pwrite(the.image, data, w->size, (off_t)w->offset) != (ssize_t)w->size) {
        reply(in, EIO, NULL, 0);
        return;
    }
    note(w->offset, data, w->size);
    the.dirty = true;
    reply(in, 0, &out, sizeof out);
}

static void
on_request(const struct fuse_in_header *in)
{
    const void *body = in + 1;
    struct fuse_attr_out attr = {.attr_valid = 3600, .attr = attr_of(in->nodeid)};
    struct fuse_open_out opened = {.open_flags = FOPEN_KEEP_CACHE};
    struct fuse_statfs_out fs = {.st = {.bsize = 4096, .namelen = 255}};
    switch (in->opcode) {
    case FUSE_INIT:
        on_init(in, body);
        break;
    case FUSE_LOOKUP:
        on_lookup(in, body);
        break;
    case FUSE_GETATTR:
    case FUSE_SETATTR:
        reply(in, 0, &attr, sizeof attr);
        break;
    case FUSE_OPEN:
        reply(in, 0, &opened, sizeof opened);
        break;
    case FUSE_READ:
        on_read(in, body);
        break;
    case FUSE_WRITE:
        on_write(in, body);
        break;
    case FUSE_FSYNC:
        flush(in);
        break;
    case FUSE_STATFS:
        reply(in, 0, &fs, sizeof fs);
        break;
    case FUSE_FLUSH: /* a close: nothing becomes durable by it */
    case FUSE_RELEASE:
        reply(in, 0, NULL, 0);
        break;
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
    case FUSE_INTERRUPT:
        break;
    default:
        reply(in, ENOSYS, NULL, 0);
    }
}

int
main(int argc, char **argv)
{
    char options[128];
    struct stat st;
    if (argc != 4 && argc != 5)
        return 2;
    the.flush_ns = argc > 4 ? 1000 * strtol(argv[4], NULL, 10) : 0;
    the.fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    the.image = open(argv[1], O_RDWR | O_CLOEXEC);
    the.log = open(argv[2], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (the.fuse < 0 || the.image < 0 || the.log < 0 || fstat(the.image, &st) < 0)
        die("open");
    the.size = (uint64_t)st.st_size;
    snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0,max_read=%d",
             the.fuse, WRITE_MAX);
    if (mount("blocklog", argv[3], "fuse.blocklog", MS_NOSUID | MS_NODEV, options) < 0)
        die("mount");
    puts("ready");
    fflush(stdout);
    for (;;) {
        wait_for_request();
        ssize_t n = read(the.fuse, the.request, sizeof the.request);
        if (n < 0 && errno == ENODEV)
            return 0;
        if (n < 0 && (errno == EINTR || errno == ENOENT || errno == EAGAIN))
            continue;
        if (n < (ssize_t)sizeof(struct fuse_in_header))
            die("read");
        on_request((const struct fuse_in_header *)the.request);
    }
}
