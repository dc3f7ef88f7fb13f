#include "imapd/cell/digest.h"
#include "lib/mail/date.h"
#include "lib/mail/header.h"
#include "lib/mail/msgid.h"
#include "lib/mail/subject.h"
#include <sys/random.h>

/* As it is kept; then nrefs hashes, then the text. */
struct record {
    struct sipkey key;
    int64_t date_s;
    uint64_t id, subject;
    uint32_t nrefs;
    uint8_t dated, reply;
    uint16_t text_n;
};

static uint64_t
hash(struct icell *ic, struct str s)
{
    uint64_t h = siphash(&ic->digest_key, s);
    return h ? h : 1;
}

/* The identifiers of a field: the first and the last ones of too many, or (only_first) one. */
static uint32_t
identifiers(struct icell *ic, struct str value, bool only_first, uint64_t *ids)
{
    struct cursor c = cursor_of(value);
    static struct msgid id;
    uint32_t n = 0;
    while (!(only_first && n) && msgid_next(&c, &id)) {
        if (n == ICELL_REFS_MAX) {
            memmove(ids + 1, ids + 2, (ICELL_REFS_MAX - 2) * sizeof *ids);
            n--;
        }
        ids[n++] = hash(ic, str_of(id.p, id.n));
    }
    return n;
}

static void
fill(struct icell *ic, struct str header, struct record *r, uint64_t *refs, struct buf *folded)
{
    struct header_field f;
    struct date d;
    struct buf base = buf_new(4 * HEADER_FIELD_MAX);
    uint64_t id;
    bool reply = false;
    r->dated = header_find(header, STR("Date"), &f) && date_parse(f.value, &d) == 0;
    r->date_s = r->dated ? d.utc_s : 0;
    if (header_find(header, STR("Message-ID"), &f) && identifiers(ic, f.value, true, &id))
        r->id = id;
    /* RFC 5256 REFERENCES (1): References, or if none is in it the first of In-Reply-To. */
    if (header_find(header, STR("References"), &f))
        r->nrefs = identifiers(ic, f.value, false, refs);
    if (!r->nrefs && header_find(header, STR("In-Reply-To"), &f))
        r->nrefs = identifiers(ic, f.value, true, refs);
    if (header_find(header, STR("Subject"), &f)) {
        subject_base(&base, f.value, &reply);
        subject_fold(folded, buf_str(&base));
        r->subject = folded->n ? hash(ic, buf_str(folded)) : 0;
        r->reply = reply;
    }
    buf_truncate(folded, ICELL_DIGEST_TEXT_MAX);
    r->text_n = (uint16_t)folded->n;
    buf_free(&base);
}

static bool
make(struct icell *ic, size_t i)
{
    struct record r = {0};
    uint64_t refs[ICELL_REFS_MAX];
    struct str header;
    struct buf folded = buf_new(8 * HEADER_FIELD_MAX);
    if (!ic->digest_keyed) {
        if (getrandom(&ic->digest_key, sizeof ic->digest_key, 0) != (ssize_t)sizeof ic->digest_key)
            return false;
        ic->digest_keyed = true;
    }
    if (icell_hot_header(ic, i, &header, NULL) < 0)
        return false;
    fill(ic, header, &r, refs, &folded);
    r.key = ic->digest_key;
    buf_reset(&ic->digest);
    buf_add(&ic->digest, str_of((const char *)&r, sizeof r));
    buf_add(&ic->digest, str_of((const char *)refs, r.nrefs * sizeof *refs));
    buf_add(&ic->digest, buf_str(&folded));
    buf_free(&folded);
    mailcache_put(&ic->mb, i, MAILCACHE_DIGEST, buf_str(&ic->digest));
    return true;
}

/* A record's parts; false when it makes no sense, or has another key. */
static bool
take(struct icell *ic, struct str kept, struct record *r, struct icell_digest *d)
{
    if (kept.n < sizeof *r)
        return false;
    memcpy(r, kept.p, sizeof *r);
    size_t refs = r->nrefs * sizeof d->refs[0];
    if (r->nrefs > ICELL_REFS_MAX || kept.n != sizeof *r + refs + r->text_n)
        return false;
    if (!ic->digest_keyed) {
        ic->digest_key = r->key;
        ic->digest_keyed = true;
    }
    if (memcmp(&ic->digest_key, &r->key, sizeof r->key) != 0)
        return false;
    memcpy(d->refs, kept.p + sizeof *r, refs);
    d->text = str_from(kept, sizeof *r + refs);
    return true;
}

void
icell_digest(struct icell *ic, size_t i, struct icell_digest *d_r)
{
    struct record r = {0};
    struct str kept;
    bool good = mailcache_get(&ic->mb, i, MAILCACHE_DIGEST, &kept) == 0 && take(ic, kept, &r, d_r);
    if (!good && !(make(ic, i) && take(ic, buf_str(&ic->digest), &r, d_r))) {
        r = (struct record){0};
        d_r->text = str_of("", 0);
    }
    d_r->date_s = r.dated ? r.date_s : mailbox_date(&ic->mb, i);
    d_r->id = r.id;
    d_r->subject = r.subject;
    d_r->reply = r.reply;
    d_r->nrefs = r.nrefs;
}
