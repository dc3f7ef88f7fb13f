#include "submitd/sendmail/sendmail.h"
#include "lib/base/encode.h"
#include <errno.h>
#include <stdio.h>
#include <sysexits.h>
#include <unistd.h>

enum { FULL_NAME_MAX = 256, ENCODED_WORD_MAX = 75 };

/* Fill the chunk behind what is left in it. 1, 0 at the end, -1. */
static int
more(struct sendmail_input *in)
{
    memmove(in->chunk, in->chunk + in->at, in->n - in->at);
    in->n -= in->at;
    in->at = 0;
    ssize_t n;
    do
        n = read(in->fd, in->chunk + in->n, sizeof in->chunk - in->n);
    while (n < 0 && errno == EINTR);
    if (n > 0)
        in->n += (size_t)n;
    return n < 0 ? -1 : n > 0;
}

/* Whether s, at the start of a line, is a lone dot and its line end; or may yet become one. */
static bool
is_dot(struct str s, bool *perhaps_r)
{
    *perhaps_r = str_eq(s, STR(".")) || str_eq(s, STR(".\r"));
    return str_starts(s, STR(".\n")) || str_starts(s, STR(".\r\n"));
}

/* How much of s, whole lines if there are any, comes before a line with a dot in front. */
static size_t
before_dot(struct str s)
{
    ptrdiff_t hit = str_find(s, STR("\n."));
    return hit < 0 ? s.n : (size_t)hit + 1;
}

int
sendmail_read(struct sendmail_input *in, struct str *piece_r)
{
    bool perhaps = false;
    for (;;) {
        struct str left = str_of(in->chunk + in->at, in->n - in->at);
        if (in->dot_ends && !in->in_line && is_dot(left, &perhaps))
            in->ended = true;
        if (in->ended)
            return 0;
        if (left.n && !(in->dot_ends && !in->in_line && perhaps)) {
            size_t n = in->dot_ends ? before_dot(left) : left.n;
            *piece_r = str_sub(left, 0, n);
            in->at += n;
            in->in_line = left.p[n - 1] != '\n';
            return 1;
        }
        int got = more(in);
        if (got < 0)
            return -1;
        if (got == 0) {
            /* The end of the input, perhaps with a dot that has no line end: which is the end too.
             */
            in->ended = true;
            return 0;
        }
        perhaps = false;
    }
}

/* Whether raw begins with the line that an mbox has before a message, or may yet, and its end is
 * not here. */
static bool
needs_mbox_line(const struct buf *raw)
{
    static const struct str mark = {"From ", 5};
    struct str have = buf_str(raw);
    return have.n < mark.n ? str_starts(mark, have)
                           : str_starts(have, mark) && str_chr(have, '\n') < 0;
}

/* One piece more: as sendmail_read(); false when it is too much. */
static bool
add_piece(struct sendmail_letter *l, int *n_r)
{
    struct str piece;
    if ((*n_r = sendmail_read(&l->input, &piece)) > 0)
        buf_add(&l->raw, piece);
    return buf_ok(&l->raw);
}

int
sendmail_letter_open(struct sendmail_letter *l, const struct sendmail_options *o)
{
    size_t scan = 0, body_at = 0;
    int n = 1;
    bool fits = true;
    l->raw = buf_new(SMTP_HEAD_MAX + SENDMAIL_CHUNK);
    l->input.dot_ends = !o->ignore_dots;
    while (n > 0 && fits && needs_mbox_line(&l->raw))
        fits = add_piece(l, &n);
    if (str_starts(buf_str(&l->raw), STR("From "))) {
        ptrdiff_t end = str_chr(buf_str(&l->raw), '\n');
        buf_consume(&l->raw, end < 0 ? l->raw.n : (size_t)end + 1);
    }
    while (n > 0 && fits && !smtp_head_end(buf_str(&l->raw), &scan, &body_at))
        fits = add_piece(l, &n);
    if (!fits) {
        fputs("sendmail: the header is too large\n", stderr);
        return EX_DATAERR;
    }
    if (n < 0) {
        fprintf(stderr, "sendmail: cannot read the message: %s\n", strerror(errno));
        return EX_IOERR;
    }
    if (n == 0) { /* it ended within the header: lines that are no fields are its body */
        if (l->raw.n && l->raw.p[l->raw.n - 1] != '\n')
            buf_addc(&l->raw, '\n');
        if (!smtp_head_end(buf_str(&l->raw), &scan, &body_at))
            body_at = scan = l->raw.n;
    }
    l->head = str_sub(buf_str(&l->raw), 0, scan);
    l->body = str_from(buf_str(&l->raw), body_at);
    struct cursor c = cursor_of(l->head);
    for (struct smtp_field f; smtp_field_next(&c, &f);)
        l->has_from = l->has_from || str_caseeq(f.name, STR("From"));
    return 0;
}

/* A display name (RFC 5322 3.4): as a quoted string, or one encoded word (RFC 2047); nothing when
 * it cannot be said in a header. */
static void
put_name(struct buf *out, struct str name)
{
    bool plain = name.n && name.n <= FULL_NAME_MAX;
    for (size_t i = 0; i < name.n; i++)
        plain = plain && ch_print(name.p[i]);
    if (plain) {
        buf_addc(out, '"');
        for (size_t i = 0; i < name.n; i++) {
            if (name.p[i] == '"' || name.p[i] == '\\')
                buf_addc(out, '\\');
            buf_addc(out, name.p[i]);
        }
        buf_addz(out, "\" ");
    } else if (name.n && str_utf8(name) && str_chr(name, '\n') < 0) {
        struct buf word = buf_new(ENCODED_WORD_MAX);
        buf_addz(&word, "=?UTF-8?B?");
        base64_encode(&word, name);
        buf_addz(&word, "?=");
        if (buf_ok(&word)) {
            buf_add(out, buf_str(&word));
            buf_addc(out, ' ');
        }
        buf_free(&word);
    }
}

void
sendmail_letter_head(const struct sendmail_letter *l, const char *name, struct str address,
                     struct buf *out)
{
    struct cursor c = cursor_of(l->head);
    for (struct smtp_field f; smtp_field_next(&c, &f);)
        if (!str_caseeq(f.name, STR("Bcc")) && !str_caseeq(f.name, STR("Resent-Bcc")))
            buf_add(out, f.whole);
    if (!l->has_from && address.n) {
        buf_addz(out, "From: ");
        put_name(out, str_z(name));
        buf_addc(out, '<');
        buf_add(out, address);
        buf_addz(out, ">\n");
    }
}

int
sendmail_rcpts_add(struct sendmail_rcpts *r, struct str list)
{
    struct buf spec = buf_new(1024);
    struct cursor c = cursor_of(list);
    size_t in_list = 0;
    int n, status = 0;
    while ((n = smtp_mailbox_next(&c, &in_list, &spec)) == 1) {
        if (r->n == SENDMAIL_RCPT_MAX) {
            fprintf(stderr, "sendmail: more than %d recipients\n", SENDMAIL_RCPT_MAX);
            status = EX_USAGE;
            break;
        }
        struct str kept = arena_str(&r->arena, buf_str(&spec));
        if (!kept.p) {
            fputs("sendmail: out of memory\n", stderr);
            status = EX_OSERR;
            break;
        }
        r->at[r->n++] = kept;
    }
    if (n < 0) {
        fprintf(stderr, "sendmail: malformed address list: %.*s\n", STR_ARG(str_sub(list, 0, 200)));
        status = EX_DATAERR;
    }
    buf_free(&spec);
    return status;
}

int
sendmail_rcpts_from(struct sendmail_rcpts *r, const struct sendmail_letter *l)
{
    static const struct str fields[2][3] = {
        {{"To", 2}, {"Cc", 2}, {"Bcc", 3}},
        {{"Resent-To", 9}, {"Resent-Cc", 9}, {"Resent-Bcc", 10}}};
    bool resent = false;
    struct smtp_field f;
    struct cursor c = cursor_of(l->head);
    while (smtp_field_next(&c, &f))
        for (size_t i = 0; i < 3; i++)
            resent = resent || str_caseeq(f.name, fields[1][i]);
    c = cursor_of(l->head);
    while (smtp_field_next(&c, &f))
        for (size_t i = 0; i < 3; i++)
            if (str_caseeq(f.name, fields[resent][i])) {
                int status = sendmail_rcpts_add(r, f.value);
                if (status)
                    return status;
            }
    return 0;
}
