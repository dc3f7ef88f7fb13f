/*
 * sort: the order of SORT (RFC 5256 2.2 and 3, RFC 5957).
 *
 * What messages are sorted by is read once into columns, from the fields that are kept of each
 * message; then sorted by the first eight bytes and, where these are the same, by merging: the time
 * depends on the number of messages only. Texts are folded
 * as subject.h says and compared by their first ICELL_SORT_TEXT_MAX bytes; dates and subjects come
 * from digests (digest.h).
 *
 * Limits: ICELL_SORT_MAX bytes of columns; each key once (a second time it changes nothing).
 */
#pragma once
#include "imapd/cell/icell.h"

enum { ICELL_SORT_MAX = 256 * 1024 * 1024, ICELL_SORT_TEXT_MAX = 256 };

enum icell_sort_kind {
    ICELL_SORT_ARRIVAL,
    ICELL_SORT_CC,
    ICELL_SORT_DATE,
    ICELL_SORT_FROM,
    ICELL_SORT_SIZE,
    ICELL_SORT_SUBJECT,
    ICELL_SORT_TO,
    ICELL_SORT_DISPLAYFROM,
    ICELL_SORT_DISPLAYTO,
    ICELL_SORT_KINDS,
};
struct icell_sort {
    struct {
        enum icell_sort_kind kind;
        bool reverse;
    } keys[ICELL_SORT_KINDS];
    size_t n;
};

/* "(REVERSE DATE SUBJECT ...)" */
int icell_sort_parse(struct cursor *c, struct icell_sort *s_r);
/* Put n indices of messages, ascending, in order. -1: ERR_LIMIT, out of memory. */
int icell_sort_run(struct icell *ic, const struct icell_sort *s, size_t *indices, size_t n,
                   struct err *e);
