#include "lib/base/str.h"

static bool
case_same(const char *a, const char *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (ch_lower(a[i]) != ch_lower(b[i]))
            return false;
    return true;
}

bool
str_caseeq(struct str a, struct str b)
{
    return a.n == b.n && case_same(a.p, b.p, a.n);
}

bool
str_starts(struct str s, struct str prefix)
{
    return s.n >= prefix.n && str_eq(str_of(s.p, prefix.n), prefix);
}

bool
str_casestarts(struct str s, struct str prefix)
{
    return s.n >= prefix.n && case_same(s.p, prefix.p, prefix.n);
}

bool
str_ends(struct str s, struct str suffix)
{
    return s.n >= suffix.n && str_eq(str_of(s.p + (s.n - suffix.n), suffix.n), suffix);
}

ptrdiff_t
str_chr(struct str s, char c)
{
    const char *hit = s.n ? memchr(s.p, (unsigned char)c, s.n) : NULL;
    return hit ? hit - s.p : -1;
}

ptrdiff_t
str_rchr(struct str s, char c)
{
    const char *hit = s.n ? memrchr(s.p, (unsigned char)c, s.n) : NULL;
    return hit ? hit - s.p : -1;
}

ptrdiff_t
str_find(struct str s, struct str needle)
{
    if (needle.n == 0)
        return 0;
    const char *hit = s.n ? memmem(s.p, s.n, needle.p, needle.n) : NULL;
    return hit ? hit - s.p : -1;
}

ptrdiff_t
str_casefind(struct str s, struct str needle)
{
    char lower = needle.n ? ch_lower(needle.p[0]) : '\0';
    char upper = needle.n ? ch_upper(needle.p[0]) : '\0';
    for (size_t i = 0; needle.n <= s.n && i <= s.n - needle.n; i++)
        if (!needle.n ||
            ((s.p[i] == lower || s.p[i] == upper) && case_same(s.p + i, needle.p, needle.n)))
            return (ptrdiff_t)i;
    return -1;
}

static bool
ch_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

struct str
str_trim(struct str s)
{
    while (s.n && ch_space(s.p[0]))
        s = str_from(s, 1);
    while (s.n && ch_space(s.p[s.n - 1]))
        s.n--;
    return s;
}

struct str
str_cut(struct str *s, char sep)
{
    ptrdiff_t at = str_chr(*s, sep);
    struct str head = at < 0 ? *s : str_sub(*s, 0, (size_t)at);
    *s = str_from(*s, at < 0 ? s->n : (size_t)at + 1);
    return head;
}

int
str_u64(struct str s, uint64_t max, uint64_t *value_r)
{
    const size_t sure = 19; /* so many digits always fit */
    uint64_t v = 0;
    size_t i = 0;
    if (s.n == 0)
        return -1;
    for (; i < s.n && i < sure; i++) {
        unsigned digit = (unsigned char)s.p[i] - (unsigned)'0';
        if (digit > 9)
            return -1;
        v = v * 10 + digit;
    }
    for (; i < s.n; i++)
        if (!ch_digit(s.p[i]) || __builtin_mul_overflow(v, 10u, &v) ||
            __builtin_add_overflow(v, (uint64_t)(s.p[i] - '0'), &v))
            return -1;
    if (v > max)
        return -1;
    *value_r = v;
    return 0;
}

int
str_u32(struct str s, uint32_t max, uint32_t *value_r)
{
    uint64_t v;
    if (str_u64(s, max, &v) < 0)
        return -1;
    *value_r = (uint32_t)v;
    return 0;
}

/* Length of the UTF-8 sequence at the start of s, or 0. */
static size_t
utf8_sequence(struct str s)
{
    unsigned char c = (unsigned char)s.p[0], d;
    size_t len = c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : 4;
    if (c == 0 || (c >= 0x80 && c < 0xc2) || c > 0xf4 || len > s.n)
        return 0;
    for (size_t i = 1; i < len; i++)
        if (((unsigned char)s.p[i] & 0xc0) != 0x80)
            return 0;
    if (len < 3)
        return len;
    d = (unsigned char)s.p[1];
    /* Overlong, surrogates, above U+10FFFF: RFC 3629 section 4. */
    if ((c == 0xe0 && d < 0xa0) || (c == 0xed && d > 0x9f) || (c == 0xf0 && d < 0x90) ||
        (c == 0xf4 && d > 0x8f))
        return 0;
    return len;
}

bool
str_utf8(struct str s)
{
    while (s.n) {
        size_t len = utf8_sequence(s);
        if (len == 0)
            return false;
        s = str_from(s, len);
    }
    return true;
}

/* In all of 8 bytes at once: 0x80 where a byte is less than n, or is n; those from 0x80 on never.
 */
static uint64_t
bytes_below(uint64_t w, unsigned char n)
{
    const uint64_t ones = 0x0101010101010101u;
    return ~(((w & 0x7f * ones) + (0x80u - n) * ones) | w) & 0x80 * ones;
}

static uint64_t
bytes_equal(uint64_t w, unsigned char c)
{
    return bytes_below(w ^ c * (uint64_t)0x0101010101010101u, 1);
}

static bool
never_in_name(uint64_t w)
{
    return (bytes_below(w, 0x20) | bytes_equal(w, '/') | bytes_equal(w, 0x7f)) != 0;
}

bool
str_component(struct str s)
{
    if (s.n == 0 || s.n > 255 || s.p[0] == '.')
        return false;
    uint64_t w;
    for (; s.n >= sizeof w; s = str_of(s.p + sizeof w, s.n - sizeof w)) {
        memcpy(&w, s.p, sizeof w);
        if (never_in_name(w))
            return false;
    }
    w = UINT64_MAX;
    memcpy(&w, s.p, s.n);
    return !never_in_name(w);
}

unsigned
str_distance(struct str a, struct str b)
{
    unsigned row[33];
    a = str_sub(a, 0, 32);
    b = str_sub(b, 0, 32);
    for (unsigned j = 0; j <= b.n; j++)
        row[j] = j;
    for (size_t i = 0; i < a.n; i++) {
        unsigned diagonal = row[0];
        row[0] = (unsigned)i + 1;
        for (size_t j = 0; j < b.n; j++) {
            unsigned above = row[j + 1];
            unsigned best = diagonal + (ch_lower(a.p[i]) != ch_lower(b.p[j]));
            if (above + 1 < best)
                best = above + 1;
            if (row[j] + 1 < best)
                best = row[j] + 1;
            row[j + 1] = best;
            diagonal = above;
        }
    }
    return row[b.n];
}
