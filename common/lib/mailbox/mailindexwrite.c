/* Writing bulkhead.index: batches at its end, and whole snapshots. */
#include "lib/mailbox/durable.h"
#include "lib/mailbox/mailbox.h"
#include "lib/mailbox/mailindexfile.h"
#include "lib/mailbox/mailname.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

static const char file_name[] = "bulkhead.index";
static const char new_name[] = "bulkhead.index.new";

size_t
mailindex_entry_size(unsigned type)
{
    static const size_t sizes[] = {[MAILINDEX_RECORD] = sizeof(struct mailbox_message),
                                   [MAILINDEX_FLAGS] = sizeof(struct mailindex_flags),
                                   [MAILINDEX_FACTS] = sizeof(struct mailindex_facts),
                                   [MAILINDEX_CACHE] = sizeof(uint64_t),
                                   [MAILINDEX_GONE] = sizeof(uint64_t),
                                   [MAILINDEX_STATE] = sizeof(struct mailindex_tail)};
    if (type == 0 || type >= sizeof sizes / sizeof sizes[0])
        return SIZE_MAX;
    return sizeof(struct mailindex_entry) + sizes[type];
}

static void
put(struct mailindex *ix, enum mailindex_type type, uint32_t uid, const void *body, size_t n,
    struct str tail)
{
    static const char zeros[8];
    size_t all = sizeof(struct mailindex_entry) + n + tail.n, pad = -all & 7;
    const struct mailindex_entry x = {
        .type = (uint16_t)type, .n = (uint32_t)(all + pad), .uid = uid};
    if (ix->fd < 0)
        return;
    buf_add(&ix->batch, str_of((const char *)&x, sizeof x));
    buf_add(&ix->batch, str_of(body, n));
    buf_add(&ix->batch, tail);
    buf_add(&ix->batch, str_of(zeros, pad));
}

void
mailindex_count_one(struct mailindex_counts *c, const struct mailbox_message *m)
{
    bool unseen = !(m->flags & MAILBOX_SEEN);
    c->messages++;
    c->deleted += (m->flags & MAILBOX_DELETED) != 0;
    c->in_new += m->in_new;
    c->owed += m->bare || m->owed;
    c->unseen += unseen;
    if (unseen && !c->first_unseen)
        c->first_unseen = c->messages;
}

/* Those behind the others. */
static void
count_more(struct mailindex_counts *c, const struct mailindex_counts *more)
{
    if (!c->first_unseen && more->first_unseen)
        c->first_unseen = c->messages + more->first_unseen;
    c->messages += more->messages;
    c->unseen += more->unseen;
    c->deleted += more->deleted;
    c->in_new += more->in_new;
    c->owed += more->owed;
}

void
mailindex_put_record(struct mailindex *ix, struct mailbox_message *m, struct str name)
{
    struct mailbox_message r = *m;
    if (ix->fd < 0)
        return;
    r.recent = r.gone = r.changed = r.missed = false;
    struct str stem = mailindex_stem(&r, name);
    m->name_at = (uint32_t)(ix->read_to + sizeof(struct mailindex_batch) + ix->batch.n +
                            sizeof(struct mailindex_entry) + sizeof r);
    m->name_n = r.name_n;
    m->odd = r.odd;
    put(ix, MAILINDEX_RECORD, m->uid, &r, sizeof r, stem);
}

void
mailindex_put_added(struct mailindex *ix, struct mailbox_message *m, struct str name)
{
    mailindex_put_record(ix, m, name);
    mailindex_count_one(&ix->added, m);
}

void
mailindex_put_flags(struct mailindex *ix, const struct mailbox_message *m)
{
    const struct mailindex_flags f = {m->flags, m->keywords, m->modseq, m->owed,
                                      m->owed ? m->named : 0};
    ix->recount = true;
    put(ix, MAILINDEX_FLAGS, m->uid, &f, sizeof f, STR(""));
}

void
mailindex_put_facts(struct mailindex *ix, const struct mailbox_message *m)
{
    const struct mailindex_facts f = {m->size, m->vsize, m->date_s};
    put(ix, MAILINDEX_FACTS, m->uid, &f, sizeof f, STR(""));
}

void
mailindex_put_cache(struct mailindex *ix, const struct mailbox_message *m)
{
    put(ix, MAILINDEX_CACHE, m->uid, &m->cache_at, sizeof m->cache_at, STR(""));
}

void
mailindex_put_gone(struct mailindex *ix, uint32_t uid, uint64_t modseq)
{
    ix->recount = true;
    if (ix->fd < 0) /* nobody will read it to us from the log */
        mailindex_add_gone(ix, uid, modseq);
    put(ix, MAILINDEX_GONE, uid, &modseq, sizeof modseq, STR(""));
}

static void
put_tail(struct mailindex *ix)
{
    const size_t n = sizeof(struct mailindex_entry) + sizeof(struct mailindex_tail);
    struct mailindex_tail t = {.state = ix->state, .batch_n = ix->batch.n + n};
    uint64_t end = ix->read_to + sizeof(struct mailindex_batch) + t.batch_n;
    t.check = mailindex_tail_check(ix->id, end, &t);
    put(ix, MAILINDEX_STATE, 0, &t, sizeof t, STR(""));
}

void
mailindex_drop_batch(struct mailindex *ix)
{
    buf_reset(&ix->batch);
    ix->added = (struct mailindex_counts){0};
    ix->recount = false;
}

int
mailindex_commit(struct mailindex *ix, struct mailindex_rows *rows)
{
    int result = -1;
    struct buf *b = &ix->batch;
    if (ix->fd < 0 || ix->torn)
        goto out;
    if (ix->recount && rows)
        ix->state.counts = mailindex_count(rows);
    count_more(&ix->state.counts, &ix->added);
    put_tail(ix);
    struct mailindex_batch head = {.magic = MAILINDEX_BATCH, .n = (uint32_t)b->n};
    if (!buf_ok(b) || ix->read_to - ix->log_at + b->n + sizeof head > MAILINDEX_LOG_MAX ||
        ix->read_to + b->n + sizeof head > UINT32_MAX)
        goto out;
    head.check = mailindex_check(ix->id + ix->read_to, b->p, b->n);
    /* The head is written last: what lies behind it is then whole, for whoever reads meanwhile. */
    if (pwrite(ix->fd, b->p, b->n, (off_t)(ix->read_to + sizeof head)) != (ssize_t)b->n ||
        pwrite(ix->fd, &head, sizeof head, (off_t)ix->read_to) != (ssize_t)sizeof head) {
        ix->torn = true;
        goto out;
    }
    result = mailindex_follow(ix, rows, true);
out:
    mailindex_drop_batch(ix);
    if (result < 0)
        ix->torn = true;
    return result;
}

bool
mailindex_is_long(const struct mailindex *ix, size_t rows, bool busy)
{
    uint64_t log = ix->read_to - ix->log_at, all = rows * sizeof(struct mailbox_message);
    return log > 65536 && log > (busy ? 2 * all : all / 8);
}

/* ---- a snapshot ---- */

struct snapshot {
    struct mailindex *ix;
    struct mailindex_rows *rows;
    uint64_t names_at;
    struct buf names; /* gathered from the old file; else they lie in ix->heap as they are to lie */
    bool bump;
    struct mailindex_head head;
};

/* All names behind each other; nobody but us can have been at those in memory. */
static int
gather_names(struct snapshot *s)
{
    struct buf name = buf_new(MAILNAME_MAX + 64);
    int result = 0;
    for (size_t i = 0; i < s->rows->n && s->ix->fd >= 0 && result == 0; i++) {
        if (s->rows->at[i].gone)
            continue;
        result = mailindex_raw(s->ix, &s->rows->at[i], &name);
        buf_add(&s->names, buf_str(&name));
    }
    buf_free(&name);
    return result == 0 && buf_ok(&s->names) ? 0 : -1;
}

/* A row's name is *at from the beginning of the names. */
static void
place_row(const struct snapshot *s, struct mailbox_message *m, uint64_t *at)
{
    m->name_at = (uint32_t)(s->names_at + (s->ix->fd >= 0 ? *at : m->name_at));
    *at += m->name_n;
    if (s->bump)
        m->modseq = s->ix->state.modseq;
}

static int
write_rows(struct snapshot *s, int fd)
{
    static struct mailbox_message piece[MAILINDEX_PIECE];
    uint64_t at = 0;
    size_t n = 0, i = 0;
    s->head.rows_check = MAILINDEX_ROWS_SEED;
    while (i < s->rows->n) {
        for (; i < s->rows->n && n < MAILINDEX_PIECE; i++) {
            if (s->rows->at[i].gone)
                continue;
            struct mailbox_message *m = &piece[n++];
            *m = s->rows->at[i];
            place_row(s, m, &at);
            m->recent = m->changed = m->missed = false;
            mailindex_count_one(&s->ix->state.counts, m);
        }
        s->head.rows_check = mailindex_check(s->head.rows_check, piece, n * sizeof *piece);
        if (durable_write(fd, str_of((const char *)piece, n * sizeof *piece)) < 0)
            return -1;
        n = 0;
    }
    return 0;
}

/* The head is written last, when all that it tells is known. */
static int
write_parts(struct snapshot *s, int fd, struct str names)
{
    struct mailindex_head *h = &s->head;
    struct mailindex *ix = s->ix;
    struct str head = str_of((const char *)h, sizeof *h);
    struct str gone = str_of((const char *)ix->gone, ix->ngone * sizeof *ix->gone);
    ix->state.counts = (struct mailindex_counts){0};
    if (durable_write(fd, head) < 0 || write_rows(s, fd) < 0 || durable_write(fd, gone) < 0 ||
        durable_write(fd, names) < 0)
        return -1;
    memcpy(h->magic, MAILINDEX_MAGIC, sizeof h->magic);
    while (getrandom(&h->id, sizeof h->id, 0) < 0 && errno == EINTR)
        ;
    h->version = MAILINDEX_VERSION;
    h->record_size = sizeof(struct mailbox_message);
    h->n = ix->state.counts.messages;
    h->ngone = ix->ngone;
    h->names_n = names.n;
    h->gone_floor = ix->gone_floor;
    h->state = ix->state;
    h->gone_check = mailindex_check(3, ix->gone, gone.n);
    h->check = mailindex_check(1, h, offsetof(struct mailindex_head, check));
    return pwrite(fd, h, sizeof *h, 0) == (ssize_t)sizeof *h ? 0 : -1;
}

static int
new_file(struct snapshot *s, int dir_fd, struct str names, struct stat *st_r)
{
    unlinkat(dir_fd, new_name, 0);
    int fd = openat(dir_fd, new_name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return -1;
    if (write_parts(s, fd, names) < 0 || fstat(fd, st_r) < 0 ||
        renameat(dir_fd, new_name, dir_fd, file_name) < 0) {
        unlinkat(dir_fd, new_name, 0);
        close(fd);
        return -1;
    }
    return fd;
}

/* The session's rows and its index are now what lies in the new file. */
static void
take_file(struct snapshot *s, int fd, const struct stat *st)
{
    struct mailindex *ix = s->ix;
    uint64_t at = 0;
    for (size_t i = 0; i < s->rows->n; i++)
        if (!s->rows->at[i].gone)
            place_row(s, &s->rows->at[i], &at);
    if (ix->fd >= 0)
        close(ix->fd);
    ix->fd = fd;
    ix->id = s->head.id;
    ix->ino = st->st_ino;
    ix->log_at = ix->read_to = (uint64_t)st->st_size;
    ix->torn = false;
    ix->saved = ix->state;
    buf_free(&ix->heap);
    buf_free(&ix->window);
    ix->window_at = 0;
}

int
mailindex_write(struct mailindex *ix, int dir_fd, struct mailindex_rows *rows, bool bump)
{
    struct snapshot s = {.ix = ix, .rows = rows, .bump = bump, .names = buf_new(UINT32_MAX)};
    struct stat st;
    size_t live = 0;
    int fd = -1;
    for (size_t i = 0; i < rows->n; i++)
        live += !rows->at[i].gone;
    s.names_at = sizeof(struct mailindex_head) + live * sizeof(struct mailbox_message) +
                 ix->ngone * sizeof *ix->gone;
    if (gather_names(&s) == 0) {
        struct str names = ix->fd >= 0 ? buf_str(&s.names) : buf_str(&ix->heap);
        if (s.names_at + names.n < UINT32_MAX)
            fd = new_file(&s, dir_fd, names, &st);
    }
    if (fd >= 0)
        take_file(&s, fd, &st);
    mailindex_drop_batch(ix);
    buf_free(&s.names);
    return fd < 0 ? -1 : 0;
}
