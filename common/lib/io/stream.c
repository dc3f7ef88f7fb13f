#include "lib/io/stream.h"
#include "lib/guard/guard.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <unistd.h>

enum { OUT_FLUSH = 16384, OUT_MAX = 1 << 20, READ_MIN = 4000 };

static bool
set_timeout(struct stream *s, int ms)
{
    const struct timeval tv = {ms / 1000, ms % 1000 * 1000};
    if (setsockopt(s->fd_in, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv) < 0)
        return false;
    s->timeout_ms = ms;
    return true;
}

/* A socket that was not made non-blocking, and takes a timeout. */
static void
choose_mode(struct stream *s)
{
    int flags = s->fd_in == s->fd_out && s->idle_ms > 0 ? fcntl(s->fd_in, F_GETFL) : -1;
    s->blocking = flags >= 0 && !(flags & O_NONBLOCK) && set_timeout(s, s->idle_ms);
    if (!s->blocking)
        stream_unblock(s);
}

void
stream_unblock(struct stream *s)
{
    s->blocking = false;
    guard_unblock(s->fd_in);
    if (s->fd_out != s->fd_in)
        guard_unblock(s->fd_out);
}

void
stream_init(struct stream *s, int fd_in, int fd_out, size_t in_max, int idle_ms)
{
    *s = (struct stream){.fd_in = fd_in,
                         .fd_out = fd_out,
                         .in = buf_new(in_max),
                         .out = buf_new(OUT_MAX),
                         .idle_ms = idle_ms,
                         .deadline_ms = now_ms() + STREAM_FOREVER_MS};
    choose_mode(s);
}

void
stream_preload(struct stream *s, struct str data)
{
    buf_add(&s->in, data);
    s->bytes_in += data.n;
}

void
stream_switch(struct stream *s, int fd)
{
    s->fd_in = s->fd_out = fd;
    choose_mode(s);
}

void
stream_free(struct stream *s)
{
    buf_free(&s->in);
    buf_free(&s->out);
}

static int
fail(struct stream *s, struct err *e, enum err_class class, const char *text)
{
    s->broken = true;
    return err_set(e, class, "%s", text);
}

/* Wait for events on fd; 1 when other became readable instead. */
static int
wait_for(struct stream *s, int fd, short events, int other, struct err *e)
{
    struct pollfd p[2] = {{.fd = fd, .events = events}, {.fd = other, .events = POLLIN}};
    int64_t idle_end = now_ms() + s->idle_ms;
    for (;;) {
        int64_t end = idle_end < s->deadline_ms ? idle_end : s->deadline_ms;
        int n = poll(p, other < 0 ? 1 : 2, ms_left(end));
        if (n > 0)
            return p[0].revents ? 0 : 1;
        if (n == 0)
            return fail(s, e, ERR_TIMEOUT, "timeout");
        if (errno != EINTR)
            return fail(s, e, ERR_TEMPORARY, "poll failed");
    }
}

static ssize_t
raw_read(struct stream *s, char *to, size_t n, short *wait_r)
{
    if (s->under.read)
        return s->under.read(s->under.self, to, n, wait_r);
    *wait_r = POLLIN;
    return s->blocking ? recv(s->fd_in, to, n, MSG_DONTWAIT) : read(s->fd_in, to, n);
}

/* Wait in recv(), as long as idle time and deadline allow. */
static ssize_t
patient_read(struct stream *s, char *to, size_t n)
{
    int left = ms_left(s->deadline_ms), want = left < s->idle_ms ? left : s->idle_ms;
    if (want <= 0) {
        errno = EAGAIN;
        return -1;
    }
    if (want != s->timeout_ms && !set_timeout(s, want))
        return -1;
    return recv(s->fd_in, to, n, 0);
}

static ssize_t
raw_write(struct stream *s, const char *from, size_t n, short *wait_r)
{
    if (s->under.write)
        return s->under.write(s->under.self, from, n, wait_r);
    *wait_r = POLLOUT;
    ssize_t sent = send(s->fd_out, from, n, MSG_NOSIGNAL | (s->blocking ? MSG_DONTWAIT : 0));
    return sent < 0 && errno == ENOTSOCK ? write(s->fd_out, from, n) : sent;
}

int
stream_flush(struct stream *s, struct err *e)
{
    size_t done = 0;
    if (s->broken)
        return err_set(e, ERR_CLOSED, "connection lost");
    if (s->out.overflow)
        return fail(s, e, ERR_LIMIT, "too much output waiting");
    while (done < s->out.n) {
        short wait = POLLOUT;
        ssize_t n = raw_write(s, s->out.p + done, s->out.n - done, &wait);
        if (n > 0) {
            done += (size_t)n;
            s->bytes_out += (uint64_t)n;
        } else if (n < 0 && errno == EAGAIN) {
            if (wait_for(s, wait == POLLIN ? s->fd_in : s->fd_out, wait, -1, e) < 0)
                return -1;
        } else if (n == 0 || errno != EINTR) {
            return fail(s, e, ERR_CLOSED, "connection lost while writing");
        }
    }
    buf_reset(&s->out);
    return 0;
}

void
stream_put(struct stream *s, struct str data)
{
    buf_add(&s->out, data);
    if (s->out.n >= OUT_FLUSH && !s->broken)
        (void)stream_flush(s, NULL);
}

void
stream_putz(struct stream *s, const char *z)
{
    stream_put(s, str_z(z));
}

void
stream_putf(struct stream *s, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    buf_addv(&s->out, fmt, ap);
    va_end(ap);
    if (s->out.n >= OUT_FLUSH && !s->broken)
        (void)stream_flush(s, NULL);
}

size_t
stream_buffered(const struct stream *s)
{
    return s->in.n - s->in_at;
}

/* Read once into the buffer; output goes out before we wait. */
static int
fill(struct stream *s, struct err *e)
{
    if (s->broken)
        return err_set(e, ERR_CLOSED, "connection lost");
    if (s->in_at) {
        buf_consume(&s->in, s->in_at);
        s->in_at = 0;
    }
    size_t room = buf_room(&s->in);
    if (room == 0)
        return fail(s, e, ERR_LIMIT, "input buffer full");
    size_t want = s->in.cap > s->in.n + READ_MIN ? s->in.cap - s->in.n - 1 : READ_MIN;
    if (want > room)
        want = room;
    char *to = buf_reserve(&s->in, want);
    if (!to)
        return fail(s, e, ERR_TEMPORARY, "out of memory");
    for (;;) {
        short wait = POLLIN;
        /* Output first: the peer may be waiting for it before it says more. */
        if (s->out.n && stream_flush(s, e) < 0)
            return -1;
        ssize_t n = s->blocking ? patient_read(s, to, want) : raw_read(s, to, want, &wait);
        if (n > 0) {
            buf_commit(&s->in, (size_t)n);
            s->bytes_in += (uint64_t)n;
            return 0;
        }
        if (n == 0)
            return fail(s, e, ERR_CLOSED, "connection closed by peer");
        if (errno == EAGAIN && s->blocking)
            return fail(s, e, ERR_TIMEOUT, "timeout");
        if (errno == EAGAIN) {
            if (wait_for(s, wait == POLLOUT ? s->fd_out : s->fd_in, wait, -1, e) < 0)
                return -1;
        } else if (errno != EINTR) {
            return fail(s, e, ERR_CLOSED, "connection lost");
        }
    }
}

static struct str
held(const struct stream *s)
{
    return str_from(buf_str(&s->in), s->in_at);
}

int
stream_line(struct stream *s, size_t max, struct str *line_r, bool *bare_r, struct err *e)
{
    size_t seen = 0;
    for (;;) {
        struct str have = held(s);
        ptrdiff_t lf = str_chr(str_from(have, seen), '\n');
        size_t end = lf < 0 ? have.n : seen + (size_t)lf;
        if (end > max + 1 || (lf >= 0 && end > max && have.p[end - 1] != '\r'))
            return err_set(e, ERR_LIMIT, "line longer than %zu bytes", max);
        if (lf >= 0) {
            struct str line = str_sub(have, 0, end);
            bool crlf = line.n && line.p[line.n - 1] == '\r';
            if (crlf)
                line.n--;
            *line_r = line;
            *bare_r = !crlf || str_chr(line, '\r') >= 0 || str_chr(line, '\0') >= 0;
            s->in_at += end + 1;
            return 0;
        }
        seen = have.n;
        if (fill(s, e) < 0)
            return -1;
    }
}

int
stream_skip_line(struct stream *s, size_t max, struct err *e)
{
    for (size_t skipped = 0; skipped <= max;) {
        struct str have = held(s);
        ptrdiff_t lf = str_chr(have, '\n');
        size_t n = lf < 0 ? have.n : (size_t)lf + 1;
        s->in_at += n;
        skipped += n;
        if (lf >= 0)
            return 0;
        if (fill(s, e) < 0)
            return -1;
    }
    return fail(s, e, ERR_LIMIT, "endless line");
}

int
stream_peek(struct stream *s, struct str *data_r, struct err *e)
{
    if (stream_buffered(s) == 0 && fill(s, e) < 0)
        return -1;
    *data_r = held(s);
    return 0;
}

void
stream_take(struct stream *s, size_t n)
{
    size_t have = stream_buffered(s);
    s->in_at += n < have ? n : have;
}

int
stream_exactly(struct stream *s, size_t n, struct buf *out, struct err *e)
{
    while (n) {
        struct str have;
        if (stream_peek(s, &have, e) < 0)
            return -1;
        have = str_sub(have, 0, n);
        buf_add(out, have);
        stream_take(s, have.n);
        n -= have.n;
    }
    return buf_ok(out) ? 0 : err_set(e, ERR_LIMIT, "more than %zu bytes", out->max);
}

int
stream_wait(struct stream *s, int fd_other, struct err *e)
{
    if (stream_buffered(s))
        return 0;
    if (stream_flush(s, e) < 0)
        return -1;
    /* TLS may hold decrypted bytes that poll() cannot see: look before waiting. */
    if (s->under.read) {
        if (s->in_at) {
            buf_consume(&s->in, s->in_at);
            s->in_at = 0;
        }
        short wait = POLLIN;
        char *to = buf_reserve(&s->in, READ_MIN < buf_room(&s->in) ? READ_MIN : buf_room(&s->in));
        ssize_t n =
            to ? raw_read(s, to, READ_MIN < buf_room(&s->in) ? READ_MIN : buf_room(&s->in), &wait)
               : -1;
        if (n > 0) {
            buf_commit(&s->in, (size_t)n);
            s->bytes_in += (uint64_t)n;
            return 0;
        }
        if (n == 0)
            return fail(s, e, ERR_CLOSED, "connection closed by peer");
    }
    return wait_for(s, s->fd_in, POLLIN, fd_other, e);
}
