/* THREAD (RFC 5256 3). */
#include "imapd/cell/args.h"
#include "imapd/cell/commands.h"
#include "imapd/cell/search.h"
#include "imapd/cell/sort.h"
#include "imapd/cell/thread.h"
#include "lib/base/siphash.h"
#include "lib/mail/header.h"
#include "lib/mail/msgid.h"
#include "lib/mail/subject.h"
#include <sys/random.h>

/* What is gathered of all messages. */
enum { THREAD_MAX = 256 * 1024 * 1024 };

struct gatherer {
    struct icell *ic;
    bool references;
    struct sipkey key;
    struct arena arena;
    struct icell_thread_message *messages;
    struct buf base, folded;
};

static uint64_t
hash(const struct gatherer *g, struct str s)
{
    uint64_t h = siphash(&g->key, s);
    return h ? h : 1;
}

/* The identifiers of a field: the first and the last ones of too many, or (only_first) one. */
static uint32_t
identifiers(const struct gatherer *g, struct str value, bool only_first, uint64_t *ids)
{
    struct cursor c = cursor_of(value);
    struct msgid id;
    uint32_t n = 0;
    while (msgid_next(&c, &id) && !(only_first && n)) {
        if (n == ICELL_REFS_MAX) {
            memmove(ids + 1, ids + 2, (ICELL_REFS_MAX - 2) * sizeof *ids);
            n--;
        }
        ids[n++] = hash(g, str_of(id.p, id.n));
    }
    return n;
}

/* RFC 5256 REFERENCES (1): References, or when there is none in it the first of In-Reply-To. */
static int
links(struct gatherer *g, struct str header, struct icell_thread_message *m)
{
    uint64_t ids[ICELL_REFS_MAX];
    struct header_field f;
    uint32_t n = 0;
    if (header_find(header, STR("Message-ID"), &f) && identifiers(g, f.value, true, ids))
        m->id = ids[0];
    if (header_find(header, STR("References"), &f))
        n = identifiers(g, f.value, false, ids);
    if (!n && header_find(header, STR("In-Reply-To"), &f))
        n = identifiers(g, f.value, true, ids);
    m->refs = arena_array(&g->arena, n, sizeof *m->refs);
    if (!m->refs)
        return -1;
    memcpy(m->refs, ids, n * sizeof *ids);
    m->nrefs = n;
    return 0;
}

static int
gather_one(struct gatherer *g, size_t i, struct icell_thread_message *m)
{
    struct str header;
    struct header_field f;
    m->number = g->ic->cmd.uid ? g->ic->mb.msgs[i].uid : (uint32_t)i + 1;
    if (icell_hot_header(g->ic, i, &header, NULL) < 0)
        header = str_of("", 0);
    m->date_s = icell_sent_date(g->ic, i, header);
    if (header_find(header, STR("Subject"), &f)) {
        buf_reset(&g->base);
        buf_reset(&g->folded);
        subject_base(&g->base, f.value, &m->reply);
        subject_fold(&g->folded, buf_str(&g->base));
        m->subject = g->folded.n ? hash(g, buf_str(&g->folded)) : 0;
    }
    return g->references ? links(g, header, m) : 0;
}

static int
gather(struct gatherer *g, const size_t *at, size_t n)
{
    if (getrandom(&g->key, sizeof g->key, 0) != (ssize_t)sizeof g->key)
        return -1;
    g->messages = arena_array(&g->arena, n + 1, sizeof *g->messages);
    for (size_t k = 0; g->messages && k < n; k++)
        if (gather_one(g, at[k], &g->messages[k]) < 0)
            return -1;
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
    struct gatherer g = {.ic = ic,
                         .references = references,
                         .arena = arena_new(THREAD_MAX),
                         .base = buf_new(4 * HEADER_FIELD_MAX),
                         .folded = buf_new(4 * HEADER_FIELD_MAX)};
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
    buf_free(&g.base);
    buf_free(&g.folded);
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
