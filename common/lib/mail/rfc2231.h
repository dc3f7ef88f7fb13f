/*
 * rfc2231: parameter values that come in sections, joined (RFC 2231 3 and 4.1).
 *
 * Used by mime, on the parameters of one field: at most MIME_PARAMS_MAX, a stranger's. title*0,
 * title*1, ... become title; if one of them is encoded (title*0*), title* with its charset and
 * language in front, all of it encoded, which is a client's to decode (RFC 2231 6). What has no
 * section 0, or lies behind a gap, stays as it is.
 */
#pragma once
#include "lib/mail/mime.h"

/* In place; texts made go into the arena. How many there are now; SIZE_MAX: the arena is full. */
size_t rfc2231_join(struct mime_param *params, size_t n, struct arena *arena);
