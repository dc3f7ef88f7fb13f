#include "imapd/cell/deflate.h"
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zlib.h>

/* RFC 4978 4: raw deflate; a window of 32 KiB, a little less memory than usual. */
enum { PIECE = 16384, WINDOW_BITS = -15, MEMORY_LEVEL = 7, LEVEL = 6 };

struct icell_deflate {
    int fd_in, fd_out;
    z_stream in, out;
    struct buf held; /* compressed, not yet inflated */
    size_t held_at;
    bool more;                          /* inflate() had no room for all it knows */
    bool ended;                         /* the peer has ended the stream, or broken it */
    size_t taken;                       /* bytes compressed and not yet reported as written */
    size_t ready, sent;                 /* in room */
    unsigned char room[2 * PIECE + 64]; /* the largest that PIECE can become, and a sync mark */
};

bool
icell_deflate_pending(const struct icell_deflate *d)
{
    return d && (d->more || d->ended || d->held.n > d->held_at);
}

/* More compressed bytes. As read(). */
static ssize_t
get(struct icell_deflate *d, short *wait_r)
{
    buf_reset(&d->held);
    d->held_at = 0;
    char *to = buf_reserve(&d->held, PIECE);
    if (!to) {
        errno = ENOMEM;
        return -1;
    }
    *wait_r = POLLIN;
    ssize_t n = read(d->fd_in, to, PIECE);
    if (n > 0)
        buf_commit(&d->held, (size_t)n);
    return n;
}

static ssize_t
inflate_some(void *self, char *to, size_t n, short *wait_r)
{
    struct icell_deflate *d = self;
    for (;;) {
        if (d->ended)
            return 0;
        if (d->held_at == d->held.n && !d->more) {
            ssize_t got = get(d, wait_r);
            if (got <= 0)
                return got;
        }
        d->in.next_in = (unsigned char *)d->held.p + d->held_at;
        d->in.avail_in = (unsigned)(d->held.n - d->held_at);
        d->in.next_out = (unsigned char *)to;
        d->in.avail_out = n > PIECE ? PIECE : (unsigned)n;
        unsigned room = d->in.avail_out;
        int result = inflate(&d->in, Z_SYNC_FLUSH);
        d->held_at = d->held.n - d->in.avail_in;
        d->more = d->in.avail_out == 0;
        d->ended = result != Z_OK && result != Z_BUF_ERROR;
        if (d->in.avail_out < room)
            return (ssize_t)(room - d->in.avail_out);
    }
}

/* A piece is compressed once, and reported as written when all that became of it has been sent. */
static ssize_t
deflate_some(void *self, const char *from, size_t n, short *wait_r)
{
    struct icell_deflate *d = self;
    if (!d->taken) {
        d->taken = n > PIECE ? PIECE : n;
        d->out.next_in = (unsigned char *)from;
        d->out.avail_in = (unsigned)d->taken;
        d->out.next_out = d->room;
        d->out.avail_out = sizeof d->room;
        if (deflate(&d->out, Z_SYNC_FLUSH) != Z_OK || d->out.avail_in || !d->out.avail_out) {
            errno = EIO;
            return -1;
        }
        d->ready = sizeof d->room - d->out.avail_out;
        d->sent = 0;
    }
    while (d->sent < d->ready) {
        *wait_r = POLLOUT;
        ssize_t put = send(d->fd_out, d->room + d->sent, d->ready - d->sent, MSG_NOSIGNAL);
        if (put <= 0)
            return put;
        d->sent += (size_t)put;
    }
    size_t taken = d->taken;
    d->taken = 0;
    return (ssize_t)taken;
}

int
icell_deflate_begin(struct stream *s, struct icell_deflate **d_r, struct err *e)
{
    struct icell_deflate *d = calloc(1, sizeof *d);
    if (!d)
        return err_set(e, ERR_TEMPORARY, "out of memory");
    bool in = inflateInit2(&d->in, WINDOW_BITS) == Z_OK;
    bool out = deflateInit2(&d->out, LEVEL, Z_DEFLATED, WINDOW_BITS, MEMORY_LEVEL,
                            Z_DEFAULT_STRATEGY) == Z_OK;
    if (!in || !out) {
        icell_deflate_free(d);
        return err_set(e, ERR_TEMPORARY, "out of memory");
    }
    d->fd_in = s->fd_in;
    d->fd_out = s->fd_out;
    d->held = buf_new(s->in.max + PIECE);
    buf_add(&d->held, str_from(buf_str(&s->in), s->in_at));
    stream_take(s, stream_buffered(s));
    stream_unblock(s);
    s->under = (struct transport){inflate_some, deflate_some, d};
    *d_r = d;
    return 0;
}

void
icell_deflate_free(struct icell_deflate *d)
{
    if (!d)
        return;
    inflateEnd(&d->in);
    deflateEnd(&d->out);
    buf_free(&d->held);
    free(d);
}
