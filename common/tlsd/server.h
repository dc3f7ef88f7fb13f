/*
 * server: the TLS contexts of one service: certificates, suites, tickets; and the handshake.
 *
 * tlsd only. A context holds certificate chains from keyd and no private key: RSA and ECDSA method
 * hooks send what is to be signed to keyd (KEY_SIGN) through a channel that each session opens at
 * its handshake. ECDHE and AEAD suites only, no early data. Each service has contexts of its own:
 * a ticket of one is worth nothing at another, and the keys of tickets are forgotten every
 * TICKET_KEYS_MS.
 */
#pragma once
#include "lib/role/start.h"
#include "lib/tls/tls.h"

enum { TICKET_KEYS_MS = 3600 * 1000 };

struct tls_server; /* made once in the listener, shared by its sessions */

/* Asks keyd for the chains of this front. NULL with e when keyd has none. */
struct tls_server *tls_server_new(const struct start *st, enum role front, struct err *e);
void tls_server_free(struct tls_server *server);
/* In the listener, before a session is forked: new ticket keys when the old ones are of age. */
void tls_server_renew_tickets(struct tls_server *server, int64_t at_ms);
/* Handshake on the stream's descriptors, at most TLS_HANDSHAKE_MS, and put TLS under it. On -1 the
 * connection is to be closed. */
int tls_server_accept(struct tls_server *server, struct stream *s, struct tls **tls_r,
                      struct err *e);
