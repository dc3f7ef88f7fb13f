/*
 * digest: what SORT and THREAD need of a message, in one small record that is kept (mailcache).
 *
 * Identifiers and subjects are told by 64-bit hashes. Their key is chance, made for a folder by the
 * session that first needs one and kept in every record, so that nobody who sends mail can make two
 * that collide. A record with another key than the first one seen is made anew.
 */
#pragma once
#include "imapd/cell/icell.h"
#include "imapd/cell/thread.h"

enum { ICELL_DIGEST_TEXT_MAX = 256 };

struct icell_digest {
    int64_t date_s; /* sent: the Date field, else the internal date (RFC 5256 2.2) */
    uint64_t id, subject;
    bool reply;
    uint32_t nrefs;
    uint64_t refs[ICELL_REFS_MAX];
    struct str text; /* of the folded base subject, valid until the cache is asked again */
};
/* A message that cannot be read has nothing in it but a date. */
void icell_digest(struct icell *ic, size_t i, struct icell_digest *d_r);
