/*
 * arena: memory that is freed all at once: one for each session, one for each transaction.
 *
 * What is allocated is zeroed, aligned for any type, and lives until arena_reset() or arena_free().
 * An arena has a ceiling: beyond it, and when memory is out, arena_alloc() returns NULL.
 */
#pragma once
#include "lib/base/str.h"

struct arena_block;
struct arena {
    struct arena_block *blocks; /* newest first */
    struct arena_block *lent;   /* the first, in the caller's room; or NULL */
    size_t used;                /* bytes given out since the last reset */
    size_t max;
};

static inline struct arena
arena_new(size_t max)
{
    return (struct arena){.max = max};
}
/* An arena whose first size bytes come from the caller's room, which is aligned for any type and
 * outlives it. */
struct arena arena_on(char *room, size_t size, size_t max);
void *arena_alloc(struct arena *a, size_t n);
/* count items of size bytes each; NULL also when the product overflows. */
void *arena_array(struct arena *a, size_t count, size_t size);
/* A copy of s with a NUL behind it (not counted); p is NULL when there is no room. */
struct str arena_str(struct arena *a, struct str s);
/* A copy, lower-cased (ASCII). */
struct str arena_lower(struct arena *a, struct str s);
void arena_reset(struct arena *a); /* keeps one block for reuse */
void arena_free(struct arena *a);
