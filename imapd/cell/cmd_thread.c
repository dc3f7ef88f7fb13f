/* THREAD (RFC 5256 3). */
#include "imapd/cell/args.h"
#include "imapd/cell/commands.h"
#include "imapd/cell/digest.h"
#include "imapd/cell/search.h"

/* What is gathered of all messages. */
enum { THREAD_MAX = 256 * 1024 * 1024 };

struct gatherer {
    struct icell *ic;
    struct arena arena;
    struct icell_thread_message *messages;
};

static int
gather(struct gatherer *g, const size_t *at, size_t n)
{
    static struct icell_digest d;
    g->messages = arena_array(&g->arena, n + 1, sizeof *g->messages);
    for (size_t k = 0; g->messages && k < n; k++) {
        icell_digest(g->ic, at[k], &d);
        uint64_t *refs = arena_array(&g->arena, d.nrefs, sizeof *refs);
        if (!refs)
            return -1;
        memcpy(refs, d.refs, d.nrefs * sizeof *refs);
        g->messages[k] = (struct icell_thread_message){
            .number = g->ic->cmd.uid ? g->ic->mb.msgs[at[k]].uid : (uint32_t)at[k] + 1,
            .date_s = d.date_s,
            .id = d.id,
            .subject = d.subject,
            .reply = d.reply,
            .refs = refs,
            .nrefs = d.nrefs};
    }
    return g->messages ? 0 : -1;
}

static void
put(void *to, struct str piece)
{
    stream_put(to, piece);
}

static void
thread(struct icell *ic, bool references, const size_t *at, size_t n)
{
    struct gatherer g = {.ic = ic, .arena = arena_new(THREAD_MAX)};
    struct icell_forest f;
    if (gather(&g, at, n) < 0 ||
        (references ? icell_thread_references(g.messages, n, &g.arena, &f)
                    : icell_thread_subjects(g.messages, n, &g.arena, &f)) < 0) {
        icell_end(ic, ICELL_NO, "[LIMIT] Out of memory for threads.");
    } else {
        stream_putz(&ic->s, "* THREAD");
        icell_thread_put(&f, put, &ic->s);
        stream_putz(&ic->s, "\r\n");
        icell_end(ic, ICELL_OK, "Thread completed.");
    }
    arena_free(&g.arena);
}

void
icell_cmd_thread(struct icell *ic)
{
    struct icell_search s = {0};
    struct str name;
    size_t *at, n;
    if (!icell_arg_space(&ic->cmd.args) || icell_arg_atom(&ic->cmd.args, &name) < 0 ||
        (!str_caseeq(name, STR("REFERENCES")) && !str_caseeq(name, STR("ORDEREDSUBJECT")))) {
        icell_end_syntax(ic);
        return;
    }
    if (icell_search_parse_charset(ic, &ic->cmd.args, &s) == 0 &&
        icell_search_all(ic, &s, &at, &n) == 0)
        thread(ic, str_caseeq(name, STR("REFERENCES")), at, n);
    icell_search_free(&s);
}
