/* SORT (RFC 5256 3; RFC 5957; RFC 7162 3.1.6). */
#include "imapd/cell/args.h"
#include "imapd/cell/commands.h"
#include "imapd/cell/search.h"
#include "imapd/cell/sort.h"

static void
put(struct icell *ic, const struct icell_search *s, const size_t *at, size_t n)
{
    uint64_t highest = 0;
    stream_putz(&ic->s, "* SORT");
    for (size_t k = 0; k < n; k++) {
        if (s->modseq && ic->mb.msgs[at[k]].modseq > highest)
            highest = ic->mb.msgs[at[k]].modseq;
        buf_addc(&ic->s.out, ' ');
        buf_addu(&ic->s.out, ic->cmd.uid ? ic->mb.msgs[at[k]].uid : at[k] + 1);
        if (k % 1024 == 0)
            stream_putz(&ic->s, "");
    }
    if (s->modseq && n)
        stream_putf(&ic->s, " (MODSEQ %llu)", (unsigned long long)highest);
    stream_putz(&ic->s, "\r\n");
}

void
icell_cmd_sort(struct icell *ic)
{
    struct icell_sort sort;
    struct icell_search s = {0};
    struct err e = {0};
    size_t *at, n;
    if (!icell_arg_space(&ic->cmd.args) || icell_sort_parse(&ic->cmd.args, &sort) < 0) {
        icell_end_syntax(ic);
        return;
    }
    if (icell_search_parse_charset(ic, &ic->cmd.args, &s) == 0 &&
        icell_search_all(ic, &s, &at, &n) == 0) {
        if (icell_sort_run(ic, &sort, at, n, &e) < 0) {
            icell_end_err(ic, &e);
        } else {
            if (s.modseq)
                icell_enable_condstore(ic);
            put(ic, &s, at, n);
            icell_end(ic, ICELL_OK, "Sort completed.");
        }
    }
    icell_search_free(&s);
}
