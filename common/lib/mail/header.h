/*
 * header: the fields of a message's header, found without copying (RFC 5322 2.2, 3.6.8).
 *
 * Used wherever a message is looked into. The text is a stranger's; all is offsets into it. The
 * header ends at the first empty line, CRLF or LF alone; this file alone decides where (catalogue
 * A7). Lines in it that are no field and continue none are passed over.
 *
 * Limits, after which iteration ends and `over` is set: HEADER_FIELDS_MAX fields, HEADER_BLOCK_MAX
 * bytes; a field longer than HEADER_FIELD_MAX is given cut. The header's end is found in any case.
 */
#pragma once
#include "lib/base/buf.h"

enum {
    HEADER_FIELDS_MAX = 2000,
    HEADER_BLOCK_MAX = 256 * 1024,
    HEADER_FIELD_MAX = 64 * 1024,
};

struct header_field {
    struct str name;  /* without blanks before the colon */
    struct str value; /* behind the colon, folded as it is, without the last line end */
    struct str whole; /* all lines of the field with their ends; never cut */
};

struct header {
    struct str text; /* the header, without the empty line */
    size_t at;       /* where the next field begins */
    size_t fields;   /* given so far */
    bool over;
};

/* Offset of the body: just behind the empty line, or the end when there is none. */
size_t header_body(struct str message);
/* Iterate over the header of message (or over a header alone). */
struct header header_of(struct str message);
bool header_next(struct header *h, struct header_field *field_r);
/* The first field of this name (any case), counting from the top. */
bool header_find(struct str message, struct str name, struct header_field *field_r);
/* A value on one line: line ends before blanks removed, blanks trimmed at both ends. */
void header_unfold(struct buf *out, struct str value);
