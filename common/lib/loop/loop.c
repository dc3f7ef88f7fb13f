#include "lib/loop/loop.h"
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
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

/* The heap: at index i the timer with heap_at == i + 1; no child is earlier than its parent. */
static void
place(struct loop *l, size_t i, struct loop_timer *t)
{
    l->heap[i] = t;
    t->heap_at = i + 1;
}

static void
sift_up(struct loop *l, size_t i)
{
    struct loop_timer *t = l->heap[i];
    while (i > 0 && l->heap[(i - 1) / 2]->at_ms > t->at_ms) {
        place(l, i, l->heap[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    place(l, i, t);
}

static void
sift_down(struct loop *l, size_t i)
{
    struct loop_timer *t = l->heap[i];
    for (;;) {
        size_t child = 2 * i + 1;
        if (child + 1 < l->timers && l->heap[child + 1]->at_ms < l->heap[child]->at_ms)
            child++;
        if (child >= l->timers || l->heap[child]->at_ms >= t->at_ms)
            break;
        place(l, i, l->heap[child]);
        i = child;
    }
    place(l, i, t);
}

int
loop_timer_set(struct loop *l, struct loop_timer *t, int64_t at_ms)
{
    loop_timer_del(l, t);
    if (l->timers == l->heap_cap) {
        size_t cap = l->heap_cap ? 2 * l->heap_cap : 64;
        struct loop_timer **heap = reallocarray(l->heap, cap, sizeof(struct loop_timer *));
        if (!heap)
            return -1;
        l->heap = heap;
        l->heap_cap = cap;
    }
    t->at_ms = at_ms;
    l->heap[l->timers] = t;
    sift_up(l, l->timers++);
    return 0;
}

void
loop_timer_del(struct loop *l, struct loop_timer *t)
{
    if (t->heap_at == 0)
        return;
    size_t i = t->heap_at - 1;
    struct loop_timer *last = l->heap[--l->timers];
    t->heap_at = 0;
    if (last == t)
        return;
    place(l, i, last);
    sift_up(l, i);
    sift_down(l, last->heap_at - 1);
}

static void
fire_due(struct loop *l)
{
    int64_t now = now_ms();
    while (l->timers && l->heap[0]->at_ms <= now && !l->stop) {
        struct loop_timer *t = l->heap[0];
        loop_timer_del(l, t);
        t->fire(t);
    }
}

void
loop_run(struct loop *l)
{
    struct epoll_event events[BATCH];
    struct loop_io *batch[BATCH];
    while (!l->stop) {
        int wait = l->timers ? ms_left(l->heap[0]->at_ms) : -1;
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
    }
}
