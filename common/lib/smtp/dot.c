#include "lib/smtp/dot.h"

/* Content from the middle of a line on: to the end of the input, or to a line that begins with a
 * dot, or to a bare CR or LF. All of it is one piece. */
static size_t
run(struct dot_decoder *d, struct str in)
{
    size_t at = 0;
    for (;;) {
        struct str left = str_from(in, at);
        ptrdiff_t cr = str_chr(left, '\r');
        size_t text = cr < 0 ? left.n : (size_t)cr;
        if (str_chr(str_of(left.p, text), '\n') >= 0) {
            d->state = DOT_DEAD;
            return at;
        }
        at += text;
        if (cr < 0) {
            if (text)
                d->state = DOT_IN_LINE;
            return at;
        }
        at++;
        if (at == in.n) {
            d->state = DOT_AFTER_CR;
            return at;
        }
        if (in.p[at] != '\n') {
            d->state = DOT_DEAD;
            return at;
        }
        at++;
        d->state = DOT_AT_LINE;
        if (at == in.n || in.p[at] == '.')
            return at;
    }
}

enum dot_step
dot_decode(struct dot_decoder *d, struct str in, size_t *at, struct str *piece_r)
{
    for (;;) {
        struct str left = str_from(in, *at);
        if (d->state == DOT_DEAD)
            return DOT_BARE;
        if (left.n == 0)
            return DOT_MORE;
        char c = left.p[0];
        switch (d->state) {
        case DOT_AT_LINE:
            if (c != '.')
                break;
            d->state = DOT_AFTER_DOT;
            ++*at;
            continue;
        case DOT_AFTER_DOT:
            d->state = c == '\r' ? DOT_AFTER_DOT_CR : DOT_IN_LINE;
            if (c != '\r')
                break; /* the dot was stuffing */
            ++*at;
            continue;
        case DOT_AFTER_DOT_CR:
            d->state = c == '\n' ? DOT_AT_LINE : DOT_DEAD;
            if (c != '\n')
                continue;
            ++*at;
            return DOT_END;
        case DOT_AFTER_CR:
            /* The CR was in the last piece; its LF is one of its own. */
            d->state = c == '\n' ? DOT_AT_LINE : DOT_DEAD;
            if (c != '\n')
                continue;
            ++*at;
            *piece_r = str_sub(left, 0, 1);
            return DOT_PIECE;
        case DOT_IN_LINE:
        case DOT_DEAD:
            break;
        }
        size_t n = run(d, left);
        *at += n;
        *piece_r = str_sub(left, 0, n);
        if (n)
            return DOT_PIECE;
    }
}

static void
line_end(struct dot_encoder *d, struct buf *out)
{
    buf_add(out, STR("\r\n"));
    d->started = true;
    d->in_line = false;
}

static void
text(struct dot_encoder *d, struct str s, struct buf *out)
{
    if (s.n == 0)
        return;
    if (!d->in_line && s.p[0] == '.')
        buf_addc(out, '.');
    buf_add(out, s);
    d->started = d->in_line = true;
}

/* The length of the run without CR and LF at the start of s. */
static size_t
plain(struct str s)
{
    ptrdiff_t cr = str_chr(s, '\r');
    if (cr >= 0)
        s.n = (size_t)cr;
    ptrdiff_t lf = str_chr(s, '\n');
    return lf >= 0 ? (size_t)lf : s.n;
}

/* Plain runs are looked for within such pieces, so that a distant CR does not cost a scan for each
 * LF. */
enum { PIECE = 4096 };

void
dot_encode(struct dot_encoder *d, struct str in, struct buf *out)
{
    for (size_t at = 0; at < in.n;) {
        char c = in.p[at];
        if (d->cr) {
            d->cr = false;
            if (c == '\n') {
                line_end(d, out);
                at++;
                continue;
            }
            text(d, STR(" "), out);
        }
        if (c == '\r') {
            d->cr = true;
            at++;
        } else if (c == '\n') {
            if (d->text)
                line_end(d, out);
            else
                text(d, STR(" "), out);
            at++;
        } else {
            size_t n = plain(str_sub(in, at, PIECE));
            text(d, str_sub(in, at, n), out);
            at += n;
        }
    }
}

void
dot_encode_end(struct dot_encoder *d, struct buf *out)
{
    if (d->cr)
        text(d, STR(" "), out);
    d->cr = false;
    if (d->in_line || !d->started)
        line_end(d, out);
    buf_add(out, STR(".\r\n"));
}
