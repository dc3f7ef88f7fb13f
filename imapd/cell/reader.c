/* Reading one command, literals and all, within the ceilings. */
#include "imapd/cell/args.h"
#include <stdio.h>

enum { SKIP_MAX = 1 << 20 };

int
icell_find_literal(struct str line, struct str *head_r, uint64_t *size_r, bool *plus_r)
{
    ptrdiff_t open = str_rchr(line, '{');
    if (open < 0 || line.n < 3 || line.p[line.n - 1] != '}')
        return -1;
    struct str digits = str_sub(line, (size_t)open + 1, line.n - (size_t)open - 2);
    *plus_r = str_ends(digits, STR("+"));
    digits.n -= *plus_r;
    *head_r = str_sub(line, 0, (size_t)open);
    if (digits.n == 0)
        return -1;
    for (size_t i = 0; i < digits.n; i++)
        if (!ch_digit(digits.p[i]))
            return -1;
    if (str_u64(digits, UINT64_MAX, size_r) < 0)
        *size_r = UINT64_MAX;
    return 0;
}

/* "tag APPEND mailbox " is complete: the literal behind it is the message. */
static bool
is_append(struct icell *ic)
{
    struct str tag, name;
    struct cursor c = cursor_of(buf_str(&ic->cmd.text));
    return icell_arg_atom(&c, &tag) == 0 && icell_arg_space(&c) &&
           cur_take_case(&c, STR("APPEND")) && icell_arg_mailbox(ic, &c, &name) == 0 &&
           icell_arg_space(&c);
}

static void
find_tag(struct icell *ic)
{
    struct cursor c = cursor_of(buf_str(&ic->cmd.text));
    struct str tag;
    ic->cmd.tag = str_of("", 0);
    if (icell_arg_atom(&c, &tag) == 0 && str_chr(tag, '+') < 0 && icell_arg_space(&c)) {
        ic->cmd.tag = tag;
        ic->cmd.args = c;
    }
}

static void
refuse(struct icell *ic, enum icell_status status, const char *text)
{
    find_tag(ic);
    icell_end(ic, status, "%s", text);
}

/* Over: with a line of farewell. */
static int
bye(struct icell *ic, const char *text)
{
    stream_putf(&ic->s, "* BYE %s\r\n", text);
    ic->bye = text;
    ic->state = ICELL_LOGOUT;
    return -1;
}

static int
lost(struct icell *ic, const struct err *e)
{
    static char why[sizeof e->text];
    if (e->class == ERR_TIMEOUT) {
        ic->s.broken = false;
        return bye(ic, "Disconnected for inactivity.");
    }
    snprintf(why, sizeof why, "%s", e->text);
    ic->bye = why;
    ic->state = ICELL_LOGOUT;
    return -1;
}

/* The literal's bytes into the command's text. 0; 1: refused, an answer is set; -1. */
static int
read_literal(struct icell *ic, uint64_t size, bool plus, struct err *e)
{
    struct buf *text = &ic->cmd.text;
    if (size > ICELL_LITERAL_MAX || size + 64 > buf_room(text) ||
        icell_literal_too_long(ic, size, plus)) {
        if (plus) /* its bytes are on the way, and cannot be told from commands */
            return bye(ic, "[TOOBIG] Literal too long.");
        refuse(ic, ICELL_NO, "[TOOBIG] Literal too long.");
        return 1;
    }
    if (!plus)
        stream_putz(&ic->s, "+ OK\r\n");
    buf_addz(text, "\r\n");
    size_t from = text->n;
    if (stream_exactly(&ic->s, size, text, e) < 0)
        return lost(ic, e);
    if (str_chr(str_from(buf_str(text), from), '\0') >= 0)
        ic->cmd.malformed = true;
    return 0;
}

/* The rest of a line that is too long. *literal_r: one is announced behind it, and comes unasked.
 */
static int
skip_line(struct icell *ic, bool *literal_r, struct err *e)
{
    char last = '\0', before = '\0';
    for (size_t skipped = 0; skipped <= SKIP_MAX;) {
        struct str have;
        if (stream_peek(&ic->s, &have, e) < 0)
            return -1;
        size_t n = 0;
        while (n < have.n && have.p[n] != '\n') {
            if (have.p[n] != '\r') {
                before = last;
                last = have.p[n];
            }
            n++;
        }
        bool end = n < have.n;
        stream_take(&ic->s, n + end);
        skipped += n;
        *literal_r = before == '+' && last == '}';
        if (end)
            return 0;
    }
    return err_set(e, ERR_LIMIT, "endless line");
}

/* A line; 1 when it was too long and an answer is set. */
static int
read_line(struct icell *ic, struct str *line_r, struct err *e)
{
    bool bare, literal = false;
    if (stream_line(&ic->s, ICELL_LINE_MAX, line_r, &bare, e) == 0) {
        if (str_chr(*line_r, '\0') >= 0 || str_chr(*line_r, '\r') >= 0)
            ic->cmd.malformed = true;
        return 0;
    }
    if (e->class != ERR_LIMIT || ic->s.broken)
        return lost(ic, e);
    /* A literal's bytes cannot be told from commands. */
    if (skip_line(ic, &literal, e) < 0 || literal) {
        ic->s.broken = false;
        return bye(ic, "Line too long.");
    }
    refuse(ic, ICELL_BAD, "Line too long.");
    return 1;
}

int
icell_read_command(struct icell *ic)
{
    struct err e = {0};
    struct buf *text = &ic->cmd.text;
    for (;;) {
        struct str line, head;
        uint64_t size = 0;
        bool plus = false;
        int got = read_line(ic, &line, &e);
        if (got != 0)
            return got < 0 ? -1 : 0;
        bool literal = icell_find_literal(line, &head, &size, &plus) == 0;
        if (line.n > buf_room(text)) {
            if (literal && plus)
                return bye(ic, "Command too long.");
            refuse(ic, ICELL_BAD, "Command too long.");
            return 0;
        }
        if (!literal) {
            buf_add(text, line);
            break;
        }
        buf_add(text, head);
        if (is_append(ic)) {
            ic->cmd.literal.binary = str_ends(head, STR("~"));
            ic->cmd.literal.waiting = true;
            ic->cmd.literal.plus = plus;
            ic->cmd.literal.size = size;
            break;
        }
        buf_addf(text, "{%llu}", (unsigned long long)size);
        got = read_literal(ic, size, plus, &e);
        if (got != 0)
            return got < 0 ? -1 : 0;
    }
    find_tag(ic);
    return 0;
}
