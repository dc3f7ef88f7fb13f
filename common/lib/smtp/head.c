#include "lib/smtp/head.h"

static const char received[] = "received:";
enum { RECEIVED_LEN = sizeof received - 1 };

static void
line_start(struct smtp_hops *h, char c)
{
    if (c == ' ' || c == '\t')
        return;
    h->fields++;
    h->field = 0;
    if (h->fields > SMTP_HEAD_FIELDS_MAX)
        h->too_large = true;
}

/* One byte of the first RECEIVED_LEN of a line. */
static void
early_byte(struct smtp_hops *h, char c)
{
    if (h->column == 0 && c != '\r')
        line_start(h, c);
    /* An empty line: CR (which is no field name) and LF. */
    if (h->matched == h->column && h->matched < RECEIVED_LEN &&
        ch_lower(c) == received[h->matched]) {
        if (++h->matched == RECEIVED_LEN)
            h->count++;
    }
    h->column++;
}

void
smtp_hops_feed(struct smtp_hops *h, struct str piece)
{
    for (size_t at = 0; at < piece.n && !h->done;) {
        char c = piece.p[at];
        size_t n = 1;
        if (c == '\n') {
            h->done = h->column <= 1; /* only its CR, or nothing */
            h->column = h->matched = 0;
        } else if (h->column <= RECEIVED_LEN) {
            early_byte(h, c);
        } else {
            ptrdiff_t lf = str_chr(str_from(piece, at), '\n');
            n = lf < 0 ? piece.n - at : (size_t)lf;
        }
        at += n;
        h->bytes += n;
        h->field += n;
        if (h->bytes > SMTP_HEAD_MAX || h->field > SMTP_HEAD_FIELD_MAX)
            h->too_large = true;
    }
}

/* RFC 5322 2.2: 33 to 126 but the colon. */
static bool
is_ftext(char c)
{
    return c > 0x20 && c < 0x7f && c != ':';
}

/* The name in front of the colon; empty when the line is no field. White space before the colon is
 * obsolete syntax (4.5), and read so that nothing can hide behind it (catalogue H4). */
static struct str
field_name(struct str line)
{
    struct cursor c = cursor_of(line);
    struct str name = cur_while(&c, is_ftext);
    cur_skip_wsp(&c);
    return cur_peek(&c) == ':' ? name : str_sub(line, 0, 0);
}

bool
smtp_head_end(struct str block, size_t *scan, size_t *body_r)
{
    for (;;) {
        struct str left = str_from(block, *scan);
        ptrdiff_t lf = str_chr(left, '\n');
        if (lf < 0)
            return false;
        struct str line = str_sub(left, 0, (size_t)lf);
        bool continued = line.n && ch_wsp(line.p[0]) && *scan > 0;
        if (line.n == 0 || str_eq(line, STR("\r"))) {
            *body_r = *scan + (size_t)lf + 1;
            return true;
        }
        if (!continued && field_name(line).n == 0) {
            *body_r = *scan;
            return true;
        }
        *scan += (size_t)lf + 1;
    }
}

/* The line at the cursor with its end; the last one may have none. */
static struct str
take_line(struct cursor *c)
{
    size_t from = c->at;
    cur_until(c, '\n');
    cur_next(c);
    return str_sub(c->all, from, c->at - from);
}

bool
smtp_field_next(struct cursor *c, struct smtp_field *f_r)
{
    size_t from = c->at;
    struct str name = field_name(take_line(c));
    if (name.n == 0) {
        c->at = from;
        return false;
    }
    while (cur_peek(c) == ' ' || cur_peek(c) == '\t')
        take_line(c);
    struct str whole = str_sub(c->all, from, c->at - from);
    ptrdiff_t colon = str_chr(whole, ':');
    *f_r = (struct smtp_field){name, str_trim(str_from(whole, (size_t)colon + 1)), whole};
    return true;
}

static bool
is_cfws_char(char c)
{
    return ch_wsp(c) || c == '\r' || c == '\n';
}

/* White space and comments: how many bytes, or -1 when a comment does not end. */
static ptrdiff_t
skip_cfws(struct cursor *c)
{
    size_t from = c->at, depth = 0;
    for (int ch; (ch = cur_peek(c)) >= 0;) {
        if (ch == '(')
            depth++;
        else if (depth && ch == ')')
            depth--;
        else if (depth && ch == '\\')
            cur_next(c); /* and what it quotes, below */
        else if (!depth && !is_cfws_char((char)ch))
            break;
        cur_next(c);
    }
    return depth ? -1 : (ptrdiff_t)(c->at - from);
}

/* A quoted string as it stands, without folds. */
static int
take_quoted(struct cursor *c, struct buf *out)
{
    buf_addc(out, (char)cur_next(c));
    for (int ch; (ch = cur_next(c)) >= 0;) {
        if (ch == '\r' || ch == '\n')
            continue;
        buf_addc(out, (char)ch);
        if (ch == '"')
            return 0;
        if (ch == '\\') {
            if ((ch = cur_next(c)) < 0)
                return -1;
            buf_addc(out, (char)ch);
        }
    }
    return -1;
}

static bool
is_delimiter(int ch)
{
    return ch < 0 || ch == ',' || ch == ';' || ch == ':' || ch == '<' || ch == '>';
}

static bool
is_word_char(char c)
{
    return c != '(' && c != '"' && c != '[' && !is_cfws_char(c) && !is_delimiter((unsigned char)c);
}

/* What stands in an address literal (RFC 5321 4.1.3). */
static bool
is_literal_char(char c)
{
    return ch_alnum(c) || c == '.' || c == ':' || c == '-';
}

/* Words up to a delimiter, which is not taken. White space between two words is kept as one space
 * unless it stands at a dot or an at sign (RFC 5322 4.4): a phrase is then no addr-spec. An address
 * literal may have colons; a bracket elsewhere hides nothing, since other readers see no literal
 * there (catalogue H4). */
static int
take_words(struct cursor *c, struct buf *out)
{
    for (;;) {
        ptrdiff_t gap = skip_cfws(c);
        int ch = cur_peek(c);
        if (gap < 0)
            return -1;
        if (is_delimiter(ch))
            return 0;
        char last = out->n ? out->p[out->n - 1] : '.';
        if (gap && last != '.' && last != '@' && ch != '.' && ch != '@')
            buf_addc(out, ' ');
        if (ch == '"') {
            if (take_quoted(c, out) < 0)
                return -1;
        } else if (ch == '[' && last == '@') {
            cur_next(c);
            buf_addc(out, '[');
            buf_add(out, cur_while(c, is_literal_char));
            if (!cur_take(c, ']'))
                return -1;
            buf_addc(out, ']');
        } else if (ch == '[') {
            buf_addc(out, (char)cur_next(c));
        } else {
            buf_add(out, cur_while(c, is_word_char));
        }
        if (!buf_ok(out))
            return -1;
    }
}

/* Behind '<': the addr-spec and '>', and then nothing but a comment before the next mailbox. */
static int
take_angle(struct cursor *c, struct buf *out)
{
    buf_reset(out);
    if (take_words(c, out) < 0 || !cur_take(c, '>') || skip_cfws(c) < 0)
        return -1;
    int ch = cur_peek(c);
    return ch < 0 || ch == ',' || ch == ';' ? 1 : -1;
}

int
smtp_mailbox_next(struct cursor *c, size_t *in_list, struct buf *out)
{
    for (;;) {
        buf_reset(out);
        if (take_words(c, out) < 0)
            return -1;
        int ch = cur_next(c);
        if (ch == '>' || *in_list >= SMTP_HEAD_MAILBOXES_MAX)
            return -1;
        if (ch == ':') /* the name of a group: its members follow */
            continue;
        if (ch == '<' && take_angle(c, out) < 0)
            return -1;
        if (out->n || ch == '<') {
            ++*in_list;
            return 1;
        }
        if (ch < 0)
            return 0;
    }
}

bool
smtp_head_bulk(struct str block)
{
    static const char *const low[] = {"list", "bulk", "junk"};
    struct cursor c = cursor_of(block);
    for (struct smtp_field f; smtp_field_next(&c, &f);) {
        if (str_caseeq(f.name, STR("List-Id")))
            return true;
        if (!str_caseeq(f.name, STR("Precedence")))
            continue;
        for (size_t i = 0; i < sizeof low / sizeof low[0]; i++)
            if (str_caseeq(str_trim(f.value), str_z(low[i])))
                return true;
    }
    return false;
}
