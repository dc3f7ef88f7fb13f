/*
 * listener: accept, apply limits, fork: one connection, one process.
 *
 * Used by smtpd, submitd, pop3d, imapd (TCP, and sendmail's Unix socket), and by local and relay,
 * whose connections are channels that qmgr opens through a door. The listener reads no byte of a
 * peer. A session is the image of the listener at fork time: configuration read, TLS contexts made,
 * role entered; guard_session() is called before session(). When session() returns the process
 * exits.
 */
#pragma once
#include "lib/role/start.h"

struct peer {
    int fd_in, fd_out;   /* the same but in inetd mode */
    const char *service; /* the name of the listening descriptor: "smtp", "imaps", "path", ... */
    char ip[46];         /* numeric; "" for Unix sockets and doors */
    char local_ip[46];
    uint16_t port;
    uid_t uid;        /* of a Unix socket's peer, as the kernel names it */
    enum role from;   /* by the door; R_USER or R_CTL for the path */
    bool relayclient; /* RELAYCLIENT is set (inetd mode) */
};

struct listener {
    const struct start *start;
    unsigned sessions_max;        /* in all */
    unsigned sessions_per_ip_max; /* IPv6: per /64 */
    /* Says no to a TCP peer beyond the limits: one line, sent without waiting; or NULL. */
    const char *busy_line;
    /* When all places are taken old sessions that have not settled give way: see giveway.h. */
    bool give_way;
    /* Sessions at once through the door of one client program; NULL: no limit of its own. */
    unsigned (*door_max)(const void *arg, enum role client);
    /* In the listener, before each fork; or NULL. */
    void (*before_session)(void *arg);
    void (*session)(const struct peer *peer, void *arg);
    void *arg;
};

/* In a session: make the pages of what it will write to its own at once. Each would else be a page
 * fault when it is first written to. */
void listener_own(const void *from, size_t n);
/* In a session: its client is known (has logged in), and stays when others have to give way. */
void listener_settled(void);
/* It is so no longer: only the end of its session is outstanding. */
void listener_unsettled(void);
/* Serve until told to stop (SIGTERM), then wait for no session: they go on by themselves. So a
 * reload is a new listener in the old one's place. In inetd mode: one session on descriptors 0
 * and 1. */
void listener_serve(struct listener *l);
