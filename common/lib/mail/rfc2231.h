/*
 * rfc2231: parameter values that come in sections, joined (RFC 2231 3 and 4.1).
 *
 * Used by mime, on the parameters of one field: at most MIME_PARAMS_MAX, a stranger's. title*0,
 * title*1, ... become title; if one of them is encoded (title*0*), title* with its charset and
 * language in front, all of it encoded: a client of IMAP4rev1 decodes it (RFC 2231 6), one of
 * IMAP4rev2 gets UTF-8 (RFC 9051 7.5.2). What has no section 0, or lies behind a gap, stays as it
 * is.
 */
#pragma once
#include "lib/base/buf.h"
#include "lib/mail/mime.h"

/* In place; texts made go into the arena. How many there are now; SIZE_MAX: the arena is full. */
size_t rfc2231_join(struct mime_param *params, size_t n, struct arena *arena);
/* The value of title* (charset'language'text, with %XX) in UTF-8, appended. -1, and nothing is: the
 * name does not end in "*", or the value is not of a charset that is known. */
int rfc2231_utf8(struct str name, struct str value, struct buf *out);
