/*
 * plain: the SASL mechanism PLAIN (RFC 4616), the server's side: the one message a client sends.
 *
 * Used by submitd and the fronts of imapd and pop3d. The text is a stranger's. An authorization
 * identity other than the user is refused (catalogue F1). Initial response, continuation and '*'
 * are the caller's business: each protocol frames them in its own way.
 *
 * The strings point into the decoded bytes, which are secret: sasl_plain_wipe() on every way out.
 */
#pragma once
#include "lib/base/buf.h"
#include "lib/base/err.h"

enum {
    SASL_USER_MAX = 320,
    SASL_PASSWORD_MAX = 1024,
    SASL_PLAIN_MAX = 2 * SASL_USER_MAX + SASL_PASSWORD_MAX + 2,
};

struct sasl_plain {
    struct buf decoded;
    struct str user;
    struct str password;
};

/* response: base64, without line end. ERR_PROTOCOL: not base64, or not a PLAIN message; ERR_LIMIT:
 * too long; ERR_PERMANENT: the authorization identity is somebody else. r is wiped on -1. */
int sasl_plain_decode(struct str response, struct sasl_plain *r, struct err *e);
void sasl_plain_wipe(struct sasl_plain *r);
