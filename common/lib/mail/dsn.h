/*
 * dsn: what a sender may ask for in the envelope of a message (RFC 3461 4): NOTIFY, ORCPT, RET and
 * ENVID.
 *
 * Used by the SMTP servers (they parse a stranger's parameters), lib/queue/qfile (which trusts no
 * session's word for it), relay and sendmail(1) (they write them) and qmgr (which does what they
 * say). ENVID and ORCPT are kept as they came, encoded: RFC 3461 5.2.1 has them passed on as they
 * are. What is accepted decodes to printable US-ASCII, so it can stand in a field of a report
 * (catalogue H11).
 *
 * Limits: RFC 3461 5.4.
 */
#pragma once
#include "lib/base/buf.h"

enum dsn_notify { /* a set; 0: nothing was asked, which means failures */
                  DSN_NEVER = 1 << 0,
                  DSN_SUCCESS = 1 << 1,
                  DSN_FAILURE = 1 << 2,
                  DSN_DELAY = 1 << 3,
                  DSN_NOTIFY_END = 1 << 4,
};
enum dsn_ret { DSN_RET_ANY, DSN_RET_FULL, DSN_RET_HDRS };
enum { DSN_ENVID_MAX = 100, DSN_ORCPT_MAX = 500, DSN_NOTIFY_MAX = 28 };

/* The values of the parameters, case ignored. -1: malformed. */
int dsn_notify_parse(struct str value, uint8_t *notify_r);
int dsn_ret_parse(struct str value, uint8_t *ret_r);
/* Whether it is one that those give: known bits, NEVER alone; 0 is fine. */
bool dsn_notify_ok(unsigned notify);
/* Encoded, not empty, within its length, and printable when decoded. */
bool dsn_envid_ok(struct str xtext);
bool dsn_orcpt_ok(struct str orcpt); /* "rfc822;" and an address */

/* "SUCCESS,DELAY"; "FULL" or "HDRS". */
void dsn_notify_put(struct buf *out, unsigned notify);
const char *dsn_ret_name(unsigned ret);
/* Decoded, for a report: of an ENVID, and of an ORCPT as "rfc822; address". Both must be ok. */
void dsn_envid_decode(struct buf *out, struct str xtext);
void dsn_orcpt_decode(struct buf *out, struct str orcpt);

/* What the sender wants to hear of (RFC 3461 5.2.3, 5.2.5, 5.2.6). */
static inline bool
dsn_wants_failure(unsigned notify)
{
    return notify == 0 || (notify & DSN_FAILURE);
}
static inline bool
dsn_wants_delay(unsigned notify)
{
    return notify == 0 || (notify & DSN_DELAY);
}
/* Of each of the addresses that an alias of several leads to (RFC 3461 5.2.7.3 (c)). */
unsigned dsn_notify_expanded(unsigned notify);
