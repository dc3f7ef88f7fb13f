/*
 * address: a mail address as SMTP writes it (RFC 5321 4.1.2, Mailbox and Path), in one normal form.
 *
 * Used by smtpd, submitd, sendmail, authd, local and qmgr. The text is a stranger's. What is
 * accepted is the strict grammar only: a dot-string or quoted local part, a domain of letters,
 * digits and hyphens or an IPv4 or IPv6 address literal; no source route, no comment, no byte above
 * 0x7e (SMTPUTF8 is not offered). Everything not shown to be an address is refused.
 *
 * Normal form: a quoted local part that needs no quotes loses them (and needless backslashes), the
 * domain is in lower case. Two addresses are the same when their texts are (local parts keep their
 * case: RFC 5321 2.4; authd decides about our own).
 *
 * Limits: RFC 5321 4.5.3.1. The struct holds its own text and may be copied.
 */
#pragma once
#include "lib/base/cursor.h"
#include "lib/base/err.h"

enum {
    ADDRESS_LOCAL_MAX = 64,   /* RFC 5321 4.5.3.1.1 */
    ADDRESS_DOMAIN_MAX = 255, /* 4.5.3.1.2 */
    ADDRESS_MAX = 254,        /* 4.5.3.1.3: 256 with the brackets */
};

struct address {
    char text[ADDRESS_MAX + 1]; /* local@domain, ends with a NUL */
    size_t n;
    size_t local_n; /* text[local_n] is the '@' */
    bool quoted;    /* the local part is still a quoted string */
    bool literal;   /* the domain is an address literal */
};

/* A whole Mailbox, without brackets. On -1 (ERR_PERMANENT, ERR_LIMIT: too long) nothing is kept. */
int address_parse(struct str s, struct address *a_r, struct err *e);
/* The longest piece at the cursor that can be a Local-part: taken as written, or empty. */
struct str address_take_local(struct cursor *c);
/* local (any bytes but controls, quoted here when needed) and domain put together and checked. */
int address_make(struct str local, struct str domain, struct address *a_r, struct err *e);
/* A domain of letters, digits and hyphens, labels of 1 to 63 (RFC 5321 4.1.2 Domain). */
bool address_is_domain(struct str s);
/* "[192.0.2.1]" or "[IPv6:2001:db8::1]". */
bool address_is_literal(struct str s);

static inline struct str
address_str(const struct address *a)
{
    return str_of(a->text, a->n);
}
static inline struct str
address_local(const struct address *a)
{
    return str_of(a->text, a->local_n);
}
static inline struct str
address_domain(const struct address *a)
{
    return str_of(a->text + a->local_n + 1, a->n - a->local_n - 1);
}
/* The local part without quotes and backslashes; out holds it, and needs ADDRESS_LOCAL_MAX bytes.
 */
struct str address_local_value(const struct address *a, char *out);
/* Whether the local part holds what old mailers took for a route: % ! @ / | (catalogue H2). */
bool address_is_routed(const struct address *a);
/* Split "user+detail" at the first delimiter (one character; empty: never) behind the first byte.
 * detail_r is empty when there is none. */
void address_split(struct str local, struct str delimiter, struct str *user_r,
                   struct str *detail_r);
