/*
 * seqset: a sequence set (RFC 3501 9), kept as ranges and cut to the mailbox (catalogue G8).
 *
 * Time and memory are bounded by the command's length and the mailbox, whatever numbers are in it.
 * Limit: ICELL_SEQSET_MAX ranges.
 */
#pragma once
#include "imapd/cell/icell.h"

enum { ICELL_SEQSET_MAX = 20000 };

struct icell_range {
    uint32_t from, to; /* 0 is "*" until resolved */
};
struct icell_seqset {
    struct icell_range *at;
    size_t n;
    bool saved; /* "$": what SEARCH saved (RFC 5182) */
};

/* The same with the lower end first, "*" being last. */
struct icell_range icell_range_in_order(struct icell_range r, uint32_t last);
/* Take a set from the cursor into the arena. */
int icell_seqset_parse(struct cursor *c, struct arena *arena, struct icell_seqset *set_r);
/* The indices (0-based, ascending, each once) of the messages in it: by number or by UID. A number
 * above the last message makes it fail (RFC 3501: an error), a UID that is not there does not. */
int icell_seqset_resolve(const struct icell *ic, const struct icell_seqset *set, bool uid,
                         struct arena *arena, size_t **indices_r, size_t *n_r);
/* Parse, and resolve as the command says (cmd.uid); on -1 the command's end is set. */
int icell_seqset_arg(struct icell *ic, struct cursor *c, size_t **indices_r, size_t *n_r);
/* Whether a UID lies in a set of UIDs; "*" is last. */
bool icell_seqset_has(const struct icell_seqset *set, uint32_t uid, uint32_t last);
/* "1:3,5" of ascending numbers. */
void icell_seqset_add(struct buf *out, const uint32_t *numbers, size_t n);
/* The same, sent to the client, however long. */
void icell_put_set(struct icell *ic, const uint32_t *numbers, size_t n);
