/* FETCH of what the records alone say. It is asked for all messages at once, more often than
 * anything else, so an answer is put together where it is sent from. */
#include "imapd/cell/fetch.h"
#include "lib/mail/date.h"

enum {
    LEAD_MAX = 32,        /* "* 4294967295 FETCH (" and ")" CRLF */
    ITEM_MAX = 80,        /* "FLAGS (" with all that is no keyword, the longest of them */
    OUT_ENOUGH = 1 << 16, /* is sent */
    DAY_S = 86400,
};
static const int64_t YEAR_10000_S = 253402300800;

/* A day as INTERNALDATE has it: most messages share theirs with the one before. */
struct day {
    int64_t day;
    char text[16];
    size_t n;
};

static char *
put(char *p, struct str s)
{
    memcpy(p, s.p, s.n);
    return p + s.n;
}

static char *
put_two(char *p, int64_t v)
{
    p[0] = (char)('0' + v / 10);
    p[1] = (char)('0' + v % 10);
    return p + 2;
}

static char *
put_number(char *p, uint64_t v)
{
    char digits[20];
    size_t i = sizeof digits;
    do
        digits[--i] = (char)('0' + v % 10);
    while ((v /= 10) > 0);
    return put(p, str_of(digits + i, sizeof digits - i));
}

/* "dd-Mmm-yyyy hh:mm:ss +0000" */
static char *
put_date(char *p, int64_t utc_s, struct day *d)
{
    int64_t day = utc_s / DAY_S, s = utc_s % DAY_S;
    if (day != d->day || !d->n) {
        struct buf text = buf_new(64);
        date_format_imap(&text, utc_s, 0);
        d->day = day;
        d->n = text.n < 12 ? text.n : 12;
        memcpy(d->text, buf_z(&text), d->n);
        buf_free(&text);
    }
    p = put(p, str_of(d->text, d->n));
    p = put_two(p, s / 3600);
    *p++ = ':';
    p = put_two(p, s / 60 % 60);
    *p++ = ':';
    p = put_two(p, s % 60);
    return put(p, STR(" +0000"));
}

static bool
date_is_plain(int64_t utc_s)
{
    return utc_s > 0 && utc_s < YEAR_10000_S;
}

/* The 64 lists there are without keywords. */
static struct str
flags_of(const struct icell *ic, const struct mailbox_message *m)
{
    static char texts[64][ITEM_MAX - 8];
    static uint8_t sizes[64];
    static bool rev2;
    if (rev2 != ic->rev2)
        memset(sizes, 0, sizeof sizes);
    rev2 = ic->rev2;
    unsigned which = (m->flags & 31u) | (m->recent ? 32u : 0);
    if (!sizes[which]) {
        struct buf list = buf_new(sizeof texts[0] - 1);
        icell_add_flags(ic, &list, m);
        memcpy(texts[which], buf_z(&list), list.n);
        sizes[which] = (uint8_t)list.n;
        buf_free(&list);
    }
    return str_of(texts[which], sizes[which]);
}

/* NULL: not to be had from the record. */
static char *
put_item(char *p, struct icell *ic, struct mailbox_message *m, enum icell_item_kind kind,
         struct day *d)
{
    switch (kind) {
    case ICELL_ITEM_FLAGS:
        if (m->keywords)
            return NULL;
        p = put(p, STR("FLAGS "));
        return put(p, flags_of(ic, m));
    case ICELL_ITEM_UID:
        p = put(p, STR("UID "));
        return put_number(p, m->uid);
    case ICELL_ITEM_SIZE:
        if (m->vsize == MAILBOX_SIZE_UNKNOWN)
            return NULL;
        p = put(p, STR("RFC822.SIZE "));
        return put_number(p, m->vsize);
    case ICELL_ITEM_MODSEQ:
        p = put(p, STR("MODSEQ ("));
        p = put_number(p, m->modseq);
        *p++ = ')';
        return p;
    case ICELL_ITEM_INTERNALDATE:
        if (!date_is_plain(m->date_s))
            return NULL;
        p = put(p, STR("INTERNALDATE \""));
        p = put_date(p, m->date_s, d);
        *p++ = '"';
        return p;
    default:
        return NULL;
    }
}

/* One message, or false: it needs more than its record. */
static bool
put_one(struct icell *ic, const struct icell_fetch *f, size_t i, struct day *d)
{
    struct mailbox_message *m = &ic->mb.msgs[i];
    char *begin = buf_reserve(&ic->s.out, LEAD_MAX + f->n * ITEM_MAX), *p = begin;
    if (!p || m->gone)
        return false;
    p = put(p, STR("* "));
    p = put_number(p, i + 1);
    p = put(p, STR(" FETCH ("));
    for (size_t k = 0; k < f->n; k++) {
        if (k)
            *p++ = ' ';
        p = put_item(p, ic, m, f->items[k].kind, d);
        if (!p)
            return false;
    }
    p = put(p, STR(")\r\n"));
    buf_commit(&ic->s.out, (size_t)(p - begin));
    if (icell_fetch_has(f, ICELL_ITEM_FLAGS))
        m->changed = false;
    return true;
}

static bool
is_plain(const struct icell_fetch *f)
{
    for (size_t k = 0; k < f->n; k++)
        if (f->items[k].kind > ICELL_ITEM_MODSEQ)
            return false;
    return !f->changed_since;
}

size_t
icell_fetch_plain(struct icell *ic, const struct icell_fetch *f, const size_t *at, size_t n)
{
    struct day d = {0};
    size_t k = 0;
    if (!is_plain(f))
        return 0;
    for (; k < n && !ic->s.broken && put_one(ic, f, at[k], &d); k++)
        if (ic->s.out.n >= OUT_ENOUGH)
            (void)stream_flush(&ic->s, NULL);
    if (ic->s.out.cap > OUT_ENOUGH && stream_flush(&ic->s, NULL) == 0)
        buf_free(&ic->s.out);
    return k;
}
