#include "keyd/keys.h"
#include "keyd/expiry.h"
#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <unistd.h>

static int
library_error(struct err *e, const char *what)
{
    unsigned long code = ERR_get_error();
    const char *why = code ? ERR_reason_error_string(code) : NULL;
    ERR_clear_error();
    return err_set(e, ERR_PERMANENT, "%s: %s", what, why ? why : "not usable");
}

int
keyd_keys_prepare(struct err *e)
{
    unsigned char byte;
    /* openssl.cnf is not ours: what it says must not change what we do. */
    if (!OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_LOAD_CRYPTO_STRINGS, NULL) ||
        RAND_bytes(&byte, 1) != 1)
        return library_error(e, "OpenSSL");
    if (!CRYPTO_secure_malloc_initialized() && CRYPTO_secure_malloc_init(KEYD_HEAP, 32) == 0)
        return err_set(e, ERR_TEMPORARY, "no memory for the keys");
    /* Algorithms are found when they are first used; do it while that is still easy. The keys are
     * thrown away: a small one, since handshakes of all services wait for our start. */
    EVP_PKEY *rsa = EVP_RSA_gen(512), *ec = EVP_EC_gen("P-256");
    int ok = rsa && ec;
    EVP_PKEY_free(rsa);
    EVP_PKEY_free(ec);
    return ok ? 0 : library_error(e, "OpenSSL");
}

/* The whole file into place (of KEYD_FILE_MAX bytes): its size, or -1. */
static ssize_t
read_file(int fd, char *place, struct err *e)
{
    size_t n = 0;
    while (n < KEYD_FILE_MAX) {
        ssize_t got = pread(fd, place + n, KEYD_FILE_MAX - n, (off_t)n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_errno(e, "read");
        if (got == 0)
            return (ssize_t)n;
        n += (size_t)got;
    }
    return err_set(e, ERR_PERMANENT, "larger than %d bytes", KEYD_FILE_MAX);
}

/* Nobody is there to type a pass phrase. */
static int
no_pass_phrase(char *place, int size, int writing, void *arg)
{
    (void)place, (void)size, (void)writing, (void)arg;
    return -1;
}

static EVP_PKEY *
read_key(int fd, struct err *e)
{
    EVP_PKEY *pkey = NULL;
    char *place = OPENSSL_secure_malloc(KEYD_FILE_MAX);
    if (!place) {
        err_set(e, ERR_TEMPORARY, "no locked memory left");
        return NULL;
    }
    ssize_t n = read_file(fd, place, e);
    if (n >= 0) {
        BIO *bio = BIO_new_mem_buf(place, (int)n);
        pkey = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_pass_phrase, NULL) : NULL;
        BIO_free(bio);
        if (!pkey)
            library_error(e, "not an unencrypted PEM private key");
    }
    OPENSSL_secure_clear_free(place, KEYD_FILE_MAX);
    return pkey;
}

static X509 *
first_certificate(struct str pem, struct err *e)
{
    BIO *bio = BIO_new_mem_buf(pem.p, (int)pem.n);
    X509 *cert = bio ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;
    BIO_free(bio);
    if (!cert)
        library_error(e, "not a PEM certificate");
    return cert;
}

static int
read_chain(int fd, struct keyd_key *k, struct err *e)
{
    struct buf *chain = &k->chain;
    *chain = buf_new(KEYD_FILE_MAX);
    char *to = buf_reserve(chain, KEYD_FILE_MAX);
    if (!to)
        return err_set(e, ERR_TEMPORARY, "out of memory");
    ssize_t n = read_file(fd, to, e);
    if (n < 0)
        return -1;
    buf_commit(chain, (size_t)n);
    X509 *cert = first_certificate(buf_str(chain), e);
    if (!cert)
        return -1;
    int match = X509_check_private_key(cert, k->pkey);
    int dated = expiry_read(k, cert);
    X509_free(cert);
    ERR_clear_error();
    if (match == 1 && dated < 0)
        return err_set(e, ERR_PERMANENT, "the certificate has no date of expiry");
    return match == 1
               ? 0
               : err_set(e, ERR_PERMANENT, "the certificate does not belong to the private key");
}

/* A key and its certificates into an empty k, which is empty again after an error. */
static int
read_pair(struct keyd_key *k, int key_fd, int chain_fd, struct err *e)
{
    k->pkey = read_key(key_fd, e);
    if (!k->pkey)
        return -1;
    int kind = EVP_PKEY_get_base_id(k->pkey);
    int r = 0;
    if (kind != EVP_PKEY_RSA && kind != EVP_PKEY_EC)
        r = err_set(e, ERR_PERMANENT, "neither RSA nor ECDSA");
    else
        r = read_chain(chain_fd, k, e);
    if (r == 0)
        return 0;
    EVP_PKEY_free(k->pkey);
    buf_free(&k->chain);
    *k = (struct keyd_key){0};
    return -1;
}

int
keyd_keys_add(struct keyd_keys *keys, int key_fd, int chain_fd, unsigned fronts, struct err *e)
{
    struct err why = {0};
    if (keys->n == CONF_KEYS_MAX)
        return err_set(e, ERR_LIMIT, "more than %d keys", CONF_KEYS_MAX);
    struct keyd_key *k = &keys->at[keys->n];
    if (read_pair(k, key_fd, chain_fd, &why) < 0)
        return err_set(e, why.class, "key %u: %s", keys->n, why.text);
    k->fronts = fronts;
    keys->n++;
    return 0;
}

int
keyd_keys_try(int key_fd, int chain_fd, const char *name)
{
    struct keyd_key k = {0};
    struct err e = {0};
    if (keyd_keys_prepare(&e) == 0 && read_pair(&k, key_fd, chain_fd, &e) == 0) {
        EVP_PKEY_free(k.pkey);
        buf_free(&k.chain);
        return 0;
    }
    fprintf(stderr, "%s: %s\n", name, e.text);
    return 78; /* EX_CONFIG */
}

int
keyd_keys_load(struct keyd_keys *keys, const struct start *st, const struct conf *conf,
               struct err *e)
{
    for (unsigned i = 0; i < CONF_KEYS_MAX; i++) {
        char key[32], chain[32];
        snprintf(key, sizeof key, "dir.key%u", i);
        snprintf(chain, sizeof chain, "dir.chain%u", i);
        int key_fd = start_fd(st, key), chain_fd = start_fd(st, chain);
        if (key_fd < 0 && chain_fd < 0)
            break;
        if (key_fd < 0 || chain_fd < 0)
            return err_set(e, ERR_PERMANENT, "key %u: key or certificate not given", i);
        int r = keyd_keys_add(keys, key_fd, chain_fd, conf->keys[i].fronts, e);
        close(key_fd);
        close(chain_fd);
        if (r < 0)
            return -1;
    }
    return 0;
}

struct keyd_key *
keyd_keys_of(struct keyd_keys *keys, enum role front, uint32_t index, uint32_t *keys_r)
{
    struct keyd_key *found = NULL;
    *keys_r = 0;
    for (uint32_t i = 0; i < keys->n; i++)
        if (keys->at[i].fronts & (unsigned)front) {
            if (*keys_r == index)
                found = &keys->at[i];
            ++*keys_r;
        }
    return found;
}

void
keyd_keys_free(struct keyd_keys *keys)
{
    for (uint32_t i = 0; i < keys->n; i++) {
        EVP_PKEY_free(keys->at[i].pkey);
        buf_free(&keys->at[i].chain);
    }
    *keys = (struct keyd_keys){0};
}
