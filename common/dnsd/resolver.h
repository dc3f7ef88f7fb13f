/*
 * resolver: c-ares in our event loop.
 *
 * dnsd only. Everything that c-ares reads from files it reads in resolver_init(), before the role
 * is entered; only what asks for one name and one type is used of it. Its sockets are made by our
 * own functions, which need no more than socket, connect, send and receive.
 */
#pragma once
#include "dnsd/answer.h"
#include "lib/base/err.h"
#include "lib/conf/conf.h"
#include "lib/loop/loop.h"

enum { RESOLVER_SOCKETS_MAX = 32, RESOLVER_TIMEOUT_MS = 2500, RESOLVER_TRIES = 3 };

struct ares_channeldata;
struct resolver {
    struct ares_channeldata *ares;
    struct loop *loop;
    struct loop_timer tick;
    struct loop_io sockets[RESOLVER_SOCKETS_MAX]; /* fd -1: free */
};

/* With the configured resolvers, or those of /etc/resolv.conf. The struct stays in place. */
int resolver_init(struct resolver *r, const struct conf *conf, struct err *e);
/* Watch its sockets and timers from now on. */
void resolver_start(struct resolver *r, struct loop *loop);
void resolver_free(struct resolver *r);
/* One question. done is called exactly once, perhaps before this returns, with the packet, or with
 * an empty str when no server gave a usable one. */
void resolver_ask(struct resolver *r, const char *name, enum dns_type type,
                  void (*done)(void *arg, struct str packet), void *arg);
