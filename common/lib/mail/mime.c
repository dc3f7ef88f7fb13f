#include "lib/mail/mime.h"
#include "lib/mail/cfws.h"
#include "lib/base/buf.h"
#include "lib/base/cursor.h"
#include "lib/mail/header.h"
#include "lib/mail/rfc2231.h"
#include <stdlib.h>

/* ---- fields ---- */

/* RFC 2045 5.1, and bytes above 0x7e, which some write unquoted. */
static bool
token_byte(char c)
{
    return (unsigned char)c > 0x20 && c != 0x7f && !strchr("()<>@,;:\\\"/[]?=", c);
}

/* Values in the wild hold more than token bytes without quotes. */
static bool
loose_byte(char c)
{
    return (unsigned char)c > 0x20 && c != 0x7f && c != ';' && c != '"' && c != '(';
}

static struct str
quoted(struct cursor *c, struct arena *arena)
{
    struct buf text = buf_new(HEADER_FIELD_MAX);
    cur_next(c);
    for (int b; (b = cur_next(c)) >= 0 && b != '"';) {
        if (b == '\\' && cur_peek(c) >= 0)
            b = cur_next(c);
        if (b != '\r' && b != '\n')
            buf_addc(&text, (char)b);
    }
    struct str kept = arena_str(arena, buf_str(&text));
    buf_free(&text);
    return kept;
}

/* To the next ';' outside quotes and comments, which is taken. */
static void
next_param(struct cursor *c)
{
    for (;;) {
        cfws_skip(c);
        int b = cur_next(c);
        if (b < 0 || b == ';')
            return;
        if (b == '"')
            while ((b = cur_next(c)) >= 0 && b != '"')
                if (b == '\\')
                    cur_next(c);
    }
}

/* One "name=value" at the cursor. */
static bool
take_param(struct cursor *c, struct arena *arena, struct mime_param *p_r)
{
    cfws_skip(c);
    struct str name = cur_while(c, token_byte);
    cfws_skip(c);
    if (name.n == 0 || !cur_take(c, '='))
        return false;
    cfws_skip(c);
    p_r->name = arena_str(arena, name);
    p_r->value = cur_peek(c) == '"' ? quoted(c, arena) : arena_str(arena, cur_while(c, loose_byte));
    return p_r->name.p && p_r->value.p;
}

int
mime_parse_value(struct str value, bool with_subtype, struct arena *arena, struct str *type_r,
                 struct str *subtype_r, struct mime_param **params_r, size_t *nparams_r)
{
    struct cursor c = cursor_of(value);
    struct mime_param found[MIME_PARAMS_MAX];
    size_t n = 0;
    *nparams_r = 0;
    *params_r = NULL;
    cfws_skip(&c);
    struct str type = cur_while(&c, token_byte), subtype = str_of("", 0);
    cfws_skip(&c);
    if (with_subtype) {
        if (!cur_take(&c, '/'))
            return -1;
        cfws_skip(&c);
        subtype = cur_while(&c, token_byte);
    }
    if (type.n == 0 || (with_subtype && subtype.n == 0))
        return -1;
    *type_r = arena_str(arena, type);
    *subtype_r = arena_str(arena, subtype);
    next_param(&c);
    while (!cur_end(&c) && n < MIME_PARAMS_MAX) {
        if (take_param(&c, arena, &found[n]))
            n++;
        next_param(&c);
    }
    n = rfc2231_join(found, n, arena);
    if (n == SIZE_MAX)
        return -1;
    *params_r = arena_array(arena, n, sizeof **params_r);
    if (!*params_r || !type_r->p || !subtype_r->p)
        return -1;
    if (n)
        memcpy(*params_r, found, n * sizeof *found);
    *nparams_r = n;
    return 0;
}

struct str
mime_param(const struct mime_param *params, size_t n, struct str name)
{
    for (size_t i = 0; i < n; i++)
        if (str_caseeq(params[i].name, name))
            return params[i].value;
    return str_of(NULL, 0);
}

static struct str
unfolded(struct str value, struct arena *arena)
{
    struct buf line = buf_new(HEADER_FIELD_MAX);
    header_unfold(&line, value);
    struct str kept = arena_str(arena, buf_str(&line));
    buf_free(&line);
    return kept.p ? kept : str_of("", 0);
}

/* RFC 2045 6.1: one token. */
static struct str
one_token(struct str value, struct arena *arena)
{
    struct cursor c = cursor_of(value);
    cfws_skip(&c);
    struct str kept = arena_str(arena, cur_while(&c, token_byte));
    return kept.p ? kept : str_of("", 0);
}

static void
languages(struct str value, struct arena *arena, struct mime_part *p)
{
    struct str found[MIME_LANGUAGES_MAX];
    struct cursor c = cursor_of(value);
    size_t n = 0;
    while (!cur_end(&c) && n < MIME_LANGUAGES_MAX) {
        cfws_skip(&c);
        struct str tag = cur_while(&c, token_byte);
        if (tag.n)
            found[n++] = arena_str(arena, tag);
        else
            cur_next(&c);
    }
    p->languages = arena_array(arena, n, sizeof *p->languages);
    if (p->languages && n) {
        memcpy(p->languages, found, n * sizeof *found);
        p->nlanguages = n;
    }
}

static void
take_field(const struct header_field *f, struct arena *arena, struct mime_part *p)
{
    struct str none;
    const struct {
        const char *name;
        struct str *to;
    } texts[] = {{"Content-ID", &p->id},
                 {"Content-Description", &p->description},
                 {"Content-MD5", &p->md5},
                 {"Content-Location", &p->location}};
    if (!str_casestarts(f->name, STR("Content-")))
        return;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        if (!texts[i].to->n && str_caseeq(f->name, str_z(texts[i].name)))
            *texts[i].to = unfolded(f->value, arena);
    if (!p->type.n && str_caseeq(f->name, STR("Content-Type")) &&
        mime_parse_value(f->value, true, arena, &p->type, &p->subtype, &p->params, &p->nparams) < 0)
        p->type = str_of(NULL, 0);
    if (!p->encoding.n && str_caseeq(f->name, STR("Content-Transfer-Encoding")))
        p->encoding = one_token(f->value, arena);
    if (!p->disposition.n && str_caseeq(f->name, STR("Content-Disposition")) &&
        mime_parse_value(f->value, false, arena, &p->disposition, &none, &p->disposition_params,
                         &p->ndisposition_params) < 0)
        p->disposition = str_of("", 0);
    if (!p->nlanguages && str_caseeq(f->name, STR("Content-Language")))
        languages(f->value, arena, p);
}

/* ---- structure ---- */

/* Bytes of a line that are kept to see whether it is a delimiter, blanks behind it included. */
enum { LINE_KEEP = 1024 };

struct open_part {
    uint32_t part;
    uint32_t last;       /* its last child, or MIME_NONE */
    uint32_t lines_at;   /* line ends before its body */
    struct str boundary; /* n 0: not a multipart, or past its end delimiter */
};

struct mime_parser {
    struct buf head;    /* of the innermost part, while in_header */
    struct buf line;    /* the beginning of the line that is being read */
    size_t line_at, at; /* where it began; where we are */
    unsigned ended;     /* bytes of the line end before line_at: 0 to 2 */
    char last;          /* the byte before `at` */
    struct arena *arena;
    struct mime *m;
    size_t cap;
    /* A level for each part from the message to the one being read: a part of depth d is at d. */
    struct open_part open[MIME_DEPTH_MAX + 1];
    size_t nopen;
    bool in_header;
    bool failed;
    uint32_t lines; /* line ends seen */
};

static struct mime_part *
part(struct mime_parser *p, uint32_t i)
{
    return &p->m->parts[i];
}

static struct open_part *
innermost(struct mime_parser *p)
{
    return &p->open[p->nopen - 1];
}

/* A part whose header begins at `at`, as the last child of the innermost open one. */
static uint32_t
add_part(struct mime_parser *p, size_t at)
{
    if (p->m->n == p->cap) {
        size_t cap = p->cap ? p->cap * 2 : 8;
        struct mime_part *parts = reallocarray(p->m->parts, cap, sizeof *parts);
        if (!parts) {
            p->failed = true;
            return MIME_NONE;
        }
        p->m->parts = parts;
        p->cap = cap;
    }
    uint32_t i = (uint32_t)p->m->n++;
    struct mime_part *x = part(p, i);
    *x = (struct mime_part){.parent = MIME_NONE,
                            .next = MIME_NONE,
                            .first = MIME_NONE,
                            .depth = (uint16_t)p->nopen,
                            .header_at = at,
                            .body_at = at,
                            .end = at};
    if (p->nopen) {
        struct open_part *up = innermost(p);
        x->parent = up->part;
        if (up->last == MIME_NONE)
            part(p, up->part)->first = i;
        else
            part(p, up->last)->next = i;
        up->last = i;
    }
    return i;
}

static void
begin_part(struct mime_parser *p, size_t at)
{
    uint32_t i = add_part(p, at);
    if (i == MIME_NONE)
        return;
    p->open[p->nopen++] = (struct open_part){.part = i, .last = MIME_NONE};
    p->in_header = true;
}

static void
default_type(struct mime_parser *p, struct mime_part *x)
{
    bool digest = x->parent != MIME_NONE && part(p, x->parent)->kind == MIME_MULTIPART &&
                  str_caseeq(part(p, x->parent)->subtype, STR("digest"));
    x->type = digest ? STR("message") : STR("text");
    x->subtype = digest ? STR("rfc822") : STR("plain");
}

static void
make_octets(struct mime_parser *p, struct mime_part *x)
{
    x->kind = MIME_LEAF;
    x->first = MIME_NONE;
    x->type = STR("application");
    x->subtype = STR("octet-stream");
    p->m->truncated = true;
}

/* The header of the innermost part is complete, its body begins at `at`: what is it? */
static void
end_header(struct mime_parser *p, size_t at)
{
    struct open_part *o = innermost(p);
    struct mime_part *x = part(p, o->part);
    struct header h = header_of(buf_str(&p->head));
    struct header_field f;
    p->in_header = false;
    x->body_at = at;
    o->lines_at = p->lines;
    while (header_next(&h, &f))
        take_field(&f, p->arena, x);
    buf_reset(&p->head);
    if (!x->type.n)
        default_type(p, x);
    bool message = str_caseeq(x->type, STR("message")) &&
                   (str_caseeq(x->subtype, STR("rfc822")) ||
                    str_caseeq(x->subtype, STR("global"))); /* RFC 6532 3.7 */
    if (str_caseeq(x->type, STR("multipart"))) {
        struct str b = mime_param(x->params, x->nparams, STR("boundary"));
        while (b.n && ch_wsp(b.p[b.n - 1]))
            b.n--;
        if (b.n == 0 || b.n > MIME_BOUNDARY_MAX) {
            x->type = STR("text");
            x->subtype = STR("plain");
            x->nparams = 0;
        } else if (p->nopen > MIME_DEPTH_MAX) {
            make_octets(p, x);
        } else {
            x->kind = MIME_MULTIPART;
            o->boundary = b;
        }
    } else if (message && (p->nopen > MIME_DEPTH_MAX || p->m->n >= MIME_PARTS_MAX)) {
        make_octets(p, x);
    } else if (message) {
        x->kind = MIME_MESSAGE;
        begin_part(p, at);
    }
}

/* Close the innermost part: its content ends at `end`; cut says that a line end was taken off. */
static void
close_part(struct mime_parser *p, size_t end, bool cut)
{
    /* end_header() may open the inside of a message: that is empty, and closed first. */
    while (p->in_header && !p->failed) {
        size_t from = part(p, innermost(p)->part)->header_at;
        end_header(p, end > from ? end : from);
    }
    struct open_part *o = innermost(p);
    struct mime_part *x = part(p, o->part);
    x->end = end > x->body_at ? end : x->body_at;
    uint32_t lines = p->lines - o->lines_at;
    x->lines = lines && cut ? lines - 1 : lines;
    if (x->kind == MIME_MULTIPART && x->first == MIME_NONE) {
        size_t at = x->end;
        uint32_t i = add_part(p, at);
        if (i != MIME_NONE) {
            part(p, i)->type = STR("text");
            part(p, i)->subtype = STR("plain");
        }
    }
    p->nopen--;
}

/* Close all that is deeper than level (a count of open parts). */
static void
close_to(struct mime_parser *p, size_t level, size_t end, bool cut)
{
    while (p->nopen > level && !p->failed)
        close_part(p, end, cut);
}

/* Is line the delimiter of an open multipart? Its level, with *last_r for the end delimiter; or -1.
 */
static ptrdiff_t
delimiter(const struct mime_parser *p, struct str line, bool *last_r)
{
    struct str b = str_from(line, 2);
    while (b.n && (ch_wsp(b.p[b.n - 1]) || b.p[b.n - 1] == '\r' || b.p[b.n - 1] == '\n'))
        b.n--;
    for (size_t i = p->nopen; i-- > 0;) {
        struct str want = p->open[i].boundary;
        if (!want.n || !str_starts(b, want))
            continue;
        struct str tail = str_from(b, want.n);
        *last_r = str_eq(tail, STR("--"));
        if (tail.n == 0 || *last_r)
            return (ptrdiff_t)i;
    }
    return -1;
}

/* At a line "--...": true when it was a delimiter and is dealt with. */
static bool
take_delimiter(struct mime_parser *p, struct str line)
{
    bool last;
    ptrdiff_t level = delimiter(p, line, &last);
    if (level < 0)
        return false;
    bool lf = line.p[line.n - 1] == '\n';
    if (!last && p->m->n >= MIME_PARTS_MAX) {
        /* No more parts: all that follows stays in the one that is open. */
        if (p->nopen > (size_t)level + 1)
            make_octets(p, part(p, innermost(p)->part));
        p->lines++;
        return true;
    }
    /* The line end before it belongs to it (RFC 2046 5.1.1). */
    close_to(p, (size_t)level + 1, p->line_at - p->ended, p->ended > 0);
    if (last)
        p->open[level].boundary = str_of("", 0);
    else
        begin_part(p, p->at);
    p->lines += lf;
    return true;
}

/* The line is complete: line is all of it, or the LINE_KEEP bytes it began with. */
static void
take_line(struct mime_parser *p, struct str line, bool lf)
{
    bool kept = p->at - p->line_at == line.n;
    if (kept && str_starts(line, STR("--")) && take_delimiter(p, line))
        return;
    p->lines += lf;
    if (p->in_header && (str_eq(line, STR("\r\n")) || str_eq(line, STR("\n"))))
        end_header(p, p->at);
}

/* A piece of the line that is being read, and whether it ends it. */
static void
take_piece(struct mime_parser *p, struct str piece, bool lf)
{
    bool whole = lf && p->line.n == 0 && p->at == p->line_at;
    char before = p->last;
    /* Only its beginning is looked at again: a limit reached is no error. */
    if (p->in_header)
        buf_add(&p->head, str_sub(piece, 0, buf_room(&p->head)));
    if (!whole)
        buf_add(&p->line, str_sub(piece, 0, buf_room(&p->line)));
    p->at += piece.n;
    p->last = piece.p[piece.n - 1];
    if (!lf)
        return;
    if (piece.n > 1)
        before = piece.p[piece.n - 2];
    bool crlf = before == '\r' && p->at - p->line_at > 1;
    take_line(p, whole ? piece : buf_str(&p->line), true);
    p->ended = crlf ? 2 : 1;
    p->line_at = p->at;
    buf_reset(&p->line);
}

struct mime_parser *
mime_begin(struct arena *arena, struct mime *m_r)
{
    struct mime_parser *p = calloc(1, sizeof *p);
    *m_r = (struct mime){0};
    if (!p)
        return NULL;
    *p = (struct mime_parser){.head = buf_new(HEADER_BLOCK_MAX + HEADER_FIELD_MAX),
                              .line = buf_new(LINE_KEEP),
                              .arena = arena,
                              .m = m_r};
    begin_part(p, 0);
    return p;
}

void
mime_feed(struct mime_parser *p, struct str piece)
{
    while (piece.n && !p->failed) {
        ptrdiff_t lf = str_chr(piece, '\n');
        size_t n = lf < 0 ? piece.n : (size_t)lf + 1;
        take_piece(p, str_sub(piece, 0, n), lf >= 0);
        piece = str_from(piece, n);
    }
}

int
mime_end(struct mime_parser *p)
{
    if (!p->failed && p->at > p->line_at)
        take_line(p, buf_str(&p->line), false);
    if (!p->failed)
        close_to(p, 0, p->at, false);
    int result = p->failed ? -1 : 0;
    if (p->failed)
        mime_free(p->m);
    buf_free(&p->head);
    buf_free(&p->line);
    free(p);
    return result;
}

int
mime_parse(struct str message, struct arena *arena, struct mime *m_r)
{
    struct mime_parser *p = mime_begin(arena, m_r);
    if (!p)
        return -1;
    mime_feed(p, message);
    return mime_end(p);
}

void
mime_free(struct mime *m)
{
    free(m->parts);
    *m = (struct mime){0};
}
