/*
 * siphash: SipHash-2-4, for hash tables whose keys strangers choose and for short authenticators.
 */
#pragma once
#include "lib/base/str.h"

struct sipkey {
    unsigned char b[16];
};
uint64_t siphash(const struct sipkey *key, struct str s);

/* The same, of a text that comes in pieces. */
struct siphash {
    uint64_t v0, v1, v2, v3;
    uint64_t n;            /* bytes so far */
    unsigned char last[8]; /* n % 8 of them, not taken in yet */
};
struct siphash siphash_begin(const struct sipkey *key);
void siphash_add(struct siphash *h, struct str piece);
uint64_t siphash_end(struct siphash *h);
