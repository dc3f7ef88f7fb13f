#include "tlsd/session.h"
#include "lib/base/clock.h"
#include "lib/ipc/channel.h"
#include "lib/log/log.h"
#include "tlsd/heap.h"
#include "tlsd/proxy.h"
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

static struct tls_server *
server_of(const struct tlsd *d, enum role front)
{
    for (size_t i = 0; i < SOCKETS_FRONTS; i++)
        if (sockets_fronts[i] == front)
            return d->servers[i];
    return NULL;
}

void
tlsd_prepare(struct tlsd *d)
{
    struct err e = {0};
    heap_prepare();
    for (size_t i = 0; i < SOCKETS_FRONTS; i++) {
        if (conf_keys(&d->conf, (unsigned)sockets_fronts[i]) == 0)
            continue;
        d->servers[i] = tls_server_new(&d->start, sockets_fronts[i], &e);
        if (!d->servers[i])
            log_fatal("TLS: %s", e.text);
    }
}

unsigned
tlsd_door_max(const void *arg, enum role front)
{
    const struct tlsd *d = arg;
    const struct conf_service *block = sockets_block(&d->conf, front);
    return block ? block->sessions_max : 0;
}

unsigned
tlsd_sessions_max(const struct tlsd *d)
{
    unsigned n = 0;
    for (size_t i = 0; i < SOCKETS_FRONTS; i++)
        n += tlsd_door_max(d, sockets_fronts[i]);
    return n;
}

void
tlsd_before_session(void *arg)
{
    struct tlsd *d = arg;
    int64_t now = now_ms();
    for (size_t i = 0; i < SOCKETS_FRONTS; i++)
        if (d->servers[i])
            tls_server_renew_tickets(d->servers[i], now);
}

/* The front's request: its client. */
static int
take_client(const struct peer *peer, int *in_r, int *out_r, struct err *e)
{
    struct msg m = {0};
    int n = chan_recv(peer->fd_in, &m, peer->from, R_TLSD, TLSD_ASK_MS, e);
    if (n == 1 && (m.type != M_TLS_START || !msg_end(&m)))
        n = err_set(e, ERR_PROTOCOL, "not a TLS_START");
    if (n == 1) {
        *in_r = msg_take_fd(&m, 0);
        *out_r = msg_take_fd(&m, 1);
    }
    msg_free(&m);
    return n;
}

/* Our end of what the front gets, or -1. */
static int
answer(const struct peer *peer, const struct tls *tls)
{
    int pair[2];
    struct msg m = {0};
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return -1;
    msg_begin(&m, M_TLS_STARTED);
    msg_put_str(&m, str_z(tls_version(tls)));
    msg_put_str(&m, str_z(tls_cipher(tls)));
    msg_add_fd(&m, pair[1]);
    if (chan_send(peer->fd_in, &m, TLSD_ASK_MS, NULL) < 0) {
        close(pair[0]);
        pair[0] = -1;
    }
    close(pair[1]);
    msg_free(&m);
    return pair[0];
}

/* Let the client read the last bytes: what it has sent and nobody has read would turn our close
 * into a reset that destroys them on their way. */
static void
part(int in, int out)
{
    char room[4096];
    int64_t end = now_ms() + TLSD_LAST_MS;
    size_t dropped = 0;
    if (shutdown(out, SHUT_WR) < 0)
        return;
    for (;;) {
        struct pollfd p = {.fd = in, .events = POLLIN};
        if (poll(&p, 1, ms_left(end)) <= 0)
            return;
        ssize_t n = read(in, room, sizeof room);
        if (n <= 0 || (dropped += (size_t)n) > TLSD_LAST_MAX)
            return;
    }
}

/* What keyd signs for other services is not for this session. */
static void
keep_door_of(const struct tlsd *d, enum role front)
{
    for (size_t i = 0; i < SOCKETS_FRONTS; i++)
        if (sockets_fronts[i] != front)
            close(start_door_for(&d->start, R_KEYD, sockets_fronts[i]));
}

static void
serve(const struct tlsd *d, const struct peer *peer, int in, int out)
{
    struct tls_server *server = server_of(d, peer->from);
    struct stream io;
    struct tls *tls = NULL;
    struct err e = {0};
    stream_init(&io, in, out, PROXY_BUFFER, TLSD_IDLE_MS);
    if (!server)
        err_set(&e, ERR_PERMANENT, "no certificate is for %s", role_name(peer->from));
    if (!server || tls_server_accept(server, &io, &tls, &e) < 0) {
        chan_fail(peer->fd_in, &e);
        stream_free(&io);
        return;
    }
    listener_settled(); /* from here on the front decides how long */
    int clear = answer(peer, tls);
    /* For hours, perhaps: without the ways to anybody. */
    close(peer->fd_in);
    close(start_door_for(&d->start, R_KEYD, peer->from));
    bool whole = clear >= 0 && proxy_run(&io, clear, TLSD_IDLE_MS, TLSD_REST_MS);
    close(clear);
    tls_end(tls, whole ? TLSD_LAST_MS : 0); /* what is on its way may fill the socket */
    if (whole)
        part(in, out);
}

void
tlsd_session(const struct peer *peer, void *arg)
{
    const struct tlsd *d = arg;
    struct err e = {0};
    int in = -1, out = -1;
    keep_door_of(d, peer->from);
    heap_session();
    int n = take_client(peer, &in, &out, &e);
    if (n < 0)
        log_warn("%s: %s", role_name(peer->from), e.text);
    if (n == 1)
        serve(d, peer, in, out);
}
