#include "lib/base/arena.h"
#include <stdlib.h>

struct arena_block {
    struct arena_block *next;
    size_t size, used;
    _Alignas(max_align_t) char data[];
};

enum { BLOCK_FIRST = 1000, BLOCK_SIZE = 8192 }; /* most transactions are small */

struct arena
arena_on(char *room, size_t size, size_t max)
{
    struct arena_block *b = (void *)room;
    *b = (struct arena_block){.size = size - sizeof *b};
    return (struct arena){.blocks = b, .lent = b, .max = max};
}

static struct arena_block *
block_for(struct arena *a, size_t n)
{
    struct arena_block *b = a->blocks;
    if (b && b->size - b->used >= n)
        return b;
    size_t usual = b ? BLOCK_SIZE : BLOCK_FIRST;
    size_t size = n > usual ? n : usual;
    b = malloc(sizeof *b + size);
    if (!b)
        return NULL;
    b->size = size;
    b->used = 0;
    b->next = a->blocks;
    a->blocks = b;
    return b;
}

void *
arena_alloc(struct arena *a, size_t n)
{
    const size_t align = _Alignof(max_align_t);
    size_t rounded, used;
    if (__builtin_add_overflow(n ? n : 1, align - 1, &rounded))
        return NULL;
    rounded &= ~(align - 1);
    if (__builtin_add_overflow(a->used, rounded, &used) || used > a->max)
        return NULL;
    struct arena_block *b = block_for(a, rounded);
    if (!b)
        return NULL;
    void *p = b->data + b->used;
    b->used += rounded;
    a->used = used;
    return memset(p, 0, rounded);
}

void *
arena_array(struct arena *a, size_t count, size_t size)
{
    size_t n;
    return __builtin_mul_overflow(count, size, &n) ? NULL : arena_alloc(a, n);
}

struct str
arena_str(struct arena *a, struct str s)
{
    size_t n;
    if (__builtin_add_overflow(s.n, 1u, &n))
        return str_of(NULL, 0);
    char *p = arena_alloc(a, n);
    if (!p)
        return str_of(NULL, 0);
    if (s.n)
        memcpy(p, s.p, s.n);
    return str_of(p, s.n);
}

struct str
arena_lower(struct arena *a, struct str s)
{
    struct str copy = arena_str(a, s);
    for (size_t i = 0; i < copy.n; i++)
        ((char *)copy.p)[i] = ch_lower(copy.p[i]);
    return copy;
}

void
arena_reset(struct arena *a)
{
    struct arena_block *keep = a->lent;
    while (a->blocks) {
        struct arena_block *b = a->blocks;
        a->blocks = b->next;
        explicit_bzero(b->data, b->used);
        if (!keep && b->size == BLOCK_SIZE)
            keep = b;
        else if (b != keep)
            free(b);
    }
    if (keep) {
        keep->next = NULL;
        keep->used = 0;
    }
    a->blocks = keep;
    a->used = 0;
}

void
arena_free(struct arena *a)
{
    arena_reset(a);
    if (!a->lent)
        free(a->blocks);
    a->blocks = a->lent = NULL;
}
