#include "imapd/cell/args.h"
#include "imapd/cell/fetch.h"
#include "lib/mail/header.h"

bool
icell_section_in_header(const struct icell_section *s)
{
    return s->npath == 0 &&
           (s->text == ICELL_HEADER || s->text == ICELL_FIELDS || s->text == ICELL_FIELDS_NOT);
}

/* The part that a path names (RFC 3501 6.4.5): the numbers count the parts of a multipart; a
 * message that is no multipart has the one part 1; message/rfc822 is stepped into. */
static uint32_t
find_part(const struct mime *m, const struct icell_section *s)
{
    uint32_t at = 0;
    for (size_t i = 0; i < s->npath; i++) {
        bool inside = i == 0 || m->parts[at].kind == MIME_MESSAGE;
        uint32_t base = i > 0 && m->parts[at].kind == MIME_MESSAGE ? m->parts[at].first : at;
        if (m->parts[base].kind == MIME_MULTIPART) {
            at = m->parts[base].first;
            for (uint32_t k = 1; k < s->path[i] && at != MIME_NONE; k++)
                at = m->parts[at].next;
        } else {
            at = inside && s->path[i] == 1 ? base : MIME_NONE;
        }
        if (at == MIME_NONE)
            return MIME_NONE;
    }
    return at;
}

static bool
named(const struct icell_section *s, struct str name)
{
    for (size_t i = 0; i < s->nfields; i++)
        if (str_caseeq(s->fields[i], name))
            return true;
    return false;
}

static void
some_fields(const struct icell_section *s, struct str header, struct buf *room)
{
    struct header h = header_of(header);
    struct header_field f;
    while (header_next(&h, &f))
        if (named(s, f.name) == (s->text == ICELL_FIELDS)) {
            buf_add(room, f.whole);
            if (!str_ends(f.whole, STR("\n")))
                buf_addz(room, "\r\n");
        }
    buf_addz(room, "\r\n");
}

static struct str
between(struct str text, size_t from, size_t to)
{
    return str_sub(text, from, to > from ? to - from : 0);
}

bool
icell_section_find(struct icell *ic, const struct icell_section *s, struct buf *room,
                   struct str *bytes_r)
{
    struct str text = ic->msg.file.text, header, body;
    if (s->npath == 0) {
        size_t at = header_body(text);
        header = str_sub(text, 0, at);
        body = str_from(text, at);
    } else {
        const struct mime *m = &ic->msg.mime;
        uint32_t i = find_part(m, s);
        if (i == MIME_NONE)
            return false;
        const struct mime_part *p = &m->parts[i];
        if (s->text != ICELL_WHOLE && s->text != ICELL_MIME) {
            /* HEADER and TEXT are of the message inside. */
            if (p->kind != MIME_MESSAGE)
                return false;
            p = &m->parts[p->first];
        }
        header = between(text, p->header_at, p->body_at);
        body = between(text, p->body_at, p->end);
        if (s->text == ICELL_WHOLE)
            text = body;
    }
    *bytes_r = s->text == ICELL_WHOLE                             ? text
               : s->text == ICELL_TEXT                            ? body
               : s->text == ICELL_HEADER || s->text == ICELL_MIME ? header
                                                                  : str_of("", 0);
    if (s->text == ICELL_FIELDS || s->text == ICELL_FIELDS_NOT) {
        some_fields(s, header, room);
        *bytes_r = buf_str(room);
    }
    return true;
}

void
icell_section_name(struct buf *out, const struct icell_section *s)
{
    static const char *const words[] = {"",     "HEADER", "HEADER.FIELDS", "HEADER.FIELDS.NOT",
                                        "TEXT", "MIME"};
    buf_addz(out, "BODY[");
    for (size_t i = 0; i < s->npath; i++)
        buf_addf(out, "%s%u", i ? "." : "", s->path[i]);
    if (s->npath && s->text != ICELL_WHOLE)
        buf_addc(out, '.');
    buf_addz(out, words[s->text]);
    for (size_t i = 0; i < s->nfields; i++) {
        buf_addz(out, i ? " " : " (");
        icell_put_astring(out, s->fields[i]);
    }
    buf_addz(out, s->nfields ? ")]" : "]");
    if (s->partial)
        buf_addf(out, "<%u>", s->start);
}
