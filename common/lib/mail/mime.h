/*
 * mime: the structure of a message (RFC 2045 to 2049, 2183), as a flat array of parts.
 *
 * Used by the imapd cell. One pass over the lines, a stack of open multiparts, no recursion. The
 * text is a stranger's: every text has a structure, and the same text always the same one. Part 0
 * is the whole message. Line ends may be CRLF or LF; offsets and sizes are those of the text given.
 *
 * What is malformed: a multipart without a usable boundary is text/plain; one in which the boundary
 * never comes has one empty part; a Content-Type that does not parse is the default of its place
 * (text/plain, or message/rfc822 in a digest). The inside of message/rfc822 and message/global is
 * parsed whatever its encoding says.
 *
 * Limits: MIME_DEPTH_MAX levels, MIME_PARTS_MAX parts: at the first, a multipart or message is not
 * opened, at the second the rest stays in the part that was begun; both are then
 * application/octet-stream. MIME_BOUNDARY_MAX bytes, MIME_PARAMS_MAX parameters a field; more are
 * left out.
 */
#pragma once
#include "lib/base/arena.h"

enum {
    MIME_DEPTH_MAX = 100,
    MIME_PARTS_MAX = 10000,
    MIME_BOUNDARY_MAX = 80,
    MIME_PARAMS_MAX = 64,
    MIME_LANGUAGES_MAX = 32,
    MIME_NONE = 0xffffffff,
};

enum mime_kind { MIME_LEAF, MIME_MULTIPART, MIME_MESSAGE };

struct mime_param {
    struct str name, value; /* value unquoted; continuations joined (rfc2231.h) */
};

struct mime_part {
    uint32_t parent, next, first; /* indices: MIME_NONE where there is none */
    enum mime_kind kind;
    uint16_t depth;                 /* 0 for the message */
    size_t header_at, body_at, end; /* the header with its empty line is [header_at, body_at) */
    uint32_t lines;                 /* line ends in [body_at, end) */
    struct str type, subtype;
    struct mime_param *params;
    size_t nparams;
    struct str id, description, encoding, md5, location; /* n 0: none */
    struct str disposition;
    struct mime_param *disposition_params;
    size_t ndisposition_params;
    struct str *languages;
    size_t nlanguages;
};

struct mime {
    struct mime_part *parts;
    size_t n;
    bool truncated; /* a limit was reached */
};

/* A message that comes in pieces, of any lengths. Memory: the parts, the header of one part as far
 * as HEADER_BLOCK_MAX, and one line as far as it can be a delimiter. */
struct mime_parser;
struct mime_parser *mime_begin(struct arena *arena, struct mime *m_r); /* NULL: out of memory */
void mime_feed(struct mime_parser *p, struct str piece);
/* Frees the parser. -1: memory or arena full; m_r of mime_begin() is then empty. */
int mime_end(struct mime_parser *p);
/* All of it at once. Text fields lie in the arena, parts in memory of their own: mime_free(). -1:
 * memory or arena full. */
int mime_parse(struct str message, struct arena *arena, struct mime *m_r);
void mime_free(struct mime *m);
/* "type/subtype; a=b": for a Content-Type or Content-Disposition field (then type is the
 * disposition and subtype empty). -1: no type at its beginning; the parameters are then none. */
int mime_parse_value(struct str value, bool with_subtype, struct arena *arena, struct str *type_r,
                     struct str *subtype_r, struct mime_param **params_r, size_t *nparams_r);
/* The first parameter of this name (any case); an empty str with p NULL when there is none. */
struct str mime_param(const struct mime_param *params, size_t n, struct str name);
