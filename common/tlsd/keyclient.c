/* The method hooks are deprecated in OpenSSL 3.0, and are what it has for keys elsewhere. */
#define OPENSSL_API_COMPAT 0x10100000L
#include "tlsd/keyclient.h"
#include <openssl/ec.h>
#include <openssl/rsa.h>

static RSA_METHOD *rsa_method;
static EC_KEY_METHOD *ec_method;
static int rsa_slot = -1, ec_slot = -1;

void
keyclient_init(struct keyclient *k, const struct start *start, enum role front)
{
    *k = (struct keyclient){0};
    remote_init(&k->keyd, start, start->role, R_KEYD);
    k->keyd.front = front;
}

void
keyclient_close(struct keyclient *k)
{
    remote_close(&k->keyd);
}

int
keyclient_chain(struct keyclient *k, uint32_t index, uint32_t *keys_r, struct buf *pem,
                struct err *e)
{
    struct msg m = {0};
    msg_begin(&m, M_KEY_CHAIN);
    msg_put_u32(&m, index);
    int r = remote_ask(&k->keyd, &m, M_KEY_CHAIN_IS, KEYCLIENT_ASK_MS, e);
    if (r == 0) {
        *keys_r = msg_get_u32(&m);
        buf_add(pem, msg_get_str(&m));
        if (!msg_end(&m) || !buf_ok(pem))
            r = err_set(e, ERR_PROTOCOL, "keyd: bad chain");
    }
    msg_free(&m);
    return r;
}

int
keyclient_sign(struct keyclient *k, uint32_t index, enum key_how how, struct str data,
               struct buf *signature, struct err *e)
{
    struct msg m = {0};
    msg_begin(&m, M_KEY_SIGN);
    msg_put_u32(&m, index);
    msg_put_u32(&m, how);
    msg_put_str(&m, data);
    int r = remote_ask(&k->keyd, &m, M_KEY_SIGNED, KEYCLIENT_ASK_MS, e);
    if (r == 0) {
        buf_add(signature, msg_get_str(&m));
        if (!msg_end(&m) || !buf_ok(signature))
            r = err_set(e, ERR_PROTOCOL, "keyd: bad signature");
    }
    msg_free(&m);
    return r;
}

/* Sign into to, which has room bytes; how many were written, or -1. */
static int
sign_into(const struct keyclient_key *key, enum key_how how, const unsigned char *data, size_t n,
          unsigned char *to, size_t room)
{
    struct buf out = buf_new(KEYCLIENT_SIGNATURE_MAX);
    int got = -1;
    if (!key)
        return -1;
    if (keyclient_sign(key->client, key->index, how, str_of((const char *)data, n), &out,
                       &key->client->why) == 0 &&
        out.n > 0 && out.n <= room) {
        memcpy(to, out.p, out.n);
        got = (int)out.n;
    }
    buf_free(&out);
    return got;
}

static int
rsa_private_encrypt(int n, const unsigned char *from, unsigned char *to, RSA *rsa, int padding)
{
    size_t size = (size_t)RSA_size(rsa);
    enum key_how how = padding == RSA_NO_PADDING ? KEY_RSA_RAW : KEY_RSA_PKCS1;
    if (n < 0 || (padding != RSA_NO_PADDING && padding != RSA_PKCS1_PADDING))
        return -1;
    int got = sign_into(RSA_get_ex_data(rsa, rsa_slot), how, from, (size_t)n, to, size);
    return (size_t)got == size ? got : -1;
}

/* RSA key exchange is not offered, so nothing is ever to be decrypted. */
static int
rsa_private_decrypt(int n, const unsigned char *from, unsigned char *to, RSA *rsa, int padding)
{
    (void)n, (void)from, (void)to, (void)rsa, (void)padding;
    return -1;
}

static int
ec_sign(int type, const unsigned char *digest, int n, unsigned char *to, unsigned int *n_r,
        const BIGNUM *kinv, const BIGNUM *r, EC_KEY *ec)
{
    (void)type, (void)kinv, (void)r;
    int got = n < 0 ? -1
                    : sign_into(EC_KEY_get_ex_data(ec, ec_slot), KEY_ECDSA, digest, (size_t)n, to,
                                (size_t)ECDSA_size(ec));
    *n_r = got > 0 ? (unsigned)got : 0;
    return got > 0;
}

/* Once a process; the methods live as long as it does. */
static bool
methods_ready(void)
{
    if (rsa_method && ec_method)
        return true;
    rsa_slot = RSA_get_ex_new_index(0, NULL, NULL, NULL, NULL);
    ec_slot = EC_KEY_get_ex_new_index(0, NULL, NULL, NULL, NULL);
    rsa_method = RSA_meth_dup(RSA_PKCS1_OpenSSL());
    ec_method = EC_KEY_METHOD_new(EC_KEY_OpenSSL());
    if (rsa_slot < 0 || ec_slot < 0 || !rsa_method || !ec_method)
        return false;
    RSA_meth_set1_name(rsa_method, "key in keyd");
    RSA_meth_set_flags(rsa_method, RSA_METHOD_FLAG_NO_CHECK);
    RSA_meth_set_priv_enc(rsa_method, rsa_private_encrypt);
    RSA_meth_set_priv_dec(rsa_method, rsa_private_decrypt);
    EC_KEY_METHOD_set_sign(ec_method, ec_sign, NULL, NULL);
    return true;
}

static RSA *
rsa_stand_in(struct keyclient_key *key, EVP_PKEY *public)
{
    const BIGNUM *n = NULL, *exponent = NULL;
    const RSA *from = EVP_PKEY_get0_RSA(public);
    RSA *rsa = RSA_new();
    if (!from || !rsa)
        goto fail;
    RSA_get0_key(from, &n, &exponent, NULL);
    BIGNUM *own_n = BN_dup(n), *own_e = BN_dup(exponent);
    if (!RSA_set0_key(rsa, own_n, own_e, NULL)) {
        BN_free(own_n);
        BN_free(own_e);
        goto fail;
    }
    if (RSA_set_method(rsa, rsa_method) && RSA_set_ex_data(rsa, rsa_slot, key))
        return rsa;
fail:
    RSA_free(rsa);
    return NULL;
}

static EC_KEY *
ec_stand_in(struct keyclient_key *key, EVP_PKEY *public)
{
    const EC_KEY *from = EVP_PKEY_get0_EC_KEY(public);
    EC_KEY *ec = EC_KEY_new();
    if (from && ec && EC_KEY_set_group(ec, EC_KEY_get0_group(from)) &&
        EC_KEY_set_public_key(ec, EC_KEY_get0_public_key(from)) &&
        EC_KEY_set_method(ec, ec_method) && EC_KEY_set_ex_data(ec, ec_slot, key))
        return ec;
    EC_KEY_free(ec);
    return NULL;
}

EVP_PKEY *
keyclient_stand_in(struct keyclient_key *key, X509 *cert, struct err *e)
{
    EVP_PKEY *public = X509_get0_pubkey(cert), *pkey = EVP_PKEY_new();
    int kind = public ? EVP_PKEY_get_base_id(public) : 0;
    int done = 0;
    if (!pkey || !methods_ready()) {
        err_set(e, ERR_TEMPORARY, "no memory for a key");
    } else if (kind == EVP_PKEY_RSA) {
        RSA *rsa = rsa_stand_in(key, public);
        done = rsa && EVP_PKEY_assign_RSA(pkey, rsa);
        if (!done)
            RSA_free(rsa);
    } else if (kind == EVP_PKEY_EC) {
        EC_KEY *ec = ec_stand_in(key, public);
        done = ec && EVP_PKEY_assign_EC_KEY(pkey, ec);
        if (!done)
            EC_KEY_free(ec);
    }
    if (done)
        return pkey;
    err_set(e, ERR_PERMANENT, "the key of this certificate is neither RSA nor ECDSA");
    EVP_PKEY_free(pkey);
    return NULL;
}
