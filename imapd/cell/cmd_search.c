/* SEARCH (RFC 9051 and 3501 6.4.4; RFC 4731; RFC 5182; RFC 7162 3.1.5). */
#include "imapd/cell/args.h"
#include "imapd/cell/commands.h"
#include "imapd/cell/search.h"
#include "imapd/cell/seqset.h"
#include <stdlib.h>

enum {
    RETURN_MIN = 1,
    RETURN_MAX = 2,
    RETURN_ALL = 4,
    RETURN_COUNT = 8,
    RETURN_SAVE = 16,
    RETURN_GIVEN = 32,
};

/* " RETURN (MIN MAX ...)" in front of the keys; 0 when it is not there. */
static int
take_return(struct cursor *c, unsigned *options_r)
{
    static const struct {
        const char *name;
        unsigned bit;
    } names[] = {{"MIN", RETURN_MIN},
                 {"MAX", RETURN_MAX},
                 {"ALL", RETURN_ALL},
                 {"COUNT", RETURN_COUNT},
                 {"SAVE", RETURN_SAVE}};
    *options_r = 0;
    if (!cur_take_case(c, STR(" RETURN (")))
        return 0;
    *options_r = RETURN_GIVEN;
    if (cur_take(c, ')')) {
        *options_r |= RETURN_ALL;
        return 0;
    }
    do {
        struct str name;
        unsigned bit = 0;
        if (icell_arg_atom(c, &name) < 0)
            return -1;
        for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
            if (str_caseeq(name, str_z(names[i].name)))
                bit = names[i].bit;
        if (!bit)
            return -1;
        *options_r |= bit;
    } while (icell_arg_space(c));
    return cur_take(c, ')') ? 0 : -1;
}

struct found {
    uint32_t *numbers; /* as the client counts */
    uint32_t *uids;
    size_t n;
    uint64_t modseq; /* the highest of them */
};

static int
find(struct icell *ic, const struct icell_search *s, struct found *f)
{
    *f = (struct found){.numbers = arena_array(&ic->arena, ic->mb.n + 1, sizeof *f->numbers),
                        .uids = calloc(ic->mb.n + 1, sizeof *f->uids)};
    if (!f->numbers || !f->uids)
        return -1;
    for (size_t i = 0, n = ic->mb.n; i < n && !ic->s.broken; i++)
        if (icell_search_match(ic, s, i)) {
            f->uids[f->n] = ic->mb.msgs[i].uid;
            f->numbers[f->n++] = ic->cmd.uid ? ic->mb.msgs[i].uid : (uint32_t)i + 1;
            if (ic->mb.msgs[i].modseq > f->modseq)
                f->modseq = ic->mb.msgs[i].modseq;
        }
    return 0;
}

static void
put_plain(struct icell *ic, const struct icell_search *s, const struct found *f)
{
    stream_putz(&ic->s, "* SEARCH");
    for (size_t i = 0; i < f->n; i++) {
        buf_addc(&ic->s.out, ' ');
        buf_addu(&ic->s.out, f->numbers[i]);
        if (i % 1024 == 0)
            stream_putz(&ic->s, "");
    }
    if (s->modseq && f->n)
        stream_putf(&ic->s, " (MODSEQ %llu)", (unsigned long long)f->modseq);
    stream_putz(&ic->s, "\r\n");
}

static uint64_t
modseq_of(const struct icell *ic, uint32_t uid)
{
    return ic->mb.msgs[mailindex_find(&ic->mb.rows, uid)].modseq;
}

/* RFC 4731 3.2: with MIN or MAX alone that of these messages. */
static uint64_t
told_modseq(const struct icell *ic, const struct found *f, unsigned options)
{
    if ((options & (RETURN_ALL | RETURN_COUNT)) || !(options & (RETURN_MIN | RETURN_MAX)))
        return f->modseq;
    uint64_t min = options & RETURN_MIN ? modseq_of(ic, f->uids[0]) : 0;
    uint64_t max = options & RETURN_MAX ? modseq_of(ic, f->uids[f->n - 1]) : 0;
    return min > max ? min : max;
}

/* RFC 4731 3.1 */
static void
put_extended(struct icell *ic, const struct icell_search *s, const struct found *f,
             unsigned options)
{
    if ((options & ~(unsigned)RETURN_GIVEN) == RETURN_SAVE)
        return;
    stream_putz(&ic->s, "* ESEARCH (TAG \"");
    stream_put(&ic->s, ic->cmd.tag);
    stream_putf(&ic->s, "\")%s", ic->cmd.uid ? " UID" : "");
    if ((options & RETURN_MIN) && f->n)
        stream_putf(&ic->s, " MIN %u", f->numbers[0]);
    if ((options & RETURN_MAX) && f->n)
        stream_putf(&ic->s, " MAX %u", f->numbers[f->n - 1]);
    if (options & RETURN_COUNT)
        stream_putf(&ic->s, " COUNT %zu", f->n);
    if ((options & RETURN_ALL) && f->n) {
        stream_putz(&ic->s, " ALL ");
        icell_put_set(ic, f->numbers, f->n);
    }
    if (s->modseq && f->n)
        stream_putf(&ic->s, " MODSEQ %llu", (unsigned long long)told_modseq(ic, f, options));
    stream_putz(&ic->s, "\r\n");
}

/* RFC 5182 2.1 and 2.4: with MIN or MAX alone only these are saved. */
static void
save(struct icell *ic, struct found *f, unsigned options)
{
    size_t n = f->n;
    if (n && !(options & (RETURN_ALL | RETURN_COUNT)) && (options & (RETURN_MIN | RETURN_MAX))) {
        bool min = options & RETURN_MIN, max = options & RETURN_MAX;
        if (max && (!min || n > 1))
            f->uids[min ? 1 : 0] = f->uids[n - 1];
        n = min && max && n > 1 ? 2 : 1;
    }
    free(ic->saved);
    ic->saved = f->uids;
    ic->nsaved = n;
    f->uids = NULL;
}

void
icell_cmd_search(struct icell *ic)
{
    struct icell_search s = {0};
    struct found f = {0};
    unsigned options;
    if (take_return(&ic->cmd.args, &options) < 0) {
        icell_end_syntax(ic);
        return;
    }
    if (!options && ic->rev2) /* RFC 9051 6.4.4: the answer is always ESEARCH */
        options = RETURN_GIVEN | RETURN_ALL;
    if (icell_search_parse(ic, &ic->cmd.args, &s) < 0) {
        /* said */
    } else if (find(ic, &s, &f) < 0) {
        icell_end(ic, ICELL_NO, "Out of memory.");
    } else {
        if (s.modseq)
            icell_enable_condstore(ic);
        if (options)
            put_extended(ic, &s, &f, options);
        else
            put_plain(ic, &s, &f);
        if (options & RETURN_SAVE)
            save(ic, &f, options);
        icell_end(ic, ICELL_OK, "Search completed.");
    }
    /* RFC 5182 2.1: a search that fails with NO leaves nothing saved. */
    if (options & RETURN_SAVE && ic->cmd.status == ICELL_NO)
        ic->nsaved = 0;
    free(f.uids);
    icell_search_free(&s);
}
