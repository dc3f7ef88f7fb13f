/*
 * status: the items of STATUS (RFC 3501 6.3.10; RFC 7162, 7889, 8438, 8474), for STATUS and for
 * LIST's RETURN (STATUS ...) (RFC 5819).
 */
#pragma once
#include "imapd/cell/icell.h"

enum { ICELL_STATUS_MAX = 16 };

struct icell_status_items {
    int wanted[ICELL_STATUS_MAX];
    size_t n;
};
/* "(MESSAGES UNSEEN ...)" */
int icell_status_parse(struct cursor *c, struct icell_status_items *items_r);
/* "* STATUS name (...)". -1: it cannot be opened, and nothing was said. */
int icell_put_status(struct icell *ic, struct str name, const struct icell_status_items *items,
                     struct err *e);
/* Whether a mod-sequence is asked for. */
bool icell_status_condstore(const struct icell_status_items *items);
