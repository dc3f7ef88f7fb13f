#include "imapd/cell/seqset.h"
#include "imapd/cell/args.h"
#include "lib/base/sort.h"
#include <stdlib.h>

static int
number(struct cursor *c, uint32_t *n_r)
{
    if (cur_take(c, '*')) {
        *n_r = 0;
        return 0;
    }
    return str_u32(cur_while(c, ch_digit), UINT32_MAX, n_r) < 0 || *n_r == 0 ? -1 : 0;
}

int
icell_seqset_parse(struct cursor *c, struct arena *arena, struct icell_seqset *set_r)
{
    struct cursor count = *c;
    size_t ranges = 1;
    *set_r = (struct icell_seqset){.saved = cur_take(c, '$')};
    if (set_r->saved)
        return 0;
    for (int b; (b = cur_next(&count)) == ',' || b == ':' || b == '*' || (b >= '0' && b <= '9');)
        ranges += b == ',';
    if (ranges > ICELL_SEQSET_MAX)
        return -1;
    set_r->at = arena_array(arena, ranges, sizeof *set_r->at);
    if (!set_r->at)
        return -1;
    do {
        struct icell_range r;
        if (number(c, &r.from) < 0)
            return -1;
        r.to = r.from;
        if (cur_take(c, ':') && number(c, &r.to) < 0)
            return -1;
        set_r->at[set_r->n++] = r;
    } while (cur_take(c, ','));
    return 0;
}

static int
by_from(const void *a, const void *b)
{
    const struct icell_range *x = a, *y = b;
    return x->from < y->from ? -1 : x->from > y->from;
}

struct icell_range
icell_range_in_order(struct icell_range r, uint32_t last)
{
    uint32_t from = r.from ? r.from : last, to = r.to ? r.to : last;
    return from > to ? (struct icell_range){to, from} : (struct icell_range){from, to};
}

/* A range as indices [from, to); empty when nothing is in it. -1: numbers that are not there. */
static int
to_indices(const struct mailbox *mb, struct icell_range r, bool uid, struct icell_range *out_r)
{
    uint32_t last = mb->n ? uid ? mb->msgs[mb->n - 1].uid : (uint32_t)mb->n : 0;
    r = icell_range_in_order(r, last);
    if (uid) {
        out_r->from = (uint32_t)mailindex_find(&mb->rows, r.from);
        out_r->to =
            r.to == UINT32_MAX ? (uint32_t)mb->n : (uint32_t)mailindex_find(&mb->rows, r.to + 1);
        return 0;
    }
    if (r.from == 0 || r.to > last)
        return -1;
    *out_r = (struct icell_range){r.from - 1, r.to};
    return 0;
}

bool
icell_seqset_has(const struct icell_seqset *set, uint32_t uid, uint32_t last)
{
    for (size_t i = 0; i < set->n; i++) {
        struct icell_range r = icell_range_in_order(set->at[i], last);
        if (r.from <= uid && uid <= r.to)
            return true;
    }
    return false;
}

/* Saved UIDs that are still in view. */
static size_t
resolve_saved(const struct icell *ic, size_t *indices)
{
    size_t n = 0;
    for (size_t k = 0; k < ic->nsaved; k++) {
        size_t i = mailindex_find(&ic->mb.rows, ic->saved[k]);
        if (i < ic->mb.n && ic->mb.msgs[i].uid == ic->saved[k] && n < ic->mb.n)
            indices[n++] = i;
    }
    return n;
}

int
icell_seqset_resolve(const struct icell *ic, const struct icell_seqset *set, bool uid,
                     struct arena *arena, size_t **indices_r, size_t *n_r)
{
    struct icell_range *ranges = arena_array(arena, set->n, sizeof *ranges);
    size_t *indices = arena_array(arena, ic->mb.n, sizeof *indices);
    size_t n = 0, next = 0;
    if (!ranges || !indices)
        return -1;
    if (set->saved) {
        *indices_r = indices;
        *n_r = resolve_saved(ic, indices);
        return 0;
    }
    for (size_t i = 0; i < set->n; i++)
        if (to_indices(&ic->mb, set->at[i], uid, &ranges[i]) < 0)
            return -1;
    if (set->n)
        sort_array(ranges, set->n, sizeof *ranges, by_from);
    for (size_t i = 0; i < set->n; i++)
        for (size_t k = ranges[i].from > next ? ranges[i].from : next; k < ranges[i].to; k++) {
            indices[n++] = k;
            next = k + 1;
        }
    *indices_r = indices;
    *n_r = n;
    return 0;
}

int
icell_seqset_arg(struct icell *ic, struct cursor *c, size_t **indices_r, size_t *n_r)
{
    struct icell_seqset set;
    if (!icell_arg_space(c) || icell_seqset_parse(c, &ic->arena, &set) < 0) {
        icell_end_syntax(ic);
        return -1;
    }
    if (icell_seqset_resolve(ic, &set, ic->cmd.uid, &ic->arena, indices_r, n_r) < 0) {
        icell_end(ic, ICELL_BAD, "No such message number.");
        return -1;
    }
    return 0;
}

/* The run of numbers that begins at i; returns where the next one begins. */
static size_t
add_run(struct buf *out, const uint32_t *numbers, size_t n, size_t i)
{
    size_t last = i;
    while (last + 1 < n && numbers[last + 1] == numbers[last] + 1)
        last++;
    buf_addf(out, "%s%u", i ? "," : "", numbers[i]);
    if (last > i)
        buf_addf(out, ":%u", numbers[last]);
    return last + 1;
}

void
icell_seqset_add(struct buf *out, const uint32_t *numbers, size_t n)
{
    for (size_t i = 0; i < n;)
        i = add_run(out, numbers, n, i);
}

void
icell_put_set(struct icell *ic, const uint32_t *numbers, size_t n)
{
    for (size_t i = 0; i < n;) {
        i = add_run(&ic->s.out, numbers, n, i);
        stream_putz(&ic->s, ""); /* what has gathered goes out */
    }
}
