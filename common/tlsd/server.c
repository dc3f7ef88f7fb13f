#include "tlsd/server.h"
#include "lib/role/sockets.h"
#include "lib/tls/connection.h"
#include "tlsd/keyclient.h"
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdlib.h>

enum {
    KEYS_MAX = CONF_KEYS_MAX,
    CHAIN_CERTS_MAX = 10,
    TICKET_LIFE_S = 3600,
    TICKET_KEYS_BYTES = 80
};

static const char ciphers[] = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
                              "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
                              "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";
static const char suites[] =
    "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";

struct identity { /* one key with its chain */
    struct keyclient_key key;
    SSL_CTX *ctx;
};

struct tls_server {
    struct keyclient client;
    struct identity identities[KEYS_MAX];
    uint32_t n;
    struct str protocol;      /* for ALPN: "smtp", "imap", "pop3" */
    int64_t tickets_until_ms; /* then their keys are made anew */
};

static struct str
protocol_of(const char *service)
{
    struct str s = str_z(service);
    if (str_starts(s, STR("imap")))
        return STR("imap");
    if (str_starts(s, STR("pop3")))
        return STR("pop3");
    return STR("smtp");
}

/* RFC 6066 3: the identity whose certificate has the name; unknown names get the first. */
static int
choose_identity(SSL *ssl, int *alert, void *arg)
{
    struct tls_server *server = arg;
    const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    (void)alert;
    for (uint32_t i = 0; name && i < server->n; i++) {
        X509 *cert = SSL_CTX_get0_certificate(server->identities[i].ctx);
        if (X509_check_host(cert, name, strlen(name), 0, NULL) == 1) {
            SSL_set_SSL_CTX(ssl, server->identities[i].ctx);
            return SSL_TLSEXT_ERR_OK;
        }
    }
    return SSL_TLSEXT_ERR_OK;
}

/* A client that names protocols, and not ours, was meant for another server (catalogue B14). */
static int
choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *n_r, const unsigned char *in,
                unsigned n, void *arg)
{
    const struct tls_server *server = arg;
    (void)ssl;
    for (unsigned at = 0; at < n && in[at] < n - at; at += 1u + in[at]) {
        struct str offered = str_of((const char *)in + at + 1, in[at]);
        if (str_eq(offered, server->protocol)) {
            *out = in + at + 1;
            *n_r = in[at];
            return SSL_TLSEXT_ERR_OK;
        }
    }
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

static int
load_chain(SSL_CTX *ctx, struct str pem, struct err *e)
{
    BIO *bio = BIO_new_mem_buf(pem.p, (int)pem.n);
    int count = 0;
    X509 *cert;
    while (bio && count < CHAIN_CERTS_MAX && (cert = PEM_read_bio_X509(bio, NULL, NULL, NULL))) {
        long ok =
            count == 0 ? SSL_CTX_use_certificate(ctx, cert) : SSL_CTX_add1_chain_cert(ctx, cert);
        X509_free(cert);
        if (!ok)
            break;
        count++;
    }
    BIO_free(bio);
    if (count == 0)
        return tls_library_error(e, ERR_PERMANENT, "no usable certificate in the chain");
    ERR_clear_error(); /* the end of the PEM text is an error to OpenSSL */
    return 0;
}

static int
load_key(struct identity *id, struct err *e)
{
    EVP_PKEY *key = keyclient_stand_in(&id->key, SSL_CTX_get0_certificate(id->ctx), e);
    if (!key)
        return -1;
    int ok = SSL_CTX_use_PrivateKey(id->ctx, key);
    EVP_PKEY_free(key);
    return ok ? 0 : tls_library_error(e, ERR_PERMANENT, "certificate not usable");
}

static int
configure(struct tls_server *server, struct identity *id, const char *service, struct err *e)
{
    SSL_CTX *ctx = id->ctx = SSL_CTX_new(TLS_server_method());
    if (!ctx)
        return tls_library_error(e, ERR_TEMPORARY, "TLS server");
    tls_profile(ctx);
    SSL_CTX_set_timeout(ctx, TICKET_LIFE_S);
    SSL_CTX_set_tlsext_servername_callback(ctx, choose_identity);
    SSL_CTX_set_tlsext_servername_arg(ctx, server);
    SSL_CTX_set_alpn_select_cb(ctx, choose_protocol, server);
    /* A ticket of one service is worth nothing at another (catalogue B7). */
    if (!SSL_CTX_set_cipher_list(ctx, ciphers) || !SSL_CTX_set_ciphersuites(ctx, suites) ||
        !SSL_CTX_set_session_id_context(ctx, (const unsigned char *)service,
                                        (unsigned)strnlen(service, SSL_MAX_SID_CTX_LENGTH)) ||
        !SSL_CTX_set_num_tickets(ctx, 1) || !SSL_CTX_set_max_early_data(ctx, 0))
        return tls_library_error(e, ERR_TEMPORARY, "TLS server");
    return 0;
}

static int
load_identity(struct tls_server *server, uint32_t index, const char *service, struct err *e)
{
    struct identity *id = &server->identities[index];
    struct buf pem = buf_new(KEYCLIENT_CHAIN_MAX);
    uint32_t keys = 0;
    id->key = (struct keyclient_key){&server->client, index};
    int r = keyclient_chain(&server->client, index, &keys, &pem, e);
    if (r == 0)
        r = configure(server, id, service, e);
    if (r == 0)
        r = load_chain(id->ctx, buf_str(&pem), e);
    if (r == 0)
        r = load_key(id, e);
    if (index == 0)
        server->n = keys < KEYS_MAX ? keys : KEYS_MAX;
    buf_free(&pem);
    return r;
}

struct tls_server *
tls_server_new(const struct start *st, enum role front, struct err *e)
{
    const char *service = sockets_service_name(front, false);
    if (tls_library_ready(e) < 0)
        return NULL;
    struct tls_server *server = calloc(1, sizeof *server);
    if (!server) {
        err_set(e, ERR_TEMPORARY, "out of memory");
        return NULL;
    }
    keyclient_init(&server->client, st, front);
    server->protocol = protocol_of(service);
    server->n = 1;
    for (uint32_t i = 0; i < server->n; i++)
        if (load_identity(server, i, service, e) < 0)
            goto fail;
    if (server->n == 0) {
        err_set(e, ERR_PERMANENT, "keyd has no keys");
        goto fail;
    }
    keyclient_close(&server->client);
    tls_warm_up();
    return server;
fail:
    tls_server_free(server);
    return NULL;
}

void
tls_server_free(struct tls_server *server)
{
    if (!server)
        return;
    for (uint32_t i = 0; i < KEYS_MAX; i++)
        SSL_CTX_free(server->identities[i].ctx);
    keyclient_close(&server->client);
    free(server);
}

void
tls_server_renew_tickets(struct tls_server *server, int64_t at_ms)
{
    unsigned char keys[TICKET_KEYS_BYTES];
    if (at_ms < server->tickets_until_ms || RAND_priv_bytes(keys, sizeof keys) != 1)
        return;
    server->tickets_until_ms = at_ms + TICKET_KEYS_MS;
    for (uint32_t i = 0; i < server->n; i++)
        SSL_CTX_set_tlsext_ticket_keys(server->identities[i].ctx, keys, sizeof keys);
    explicit_bzero(keys, sizeof keys);
}

int
tls_server_accept(struct tls_server *server, struct stream *s, struct tls **tls_r, struct err *e)
{
    server->client.why = (struct err){0};
    int r = tls_handshake(server->identities[0].ctx, true, NULL, s, tls_r, e);
    if (r < 0 && server->client.why.text[0])
        err_set(e, ERR_TEMPORARY, "TLS handshake: keyd: %s", server->client.why.text);
    keyclient_close(&server->client);
    return r;
}
