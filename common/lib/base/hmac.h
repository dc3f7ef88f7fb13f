/*
 * hmac: HMAC-SHA-256 (RFC 2104), for what a process gives away and must know again.
 */
#pragma once
#include "lib/base/sha256.h"
#include <stdbool.h>

enum { HMAC_KEY = 32, HMAC_BYTES = SHA256_BYTES };

void hmac_sha256(const unsigned char key[HMAC_KEY], struct str data,
                 unsigned char mac_r[HMAC_BYTES]);
/* Compare in constant time. */
bool hmac_same(const unsigned char *a, const unsigned char *b);
