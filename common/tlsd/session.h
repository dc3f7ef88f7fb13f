/*
 * session: one connection under TLS: the handshake, then bytes both ways until one side is
 * finished.
 *
 * tlsd only. A front (smtpd, submitd, imapd, pop3d) opens a channel and gives us its client; it may
 * be taken over, and the client is a stranger. What the front gets back is one end of a socket
 * pair; the front may pass it on (to a cell), and we neither know nor care who speaks there.
 *
 * Limits: TLSD_ASK_MS for the front's request, TLS_HANDSHAKE_MS, TLSD_IDLE_MS of silence,
 * TLSD_REST_MS for the client to take what a server that has ended has said, and TLSD_LAST_MS for
 * the client's own end when it has taken all and the other side has ended.
 */
#pragma once
#include "lib/loop/listener.h"
#include "lib/role/sockets.h"
#include "tlsd/server.h"

enum {
    TLSD_ASK_MS = 10000,
    TLSD_IDLE_MS = 31 * 60 * 1000, /* longer than any client waits (RFC 2177) */
    TLSD_REST_MS = 60000,          /* for the client to take what an ended server has said */
    TLSD_LAST_MS = 2000,
    TLSD_LAST_MAX = 1 << 20, /* bytes read and dropped meanwhile */
};

struct tlsd { /* the listener's state, which its sessions inherit */
    struct start start;
    struct conf conf;
    struct tls_server *servers[SOCKETS_FRONTS]; /* in the order of sockets_fronts */
};

/* The contexts of all services; exits with a message when keyd has no usable certificate. */
void tlsd_prepare(struct tlsd *d);
/* Sessions that one front may have here at once: as many as it has itself. */
unsigned tlsd_door_max(const void *arg, enum role front);
/* And in all. */
unsigned tlsd_sessions_max(const struct tlsd *d);
/* In the listener, before each session. */
void tlsd_before_session(void *arg);
/* One channel of a front. */
void tlsd_session(const struct peer *peer, void *arg);
