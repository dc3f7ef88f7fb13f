/*
 * sockets: the listening sockets, doors and paths of the suite: what exists, and how each is made.
 *
 * Used by master for all programs, and by a program that was started by hand for itself. Who may
 * open a door to whom follows from the message table, and from nowhere else.
 */
#pragma once
#include "lib/role/start.h"

/* Files that we make are ours alone unless a mode says otherwise. */
void umask_for_role(void);
/* Whether the table has any request that client may send to service through a channel of its own.
 */
bool sockets_linked(enum role client, enum role service);
/* A door between two linked programs has a name, "to.SERVICE" and "from.CLIENT", and here is what
 * is added to it: nothing, as a rule. tlsd has a door to keyd for each front (".smtpd", ...), so
 * that a session can be left with the one of its own. NULL when there are no more than i doors;
 * when the two are not linked there is none. */
const char *sockets_door(enum role client, enum role service, size_t i);
/* The programs that strangers connect to. */
enum { SOCKETS_FRONTS = 4 };
extern const enum role sockets_fronts[SOCKETS_FRONTS];
/* "smtp", "smtps", ...: the name of a listening descriptor of this role. */
const char *sockets_service_name(enum role role, bool tls);
/* An Internet address in numbers, and its port; an IPv4 client on an IPv6 socket is an IPv4 client.
 * Leaves both alone for other families. */
void sockets_describe(const struct sockaddr_storage *ss, char *ip, size_t size, uint16_t *port);
/* Bind and listen. -1 with e. */
int sockets_tcp(const struct conf_listen *l, struct err *e);
/* A listening Unix socket at dir/name, replacing a stale one, with this mode; type SOCK_SEQPACKET
 * or SOCK_STREAM. */
int sockets_unix(const char *dir, const char *name, int type, mode_t mode, struct err *e);
/* The block of a role, or NULL for a role that has none. */
const struct conf_service *sockets_block(const struct conf *conf, enum role role);
