/*
 * mbox: what the formats of mbox files have in common, for import and export.
 *
 * A message begins with a line "From SENDER DATE" behind an empty line or at the start. Lines of a
 * message that begin with "From " have a '>' put before them (mboxo), or all that begin with ">From
 * " too (mboxrd, which alone can be undone). Flags, keywords and UIDs are in the fields Status,
 * X-Status, X-Keywords, X-UID and, in the first message, X-IMAP or X-IMAPbase, as Dovecot, UW IMAP
 * and mutt write them; they are no part of the message. What we export begins with X-Bulkhead,
 * which says how many such lines follow, and whether the message ended without a newline: then
 * nothing else is taken away, and what comes back is what it was.
 *
 * Limits: MBOX_HEADER_MAX bytes of header are looked through for these fields.
 */
#pragma once
#include "lib/base/buf.h"

enum { MBOX_HEADER_MAX = 262144, MBOX_FROM_MAX = 1000 };

struct mbox_meta {
    uint32_t validity, next; /* 0: not said */
    uint32_t uid;
    uint8_t flags;
    bool old;            /* somebody has been told of it */
    bool no_newline;     /* it ended without one */
    struct str keywords; /* words, apart by spaces */
};

/* Whether a line without its end begins a message, and the time it tells. */
bool mbox_from_line(struct str line, int64_t *date_s_r);
/* One field of a header line; false: none of those above. */
bool mbox_meta_line(struct str line, struct mbox_meta *m);
/* The lines before an exported message. */
void mbox_put_meta(struct buf *out, const struct mbox_meta *m, int64_t date_s);
