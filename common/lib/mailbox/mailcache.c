#include "lib/mailbox/mailcache.h"
#include "lib/mailbox/durable.h"
#include "lib/mailbox/mailview.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

static const char file_name[] = "bulkhead.cache";
static const char new_name[] = "bulkhead.cache.new";
enum { ITEM_MAGIC = 0x4d494842, CHAIN_MAX = 16, COMPACT_MIN = 2000, COPY_BATCH = 1 << 20 };

struct file_head {
    char magic[8];
    uint64_t id;
};
#define FILE_MAGIC "BHCACHE2"

struct item {
    uint32_t magic;
    uint32_t n; /* bytes of fields behind it, a multiple of 8 */
    uint32_t uid;
    uint32_t zero;
    uint64_t prev; /* of the same message, 0: none */
    uint64_t check;
};
struct field {
    uint32_t kind, n; /* then n bytes, and zeros to a multiple of 8 */
};

void
mailcache_init(struct mailcache *c)
{
    *c = (struct mailcache){.fd = -1, .waiting = buf_new(2 * MAILCACHE_WAIT_MAX)};
    for (size_t i = 0; i < MAILCACHE_WINDOWS; i++)
        c->windows[i].bytes = buf_new(MAILCACHE_ITEM_MAX + MAILCACHE_WINDOW);
}

void
mailcache_free(struct mailcache *c)
{
    if (c->fd >= 0)
        close(c->fd);
    for (size_t i = 0; i < MAILCACHE_WINDOWS; i++)
        buf_free(&c->windows[i].bytes);
    buf_free(&c->waiting);
    mailcache_init(c);
}

static uint64_t
item_check(uint64_t id, const struct item *x, const char *fields)
{
    return mailindex_check(id ^ ((uint64_t)x->uid << 32 | x->n) ^ x->prev, fields, x->n);
}

/* ---- reading ---- */

static void
forget_windows(struct mailcache *c)
{
    for (size_t i = 0; i < MAILCACHE_WINDOWS; i++) {
        buf_reset(&c->windows[i].bytes);
        c->windows[i].good_at = 0;
    }
}

static void
close_cache(struct mailcache *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    forget_windows(c);
}

/* The file that the index means. */
static int
open_cache(struct mailbox *mb)
{
    struct mailcache *c = &mb->cache;
    struct file_head h;
    struct stat st;
    uint64_t want = mb->ix.state.cache_id;
    if (c->fd >= 0 && c->id == want)
        return 0;
    if (!want || c->refused == want)
        return -1;
    close_cache(c);
    c->fd = durable_open_rw(mb->dir_fd, file_name, &st);
    if (c->fd >= 0 && pread(c->fd, &h, sizeof h, 0) == (ssize_t)sizeof h &&
        memcmp(h.magic, FILE_MAGIC, sizeof h.magic) == 0 && h.id == want) {
        c->id = want;
        return 0;
    }
    close_cache(c);
    c->refused = want;
    return -1;
}

static bool
holds(const struct mailcache_window *w, uint64_t at, size_t n)
{
    return at >= w->at && at - w->at <= w->bytes.n && w->bytes.n - (size_t)(at - w->at) >= n;
}

/* A window with n bytes of the file at this place, or NULL. */
static struct mailcache_window *
look(struct mailcache *c, uint64_t at, size_t n)
{
    for (size_t i = 0; i < MAILCACHE_WINDOWS; i++)
        if (holds(&c->windows[i], at, n))
            return &c->windows[i];
    size_t want = n > MAILCACHE_WINDOW ? n : MAILCACHE_WINDOW;
    struct mailcache_window *w = &c->windows[c->turn++ % MAILCACHE_WINDOWS];
    buf_reset(&w->bytes);
    w->good_at = 0;
    char *to = buf_reserve(&w->bytes, want);
    ssize_t got = to ? pread(c->fd, to, want, (off_t)at) : 0;
    buf_commit(&w->bytes, got > 0 ? (size_t)got : 0);
    w->at = at;
    return w->bytes.n < n ? NULL : w;
}

/* The fields of the item at this place, checked. */
static int
read_item(struct mailcache *c, uint64_t at, uint32_t uid, struct item *x_r, struct str *fields_r)
{
    struct mailcache_window *w = look(c, at, sizeof *x_r);
    if (!w)
        return -1;
    memcpy(x_r, w->bytes.p + (at - w->at), sizeof *x_r);
    if (x_r->magic != ITEM_MAGIC || x_r->uid != uid || x_r->n > MAILCACHE_ITEM_MAX || x_r->n % 8)
        return -1;
    w = look(c, at, sizeof *x_r + x_r->n);
    if (!w)
        return -1;
    const char *fields = w->bytes.p + (at - w->at) + sizeof *x_r;
    if (w->good_at != at && x_r->check != item_check(c->id, x_r, fields))
        return -1;
    w->good_at = at;
    *fields_r = str_of(fields, x_r->n);
    return 0;
}

/* The next field; false at the end, or where the item makes no sense. */
static bool
next_field(struct str *fields, uint32_t *kind_r, struct str *text_r)
{
    struct field f;
    if (fields->n < sizeof f)
        return false;
    memcpy(&f, fields->p, sizeof f);
    size_t padded = ((size_t)f.n + 7) & ~(size_t)7;
    if (padded > fields->n - sizeof f)
        return false;
    *kind_r = f.kind;
    *text_r = str_sub(*fields, sizeof f, f.n);
    *fields = str_from(*fields, sizeof f + padded);
    return true;
}

int
mailcache_get(struct mailbox *mb, size_t i, enum mailcache_kind kind, struct str *text_r)
{
    uint64_t at = mb->msgs[i].cache_at;
    if (!at || open_cache(mb) < 0)
        return -1;
    for (int chain = 0; at && chain < CHAIN_MAX; chain++) {
        struct item x;
        struct str fields;
        uint32_t its;
        if (read_item(&mb->cache, at, mb->msgs[i].uid, &x, &fields) < 0)
            return -1;
        while (next_field(&fields, &its, text_r))
            if (its == (uint32_t)kind)
                return 0;
        at = x.prev;
    }
    return -1;
}

/* ---- writing ---- */

static void
add_field(struct buf *out, uint32_t kind, struct str text)
{
    static const char zeros[8];
    const struct field f = {kind, (uint32_t)text.n};
    buf_add(out, str_of((const char *)&f, sizeof f));
    buf_add(out, text);
    buf_add(out, str_of(zeros, -text.n & 7));
}

void
mailcache_put(struct mailbox *mb, size_t i, enum mailcache_kind kind, struct str text)
{
    struct buf *w = &mb->cache.waiting;
    if (mb->ix.fd < 0 || text.n > MAILCACHE_ITEM_MAX / 8)
        return;
    if (w->n >= MAILCACHE_WAIT_MAX)
        mailcache_flush(mb);
    const struct item x = {.magic = ITEM_MAGIC,
                           .n = (uint32_t)(sizeof(struct field) + ((text.n + 7) & ~(size_t)7)),
                           .uid = mb->msgs[i].uid};
    buf_add(w, str_of((const char *)&x, sizeof x));
    add_field(w, (uint32_t)kind, text);
}

/* A new file with nothing in it; whoever has the old one open goes on with it. */
static int
new_cache(struct mailbox *mb, struct buf *content)
{
    struct mailcache *c = &mb->cache;
    struct file_head h = {0};
    memcpy(h.magic, FILE_MAGIC, sizeof h.magic);
    while (getrandom(&h.id, sizeof h.id, 0) < 0 && errno == EINTR)
        ;
    h.id |= 1;
    close_cache(c);
    unlinkat(mb->dir_fd, new_name, 0);
    int fd = openat(mb->dir_fd, new_name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return -1;
    if (durable_write(fd, str_of((const char *)&h, sizeof h)) < 0 ||
        (content && durable_write(fd, buf_str(content)) < 0) ||
        renameat(mb->dir_fd, new_name, mb->dir_fd, file_name) < 0) {
        unlinkat(mb->dir_fd, new_name, 0);
        close(fd);
        return -1;
    }
    c->fd = fd;
    c->id = mb->ix.state.cache_id = h.id;
    mb->ix.state.cached = 0;
    return 0;
}

/* Put items of the same message together, at places from at on, and tell the rows and the index. */
static void
lay_out(struct mailbox *mb, struct str waiting, uint64_t at, struct buf *out)
{
    struct buf fields = buf_new(MAILCACHE_ITEM_MAX);
    while (waiting.n) {
        struct item x = {0}, next;
        memcpy(&x, waiting.p, sizeof x);
        buf_reset(&fields);
        do {
            memcpy(&next, waiting.p, sizeof next);
            buf_add(&fields, str_sub(waiting, sizeof next, next.n));
            waiting = str_from(waiting, sizeof next + next.n);
            if (waiting.n)
                memcpy(&next, waiting.p, sizeof next);
        } while (waiting.n && next.uid == x.uid);
        size_t i = mailindex_find(&mb->rows, x.uid);
        if (i == mb->n || mb->msgs[i].uid != x.uid || mb->msgs[i].gone || !buf_ok(&fields))
            continue;
        x.n = (uint32_t)fields.n;
        x.prev = mb->msgs[i].cache_at;
        x.check = item_check(mb->cache.id, &x, fields.p);
        mb->msgs[i].cache_at = at + out->n;
        buf_add(out, str_of((const char *)&x, sizeof x));
        buf_add(out, buf_str(&fields));
        mailindex_put_cache(&mb->ix, &mb->msgs[i]);
        mb->ix.state.cached++;
    }
    buf_free(&fields);
}

/* All that is cached of messages that are there, one item each, in a new file. */
static void
compact(struct mailbox *mb)
{
    struct buf all = buf_new(MAILCACHE_MAX), item = buf_new(MAILCACHE_ITEM_MAX);
    uint64_t *places = calloc(mb->n + 1, sizeof *places);
    uint64_t cached = 0;
    for (size_t i = 0; places && i < mb->n; i++) {
        struct str text;
        buf_reset(&item);
        for (uint32_t kind = MAILCACHE_HEADER; kind <= MAILCACHE_EMAILID && !mb->msgs[i].gone;
             kind++)
            if (mailcache_get(mb, i, kind, &text) == 0)
                add_field(&item, kind, text);
        if (!item.n || !buf_ok(&item))
            continue;
        const struct item x = {.magic = ITEM_MAGIC, .n = (uint32_t)item.n, .uid = mb->msgs[i].uid};
        places[i] = sizeof(struct file_head) + all.n;
        buf_add(&all, str_of((const char *)&x, sizeof x));
        buf_add(&all, buf_str(&item));
        cached++;
    }
    if (places && buf_ok(&all) && new_cache(mb, &all) == 0) {
        /* The check knows the file, which has its number only now. */
        for (size_t i = 0; i < mb->n; i++) {
            mb->msgs[i].cache_at = places[i];
            if (!places[i])
                continue;
            struct item x;
            char *p = all.p + (places[i] - sizeof(struct file_head));
            memcpy(&x, p, sizeof x);
            x.check = item_check(mb->cache.id, &x, p + sizeof x);
            memcpy(p, &x, sizeof x);
        }
        if (pwrite(mb->cache.fd, all.p, all.n, sizeof(struct file_head)) != (ssize_t)all.n)
            mb->ix.state.cache_id = 0;
        mb->ix.state.cached = cached;
        if (mailindex_write(&mb->ix, mb->dir_fd, &mb->rows, false) < 0)
            mb->ix.torn = true;
    }
    free(places);
    buf_free(&all);
    buf_free(&item);
}

static void
append(struct mailbox *mb)
{
    struct mailcache *c = &mb->cache;
    struct buf out = buf_new(4 * MAILCACHE_WAIT_MAX);
    struct stat st;
    if (open_cache(mb) < 0 && new_cache(mb, NULL) < 0)
        return;
    if (fstat(c->fd, &st) < 0 || st.st_size > MAILCACHE_MAX - 4 * MAILCACHE_WAIT_MAX)
        return;
    uint64_t at = ((uint64_t)st.st_size + 7) & ~(uint64_t)7;
    lay_out(mb, buf_str(&c->waiting), at, &out);
    /* Places of what could not be written hold nothing that fits. */
    if (buf_ok(&out))
        (void)!pwrite(c->fd, out.p, out.n, (off_t)at);
    forget_windows(c);
    buf_free(&out);
}

static bool
is_stale(const struct mailbox *mb)
{
    uint64_t live = 0;
    if (mb->ix.state.cached < COMPACT_MIN)
        return false;
    for (size_t i = 0; i < mb->n; i++)
        live += !mb->msgs[i].gone && mb->msgs[i].cache_at;
    return mb->ix.state.cached > 2 * live + COMPACT_MIN;
}

void
mailcache_flush(struct mailbox *mb)
{
    if (mb->cache.waiting.n == 0)
        return;
    if (mb->ix.fd >= 0 && buf_ok(&mb->cache.waiting) && mailview_begin(mb, NULL) == 0) {
        if (mb->ix.fd >= 0 && !mb->ix.torn) {
            append(mb);
            if (is_stale(mb))
                compact(mb);
        }
        mailview_end(mb);
    }
    buf_reset(&mb->cache.waiting);
}
