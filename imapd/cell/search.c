#include "imapd/cell/search.h"
#include "imapd/cell/args.h"
#include "imapd/cell/seqset.h"
#include "lib/mail/date.h"
#include <stdlib.h>

/* ---- one key ---- */

enum takes { NOTHING, TEXT, DATE, NUMBER, FIELD, WORD, SET, MODSEQ, INTERVAL };

static const struct word {
    const char *name;
    enum takes takes;
    struct icell_key key;
} words[] = {
    {"ALL", NOTHING, {.kind = ICELL_KEY_ALL}},
    {"ANSWERED", NOTHING, {.kind = ICELL_KEY_FLAG, .want = true, .flag = MAILBOX_ANSWERED}},
    {"DELETED", NOTHING, {.kind = ICELL_KEY_FLAG, .want = true, .flag = MAILBOX_DELETED}},
    {"DRAFT", NOTHING, {.kind = ICELL_KEY_FLAG, .want = true, .flag = MAILBOX_DRAFT}},
    {"FLAGGED", NOTHING, {.kind = ICELL_KEY_FLAG, .want = true, .flag = MAILBOX_FLAGGED}},
    {"SEEN", NOTHING, {.kind = ICELL_KEY_FLAG, .want = true, .flag = MAILBOX_SEEN}},
    {"UNANSWERED", NOTHING, {.kind = ICELL_KEY_FLAG, .flag = MAILBOX_ANSWERED}},
    {"UNDELETED", NOTHING, {.kind = ICELL_KEY_FLAG, .flag = MAILBOX_DELETED}},
    {"UNDRAFT", NOTHING, {.kind = ICELL_KEY_FLAG, .flag = MAILBOX_DRAFT}},
    {"UNFLAGGED", NOTHING, {.kind = ICELL_KEY_FLAG, .flag = MAILBOX_FLAGGED}},
    {"UNSEEN", NOTHING, {.kind = ICELL_KEY_FLAG, .flag = MAILBOX_SEEN}},
    {"RECENT", NOTHING, {.kind = ICELL_KEY_RECENT, .want = true}},
    {"OLD", NOTHING, {.kind = ICELL_KEY_RECENT}},
    {"NEW", NOTHING, {.kind = ICELL_KEY_NEW}},
    {"KEYWORD", WORD, {.kind = ICELL_KEY_KEYWORD, .want = true}},
    {"UNKEYWORD", WORD, {.kind = ICELL_KEY_KEYWORD}},
    {"LARGER", NUMBER, {.kind = ICELL_KEY_SIZE, .compare = 1}},
    {"SMALLER", NUMBER, {.kind = ICELL_KEY_SIZE, .compare = -1}},
    {"BEFORE", DATE, {.kind = ICELL_KEY_DATE, .compare = -1}},
    {"ON", DATE, {.kind = ICELL_KEY_DATE}},
    {"SINCE", DATE, {.kind = ICELL_KEY_DATE, .compare = 1}},
    {"SENTBEFORE", DATE, {.kind = ICELL_KEY_SENT, .compare = -1}},
    {"SENTON", DATE, {.kind = ICELL_KEY_SENT}},
    {"SENTSINCE", DATE, {.kind = ICELL_KEY_SENT, .compare = 1}},
    {"FROM", TEXT, {.kind = ICELL_KEY_HEADER, .field = {"From", 4}}},
    {"TO", TEXT, {.kind = ICELL_KEY_HEADER, .field = {"To", 2}}},
    {"CC", TEXT, {.kind = ICELL_KEY_HEADER, .field = {"Cc", 2}}},
    {"BCC", TEXT, {.kind = ICELL_KEY_HEADER, .field = {"Bcc", 3}}},
    {"SUBJECT", TEXT, {.kind = ICELL_KEY_HEADER, .field = {"Subject", 7}}},
    {"HEADER", FIELD, {.kind = ICELL_KEY_HEADER}},
    {"BODY", TEXT, {.kind = ICELL_KEY_BODY}},
    {"TEXT", TEXT, {.kind = ICELL_KEY_TEXT}},
    {"UID", SET, {.kind = ICELL_KEY_SET}},
    {"MODSEQ", MODSEQ, {.kind = ICELL_KEY_MODSEQ}},
    /* RFC 5032 */
    {"YOUNGER", INTERVAL, {.kind = ICELL_KEY_AGE, .compare = 1}},
    {"OLDER", INTERVAL, {.kind = ICELL_KEY_AGE, .compare = -1}},
    /* RFC 8514 */
    {"SAVEDBEFORE", DATE, {.kind = ICELL_KEY_SAVED_DATE, .compare = -1}},
    {"SAVEDON", DATE, {.kind = ICELL_KEY_SAVED_DATE}},
    {"SAVEDSINCE", DATE, {.kind = ICELL_KEY_SAVED_DATE, .compare = 1}},
    /* RFC 8474; of threads nothing is known. */
    {"EMAILID", TEXT, {.kind = ICELL_KEY_EMAILID}},
    {"THREADID", TEXT, {.kind = ICELL_KEY_KEYWORD, .want = true, .keyword = -1}},
    {"SAVEDATESUPPORTED", NOTHING, {.kind = ICELL_KEY_ALL}},
};

static int
take_set(struct icell *ic, struct cursor *c, bool uid, struct icell_key *key)
{
    struct icell_seqset set;
    size_t *at;
    if (icell_seqset_parse(c, &ic->arena, &set) < 0 ||
        icell_seqset_resolve(ic, &set, uid, &ic->arena, &at, &key->nset) < 0)
        return -1;
    key->kind = ICELL_KEY_SET;
    key->set = at;
    return 0;
}

/* RFC 7162 3.1.5: optionally the name and kind of a metadata item, which we do not keep apart. */
static int
take_modseq(struct icell *ic, struct cursor *c, struct icell_key *key)
{
    struct str s;
    if (cur_peek(c) == '"' && (icell_arg_string(c, &ic->arena, &s) < 0 || !icell_arg_space(c) ||
                               icell_arg_atom(c, &s) < 0 || !icell_arg_space(c)))
        return -1;
    return icell_arg_number(c, INT64_MAX, &key->size);
}

static int
take_argument(struct icell *ic, struct cursor *c, enum takes takes, struct icell_key *key)
{
    struct str s;
    if (takes == NOTHING)
        return 0;
    if (!icell_arg_space(c))
        return -1;
    switch (takes) {
    case FIELD:
        if (icell_arg_astring(c, &ic->arena, &key->field) < 0 || !icell_arg_space(c))
            return -1;
        return icell_arg_astring(c, &ic->arena, &key->text);
    case DATE:
        if (cur_peek(c) == '"' ? icell_arg_string(c, &ic->arena, &s) < 0
                               : icell_arg_atom(c, &s) < 0)
            return -1;
        return date_parse_day(s, &key->day);
    case NUMBER:
        return icell_arg_number(c, INT64_MAX, &key->size);
    case WORD:
        if (icell_arg_atom(c, &s) < 0)
            return -1;
        key->keyword = keywords_find(&ic->mb.keywords, s);
        return 0;
    case SET:
        return take_set(ic, c, true, key);
    case MODSEQ:
        return take_modseq(ic, c, key);
    case INTERVAL:
        if (icell_arg_number(c, UINT32_MAX, &key->size) < 0 || key->size == 0)
            return -1;
        key->day = wall_s() - (int64_t)key->size;
        return 0;
    default:
        return icell_arg_astring(c, &ic->arena, &key->text);
    }
}

static int
take_key(struct icell *ic, struct cursor *c, struct icell_key *key_r)
{
    int first = cur_peek(c);
    if ((first >= '0' && first <= '9') || first == '*' || first == '$')
        return take_set(ic, c, false, key_r);
    struct str name = cur_while(c, ch_alpha);
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (str_caseeq(name, str_z(words[i].name))) {
            *key_r = words[i].key;
            return take_argument(ic, c, words[i].takes, key_r);
        }
    return -1;
}

/* ---- the program ---- */

enum frame_kind { IN_LIST, IN_NOT, IN_OR };
struct frame {
    enum frame_kind kind;
    size_t have; /* operands so far */
};
struct parser {
    struct icell_search *s;
    struct frame frames[ICELL_NESTING_MAX + 1];
    size_t n;
};

static int
emit(struct icell_search *s, const struct icell_op *op)
{
    if (s->n == s->cap) {
        size_t cap = s->cap ? s->cap * 2 : 16;
        struct icell_op *ops = reallocarray(s->ops, cap, sizeof *ops);
        if (!ops)
            return -1;
        s->ops = ops;
        s->cap = cap;
    }
    s->ops[s->n++] = *op;
    return 0;
}

static int
push(struct parser *p, enum frame_kind kind)
{
    if (p->n > ICELL_NESTING_MAX)
        return -1;
    p->frames[p->n++] = (struct frame){kind, 0};
    return 0;
}

/* An operand is complete: what can be closed with it? */
static int
operand(struct parser *p)
{
    for (;;) {
        struct frame *f = &p->frames[p->n - 1];
        f->have++;
        if (f->kind == IN_LIST)
            return f->have > 1 ? emit(p->s, &(struct icell_op){.kind = ICELL_OP_AND}) : 0;
        if (f->kind == IN_OR && f->have < 2)
            return 0;
        if (emit(p->s, &(struct icell_op){.kind = f->kind == IN_OR ? ICELL_OP_OR : ICELL_OP_NOT}) <
            0)
            return -1;
        p->n--;
    }
}

/* One key, with the parentheses, NOT and OR before it and the parentheses behind. */
static int
step(struct icell *ic, struct parser *p, struct cursor *c)
{
    for (;;) {
        enum frame_kind kind;
        if (cur_take(c, '('))
            kind = IN_LIST;
        else if (cur_take_case(c, STR("NOT ")))
            kind = IN_NOT;
        else if (cur_take_case(c, STR("OR ")))
            kind = IN_OR;
        else
            break;
        if (push(p, kind) < 0)
            return -1;
    }
    struct icell_op op = {.kind = ICELL_OP_KEY};
    if (take_key(ic, c, &op.key) < 0)
        return -1;
    p->s->modseq |= op.key.kind == ICELL_KEY_MODSEQ;
    if (emit(p->s, &op) < 0 || operand(p) < 0)
        return -1;
    while (p->n > 1 && p->frames[p->n - 1].kind == IN_LIST && cur_take(c, ')')) {
        p->n--;
        if (operand(p) < 0)
            return -1;
    }
    return 0;
}

/* "name " of a charset; only those we can compare. */
static int
charset(struct icell *ic, struct cursor *c)
{
    struct str name;
    if (icell_arg_astring(c, &ic->arena, &name) < 0 || !icell_arg_space(c)) {
        icell_end_syntax(ic);
        return -1;
    }
    if (str_caseeq(name, STR("UTF-8")) || str_caseeq(name, STR("US-ASCII")))
        return 0;
    icell_end(ic, ic->charset_free && !ic->rev2 ? ICELL_BAD : ICELL_NO,
              "[BADCHARSET (US-ASCII UTF-8)] Unknown charset.");
    return -1;
}

static int
keys(struct icell *ic, struct cursor *c, struct icell_search *s_r)
{
    struct parser p = {.s = s_r, .n = 1};
    do
        if (step(ic, &p, c) < 0) {
            icell_end_syntax(ic);
            return -1;
        }
    while (icell_arg_space(c));
    if (icell_arg_end(c) && p.n == 1)
        return 0;
    icell_end_syntax(ic);
    return -1;
}

static int
parse(struct icell *ic, struct cursor *c, bool always, struct icell_search *s_r)
{
    *s_r = (struct icell_search){0};
    if (!icell_arg_space(c)) {
        icell_end_syntax(ic);
        return -1;
    }
    bool named = !always && cur_take_case(c, STR("CHARSET "));
    if (named && ic->charset_free && !ic->rev2) { /* RFC 9755 3 */
        icell_end(ic, ICELL_BAD, "All is UTF-8: no CHARSET.");
        return -1;
    }
    if ((always || named) && charset(ic, c) < 0)
        return -1;
    return keys(ic, c, s_r);
}

int
icell_search_parse(struct icell *ic, struct cursor *c, struct icell_search *s_r)
{
    return parse(ic, c, false, s_r);
}

int
icell_search_parse_charset(struct icell *ic, struct cursor *c, struct icell_search *s_r)
{
    return parse(ic, c, true, s_r);
}

int
icell_search_all(struct icell *ic, const struct icell_search *s, size_t **indices_r, size_t *n_r)
{
    size_t *at = arena_array(&ic->arena, ic->mb.n + 1, sizeof *at), n = 0;
    if (!at) {
        icell_end(ic, ICELL_NO, "[LIMIT] Out of memory.");
        return -1;
    }
    for (size_t i = 0; i < ic->mb.n && !ic->s.broken; i++)
        if (icell_search_match(ic, s, i))
            at[n++] = i;
    *indices_r = at;
    *n_r = n;
    return 0;
}

void
icell_search_free(struct icell_search *s)
{
    free(s->ops);
    *s = (struct icell_search){0};
}
