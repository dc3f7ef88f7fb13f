#include "imapd/cell/sort.h"
#include "imapd/cell/args.h"
#include "imapd/cell/digest.h"
#include "lib/base/sort.h"
#include "lib/mail/addrlist.h"
#include "lib/mail/bodytext.h"
#include "lib/mail/header.h"
#include "lib/mail/subject.h"

static const struct {
    const char *name, *field;
    bool text;
} kinds[ICELL_SORT_KINDS] = {
    [ICELL_SORT_ARRIVAL] = {"ARRIVAL", NULL, false},
    [ICELL_SORT_CC] = {"CC", "Cc", true},
    [ICELL_SORT_DATE] = {"DATE", "Date", false},
    [ICELL_SORT_FROM] = {"FROM", "From", true},
    [ICELL_SORT_SIZE] = {"SIZE", NULL, false},
    [ICELL_SORT_SUBJECT] = {"SUBJECT", "Subject", true},
    [ICELL_SORT_TO] = {"TO", "To", true},
    [ICELL_SORT_DISPLAYFROM] = {"DISPLAYFROM", "From", true},
    [ICELL_SORT_DISPLAYTO] = {"DISPLAYTO", "To", true},
};

enum { FIRST_ADDRESS_MAX = 4096 };

static void
add(struct icell_sort *s, enum icell_sort_kind kind, bool reverse)
{
    for (size_t i = 0; i < s->n; i++)
        if (s->keys[i].kind == kind)
            return;
    s->keys[s->n].kind = kind;
    s->keys[s->n++].reverse = reverse;
}

int
icell_sort_parse(struct cursor *c, struct icell_sort *s_r)
{
    *s_r = (struct icell_sort){0};
    if (!cur_take(c, '('))
        return -1;
    do {
        int kind = -1;
        bool reverse = cur_take_case(c, STR("REVERSE "));
        struct str name = cur_while(c, ch_alpha);
        for (int k = 0; k < ICELL_SORT_KINDS; k++)
            if (str_caseeq(name, str_z(kinds[k].name)))
                kind = k;
        if (kind < 0)
            return -1;
        add(s_r, (enum icell_sort_kind)kind, reverse);
    } while (icell_arg_space(c));
    return cur_take(c, ')') ? 0 : -1;
}

/* ---- columns ---- */

union value {
    uint64_t number; /* in the order of the values, also of negative ones */
    struct str text;
};

struct columns {
    struct icell *ic;
    const struct icell_sort *s;
    struct arena arena;   /* values and texts */
    struct arena scratch; /* of one address */
    union value *values;  /* s->n of each message */
    struct buf raw, folded;
};

/* Negative ones first. */
static uint64_t
ordered(int64_t v)
{
    return (uint64_t)v + ((uint64_t)1 << 63);
}

/* The first address: its local part, or (display) its name, else all of it (RFC 5957 2). */
static void
first_address(struct columns *cl, struct str value, bool display)
{
    struct addrlist list;
    arena_reset(&cl->scratch);
    if (addrlist_parse(str_sub(value, 0, FIRST_ADDRESS_MAX), &cl->scratch, &list) < 0 || !list.n)
        return;
    const struct addrlist_entry *a = &list.at[0];
    if (display && a->kind == ADDRLIST_ADDRESS && a->name.n) {
        bodytext_header(&cl->raw, a->name);
    } else {
        buf_add(&cl->raw, a->mailbox);
        if (display && a->kind == ADDRLIST_ADDRESS && a->host.n) {
            buf_addc(&cl->raw, '@');
            buf_add(&cl->raw, a->host);
        }
    }
}

static int
text_value(struct columns *cl, enum icell_sort_kind kind, struct str header, struct str *text_r)
{
    struct header_field f;
    *text_r = str_of("", 0);
    if (!header_find(header, str_z(kinds[kind].field), &f))
        return 0;
    buf_reset(&cl->raw);
    buf_reset(&cl->folded);
    first_address(cl, f.value, kind == ICELL_SORT_DISPLAYFROM || kind == ICELL_SORT_DISPLAYTO);
    subject_fold(&cl->folded, str_sub(buf_str(&cl->raw), 0, ICELL_SORT_TEXT_MAX));
    *text_r = arena_str(&cl->arena, buf_str(&cl->folded));
    return text_r->p ? 0 : -1;
}

/* From the digest; 1: it is not in it. */
static int
digest_value(struct columns *cl, size_t i, enum icell_sort_kind kind, union value *v)
{
    static struct icell_digest d;
    if (kind != ICELL_SORT_DATE && kind != ICELL_SORT_SUBJECT)
        return 1;
    icell_digest(cl->ic, i, &d);
    if (kind == ICELL_SORT_DATE) {
        v->number = ordered(d.date_s);
        return 0;
    }
    v->text = arena_str(&cl->arena, d.text);
    return v->text.p ? 0 : -1;
}

static int
read_values(struct columns *cl, size_t i, union value *values)
{
    for (size_t k = 0; k < cl->s->n; k++) {
        enum icell_sort_kind kind = cl->s->keys[k].kind;
        struct str header = str_of("", 0);
        uint64_t size = 0;
        int got = digest_value(cl, i, kind, &values[k]);
        if (got < 0)
            return -1;
        if (got == 0)
            continue;
        if (kind == ICELL_SORT_SIZE) {
            (void)mailbox_vsize(&cl->ic->mb, i, &size, NULL);
            values[k].number = size;
        } else if (kind == ICELL_SORT_ARRIVAL) {
            values[k].number = ordered(mailbox_date(&cl->ic->mb, i));
        } else {
            /* A message that cannot be read has empty fields. */
            if (icell_hot_header(cl->ic, i, &header, NULL) < 0)
                header = str_of("", 0);
            if (text_value(cl, kind, header, &values[k].text) < 0)
                return -1;
        }
    }
    return 0;
}

/* ---- order ---- */

/* Pairs: the beginning of the first key, turned about when that is in reverse; and the row. */

static uint64_t
beginning(struct str s)
{
    uint64_t v = 0;
    for (size_t i = 0; i < 8; i++)
        v = v << 8 | (i < s.n ? (unsigned char)s.p[i] : 0);
    return v;
}

static int
compare_text(struct str a, struct str b)
{
    size_t n = a.n < b.n ? a.n : b.n;
    int c = n ? memcmp(a.p, b.p, n) : 0;
    return c ? c : a.n < b.n ? -1 : a.n > b.n;
}

/* Whether b comes before a, of which the beginnings are the same. */
static bool
swapped(const struct columns *cl, const struct sort_pair *a, const struct sort_pair *b)
{
    const union value *x = &cl->values[a->value * cl->s->n], *y = &cl->values[b->value * cl->s->n];
    for (size_t k = 0; k < cl->s->n; k++) {
        int c = kinds[cl->s->keys[k].kind].text ? compare_text(x[k].text, y[k].text)
                : x[k].number < y[k].number     ? -1
                                                : x[k].number > y[k].number;
        if (c)
            return cl->s->keys[k].reverse ? c < 0 : c > 0;
    }
    return false;
}

static void
merge(const struct columns *cl, const struct sort_pair *from, struct sort_pair *to, size_t left,
      size_t middle, size_t right)
{
    size_t a = left, b = middle;
    for (size_t k = left; k < right; k++)
        if (b == right || (a < middle && !swapped(cl, &from[a], &from[b])))
            to[k] = from[a++];
        else
            to[k] = from[b++];
}

/* Those of one beginning in order; of equals the first in the mailbox comes first. */
static void
sort_ties(const struct columns *cl, struct sort_pair *at, struct sort_pair *other, size_t n)
{
    struct sort_pair *from = at;
    for (size_t run = 1; run < n; run *= 2) {
        for (size_t left = 0; left < n; left += 2 * run) {
            size_t middle = n - left > run ? left + run : n;
            size_t right = n - left > 2 * run ? left + 2 * run : n;
            merge(cl, from, other, left, middle, right);
        }
        struct sort_pair *hold = from;
        from = other;
        other = hold;
    }
    if (from != at)
        memcpy(at, from, n * sizeof *at);
}

static void
sort(const struct columns *cl, struct sort_pair *at, struct sort_pair *room, size_t n)
{
    sort_pairs(at, room, n);
    if (cl->s->n == 1 && !kinds[cl->s->keys[0].kind].text)
        return; /* the beginning is all */
    for (size_t from = 0, to = 0; from < n; from = to) {
        while (to < n && at[to].key == at[from].key)
            to++;
        if (to - from > 1)
            sort_ties(cl, at + from, room + from, to - from);
    }
}

static int
run(struct columns *cl, size_t *indices, size_t n)
{
    struct sort_pair *a = arena_array(&cl->arena, n + 1, sizeof *a);
    struct sort_pair *b = arena_array(&cl->arena, n + 1, sizeof *b);
    size_t *held = arena_array(&cl->arena, n + 1, sizeof *held);
    cl->values = arena_array(&cl->arena, n * cl->s->n + 1, sizeof *cl->values);
    if (!a || !b || !held || !cl->values)
        return -1;
    for (size_t k = 0; k < n; k++) {
        union value *v = &cl->values[k * cl->s->n];
        if (read_values(cl, indices[k], v) < 0)
            return -1;
        bool text = kinds[cl->s->keys[0].kind].text;
        uint64_t first = text ? beginning(v[0].text) : v[0].number;
        a[k] = (struct sort_pair){cl->s->keys[0].reverse ? ~first : first, k};
        held[k] = indices[k];
    }
    sort(cl, a, b, n);
    for (size_t k = 0; k < n; k++)
        indices[k] = held[a[k].value];
    return 0;
}

int
icell_sort_run(struct icell *ic, const struct icell_sort *s, size_t *indices, size_t n,
               struct err *e)
{
    struct columns cl = {.ic = ic,
                         .s = s,
                         .arena = arena_new(ICELL_SORT_MAX),
                         .scratch = arena_new(1 << 20),
                         .raw = buf_new(4 * HEADER_FIELD_MAX),
                         .folded = buf_new(4 * HEADER_FIELD_MAX)};
    int result = run(&cl, indices, n);
    if (result < 0)
        err_set(e, ERR_LIMIT, "out of memory for sorting");
    arena_free(&cl.arena);
    arena_free(&cl.scratch);
    buf_free(&cl.raw);
    buf_free(&cl.folded);
    return result;
}
