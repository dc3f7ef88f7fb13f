#include "lib/mail/rfc2231.h"
#include "lib/base/cursor.h"
#include "lib/mail/bodytext.h"
#include "lib/mail/header.h"

struct section {
    struct str base;
    uint32_t number;
    bool encoded;
};

/* "base*12" or "base*12*". */
static bool
is_section(struct str name, struct section *s_r)
{
    struct cursor c = cursor_of(name);
    s_r->base = cur_until(&c, '*');
    if (!s_r->base.n || !cur_take(&c, '*'))
        return false;
    struct str digits = cur_while(&c, ch_digit);
    s_r->encoded = cur_take(&c, '*');
    return cur_end(&c) && !(digits.n > 1 && digits.p[0] == '0') &&
           str_u32(digits, MIME_PARAMS_MAX, &s_r->number) == 0;
}

static ptrdiff_t
find(const struct mime_param *params, size_t n, struct str base, uint32_t number)
{
    struct section s;
    for (size_t i = 0; i < n; i++)
        if (is_section(params[i].name, &s) && s.number == number && str_caseeq(s.base, base))
            return (ptrdiff_t)i;
    return -1;
}

/* RFC 2231 7: attribute-char stands for itself. */
static void
put_encoded(struct buf *out, struct str value)
{
    for (size_t i = 0; i < value.n; i++) {
        unsigned char b = (unsigned char)value.p[i];
        if (b > 0x20 && b < 0x7f && !strchr("*'%()<>@,;:\\\"/[]?=", b))
            buf_addc(out, (char)b);
        else
            buf_addf(out, "%%%02X", b);
    }
}

/* The sections of one value, which begins at params[i], as one parameter; the others lose their
 * names. 0, or -1. */
static int
join(struct mime_param *params, size_t n, size_t i, struct str base, struct arena *arena)
{
    size_t at[MIME_PARAMS_MAX], count = 0;
    struct section s;
    bool encoded = false;
    for (ptrdiff_t k = (ptrdiff_t)i; k >= 0 && count < MIME_PARAMS_MAX;
         k = find(params, n, base, (uint32_t)count)) {
        encoded |= is_section(params[k].name, &s) && s.encoded;
        at[count++] = (size_t)k;
    }
    struct buf name = buf_new(HEADER_FIELD_MAX), value = buf_new((size_t)4 * HEADER_FIELD_MAX);
    buf_add(&name, base);
    buf_addz(&name, encoded ? "*" : "");
    for (size_t k = 0; k < count; k++) {
        bool as_is = (is_section(params[at[k]].name, &s) && s.encoded) || !encoded;
        if (k == 0 && encoded && !as_is)
            buf_addz(&value, "''");
        if (as_is)
            buf_add(&value, params[at[k]].value);
        else
            put_encoded(&value, params[at[k]].value);
    }
    for (size_t k = 1; k < count; k++)
        params[at[k]].name = str_of("", 0);
    params[i] =
        (struct mime_param){arena_str(arena, buf_str(&name)), arena_str(arena, buf_str(&value))};
    buf_free(&name);
    buf_free(&value);
    return params[i].name.p && params[i].value.p ? 0 : -1;
}

size_t
rfc2231_join(struct mime_param *params, size_t n, struct arena *arena)
{
    struct section s;
    size_t left = 0;
    for (size_t i = 0; i < n; i++)
        if (is_section(params[i].name, &s) && s.number == 0 &&
            join(params, n, i, s.base, arena) < 0)
            return SIZE_MAX;
    for (size_t i = 0; i < n; i++)
        if (params[i].name.n)
            params[left++] = params[i];
    return left;
}

/* RFC 2231 4: "%" and two digits are a byte; what is no such pair is what it is. */
static void
take_encoded(struct buf *out, struct str text)
{
    for (size_t i = 0; i < text.n; i++) {
        char byte = text.p[i];
        if (byte == '%' && bodytext_hex_pair(text, i, &byte))
            i += 2;
        buf_addc(out, byte);
    }
}

static int
to_utf8(struct str bytes, struct str charset, struct buf *out)
{
    bool utf8 =
        charset.n == 0 || str_caseeq(charset, STR("utf-8")) || str_caseeq(charset, STR("us-ascii"));
    bool latin = str_caseeq(charset, STR("iso-8859-1")) ||
                 str_caseeq(charset, STR("iso-8859-15")) ||
                 str_caseeq(charset, STR("windows-1252"));
    if (!utf8 && !latin)
        return -1;
    if (str_chr(bytes, '\0') >= 0 || (utf8 && !str_utf8(bytes)))
        return -1;
    bodytext_utf8(out, bytes, charset);
    return 0;
}

int
rfc2231_utf8(struct str name, struct str value, struct buf *out)
{
    struct cursor c = cursor_of(value);
    struct str charset = cur_until(&c, '\'');
    bool language = cur_take(&c, '\'');
    (void)cur_until(&c, '\'');
    if (!str_ends(name, STR("*")) || !language || !cur_take(&c, '\''))
        return -1;
    struct buf bytes = buf_new((size_t)4 * HEADER_FIELD_MAX);
    take_encoded(&bytes, cur_rest(&c));
    int result = buf_ok(&bytes) ? to_utf8(buf_str(&bytes), charset, out) : -1;
    buf_free(&bytes);
    return result;
}
