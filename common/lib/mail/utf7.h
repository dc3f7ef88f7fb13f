/*
 * utf7: names of mailboxes in modified UTF-7 (RFC 9051 A.1), as they lie on disk and as clients
 * know them that have not enabled UTF-8; to UTF-8 and back.
 *
 * Used by the imapd cell. The names are a stranger's. One name in UTF-8 has one form here: what is
 * in another form (a printable character that is encoded, a superfluous shift, half a surrogate,
 * bits left over) does not decode.
 */
#pragma once
#include "lib/base/buf.h"

/* To UTF-8. -1: not in the one form. Then out is as it was. */
int utf7_decode(struct buf *out, struct str name);
/* From UTF-8. -1: not UTF-8, or with a control character, which no name has (RFC 5198 2). */
int utf7_encode(struct buf *out, struct str utf8);
