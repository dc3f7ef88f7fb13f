/*
 * received: the Received field that smtpd and submitd put on top of a message (RFC 5321 4.4), and
 * the date of it (RFC 5322 3.3).
 *
 * What a stranger chose (the name after HELO) must have passed smtp_helo_ok().
 */
#pragma once
#include "lib/base/buf.h"

struct smtp_received {
    struct str helo;
    struct str ip; /* numeric; empty: a local user, named by uid */
    uid_t uid;
    bool esmtp, tls, auth; /* RFC 3848: SMTP, ESMTP, ESMTPS, ESMTPA, ESMTPSA */
    struct str tls_text;   /* "TLSv1.3 TLS_AES_256_GCM_SHA384" */
    struct str by;         /* our name */
    struct str id;
    int64_t when_s;
};

/* The whole field, folded, CR LF behind each line. */
void smtp_received_put(struct buf *out, const struct smtp_received *r);
/* "ESMTPSA" and so on. */
const char *smtp_protocol(bool esmtp, bool tls, bool auth);
/* "Sat, 21 Nov 2026 21:02:57 +0000" in local time; no locale is asked. */
void smtp_date_put(struct buf *out, int64_t when_s);
