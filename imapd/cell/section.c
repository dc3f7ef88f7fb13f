#include "imapd/cell/args.h"
#include "imapd/cell/fetch.h"
#include "lib/mail/bodytext.h"
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

bool
icell_ends_blank(struct str header)
{
    return str_eq(header, STR("\r\n")) || str_ends(header, STR("\n\r\n"));
}

bool
icell_section_is_hot(const struct icell_section *s)
{
    bool hot = s->npath == 0 && s->text == ICELL_FIELDS;
    for (size_t i = 0; i < s->nfields && hot; i++)
        hot = icell_is_hot(s->fields[i]);
    return hot;
}

void
icell_section_fields(const struct icell_section *s, struct str header, bool blank, struct buf *room)
{
    struct header h = header_of(header);
    struct header_field f;
    while (header_next(&h, &f))
        if (named(s, f.name) == (s->text == ICELL_FIELDS)) {
            buf_add(room, f.whole);
            if (!str_ends(f.whole, STR("\n")))
                buf_addz(room, "\r\n");
        }
    if (blank)
        buf_addz(room, "\r\n");
}

bool
icell_section_find(struct icell *ic, const struct icell_section *s, uint64_t size, struct buf *room,
                   struct icell_found *found_r)
{
    uint64_t header = 0, body = ic->msg.file.body_at, end = size, whole = 0;
    if (s->npath) {
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
        header = p->header_at;
        whole = body = p->body_at;
        end = p->end;
    }
    *found_r = (struct icell_found){.range = true, .from = whole, .to = end};
    if (s->text == ICELL_TEXT)
        found_r->from = body;
    if (s->text == ICELL_WHOLE || s->text == ICELL_TEXT)
        return true;
    found_r->from = header;
    found_r->to = body;
    if (s->text == ICELL_FIELDS || s->text == ICELL_FIELDS_NOT) {
        struct buf text = buf_new(MAILFILE_WHOLE);
        uint64_t tail = body - header < 3 ? header : body - 3;
        bool blank = icell_ends_blank(icell_range(&ic->msg.file, tail, body, &text));
        icell_section_fields(s, icell_range(&ic->msg.file, header, body, &text), blank, room);
        buf_free(&text);
        found_r->range = false;
        found_r->bytes = buf_str(room);
    }
    return true;
}

void
icell_section_name(struct buf *out, const char *word, const struct icell_section *s)
{
    static const char *const words[] = {"",     "HEADER", "HEADER.FIELDS", "HEADER.FIELDS.NOT",
                                        "TEXT", "MIME"};
    buf_addz(out, word);
    buf_addc(out, '[');
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
        buf_addf(out, "<%llu>", (unsigned long long)s->start);
}

static bool
known_encoding(struct str name)
{
    static const char *const known[] = {"", "7bit", "8bit", "binary", "base64", "quoted-printable"};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (str_caseeq(name, str_z(known[i])))
            return true;
    return false;
}

int
icell_section_binary(struct icell *ic, const struct icell_section *s, uint64_t size,
                     struct buf *out, struct err *e)
{
    struct buf room = buf_new(ICELL_BINARY_MAX);
    struct str encoding = STR("binary");
    uint64_t from = 0, to = size;
    if (s->npath) {
        uint32_t i = find_part(&ic->msg.mime, s);
        if (i == MIME_NONE)
            return 1;
        const struct mime_part *p = &ic->msg.mime.parts[i];
        from = p->body_at;
        to = p->end;
        if (p->kind == MIME_LEAF)
            encoding = p->encoding;
    }
    if (!known_encoding(encoding)) {
        ic->cmd.unknown_cte = true;
        return err_set(e, ERR_PERMANENT, "a transfer encoding that is not known");
    }
    if (to - from > ICELL_BINARY_MAX)
        return err_set(e, ERR_LIMIT, "a part too large to be decoded");
    bodytext_decode(out, icell_range(&ic->msg.file, from, to, &room), encoding);
    buf_free(&room);
    return 0;
}
