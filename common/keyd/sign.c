#include "keyd/sign.h"
#include "lib/base/clock.h"
#include "lib/log/log.h"
#include <openssl/err.h>
#include <openssl/rsa.h>

/* DER heads of DigestInfo (RFC 8017 9.2, note 1) with the length of the digest behind them. */
static const struct {
    struct str head;
    size_t digest;
} infos[] = {
    {{"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20", 19}, 32},
    {{"\x30\x41\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\x04\x30", 19}, 48},
    {{"\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\x04\x40", 19}, 64},
};

static bool
is_digest_info(struct str data)
{
    for (size_t i = 0; i < sizeof infos / sizeof infos[0]; i++)
        if (str_starts(data, infos[i].head) && data.n == infos[i].head.n + infos[i].digest)
            return true;
    return false;
}

/* RFC 8017 9.1.1: the last byte is 0xbc, and the bits above the block's length are zero. */
static bool
is_pss_block(struct str data, const EVP_PKEY *pkey)
{
    size_t bits = (size_t)EVP_PKEY_get_bits(pkey);
    if (data.n == 0 || data.n != (bits + 7) / 8 || (unsigned char)data.p[data.n - 1] != 0xbc)
        return false;
    size_t used = (bits - 1) % 8; /* of the first byte; 0: the whole byte is zero */
    return (unsigned char)data.p[0] >> used == 0;
}

static bool
is_digest(struct str data)
{
    return data.n == 32 || data.n == 48 || data.n == 64;
}

/* The padding to sign with, 0 for ECDSA; -1 when how and data do not fit the key. */
static int
check_shape(const struct keyd_key *key, enum key_how how, struct str data, struct err *e)
{
    bool rsa = EVP_PKEY_get_base_id(key->pkey) == EVP_PKEY_RSA;
    if (how == KEY_ECDSA && !rsa && is_digest(data))
        return 0;
    if (how == KEY_RSA_PKCS1 && rsa && is_digest_info(data))
        return RSA_PKCS1_PADDING;
    if (how == KEY_RSA_RAW && rsa && is_pss_block(data, key->pkey))
        return RSA_NO_PADDING;
    return err_set(e, ERR_PERMANENT, "not something this key signs (how %d, %zu bytes)", (int)how,
                   data.n);
}

int
keyd_sign(const struct keyd_key *key, enum key_how how, struct str data, struct buf *out,
          struct err *e)
{
    int padding = check_shape(key, how, data, e);
    if (padding < 0)
        return -1;
    size_t n = (size_t)EVP_PKEY_get_size(key->pkey);
    unsigned char *to = (unsigned char *)buf_reserve(out, n);
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(key->pkey, NULL);
    ERR_clear_error();
    int ok = ctx && to && EVP_PKEY_sign_init(ctx) > 0 &&
             (padding == 0 || EVP_PKEY_CTX_set_rsa_padding(ctx, padding) > 0) &&
             EVP_PKEY_sign(ctx, to, &n, (const unsigned char *)data.p, data.n) > 0;
    EVP_PKEY_CTX_free(ctx);
    ERR_clear_error();
    if (!ok)
        return err_set(e, ERR_TEMPORARY, "signing failed");
    buf_commit(out, n);
    return 0;
}

bool
keyd_allow(struct keyd *k, int64_t at_ms)
{
    struct keyd_usage *u = &k->usage;
    const int64_t full = (int64_t)KEYD_BURST * 1000;
    if (u->filled_ms == 0)
        u->tokens_milli = full;
    else if (at_ms > u->filled_ms) {
        int64_t gone = at_ms - u->filled_ms < 10000 ? at_ms - u->filled_ms : 10000;
        u->tokens_milli += gone * KEYD_RATE;
    }
    if (u->tokens_milli > full)
        u->tokens_milli = full;
    u->filled_ms = at_ms;
    if (u->tokens_milli < 1000)
        return false;
    u->tokens_milli -= 1000;
    return true;
}

static const struct keyd_key *
find_key(struct keyd *k, enum role front, uint32_t index, uint32_t *keys_r, struct err *e)
{
    const struct keyd_key *key = keyd_keys_of(&k->keys, front, index, keys_r);
    if (!key)
        err_set(e, ERR_PERMANENT, "no key %u for %s, of %u", index, role_name(front), *keys_r);
    return key;
}

static int
answer_chain(struct keyd *k, enum role front, struct msg *m, struct msg *reply, struct err *e)
{
    uint32_t index = msg_get_u32(m), keys;
    if (!msg_end(m))
        return err_set(e, ERR_PROTOCOL, "bad KEY_CHAIN");
    const struct keyd_key *key = find_key(k, front, index, &keys, e);
    if (!key)
        return -1;
    msg_begin(reply, M_KEY_CHAIN_IS);
    msg_put_u32(reply, keys);
    msg_put_str(reply, buf_str(&key->chain));
    return 0;
}

static int
answer_sign(struct keyd *k, enum role front, struct msg *m, struct msg *reply, struct err *e)
{
    uint32_t index = msg_get_u32(m), how = msg_get_u32(m), keys;
    struct str data = msg_get_str(m);
    struct buf out = buf_new(2048);
    if (!msg_end(m))
        return err_set(e, ERR_PROTOCOL, "bad KEY_SIGN");
    const struct keyd_key *key = find_key(k, front, index, &keys, e);
    if (!key)
        return -1;
    if (!keyd_allow(k, now_ms()))
        return err_set(e, ERR_LIMIT, "more than %d signatures a second", KEYD_RATE);
    int r = keyd_sign(key, (enum key_how)how, data, &out, e);
    if (r == 0) {
        k->usage.signed_n++;
        msg_begin(reply, M_KEY_SIGNED);
        msg_put_str(reply, buf_str(&out));
    }
    buf_free(&out);
    return r;
}

/* For the operator: names and dates, nothing of the keys. */
static int
answer_dates(const struct keyd *k, struct msg *m, struct msg *reply, struct err *e)
{
    if (!msg_end(m))
        return err_set(e, ERR_PROTOCOL, "bad KEY_DATES");
    msg_begin(reply, M_KEY_DATES_ARE);
    msg_put_u32(reply, k->keys.n);
    for (uint32_t i = 0; i < k->keys.n; i++) {
        msg_put_str(reply, str_z(k->keys.at[i].name));
        msg_put_u64(reply, (uint64_t)k->keys.at[i].end_s);
    }
    return 0;
}

int
keyd_answer(struct keyd *k, enum role from, enum role front, struct msg *m, struct msg *reply,
            struct err *e)
{
    int r = -1;
    if (m->type == M_KEY_CHAIN)
        r = answer_chain(k, front, m, reply, e);
    else if (m->type == M_KEY_SIGN)
        r = answer_sign(k, front, m, reply, e);
    else if (m->type == M_KEY_DATES)
        r = answer_dates(k, m, reply, e);
    else
        err_set(e, ERR_PROTOCOL, "not a question for keyd");
    if (r < 0) {
        struct keyd_usage *u = &k->usage;
        u->refused_n++;
        /* A taken front must not fill the log: the first ten, and then each 1000th. */
        if (u->refused_n <= 10 || u->refused_n % 1000 == 0)
            log_warn("refused %s for %s: %s (%llu refused, %llu signed)", role_name(from),
                     role_name(front), e->text, (unsigned long long)u->refused_n,
                     (unsigned long long)u->signed_n);
    }
    return r;
}
