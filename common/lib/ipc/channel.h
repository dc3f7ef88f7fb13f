/*
 * channel: a private socket pair between one client and one service, and how to get one.
 *
 * Sessions cannot connect(): they hold doors. A door is a socket pair that master made for one
 * client role and one service and keeps open itself, so it outlives a crash of either side. To get
 * a channel a client makes a fresh pair and sends one end through the door (DOOR_OPEN). The service
 * knows the client's role by the door it came through: no claim, no check, no forgery.
 */
#pragma once
#include "lib/ipc/message.h"

/* A new channel through a door: its descriptor (close-on-exec, blocking), or -1. first, or NULL, is
 * sent ahead: the service finds it when it finds the channel, and wakes up once and not twice. */
int chan_open(int door_fd, const struct msg *first, struct err *e);
/* A new channel to the service that listens at a path; for commands and inetd mode. */
int chan_connect(const char *path, struct err *e);
/* Send request m, and receive the answer into m. A FAILED answer becomes -1 with its class and
 * text; so do silence for timeout_ms (ERR_TIMEOUT), a closed channel (ERR_CLOSED) and a broken rule
 * (ERR_PROTOCOL). want is the type of answer expected; another type is a broken rule. After any -1
 * but FAILED (e->class ERR_TEMPORARY, ERR_PERMANENT, ERR_LIMIT or ERR_DAMAGED) close the channel.
 */
int chan_ask(int fd, struct msg *m, enum msg_type want, enum role me, enum role service,
             int timeout_ms, struct err *e);
/* Whether this is what a service says of a request, and not about the channel. */
bool chan_is_refusal(uint32_t class);
/* The second half of chan_ask(), for a request that has been sent. */
int chan_answer(int fd, struct msg *m, enum msg_type want, enum role me, enum role service,
                int timeout_ms, struct err *e);
/* Wait at most timeout_ms and receive one message: 1; 0 the peer has closed; -1 with e. */
int chan_recv(int fd, struct msg *m, enum role from, enum role me, int timeout_ms, struct err *e);
/* Send, waiting at most timeout_ms for room. */
int chan_send(int fd, const struct msg *m, int timeout_ms, struct err *e);
/* Send FAILED with the class and text of e: how a service says no. */
int chan_fail(int fd, const struct err *e);
