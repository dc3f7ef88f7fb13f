#include "lib/mail/addrlist.h"
#include "lib/base/buf.h"
#include "lib/base/cursor.h"
#include <stdlib.h>

struct parser {
    struct cursor c;
    struct arena *arena;
    struct addrlist_entry *at;
    size_t n, cap;
    bool in_group, failed;
    struct buf phrase;  /* words so far, one space between */
    struct buf local;   /* the same words as a local part: nothing between */
    struct buf comment; /* the last one */
    struct buf route, host;
};

static struct str
keep(struct parser *p, const struct buf *b)
{
    struct str s = arena_str(p->arena, str_trim(buf_str(b)));
    if (!s.p)
        p->failed = true;
    return s;
}

static void
add(struct parser *p, enum addrlist_kind kind, bool angle)
{
    if (p->n == p->cap) {
        size_t cap = p->cap ? p->cap * 2 : 16;
        struct addrlist_entry *at = reallocarray(p->at, cap, sizeof *at);
        if (!at) {
            p->failed = true;
            return;
        }
        p->at = at;
        p->cap = cap;
    }
    struct addrlist_entry x = {.kind = kind};
    if (kind == ADDRLIST_GROUP_START)
        x.mailbox = keep(p, &p->phrase);
    if (kind == ADDRLIST_ADDRESS) {
        bool named = angle && p->phrase.n;
        x.name = keep(p, named ? &p->phrase : &p->comment);
        x.route = keep(p, &p->route);
        x.mailbox = keep(p, &p->local);
        x.host = keep(p, &p->host);
    }
    p->at[p->n++] = x;
}

static void
restart(struct parser *p)
{
    buf_reset(&p->phrase);
    buf_reset(&p->local);
    buf_reset(&p->comment);
    buf_reset(&p->route);
    buf_reset(&p->host);
}

/* At '(': to the matching ')', or the end. */
static void
comment(struct parser *p)
{
    unsigned depth = 0;
    buf_reset(&p->comment);
    for (int b; (b = cur_next(&p->c)) >= 0;) {
        if (b == '(' && depth++ == 0)
            continue;
        if (b == ')' && --depth == 0)
            return;
        if (b == '\\' && cur_peek(&p->c) >= 0)
            b = cur_next(&p->c);
        if (b != '\r' && b != '\n')
            buf_addc(&p->comment, (char)b);
    }
}

static void
skip(struct parser *p)
{
    for (;;) {
        int b = cur_peek(&p->c);
        if (b == '(')
            comment(p);
        else if (b == ' ' || b == '\t' || b == '\r' || b == '\n')
            cur_next(&p->c);
        else
            return;
    }
}

static bool
atom_byte(char c)
{
    return c != ' ' && c != '\t' && c != '\r' && c != '\n' &&
           (c == '\0' || !strchr("()<>@,;:\\\"[]", c));
}

/* At '"': the text without quotes appended to out; the end of input ends it too. */
static void
quoted(struct parser *p, struct buf *out)
{
    cur_next(&p->c);
    for (int b; (b = cur_next(&p->c)) >= 0 && b != '"';) {
        if (b == '\\' && cur_peek(&p->c) >= 0)
            b = cur_next(&p->c);
        if (b != '\r' && b != '\n')
            buf_addc(out, (char)b);
    }
}

/* An atom (dots are part of it) or quoted string at the cursor appended; false when neither is
 * there. */
static bool
word(struct parser *p, struct buf *out)
{
    if (cur_peek(&p->c) == '"') {
        quoted(p, out);
        return true;
    }
    struct str atom = cur_while(&p->c, atom_byte);
    buf_add(out, atom);
    return atom.n > 0;
}

static void
domain(struct parser *p)
{
    for (;;) {
        skip(p);
        if (cur_peek(&p->c) == '[') {
            struct str literal = cur_until(&p->c, ']');
            buf_add(&p->host, literal);
            if (cur_take(&p->c, ']'))
                buf_addc(&p->host, ']');
        } else if (!word(p, &p->host)) {
            return;
        }
    }
}

/* Not over the next '<': else each of many would be looked through to the end. */
static bool
route_byte(char c)
{
    return ch_print(c) && c != '<' && c != '>';
}

/* Behind '<': "@a,@b:local@domain>"; what cannot be is passed over up to '>' or ','. */
static void
angle(struct parser *p)
{
    buf_reset(&p->local);
    skip(p);
    if (cur_peek(&p->c) == '@') {
        struct cursor at = p->c;
        struct str route = cur_while(&at, route_byte);
        ptrdiff_t colon = str_chr(route, ':');
        if (colon >= 0) {
            buf_add(&p->route, str_sub(route, 0, (size_t)colon));
            cur_take_n(&p->c, (size_t)colon + 1);
        }
    }
    for (bool more = true; more;) {
        skip(p);
        more = word(p, &p->local);
    }
    if (cur_take(&p->c, '@'))
        domain(p);
    while (!cur_end(&p->c) && cur_peek(&p->c) != '>' && cur_peek(&p->c) != ',')
        cur_next(&p->c);
    cur_take(&p->c, '>');
}

static void
words(struct parser *p)
{
    struct buf one = buf_new(SIZE_MAX >> 1);
    while (word(p, &one)) {
        bool blank = p->c.at < p->c.all.n && !atom_byte(p->c.all.p[p->c.at]);
        if (p->phrase.n)
            buf_addc(&p->phrase, ' ');
        buf_add(&p->phrase, buf_str(&one));
        buf_add(&p->local, buf_str(&one));
        buf_reset(&one);
        if (blank)
            skip(p);
    }
    buf_free(&one);
}

/* One address or group mark; always takes something. */
static void
step(struct parser *p)
{
    skip(p);
    words(p);
    switch (cur_peek(&p->c)) {
    case '<':
        cur_next(&p->c);
        angle(p);
        add(p, ADDRLIST_ADDRESS, true);
        /* "a <b> c, d": what is left up to the comma belongs to nothing. */
        while (!cur_end(&p->c) && cur_peek(&p->c) != ',' && cur_peek(&p->c) != ';') {
            size_t at = p->c.at;
            skip(p);
            if (cur_peek(&p->c) == '"')
                quoted(p, &p->comment);
            else if (p->c.at == at)
                cur_next(&p->c);
        }
        restart(p);
        return;
    case '@':
        cur_next(&p->c);
        domain(p);
        add(p, ADDRLIST_ADDRESS, false);
        restart(p);
        return;
    case ':':
        cur_next(&p->c);
        if (!p->in_group && p->phrase.n) {
            add(p, ADDRLIST_GROUP_START, false);
            p->in_group = true;
        }
        restart(p);
        return;
    default:
        break;
    }
    int stop = cur_next(&p->c);
    if (stop >= 0 && stop != ',' && stop != ';')
        return; /* a stray byte: as if it were not there */
    if (p->local.n)
        add(p, ADDRLIST_ADDRESS, false);
    restart(p);
    if (stop == ';' && p->in_group) {
        add(p, ADDRLIST_GROUP_END, false);
        p->in_group = false;
    }
}

int
addrlist_parse(struct str value, struct arena *arena, struct addrlist *list_r)
{
    const size_t max = SIZE_MAX >> 1;
    struct parser p = {.c = cursor_of(value),
                       .arena = arena,
                       .phrase = buf_new(max),
                       .local = buf_new(max),
                       .comment = buf_new(max),
                       .route = buf_new(max),
                       .host = buf_new(max)};
    while (!cur_end(&p.c) && p.n < ADDRLIST_MAX - 2 && !p.failed)
        step(&p);
    if (cur_end(&p.c) && p.local.n)
        add(&p, ADDRLIST_ADDRESS, false);
    if (p.in_group)
        add(&p, ADDRLIST_GROUP_END, false);
    struct addrlist_entry *at = arena_array(arena, p.n, sizeof *at);
    if (at && p.n)
        memcpy(at, p.at, p.n * sizeof *at);
    *list_r = (struct addrlist){at, at ? p.n : 0};
    free(p.at);
    buf_free(&p.phrase);
    buf_free(&p.local);
    buf_free(&p.comment);
    buf_free(&p.route);
    buf_free(&p.host);
    return at && !p.failed ? 0 : -1;
}
