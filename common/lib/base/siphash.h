/*
 * siphash: SipHash-2-4, for hash tables whose keys strangers choose and for short authenticators.
 */
#pragma once
#include "lib/base/str.h"

struct sipkey {
    unsigned char b[16];
};
uint64_t siphash(const struct sipkey *key, struct str s);
