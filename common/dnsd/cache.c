#include "dnsd/cache.h"
#include <stdlib.h>
#include <sys/random.h>

struct cache_entry {
    struct cache_entry *next;          /* in the slot */
    struct cache_entry *newer, *older; /* by use */
    int64_t until_ms;
    uint32_t slot;
    uint32_t name_n, value_n;
    char text[]; /* name, then value */
};

int
cache_init(struct cache *c)
{
    *c = (struct cache){0};
    c->slots = calloc(DNSD_CACHE_SLOTS, sizeof *c->slots);
    if (!c->slots || getrandom(c->key.b, sizeof c->key.b, 0) != (ssize_t)sizeof c->key.b)
        return -1;
    return 0;
}

static size_t
size_of(const struct cache_entry *at)
{
    return sizeof *at + at->name_n + at->value_n;
}

static void
use_unlink(struct cache *c, struct cache_entry *at)
{
    if (at->newer)
        at->newer->older = at->older;
    else
        c->newest = at->older;
    if (at->older)
        at->older->newer = at->newer;
    else
        c->oldest = at->newer;
}

static void
use_first(struct cache *c, struct cache_entry *at)
{
    at->newer = NULL;
    at->older = c->newest;
    if (c->newest)
        c->newest->newer = at;
    else
        c->oldest = at;
    c->newest = at;
}

static void
drop(struct cache *c, struct cache_entry *at)
{
    struct cache_entry **from = &c->slots[at->slot];
    while (*from != at)
        from = &(*from)->next;
    *from = at->next;
    use_unlink(c, at);
    c->n--;
    c->bytes -= size_of(at);
    free(at);
}

static struct cache_entry *
find(struct cache *c, struct str name, uint32_t slot)
{
    struct cache_entry *at = c->slots[slot];
    while (at && !str_eq(str_of(at->text, at->name_n), name))
        at = at->next;
    return at;
}

static uint32_t
slot_of(const struct cache *c, struct str name)
{
    return (uint32_t)(siphash(&c->key, name) % DNSD_CACHE_SLOTS);
}

bool
cache_get(struct cache *c, struct str name, int64_t at_ms, struct str *value_r)
{
    struct cache_entry *at = find(c, name, slot_of(c, name));
    if (at && at->until_ms <= at_ms) {
        drop(c, at);
        at = NULL;
    }
    if (!at) {
        c->misses++;
        return false;
    }
    c->hits++;
    use_unlink(c, at);
    use_first(c, at);
    *value_r = str_of(at->text + at->name_n, at->value_n);
    return true;
}

void
cache_put(struct cache *c, struct str name, struct str value, int64_t until_ms)
{
    uint32_t slot = slot_of(c, name);
    struct cache_entry *at = find(c, name, slot);
    if (at)
        drop(c, at);
    if (name.n > UINT16_MAX || value.n > UINT16_MAX)
        return;
    at = malloc(sizeof *at + name.n + value.n);
    if (!at)
        return;
    *at = (struct cache_entry){.next = c->slots[slot],
                               .until_ms = until_ms,
                               .slot = slot,
                               .name_n = (uint32_t)name.n,
                               .value_n = (uint32_t)value.n};
    memcpy(at->text, name.p, name.n);
    memcpy(at->text + name.n, value.p, value.n);
    c->slots[slot] = at;
    use_first(c, at);
    c->n++;
    c->bytes += size_of(at);
    while (c->n > DNSD_CACHE_MAX || c->bytes > DNSD_CACHE_BYTES)
        drop(c, c->oldest);
}

void
cache_free(struct cache *c)
{
    while (c->oldest)
        drop(c, c->oldest);
    free(c->slots);
    *c = (struct cache){0};
}
