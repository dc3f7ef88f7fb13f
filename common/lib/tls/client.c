#include "lib/tls/connection.h"
#include <arpa/inet.h>
#include <openssl/err.h>
#include <stdlib.h>

struct tls_client {
    SSL_CTX *ctx;
};

struct tls_client *
tls_client_new(struct err *e)
{
    if (tls_library_ready(e) < 0)
        return NULL;
    struct tls_client *client = calloc(1, sizeof *client);
    if (!client) {
        err_set(e, ERR_TEMPORARY, "out of memory");
        return NULL;
    }
    client->ctx = SSL_CTX_new(TLS_client_method());
    /* The alternative to a weak certificate here is no encryption at all (RFC 7435 3). */
    if (!client->ctx || !SSL_CTX_set_cipher_list(client->ctx, "DEFAULT@SECLEVEL=1")) {
        tls_library_error(e, ERR_TEMPORARY, "TLS client");
        tls_client_free(client);
        return NULL;
    }
    tls_profile(client->ctx);
    SSL_CTX_set_verify(client->ctx, SSL_VERIFY_NONE, NULL);
    tls_warm_up();
    return client;
}

void
tls_client_free(struct tls_client *client)
{
    if (client)
        SSL_CTX_free(client->ctx);
    free(client);
}

/* RFC 6066 3: literal addresses are not sent. */
static bool
is_address(const char *host)
{
    unsigned char raw[16];
    return inet_pton(AF_INET, host, raw) == 1 || inet_pton(AF_INET6, host, raw) == 1;
}

int
tls_connect(struct tls_client *client, struct stream *s, const char *host, struct tls **tls_r,
            struct err *e)
{
    const char *sni = host && *host && !is_address(host) ? host : NULL;
    return tls_handshake(client->ctx, false, sni, s, tls_r, e);
}
