#include "lib/loop/loop.h"
#include "lib/log/log.h"
#include <errno.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

enum { BATCH = 128 };

static void
on_signalfd(struct loop_io *io, unsigned events)
{
    struct loop *l = io->arg;
    struct signalfd_siginfo info;
    (void)events;
    while (read(io->fd, &info, sizeof info) == (ssize_t)sizeof info)
        if (l->on_signal)
            l->on_signal(l, (int)info.ssi_signo);
}

int
loop_init(struct loop *l, const int *signals)
{
    sigset_t set;
    l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    l->signal_fd = -1;
    if (l->epoll_fd < 0)
        return -1;
    if (!signals)
        return 0;
    sigemptyset(&set);
    for (; *signals; signals++)
        sigaddset(&set, *signals);
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
        return -1;
    l->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    l->signal_io = (struct loop_io){.fd = l->signal_fd, .ready = on_signalfd, .arg = l};
    return l->signal_fd < 0 ? -1 : loop_add(l, &l->signal_io, EPOLLIN);
}

int
loop_add(struct loop *l, struct loop_io *io, unsigned events)
{
    struct epoll_event ev = {.events = events, .data.ptr = io};
    if (epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, io->fd, &ev) < 0)
        return -1;
    io->added = true;
    io->want = events;
    return 0;
}

void
loop_want(struct loop *l, struct loop_io *io, unsigned events)
{
    struct epoll_event ev = {.events = events, .data.ptr = io};
    if (io->added && io->want != events && epoll_ctl(l->epoll_fd, EPOLL_CTL_MOD, io->fd, &ev) == 0)
        io->want = events;
}

void
loop_del(struct loop *l, struct loop_io *io)
{
    if (!io->added)
        return;
    epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, io->fd, NULL);
    io->added = false;
    for (int i = 0; i < l->batch_n; i++)
        if (l->batch[i] == io)
            l->batch[i] = NULL;
}

static struct loop_timer *
timer_of(struct heap_node *node)
{
    return (struct loop_timer *)((char *)node - offsetof(struct loop_timer, node));
}

int
loop_timer_set(struct loop *l, struct loop_timer *t, int64_t at_ms)
{
    loop_timer_del(l, t);
    t->node.key = at_ms > 0 ? (uint64_t)at_ms : 0;
    return heap_add(&l->timers, &t->node);
}

void
loop_timer_del(struct loop *l, struct loop_timer *t)
{
    if (loop_timer_is_set(t))
        heap_del(&l->timers, &t->node);
}

static void
fire_due(struct loop *l)
{
    uint64_t now = (uint64_t)now_ms();
    struct heap_node *first;
    while ((first = heap_top(&l->timers)) && first->key <= now && !l->stop) {
        heap_del(&l->timers, first);
        timer_of(first)->fire(timer_of(first));
    }
}

void
loop_run(struct loop *l)
{
    struct epoll_event events[BATCH];
    struct loop_io *batch[BATCH];
    while (!l->stop) {
        struct heap_node *first = heap_top(&l->timers);
        int wait = first ? ms_left((int64_t)first->key) : -1;
        int n = epoll_wait(l->epoll_fd, events, BATCH, wait);
        if (n < 0 && errno != EINTR)
            return;
        l->batch = batch;
        l->batch_n = n < 0 ? 0 : n;
        for (int i = 0; i < l->batch_n; i++)
            batch[i] = events[i].data.ptr;
        for (int i = 0; i < l->batch_n; i++)
            if (batch[i])
                batch[i]->ready(batch[i], events[i].events);
        l->batch_n = 0;
        fire_due(l);
        if (l->after_turn)
            l->after_turn(l);
        log_flush();
    }
}
