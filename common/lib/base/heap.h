/*
 * heap: the smallest key first; a member can be taken out from anywhere.
 *
 * Used by the loop's timers and qmgr's scheduler. Nodes are embedded in what they order and belong
 * to their owner; the heap owns its array only. Equal keys come out in no particular order.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct heap_node {
    uint64_t key;
    size_t at; /* place + 1; 0: in no heap */
};
struct heap {
    struct heap_node **at;
    size_t n, cap;
};

int heap_add(struct heap *h, struct heap_node *node); /* -1 only when memory is out */
void heap_del(struct heap *h, struct heap_node *node);
void heap_free(struct heap *h);

/* The smallest, or NULL. */
static inline struct heap_node *
heap_top(const struct heap *h)
{
    return h->n ? h->at[0] : NULL;
}
