/*
 * stream: a peer's connection, read and written in a straight line with deadlines.
 *
 * Used by sessions, cells and clients: processes that serve one connection and have no event loop.
 * The bytes that come in are a stranger's. Descriptors stay the caller's to close. A plain socket
 * that blocks is read with the kernel's own timeout, which costs one system call a wait; all others
 * are made non-blocking and polled. Output is gathered, and written when 16 KiB are waiting, at
 * stream_flush(), and before any read that would wait: so pipelined commands are answered in one
 * write.
 *
 * Limits: in_max bytes of input are buffered; each wait ends after idle_ms; everything ends at
 * deadline_ms (an absolute now_ms() time). Errors: ERR_CLOSED, ERR_TIMEOUT, ERR_LIMIT,
 * ERR_TEMPORARY; after one of them the stream stays broken.
 */
#pragma once
#include "lib/base/buf.h"
#include "lib/base/clock.h"
#include "lib/base/err.h"

/* What lies under a stream: the plain descriptors, or TLS. read and write return a count, 0 at the
 * end (read), -1 with errno EAGAIN and *wait_r set to POLLIN or POLLOUT, or -1 with another errno
 * (ECONNABORTED: the peer cut TLS without a close). */
struct transport {
    ssize_t (*read)(void *self, char *to, size_t n, short *wait_r);
    ssize_t (*write)(void *self, const char *from, size_t n, short *wait_r);
    void *self;
};

struct stream {
    int fd_in, fd_out;
    struct transport under; /* read == NULL: plain */
    struct buf in, out;
    size_t in_at; /* bytes of in already taken */
    int idle_ms;
    int64_t deadline_ms;
    bool blocking;  /* the kernel waits in recv(), */
    int timeout_ms; /* this long */
    bool broken;
    uint64_t bytes_in, bytes_out; /* in all, for logs */
};

enum { STREAM_FOREVER_MS = 24 * 3600 * 1000 };

/* fd_in and fd_out may be the same. */
void stream_init(struct stream *s, int fd_in, int fd_out, size_t in_max, int idle_ms);
/* Input that somebody else has read already, to come before what is read here. */
void stream_preload(struct stream *s, struct str data);
/* Over another descriptor from here on. Both buffers are to be empty. */
void stream_switch(struct stream *s, int fd);
/* For what reads and writes the descriptors itself: they never block from here on. */
void stream_unblock(struct stream *s);
void stream_free(struct stream *s); /* frees buffers; closes nothing */

/* The next line. *line_r is without its end, and valid until the next read. *bare_r says that the
 * line ended in LF without CR, or holds a CR elsewhere, or a NUL: what that means is the caller's
 * protocol's business. A line of more than max bytes: -1 with ERR_LIMIT, the rest of it unread;
 * stream_skip_line() passes over at most max bytes of it. */
int stream_line(struct stream *s, size_t max, struct str *line_r, bool *bare_r, struct err *e);
int stream_skip_line(struct stream *s, size_t max, struct err *e);
/* Whatever is there, at least one byte, waiting for it: *data_r is valid until the next read, and
 * is not taken: call stream_take(). */
int stream_peek(struct stream *s, struct str *data_r, struct err *e);
void stream_take(struct stream *s, size_t n);
/* Exactly n bytes appended to out (a literal). */
int stream_exactly(struct stream *s, size_t n, struct buf *out, struct err *e);
/* Bytes that have come in and are not taken; 0 means a read would have to look. */
size_t stream_buffered(const struct stream *s);
/* Waits until input is there (0), or fd_other becomes readable first (1); -1 on error or timeout.
 * For IDLE and for proxies. fd_other -1: none. */
int stream_wait(struct stream *s, int fd_other, struct err *e);

/* Append to the output. Errors show at the next flush or read. */
void stream_put(struct stream *s, struct str data);
void stream_putz(struct stream *s, const char *z);
void stream_putf(struct stream *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int stream_flush(struct stream *s, struct err *e);
