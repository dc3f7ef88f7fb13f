#include "dnsd/resolver.h"
#include "lib/base/buf.h"
#include <ares.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { EDNS_SIZE = 1232, DNS_CLASS_IN = 1 }; /* as agreed on the DNS flag day of 2020 */

struct question {
    void (*done)(void *arg, struct str packet);
    void *arg;
};

static struct loop_io *
slot_of(struct resolver *r, int fd)
{
    for (size_t i = 0; i < RESOLVER_SOCKETS_MAX; i++)
        if (r->sockets[i].fd == fd)
            return &r->sockets[i];
    return NULL;
}

static void
set_tick(struct resolver *r)
{
    struct timeval tv, *next = r->loop ? ares_timeout(r->ares, NULL, &tv) : NULL;
    if (next)
        (void)loop_timer_set(r->loop, &r->tick,
                             now_ms() + next->tv_sec * 1000 + next->tv_usec / 1000 + 1);
    else if (r->loop)
        loop_timer_del(r->loop, &r->tick);
}

static void
on_tick(struct loop_timer *t)
{
    struct resolver *r = t->arg;
    ares_process_fd(r->ares, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    set_tick(r);
}

static void
on_socket(struct loop_io *io, unsigned events)
{
    struct resolver *r = io->arg;
    int fd = io->fd;
    bool in = events & (EPOLLIN | EPOLLERR | EPOLLHUP), out = events & EPOLLOUT;
    ares_process_fd(r->ares, in ? fd : ARES_SOCKET_BAD, out ? fd : ARES_SOCKET_BAD);
    set_tick(r);
}

/* c-ares says what it wants to know of a socket; nothing: it is about to close it. */
static void
on_state(void *arg, ares_socket_t fd, int readable, int writable)
{
    struct resolver *r = arg;
    struct loop_io *io = slot_of(r, fd);
    unsigned want = (readable ? (unsigned)EPOLLIN : 0) | (writable ? (unsigned)EPOLLOUT : 0);
    if (!io && want)
        io = slot_of(r, -1);
    if (!io || !r->loop)
        return;
    if (!want) {
        loop_del(r->loop, io);
        io->fd = -1;
    } else if (io->added) {
        loop_want(r->loop, io, want);
    } else {
        *io = (struct loop_io){.fd = fd, .ready = on_socket, .arg = r};
        if (loop_add(r->loop, io, want) < 0)
            io->fd = -1; /* its question will time out */
    }
}

static ares_socket_t
make_socket(int domain, int type, int protocol, void *arg)
{
    (void)arg;
    return socket(domain, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol);
}

static int
close_socket(ares_socket_t fd, void *arg)
{
    (void)arg;
    return close(fd);
}

static int
connect_socket(ares_socket_t fd, const struct sockaddr *to, ares_socklen_t n, void *arg)
{
    (void)arg;
    return connect(fd, to, n);
}

static ares_ssize_t
receive(ares_socket_t fd, void *place, size_t n, int flags, struct sockaddr *from,
        ares_socklen_t *from_n, void *arg)
{
    (void)arg;
    return recvfrom(fd, place, n, flags, from, from_n);
}

static ares_ssize_t
send_pieces(ares_socket_t fd, const struct iovec *pieces, int n, void *arg)
{
    struct msghdr mh = {.msg_iov = (struct iovec *)(uintptr_t)pieces, .msg_iovlen = (size_t)n};
    (void)arg;
    return sendmsg(fd, &mh, MSG_NOSIGNAL);
}

static const struct ares_socket_functions functions = {make_socket, close_socket, connect_socket,
                                                       receive, send_pieces};

/* "192.0.2.1:53,[2001:db8::1]:5353" */
static int
set_servers(struct resolver *r, const struct conf *conf, struct err *e)
{
    struct buf list = buf_new(1024);
    int status = ARES_SUCCESS;
    for (size_t i = 0; i < conf->nresolvers; i++) {
        const struct conf_resolver *at = &conf->resolvers[i];
        bool v6 = str_chr(at->host, ':') >= 0;
        buf_addf(&list, v6 ? "%s[%.*s]:%u" : "%s%.*s:%u", i ? "," : "", STR_ARG(at->host),
                 at->port);
    }
    if (conf->nresolvers)
        status = ares_set_servers_ports_csv(r->ares, buf_z(&list));
    buf_free(&list);
    return status == ARES_SUCCESS
               ? 0
               : err_set(e, ERR_PERMANENT, "resolvers: %s", ares_strerror(status));
}

int
resolver_init(struct resolver *r, const struct conf *conf, struct err *e)
{
    char lookups[] = "b"; /* DNS only: no hosts file */
    struct ares_options options = {.flags =
                                       ARES_FLAG_NOSEARCH | ARES_FLAG_NOALIASES | ARES_FLAG_EDNS,
                                   .timeout = RESOLVER_TIMEOUT_MS,
                                   .tries = RESOLVER_TRIES,
                                   .ednspsz = EDNS_SIZE,
                                   .lookups = lookups,
                                   .sock_state_cb = on_state,
                                   .sock_state_cb_data = r};
    *r = (struct resolver){.tick = {.fire = on_tick, .arg = r}};
    for (size_t i = 0; i < RESOLVER_SOCKETS_MAX; i++)
        r->sockets[i].fd = -1;
    int status = ares_library_init(ARES_LIB_INIT_ALL);
    if (status == ARES_SUCCESS)
        status =
            ares_init_options(&r->ares, &options,
                              ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES |
                                  ARES_OPT_EDNSPSZ | ARES_OPT_LOOKUPS | ARES_OPT_SOCK_STATE_CB);
    if (status != ARES_SUCCESS)
        return err_set(e, ERR_PERMANENT, "c-ares: %s", ares_strerror(status));
    ares_set_socket_functions(r->ares, &functions, NULL);
    return set_servers(r, conf, e);
}

void
resolver_start(struct resolver *r, struct loop *loop)
{
    r->loop = loop;
}

void
resolver_free(struct resolver *r)
{
    if (r->ares)
        ares_destroy(r->ares);
    r->ares = NULL;
}

static void
on_reply(void *arg, int status, int timeouts, unsigned char *packet, int n)
{
    struct question q = *(struct question *)arg;
    (void)timeouts;
    free(arg);
    /* These three come with a packet whose own words we go by; the others have no answer in them.
     */
    bool usable = status == ARES_SUCCESS || status == ARES_ENODATA || status == ARES_ENOTFOUND;
    q.done(q.arg, usable && packet && n > 0 ? str_of((char *)packet, (size_t)n) : STR(""));
}

void
resolver_ask(struct resolver *r, const char *name, enum dns_type type,
             void (*done)(void *arg, struct str packet), void *arg)
{
    struct question *q = malloc(sizeof *q);
    if (!q) {
        done(arg, STR(""));
        return;
    }
    *q = (struct question){done, arg};
    ares_query(r->ares, name, DNS_CLASS_IN, (int)type, on_reply, q);
    set_tick(r);
}
