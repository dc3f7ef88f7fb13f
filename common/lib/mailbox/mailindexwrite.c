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

/* The names of all rows behind each other; rows_r get their places. */
static int
gather(struct mailindex *ix, const struct mailindex_rows *rows, uint64_t names_at, bool bump,
       struct mailindex_rows *rows_r, struct buf *names)
{
    struct buf name = buf_new(MAILNAME_MAX + 64);
    int result = mailindex_reserve(rows_r, rows->n + 1);
    for (size_t i = 0; result == 0 && i < rows->n; i++) {
        struct mailbox_message m = rows->at[i];
        if (m.gone)
            continue;
        /* In memory they lie as they are to lie in the file, and nobody else can have been there.
         */
        if (ix->fd >= 0)
            result = mailindex_raw(ix, &m, &name);
        m.name_at = (uint32_t)(names_at + (ix->fd >= 0 ? names->n : m.name_at));
        m.recent = m.changed = m.missed = false;
        if (bump)
            m.modseq = ix->state.modseq;
        buf_add(names, buf_str(&name));
        rows_r->at[rows_r->n++] = m;
    }
    buf_free(&name);
    return result == 0 && buf_ok(names) ? 0 : -1;
}

static int
write_parts(int fd, const struct mailindex_head *h, const struct mailindex_rows *rows,
            const struct mailindex_gone *gone, struct str names)
{
    return durable_write(fd, str_of((const char *)h, sizeof *h)) < 0 ||
                   durable_write(fd, str_of((const char *)rows->at,
                                            rows->n * sizeof(struct mailbox_message))) < 0 ||
                   durable_write(fd, str_of((const char *)gone, h->ngone * sizeof *gone)) < 0 ||
                   durable_write(fd, names) < 0
               ? -1
               : 0;
}

/* The places of the names that are now on disk, into the session's rows. */
static void
take_places(struct mailindex_rows *rows, const struct mailindex_rows *written)
{
    size_t k = 0;
    for (size_t i = 0; i < rows->n; i++) {
        if (rows->at[i].gone)
            continue;
        rows->at[i].name_at = written->at[k].name_at;
        rows->at[i].name_n = written->at[k].name_n;
        rows->at[i].odd = written->at[k].odd;
        rows->at[i].modseq = written->at[k].modseq;
        k++;
    }
}

static int
new_file(struct mailindex *ix, int dir_fd, const struct mailindex_rows *rows, struct str names,
         struct stat *st_r)
{
    ix->state.counts = mailindex_count(rows);
    struct mailindex_head h = {.version = MAILINDEX_VERSION,
                               .record_size = sizeof(struct mailbox_message),
                               .n = rows->n,
                               .ngone = ix->ngone,
                               .names_n = names.n,
                               .gone_floor = ix->gone_floor,
                               .state = ix->state};
    memcpy(h.magic, MAILINDEX_MAGIC, sizeof h.magic);
    while (getrandom(&h.id, sizeof h.id, 0) < 0 && errno == EINTR)
        ;
    h.rows_check = mailindex_check(2, rows->at, rows->n * sizeof(struct mailbox_message));
    h.gone_check = mailindex_check(3, ix->gone, ix->ngone * sizeof *ix->gone);
    h.check = mailindex_check(1, &h, offsetof(struct mailindex_head, check));
    unlinkat(dir_fd, new_name, 0);
    int fd = openat(dir_fd, new_name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return -1;
    if (write_parts(fd, &h, rows, ix->gone, names) < 0 || fstat(fd, st_r) < 0 ||
        renameat(dir_fd, new_name, dir_fd, file_name) < 0) {
        unlinkat(dir_fd, new_name, 0);
        close(fd);
        return -1;
    }
    ix->id = h.id;
    return fd;
}

int
mailindex_write(struct mailindex *ix, int dir_fd, struct mailindex_rows *rows, bool bump)
{
    struct mailindex_rows out = {0};
    struct buf names = buf_new(UINT32_MAX);
    struct stat st;
    size_t live = 0;
    int fd = -1;
    for (size_t i = 0; i < rows->n; i++)
        live += !rows->at[i].gone;
    uint64_t names_at = sizeof(struct mailindex_head) + live * sizeof(struct mailbox_message) +
                        ix->ngone * sizeof *ix->gone;
    if (gather(ix, rows, names_at, bump, &out, &names) == 0) {
        struct str text = ix->fd >= 0 ? buf_str(&names) : buf_str(&ix->heap);
        if (names_at + text.n < UINT32_MAX)
            fd = new_file(ix, dir_fd, &out, text, &st);
    }
    if (fd >= 0) {
        take_places(rows, &out);
        if (ix->fd >= 0)
            close(ix->fd);
        ix->fd = fd;
        ix->ino = st.st_ino;
        ix->log_at = ix->read_to = (uint64_t)st.st_size;
        ix->torn = false;
        ix->saved = ix->state;
        buf_free(&ix->heap);
        buf_free(&ix->window);
        ix->window_at = 0;
    }
    mailindex_drop_batch(ix);
    free(out.at);
    buf_free(&names);
    return fd < 0 ? -1 : 0;
}
