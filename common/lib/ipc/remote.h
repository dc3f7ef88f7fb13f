/*
 * remote: a channel to another program, opened at its first use and opened anew when that program
 * was restarted in between.
 *
 * Used by sessions, which ask authd and qmgr now and then during one connection, and by tlsd, which
 * asks keyd.
 */
#pragma once
#include "lib/ipc/channel.h"
#include "lib/role/start.h"

struct remote {
    const struct start *start;
    enum role me, it;
    enum role front; /* R_NONE, or whose door to it is used: see sockets_door() */
    int fd;          /* -1: not open */
};

void remote_init(struct remote *s, const struct start *start, enum role me, enum role it);
void remote_close(struct remote *s);
/* As chan_ask(). A request whose channel turns out to be dead is sent through a fresh one, twice at
 * most, since a reload replaces a program and the one that is leaving may have met the first: so
 * only for requests that may be asked twice. On -1 but a refusal of the service the channel is
 * closed and the next request opens another. */
int remote_ask(struct remote *s, struct msg *m, enum msg_type want, int timeout_ms, struct err *e);
/* The same in two halves, with nothing asked in between. Nothing is sent a second time: after a -1
 * with ERR_CLOSED the caller may ask anew. */
int remote_send(struct remote *s, const struct msg *m, struct err *e);
int remote_answer(struct remote *s, struct msg *m, enum msg_type want, int timeout_ms,
                  struct err *e);
