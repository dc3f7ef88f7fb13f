/*
 * tls: TLS under a stream.
 *
 * Used by relay as a client, and by tlsd as a server (tlsd/server.h). The peer's bytes are a
 * stranger's; OpenSSL reads them, inside a session process that can reach nothing else.
 *
 * TLS 1.2 and later, no renegotiation, no compression. A cut without close_notify reads as
 * ECONNABORTED, never as the end of data.
 */
#pragma once
#include "lib/io/stream.h"

struct tls_client;
struct tls; /* one connection */

enum { TLS_HANDSHAKE_MS = 30000 };

/* Certificate not checked (opportunistic, RFC 3207 and 7435). */
struct tls_client *tls_client_new(struct err *e);
void tls_client_free(struct tls_client *client);

/* Handshake on the stream's descriptors, at most TLS_HANDSHAKE_MS, and put TLS under it. Input that
 * was read before the handshake must be gone: -1 with ERR_PROTOCOL when the stream has any buffered
 * (catalogue B1, B3). On -1 the connection is to be closed.
 * host: sent as SNI unless it is an address literal. */
int tls_connect(struct tls_client *client, struct stream *s, const char *host, struct tls **tls_r,
                struct err *e);
/* "TLSv1.3 TLS_AES_256_GCM_SHA384": for logs and Received. */
const char *tls_version(const struct tls *t);
const char *tls_cipher(const struct tls *t);
int tls_bits(const struct tls *t);
/* Send close_notify, waiting at most wait_ms for room; for a process that ends now, and its memory
 * with it. */
void tls_end(struct tls *t, int wait_ms);
/* Send close_notify if it can be done at once, and free. The stream is plain again, and broken. */
void tls_close(struct tls *t, struct stream *s);
