/*
 * connection: one TLS connection under a stream: the part that server and client share.
 *
 * Private to common/lib/tls. OpenSSL reads the descriptors through a BIO of our own, which never
 * raises SIGPIPE and allows input and output on two descriptors. Errors are looked at through
 * SSL_get_error with an error queue that was empty before the call (catalogue B13).
 */
#pragma once
#include "lib/tls/tls.h"
#include <openssl/ssl.h>

struct tls {
    SSL *ssl;
    int fd_in, fd_out;
    bool eof;  /* the peer has closed the connection below TLS */
    bool dead; /* a fatal error: no close_notify */
    bool server;
    char version[16], cipher[64];
    int bits;
};

/* Everything that OpenSSL would do lazily (and with files) is done now, once a process. */
int tls_library_ready(struct err *e);
/* A handshake with ourselves, once a process: see warm.c. */
void tls_warm_up(void);
/* e from OpenSSL's error queue, with what in front. */
int tls_library_error(struct err *e, enum err_class class, const char *what);
/* Options that both sides have. */
void tls_profile(SSL_CTX *ctx);
/* A handshake on s; takes nothing over on -1. */
int tls_handshake(SSL_CTX *ctx, bool server, const char *sni, struct stream *s, struct tls **tls_r,
                  struct err *e);
