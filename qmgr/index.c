#include "qmgr/index.h"
#include "qmgr/qmgr.h"
#include <stdlib.h>

enum { PIECE = 512 };

struct piece {
    size_t n;
    struct slot {
        uint64_t key; /* the ID's first 8 characters: most comparisons need no more */
        struct entry *entry;
    } at[PIECE];
};

static struct {
    struct piece **pieces;
    size_t n, cap, entries;
} the;

static uint64_t
key_of(const char *id)
{
    uint64_t key;
    memcpy(&key, id, sizeof key);
    return __builtin_bswap64(key);
}

static int
compare(const struct slot *slot, uint64_t key, const char *id)
{
    if (slot->key != key)
        return slot->key < key ? -1 : 1;
    return memcmp(slot->entry->id, id, ID_LEN);
}

/* The place of the first entry whose ID is not smaller. No piece is empty. */
static struct index_at
find_place(const char *id)
{
    uint64_t key = key_of(id);
    size_t low = 0, high = the.n;
    while (low < high) { /* the first piece whose last is not smaller */
        size_t middle = (low + high) / 2;
        const struct piece *p = the.pieces[middle];
        if (compare(&p->at[p->n - 1], key, id) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    struct index_at at = {low, 0};
    if (low == the.n)
        return at;
    const struct piece *p = the.pieces[low];
    for (size_t top = p->n; at.i < top;) {
        size_t middle = (at.i + top) / 2;
        if (compare(&p->at[middle], key, id) < 0)
            at.i = middle + 1;
        else
            top = middle;
    }
    return at;
}

struct entry *
index_next(struct index_at *at)
{
    while (at->piece < the.n && at->i >= the.pieces[at->piece]->n) {
        at->piece++;
        at->i = 0;
    }
    return at->piece < the.n ? the.pieces[at->piece]->at[at->i++].entry : NULL;
}

struct entry *
index_find(struct str id)
{
    if (id.n != ID_LEN)
        return NULL;
    struct index_at at = find_place(id.p);
    struct entry *entry = index_next(&at);
    return entry && memcmp(entry->id, id.p, ID_LEN) == 0 ? entry : NULL;
}

struct index_at
index_after(struct str id)
{
    char padded[ID_LEN] = {0};
    memcpy(padded, id.p, id.n < ID_LEN ? id.n : ID_LEN);
    struct index_at at = find_place(padded), next = at;
    const struct entry *entry = index_next(&next);
    return entry && id.n >= ID_LEN && memcmp(entry->id, padded, ID_LEN) == 0 ? next : at;
}

static int
insert_piece(size_t where)
{
    if (the.n == the.cap) {
        size_t cap = the.cap ? 2 * the.cap : 16;
        struct piece **pieces = reallocarray(the.pieces, cap, sizeof(struct piece *));
        if (!pieces)
            return -1;
        the.pieces = pieces;
        the.cap = cap;
    }
    struct piece *p = malloc(sizeof *p);
    if (!p)
        return -1;
    p->n = 0;
    memmove(the.pieces + where + 1, the.pieces + where, (the.n - where) * sizeof(struct piece *));
    the.pieces[where] = p;
    the.n++;
    return 0;
}

static void
remove_piece(size_t where)
{
    free(the.pieces[where]);
    the.n--;
    memmove(the.pieces + where, the.pieces + where + 1, (the.n - where) * sizeof(struct piece *));
}

/* A full piece gives its second half to a new one; one at the end stays full, since new IDs come
 * there. */
static int
split(struct index_at *at)
{
    bool end = at->piece == the.n - 1 && at->i == PIECE;
    if (insert_piece(at->piece + 1) < 0)
        return -1;
    struct piece *full = the.pieces[at->piece], *fresh = the.pieces[at->piece + 1];
    size_t keep = end ? PIECE : PIECE / 2;
    fresh->n = PIECE - keep;
    memcpy(fresh->at, full->at + keep, fresh->n * sizeof fresh->at[0]);
    full->n = keep;
    if (at->i > keep || end)
        *at = (struct index_at){at->piece + 1, at->i - keep};
    return 0;
}

int
index_add(struct entry *entry)
{
    struct index_at at = find_place(entry->id);
    if (the.n && at.piece == the.n) /* greater than all: at the end of the last piece */
        at = (struct index_at){the.n - 1, the.pieces[the.n - 1]->n};
    if (the.n == 0 ? insert_piece(0) < 0 : the.pieces[at.piece]->n == PIECE && split(&at) < 0)
        return -1;
    struct piece *p = the.pieces[at.piece];
    memmove(p->at + at.i + 1, p->at + at.i, (p->n - at.i) * sizeof p->at[0]);
    p->at[at.i] = (struct slot){key_of(entry->id), entry};
    p->n++;
    the.entries++;
    return 0;
}

/* Two neighbours that are half empty become one. */
static void
join(size_t left)
{
    if (left + 1 >= the.n)
        return;
    struct piece *a = the.pieces[left], *b = the.pieces[left + 1];
    if (a->n + b->n > PIECE / 2)
        return;
    memcpy(a->at + a->n, b->at, b->n * sizeof b->at[0]);
    a->n += b->n;
    remove_piece(left + 1);
}

void
index_del(struct entry *entry)
{
    struct index_at at = find_place(entry->id);
    struct piece *p = the.pieces[at.piece];
    p->n--;
    memmove(p->at + at.i, p->at + at.i + 1, (p->n - at.i) * sizeof p->at[0]);
    the.entries--;
    if (p->n == 0) {
        remove_piece(at.piece);
        return;
    }
    join(at.piece);
    if (at.piece > 0)
        join(at.piece - 1);
}

size_t
index_count(void)
{
    return the.entries;
}
