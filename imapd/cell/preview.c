/* PREVIEW (RFC 8970): the beginning of the first text, on one line. */
#include "imapd/cell/args.h"
#include "imapd/cell/fetch.h"
#include "lib/mail/bodytext.h"

/* Bytes of a part that are looked at, and characters that are told (RFC 8970 3.2). */
enum { LOOK_MAX = 16384, PREVIEW_MAX = 200 };

/* Behind '<': to the end of the tag, and of what a style or script has in it. */
static void
skip_tag(struct cursor *c)
{
    static const char *const hidden[] = {"style", "script", "head", "title"};
    struct cursor at = *c;
    struct str name = cur_while(&at, ch_alpha);
    for (size_t i = 0; i < sizeof hidden / sizeof hidden[0]; i++)
        if (str_caseeq(name, str_z(hidden[i]))) {
            struct buf end = buf_new(16);
            buf_addf(&end, "</%s", hidden[i]);
            ptrdiff_t from = str_casefind(cur_rest(c), buf_str(&end));
            cur_take_n(c, from < 0 ? cur_rest(c).n : (size_t)from);
            buf_free(&end);
        }
    if (cur_take_str(c, STR("!--"))) {
        ptrdiff_t from = str_find(cur_rest(c), STR("-->"));
        cur_take_n(c, from < 0 ? cur_rest(c).n : (size_t)from);
    }
    cur_until(c, '>');
    cur_take(c, '>');
}

static char
entity(struct cursor *c)
{
    static const struct {
        const char *name;
        char is;
    } known[] = {{"&nbsp;", ' '}, {"&amp;", '&'},  {"&lt;", '<'},   {"&gt;", '>'},
                 {"&quot;", '"'}, {"&#39;", '\''}, {"&#160;", ' '}, {"&apos;", '\''}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (cur_take_case(c, str_z(known[i].name)))
            return known[i].is;
    return (char)cur_next(c);
}

/* Without tags, every run of blanks and controls one space, at most PREVIEW_MAX characters. */
static void
condense(struct buf *out, struct str text, bool html)
{
    struct cursor c = cursor_of(text);
    size_t characters = 0;
    bool gap = false;
    while (!cur_end(&c)) {
        if (html && cur_take(&c, '<')) {
            skip_tag(&c);
            gap = true;
            continue;
        }
        char b = html && cur_peek(&c) == '&' ? entity(&c) : (char)cur_next(&c);
        if ((unsigned char)b <= ' ' || b == 0x7f) {
            gap = true;
            continue;
        }
        bool begins = ((unsigned char)b & 0xc0) != 0x80;
        gap = gap && begins && out->n;
        if (begins && (characters += 1 + (size_t)gap) > PREVIEW_MAX)
            return;
        if (gap)
            buf_addc(out, ' ');
        buf_addc(out, b);
        gap = false;
    }
}

/* What is not UTF-8 (a character cut, or a charset we do not know) is told as '?'. */
static void
clean(struct buf *text)
{
    size_t n = 0;
    for (size_t i = 0; i < text->n; n++) {
        unsigned char b = (unsigned char)text->p[i];
        size_t length = b < 0x80 ? 1 : b >= 0xf0 ? 4 : b >= 0xe0 ? 3 : 2;
        bool good = str_utf8(str_sub(buf_str(text), i, length)) && text->n - i >= length;
        if (!good) {
            text->p[n] = '?';
            i++;
            continue;
        }
        memmove(text->p + n, text->p + i, length);
        n += length - 1;
        i += length;
    }
    buf_truncate(text, n);
}

static const struct mime_part *
first_text(const struct mime *m)
{
    for (size_t i = 0; i < m->n; i++) {
        const struct mime_part *p = &m->parts[i];
        if (p->kind == MIME_LEAF && str_caseeq(p->type, STR("text")) && p->end > p->body_at)
            return p;
    }
    return NULL;
}

void
icell_preview(struct buf *out, const struct mime *m, const struct mailfile *f)
{
    const struct mime_part *p = first_text(m);
    struct buf room = buf_new(LOOK_MAX), raw = buf_new(LOOK_MAX), text = buf_new(2 * LOOK_MAX),
               line = buf_new(8 * PREVIEW_MAX);
    if (p) {
        size_t end = p->end - p->body_at > LOOK_MAX ? p->body_at + LOOK_MAX : p->end;
        bodytext_decode(&raw, icell_range(f, p->body_at, end, &room), p->encoding);
        bodytext_utf8(&text, buf_str(&raw), mime_param(p->params, p->nparams, STR("charset")));
        clean(&text);
        condense(&line, buf_str(&text), str_caseeq(p->subtype, STR("html")));
    }
    icell_put_nstring(out, buf_str(&line));
    buf_free(&room);
    buf_free(&raw);
    buf_free(&text);
    buf_free(&line);
}
