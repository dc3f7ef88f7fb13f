#include "tlsd/proxy.h"
#include "lib/base/clock.h"
#include "lib/guard/guard.h"
#include "lib/loop/listener.h"
#include "tlsd/heap.h"
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum { REST_MS = 300 };

/* One direction: read from one side, write to the other. */
struct flow {
    char *bytes; /* PROXY_BUFFER */
    size_t at, n;
    bool ended;                  /* nothing more will come */
    bool shut;                   /* and the other side was told */
    short read_wait, write_wait; /* what poll() should look for, 0: nothing */
};

struct proxy {
    struct stream *client;
    int clear_fd;
    struct flow up, down; /* to the server, to the client */
    bool broken;
    int64_t end_ms; /* the server has ended: until then the client may take the rest; or 0 */
};

/* Whole pages, so that they can be given back. */
static _Alignas(4096) char room[2 * PROXY_BUFFER];

static ssize_t
client_read(struct proxy *p, char *to, size_t n, short *wait)
{
    return p->client->under.read(p->client->under.self, to, n, wait);
}

static ssize_t
client_write(struct proxy *p, const char *from, size_t n, short *wait)
{
    return p->client->under.write(p->client->under.self, from, n, wait);
}

static ssize_t
clear_read(struct proxy *p, char *to, size_t n, short *wait)
{
    *wait = POLLIN;
    return recv(p->clear_fd, to, n, 0);
}

static ssize_t
clear_write(struct proxy *p, const char *from, size_t n, short *wait)
{
    *wait = POLLOUT;
    return send(p->clear_fd, from, n, MSG_NOSIGNAL);
}

typedef ssize_t reader(struct proxy *p, char *to, size_t n, short *wait);
typedef ssize_t writer(struct proxy *p, const char *from, size_t n, short *wait);

/* Move what can be moved now; true when something was. */
static bool
move(struct proxy *p, struct flow *f, reader *read_from, writer *write_to)
{
    bool moved = false;
    f->read_wait = f->write_wait = 0;
    for (;;) {
        if (f->at == f->n && !f->ended) {
            ssize_t got = read_from(p, f->bytes, PROXY_BUFFER, &f->read_wait);
            if (got < 0 && (errno == EAGAIN || errno == EINTR))
                return moved;
            f->read_wait = 0;
            if (got < 0) {
                p->broken = true;
                return moved;
            }
            moved = true;
            f->at = 0;
            f->n = (size_t)got;
            f->ended = got == 0;
        }
        if (f->at == f->n)
            return moved;
        ssize_t sent = write_to(p, f->bytes + f->at, f->n - f->at, &f->write_wait);
        if (sent < 0 && (errno == EAGAIN || errno == EINTR))
            return moved;
        f->write_wait = 0;
        if (sent <= 0) {
            p->broken = true;
            return moved;
        }
        f->at += (size_t)sent;
        moved = true;
    }
}

static void
watch(struct pollfd *at, int fd, short events)
{
    /* With nothing to look for, a hang-up would still wake us, again and again. */
    *at = (struct pollfd){.fd = events ? fd : -1, .events = events};
}

/* Both sides are silent, perhaps for hours: what was said here is forgotten, and memory that is not
 * in use goes back. */
static void
rest(const struct proxy *p)
{
    if (p->up.at == p->up.n && p->down.at == p->down.n)
        (void)madvise(room, sizeof room, MADV_DONTNEED);
    heap_rest();
    malloc_trim(0);
}

/* Wait for any of what the flows wait for; false when nothing came in time. */
static bool
wait_any(struct proxy *p, int idle_ms, int last_ms)
{
    struct pollfd at[4];
    bool stalled = p->down.at < p->down.n && !p->end_ms;
    short client = p->up.read_wait | p->down.write_wait;
    watch(&at[0], p->client->fd_in, client & POLLIN);
    watch(&at[1], p->client->fd_out, client & POLLOUT);
    watch(&at[2], p->clear_fd, (short)(p->up.write_wait | p->down.read_wait));
    watch(&at[3], stalled ? p->clear_fd : -1, POLLRDHUP);
    int64_t end = now_ms() + idle_ms;
    if (p->end_ms && p->end_ms < end)
        end = p->end_ms;
    int n = poll(at, 4, idle_ms < REST_MS ? idle_ms : REST_MS);
    if (n == 0 && idle_ms > REST_MS)
        rest(p);
    while (n <= 0 && ms_left(end) > 0)
        n = poll(at, 4, ms_left(end));
    if (n > 0 && at[3].revents) {
        p->end_ms = now_ms() + last_ms;
        listener_unsettled();
    }
    return n > 0;
}

static bool
is_late(const struct proxy *p)
{
    return p->end_ms && now_ms() >= p->end_ms;
}

bool
proxy_run(struct stream *client, int clear_fd, int idle_ms, int last_ms)
{
    static struct proxy the;
    struct proxy *p = &the;
    bool whole = false;
    *p = (struct proxy){0};
    p->up.bytes = room;
    p->down.bytes = room + PROXY_BUFFER;
    p->client = client;
    p->clear_fd = clear_fd;
    guard_unblock(clear_fd);
    for (;;) {
        bool moved = move(p, &p->down, clear_read, client_write);
        moved |= move(p, &p->up, client_read, clear_write);
        if (p->up.ended && p->up.at == p->up.n && !p->up.shut) {
            p->up.shut = true;
            shutdown(clear_fd, SHUT_WR);
        }
        whole = p->down.ended && p->down.at == p->down.n;
        if (whole || p->broken || is_late(p) || (!moved && !wait_any(p, idle_ms, last_ms)))
            break;
    }
    (void)madvise(room, sizeof room, MADV_DONTNEED); /* wiped, and not touched for it */
    return whole;
}
