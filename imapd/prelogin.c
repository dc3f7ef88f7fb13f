#include "imapd/prelogin.h"
#include "lib/base/cursor.h"
#include "lib/login/login.h"

/* RFC 3501 9: ASTRING-CHAR is any CHAR but "(" / ")" / "{" / SP / CTL / "%" / "*" / "\" / DQUOTE.
 */
static bool
is_astring_char(char c)
{
    return ch_print(c) && c != ' ' && !strchr("(){%*\"\\", c);
}

static bool
is_tag_char(char c)
{
    return is_astring_char(c) && c != '+';
}

static bool
is_tag_or_name_end(struct cursor *c)
{
    return cur_end(c) || cur_peek(c) == ' ';
}

static enum prelogin_result
bad(struct err *e, const char *why)
{
    err_set(e, ERR_PROTOCOL, "%s", why);
    return PRELOGIN_BAD;
}

static enum prelogin_result
take_tag_and_name(struct prelogin *p, struct cursor *c, struct err *e)
{
    struct str tag = cur_while(c, is_tag_char);
    if (tag.n == 0 || tag.n > PRELOGIN_TAG_MAX || !is_tag_or_name_end(c))
        return bad(e, "no tag");
    memcpy(p->tag, tag.p, tag.n);
    p->tag[tag.n] = '\0';
    if (!cur_take(c, ' '))
        return bad(e, "no command");
    struct str name = cur_while(c, ch_alnum);
    if (name.n == 0 || name.n >= sizeof p->name || !is_tag_or_name_end(c))
        return bad(e, "unknown command");
    for (size_t i = 0; i < name.n; i++)
        p->name[i] = ch_upper(name.p[i]);
    p->name[name.n] = '\0';
    return PRELOGIN_OK;
}

/* quoted = DQUOTE *QUOTED-CHAR DQUOTE. Bytes above 0x7e pass: passwords have them. */
static enum prelogin_result
take_quoted(struct prelogin *p, struct cursor *c, struct err *e)
{
    cur_take(c, '"');
    for (;;) {
        int ch = cur_next(c);
        if (ch == '"')
            return PRELOGIN_OK;
        if (ch == '\\') {
            ch = cur_next(c);
            if (ch != '"' && ch != '\\')
                return bad(e, "bad escape in a quoted string");
        }
        if (ch < 0)
            return bad(e, "unfinished quoted string");
        buf_addc(&p->text, (char)ch);
    }
}

/* literal = "{" number ["+"] "}" at the end of the line. *keep_r: bytes that follow. */
static enum prelogin_result
take_literal_head(struct cursor *c, size_t *n_r, bool *sync_r, struct err *e)
{
    cur_take(c, '{');
    struct str digits = cur_while(c, ch_digit);
    uint32_t n = 0;
    *sync_r = !cur_take(c, '+');
    if (!cur_take(c, '}') || !cur_end(c) || digits.n == 0 || digits.n > 10 ||
        (digits.p[0] == '0' && digits.n > 1))
        return bad(e, "bad literal");
    if (str_u32(digits, UINT32_MAX, &n) < 0 || n > PRELOGIN_LITERAL_MAX) {
        err_set(e, ERR_LIMIT, "literal too large");
        /* What was not asked for is on its way, and cannot be told from commands. */
        return *sync_r ? PRELOGIN_BIG : PRELOGIN_CLOSE;
    }
    *n_r = n;
    return PRELOGIN_OK;
}

static enum prelogin_result
next_line(struct stream *io, struct buf *copy, struct err *e)
{
    struct str line;
    bool bare;
    if (stream_line(io, LOGIN_LINE_MAX, &line, &bare, e) < 0)
        return PRELOGIN_CLOSE;
    buf_reset(copy); /* reading a literal moves what line points to */
    buf_add(copy, line);
    /* LF alone ends a line for people at a terminal; nothing else may be bare. */
    if (str_chr(line, '\r') >= 0 || str_chr(line, '\0') >= 0)
        return bad(e, "NUL or bare CR");
    return PRELOGIN_OK;
}

/* A literal's bytes, and the line that goes on behind them. */
static enum prelogin_result
take_literal(struct prelogin *p, struct stream *io, struct buf *copy, struct cursor *c,
             struct err *e)
{
    size_t n = 0, before = p->text.n;
    bool sync = false;
    enum prelogin_result r = take_literal_head(c, &n, &sync, e);
    if (r != PRELOGIN_OK)
        return r;
    if (sync)
        stream_putz(io, "+ OK\r\n");
    if (stream_exactly(io, n, &p->text, e) < 0)
        return PRELOGIN_CLOSE;
    bool nul = str_chr(str_from(buf_str(&p->text), before), '\0') >= 0;
    r = next_line(io, copy, e);
    *c = cursor_of(buf_str(copy));
    return r == PRELOGIN_OK && nul ? bad(e, "NUL in a literal") : r;
}

static enum prelogin_result
take_arg(struct prelogin *p, struct stream *io, struct buf *copy, struct cursor *c, struct err *e)
{
    enum prelogin_result r = PRELOGIN_OK;
    if (p->nargs == PRELOGIN_ARGS_MAX)
        return bad(e, "too many arguments");
    size_t at = p->text.n;
    if (cur_peek(c) == '"')
        r = take_quoted(p, c, e);
    else if (cur_peek(c) == '{')
        r = take_literal(p, io, copy, c, e);
    else {
        struct str atom = cur_while(c, is_astring_char);
        if (atom.n == 0)
            return bad(e, "bad argument");
        buf_add(&p->text, atom);
    }
    if (r == PRELOGIN_OK && !buf_ok(&p->text))
        return bad(e, "arguments too long");
    p->args[p->nargs].at = at;
    p->args[p->nargs++].n = p->text.n - at;
    return r;
}

/* The rest of a command that went wrong may have a literal behind it, as in LOGIN ( {5+}: then what
 * follows is not a command. */
static bool
ends_in_literal(struct str line)
{
    if (line.n < 3 || line.p[line.n - 1] != '}')
        return false;
    ptrdiff_t open = str_rchr(line, '{');
    struct str inner =
        open < 0 ? STR("") : str_sub(line, (size_t)open + 1, line.n - (size_t)open - 2);
    if (inner.n && inner.p[inner.n - 1] == '+')
        inner.n--;
    else
        return false; /* a client that waits for "+" sends nothing more */
    struct cursor c = cursor_of(inner);
    return inner.n && cur_while(&c, ch_digit).n == inner.n;
}

enum prelogin_result
prelogin_read(struct prelogin *p, struct stream *io, struct err *e)
{
    struct buf copy = buf_new(LOGIN_LINE_MAX + 2);
    prelogin_wipe(p);
    enum prelogin_result r = next_line(io, &copy, e);
    struct cursor c = cursor_of(buf_str(&copy));
    p->http = login_is_http(c.all);
    if (r == PRELOGIN_OK)
        r = take_tag_and_name(p, &c, e);
    while (r == PRELOGIN_OK && !cur_end(&c))
        r = cur_take(&c, ' ') ? take_arg(p, io, &copy, &c, e) : bad(e, "bad argument");
    if (r == PRELOGIN_BAD && ends_in_literal(buf_str(&copy)))
        r = PRELOGIN_CLOSE;
    buf_wipe(&copy);
    return r;
}

struct str
prelogin_arg(const struct prelogin *p, size_t i)
{
    if (i >= p->nargs)
        return STR("");
    return str_sub(buf_str(&p->text), p->args[i].at, p->args[i].n);
}

void
prelogin_wipe(struct prelogin *p)
{
    buf_wipe(&p->text);
    *p = prelogin_new();
}
