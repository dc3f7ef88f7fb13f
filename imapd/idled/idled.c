#include "imapd/idled/idled.h"
#include "lib/log/log.h"
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    CLIENTS_MAX = 4200, /* channels of cells that may park */
    WAKING_MAX = 50,    /* at once; others wait for their turn */
    WAKE_MS = 30000,
    WAKE_TRIES = 3,
    RETRY_MS = 1000,
    LAST_READS = 16,
    ALIVE_MS = 120000, /* middle boxes forget silent connections, often after five minutes */
};

enum stage {
    PARKED,
    QUEUED, /* to be woken, when others have been */
    WAKING, /* authd was asked, or the cell is starting */
};

struct parked {
    struct loop_io client, watch;
    struct loop_timer timer;
    enum stage stage;
    int64_t end_ms;
    unsigned tries;
    struct client *authd, *cell; /* while WAKING */
    bool entered, ready;         /* their answers have come */
    struct parked *next_queued;
    struct parked *next, **link; /* of all */
    size_t token_n, state_n, user_n;
    char bytes[]; /* token, room for another one, state, user */
};

static struct {
    const struct start *start;
    struct loop loop;
    struct loop_io control;
    struct service service;
    size_t parked, waking;
    struct parked *all;
    struct parked *queue, **queue_end;
} the;

static void wake(struct parked *p);

static struct str
token_of(const struct parked *p)
{
    return str_of(p->bytes, p->token_n);
}
/* The name in a token ends with a NUL. */
static struct str
account_of(const struct parked *p)
{
    struct str token = token_of(p);
    return str_cut(&token, '\0');
}
static struct str
state_of(const struct parked *p)
{
    return str_of(p->bytes + PARK_TOKEN_MAX, p->state_n);
}
static struct str
user_of(const struct parked *p)
{
    return str_of(p->bytes + PARK_TOKEN_MAX + p->state_n, p->user_n);
}

/* ---- ends ---- */

static void
unwatch(struct parked *p)
{
    if (p->client.added)
        loop_del(&the.loop, &p->client);
    if (p->watch.added)
        loop_del(&the.loop, &p->watch);
    if (p->watch.fd >= 0)
        close(p->watch.fd);
    p->watch.fd = -1;
}

static void
leave_channels(struct parked *p)
{
    struct client *both[] = {p->authd, p->cell};
    p->authd = p->cell = NULL;
    for (size_t i = 0; i < 2; i++)
        if (both[i]) {
            both[i]->state = NULL;
            service_close(both[i]);
        }
    p->entered = p->ready = false;
}

/* One that fails at once, or ends, comes back here: then the first call goes on, not one in it. */
static void
next_in_queue(void)
{
    static bool busy;
    if (busy)
        return;
    busy = true;
    while (the.queue && the.waking < WAKING_MAX) {
        struct parked *p = the.queue;
        the.queue = p->next_queued;
        if (!the.queue)
            the.queue_end = &the.queue;
        wake(p);
    }
    busy = false;
}

static void
forget(struct parked *p)
{
    bool was_waking = p->stage == WAKING;
    unwatch(p);
    leave_channels(p);
    loop_timer_del(&the.loop, &p->timer);
    close(p->client.fd);
    *p->link = p->next;
    if (p->next)
        p->next->link = p->link;
    free(p);
    the.parked--;
    if (was_waking) {
        the.waking--;
        next_in_queue();
    }
}

/* Never waits: who does not read is not told. */
static int
say(const struct parked *p, const char *line)
{
    return send(p->client.fd, line, strlen(line), MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -1 : 0;
}

/* What the client has said and nobody will hear would turn the close into a reset, which destroys
 * our last words on their way. */
static void
last_words(const struct parked *p, const char *line)
{
    char room[4096];
    if (say(p, line) < 0 || shutdown(p->client.fd, SHUT_WR) < 0)
        return;
    for (int i = 0; i < LAST_READS && recv(p->client.fd, room, sizeof room, MSG_DONTWAIT) > 0; i++)
        continue;
}

static void
end(struct parked *p, const char *line, const char *why)
{
    if (line)
        last_words(p, line);
    log_info("imap(%s): Disconnected: %s (parked)", log_str(user_of(p)), why);
    forget(p);
}

/* ---- waking ---- */

static void
failed(struct parked *p, const char *why)
{
    leave_channels(p);
    the.waking--;
    p->stage = PARKED;
    if (++p->tries < WAKE_TRIES) {
        loop_timer_set(&the.loop, &p->timer, now_ms() + RETRY_MS);
    } else {
        log_warn("imap(%s): cannot be woken: %s", log_str(user_of(p)), why);
        end(p, "* BYE Temporarily unavailable, please reconnect.\r\n", "Cannot be woken");
    }
    next_in_queue();
}

/* One end for the cell by way of authd, the other is ours. */
static int
ask(struct parked *p, struct err *e)
{
    int pair[2];
    struct msg m = {0};
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return err_errno(e, "socketpair");
    msg_begin(&m, M_RESUME);
    msg_put_str(&m, token_of(p));
    msg_add_fd(&m, pair[1]);
    int channel = start_channel(the.start, R_AUTHD, &m, e);
    msg_free(&m);
    close(pair[1]);
    p->cell = channel < 0 ? NULL : service_adopt(&the.service, pair[0], R_CELL, p);
    if (!p->cell)
        close(pair[0]);
    p->authd = p->cell ? service_adopt(&the.service, channel, R_AUTHD, p) : NULL;
    if (!p->authd && channel >= 0)
        close(channel);
    return p->authd ? 0 : err_set(e, ERR_TEMPORARY, "%s", channel < 0 ? e->text : "out of memory");
}

static void
wake(struct parked *p)
{
    struct err e = {0};
    unwatch(p);
    if (the.waking >= WAKING_MAX) {
        p->stage = QUEUED;
        p->next_queued = NULL;
        loop_timer_del(&the.loop, &p->timer);
        *the.queue_end = p;
        the.queue_end = &p->next_queued;
        return;
    }
    p->stage = WAKING;
    the.waking++;
    loop_timer_set(&the.loop, &p->timer, now_ms() + WAKE_MS);
    if (ask(p, &e) < 0)
        failed(p, e.text);
}

/* The cell stands, and there is a token for the next time: it is its client again. */
static void
hand_back(struct parked *p)
{
    int pair[2];
    struct msg m = {0};
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
        failed(p, strerror(errno));
        return;
    }
    msg_begin(&m, M_CELL_RESUME);
    msg_put_str(&m, state_of(p));
    msg_put_str(&m, token_of(p));
    msg_add_fd(&m, p->client.fd);
    msg_add_fd(&m, pair[1]);
    int sent = msg_send(p->cell->io.fd, &m);
    msg_free(&m);
    close(pair[1]);
    if (sent < 0 || !service_adopt(&the.service, pair[0], R_IMAPD, NULL))
        close(pair[0]);
    if (sent < 0)
        failed(p, "the cell has gone");
    else
        forget(p);
}

static void
on_answer(struct client *c, struct msg *m)
{
    struct parked *p = c->state;
    if (!p)
        return;
    if (m->type == M_ENTERED) {
        (void)msg_get_str(m);
        struct str token = msg_get_str(m);
        if (!msg_end(m) || token.n > PARK_TOKEN_MAX) {
            failed(p, "a malformed answer of authd");
            return;
        }
        memcpy(p->bytes, token.p, token.n);
        p->token_n = token.n;
        p->entered = true;
    } else if (m->type == M_CELL_READY) {
        p->ready = true;
    } else {
        uint32_t class = msg_get_u32(m);
        if (m->type == M_FAILED && class == ERR_PERMANENT)
            p->tries = WAKE_TRIES;
        failed(p, "authd or the cell says no");
        return;
    }
    if (p->entered && p->ready)
        hand_back(p);
}

/* ---- watching ---- */

static void
on_client_moves(struct loop_io *io, unsigned events)
{
    struct parked *p = io->arg;
    char byte;
    (void)events;
    /* Only whether there is one: the session reads it. */
    ssize_t n = recv(io->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    if (n > 0)
        wake(p);
    else if (n == 0 || errno != EAGAIN)
        end(p, NULL, "Connection closed");
}

static void
on_mailbox_moves(struct loop_io *io, unsigned events)
{
    (void)events;
    wake(io->arg);
}

static void
next_time(struct parked *p)
{
    int64_t at = now_ms() + ALIVE_MS;
    loop_timer_set(&the.loop, &p->timer, at < p->end_ms ? at : p->end_ms);
}

static void
on_time(struct loop_timer *t)
{
    struct parked *p = t->arg;
    if (p->stage == WAKING)
        failed(p, "nobody answered in time");
    else if (p->tries)
        wake(p);
    else if (now_ms() >= p->end_ms)
        end(p, "* BYE Disconnected for inactivity.\r\n", "Disconnected for inactivity in IDLE");
    else if (say(p, "* OK Still here\r\n") < 0)
        end(p, NULL, "Connection closed");
    else
        next_time(p);
}

/* ---- parking ---- */

static struct parked *
take(struct msg *m)
{
    struct str token = msg_get_str(m), state = msg_get_str(m), user = msg_get_str(m);
    int64_t end_ms = (int64_t)(msg_get_u64(m) & INT64_MAX);
    if (!msg_end(m) || token.n > PARK_TOKEN_MAX || state.n > PARK_STATE_MAX ||
        user.n > PARK_TOKEN_MAX)
        return NULL;
    struct parked *p = calloc(1, sizeof *p + PARK_TOKEN_MAX + state.n + user.n);
    if (!p)
        return NULL;
    p->token_n = token.n;
    p->state_n = state.n;
    p->user_n = user.n;
    memcpy(p->bytes, token.p, token.n);
    memcpy(p->bytes + PARK_TOKEN_MAX, state.p, state.n);
    memcpy(p->bytes + PARK_TOKEN_MAX + state.n, user.p, user.n);
    p->end_ms = end_ms;
    p->client = (struct loop_io){.fd = msg_take_fd(m, 0), .ready = on_client_moves, .arg = p};
    p->watch = (struct loop_io){.fd = msg_take_fd(m, 1), .ready = on_mailbox_moves, .arg = p};
    p->timer = (struct loop_timer){.fire = on_time, .arg = p};
    return p;
}

static bool
account_has_room(const struct parked *p)
{
    size_t n = 0;
    for (const struct parked *other = the.all; other; other = other->next)
        n += str_eq(account_of(other), account_of(p));
    return n < PARKED_USER_MAX;
}

static void
on_park(struct client *c, struct msg *m)
{
    struct msg out = {0};
    struct parked *p = the.parked < PARKED_MAX ? take(m) : NULL;
    if (!p) {
        log_warn("a session that cannot be parked");
        service_close(c);
        return;
    }
    bool room = account_has_room(p);
    p->next = the.all;
    p->link = &the.all;
    if (p->next)
        p->next->link = &p->next;
    the.all = p;
    the.parked++;
    msg_begin(&out, M_PARKED);
    bool good = room && loop_add(&the.loop, &p->client, EPOLLIN | EPOLLRDHUP) == 0 &&
                loop_add(&the.loop, &p->watch, EPOLLIN) == 0 && service_send(c, &out) == 0;
    msg_free(&out);
    if (good) {
        next_time(p);
    } else {
        forget(p);
        service_close(c); /* its cell goes on with it */
    }
}

static void
on_message(struct client *c, struct msg *m)
{
    if (c->role != R_IMAPD)
        on_answer(c, m);
    else if (m->type == M_PARK)
        on_park(c, m);
    else
        service_close(c);
}

static void
on_gone(struct client *c)
{
    struct parked *p = c->state;
    if (!p)
        return;
    if (p->authd == c)
        p->authd = NULL;
    if (p->cell == c)
        p->cell = NULL;
    if (p->stage == WAKING)
        failed(p, "authd or the cell has gone");
}

/* At a reload sessions stay; only the log may have been moved. */
static void
on_control(struct loop_io *io, unsigned events)
{
    struct msg m = {0};
    (void)events;
    int n = msg_recv(io->fd, &m, R_MASTER, R_IDLED);
    if (n == 1 && m.type == M_RELOAD)
        log_move(m.fds[2]);
    else if (n == 0 || (n < 0 && errno != EAGAIN))
        loop_del(&the.loop, io);
    msg_free(&m);
}

static void
on_signal(struct loop *l, int signo)
{
    (void)signo;
    l->stop = true;
}

void
idled_serve(const struct start *st)
{
    static const int signals[] = {SIGTERM, SIGINT, 0};
    the.start = st;
    the.queue_end = &the.queue;
    the.loop.on_signal = on_signal;
    the.service =
        (struct service){.clients_max = CLIENTS_MAX, .message = on_message, .gone = on_gone};
    if (loop_init(&the.loop, signals) < 0 || service_init(&the.service, &the.loop, st) < 0)
        log_fatal("event loop: %s", strerror(errno));
    the.control = (struct loop_io){.fd = start_fd(st, "control"), .ready = on_control};
    if (the.control.fd >= 0 && loop_add(&the.loop, &the.control, EPOLLIN) < 0)
        log_fatal("cannot watch master: %s", strerror(errno));
    start_ready(st);
    loop_run(&the.loop);
}
