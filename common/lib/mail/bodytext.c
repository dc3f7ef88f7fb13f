#include "lib/mail/bodytext.h"
#include "lib/base/cursor.h"
#include "lib/base/utf8.h"
#include "lib/mail/header.h"

static int
b64_value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (ch_digit(c))
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

void
bodytext_base64(struct buf *out, struct str in)
{
    uint32_t bits = 0;
    unsigned have = 0;
    for (size_t i = 0; i < in.n; i++) {
        int v = b64_value(in.p[i]);
        if (in.p[i] == '=') { /* padding ends a run; another may follow */
            have = 0;
            continue;
        }
        if (v < 0)
            continue;
        bits = bits << 6 | (uint32_t)v;
        have += 6;
        if (have >= 8) {
            have -= 8;
            buf_addc(out, (char)(bits >> have & 0xff));
        }
    }
}

static int
hex_value(char c)
{
    c = ch_lower(c);
    return ch_digit(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool
bodytext_hex_pair(struct str in, size_t i, char *byte_r)
{
    if (in.n - i < 3 || hex_value(in.p[i + 1]) < 0 || hex_value(in.p[i + 2]) < 0)
        return false;
    *byte_r = (char)(hex_value(in.p[i + 1]) << 4 | hex_value(in.p[i + 2]));
    return true;
}

/* Length of "=", blanks, line end at i: a soft line break (RFC 2045 6.7 (5)); 0 when it is none. */
static size_t
soft_break(struct str in, size_t i)
{
    size_t at = i + 1;
    while (at < in.n && (ch_wsp(in.p[at]) || in.p[at] == '\r'))
        at++;
    if (at == in.n)
        return at - i;
    return in.p[at] == '\n' ? at + 1 - i : 0;
}

void
bodytext_quoted_printable(struct buf *out, struct str in)
{
    for (size_t i = 0; i < in.n;) {
        char byte;
        size_t skip;
        if (in.p[i] != '=') {
            buf_addc(out, in.p[i++]);
        } else if (bodytext_hex_pair(in, i, &byte)) {
            buf_addc(out, byte);
            i += 3;
        } else if ((skip = soft_break(in, i)) > 0) {
            i += skip;
        } else {
            buf_addc(out, in.p[i++]);
        }
    }
}

void
bodytext_decode(struct buf *out, struct str in, struct str encoding)
{
    if (str_caseeq(encoding, STR("base64")))
        bodytext_base64(out, in);
    else if (str_caseeq(encoding, STR("quoted-printable")))
        bodytext_quoted_printable(out, in);
    else
        buf_add(out, in);
}

/* What a byte of windows-1252 from 0x80 on is; the five that are nothing are themselves. */
static unsigned
windows_1252(unsigned c)
{
    static const uint16_t from_80[32] = {
        0x20ac, 0x81,   0x201a, 0x192,  0x201e, 0x2026, 0x2020, 0x2021, 0x2c6,  0x2030, 0x160,
        0x2039, 0x152,  0x8d,   0x17d,  0x8f,   0x90,   0x2018, 0x2019, 0x201c, 0x201d, 0x2022,
        0x2013, 0x2014, 0x2dc,  0x2122, 0x161,  0x203a, 0x153,  0x9d,   0x17e,  0x178};
    return c < 0xa0 ? from_80[c - 0x80] : c;
}

static unsigned
iso_8859_15(unsigned c)
{
    static const char bytes[] = "\xa4\xa6\xa8\xb4\xb8\xbc\xbd\xbe";
    static const uint16_t is[] = {0x20ac, 0x160, 0x161, 0x17d, 0x17e, 0x152, 0x153, 0x178};
    const char *at = memchr(bytes, (int)c, sizeof bytes - 1);
    return at ? is[at - bytes] : c;
}

static unsigned
iso_8859_1(unsigned c)
{
    return c;
}

void
bodytext_utf8(struct buf *out, struct str in, struct str charset)
{
    static const struct {
        const char *name;
        unsigned (*is)(unsigned c);
    } known[] = {{"iso-8859-1", iso_8859_1},
                 {"latin1", iso_8859_1},
                 {"iso-8859-15", iso_8859_15},
                 {"windows-1252", windows_1252},
                 {"cp1252", windows_1252}};
    unsigned (*is)(unsigned c) = NULL;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (str_caseeq(charset, str_z(known[i].name)))
            is = known[i].is;
    if (!is) {
        buf_add(out, in);
        return;
    }
    for (size_t i = 0; i < in.n; i++) {
        unsigned c = (unsigned char)in.p[i];
        utf8_put(out, c < 0x80 ? c : is(c));
    }
}

/* RFC 2047 4.2: "_" is a space, else as quoted-printable. */
static void
q_decode(struct buf *out, struct str in)
{
    for (size_t i = 0; i < in.n; i++) {
        char byte = in.p[i] == '_' ? ' ' : in.p[i];
        if (in.p[i] == '=' && bodytext_hex_pair(in, i, &byte))
            i += 2;
        buf_addc(out, byte);
    }
}

/* "=?charset?encoding?text?=" at the cursor; takes it and adds it decoded, or takes nothing. */
static bool
encoded_word(struct cursor *c, struct buf *out)
{
    struct cursor at = *c;
    if (!cur_take_str(&at, STR("=?")))
        return false;
    struct str charset = cur_until(&at, '?');
    cur_take(&at, '?');
    char how = ch_lower((char)(cur_peek(&at) < 0 ? 0 : cur_next(&at)));
    if (charset.n == 0 || charset.n > 64 || (how != 'q' && how != 'b') || !cur_take(&at, '?'))
        return false;
    struct str text = cur_until(&at, '?');
    if (!cur_take_str(&at, STR("?=")))
        return false;
    struct str language = charset; /* RFC 2231 5: "charset*language" */
    charset = str_cut(&language, '*');
    struct buf raw = buf_new(out->max);
    if (how == 'q')
        q_decode(&raw, text);
    else
        bodytext_base64(&raw, text);
    bodytext_utf8(out, buf_str(&raw), charset);
    buf_free(&raw);
    *c = at;
    return true;
}

void
bodytext_header(struct buf *out, struct str value)
{
    struct buf line = buf_new(HEADER_FIELD_MAX);
    if (str_find(value, STR("=?")) < 0) { /* most have none */
        header_unfold(out, value);
        return;
    }
    header_unfold(&line, value);
    struct cursor c = cursor_of(buf_str(&line));
    bool after_word = false;
    while (!cur_end(&c)) {
        /* RFC 2047 6.2: blanks between two encoded words are not there. */
        struct cursor ahead = c;
        cur_skip_wsp(&ahead);
        if (after_word && encoded_word(&ahead, out)) {
            c = ahead;
            continue;
        }
        after_word = encoded_word(&c, out);
        if (!after_word)
            buf_addc(out, (char)cur_next(&c));
    }
    buf_free(&line);
}
