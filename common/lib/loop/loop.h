/*
 * loop: descriptors, timers and signals for the few processes that serve many at once (master, the
 * listeners, qmgr, dnsd, authd, keyd).
 *
 * Level-triggered epoll. Callbacks may add and remove any handle, also their own. Timers are
 * one-shot. after_turn() runs once after each batch of events: where qmgr syncs its directory for
 * all commits of the turn. The structs are the caller's, and must stay in place while registered.
 */
#pragma once
#include "lib/base/clock.h"
#include "lib/base/heap.h"
#include <stdbool.h>
#include <stddef.h>

struct loop;
struct loop_io {
    int fd;
    void (*ready)(struct loop_io *io, unsigned events); /* EPOLLIN, EPOLLOUT, EPOLLHUP, ... */
    void *arg;
    bool added;
    unsigned want;
};
struct loop_timer {
    struct heap_node node; /* key: when, in ms */
    void (*fire)(struct loop_timer *t);
    void *arg;
};
struct loop {
    int epoll_fd, signal_fd;
    struct heap timers;
    bool stop;
    void (*on_signal)(struct loop *l, int signo);
    void (*after_turn)(struct loop *l);
    void *arg;
    struct loop_io signal_io;
    struct loop_io **batch; /* the events of this turn, so that loop_del can strike one out */
    int batch_n;
};

/* signals: a 0-terminated list to be read from a signalfd (blocked for the process), or NULL. */
int loop_init(struct loop *l, const int *signals);
int loop_add(struct loop *l, struct loop_io *io, unsigned events);
void loop_want(struct loop *l, struct loop_io *io, unsigned events);
void loop_del(struct loop *l, struct loop_io *io); /* does not close */
/* (Re)arm; fires once when now_ms() >= at_ms. -1 only when memory is out. */
int loop_timer_set(struct loop *l, struct loop_timer *t, int64_t at_ms);
void loop_timer_del(struct loop *l, struct loop_timer *t);

static inline bool
loop_timer_is_set(const struct loop_timer *t)
{
    return t->node.at > 0;
}

/* Serve until l->stop. */
void loop_run(struct loop *l);
