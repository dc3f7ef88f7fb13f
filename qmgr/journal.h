/*
 * journal: what happened to a message, beside it, append-only.
 *
 * A record: {u32 length, u32 type, u64 check, bytes}: SipHash with a fixed key over type and bytes.
 * Reading stops at the first record that is cut or damaged: a crash leaves at most a cut tail, and
 * what is not on record is tried again.
 */
#pragma once
#include "qmgr/qmgr.h"

enum {
    JOURNAL_DOWN_MAX_S = 86400,    /* of the time that nobody watched, so much counts as age */
    JOURNAL_REASONS_MAX = 4 << 20, /* in a longer journal reasons are not recorded any more */
};

enum journal_type {
    J_RCPT = 1, /* u32 index, u32 state (DONE or BOUNCED): final, and nothing is owed */
    /* 2 was J_EXPANDED without notify. */
    J_DEFERRED = 3, /* u32 index, text: why, for people; not synced */
    J_ATTEMPT,      /* u32 attempts so far, u32 age in seconds, i64 wall clock then; not synced */
    J_WARNED,       /* the sender was told of the delay */
    J_EXPANDED,     /* u32 index, u32 notify (of those added), then addresses, each u32 length and
                       bytes: added, and index is done */
    J_OWED, /* u32 index, u32 report, 12 bytes of status, text: done, its sender is to be told; a
               J_RCPT says when that is done */
};

/* Append. sync: durable when it returns 0. */
int journal_append(struct message *m, const struct buf *records, bool sync, struct err *e);
void journal_put_rcpt(struct buf *out, uint32_t index, enum rcpt_state state);
void journal_put_owed(struct buf *out, const struct rcpt *r);
void journal_put_expanded(struct buf *out, uint32_t index, uint32_t notify,
                          struct rcpt *const *added, size_t n);
void journal_put_deferred(struct buf *out, uint32_t index, struct str text);
void journal_put_attempt(struct buf *out, uint32_t attempts, int64_t age_s);
void journal_put_warned(struct buf *out);
/* Apply what is on record to a message just read from its file. */
int journal_replay(struct message *m, struct err *e);
