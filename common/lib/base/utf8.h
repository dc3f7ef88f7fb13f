/*
 * utf8: one character at a time (RFC 3629). For text that str_utf8() accepts, and total for others.
 */
#pragma once
#include "lib/base/buf.h"
#include "lib/base/cursor.h"

/* The next character, taken; -1: the end, or what is none (nothing is taken then). */
int32_t utf8_take(struct cursor *c);
/* c is a scalar value. */
void utf8_put(struct buf *out, uint32_t c);
