/*
 * ehlo: the service extensions we know, as a set of bits, and their keywords in an EHLO reply.
 *
 * Servers write the list from it; relay and sendmail(1) read a stranger's list into it.
 */
#pragma once
#include "lib/smtp/reply.h"

enum smtp_extension {
    SMTP_PIPELINING = 1 << 0, /* RFC 2920 */
    SMTP_SIZE = 1 << 1,       /* RFC 1870 */
    SMTP_STARTTLS = 1 << 2,   /* RFC 3207 */
    SMTP_AUTH_PLAIN = 1 << 3, /* RFC 4954; written only with PLAIN */
    SMTP_ENHANCED = 1 << 4,   /* RFC 2034 */
    SMTP_8BITMIME = 1 << 5,   /* RFC 6152 */
    SMTP_DSN = 1 << 7,        /* RFC 3461 */
    SMTP_XQUEUE = 1 << 6,     /* ours, on the local socket: XQUEUE lists the queue */
};

/* The lines of an EHLO reply behind the first, '\n' before each. size_max belongs to SMTP_SIZE. */
void smtp_ehlo_put(struct buf *out, unsigned extensions, uint64_t size_max);
/* The set an EHLO reply offers; *size_max_r is 0 when there is no limit or none is said. */
unsigned smtp_ehlo_parse(const struct smtp_reply *r, uint64_t *size_max_r);
