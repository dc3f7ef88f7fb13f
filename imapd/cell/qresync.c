#include "imapd/cell/qresync.h"
#include "imapd/cell/args.h"
#include "lib/base/sort.h"

int
icell_qresync_parse(struct icell *ic, struct cursor *c, struct icell_qresync *q_r)
{
    uint64_t validity;
    struct icell_seqset ignored;
    *q_r = (struct icell_qresync){.given = true};
    if (!cur_take(c, '(') || icell_arg_number(c, UINT32_MAX, &validity) < 0 ||
        !icell_arg_space(c) || icell_arg_number(c, INT64_MAX, &q_r->modseq) < 0 || !q_r->modseq)
        return -1;
    q_r->validity = (uint32_t)validity;
    if (icell_arg_space(c)) {
        if (cur_peek(c) != '(') {
            if (icell_seqset_parse(c, &ic->arena, &q_r->known) < 0 || q_r->known.saved)
                return -1;
            q_r->known_given = true;
        }
        /* The pairs of numbers and UIDs would only make the answer shorter. */
        if ((!q_r->known_given || icell_arg_space(c)) &&
            (!cur_take(c, '(') || icell_seqset_parse(c, &ic->arena, &ignored) < 0 ||
             !icell_arg_space(c) || icell_seqset_parse(c, &ic->arena, &ignored) < 0 ||
             !cur_take(c, ')')))
            return -1;
    }
    return cur_take(c, ')') ? 0 : -1;
}

static int
by_from(const void *a, const void *b)
{
    const struct icell_range *x = a, *y = b;
    return x->from < y->from ? -1 : x->from > y->from;
}

struct writer {
    struct icell *ic;
    struct icell_range *known; /* sorted, apart from each other */
    size_t n;
    bool any;
};

/* The known UIDs in order; without a set, all there have been. */
static int
order_known(struct icell *ic, const struct icell_seqset *known, struct writer *w)
{
    uint32_t last = ic->mb.ix.state.next_uid - 1;
    size_t n = 0, count = known ? known->n : 1;
    *w = (struct writer){.ic = ic, .known = arena_array(&ic->arena, count, sizeof *w->known)};
    if (!w->known)
        return -1;
    if (!known) {
        w->known[w->n++] = (struct icell_range){1, last};
        return 0;
    }
    for (size_t i = 0; i < known->n; i++) {
        struct icell_range r = icell_range_in_order(known->at[i], last);
        if (r.to > last)
            r.to = last;
        if (r.from <= last)
            w->known[n++] = r;
    }
    if (n)
        sort_array(w->known, n, sizeof *w->known, by_from);
    for (size_t i = 0; i < n; i++)
        if (w->n && w->known[i].from <= w->known[w->n - 1].to) {
            if (w->known[i].to > w->known[w->n - 1].to)
                w->known[w->n - 1].to = w->known[i].to;
        } else {
            w->known[w->n++] = w->known[i];
        }
    return 0;
}

static void
put_one(struct writer *w, uint32_t from, uint32_t to)
{
    stream_putf(&w->ic->s, "%s%u", w->any ? "," : "* VANISHED (EARLIER) ", from);
    if (to > from)
        stream_putf(&w->ic->s, ":%u", to);
    w->any = true;
}

/* What of a range is known. */
static void
put_known(struct writer *w, uint32_t from, uint32_t to)
{
    size_t low = 0, high = w->n;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (w->known[mid].to < from)
            low = mid + 1;
        else
            high = mid;
    }
    for (size_t i = low; i < w->n && w->known[i].from <= to; i++)
        put_one(w, w->known[i].from > from ? w->known[i].from : from,
                w->known[i].to < to ? w->known[i].to : to);
}

void
icell_put_vanished(struct icell *ic, const struct icell_seqset *known, uint64_t since)
{
    struct writer w;
    const struct mailindex *ix = &ic->mb.ix;
    if (ix->state.next_uid < 2 || order_known(ic, known, &w) < 0)
        return;
    if (since >= ix->gone_floor) {
        for (size_t i = 0; i < ix->ngone; i++)
            if (ix->gone[i].modseq > since)
                put_known(&w, ix->gone[i].from, ix->gone[i].to);
    } else {
        uint32_t next = 1;
        for (size_t i = 0; i < ic->mb.n; i++) {
            const struct mailbox_message *m = &ic->mb.msgs[i];
            if (m->gone)
                continue;
            if (m->uid > next)
                put_known(&w, next, m->uid - 1);
            next = m->uid + 1;
        }
        if (next < ix->state.next_uid)
            put_known(&w, next, ix->state.next_uid - 1);
    }
    if (w.any)
        stream_putz(&ic->s, "\r\n");
}

void
icell_put_resync(struct icell *ic, const struct icell_qresync *q)
{
    struct writer w;
    if (q->validity != ic->mb.validity)
        return;
    const struct icell_seqset *known = q->known_given ? &q->known : NULL;
    icell_put_vanished(ic, known, q->modseq);
    if (order_known(ic, known, &w) < 0)
        return;
    for (size_t i = 0, k = 0; i < ic->mb.n && !ic->s.broken; i++) {
        struct mailbox_message *m = &ic->mb.msgs[i];
        while (k < w.n && w.known[k].to < m->uid)
            k++;
        if (k == w.n)
            return;
        if (m->uid < w.known[k].from || m->modseq <= q->modseq)
            continue;
        stream_putf(&ic->s, "* %zu FETCH (UID %u FLAGS ", i + 1, m->uid);
        icell_add_flags(ic, &ic->s.out, m);
        stream_putf(&ic->s, " MODSEQ (%llu))\r\n", (unsigned long long)m->modseq);
    }
}
