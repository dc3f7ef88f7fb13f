#include "lib/tls/connection.h"
#include <openssl/err.h>
#include <openssl/x509.h>

/*
 * OpenSSL finds algorithms, seeds generators and builds tables when they are first used. After the
 * role is entered nothing can be opened any more, and a session that is forked from a listener
 * would do all of it again. So the listener talks TLS with itself once, with a key made for this
 * moment.
 */

static X509 *
self_signed(EVP_PKEY *key)
{
    X509 *cert = X509_new();
    if (cert && X509_set_version(cert, 2) && ASN1_INTEGER_set(X509_get_serialNumber(cert), 1) &&
        X509_gmtime_adj(X509_getm_notBefore(cert), 0) &&
        X509_gmtime_adj(X509_getm_notAfter(cert), 60) && X509_set_pubkey(cert, key) &&
        X509_sign(cert, key, EVP_sha256()))
        return cert;
    X509_free(cert);
    return NULL;
}

static void
talk(SSL_CTX *server_ctx, SSL_CTX *client_ctx, int version)
{
    SSL *server = SSL_new(server_ctx), *client = SSL_new(client_ctx);
    BIO *a = NULL, *b = NULL;
    char byte = 0;
    if (server && client && BIO_new_bio_pair(&a, 0, &b, 0)) {
        SSL_set_bio(server, a, a);
        SSL_set_bio(client, b, b);
        SSL_set_max_proto_version(client, version);
        SSL_set_accept_state(server);
        SSL_set_connect_state(client);
        for (int turn = 0; turn < 8; turn++) {
            SSL_do_handshake(client);
            SSL_do_handshake(server);
        }
        if (SSL_write(client, "x", 1) == 1)
            SSL_read(server, &byte, 1);
        if (SSL_write(server, "x", 1) == 1)
            SSL_read(client, &byte, 1);
    }
    SSL_free(server);
    SSL_free(client);
}

void
tls_warm_up(void)
{
    static bool done;
    if (done)
        return;
    done = true;
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = key ? self_signed(key) : NULL;
    SSL_CTX *server = SSL_CTX_new(TLS_server_method()), *client = SSL_CTX_new(TLS_client_method());
    if (cert && server && client && SSL_CTX_use_certificate(server, cert) &&
        SSL_CTX_use_PrivateKey(server, key)) {
        tls_profile(server);
        tls_profile(client);
        talk(server, client, TLS1_2_VERSION);
        talk(server, client, TLS1_3_VERSION);
    }
    SSL_CTX_free(server);
    SSL_CTX_free(client);
    X509_free(cert);
    EVP_PKEY_free(key);
    ERR_clear_error();
}
