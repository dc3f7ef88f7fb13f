#include "lib/mailbox/mailindex.h"
#include "lib/mailbox/durable.h"
#include "lib/mailbox/mailbox.h"
#include "lib/mailbox/mailindexfile.h"
#include "lib/mailbox/mailname.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

static const char file_name[] = "bulkhead.index";

uint64_t
mailindex_check(uint64_t seed, const void *p, size_t n)
{
    /* Four lanes, so that the multiplications overlap. */
    static const uint64_t odd = 0x9e3779b97f4a7c15u;
    uint64_t h[4] = {seed ^ n, seed + odd, ~seed, seed * odd};
    const unsigned char *at = p;
    uint64_t w[4];
    for (; n >= sizeof w; n -= sizeof w, at += sizeof w) {
        memcpy(w, at, sizeof w);
        for (int i = 0; i < 4; i++) {
            h[i] = (h[i] ^ w[i]) * odd;
            h[i] ^= h[i] >> 29;
        }
    }
    memset(w, 0, sizeof w);
    if (n)
        memcpy(w, at, n);
    for (int i = 0; i < 4; i++)
        h[0] = ((h[0] ^ h[i] ^ w[i]) * odd) ^ (h[0] >> 32);
    return h[0] ^ h[0] >> 31;
}

void
mailindex_init(struct mailindex *ix)
{
    *ix = (struct mailindex){.fd = -1,
                             .heap = buf_new(UINT32_MAX),
                             .batch = buf_new(MAILINDEX_LOG_MAX),
                             .window = buf_new(MAILINDEX_WINDOW)};
}

void
mailindex_free(struct mailindex *ix)
{
    if (ix->fd >= 0)
        close(ix->fd);
    free(ix->gone);
    buf_free(&ix->heap);
    buf_free(&ix->batch);
    buf_free(&ix->window);
    mailindex_init(ix);
}

/* ---- rows ---- */

int
mailindex_reserve(struct mailindex_rows *rows, size_t n)
{
    if (n <= rows->cap)
        return 0;
    size_t cap = n + n / 4 + 64;
    struct mailbox_message *at = reallocarray(rows->at, cap, sizeof *at);
    if (!at)
        return -1;
    rows->at = at;
    rows->cap = cap;
    return 0;
}

size_t
mailindex_find(const struct mailindex_rows *rows, uint32_t uid)
{
    size_t low = 0, high = rows->n;
    if (high && rows->at[high - 1].uid < uid)
        return high;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (rows->at[mid].uid < uid)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static struct mailbox_message *
row_of(struct mailindex_rows *rows, uint32_t uid)
{
    size_t i = rows->hint + 1;
    if (i >= rows->n || rows->at[i].uid != uid)
        i = mailindex_find(rows, uid);
    rows->hint = i;
    return i < rows->n && rows->at[i].uid == uid && !rows->at[i].gone ? &rows->at[i] : NULL;
}

void
mailindex_add_gone(struct mailindex *ix, uint32_t uid, uint64_t modseq)
{
    struct mailindex_gone *last = ix->ngone ? &ix->gone[ix->ngone - 1] : NULL;
    if (last && last->modseq == modseq && last->to + 1 == uid) {
        last->to = uid;
        return;
    }
    if (ix->ngone == MAILINDEX_GONE_MAX) {
        /* The older half is forgotten, and that it is, is remembered. */
        size_t drop = ix->ngone / 2;
        ix->gone_floor = ix->gone[drop - 1].modseq;
        memmove(ix->gone, ix->gone + drop, (ix->ngone - drop) * sizeof *ix->gone);
        ix->ngone -= drop;
    }
    if (!ix->gone)
        ix->gone = calloc(MAILINDEX_GONE_MAX, sizeof *ix->gone);
    if (!ix->gone) {
        ix->gone_floor = modseq;
        return;
    }
    ix->gone[ix->ngone++] = (struct mailindex_gone){uid, uid, modseq};
}

/* ---- applying entries ---- */

static void
take_flags(struct mailindex_rows *rows, struct mailbox_message *m, uint8_t flags, uint32_t keywords,
           uint64_t modseq)
{
    if (m->flags != flags || m->keywords != keywords) {
        m->flags = flags;
        m->keywords = keywords;
        m->changed = rows->news = true;
    }
    m->modseq = modseq;
}

static int
apply_record(struct mailindex_rows *rows, const struct mailbox_message *r, uint32_t name_at)
{
    struct mailbox_message *m = row_of(rows, r->uid);
    if (!m && (rows->n == 0 || rows->at[rows->n - 1].uid < r->uid) &&
        rows->n < MAILBOX_MESSAGES_MAX) {
        if (mailindex_reserve(rows, rows->n + 1) < 0)
            return -1;
        m = &rows->at[rows->n++];
        *m = *r;
        m->recent = m->gone = m->changed = m->missed = false;
        m->name_at = name_at;
        rows->news = true;
    } else if (m) {
        m->name_at = name_at;
        m->name_n = r->name_n;
        m->odd = r->odd;
        m->bare = r->bare;
        m->owed = r->owed;
        m->named = r->named;
        m->in_new = r->in_new;
        m->size = r->size;
        m->vsize = r->vsize;
        if (r->date_s)
            m->date_s = r->date_s;
        take_flags(rows, m, r->flags, r->keywords, r->modseq);
    }
    return 0;
}

/* One entry; how long it is, or 0: none that we know. */
static size_t
apply(struct mailindex *ix, struct mailindex_rows *rows, struct str rest, uint64_t at, int *oom)
{
    struct mailindex_entry x;
    if (rest.n < sizeof x)
        return 0;
    memcpy(&x, rest.p, sizeof x);
    if (x.n < sizeof x || x.n > rest.n || x.n % 8 != 0 || x.n < mailindex_entry_size(x.type))
        return 0;
    const char *body = rest.p + sizeof x;
    struct mailbox_message *m = rows && x.type != MAILINDEX_RECORD ? row_of(rows, x.uid) : NULL;
    if (x.type == MAILINDEX_RECORD) {
        struct mailbox_message r;
        memcpy(&r, body, sizeof r);
        if (sizeof x + sizeof r + r.name_n > x.n)
            return 0;
        if (rows && apply_record(rows, &r, (uint32_t)(at + sizeof x + sizeof r)) < 0)
            *oom = -1;
    } else if (x.type == MAILINDEX_FLAGS) {
        struct mailindex_flags f;
        memcpy(&f, body, sizeof f);
        if (m) {
            m->in_new = false;
            m->owed = f.owed;
            m->named = f.named;
            take_flags(rows, m, (uint8_t)f.flags, f.keywords, f.modseq);
        }
    } else if (x.type == MAILINDEX_FACTS) {
        struct mailindex_facts f;
        memcpy(&f, body, sizeof f);
        if (m) {
            m->size = f.size;
            m->vsize = f.vsize;
            m->date_s = f.date_s;
        }
    } else if (x.type == MAILINDEX_CACHE) {
        if (m)
            memcpy(&m->cache_at, body, sizeof m->cache_at);
    } else if (x.type == MAILINDEX_GONE) {
        uint64_t modseq;
        memcpy(&modseq, body, sizeof modseq);
        mailindex_add_gone(ix, x.uid, modseq);
        if (m)
            m->gone = rows->news = true;
    } else {
        memcpy(&ix->state, body, sizeof ix->state);
    }
    return x.n;
}

/* All of a batch, whose check holds. */
static int
apply_batch(struct mailindex *ix, struct mailindex_rows *rows, struct str entries, uint64_t at)
{
    int oom = 0;
    while (entries.n) {
        size_t n = apply(ix, rows, entries, at, &oom);
        if (n == 0 || oom < 0)
            return -1;
        entries = str_from(entries, n);
        at += n;
    }
    return 0;
}

/* ---- reading ---- */

static int
read_all(int fd, void *to, size_t n, uint64_t at)
{
    char *p = to;
    while (n) {
        ssize_t got = pread(fd, p, n, (off_t)at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return -1;
        p += got;
        n -= (size_t)got;
        at += (uint64_t)got;
    }
    return 0;
}

/* No message has a UID that is still to be given: else new ones would not come behind it. */
static bool
numbers_fit(const struct mailindex *ix, const struct mailindex_rows *rows)
{
    return !rows || !rows->n || rows->at[rows->n - 1].uid < ix->state.next_uid;
}

/* Apply what lies before end. */
static int
follow(struct mailindex *ix, struct mailindex_rows *rows, uint64_t end, bool locked)
{
    uint64_t from = ix->read_to;
    if (end <= from)
        return 0;
    if (end - ix->log_at > 2u * MAILINDEX_LOG_MAX)
        return -1;
    size_t n = (size_t)(end - from);
    char *p = malloc(n);
    int result = p ? read_all(ix->fd, p, n, from) : -1;
    size_t at = 0;
    while (result == 0 && at < n) {
        struct mailindex_batch b;
        if (n - at < sizeof b)
            break;
        memcpy(&b, p + at, sizeof b);
        if (b.magic != MAILINDEX_BATCH || b.n > n - at - sizeof b ||
            b.check != mailindex_check(ix->id + from + at, p + at + sizeof b, b.n))
            break;
        result = apply_batch(ix, rows, str_of(p + at + sizeof b, b.n), from + at + sizeof b);
        at += sizeof b + b.n;
        ix->read_to = from + at;
    }
    if (locked && at < n)
        ix->torn = true;
    ix->saved = ix->state;
    free(p);
    return result == 0 && !numbers_fit(ix, rows) ? -1 : result;
}

int
mailindex_follow(struct mailindex *ix, struct mailindex_rows *rows, bool locked)
{
    struct stat st;
    if (ix->fd < 0 || fstat(ix->fd, &st) < 0)
        return -1;
    return follow(ix, rows, (uint64_t)st.st_size, locked);
}

static bool
head_fits(const struct mailindex_head *h, uint64_t size, uint32_t validity)
{
    uint64_t fixed;
    return memcmp(h->magic, MAILINDEX_MAGIC, sizeof h->magic) == 0 &&
           h->version == MAILINDEX_VERSION && h->record_size == sizeof(struct mailbox_message) &&
           h->check == mailindex_check(1, h, offsetof(struct mailindex_head, check)) &&
           h->state.validity && (!validity || h->state.validity == validity) &&
           h->n <= MAILBOX_MESSAGES_MAX && h->ngone <= MAILINDEX_GONE_MAX &&
           !__builtin_add_overflow(sizeof *h + h->n * sizeof(struct mailbox_message) +
                                       h->ngone * sizeof(struct mailindex_gone),
                                   h->names_n, &fixed) &&
           fixed <= size && fixed <= UINT32_MAX;
}

/* The records: ascending, and nothing in them that only a session may say. */
static bool
rows_fit(const struct mailindex_rows *rows)
{
    uint32_t last = 0;
    for (size_t i = 0; i < rows->n; i++) {
        const struct mailbox_message *m = &rows->at[i];
        if (m->uid <= last)
            return false;
        last = m->uid;
    }
    return true;
}

uint64_t
mailindex_rows_check(const struct mailbox_message *at, size_t n)
{
    uint64_t check = MAILINDEX_ROWS_SEED;
    for (size_t piece; n; n -= piece, at += piece) {
        piece = n < MAILINDEX_PIECE ? n : MAILINDEX_PIECE;
        check = mailindex_check(check, at, piece * sizeof *at);
    }
    return check;
}

static int
load_body(struct mailindex *ix, const struct mailindex_head *h, struct mailindex_rows *rows)
{
    size_t rows_n = h->n * sizeof(struct mailbox_message), gone_n = h->ngone * sizeof *ix->gone;
    ix->gone = calloc(MAILINDEX_GONE_MAX, sizeof *ix->gone);
    if (!ix->gone || read_all(ix->fd, ix->gone, gone_n, sizeof *h + rows_n) < 0 ||
        h->gone_check != mailindex_check(3, ix->gone, gone_n))
        return -1;
    ix->ngone = h->ngone;
    if (!rows)
        return 0;
    if (mailindex_reserve(rows, h->n + 1) < 0 ||
        read_all(ix->fd, rows->at, rows_n, sizeof *h) < 0 ||
        h->rows_check != mailindex_rows_check(rows->at, h->n))
        return -1;
    rows->n = h->n;
    return rows_fit(rows) && numbers_fit(ix, rows) ? 0 : -1;
}

static void
drop_gone(struct mailindex_rows *rows)
{
    size_t n = 0;
    for (size_t i = 0; i < rows->n; i++) {
        rows->at[i].changed = false;
        if (rows->at[i].gone)
            continue;
        if (n != i)
            rows->at[n] = rows->at[i];
        n++;
    }
    rows->n = n;
    rows->news = false;
}

/* Open the file, and what its head says. */
static int
open_index(struct mailindex *ix, int dir_fd, uint32_t validity, struct mailindex_head *h,
           uint64_t *size_r)
{
    struct stat st;
    mailindex_free(ix);
    ix->fd = durable_open_rw(dir_fd, file_name, &st);
    if (ix->fd < 0 || read_all(ix->fd, h, sizeof *h, 0) < 0 ||
        !head_fits(h, (uint64_t)st.st_size, validity)) {
        mailindex_free(ix);
        return -1;
    }
    *size_r = (uint64_t)st.st_size;
    ix->id = h->id;
    ix->ino = st.st_ino;
    ix->state = ix->saved = h->state;
    ix->gone_floor = h->gone_floor;
    ix->log_at = ix->read_to = sizeof *h + h->n * sizeof(struct mailbox_message) +
                               h->ngone * sizeof *ix->gone + h->names_n;
    return 0;
}

int
mailindex_load(struct mailindex *ix, int dir_fd, uint32_t validity, struct mailindex_rows *rows)
{
    struct mailindex_head h;
    uint64_t size;
    if (rows)
        rows->n = 0;
    if (open_index(ix, dir_fd, validity, &h, &size) < 0)
        return -1;
    uint64_t before = ix->read_to;
    if (load_body(ix, &h, rows) == 0 && mailindex_follow(ix, rows, false) == 0 &&
        (!validity || ix->state.validity == validity)) {
        if (rows && ix->read_to != before)
            drop_gone(rows);
        return 0;
    }
    mailindex_free(ix);
    if (rows)
        rows->n = 0;
    return -1;
}

/* The state that the file ends with: of a batch that is there from its first byte. */
static int
read_tail(const struct mailindex *ix, uint64_t size, struct mailindex_state *state_r)
{
    struct {
        struct mailindex_entry x;
        struct mailindex_tail t;
    } last;
    struct mailindex_batch b;
    if (size < ix->log_at + sizeof b + sizeof last || size - ix->log_at > 2u * MAILINDEX_LOG_MAX ||
        read_all(ix->fd, &last, sizeof last, size - sizeof last) < 0 ||
        last.x.type != MAILINDEX_STATE || last.x.n != sizeof last ||
        last.t.check != mailindex_tail_check(ix->id, size, &last.t) ||
        last.t.batch_n < sizeof last || last.t.batch_n > size - ix->log_at - sizeof b ||
        read_all(ix->fd, &b, sizeof b, size - last.t.batch_n - sizeof b) < 0 ||
        b.magic != MAILINDEX_BATCH || b.n != last.t.batch_n)
        return -1;
    *state_r = last.t.state;
    return 0;
}

uint64_t
mailindex_tail_check(uint64_t id, uint64_t end, const struct mailindex_tail *t)
{
    return mailindex_check(id + end, t, offsetof(struct mailindex_tail, check));
}

int
mailindex_peek(struct mailindex *ix, int dir_fd, uint32_t validity)
{
    struct mailindex_head h;
    uint64_t size;
    if (open_index(ix, dir_fd, validity, &h, &size) < 0)
        return -1;
    if (size != ix->log_at && read_tail(ix, size, &ix->state) < 0)
        goto none;
    if (validity && ix->state.validity != validity)
        goto none;
    ix->saved = ix->state;
    ix->read_to = size;
    return 0;
none:
    mailindex_free(ix);
    return -1;
}

struct mailindex_counts
mailindex_count(const struct mailindex_rows *rows)
{
    struct mailindex_counts c = {0};
    for (size_t i = 0; i < rows->n; i++)
        if (!rows->at[i].gone)
            mailindex_count_one(&c, &rows->at[i]);
    return c;
}

int
mailindex_load_rows(struct mailindex *ix, struct mailindex_rows *rows)
{
    struct mailindex_head h;
    const struct mailindex_state want = ix->state;
    const uint64_t to = ix->read_to;
    rows->n = 0;
    if (ix->fd < 0 || read_all(ix->fd, &h, sizeof h, 0) < 0 || h.id != ix->id ||
        !head_fits(&h, to, want.validity))
        goto damaged;
    ix->state = h.state;
    ix->read_to = ix->log_at;
    if (load_body(ix, &h, rows) < 0 || follow(ix, rows, to, false) < 0 || ix->read_to != to ||
        memcmp(&ix->state, &want, sizeof want) != 0)
        goto damaged;
    if (to != ix->log_at)
        drop_gone(rows);
    const struct mailindex_counts counts = mailindex_count(rows);
    if (memcmp(&counts, &want.counts, sizeof counts) == 0)
        return 0;
damaged:
    mailindex_free(ix);
    rows->n = 0;
    return -1;
}

enum mailindex_news
mailindex_look(const struct mailindex *ix, int dir_fd)
{
    struct stat st;
    if (ix->fd < 0 || fstatat(dir_fd, file_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
        (uint64_t)st.st_ino != ix->ino || (uint64_t)st.st_size < ix->read_to)
        return MAILINDEX_REPLACED;
    return (uint64_t)st.st_size == ix->read_to ? MAILINDEX_SAME : MAILINDEX_GREW;
}

/* ---- names ---- */

/* ":2,FLAGS" as the file's name has it. */
static struct str
suffix_of(const struct mailbox_message *m, char room[static MAILNAME_SUFFIX_MAX])
{
    if (m->in_new)
        return STR("");
    if (m->owed)
        return mailname_suffix(room, (uint8_t)(m->named >> KEYWORDS_MAX),
                               m->named & ((1u << KEYWORDS_MAX) - 1));
    return mailname_suffix(room, m->flags, m->keywords);
}

struct str
mailindex_stem(struct mailbox_message *m, struct str name)
{
    char room[MAILNAME_SUFFIX_MAX];
    struct str head = mailname_head(name);
    m->odd = !str_eq(str_from(name, head.n), suffix_of(m, room));
    struct str kept = m->odd ? name : head;
    m->name_n = (uint8_t)kept.n;
    return kept;
}

int
mailindex_set_name(struct mailindex *ix, struct mailbox_message *m, struct str name)
{
    if (name.n > MAILNAME_MAX)
        return -1;
    m->name_at = (uint32_t)ix->heap.n;
    buf_add(&ix->heap, mailindex_stem(m, name));
    return buf_ok(&ix->heap) ? 0 : -1;
}

static struct str
stored(struct mailindex *ix, const struct mailbox_message *m)
{
    if (ix->fd < 0)
        return str_sub(buf_str(&ix->heap), m->name_at, m->name_n);
    uint64_t batch_at = ix->read_to + sizeof(struct mailindex_batch);
    if (m->name_at >= batch_at)
        return str_sub(buf_str(&ix->batch), (size_t)(m->name_at - batch_at), m->name_n);
    uint64_t end = (uint64_t)m->name_at + m->name_n;
    if (m->name_at < ix->window_at || end > ix->window_at + ix->window.n) {
        buf_reset(&ix->window);
        char *to = buf_reserve(&ix->window, MAILINDEX_WINDOW);
        ssize_t n = to ? pread(ix->fd, to, MAILINDEX_WINDOW, m->name_at) : 0;
        buf_commit(&ix->window, n > 0 ? (size_t)n : 0);
        ix->window_at = m->name_at;
    }
    return str_sub(buf_str(&ix->window), (size_t)(m->name_at - ix->window_at), m->name_n);
}

int
mailindex_raw(struct mailindex *ix, const struct mailbox_message *m, struct buf *stem)
{
    struct str text = stored(ix, m);
    buf_reset(stem);
    buf_add(stem, text);
    return text.n == m->name_n && buf_ok(stem) ? 0 : -1;
}

/* What is stored, and taken apart. -1: it is not this record's. */
static int
parse_stored(struct mailindex *ix, const struct mailbox_message *m, struct str *text_r,
             struct mailname *parsed_r)
{
    *text_r = stored(ix, m);
    return text_r->n != m->name_n || mailname_parse(*text_r, parsed_r) < 0 ||
                   (!m->bare && (parsed_r->uid != m->uid ||
                                 (ix->state.validity && parsed_r->validity != ix->state.validity)))
               ? -1
               : 0;
}

int
mailindex_base(struct mailindex *ix, const struct mailbox_message *m, struct str *base_r)
{
    struct mailname parsed;
    struct str text = stored(ix, m), base = str_cut(&text, ',');
    ptrdiff_t last = str_rchr(text, ',');
    /* Most end in it. */
    if (last >= 0 && mailname_uid(str_from(text, (size_t)last + 1), &parsed) == 0 &&
        parsed.uid == m->uid && parsed.validity == ix->state.validity) {
        *base_r = base;
        return 0;
    }
    if (parse_stored(ix, m, &text, &parsed) < 0)
        return -1;
    *base_r = parsed.base;
    return 0;
}

int
mailindex_name(struct mailindex *ix, const struct mailbox_message *m, struct buf *name)
{
    struct mailname parsed;
    struct str text;
    buf_reset(name);
    if (parse_stored(ix, m, &text, &parsed) < 0)
        return -1;
    buf_add(name, text);
    char room[MAILNAME_SUFFIX_MAX];
    if (!m->odd)
        buf_add(name, suffix_of(m, room));
    return buf_ok(name) ? 0 : -1;
}
