/*
 * keys: the private keys and certificate chains that keyd holds.
 *
 * keyd only. The files are the operator's: opened by master, given as descriptors "dir.key0" and
 * "dir.chain0" and so on, read once and closed. Private parts live in OpenSSL's secure heap, which
 * is locked in memory where the system allows it and never in a core file. A key that does not
 * belong to its certificate, is encrypted, or is neither RSA nor ECDSA is an error at start.
 */
#pragma once
#include "lib/base/buf.h"
#include "lib/base/err.h"
#include "lib/role/start.h"
#include <openssl/evp.h>

enum { KEYD_FILE_MAX = 60000, KEYD_HEAP = 512 * 1024 };

struct keyd_key {
    EVP_PKEY *pkey;
    unsigned fronts;  /* whose clients it is for: no other's session is served with it */
    struct buf chain; /* PEM */
    char name[80];    /* of its certificate, quoted */
    int64_t end_s;    /* when that expires, by the wall clock */
    unsigned told;    /* how far the operator was warned: see expiry.h */
};

struct keyd_keys {
    struct keyd_key at[CONF_KEYS_MAX];
    uint32_t n;
};

/* Sets the secure heap up and loads OpenSSL whole: before the role is entered. */
int keyd_keys_prepare(struct err *e);
/* Read all "dir.keyN" with their chains, in the order of the configuration; closes them. -1 names
 * the one that is wrong. */
int keyd_keys_load(struct keyd_keys *keys, const struct start *st, const struct conf *conf,
                   struct err *e);
/* keyd -t, for bulkhead(8): whether a key and its certificates could be used. 0, or 78 after
 * printing why not, behind the name. */
int keyd_keys_try(int key_fd, int chain_fd, const char *name);
/* Add one, for these fronts; the descriptors stay the caller's. */
int keyd_keys_add(struct keyd_keys *keys, int key_fd, int chain_fd, unsigned fronts, struct err *e);
/* Key index of those that are for this front, or NULL; *keys_r is how many there are. */
struct keyd_key *keyd_keys_of(struct keyd_keys *keys, enum role front, uint32_t index,
                              uint32_t *keys_r);
void keyd_keys_free(struct keyd_keys *keys);
