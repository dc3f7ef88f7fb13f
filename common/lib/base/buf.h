/*
 * buf: text that grows, up to a maximum given at its birth.
 *
 * A buf that would grow past its maximum (or finds no memory) keeps what it has, takes no further
 * bytes and remembers it: test buf_ok() once at the end, not after each append. The bytes belong to
 * the buf; buf_str() is valid until the next change.
 */
#pragma once
#include "lib/base/str.h"
#include <stdarg.h>

struct buf {
    char *p;
    size_t n;   /* bytes held */
    size_t cap; /* bytes allocated */
    size_t max; /* never more than this */
    bool overflow;
    bool lent; /* p is the caller's room */
};

/* A buf of at most max bytes; nothing is allocated before the first append. */
static inline struct buf
buf_new(size_t max)
{
    return (struct buf){.max = max};
}

/* A buf that begins in the caller's room of size bytes, and leaves it for memory of its own when it
 * must hold more than size - 1; with max < size it never does. The room must outlive it. */
static inline struct buf
buf_on(char *room, size_t size, size_t max)
{
    return (struct buf){.p = room, .cap = size, .max = max, .lent = true};
}

void buf_free(struct buf *b);  /* also wipes the struct, keeping max: usable again */
void buf_wipe(struct buf *b);  /* explicit_bzero of all it ever held, then free */
void buf_reset(struct buf *b); /* empty, memory kept, overflow forgotten */

static inline bool
buf_ok(const struct buf *b)
{
    return !b->overflow;
}
static inline struct str
buf_str(const struct buf *b)
{
    return (struct str){b->p ? b->p : "", b->n};
}
/* How many bytes still fit under max. */
static inline size_t
buf_room(const struct buf *b)
{
    return b->overflow ? 0 : b->max - b->n;
}

/* Make room for n bytes more and return where they go, or NULL (overflow is then set). Follow with
 * buf_commit(b, m), m <= n. */
char *buf_reserve(struct buf *b, size_t n);
void buf_commit(struct buf *b, size_t n);

void buf_add(struct buf *b, struct str s);
void buf_addz(struct buf *b, const char *z);
void buf_addc(struct buf *b, char c);
void buf_addu(struct buf *b, uint64_t v); /* in decimal */
void buf_addf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buf_addv(struct buf *b, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));
/* Drop n bytes (clamped) from the front; cut to n bytes at most. */
void buf_consume(struct buf *b, size_t n);
void buf_truncate(struct buf *b, size_t n);
/* The bytes as a NUL-terminated string (the NUL is not counted); "" when that would overflow. */
const char *buf_z(struct buf *b);
