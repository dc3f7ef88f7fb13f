#include "lib/base/encode.h"

static const char b64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char hexdigits[] = "0123456789ABCDEF";

void
base64_encode(struct buf *out, struct str in)
{
    for (size_t i = 0; i < in.n; i += 3) {
        size_t left = in.n - i;
        uint32_t v = (uint32_t)(unsigned char)in.p[i] << 16;
        if (left > 1)
            v |= (uint32_t)(unsigned char)in.p[i + 1] << 8;
        if (left > 2)
            v |= (unsigned char)in.p[i + 2];
        char quad[4] = {b64[v >> 18], b64[(v >> 12) & 63], left > 1 ? b64[(v >> 6) & 63] : '=',
                        left > 2 ? b64[v & 63] : '='};
        buf_add(out, str_of(quad, 4));
    }
}

static int
b64_value(char c)
{
    const char *hit = c ? memchr(b64, (unsigned char)c, 64) : NULL;
    return hit ? (int)(hit - b64) : -1;
}

int
base64_decode(struct buf *out, struct str in)
{
    if (in.n % 4)
        return -1;
    for (size_t i = 0; i < in.n; i += 4) {
        const char *q = in.p + i;
        size_t pad = i + 4 < in.n ? 0 : q[3] != '=' ? 0 : q[2] != '=' ? 1 : 2;
        uint32_t v = 0;
        for (size_t k = 0; k < 4; k++) {
            int digit = k >= 4 - pad ? 0 : b64_value(q[k]);
            if (digit < 0)
                return -1;
            v = v << 6 | (uint32_t)digit;
        }
        if ((pad == 1 && (v & 0xff)) || (pad == 2 && (v & 0xffff)))
            return -1;
        char bytes[3] = {(char)(v >> 16 & 0xff), (char)(v >> 8 & 0xff), (char)(v & 0xff)};
        buf_add(out, str_of(bytes, 3 - pad));
    }
    return buf_ok(out) ? 0 : -1;
}

void
hex_encode(struct buf *out, struct str in)
{
    for (size_t i = 0; i < in.n; i++) {
        unsigned char c = (unsigned char)in.p[i];
        buf_addc(out, hexdigits[c >> 4]);
        buf_addc(out, hexdigits[c & 15]);
    }
}

void
xtext_encode(struct buf *out, struct str in)
{
    for (size_t i = 0; i < in.n; i++) {
        char c = in.p[i];
        if (c > 0x20 && c < 0x7f && c != '+' && c != '=') {
            buf_addc(out, c);
        } else {
            buf_addc(out, '+');
            hex_encode(out, str_of(&c, 1));
        }
    }
}

static int
hex_value(char c)
{
    /* RFC 3461 4: hexchar has upper-case letters only. */
    return ch_digit(c) ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

int
xtext_decode(struct buf *out, struct str in)
{
    for (size_t i = 0; i < in.n; i++) {
        char c = in.p[i];
        if (c == '+') {
            if (in.n - i < 3 || hex_value(in.p[i + 1]) < 0 || hex_value(in.p[i + 2]) < 0)
                return -1;
            c = (char)(hex_value(in.p[i + 1]) << 4 | hex_value(in.p[i + 2]));
            i += 2;
        } else if (c <= 0x20 || c >= 0x7f || c == '=') {
            return -1;
        }
        if ((unsigned char)c < 0x20 || c == 0x7f)
            return -1;
        buf_addc(out, c);
    }
    return buf_ok(out) ? 0 : -1;
}

void
quote_add(struct buf *out, struct str in, size_t max)
{
    for (size_t i = 0; i < in.n && i < max; i++) {
        char c = in.p[i];
        if (ch_print(c) && c != '\\') {
            buf_addc(out, c);
        } else {
            buf_addz(out, "\\x");
            hex_encode(out, str_of(&c, 1));
        }
    }
    if (in.n > max)
        buf_addz(out, "...");
}
