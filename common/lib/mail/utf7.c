#include "lib/mail/utf7.h"
#include "lib/base/utf8.h"

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,";

struct bits {
    uint32_t held;
    unsigned n;
};

static void
put_unit(struct buf *out, struct bits *b, uint32_t unit)
{
    b->held = b->held << 16 | unit;
    for (b->n += 16; b->n >= 6; b->n -= 6)
        buf_addc(out, digits[b->held >> (b->n - 6) & 63]);
    b->held &= (1u << b->n) - 1;
}

static void
end_shift(struct buf *out, struct bits *b)
{
    if (b->n)
        buf_addc(out, digits[b->held << (6 - b->n) & 63]);
    buf_addc(out, '-');
    *b = (struct bits){0};
}

int
utf7_encode(struct buf *out, struct str utf8)
{
    struct cursor c = cursor_of(utf8);
    struct bits b = {0};
    bool shifted = false;
    while (!cur_end(&c)) {
        int32_t x = utf8_take(&c);
        /* Controls, and the line and paragraph separators. */
        if (x < 0x20 || (x >= 0x7f && x <= 0x9f) || x == 0x2028 || x == 0x2029)
            return -1;
        bool plain = x < 0x7f;
        if (plain && shifted)
            end_shift(out, &b);
        else if (!plain && !shifted)
            buf_addc(out, '&');
        shifted = !plain;
        if (plain) {
            buf_addz(out, x == '&' ? "&-" : (char[2]){(char)x, '\0'});
        } else if (x > 0xffff) {
            put_unit(out, &b, 0xd800 + (((uint32_t)x - 0x10000) >> 10));
            put_unit(out, &b, 0xdc00 + (((uint32_t)x - 0x10000) & 0x3ff));
        } else {
            put_unit(out, &b, (uint32_t)x);
        }
    }
    if (shifted)
        end_shift(out, &b);
    return 0;
}

/* Behind "&": the characters up to and with "-". */
static int
shifted(struct cursor *c, struct buf *out)
{
    struct bits b = {0};
    uint32_t high = 0;
    bool any = false;
    for (int x; (x = cur_next(c)) != '-'; any = true) {
        const char *digit = x > 0 ? strchr(digits, x) : NULL;
        if (!digit)
            return -1;
        b.held = (b.held << 6 | (uint32_t)(digit - digits)) & 0x3fffff;
        b.n += 6;
        if (b.n < 16)
            continue;
        b.n -= 16;
        uint32_t unit = b.held >> b.n & 0xffff;
        bool low = unit >= 0xdc00 && unit <= 0xdfff;
        if (low != (high != 0))
            return -1;
        if (low)
            unit = 0x10000 + ((high - 0xd800) << 10) + (unit - 0xdc00);
        high = !low && unit >= 0xd800 && unit <= 0xdbff ? unit : 0;
        if (!high)
            utf8_put(out, unit);
    }
    if (!any)
        buf_addc(out, '&');
    return high ? -1 : 0;
}

/* The one form is what encoding gives: one comparison finds all others. */
int
utf7_decode(struct buf *out, struct str name)
{
    struct cursor c = cursor_of(name);
    size_t from = out->n;
    int result = 0;
    while (result == 0 && !cur_end(&c)) {
        if (cur_take(&c, '&'))
            result = shifted(&c, out);
        else
            buf_addc(out, (char)cur_next(&c));
    }
    struct buf again = buf_new(out->max * 4);
    if (result == 0 && utf7_encode(&again, str_from(buf_str(out), from)) < 0)
        result = -1;
    if (!buf_ok(out) || !buf_ok(&again) || !str_eq(buf_str(&again), name))
        result = -1;
    buf_free(&again);
    if (result < 0)
        buf_truncate(out, from);
    return result;
}
