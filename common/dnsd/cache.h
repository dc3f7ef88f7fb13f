/*
 * cache: answers of the resolver for a while, in bounded memory.
 *
 * dnsd only. Strangers choose the names, so the table's hash is keyed. At most DNSD_CACHE_MAX
 * entries and DNSD_CACHE_BYTES bytes; the one not used for longest goes first. A value is the
 * fields of the answering message, ready to be sent.
 */
#pragma once
#include "lib/base/siphash.h"
#include <stdint.h>

enum { DNSD_CACHE_MAX = 10000, DNSD_CACHE_BYTES = 16 << 20, DNSD_CACHE_SLOTS = 16384 };

struct cache_entry;
struct cache {
    struct sipkey key;
    struct cache_entry **slots; /* DNSD_CACHE_SLOTS chains */
    struct cache_entry *newest, *oldest;
    size_t n, bytes;
    uint64_t hits, misses;
};

/* -1 when memory or randomness is out. */
int cache_init(struct cache *c);
void cache_free(struct cache *c);
/* The value kept for name; false when there is none or its time is over. Valid until the next put.
 */
bool cache_get(struct cache *c, struct str name, int64_t at_ms, struct str *value_r);
/* Keep until until_ms; replaces. Does nothing when there is no memory. */
void cache_put(struct cache *c, struct str name, struct str value, int64_t until_ms);
