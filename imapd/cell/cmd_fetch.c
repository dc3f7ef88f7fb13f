/* FETCH (RFC 3501 6.4.5, 7.4.2). */
#include "imapd/cell/args.h"
#include "imapd/cell/commands.h"
#include "imapd/cell/fetch.h"
#include "imapd/cell/qresync.h"
#include "imapd/cell/seqset.h"
#include "lib/log/log.h"
#include "lib/mail/date.h"
#include "lib/mail/header.h"

enum { ROOM_MAX = MAILFILE_WHOLE };

/* How much of a message must be read for an item that is not kept. */
enum need { NEED_NAME, NEED_HEADER, NEED_WHOLE, NEED_MIME };

static enum need
need_of(const struct icell_item *x)
{
    if (x->kind != ICELL_ITEM_SECTION || icell_section_is_hot(&x->section))
        return NEED_NAME;
    if (x->section.npath)
        return NEED_MIME;
    return icell_section_in_header(&x->section) ? NEED_HEADER : NEED_WHOLE;
}

static enum need
needs(const struct icell_fetch *f)
{
    enum need need = NEED_NAME;
    for (size_t i = 0; i < f->n; i++)
        if (need_of(&f->items[i]) > need)
            need = need_of(&f->items[i]);
    return need;
}

/* What will be sent of the loaded message has a known size from here on. */
static int
load(struct icell *ic, size_t i, enum need need, uint64_t *size_r, struct err *e)
{
    if (need == NEED_NAME)
        return 0;
    if (need == NEED_HEADER)
        return icell_load(ic, i, true, e);
    if ((need == NEED_MIME ? icell_load_mime(ic, i, e) : icell_load(ic, i, false, e)) < 0)
        return -1;
    return mailfile_size(&ic->msg.file, size_r, e);
}

static void
put_pieces(struct icell *ic, struct str bytes)
{
    for (size_t at = 0; at < bytes.n; at += MAILFILE_PIECE)
        stream_put(&ic->s, str_sub(bytes, at, MAILFILE_PIECE));
}

/* A literal of a range of the message, as it is read. It has been announced: if it cannot be had
 * the connection cannot go on. */
static void
put_range(struct icell *ic, uint64_t from, uint64_t to)
{
    static struct mailreader r;
    struct str piece;
    struct err e = {0};
    int got;
    stream_putf(&ic->s, "{%llu}\r\n", (unsigned long long)(to - from));
    mailreader_begin(&r, &ic->msg.file, from, to);
    while (!ic->s.broken && (got = mailreader_next(&r, &piece, &e)) != 0) {
        if (got < 0) {
            log_warn("UID %u: %s", ic->msg.uid, e.text);
            ic->bye = "A message could not be read to its end";
            ic->s.broken = true;
            return;
        }
        put_pieces(ic, piece);
    }
}

static void
put_bytes(struct icell *ic, struct str bytes)
{
    stream_putf(&ic->s, "{%zu}\r\n", bytes.n);
    put_pieces(ic, bytes);
}

static void
put_found(struct icell *ic, const struct icell_section *s, struct icell_found *found)
{
    if (!found->range) {
        put_bytes(ic, s->partial ? str_sub(found->bytes, s->start, s->count) : found->bytes);
        return;
    }
    if (found->to < found->from)
        found->to = found->from;
    if (s->partial) {
        uint64_t n = found->to - found->from;
        found->from += s->start < n ? s->start : n;
        if (found->to - found->from > s->count)
            found->to = found->from + s->count;
    }
    put_range(ic, found->from, found->to);
}

static void
put_section(struct icell *ic, size_t i, const struct icell_item *x, uint64_t size)
{
    struct buf name = buf_new(ICELL_COMMAND_MAX * 2), room = buf_new(ROOM_MAX);
    struct icell_found found = {0};
    struct str header;
    if (x->name)
        buf_addz(&name, x->name);
    else
        icell_section_name(&name, "BODY", &x->section);
    buf_addc(&name, ' ');
    stream_put(&ic->s, buf_str(&name));
    if (need_of(x) == NEED_NAME) {
        if (icell_hot_header(ic, i, &header, NULL) == 0)
            icell_section_fields(&x->section, header, icell_ends_blank(header), &room);
        found.bytes = buf_str(&room);
        put_found(ic, &x->section, &found);
    } else if (icell_section_find(ic, &x->section, size, &room, &found)) {
        put_found(ic, &x->section, &found);
    } else {
        stream_putz(&ic->s, "NIL");
    }
    buf_free(&name);
    buf_free(&room);
}

/* "BINARY[1] ~{n}" and the bytes, or "BINARY.SIZE[1] n". */
static int
make_binary(struct icell *ic, size_t i, const struct icell_item *x, struct buf *ready,
            struct err *e)
{
    uint64_t size;
    struct buf room = buf_new(ICELL_BINARY_MAX);
    if (icell_load_mime(ic, i, e) < 0 || mailfile_size(&ic->msg.file, &size, e) < 0)
        return -1;
    int got = icell_section_binary(ic, &x->section, size, &room, e);
    struct str bytes = buf_str(&room);
    if (x->section.partial)
        bytes = str_sub(bytes, x->section.start, x->section.count);
    icell_section_name(ready, x->kind == ICELL_ITEM_BINARY ? "BINARY" : "BINARY.SIZE", &x->section);
    if (x->kind == ICELL_ITEM_BINARY_SIZE) {
        buf_addf(ready, " %zu", bytes.n);
    } else if (got > 0) {
        buf_addz(ready, " NIL");
    } else {
        buf_addf(ready, " %s{%zu}\r\n", str_chr(bytes, '\0') >= 0 ? "~" : "", bytes.n);
        buf_add(ready, bytes);
    }
    buf_free(&room);
    return got < 0 ? -1 : 0;
}

/* RFC 8970 3.1: a lazy client takes NIL for "not known yet". */
static int
make_preview(struct icell *ic, size_t i, bool lazy, struct buf *ready, struct err *e)
{
    struct str text;
    buf_addz(ready, "PREVIEW ");
    if (!lazy || mailcache_get(&ic->mb, i, MAILCACHE_PREVIEW, &text) == 0)
        return icell_text(ic, i, MAILCACHE_PREVIEW, ready, e);
    buf_addz(ready, "NIL");
    return 0;
}

/* An item whose text is kept, or must be whole before the answer begins: "NAME text". Nothing is
 * added for the others. */
static int
make_item(struct icell *ic, size_t i, const struct icell_item *x, struct buf *ready, struct err *e)
{
    static const struct {
        const char *name;
        enum mailcache_kind kind;
    } kept[] = {[ICELL_ITEM_ENVELOPE] = {"ENVELOPE ", MAILCACHE_ENVELOPE},
                [ICELL_ITEM_BODY] = {"BODY ", MAILCACHE_BODY},
                [ICELL_ITEM_BODYSTRUCTURE] = {"BODYSTRUCTURE ", MAILCACHE_STRUCTURE},
                [ICELL_ITEM_EMAILID] = {"EMAILID ", MAILCACHE_EMAILID}};
    struct str header;
    if (x->kind < sizeof kept / sizeof kept[0] && kept[x->kind].name) {
        buf_addz(ready, kept[x->kind].name);
        return icell_text(ic, i, kept[x->kind].kind, ready, e);
    }
    switch (x->kind) {
    case ICELL_ITEM_THREADID:
        buf_addz(ready, "THREADID NIL");
        return 0;
    case ICELL_ITEM_PREVIEW:
        return make_preview(ic, i, x->lazy, ready, e);
    case ICELL_ITEM_BINARY:
    case ICELL_ITEM_BINARY_SIZE:
        return make_binary(ic, i, x, ready, e);
    case ICELL_ITEM_SECTION:
        return need_of(x) == NEED_NAME ? icell_hot_header(ic, i, &header, e) : 0;
    default:
        return 0;
    }
}

/* All of them into ready; ends[k] is where item k's text ends. */
static int
make_ready(struct icell *ic, size_t i, const struct icell_fetch *f, struct buf *ready, size_t *ends,
           struct err *e)
{
    for (size_t k = 0; k < f->n; k++) {
        if (make_item(ic, i, &f->items[k], ready, e) < 0)
            return -1;
        if (!buf_ok(ready))
            return err_set(e, ERR_LIMIT, "more than can be told of one message");
        ends[k] = ready->n;
    }
    return 0;
}

static void
put_item(struct icell *ic, size_t i, const struct icell_item *x, uint64_t size)
{
    struct mailbox_message *m = &ic->mb.msgs[i];
    struct buf *out = &ic->s.out;
    switch (x->kind) {
    case ICELL_ITEM_FLAGS:
        buf_addz(out, "FLAGS ");
        icell_add_flags(ic, out, m);
        m->changed = false;
        break;
    case ICELL_ITEM_UID:
        buf_addz(out, "UID ");
        buf_addu(out, m->uid);
        break;
    case ICELL_ITEM_INTERNALDATE:
        buf_addz(out, "INTERNALDATE \"");
        date_format_imap(out, mailbox_date(&ic->mb, i), 0);
        buf_addc(out, '"');
        break;
    case ICELL_ITEM_SIZE:
        buf_addz(out, "RFC822.SIZE ");
        buf_addu(out, size);
        break;
    case ICELL_ITEM_MODSEQ:
        buf_addz(out, "MODSEQ (");
        buf_addu(out, m->modseq);
        buf_addc(out, ')');
        break;
    case ICELL_ITEM_SAVEDATE:
        buf_addz(out, "SAVEDATE \"");
        date_format_imap(out, m->saved_s, 0);
        buf_addc(out, '"');
        break;
    case ICELL_ITEM_SECTION:
        put_section(ic, i, x, size);
        break;
    default:
        break;
    }
}

struct fetch_plan {
    enum need need;
    bool flags, size, date, seen;
};

static bool
marks_seen(const struct icell_fetch *f)
{
    for (size_t i = 0; i < f->n; i++)
        if ((f->items[i].kind == ICELL_ITEM_SECTION || f->items[i].kind == ICELL_ITEM_BINARY) &&
            !f->items[i].peek)
            return true;
    return false;
}

static void
put_answer(struct icell *ic, size_t i, const struct icell_fetch *f, uint64_t size, struct str ready,
           const size_t *ends)
{
    size_t at = 0;
    stream_putz(&ic->s, "* ");
    buf_addu(&ic->s.out, i + 1);
    buf_addz(&ic->s.out, " FETCH (");
    for (size_t k = 0; k < f->n; k++) {
        if (k)
            buf_addc(&ic->s.out, ' ');
        if (ends[k] > at)
            put_pieces(ic, str_sub(ready, at, ends[k] - at));
        else
            put_item(ic, i, &f->items[k], size);
        at = ends[k];
    }
}

/* One message. All that can fail comes before the first byte of the answer. */
static int
fetch_one(struct icell *ic, size_t i, const struct icell_fetch *f, const struct fetch_plan *plan,
          struct err *e)
{
    uint64_t size = 0;
    bool seen = false;
    size_t ends[ICELL_FETCH_MAX];
    if (ic->mb.msgs[i].gone)
        return err_set(e, ERR_PERMANENT, "the message has been expunged");
    buf_reset(&ic->ready);
    if (make_ready(ic, i, f, &ic->ready, ends, e) < 0 || load(ic, i, plan->need, &size, e) < 0)
        return -1;
    /* When the text is here, its size is what the client will count. */
    if (plan->need >= NEED_WHOLE)
        mailbox_tell_vsize(&ic->mb, i, size);
    if (plan->size && plan->need < NEED_WHOLE && mailbox_vsize(&ic->mb, i, &size, e) < 0)
        return -1;
    if (plan->date)
        (void)mailbox_date(&ic->mb, i);
    if (plan->seen && !ic->mb.read_only && !(ic->mb.msgs[i].flags & MAILBOX_SEEN)) {
        if (mailbox_store(&ic->mb, i, MAILBOX_ADD, MAILBOX_SEEN, 0, e) < 0)
            return -1;
        seen = !plan->flags;
    }
    put_answer(ic, i, f, size, buf_str(&ic->ready), ends);
    if (seen) {
        const struct icell_item flags = {.kind = ICELL_ITEM_FLAGS};
        buf_addc(&ic->s.out, ' ');
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
    bool gone = false, failed = false, limit = false;
    struct cursor set_at = ic->cmd.args;
    struct icell_seqset set;
    if (icell_seqset_arg(ic, &ic->cmd.args, &at, &n) < 0)
        return;
    if (icell_fetch_parse(ic, &ic->cmd.args, &f) < 0) {
        icell_end_syntax(ic);
        return;
    }
    if (icell_fetch_has(&f, ICELL_ITEM_MODSEQ))
        icell_enable_condstore(ic);
    if (f.vanished && icell_arg_space(&set_at) &&
        icell_seqset_parse(&set_at, &ic->arena, &set) == 0 && !set.saved)
        icell_put_vanished(ic, &set, f.since);
    const struct fetch_plan plan = {.need = needs(&f),
                                    .flags = icell_fetch_has(&f, ICELL_ITEM_FLAGS),
                                    .size = icell_fetch_has(&f, ICELL_ITEM_SIZE),
                                    .date = icell_fetch_has(&f, ICELL_ITEM_INTERNALDATE),
                                    .seen = marks_seen(&f)};
    for (size_t k = 0; k < n && !ic->s.broken; k++) {
        k += icell_fetch_plain(ic, &f, at + k, n - k);
        if (k == n)
            break;
        if (f.changed_since && ic->mb.msgs[at[k]].modseq <= f.since)
            continue;
        if (fetch_one(ic, at[k], &f, &plan, &e) < 0) {
            bool there = !ic->mb.msgs[at[k]].gone;
            gone |= !there;
            limit |= there && e.class == ERR_LIMIT;
            failed |= there && e.class != ERR_LIMIT;
            if (there)
                log_warn("UID %u: %s", ic->mb.msgs[at[k]].uid, e.text);
        }
    }
    if (ic->cmd.unknown_cte)
        icell_end(ic, ICELL_NO, "[UNKNOWN-CTE] A part's encoding is not known.");
    else if (failed)
        icell_end(ic, ICELL_NO, "[SERVERBUG] Some messages could not be read.");
    else if (limit)
        icell_end(ic, ICELL_NO, "[LIMIT] Some messages are too large for that.");
    else if (gone)
        icell_end(ic, ICELL_NO, "[EXPUNGEISSUED] Some messages have been expunged.");
    else
        icell_end(ic, ICELL_OK, "Fetch completed.");
}
