/*
 * qresync: what a client that was here before missed (RFC 7162 3.2).
 *
 * UIDs that have gone come from the index's list; where that does not reach back far enough every
 * UID of the known ones that is not there is named, as 3.2.5.1 allows. Time is bounded by the list,
 * the mailbox and the command's length.
 */
#pragma once
#include "imapd/cell/seqset.h"

/* SELECT's parameter "(uidvalidity modseq [known [(numbers uids)]])". */
struct icell_qresync {
    bool given;
    uint32_t validity;
    uint64_t modseq;
    bool known_given;
    struct icell_seqset known;
};
int icell_qresync_parse(struct icell *ic, struct cursor *c, struct icell_qresync *q_r);
/* "* VANISHED (EARLIER) ..." of what went after since, of the known UIDs (NULL: all). */
void icell_put_vanished(struct icell *ic, const struct icell_seqset *known, uint64_t since);
/* All that SELECT tells. */
void icell_put_resync(struct icell *ic, const struct icell_qresync *q);
