/* The message that is being looked into, and what is known of it without looking. */
#include "imapd/cell/fetch.h"
#include "lib/mail/header.h"
#include <stdlib.h>

/* Fields that clients ask for when they list a folder, and that SEARCH, SORT and THREAD need. Small
 * ones: this header is kept for every message. */
static const char *const hot[] = {
    "Date",
    "From",
    "Sender",
    "Reply-To",
    "To",
    "Cc",
    "Bcc",
    "Subject",
    "Message-ID",
    "In-Reply-To",
    "References",
    "Content-Type",
    "List-Id",
    "List-Post",
    "Newsgroups",
    "X-Priority",
    "Priority",
    "Importance",
    "Content-Description",
    "MIME-Version",
    "List-Unsubscribe",
    "Lines",
    "X-Label",
    "X-Original-To",
    "List-Subscribe",
    "X-Mailer",
    "User-Agent",
    "Delivered-To",
    "Auto-Submitted",
};
enum { HOT = sizeof hot / sizeof hot[0], HOT_MAX = 16384 };

void
icell_message_reset(struct icell_message *m)
{
    mailfile_free(&m->file);
    mime_free(&m->mime);
    arena_reset(&m->arena);
    m->uid = 0;
}

int
icell_load(struct icell *ic, size_t i, bool head_only, struct err *e)
{
    uint32_t uid = ic->mb.msgs[i].uid;
    if (ic->msg.uid == uid && (head_only || ic->msg.file.whole || ic->msg.large))
        return 0;
    icell_message_reset(&ic->msg);
    int fd = mailbox_open_message(&ic->mb, i, e);
    if (fd < 0 || mailfile_load(&ic->msg.file, fd, head_only, e) < 0)
        return -1;
    ic->msg.uid = uid;
    ic->msg.large = !head_only && !ic->msg.file.whole;
    return 0;
}

int
icell_load_mime(struct icell *ic, size_t i, struct err *e)
{
    uint64_t size;
    struct str piece;
    if (icell_load(ic, i, false, e) < 0 || mailfile_size(&ic->msg.file, &size, e) < 0)
        return -1;
    if (ic->msg.mime.n)
        return 0;
    struct mime_parser *p = mime_begin(&ic->msg.arena, &ic->msg.mime);
    struct mailreader *r = malloc(sizeof *r);
    int result = p && r ? 1 : err_set(e, ERR_TEMPORARY, "out of memory");
    if (r)
        mailreader_begin(r, &ic->msg.file, 0, size);
    while (result > 0 && (result = mailreader_next(r, &piece, e)) > 0)
        mime_feed(p, piece);
    free(r);
    if (p && mime_end(p) < 0 && result == 0)
        result = err_set(e, ERR_TEMPORARY, "out of memory");
    if (result < 0)
        icell_message_reset(&ic->msg);
    return result;
}

struct str
icell_range(const struct mailfile *f, uint64_t from, uint64_t to, struct buf *room)
{
    if (f->whole)
        return str_sub(f->text, (size_t)from, to > from ? (size_t)(to - from) : 0);
    buf_reset(room);
    if (to > from && to - from > room->max)
        to = from + room->max;
    (void)mailfile_range(f, from, to, room, NULL);
    return buf_str(room);
}

/* ---- what is kept of messages ---- */

bool
icell_is_hot(struct str name)
{
    for (size_t i = 0; i < HOT; i++)
        if (str_caseeq(name, str_z(hot[i])))
            return true;
    return false;
}

/* The hot fields of the loaded message and its empty line if it has one, kept when they are not too
 * many. */
static void
gather_hot(struct icell *ic, size_t i)
{
    struct str header = str_sub(ic->msg.file.text, 0, ic->msg.file.body_at);
    struct header h = header_of(header);
    struct header_field f;
    buf_reset(&ic->hot);
    while (header_next(&h, &f))
        if (icell_is_hot(f.name)) {
            buf_add(&ic->hot, f.whole);
            if (!str_ends(f.whole, STR("\n")))
                buf_addz(&ic->hot, "\r\n");
        }
    if (icell_ends_blank(header))
        buf_addz(&ic->hot, "\r\n");
    if (!h.over && buf_ok(&ic->hot) && ic->hot.n <= HOT_MAX)
        mailcache_put(&ic->mb, i, MAILCACHE_HEADER, buf_str(&ic->hot));
}

int
icell_hot_header(struct icell *ic, size_t i, struct str *header_r, struct err *e)
{
    if (ic->hot_uid == ic->mb.msgs[i].uid) {
        *header_r = buf_str(&ic->hot);
        return 0;
    }
    ic->hot_uid = 0;
    if (mailcache_get(&ic->mb, i, MAILCACHE_HEADER, header_r) == 0)
        return 0;
    if (icell_load(ic, i, true, e) < 0)
        return -1;
    gather_hot(ic, i);
    if (!buf_ok(&ic->hot)) {
        *header_r = str_sub(ic->msg.file.text, 0, ic->msg.file.body_at);
        return 0;
    }
    ic->hot_uid = ic->mb.msgs[i].uid;
    *header_r = buf_str(&ic->hot);
    return 0;
}

static int
make_text(struct icell *ic, size_t i, enum mailcache_kind kind, bool utf8, struct buf *out,
          struct err *e)
{
    struct str header;
    struct arena arena = arena_new(ICELL_ARENA_MAX);
    int result;
    if (kind == MAILCACHE_ENVELOPE) {
        result = icell_hot_header(ic, i, &header, e);
        if (result == 0)
            icell_envelope(out, &arena, header);
    } else if (kind == MAILCACHE_EMAILID) {
        result = icell_load(ic, i, false, e);
        if (result == 0)
            result = icell_emailid(out, &ic->msg.file, e);
    } else {
        result = icell_load_mime(ic, i, e);
        if (result == 0 && kind == MAILCACHE_PREVIEW)
            icell_preview(out, &ic->msg.mime, &ic->msg.file);
        else if (result == 0)
            icell_structure(out, &arena, &ic->msg.mime, &ic->msg.file,
                            (struct icell_structure_how){.extensions = kind == MAILCACHE_STRUCTURE,
                                                         .utf8 = utf8});
    }
    arena_free(&arena);
    return result;
}

/* Whether IMAP4rev2 would have it otherwise: a parameter's name ends in "*". What is kept is what
 * IMAP4rev1 has; the other is rare, and made when it is asked for. */
static bool
has_encoded(enum mailcache_kind kind, struct str text)
{
    return (kind == MAILCACHE_BODY || kind == MAILCACHE_STRUCTURE) &&
           str_find(text, STR("*\" ")) >= 0;
}

int
icell_text(struct icell *ic, size_t i, enum mailcache_kind kind, struct buf *out, struct err *e)
{
    struct str text;
    size_t from = out->n;
    if (mailcache_get(&ic->mb, i, kind, &text) == 0) {
        buf_add(out, text);
    } else {
        if (make_text(ic, i, kind, false, out, e) < 0)
            return -1;
        if (buf_ok(out))
            mailcache_put(&ic->mb, i, kind, str_from(buf_str(out), from));
    }
    if (ic->rev2 && buf_ok(out) && has_encoded(kind, str_from(buf_str(out), from))) {
        out->n = from;
        if (make_text(ic, i, kind, true, out, e) < 0)
            return -1;
    }
    return buf_ok(out) ? 0 : err_set(e, ERR_LIMIT, "a structure too large");
}
