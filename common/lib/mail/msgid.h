/*
 * msgid: the message identifiers of a Message-ID, In-Reply-To or References field (RFC 5322 3.6.4),
 * in the one form in which equal ones are equal bytes (RFC 5256 3, REFERENCES (1)).
 *
 * Used by the imapd cell. The text is a stranger's; what is no identifier is passed over, in one
 * pass.
 *
 * Limit: MSGID_MAX bytes; a longer one is none.
 */
#pragma once
#include "lib/base/cursor.h"

enum { MSGID_MAX = 998 };

struct msgid {
    char p[MSGID_MAX];
    size_t n; /* without "<>", quotes, blanks and comments */
};
/* The next one; false: no more. */
bool msgid_next(struct cursor *c, struct msgid *id_r);
