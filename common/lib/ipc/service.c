#include "lib/ipc/service.h"
#include "lib/ipc/channel.h"
#include "lib/log/log.h"
#include "lib/guard/guard.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PER_TURN = 32 };

static size_t
place_of(enum role role)
{
    return (size_t)__builtin_ctz((unsigned)role);
}

static void
drop(struct client *c)
{
    struct service *s = c->service;
    loop_del(s->loop, &c->io);
    *c->link = c->next;
    if (c->next)
        c->next->link = c->link;
    s->nclients--;
    if (c->outside)
        s->by_role[place_of(c->role)]--;
    if (s->gone)
        s->gone(c);
    close(c->io.fd);
    free(c);
}

void
service_close(struct client *c)
{
    c->closing = true;
    /* The next turn finds the hang-up and drops it: safe from inside any callback. */
    shutdown(c->io.fd, SHUT_RDWR);
    loop_want(c->service->loop, &c->io, EPOLLIN);
}

static bool
is_seqpacket(int fd)
{
    int type = 0;
    socklen_t n = sizeof type;
    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) == 0 && type == SOCK_SEQPACKET;
}

/* A channel that somebody else made. NULL when there is no place for it. */
static struct client *
adopt_outside(struct service *s, int fd, enum role role, enum role front, bool door)
{
    size_t *n = &s->by_role[place_of(role)];
    if (*n >= s->clients_max - s->clients_max / 4) {
        log_warn("%zu channels of %s: one more refused", *n, role_name(role));
        return NULL;
    }
    struct client *c = service_adopt(s, fd, role, NULL);
    if (!c)
        return NULL;
    c->outside = true;
    c->front = front;
    c->door = door;
    ++*n;
    return c;
}

/* One frame from a client: 1 go on, 0 nothing there now, -1 the client was dropped. */
static int
take_one(struct client *c)
{
    struct service *s = c->service;
    int n = c->closing ? 0 : msg_recv(c->io.fd, &s->in, c->role, s->me);
    if (n < 0 && errno == EAGAIN)
        return 0;
    if (n <= 0) {
        if (n < 0 && errno == EPROTO)
            log_warn("closing a channel of %s: it broke the message rules", role_name(c->role));
        drop(c);
        return -1;
    }
    if (s->in.type == M_DOOR_OPEN) {
        /* A program that was started by hand has no other door than its connection to a path. */
        int fd = msg_take_fd(&s->in, 0);
        if (!c->door || !is_seqpacket(fd) || !adopt_outside(s, fd, c->role, c->front, false))
            close(fd);
        if (c->door)
            return 1;
        log_warn("closing a channel of %s: it is no door", role_name(c->role));
        drop(c);
        return -1;
    }
    s->message(c, &s->in);
    return 1;
}

static void
on_client(struct loop_io *io, unsigned events)
{
    (void)events;
    struct client *c = io->arg;
    /* What else there is, the next turn brings. */
    for (int i = 0; take_one(c) == 1 && c->eager && i < PER_TURN; i++)
        ;
}

struct client *
service_adopt(struct service *s, int fd, enum role role, void *state)
{
    if (s->nclients >= s->clients_max) {
        log_warn("too many channels (%zu): one of %s refused", s->nclients, role_name(role));
        return NULL;
    }
    struct client *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    *c = (struct client){.io = {.fd = fd, .ready = on_client, .arg = c},
                         .service = s,
                         .role = role,
                         .state = state,
                         .next = s->clients,
                         .link = &s->clients};
    if (loop_add(s->loop, &c->io, EPOLLIN) < 0) {
        free(c);
        return NULL;
    }
    if (c->next)
        c->next->link = &c->next;
    s->clients = c;
    s->nclients++;
    return c;
}

static void
on_door(struct loop_io *io, unsigned events)
{
    const struct service_way *way = io->arg;
    struct service *s = way->service;
    for (int i = 0; i < PER_TURN; i++) {
        int n = msg_recv(io->fd, &s->in, way->role, s->me);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0 && (events & EPOLLHUP)) {
            loop_del(s->loop, io);
            return;
        }
        /* A door outlives any one peer: what is not DOOR_OPEN is passed over. */
        if (n <= 0 || s->in.type != M_DOOR_OPEN) {
            log_warn("garbage at the door of %s", role_name(way->role));
            continue;
        }
        int fd = msg_take_fd(&s->in, 0);
        struct client *c =
            is_seqpacket(fd) ? adopt_outside(s, fd, way->role, way->front, false) : NULL;
        if (c)
            (void)take_one(c); /* the first question often lies there already */
        else
            close(fd);
    }
}

static void
on_path(struct loop_io *io, unsigned events)
{
    const struct service_way *way = io->arg;
    (void)events;
    for (int i = 0; i < PER_TURN; i++) {
        int fd = accept4(io->fd, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
            return;
        if (!adopt_outside(way->service, fd, way->role, way->front, true))
            close(fd);
    }
}

static int
add_way(struct service *s, int fd, struct str role, void (*ready)(struct loop_io *, unsigned))
{
    struct str front = role;
    enum role from = role_named(str_cut(&front, '.'));
    struct service_way *way = &s->ways[s->nways];
    if (from == R_NONE || (front.n && role_named(front) == R_NONE) ||
        s->nways == sizeof s->ways / sizeof s->ways[0])
        return -1;
    guard_unblock(fd);
    *way = (struct service_way){{.fd = fd, .ready = ready, .arg = way}, s, from, role_named(front)};
    s->nways++;
    return loop_add(s->loop, &way->io, EPOLLIN);
}

int
service_init(struct service *s, struct loop *l, const struct start *st)
{
    s->loop = l;
    s->me = st->role;
    for (size_t i = 0; i < st->nfds; i++) {
        struct str name = str_z(st->fds[i].name);
        if (str_starts(name, STR("from.")) &&
            add_way(s, st->fds[i].fd, str_from(name, 5), on_door) < 0)
            return -1;
        if (str_starts(name, STR("path.")) &&
            add_way(s, st->fds[i].fd, str_from(name, 5), on_path) < 0)
            return -1;
    }
    return 0;
}

/* What came of sending. */
static int
sent(struct client *c, int result)
{
    if (result < 0 && (errno == EAGAIN || errno == EMSGSIZE))
        log_warn("closing a channel of %s: it does not take its answers", role_name(c->role));
    if (result < 0)
        service_close(c);
    return result;
}

int
service_send(struct client *c, const struct msg *m)
{
    return c->closing ? -1 : sent(c, msg_send(c->io.fd, m));
}

int
service_fail(struct client *c, enum err_class class, const char *text)
{
    struct err e = {.class = class};
    snprintf(e.text, sizeof e.text, "%s", text);
    return c->closing ? -1 : sent(c, chan_fail(c->io.fd, &e));
}

void
service_leave(struct service *s)
{
    for (size_t i = 0; i < s->nways; i++)
        if (s->ways[i].io.ready == on_path)
            loop_del(s->loop, &s->ways[i].io);
}

bool
service_deserted(const struct service *s)
{
    for (size_t i = 0; i < s->nways; i++)
        if (s->ways[i].io.added)
            return false;
    return s->nclients == 0;
}
