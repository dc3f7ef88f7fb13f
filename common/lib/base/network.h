/*
 * network: an Internet address, or all that share its first bits (RFC 4632, RFC 4291 2.3).
 *
 * IPv4 is held as IPv6 does it (::ffff:192.0.2.1), so that a client is the same whichever socket it
 * came by.
 */
#pragma once
#include "lib/base/str.h"

struct network {
    unsigned char address[16];
    unsigned bits; /* of 128 */
};

/* "192.0.2.0/24", "2001:db8::/32", or a single address. False when it is none, or has bits set
 * beyond its length. */
bool network_parse(struct network *n_r, struct str text);
/* Whether a single address, as text, is in it; false too when the text is none. */
bool network_has(const struct network *n, struct str address);
