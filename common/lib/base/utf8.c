#include "lib/base/utf8.h"

int32_t
utf8_take(struct cursor *c)
{
    static const struct {
        unsigned char mask, is;
        uint32_t least;
    } forms[] = {{0x80, 0x00, 0}, {0xe0, 0xc0, 0x80}, {0xf0, 0xe0, 0x800}, {0xf8, 0xf0, 0x10000}};
    int first = cur_peek(c);
    for (size_t n = 0; first >= 0 && n < sizeof forms / sizeof forms[0]; n++) {
        if ((first & forms[n].mask) != forms[n].is)
            continue;
        uint32_t v = (uint32_t)first & (unsigned char)~forms[n].mask;
        for (size_t k = 1; k <= n; k++) {
            int b = cur_peek_at(c, k);
            if (b < 0 || (b & 0xc0) != 0x80)
                return -1;
            v = v << 6 | ((uint32_t)b & 0x3f);
        }
        if (v < forms[n].least || v > 0x10ffff || (v >= 0xd800 && v <= 0xdfff))
            return -1;
        c->at += n + 1;
        return (int32_t)v;
    }
    return -1;
}

void
utf8_put(struct buf *out, uint32_t c)
{
    if (c < 0x80) {
        buf_addc(out, (char)c);
        return;
    }
    unsigned more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    buf_addc(out, (char)((0xff00u >> (more + 1) & 0xff) | c >> 6 * more));
    while (more--)
        buf_addc(out, (char)(0x80 | (c >> 6 * more & 0x3f)));
}
