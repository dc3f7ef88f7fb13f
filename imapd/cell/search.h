/*
 * search: SEARCH's keys as a program in postfix form (RFC 3501 6.4.4).
 *
 * Parsed with an explicit stack, run with another: no recursion (catalogue G7). A message is first
 * judged by what its name tells; only when that does not decide, its header or text is read.
 *
 * Limits: ICELL_NESTING_MAX levels of parentheses, NOT and OR; the command's length bounds the
 * rest.
 */
#pragma once
#include "imapd/cell/icell.h"

enum icell_key_kind {
    ICELL_KEY_ALL,
    ICELL_KEY_SET,
    ICELL_KEY_FLAG,
    ICELL_KEY_KEYWORD,
    ICELL_KEY_RECENT,
    ICELL_KEY_NEW,
    ICELL_KEY_SIZE,
    ICELL_KEY_DATE,
    ICELL_KEY_SAVED_DATE, /* RFC 8514 */
    ICELL_KEY_MODSEQ,
    ICELL_KEY_AGE, /* against the moment in day, in seconds */
    /* from here on the message must be read */
    ICELL_KEY_SENT,
    ICELL_KEY_HEADER,
    ICELL_KEY_EMAILID, /* RFC 8474 */
    ICELL_KEY_BODY,
    ICELL_KEY_TEXT,
};

struct icell_key {
    enum icell_key_kind kind;
    bool want;   /* FLAG, KEYWORD, RECENT: set or not */
    int compare; /* SIZE, DATE, SENT: -1 below, 0 on, 1 above (dates: and on) */
    uint8_t flag;
    int keyword; /* -1: not in this mailbox */
    uint64_t size;
    int64_t day;
    struct str field, text;
    const size_t *set;
    size_t nset;
};

enum icell_op_kind { ICELL_OP_KEY, ICELL_OP_AND, ICELL_OP_OR, ICELL_OP_NOT };
struct icell_op {
    enum icell_op_kind kind;
    struct icell_key key;
};
struct icell_search {
    struct icell_op *ops;
    size_t n, cap;
    bool modseq; /* asked for: the answer names the highest (RFC 7162 3.1.5) */
};

/* Parse the rest of the command. -1: its end is set. */
int icell_search_parse(struct icell *ic, struct cursor *c, struct icell_search *s_r);
/* " charset keys", as SORT and THREAD have it. */
int icell_search_parse_charset(struct icell *ic, struct cursor *c, struct icell_search *s_r);
/* The messages that match, ascending, in memory of the command; for SORT and THREAD. -1: the
 * command's end is set. */
int icell_search_all(struct icell *ic, const struct icell_search *s, size_t **indices_r,
                     size_t *n_r);
void icell_search_free(struct icell_search *s);
/* Whether message i matches. A message that cannot be read does not. */
bool icell_search_match(struct icell *ic, const struct icell_search *s, size_t i);
