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

/* Master speaks to us only to reload, and then starts us anew; its end tells us that it is gone. */
static void
on_control(struct loop_io *io, unsigned events)
{
    char byte;
    (void)events;
    if (read(io->fd, &byte, 1) <= 0)
        loop_del(io->arg, io);
}

void
keyd_serve(struct keyd *k, const struct start *st)
{
    struct loop loop = {.arg = NULL};
    struct loop_timer day = {.fire = on_day, .arg = k};
    struct service service = {.clients_max = KEYD_CHANNELS_MAX, .message = on_message, .arg = k};
    struct loop_io control = {.fd = start_fd(st, "control"), .ready = on_control, .arg = &loop};
    k->loop = &loop;
    /* SIGTERM ends us where we stand: when new keys come, nobody may be given a chain of old ones
     * by a keyd that is told to go and has a few questions left. */
    if (loop_init(&loop, NULL) < 0 || service_init(&service, &loop, st) < 0)
        log_fatal("event loop: %s", strerror(errno));
    if (control.fd >= 0 && loop_add(&loop, &control, EPOLLIN) < 0)
        log_fatal("cannot watch master: %s", strerror(errno));
    start_ready(st);
    log_info("ready with %u key%s", k->keys.n, k->keys.n == 1 ? "" : "s");
    on_day(&day);
    loop_run(&loop);
}
