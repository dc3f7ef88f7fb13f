#include "lib/base/siphash.h"
#include "lib/log/log.h"
#include "qmgr/qmgr.h"
#include <stdlib.h>

static struct {
    struct entry **buckets;
    size_t nbuckets, n;
    struct sipkey key; /* IDs are ours: no stranger chooses them */
} the;

static size_t
bucket_of(const char *id)
{
    return (size_t)(siphash(&the.key, str_of(id, ID_LEN)) % the.nbuckets);
}

static int
grow(void)
{
    size_t n = the.nbuckets ? the.nbuckets * 2 : 4096;
    struct entry **buckets = calloc(n, sizeof(struct entry *));
    if (!buckets)
        return -1;
    struct entry **old = the.buckets;
    size_t nold = the.nbuckets;
    the.buckets = buckets;
    the.nbuckets = n;
    for (size_t i = 0; i < nold; i++)
        while (old[i]) {
            struct entry *entry = old[i];
            old[i] = entry->next;
            struct entry **bucket = &buckets[bucket_of(entry->id)];
            entry->next = *bucket;
            *bucket = entry;
        }
    free(old);
    return 0;
}

struct entry *
entry_find(struct str id)
{
    if (id.n != ID_LEN || the.nbuckets == 0)
        return NULL;
    for (struct entry *x = the.buckets[bucket_of(id.p)]; x; x = x->next)
        if (memcmp(x->id, id.p, ID_LEN) == 0)
            return x;
    return NULL;
}

static void
on_due(struct loop_timer *t)
{
    message_start(t->arg);
}

struct entry *
entry_add(const char *id, char origin, enum place place, int64_t due_s)
{
    if (the.n >= the.nbuckets && grow() < 0)
        return NULL;
    struct entry *entry = calloc(1, sizeof *entry);
    if (!entry)
        return NULL;
    memcpy(entry->id, id, ID_LEN);
    entry->origin = origin;
    entry->place = place;
    entry->due_s = due_s;
    entry->timer = (struct loop_timer){.fire = on_due, .arg = entry};
    struct entry **bucket = &the.buckets[bucket_of(id)];
    entry->next = *bucket;
    *bucket = entry;
    the.n++;
    return entry;
}

void
entry_drop(struct entry *entry)
{
    struct entry **link = &the.buckets[bucket_of(entry->id)];
    loop_timer_del(&qmgr.loop, &entry->timer);
    while (*link != entry)
        link = &(*link)->next;
    *link = entry->next;
    the.n--;
    free(entry);
}

/* Wall clock to timer: a clock that jumped far ahead stalls nothing for longer than the longest
 * retry, and one that jumped back makes nothing wait longer than that either. */
void
entry_wait(struct entry *entry)
{
    int64_t wait_s = entry->due_s - wall_s();
    if (wait_s > (int64_t)qmgr.conf->queue.retry_max_s)
        wait_s = qmgr.conf->queue.retry_max_s;
    int64_t at = now_ms() + (wait_s > 0 ? wait_s * 1000 : 0);
    if (wait_s <= 0 && qmgr.nactive >= ACTIVE_MAX)
        at += 1000;
    if (loop_timer_set(&qmgr.loop, &entry->timer, at) < 0)
        log_fatal("out of memory for the queue");
}

size_t
entry_count(void)
{
    return the.n;
}

bool
entry_for_each(bool (*fn)(struct entry *, void *), void *arg)
{
    for (size_t i = 0; i < the.nbuckets; i++)
        for (struct entry *x = the.buckets[i], *next; x; x = next) {
            next = x->next;
            if (!fn(x, arg))
                return false;
        }
    return true;
}

struct page {
    struct str after;
    struct entry **at;
    size_t n, max, seen;
};

/* Keep the max smallest in order by insertion. */
static bool
consider(struct entry *entry, void *arg)
{
    struct page *p = arg;
    if (p->after.n == ID_LEN && memcmp(entry->id, p->after.p, ID_LEN) <= 0)
        return true;
    p->seen++;
    if (p->n == p->max && memcmp(entry->id, p->at[p->n - 1]->id, ID_LEN) >= 0)
        return true;
    size_t i = p->n < p->max ? p->n++ : p->n - 1;
    for (; i > 0 && memcmp(p->at[i - 1]->id, entry->id, ID_LEN) > 0; i--)
        p->at[i] = p->at[i - 1];
    p->at[i] = entry;
    return true;
}

size_t
entry_page(struct str after, struct entry **page_r, size_t max, bool *more_r)
{
    struct page p = {.after = after, .at = page_r, .max = max};
    entry_for_each(consider, &p);
    *more_r = p.seen > p.n;
    return p.n;
}
