/*
 * cursor: a place in a str that only moves forward and cannot leave it.
 *
 * Every parser of the suite reads through one. A take that does not match moves nothing.
 */
#pragma once
#include "lib/base/str.h"

struct cursor {
    struct str all;
    size_t at;
};

static inline struct cursor
cursor_of(struct str s)
{
    return (struct cursor){s, 0};
}
static inline bool
cur_end(const struct cursor *c)
{
    return c->at >= c->all.n;
}
/* The next byte as 0..255, or -1 at the end; the second looks k bytes further. */
static inline int
cur_peek(const struct cursor *c)
{
    return c->at < c->all.n ? (unsigned char)c->all.p[c->at] : -1;
}
static inline int
cur_peek_at(const struct cursor *c, size_t k)
{
    return k < c->all.n - c->at ? (unsigned char)c->all.p[c->at + k] : -1;
}
/* The next byte, taken; -1 at the end. */
static inline int
cur_next(struct cursor *c)
{
    return c->at < c->all.n ? (unsigned char)c->all.p[c->at++] : -1;
}
/* What is left. */
static inline struct str
cur_rest(const struct cursor *c)
{
    return str_from(c->all, c->at);
}
bool cur_take(struct cursor *c, char want);
bool cur_take_str(struct cursor *c, struct str want);
bool cur_take_case(struct cursor *c, struct str want);
/* n bytes, or all that is left. */
struct str cur_take_n(struct cursor *c, size_t n);
/* The longest run of bytes for which is() holds; may be empty. */
struct str cur_while(struct cursor *c, bool (*is)(char));
struct str cur_until(struct cursor *c, char stop); /* stop itself is not taken */
size_t cur_skip_wsp(struct cursor *c);             /* SP and HTAB; how many */
