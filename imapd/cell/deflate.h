/*
 * deflate: a connection on which all is compressed (RFC 4978), under a stream.
 *
 * What comes in is inflated only as far as the stream has room for it, so the ceilings of lines,
 * literals and commands hold for what was inflated: a small piece that would become large is read
 * like any large input, and refused like it (catalogue G22). Memory: about 300 KiB for both
 * directions.
 */
#pragma once
#include "lib/io/stream.h"

struct icell_deflate;
/* From here on s reads and writes compressed; what it holds already is taken for compressed. s is
 * to be flushed. */
int icell_deflate_begin(struct stream *s, struct icell_deflate **d_r, struct err *e);
/* Whether there is input that poll() cannot see. */
bool icell_deflate_pending(const struct icell_deflate *d);
void icell_deflate_free(struct icell_deflate *d); /* NULL is harmless */
