/*
 * qmgr(8): see qmgr.h.
 */
#include "lib/guard/guard.h"
#include "lib/log/log.h"
#include "qmgr/qmgr.h"
#include <errno.h>
#include <signal.h>
#include <sys/epoll.h>
#include <unistd.h>

static struct start start;
static struct conf conf;
static struct loop_io control;

static void
on_message(struct client *c, struct msg *m)
{
    if (c->role == R_LOCAL || c->role == R_RELAY)
        route_message(c, m);
    else if (m->type == M_QUEUE_NEW || m->type == M_QUEUE_COMMIT || m->type == M_QUEUE_SYNCED ||
             m->type == M_QUEUE_ABORT)
        intake_message(c, m);
    else
        operate_message(c, m);
}

static void
on_gone(struct client *c)
{
    if (c->role == R_LOCAL || c->role == R_RELAY)
        route_gone(c);
    else
        intake_gone(c);
}

static void
on_control(struct loop_io *io, unsigned events)
{
    static struct conf_errors errors;
    struct conf fresh;
    struct msg m = {0};
    (void)events;
    int n = msg_recv(io->fd, &m, R_MASTER, R_QMGR);
    if (n == 1 && m.type == M_RELOAD) {
        log_move(m.fds[2]);
        if (conf_read(&fresh, STR("bulkhead.conf"), m.fds[0], &errors) == 0) {
            conf_free(&conf);
            conf = fresh;
            route_configure();
            route_renew();
        }
    } else if (n == 0 || (n < 0 && errno != EAGAIN)) {
        loop_del(&qmgr.loop, io);
    }
    msg_free(&m);
}

static void
on_signal(struct loop *l, int signo)
{
    (void)signo;
    l->stop = true;
}

static void
after_turn(struct loop *l)
{
    (void)l;
    intake_after_turn();
}

int
main(int argc, char **argv)
{
    static const int signals[] = {SIGTERM, SIGINT, 0};
    struct err e = {0};
    start_read(&start, R_QMGR, argc, argv);
    start_config(&start, &conf);
    start_sockets(&start, &conf);
    qmgr.start = &start;
    qmgr.started_ms = now_ms();
    qmgr.conf = &conf;
    qmgr.dir = start_fd(&start, "dir.queue");
    if (store_open(qmgr.dir < 0 ? conf.queue_dir.p : NULL, &e) < 0)
        log_fatal("%s", e.text);
    store_lock();
    syncer_start();
    struct guard_dir dirs[] = {{.dirfd = qmgr.dir, .write = true}};
    struct guard guard = {
        .role = R_QMGR, .root_fd = start_fd(&start, "root"), .dirs = dirs, .ndirs = 1};
    guard_enter(&guard);

    qmgr.loop.on_signal = on_signal;
    qmgr.loop.after_turn = after_turn;
    qmgr.service = (struct service){.clients_max = 12000, .message = on_message, .gone = on_gone};
    if (loop_init(&qmgr.loop, signals) < 0 || service_init(&qmgr.service, &qmgr.loop, &start) < 0 ||
        syncer_serve(intake_synced) < 0)
        log_fatal("event loop: %s", strerror(errno));
    control = (struct loop_io){.fd = start_fd(&start, "control"), .ready = on_control};
    if (control.fd >= 0 && loop_add(&qmgr.loop, &control, EPOLLIN) < 0)
        log_fatal("cannot watch master: %s", strerror(errno));
    route_start();
    shape_start();
    scan_start();
    start_ready(&start);
    log_gather();
    loop_run(&qmgr.loop);
    intake_leave();
    place_settle();
    return 0;
}
