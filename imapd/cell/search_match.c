#include "imapd/cell/search.h"
#include "lib/mail/bodytext.h"
#include "lib/mail/date.h"
#include "lib/mail/header.h"
#include <stdlib.h>

enum verdict { NO, YES, UNKNOWN };
enum { DAY_S = 86400, DECODED_MAX = 64 * 1024 * 1024 };

static enum verdict
verdict(bool yes)
{
    return yes ? YES : NO;
}

static int64_t
day_of(int64_t s)
{
    return s >= 0 ? s / DAY_S : -((-s + DAY_S - 1) / DAY_S);
}

static bool
date_fits(int64_t day, const struct icell_key *k)
{
    return k->compare < 0 ? day < k->day : k->compare > 0 ? day >= k->day : day == k->day;
}

static int
by_index(const void *a, const void *b)
{
    size_t x = *(const size_t *)a, y = *(const size_t *)b;
    return x < y ? -1 : x > y;
}

/* By the name alone. */
static enum verdict
judge_name(struct icell *ic, const struct icell_key *k, size_t i)
{
    struct mailbox_message *m = &ic->mb.msgs[i];
    uint64_t size;
    switch (k->kind) {
    case ICELL_KEY_ALL:
        return YES;
    case ICELL_KEY_SET:
        return verdict(k->nset && bsearch(&i, k->set, k->nset, sizeof i, by_index));
    case ICELL_KEY_FLAG:
        return verdict(!(m->flags & k->flag) != k->want);
    case ICELL_KEY_KEYWORD:
        return verdict((k->keyword >= 0 && (m->keywords >> k->keyword & 1)) == k->want);
    case ICELL_KEY_RECENT:
        return verdict(m->recent == k->want);
    case ICELL_KEY_NEW:
        return verdict(m->recent && !(m->flags & MAILBOX_SEEN));
    case ICELL_KEY_SIZE:
        if (mailbox_vsize(&ic->mb, i, &size, NULL) < 0)
            return NO;
        return verdict(k->compare > 0 ? size > k->size : size < k->size);
    case ICELL_KEY_DATE:
        return verdict(date_fits(day_of(mailbox_date(&ic->mb, i)), k));
    case ICELL_KEY_SAVED_DATE:
        return verdict(date_fits(day_of(m->saved_s), k));
    case ICELL_KEY_MODSEQ:
        return verdict(m->modseq >= k->size);
    case ICELL_KEY_AGE:
        return verdict(k->compare > 0 ? mailbox_date(&ic->mb, i) >= k->day
                                      : mailbox_date(&ic->mb, i) <= k->day);
    default:
        return UNKNOWN;
    }
}

/* Whether a field of this name (any, when field is empty) has the text in its decoded value. */
static bool
in_header(struct str header, struct str field, struct str text)
{
    struct header h = header_of(header);
    struct header_field f;
    struct buf value = buf_new(4 * HEADER_FIELD_MAX);
    bool found = false;
    while (!found && header_next(&h, &f)) {
        if (field.n && !str_caseeq(f.name, field))
            continue;
        buf_reset(&value);
        if (!field.n) {
            buf_add(&value, f.name);
            buf_addz(&value, ": ");
        }
        bodytext_header(&value, f.value);
        found = str_casefind(buf_str(&value), text) >= 0;
    }
    buf_free(&value);
    return found;
}

static bool
in_part(const struct mailfile *file, const struct mime_part *p, struct str want)
{
    struct buf raw = buf_new(DECODED_MAX), utf8 = buf_new(DECODED_MAX), room = buf_new(DECODED_MAX);
    struct str charset = mime_param(p->params, p->nparams, STR("charset"));
    bodytext_decode(&raw, icell_range(file, p->body_at, p->end, &room), p->encoding);
    bodytext_utf8(&utf8, buf_str(&raw), charset);
    bool found = str_casefind(buf_str(&utf8), want) >= 0;
    buf_free(&raw);
    buf_free(&utf8);
    buf_free(&room);
    return found;
}

/* Texts, and the headers of parts and of messages inside; what is empty is in every body. */
static bool
in_body(struct icell *ic, size_t i, struct str want)
{
    if (want.n == 0)
        return true;
    if (icell_load_mime(ic, i, NULL) < 0)
        return false;
    const struct mime *m = &ic->msg.mime;
    const struct mailfile *file = &ic->msg.file;
    struct buf room = buf_new(HEADER_BLOCK_MAX);
    bool found = false;
    for (size_t k = 0; k < m->n && !found; k++) {
        const struct mime_part *p = &m->parts[k];
        if (k > 0) /* the first is the message */
            found =
                in_header(icell_range(file, p->header_at, p->body_at, &room), str_of("", 0), want);
        if (!found && p->kind == MIME_LEAF && str_caseeq(p->type, STR("text")))
            found = in_part(file, p, want);
    }
    buf_free(&room);
    return found;
}

static bool
sent_fits(struct str header, const struct icell_key *k)
{
    struct header_field f;
    struct date d;
    /* RFC 3501: the date as it is written, without its time and zone. */
    return header_find(header, STR("Date"), &f) && date_parse(f.value, &d) == 0 &&
           date_fits(date_days(d.year, d.month, d.day), k);
}

static bool
emailid_is(struct icell *ic, size_t i, struct str want)
{
    struct buf id = buf_new(200);
    bool same = icell_text(ic, i, MAILCACHE_EMAILID, &id, NULL) == 0 && id.n == want.n + 2 &&
                str_eq(str_sub(buf_str(&id), 1, want.n), want);
    buf_free(&id);
    return same;
}

static enum verdict
judge_text(struct icell *ic, const struct icell_key *k, size_t i)
{
    struct str header;
    if (k->kind == ICELL_KEY_EMAILID)
        return verdict(emailid_is(ic, i, k->text));
    if (k->kind == ICELL_KEY_BODY)
        return verdict(in_body(ic, i, k->text));
    if (k->kind == ICELL_KEY_HEADER && !k->field.n)
        return NO;
    bool hot = k->kind == ICELL_KEY_SENT || (k->kind == ICELL_KEY_HEADER && icell_is_hot(k->field));
    if (hot ? icell_hot_header(ic, i, &header, NULL) < 0 : icell_load(ic, i, true, NULL) < 0)
        return NO;
    if (!hot)
        header = str_sub(ic->msg.file.text, 0, ic->msg.file.body_at);
    if (k->kind == ICELL_KEY_SENT)
        return verdict(sent_fits(header, k));
    if (in_header(header, k->field, k->text))
        return YES;
    return verdict(k->kind == ICELL_KEY_TEXT && in_body(ic, i, k->text));
}

static enum verdict
join(enum icell_op_kind kind, enum verdict a, enum verdict b)
{
    enum verdict decides = kind == ICELL_OP_AND ? NO : YES;
    if (a == decides || b == decides)
        return decides;
    return a == UNKNOWN || b == UNKNOWN ? UNKNOWN : a;
}

/* Each open frame of the parser leaves at most one value waiting, and one is in work. */
static enum verdict
run(struct icell *ic, const struct icell_search *s, size_t i, bool read)
{
    enum verdict stack[ICELL_NESTING_MAX + 4];
    size_t n = 0;
    for (size_t k = 0; k < s->n; k++) {
        const struct icell_op *op = &s->ops[k];
        if (op->kind == ICELL_OP_KEY) {
            enum verdict v = judge_name(ic, &op->key, i);
            stack[n++] = v == UNKNOWN && read ? judge_text(ic, &op->key, i) : v;
        } else if (op->kind == ICELL_OP_NOT) {
            stack[n - 1] = stack[n - 1] == UNKNOWN ? UNKNOWN : stack[n - 1] == YES ? NO : YES;
        } else {
            n--;
            stack[n - 1] = join(op->kind, stack[n - 1], stack[n]);
        }
    }
    return stack[0];
}

bool
icell_search_match(struct icell *ic, const struct icell_search *s, size_t i)
{
    if (ic->mb.msgs[i].gone)
        return false;
    enum verdict v = run(ic, s, i, false);
    return (v == UNKNOWN ? run(ic, s, i, true) : v) == YES;
}
