#include "lib/base/buf.h"
#include "lib/base/format.h"
#include <stdlib.h>

void
buf_free(struct buf *b)
{
    if (!b->lent)
        free(b->p);
    *b = buf_new(b->max);
}

void
buf_wipe(struct buf *b)
{
    if (b->p)
        explicit_bzero(b->p, b->cap);
    buf_free(b);
}

void
buf_reset(struct buf *b)
{
    b->n = 0;
    b->overflow = false;
}

/* Allocated is one byte more than is ever held, so that buf_z() always finds its place. */
static int
grow(struct buf *b, size_t want)
{
    size_t cap = b->cap ? b->cap : 128;
    while (cap < want + 1)
        if (__builtin_mul_overflow(cap, 2u, &cap))
            return -1;
    if (cap > b->max + 1)
        cap = b->max + 1;
    char *p = malloc(cap);
    if (!p)
        return -1;
    if (b->n)
        memcpy(p, b->p, b->n);
    /* Not realloc: what moves may be secret, and the old place would keep it. */
    if (b->p) {
        explicit_bzero(b->p, b->n);
        if (!b->lent)
            free(b->p);
    }
    b->lent = false;
    b->p = p;
    b->cap = cap;
    return 0;
}

char *
buf_reserve(struct buf *b, size_t n)
{
    size_t want;
    if (b->overflow || __builtin_add_overflow(b->n, n, &want) || want > b->max ||
        b->max == SIZE_MAX) {
        b->overflow = true;
        return NULL;
    }
    if (want + 1 > b->cap && grow(b, want) < 0) {
        b->overflow = true;
        return NULL;
    }
    return b->p + b->n;
}

void
buf_commit(struct buf *b, size_t n)
{
    if (n <= b->cap - b->n)
        b->n += n;
}

void
buf_add(struct buf *b, struct str s)
{
    char *to = buf_reserve(b, s.n);
    if (!to)
        return;
    if (s.n)
        memcpy(to, s.p, s.n);
    b->n += s.n;
}

void
buf_addz(struct buf *b, const char *z)
{
    buf_add(b, str_z(z));
}

void
buf_addc(struct buf *b, char c)
{
    buf_add(b, str_of(&c, 1));
}

void
buf_addu(struct buf *b, uint64_t v)
{
    char digits[20];
    size_t i = sizeof digits;
    do
        digits[--i] = (char)('0' + v % 10);
    while ((v /= 10) > 0);
    buf_add(b, str_of(digits + i, sizeof digits - i));
}

void
buf_addv(struct buf *b, const char *fmt, va_list ap)
{
    va_list again;
    size_t room = b->overflow || !b->p ? 0 : b->cap - b->n;
    va_copy(again, ap);
    /* Most fit where they are. A NUL is put: there is always a byte for it past what is held. */
    int n = format_v(room ? b->p + b->n : NULL, room, fmt, ap);
    char *to = n < 0 ? NULL : buf_reserve(b, (size_t)n);
    if (to && (size_t)n >= room)
        format_v(to, (size_t)n + 1, fmt, again);
    if (to)
        b->n += (size_t)n;
    else
        b->overflow = true;
    va_end(again);
}

void
buf_addf(struct buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    buf_addv(b, fmt, ap);
    va_end(ap);
}

void
buf_consume(struct buf *b, size_t n)
{
    if (n >= b->n) {
        b->n = 0;
        return;
    }
    memmove(b->p, b->p + n, b->n - n);
    b->n -= n;
}

void
buf_truncate(struct buf *b, size_t n)
{
    if (n < b->n)
        b->n = n;
}

const char *
buf_z(struct buf *b)
{
    if (!b->p && !buf_reserve(b, 0))
        return "";
    if (!b->p)
        return "";
    b->p[b->n] = '\0';
    return b->p;
}
