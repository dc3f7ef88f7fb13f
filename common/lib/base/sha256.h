/*
 * sha256: SHA-256 (FIPS 180-4), for names that follow from content in processes without OpenSSL.
 * Not for secrets.
 */
#pragma once
#include "lib/base/str.h"

enum { SHA256_BYTES = 32 };

struct sha256 {
    uint32_t h[8];
    uint64_t n; /* bytes so far */
    unsigned char block[64];
};
void sha256_begin(struct sha256 *s);
void sha256_add(struct sha256 *s, struct str data);
void sha256_end(struct sha256 *s, unsigned char digest_r[SHA256_BYTES]);
