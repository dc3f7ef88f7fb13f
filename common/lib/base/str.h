/*
 * str: a piece of text that somebody else owns: pointer and length, not NUL-terminated.
 *
 * Used by every process. All functions are total: they accept any bytes, NUL included, and never
 * read past the end. Case folding is ASCII only (RFC 5321 2.4), and never depends on a locale.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

struct str {
    const char *p;
    size_t n;
};

/* A str of a string literal, usable in static tables. */
#define STR(lit) ((struct str){(lit), sizeof(lit) - 1})
/* For printf's "%.*s": log lines and fixed messages only, never sizes. */
#define STR_ARG(s) (int)((s).n > 4096 ? 4096 : (s).n), (s).p

static inline struct str
str_of(const char *p, size_t n)
{
    return (struct str){p, n};
}

/* The str of a NUL-terminated string; "" when z is NULL. */
static inline struct str
str_z(const char *z)
{
    return (struct str){z ? z : "", z ? strlen(z) : 0};
}

/* Whether a text of bytes that somebody sent ends within its place. */
static inline bool
str_fits(const char *z, size_t size)
{
    return memchr(z, '\0', size) != NULL;
}

static inline bool
str_eq(struct str a, struct str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

/* Byte classes of ASCII; false for anything above 0x7e. */
static inline bool
ch_alpha(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static inline bool
ch_digit(char c)
{
    return c >= '0' && c <= '9';
}

static inline bool
ch_alnum(char c)
{
    return ch_alpha(c) || ch_digit(c);
}

/* 0x20 .. 0x7e */
static inline bool
ch_print(char c)
{
    return c >= 0x20 && c <= 0x7e;
}

/* SP or HTAB */
static inline bool
ch_wsp(char c)
{
    return c == ' ' || c == '\t';
}

static inline char
ch_lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

static inline char
ch_upper(char c)
{
    return c >= 'a' && c <= 'z' ? (char)(c - ('a' - 'A')) : c;
}

bool str_caseeq(struct str a, struct str b);
bool str_starts(struct str s, struct str prefix);
bool str_casestarts(struct str s, struct str prefix);
bool str_ends(struct str s, struct str suffix);
/* Offset of the first (last) c, or -1. */
ptrdiff_t str_chr(struct str s, char c);
ptrdiff_t str_rchr(struct str s, char c);
/* Offset of the first occurrence of needle, or -1; the second ignores ASCII case. */
ptrdiff_t str_find(struct str s, struct str needle);
ptrdiff_t str_casefind(struct str s, struct str needle);
/* From offset (clamped) to the end; and n bytes (clamped) from offset. */
static inline struct str
str_from(struct str s, size_t offset)
{
    if (offset > s.n)
        offset = s.n;
    return str_of(s.p + offset, s.n - offset);
}

static inline struct str
str_sub(struct str s, size_t offset, size_t n)
{
    s = str_from(s, offset);
    return str_of(s.p, n < s.n ? n : s.n);
}

/* Without SP, HTAB, CR and LF at both ends. */
struct str str_trim(struct str s);
/* Cut s at the first sep: the part before is returned, *s keeps the rest (empty, p past the end,
 * when sep was not there). */
struct str str_cut(struct str *s, char sep);
/* A decimal number of digits only, at most max. -1 when empty, malformed or larger. */
int str_u64(struct str s, uint64_t max, uint64_t *value_r);
int str_u32(struct str s, uint32_t max, uint32_t *value_r);
/* Valid UTF-8 without overlong forms, surrogates or NUL (RFC 3629). */
bool str_utf8(struct str s);
/* Fit to be one path component: 1..255 bytes, not "." nor "..", no '/', no control character,
 * no leading '.'. */
bool str_component(struct str s);
/* Edit distance for "did you mean", both cut to 32 bytes. */
unsigned str_distance(struct str a, struct str b);
