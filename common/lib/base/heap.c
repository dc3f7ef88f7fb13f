#include "lib/base/heap.h"
#include <stdlib.h>

static void
place(struct heap *h, size_t i, struct heap_node *node)
{
    h->at[i] = node;
    node->at = i + 1;
}

static void
sift_up(struct heap *h, size_t i)
{
    struct heap_node *node = h->at[i];
    for (; i > 0 && h->at[(i - 1) / 2]->key > node->key; i = (i - 1) / 2)
        place(h, i, h->at[(i - 1) / 2]);
    place(h, i, node);
}

static void
sift_down(struct heap *h, size_t i)
{
    struct heap_node *node = h->at[i];
    for (;;) {
        size_t child = 2 * i + 1;
        if (child + 1 < h->n && h->at[child + 1]->key < h->at[child]->key)
            child++;
        if (child >= h->n || h->at[child]->key >= node->key)
            break;
        place(h, i, h->at[child]);
        i = child;
    }
    place(h, i, node);
}

int
heap_add(struct heap *h, struct heap_node *node)
{
    if (h->n == h->cap) {
        size_t cap = h->cap ? 2 * h->cap : 4;
        struct heap_node **at = reallocarray(h->at, cap, sizeof(struct heap_node *));
        if (!at)
            return -1;
        h->at = at;
        h->cap = cap;
    }
    h->at[h->n] = node;
    sift_up(h, h->n++);
    return 0;
}

void
heap_del(struct heap *h, struct heap_node *node)
{
    size_t i = node->at - 1;
    struct heap_node *last = h->at[--h->n];
    node->at = 0;
    if (last == node)
        return;
    place(h, i, last);
    sift_up(h, i);
    sift_down(h, last->at - 1);
}

void
heap_free(struct heap *h)
{
    free(h->at);
    *h = (struct heap){0};
}
