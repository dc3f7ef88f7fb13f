/*
 * encode: base64 (RFC 4648), xtext (RFC 3461 4), hexadecimal, and the one quoting for logs.
 *
 * Decoders take whole input and a buf whose maximum is the ceiling; they accept canonical forms
 * only.
 */
#pragma once
#include "lib/base/buf.h"

void base64_encode(struct buf *out, struct str in);
/* Strict: no white space, length a multiple of 4, padding only at the end, unused bits zero.
 * -1 when malformed or out is full. */
int base64_decode(struct buf *out, struct str in);
void hex_encode(struct buf *out, struct str in);
void xtext_encode(struct buf *out, struct str in);
/* -1 when malformed, or when it decodes to a control character (RFC 3461 4, catalogue H11). */
int xtext_decode(struct buf *out, struct str in);
/* in with every byte outside printable ASCII, and the backslash, as \xNN; cut to max input bytes
 * with "..." behind. */
void quote_add(struct buf *out, struct str in, size_t max);
