/* What an SMTP client says, and what a server answers. */
#include "lib/smtp/command.h"
#include "lib/smtp/dot.h"
#include "lib/smtp/ehlo.h"
#include "lib/smtp/reply.h"
#include "tests/fuzz/fuzz.h"

void
fuzz_smtp_command(struct str in)
{
    struct smtp_command c;
    static const char *const words[] = {"FROM", "TO"};
    smtp_command_parse(in, &c);
    FUZZ_CHECK(c.verb.n + c.argument.n <= in.n);
    (void)smtp_helo_ok(c.argument);
    for (size_t i = 0; i < 2; i++) {
        struct smtp_path p;
        struct address a;
        struct err e;
        if (smtp_path_parse(c.argument, str_z(words[i]), &p, &e) < 0)
            continue;
        FUZZ_CHECK(p.nparams <= SMTP_PARAMS_MAX);
        if (p.kind == SMTP_PATH_ADDRESS)
            FUZZ_CHECK(address_parse(address_str(&p.address), &a, &e) == 0);
        for (size_t k = 0; k < p.nparams; k++)
            FUZZ_CHECK(p.params[k].key.n);
    }
}

void
fuzz_smtp_reply(struct str in)
{
    struct smtp_reply r = smtp_reply_new();
    struct buf flat = buf_new(4 * SMTP_REPLY_TEXT_MAX);
    struct err e;
    uint64_t size;
    int got = 0;
    while (in.n && got == 0)
        got = smtp_reply_line(&r, fuzz_cut(&in, '\n'), &e);
    FUZZ_CHECK(got != 1 || (r.code >= 200 && r.code <= 599));
    FUZZ_CHECK(r.text.n <= SMTP_REPLY_TEXT_MAX && (got < 0 || r.lines <= SMTP_REPLY_LINES_MAX));
    for (size_t i = 0; i < r.text.n; i++)
        FUZZ_CHECK(ch_print(r.text.p[i]) || r.text.p[i] == '\n');
    if (got == 1) {
        (void)smtp_ehlo_parse(&r, &size);
        FUZZ_CHECK(smtp_reply_status(&r)[1] == '.');
        smtp_reply_flat(&r, &flat);
        FUZZ_CHECK(str_chr(buf_str(&flat), '\n') < 0);
    }
    smtp_reply_free(&r);
    buf_free(&flat);
}

/* What was encoded decodes, whole or in pieces; what decodes has no bare line end in it. */
void
fuzz_smtp_dot(struct str in)
{
    struct dot_encoder enc = {.text = in.n % 2};
    struct buf wire = buf_new(1 << 20), whole = buf_new(1 << 20), pieces = buf_new(1 << 20);
    size_t step = in.n ? (unsigned char)in.p[0] % 5 + 1 : 1;
    for (size_t at = 0; at < in.n; at += step)
        dot_encode(&enc, str_sub(in, at, step), &wire);
    dot_encode_end(&enc, &wire);
    for (int k = 0; k < 2; k++) {
        struct dot_decoder dec = {0};
        enum dot_step s = DOT_MORE;
        struct str piece, from = buf_str(&wire);
        for (size_t done = 0; s != DOT_END && done < from.n;) {
            struct str some = str_sub(from, done, k ? step : from.n);
            size_t at = 0;
            while ((s = dot_decode(&dec, some, &at, &piece)) == DOT_PIECE)
                buf_add(k ? &pieces : &whole, piece);
            FUZZ_CHECK(s != DOT_BARE && at <= some.n);
            done += some.n;
        }
        FUZZ_CHECK(s == DOT_END);
    }
    FUZZ_CHECK(str_eq(buf_str(&whole), buf_str(&pieces)));
    struct dot_decoder raw = {0};
    struct str piece;
    size_t at = 0;
    while (dot_decode(&raw, in, &at, &piece) == DOT_PIECE)
        FUZZ_CHECK(piece.n && piece.p >= in.p && piece.p + piece.n <= in.p + in.n);
    FUZZ_CHECK(at <= in.n);
    buf_free(&wire);
    buf_free(&whole);
    buf_free(&pieces);
}
