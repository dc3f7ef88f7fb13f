/*
 * bodytext: transfer encodings and charsets undone, as far as SEARCH needs (RFC 2045 6, RFC 2047).
 *
 * Used by the imapd cell. Lenient: what does not decode stays as it is. Charsets known are UTF-8,
 * US-ASCII, ISO-8859-1, -15 and windows-1252; text in others is passed through as it is. Output is
 * bounded by its buf; every step takes input (catalogue H17).
 */
#pragma once
#include "lib/base/buf.h"

/* Decode by the name of a Content-Transfer-Encoding; unknown ones: a copy. */
void bodytext_decode(struct buf *out, struct str in, struct str encoding);
void bodytext_base64(struct buf *out, struct str in);
void bodytext_quoted_printable(struct buf *out, struct str in);
/* Two hexadecimal digits behind the byte at i, "=XY" or "%XY"; false: what is there is none. */
bool bodytext_hex_pair(struct str in, size_t i, char *byte_r);
/* To UTF-8. */
void bodytext_utf8(struct buf *out, struct str in, struct str charset);
/* A header value unfolded and its encoded words decoded to UTF-8. */
void bodytext_header(struct buf *out, struct str value);
