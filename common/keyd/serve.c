#include "keyd/serve.h"
#include "keyd/expiry.h"
#include "lib/base/clock.h"
#include "lib/ipc/service.h"
#include "lib/log/log.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <unistd.h>

static int
open_one(struct start *st, struct str path, const char *kind, size_t i, struct err *e)
{
    char name[32];
    int fd = open(path.p, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(e, "%s", path.p);
    snprintf(name, sizeof name, "dir.%s%zu", kind, i);
    start_add_fd(st, fd, name);
    return 0;
}

int
keyd_open_files(struct start *st, const struct conf *conf, struct err *e)
{
    for (size_t i = 0; i < conf->nkeys; i++)
        if (open_one(st, conf->keys[i].key, "key", i, e) < 0 ||
            open_one(st, conf->keys[i].chain, "chain", i, e) < 0)
            return -1;
    return 0;
}

static void
on_message(struct client *c, struct msg *m)
{
    struct keyd *k = c->service->arg;
    struct msg reply = {0};
    struct err e = {0};
    if (keyd_answer(k, c->role, c->front, m, &reply, &e) == 0)
        service_send(c, &reply);
    else if (e.class == ERR_PROTOCOL)
        service_close(c);
    else
        service_fail(c, e.class, e.text);
    msg_free(&reply);
}

static void
on_day(struct loop_timer *t)
{
    struct keyd *k = t->arg;
    expiry_tell(&k->keys, wall_s());
    loop_timer_set(k->loop, t, now_ms() + EXPIRY_TELL_MS);
}

/* What the event loop needs beside the keys. */
struct serving {
    struct loop loop;
    struct service service;
    struct loop_io control;
    struct loop_timer leave;
    int64_t until_ms; /* left by then at the latest; 0: not leaving */
};

static void
on_leave(struct loop_timer *t)
{
    struct serving *s = t->arg;
    s->loop.stop = service_deserted(&s->service) || now_ms() > s->until_ms;
    loop_timer_set(&s->loop, t, now_ms() + KEYD_LEAVE_LOOK_MS);
}

/* Master has closed its end: it has started another keyd, with doors of its own. Ours are held by
 * those sessions of tlsd alone that have told their clients of our certificates. */
static void
on_control(struct loop_io *io, unsigned events)
{
    struct serving *s = io->arg;
    char byte;
    (void)events;
    if (read(io->fd, &byte, 1) > 0)
        return;
    loop_del(&s->loop, io);
    service_leave(&s->service);
    s->until_ms = now_ms() + KEYD_LEAVE_MS;
    on_leave(&s->leave);
}

void
keyd_serve(struct keyd *k, const struct start *st)
{
    struct serving s = {
        .service = {.clients_max = KEYD_CHANNELS_MAX, .message = on_message, .arg = k},
        .control = {.fd = start_fd(st, "control"), .ready = on_control, .arg = &s},
        .leave = {.fire = on_leave, .arg = &s},
    };
    struct loop_timer day = {.fire = on_day, .arg = k};
    k->loop = &s.loop;
    /* SIGTERM ends us where we stand. */
    if (loop_init(&s.loop, NULL) < 0 || service_init(&s.service, &s.loop, st) < 0)
        log_fatal("event loop: %s", strerror(errno));
    if (s.control.fd >= 0 && loop_add(&s.loop, &s.control, EPOLLIN) < 0)
        log_fatal("cannot watch master: %s", strerror(errno));
    start_ready(st);
    log_info("ready with %u key%s", k->keys.n, k->keys.n == 1 ? "" : "s");
    on_day(&day);
    loop_run(&s.loop);
}
