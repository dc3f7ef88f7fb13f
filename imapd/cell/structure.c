/* BODY and BODYSTRUCTURE (RFC 3501 7.4.2), over the flat array of parts: no recursion. */
#include "imapd/cell/args.h"
#include "imapd/cell/fetch.h"
#include "lib/mail/header.h"
#include "lib/mail/rfc2231.h"

struct writer {
    struct buf *out;
    struct arena *arena;
    const struct mime *m;
    const struct mailfile *f;
    struct icell_structure_how how;
};

static void
put_or_nil(struct writer *w, struct str s)
{
    icell_put_nstring(w->out, s.n ? s : str_of(NULL, 0));
}

static void
put_value(struct writer *w, const struct mime_param *p)
{
    struct buf text = buf_new((size_t)4 * HEADER_FIELD_MAX);
    if (w->how.utf8 && rfc2231_utf8(p->name, p->value, &text) == 0 && buf_ok(&text))
        icell_put_nstring(w->out, str_of(buf_z(&text), text.n));
    else
        icell_put_nstring(w->out, p->value);
    buf_free(&text);
}

static void
put_params(struct writer *w, const struct mime_param *params, size_t n)
{
    if (n == 0) {
        buf_addz(w->out, "NIL");
        return;
    }
    for (size_t i = 0; i < n; i++) {
        buf_addz(w->out, i ? " " : "(");
        icell_put_nstring(w->out, params[i].name);
        buf_addc(w->out, ' ');
        put_value(w, &params[i]);
    }
    buf_addc(w->out, ')');
}

/* " disposition language location" */
static void
put_extensions(struct writer *w, const struct mime_part *p)
{
    buf_addc(w->out, ' ');
    if (p->disposition.n) {
        buf_addc(w->out, '(');
        icell_put_nstring(w->out, p->disposition);
        buf_addc(w->out, ' ');
        put_params(w, p->disposition_params, p->ndisposition_params);
        buf_addc(w->out, ')');
    } else {
        buf_addz(w->out, "NIL");
    }
    buf_addc(w->out, ' ');
    for (size_t i = 0; i < p->nlanguages; i++) {
        buf_addz(w->out, i ? " " : "(");
        icell_put_nstring(w->out, p->languages[i]);
    }
    buf_addz(w->out, p->nlanguages ? ") " : "NIL ");
    put_or_nil(w, p->location);
}

/* "type" "subtype" (params) id description "encoding" size */
static void
put_basic(struct writer *w, const struct mime_part *p)
{
    static const struct mime_param charset = {{"charset", 7}, {"us-ascii", 8}};
    bool text = str_caseeq(p->type, STR("text"));
    icell_put_nstring(w->out, p->type);
    buf_addc(w->out, ' ');
    icell_put_nstring(w->out, p->subtype);
    buf_addc(w->out, ' ');
    /* RFC 2045 5.2: what is not said is us-ascii. */
    if (text && p->nparams == 0)
        put_params(w, &charset, 1);
    else
        put_params(w, p->params, p->nparams);
    buf_addc(w->out, ' ');
    put_or_nil(w, p->id);
    buf_addc(w->out, ' ');
    put_or_nil(w, p->description);
    buf_addc(w->out, ' ');
    icell_put_nstring(w->out, p->encoding.n ? p->encoding : STR("7bit"));
    buf_addf(w->out, " %zu", p->end - p->body_at);
}

static void
end_basic(struct writer *w, const struct mime_part *p)
{
    if (p->kind == MIME_MESSAGE || str_caseeq(p->type, STR("text")))
        buf_addf(w->out, " %u", p->lines);
    if (w->how.extensions) {
        buf_addc(w->out, ' ');
        put_or_nil(w, p->md5);
        put_extensions(w, p);
    }
    buf_addc(w->out, ')');
}

static void
end_multipart(struct writer *w, const struct mime_part *p)
{
    buf_addc(w->out, ' ');
    icell_put_nstring(w->out, p->subtype);
    if (w->how.extensions) {
        buf_addc(w->out, ' ');
        put_params(w, p->params, p->nparams);
        put_extensions(w, p);
    }
    buf_addc(w->out, ')');
}

/* Begin part i; the part that comes next in it, or MIME_NONE when it is a leaf (and then ended). */
static uint32_t
begin(struct writer *w, uint32_t i)
{
    const struct mime_part *p = &w->m->parts[i];
    buf_addc(w->out, '(');
    if (p->kind == MIME_MULTIPART)
        return p->first;
    put_basic(w, p);
    if (p->kind == MIME_LEAF) {
        end_basic(w, p);
        return MIME_NONE;
    }
    const struct mime_part *inside = &w->m->parts[p->first];
    buf_addc(w->out, ' ');
    struct buf room = buf_new(HEADER_BLOCK_MAX);
    icell_envelope(w->out, w->arena, icell_range(w->f, inside->header_at, inside->body_at, &room));
    buf_free(&room);
    buf_addc(w->out, ' ');
    return p->first;
}

void
icell_structure(struct buf *out, struct arena *arena, const struct mime *m,
                const struct mailfile *f, struct icell_structure_how how)
{
    struct writer w = {out, arena, m, f, how};
    uint32_t i = 0;
    while (i != MIME_NONE && buf_ok(out)) {
        uint32_t down = begin(&w, i);
        if (down != MIME_NONE) {
            i = down;
            continue;
        }
        /* Go up past all that end here, to the next one beside them. */
        while (m->parts[i].next == MIME_NONE && m->parts[i].parent != MIME_NONE) {
            i = m->parts[i].parent;
            if (m->parts[i].kind == MIME_MULTIPART)
                end_multipart(&w, &m->parts[i]);
            else
                end_basic(&w, &m->parts[i]);
        }
        i = m->parts[i].next;
    }
}
