/*
 * sign: what keyd does with a key for tlsd, and what it refuses to do.
 *
 * keyd only. What is to be signed comes from a process that may be taken over. It gets signatures
 * of the shapes TLS needs and no others: a PKCS #1 DigestInfo of SHA-2, a block padded as PSS, or a
 * digest for ECDSA. Nothing is ever decrypted. Too many questions are refused for a while
 * (KEYD_RATE a second, KEYD_BURST at once).
 */
#pragma once
#include "keyd/keys.h"
#include "lib/ipc/message.h"

enum { KEYD_RATE = 2000, KEYD_BURST = 4000 };

struct keyd_usage {
    uint64_t signed_n, refused_n;
    int64_t tokens_milli; /* thousandths of a signature */
    int64_t filled_ms;
};

struct loop;
struct keyd {
    struct loop *loop;
    struct keyd_keys keys;
    struct keyd_usage usage;
};

/* ERR_PERMANENT: the wrong shape for this key. */
int keyd_sign(const struct keyd_key *key, enum key_how how, struct str data, struct buf *out,
              struct err *e);
/* Take one signature from the allowance; false when there is none. */
bool keyd_allow(struct keyd *k, int64_t at_ms);
/* Answer request m of a role, by its door for this front, into reply: only keys of that front exist
 * there; -1 with e for FAILED (e->class ERR_PROTOCOL: the peer
 * broke the rules and is to be closed). */
int keyd_answer(struct keyd *k, enum role from, enum role front, struct msg *m, struct msg *reply,
                struct err *e);
