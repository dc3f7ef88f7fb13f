#include "lib/smtp/reply.h"
#include "lib/base/cursor.h"
#include "lib/base/format.h"

enum { WRITE_LINE_MAX = 500 }; /* RFC 5321 4.5.3.1.5: 512 with code and CR LF */

void
smtp_reply_free(struct smtp_reply *r)
{
    buf_free(&r->text);
    *r = smtp_reply_new();
}

void
smtp_reply_reset(struct smtp_reply *r)
{
    buf_reset(&r->text);
    r->code = r->lines = 0;
    r->status[0] = '\0';
}

/* RFC 3463 2: class "." subject "." detail, the two numbers of 1 to 3 digits; behind it a space or
 * nothing. The class must be that of the code (RFC 2034 4). Returns its length or 0. */
static size_t
status_length(unsigned code, struct str text)
{
    struct cursor c = cursor_of(text);
    if (cur_next(&c) != (int)('0' + code / 100))
        return 0;
    for (int i = 0; i < 2; i++) {
        if (!cur_take(&c, '.'))
            return 0;
        size_t digits = cur_while(&c, ch_digit).n;
        if (digits < 1 || digits > 3)
            return 0;
    }
    return cur_end(&c) || cur_peek(&c) == ' ' ? c.at : 0;
}

static void
keep_status(struct smtp_reply *r, struct str text)
{
    size_t n = status_length(r->code, text);
    if (n && n < sizeof r->status) {
        memcpy(r->status, text.p, n);
        r->status[n] = '\0';
    }
}

static void
add_clean(struct buf *out, struct str s)
{
    size_t room = buf_room(out);
    for (size_t i = 0; i < s.n && i < room; i++)
        buf_addc(out, ch_print(s.p[i]) ? s.p[i] : '?');
}

int
smtp_reply_line(struct smtp_reply *r, struct str line, struct err *e)
{
    uint32_t code;
    if (line.n > SMTP_REPLY_LINE_MAX)
        return err_set(e, ERR_LIMIT, "reply line longer than %d bytes", SMTP_REPLY_LINE_MAX);
    if (line.n < 3 || str_u32(str_sub(line, 0, 3), 599, &code) < 0 || code < 200)
        return err_set(e, ERR_PROTOCOL, "not an SMTP reply: \"%.*s\"",
                       STR_ARG(str_sub(line, 0, 80)));
    if (line.n > 3 && line.p[3] != ' ' && line.p[3] != '-')
        return err_set(e, ERR_PROTOCOL, "not an SMTP reply: \"%.*s\"",
                       STR_ARG(str_sub(line, 0, 80)));
    if (r->lines && code != r->code)
        return err_set(e, ERR_PROTOCOL, "reply code changed from %u to %u", r->code, code);
    if (++r->lines > SMTP_REPLY_LINES_MAX)
        return err_set(e, ERR_LIMIT, "reply of more than %d lines", SMTP_REPLY_LINES_MAX);
    r->code = code;
    struct str text = str_from(line, 4);
    if (r->lines == 1)
        keep_status(r, text);
    else if (buf_room(&r->text))
        buf_addc(&r->text, '\n');
    add_clean(&r->text, text);
    return line.n > 3 && line.p[3] == '-' ? 0 : 1;
}

int
smtp_reply_read(struct stream *io, struct smtp_reply *r, struct err *e)
{
    smtp_reply_reset(r);
    for (;;) {
        struct str line;
        bool bare;
        if (stream_line(io, SMTP_REPLY_LINE_MAX, &line, &bare, e) < 0)
            return -1;
        int n = smtp_reply_line(r, line, e);
        if (n != 0)
            return n < 0 ? -1 : 0;
    }
}

const char *
smtp_reply_status(struct smtp_reply *r)
{
    if (!r->status[0])
        format(r->status, sizeof r->status, "%u.0.0", r->code / 100 % 10);
    return r->status;
}

void
smtp_reply_flat(const struct smtp_reply *r, struct buf *out)
{
    buf_addu(out, r->code);
    buf_addc(out, ' ');
    for (size_t i = 0; i < r->text.n; i++)
        buf_addc(out, r->text.p[i] == '\n' ? ' ' : r->text.p[i]);
}

void
smtp_reply_put(struct stream *io, unsigned code, const char *status, struct str text)
{
    char room[WRITE_LINE_MAX + 16];
    do {
        struct str line = str_cut(&text, '\n');
        struct buf out = buf_on(room, sizeof room, sizeof room - 1);
        buf_addu(&out, code);
        buf_addc(&out, text.n ? '-' : ' ');
        buf_addz(&out, status);
        if (status[0])
            buf_addc(&out, ' ');
        size_t left = WRITE_LINE_MAX - out.n;
        add_clean(&out, str_sub(line, 0, left));
        buf_add(&out, STR("\r\n"));
        stream_put(io, buf_str(&out));
    } while (text.n);
}
