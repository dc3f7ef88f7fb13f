#include "lib/base/format.h"
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

struct out {
    char *to;
    size_t room; /* without the NUL */
    size_t n;    /* of the whole */
};

struct conversion {
    char kind, size; /* size: 'i', 'l', 'L' (ll), 'z' */
    bool zeros;
    int width, precision; /* precision: -1: none */
};

static void
put(struct out *o, const char *p, size_t n)
{
    size_t left = o->n < o->room ? o->room - o->n : 0;
    if (left && n)
        memcpy(o->to + o->n, p, n < left ? n : left);
    o->n += n;
}

static void
fill(struct out *o, char c, size_t n)
{
    while (n-- > 0)
        put(o, &c, 1);
}

static int
digits(const char **fmt)
{
    int n = 0;
    while (**fmt >= '0' && **fmt <= '9' && n < 1000)
        n = 10 * n + (*(*fmt)++ - '0');
    return n;
}

/* What follows a '%'; false when it is not one of ours. */
static bool
read_conversion(const char **fmt, struct conversion *c, va_list *ap)
{
    *c = (struct conversion){.size = 'i', .precision = -1};
    if (**fmt == '0') {
        c->zeros = true;
        (*fmt)++;
    }
    c->width = digits(fmt);
    if (**fmt == '.') {
        (*fmt)++;
        if (**fmt == '*') {
            c->precision = va_arg(*ap, int);
            (*fmt)++;
        } else {
            c->precision = digits(fmt);
        }
    }
    if (**fmt == 'l' || **fmt == 'z') {
        c->size = *(*fmt)++;
        if (c->size == 'l' && **fmt == 'l') {
            c->size = 'L';
            (*fmt)++;
        }
    }
    c->kind = *(*fmt)++;
    bool number = c->kind == 'd' || c->kind == 'u' || c->kind == 'x';
    if (number)
        return c->precision < 0;
    return c->size == 'i' && !c->zeros && !c->width &&
           (c->kind == 's' || (c->precision < 0 && (c->kind == 'c' || c->kind == '%')));
}

static void
put_number(struct out *o, const struct conversion *c, uint64_t v, bool minus)
{
    char text[20];
    size_t i = sizeof text;
    unsigned base = c->kind == 'x' ? 16 : 10;
    do
        text[--i] = "0123456789abcdef"[v % base];
    while ((v /= base) > 0);
    size_t n = sizeof text - i + minus;
    size_t pad = (size_t)c->width > n ? (size_t)c->width - n : 0;
    if (!c->zeros)
        fill(o, ' ', pad);
    if (minus)
        put(o, "-", 1);
    if (c->zeros)
        fill(o, '0', pad);
    put(o, text + i, sizeof text - i);
}

static void
put_signed(struct out *o, const struct conversion *c, va_list *ap)
{
    int64_t v = c->size == 'L'   ? va_arg(*ap, long long)
                : c->size == 'l' ? va_arg(*ap, long)
                : c->size == 'z' ? (int64_t)va_arg(*ap, size_t)
                                 : va_arg(*ap, int);
    put_number(o, c, v < 0 ? -(uint64_t)v : (uint64_t)v, v < 0);
}

static void
put_unsigned(struct out *o, const struct conversion *c, va_list *ap)
{
    uint64_t v = c->size == 'L'   ? va_arg(*ap, unsigned long long)
                 : c->size == 'l' ? va_arg(*ap, unsigned long)
                 : c->size == 'z' ? va_arg(*ap, size_t)
                                  : va_arg(*ap, unsigned);
    put_number(o, c, v, false);
}

static void
put_text(struct out *o, const struct conversion *c, const char *s)
{
    if (!s)
        s = "(null)";
    put(o, s, c->precision < 0 ? strlen(s) : strnlen(s, (size_t)c->precision));
}

static bool
run(struct out *o, const char *fmt, va_list *ap)
{
    struct conversion c;
    for (;;) {
        const char *end = strchrnul(fmt, '%');
        put(o, fmt, (size_t)(end - fmt));
        if (!*end)
            return true;
        fmt = end + 1;
        if (!read_conversion(&fmt, &c, ap))
            return false;
        if (c.kind == 's')
            put_text(o, &c, va_arg(*ap, const char *));
        else if (c.kind == 'd')
            put_signed(o, &c, ap);
        else if (c.kind == 'u' || c.kind == 'x')
            put_unsigned(o, &c, ap);
        else if (c.kind == 'c')
            fill(o, (char)va_arg(*ap, int), 1);
        else
            put(o, "%", 1);
    }
}

int
format_v(char *to, size_t size, const char *fmt, va_list ap)
{
    struct out o = {.to = to, .room = size ? size - 1 : 0};
    va_list mine;
    va_copy(mine, ap);
    bool whole = run(&o, fmt, &mine);
    va_end(mine);
    if (!whole)
        return vsnprintf(to, size, fmt, ap);
    if (size)
        to[o.n < o.room ? o.n : o.room] = '\0';
    return o.n > INT_MAX ? -1 : (int)o.n;
}

int
format(char *to, size_t size, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = format_v(to, size, fmt, ap);
    va_end(ap);
    return n;
}
