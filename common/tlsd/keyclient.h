/*
 * keyclient: how tlsd uses private keys it does not have.
 *
 * Used by server.c only. The chains come from keyd at start; what a handshake needs signed goes
 * to keyd over a channel that is opened at the first signature and closed after the handshake. keyd
 * is trusted; still its answers are bounded (KEYCLIENT_CHAIN_MAX) and parsed by OpenSSL.
 *
 * The struct is the owner's, and must outlive the stand-in keys made from it.
 */
#pragma once
#include "lib/ipc/remote.h"
#include <openssl/evp.h>
#include <openssl/x509.h>

enum { KEYCLIENT_CHAIN_MAX = 60000, KEYCLIENT_SIGNATURE_MAX = 2048, KEYCLIENT_ASK_MS = 10000 };

struct keyclient {
    struct remote keyd;
    struct err why; /* the last refusal: OpenSSL has no place for its text */
};

/* What hangs on a stand-in key: whom to ask for which. */
struct keyclient_key {
    struct keyclient *client;
    uint32_t index;
};

/* By the door for this front: of its keys alone. */
void keyclient_init(struct keyclient *k, const struct start *start, enum role front);
/* Idempotent; the next question opens a new channel. */
void keyclient_close(struct keyclient *k);
/* The PEM chain of key index, appended to pem; *keys_r is how many keys there are. */
int keyclient_chain(struct keyclient *k, uint32_t index, uint32_t *keys_r, struct buf *pem,
                    struct err *e);
int keyclient_sign(struct keyclient *k, uint32_t index, enum key_how how, struct str data,
                   struct buf *signature, struct err *e);
/* A key that holds the public part of cert and signs through key->client. NULL with e: not RSA and
 * not ECDSA, or no memory. key must outlive it. */
EVP_PKEY *keyclient_stand_in(struct keyclient_key *key, X509 *cert, struct err *e);
