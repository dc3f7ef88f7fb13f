/*
 * mailscan: what lies in new/ and cur/ at one moment, and the giving of UIDs to what has none.
 *
 * Used by mailbox, under the folder's lock. Links, directories, FIFOs and names that are no
 * message's are passed over. new/ is read before cur/: a file that moves between them meanwhile is
 * seen twice, not never.
 */
#pragma once
#include "lib/mailbox/mailbox.h"

struct mailscan_entry {
    uint32_t name_at; /* in names, with a NUL behind it */
    uint32_t time_s;
    uint64_t size, vsize;
    uint32_t uid, validity; /* uid 0: none, or not of this folder */
    uint32_t keywords;
    uint8_t flags;
    uint8_t base_n; /* how far in the name its base goes */
    bool in_new : 1;
    bool recent : 1; /* was in new/ when we came */
    bool lost : 1;   /* a foreign program took it meanwhile */
    bool bare : 1;   /* its UID is not in its name, but in the list of mailadopt */
};

/* So many without a UID in cur/ are not renamed at once: mailadopt.h. */
enum { MAILSCAN_ADOPT_MIN = 200 };

struct mailscan {
    struct mailscan_entry *at;
    size_t n, cap;
    struct buf names;
    bool vanished; /* a file was not there any more under the name that was just read */
};

/* whole: cur/ too, not new/ only. */
int mailscan_read(struct mailscan *s, const struct mailbox *mb, bool whole, struct err *e);
void mailscan_free(struct mailscan *s);
const char *mailscan_name(const struct mailscan *s, const struct mailscan_entry *x);
/* The UIDVALIDITY that most names carry and the highest UID under it. */
int mailscan_evidence(const struct mailscan *s, struct uid_evidence *seen_r, struct err *e);
/* Give UIDs to all that have none of mb->uids.validity (or one that the index knows as gone),
 * rename, move from new/ to cur/ unless mb->read_only; then sort by UID. What a foreign program
 * takes away meanwhile is dropped. ERR_LIMIT: UIDs are used up. */
int mailscan_settle(struct mailscan *s, struct mailbox *mb, struct err *e);
/* Take the UIDs that the list tells. -1: it cannot be read. */
int mailscan_take_adopted(struct mailscan *s, const struct mailbox *mb, struct err *e);
/* Rename without replacing; -1 with errno. */
int mailscan_rename(int from_fd, const char *from, int to_fd, const char *to);
