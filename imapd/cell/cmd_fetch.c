/* FETCH (RFC 3501 6.4.5, 7.4.2). */
#include "imapd/cell/args.h"
#include "imapd/cell/commands.h"
#include "imapd/cell/fetch.h"
#include "imapd/cell/seqset.h"
#include "lib/log/log.h"
#include "lib/mail/date.h"
#include "lib/mail/header.h"

enum { PIECE = 65536, NEED_NAME = 0, NEED_HEADER, NEED_WHOLE, NEED_MIME };

/* What of the message must be read for the items. */
static int
needs(const struct icell_fetch *f)
{
    int need = NEED_NAME;
    for (size_t i = 0; i < f->n; i++) {
        const struct icell_item *x = &f->items[i];
        int its = NEED_NAME;
        if (x->kind == ICELL_ITEM_ENVELOPE)
            its = NEED_HEADER;
        else if (x->kind == ICELL_ITEM_BODY || x->kind == ICELL_ITEM_BODYSTRUCTURE)
            its = NEED_MIME;
        else if (x->kind == ICELL_ITEM_SECTION)
            its = x->section.npath                       ? NEED_MIME
                  : icell_section_in_header(&x->section) ? NEED_HEADER
                                                         : NEED_WHOLE;
        need = its > need ? its : need;
    }
    return need;
}

static int
load(struct icell *ic, size_t i, int need, struct err *e)
{
    if (need == NEED_NAME)
        return 0;
    return need == NEED_MIME ? icell_load_mime(ic, i, e)
                             : icell_load(ic, i, need == NEED_HEADER, e);
}

static void
put_literal(struct icell *ic, struct str bytes)
{
    stream_putf(&ic->s, "{%zu}\r\n", bytes.n);
    for (size_t at = 0; at < bytes.n; at += PIECE)
        stream_put(&ic->s, str_sub(bytes, at, PIECE));
}

static void
put_section(struct icell *ic, const struct icell_item *x)
{
    struct buf name = buf_new(ICELL_COMMAND_MAX * 2), room = buf_new(PIECE * 16);
    struct str bytes;
    if (x->name)
        buf_addz(&name, x->name);
    else
        icell_section_name(&name, &x->section);
    buf_addc(&name, ' ');
    stream_put(&ic->s, buf_str(&name));
    if (!icell_section_find(ic, &x->section, &room, &bytes))
        stream_putz(&ic->s, "NIL");
    else if (x->section.partial)
        put_literal(ic, str_sub(bytes, x->section.start, x->section.count));
    else
        put_literal(ic, bytes);
    buf_free(&name);
    buf_free(&room);
}

static void
put_structure(struct icell *ic, const struct icell_item *x)
{
    struct arena arena = arena_new(ICELL_ARENA_MAX);
    struct buf out = buf_new(ICELL_STRUCTURE_MAX);
    struct str text = ic->msg.file.text;
    if (x->kind == ICELL_ITEM_ENVELOPE) {
        buf_addz(&out, "ENVELOPE ");
        icell_envelope(&out, &arena, str_sub(text, 0, header_body(text)));
    } else {
        bool extensions = x->kind == ICELL_ITEM_BODYSTRUCTURE;
        buf_addz(&out, extensions ? "BODYSTRUCTURE " : "BODY ");
        icell_structure(&out, &arena, &ic->msg.mime, text, extensions);
    }
    for (size_t at = 0; at < out.n; at += PIECE)
        stream_put(&ic->s, str_sub(buf_str(&out), at, PIECE));
    buf_free(&out);
    arena_free(&arena);
}

static void
put_item(struct icell *ic, size_t i, const struct icell_item *x, uint64_t vsize)
{
    struct buf out = buf_new(8192);
    switch (x->kind) {
    case ICELL_ITEM_FLAGS:
        buf_addz(&out, "FLAGS ");
        icell_add_flags(ic, &out, &ic->mb.msgs[i]);
        ic->mb.msgs[i].changed = false;
        break;
    case ICELL_ITEM_UID:
        buf_addf(&out, "UID %u", ic->mb.msgs[i].uid);
        break;
    case ICELL_ITEM_INTERNALDATE:
        buf_addz(&out, "INTERNALDATE \"");
        date_format_imap(&out, mailbox_date(&ic->mb, i), 0);
        buf_addc(&out, '"');
        break;
    case ICELL_ITEM_SIZE:
        buf_addf(&out, "RFC822.SIZE %llu", (unsigned long long)vsize);
        break;
    case ICELL_ITEM_ENVELOPE:
    case ICELL_ITEM_BODY:
    case ICELL_ITEM_BODYSTRUCTURE:
        put_structure(ic, x);
        break;
    case ICELL_ITEM_SECTION:
        put_section(ic, x);
        break;
    }
    stream_put(&ic->s, buf_str(&out));
    buf_free(&out);
}

static bool
asks(const struct icell_fetch *f, enum icell_item_kind kind)
{
    for (size_t i = 0; i < f->n; i++)
        if (f->items[i].kind == kind)
            return true;
    return false;
}

static bool
marks_seen(const struct icell_fetch *f)
{
    for (size_t i = 0; i < f->n; i++)
        if (f->items[i].kind == ICELL_ITEM_SECTION && !f->items[i].peek)
            return true;
    return false;
}

/* One message. All that can fail comes before the first byte of the answer. */
static int
fetch_one(struct icell *ic, size_t i, const struct icell_fetch *f, int need, struct err *e)
{
    uint64_t vsize = 0;
    bool seen = false;
    if (ic->mb.msgs[i].gone)
        return err_set(e, ERR_PERMANENT, "the message has been expunged");
    if (load(ic, i, need, e) < 0 ||
        (asks(f, ICELL_ITEM_SIZE) && mailbox_vsize(&ic->mb, i, &vsize, e) < 0))
        return -1;
    /* When the text is here, its size is what the client will count. */
    if (need >= NEED_WHOLE)
        vsize = ic->msg.file.text.n;
    if (marks_seen(f) && !ic->mb.read_only && !(ic->mb.msgs[i].flags & MAILBOX_SEEN)) {
        if (mailbox_store(&ic->mb, i, MAILBOX_ADD, MAILBOX_SEEN, 0, e) < 0)
            return -1;
        seen = !asks(f, ICELL_ITEM_FLAGS);
    }
    stream_putf(&ic->s, "* %zu FETCH (", i + 1);
    for (size_t k = 0; k < f->n; k++) {
        if (k)
            stream_putz(&ic->s, " ");
        put_item(ic, i, &f->items[k], vsize);
    }
    if (seen) {
        const struct icell_item flags = {.kind = ICELL_ITEM_FLAGS};
        stream_putz(&ic->s, " ");
        put_item(ic, i, &flags, 0);
    }
    stream_putz(&ic->s, ")\r\n");
    return 0;
}

void
icell_cmd_fetch(struct icell *ic)
{
    size_t *at, n;
    struct icell_fetch f;
    struct err e = {0};
    bool gone = false, failed = false;
    if (icell_seqset_arg(ic, &ic->cmd.args, &at, &n) < 0)
        return;
    if (icell_fetch_parse(ic, &ic->cmd.args, &f) < 0) {
        icell_end_syntax(ic);
        return;
    }
    int need = needs(&f);
    for (size_t k = 0; k < n && !ic->s.broken; k++)
        if (fetch_one(ic, at[k], &f, need, &e) < 0) {
            gone |= ic->mb.msgs[at[k]].gone;
            failed |= !ic->mb.msgs[at[k]].gone;
            if (failed)
                log_warn("UID %u: %s", ic->mb.msgs[at[k]].uid, e.text);
        }
    if (failed)
        icell_end(ic, ICELL_NO, "[SERVERBUG] Some messages could not be read.");
    else if (gone)
        icell_end(ic, ICELL_NO, "[EXPUNGEISSUED] Some messages have been expunged.");
    else
        icell_end(ic, ICELL_OK, "Fetch completed.");
}
