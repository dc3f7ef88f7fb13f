/*
 * uidfile: who gets which UID: the file bulkhead-uid of a folder, and the locks of bulkhead-lock.
 *
 * Used by mailbox, in the cells. The file is one line of fixed length with a checksum: UIDVALIDITY,
 * the next UID, a mark, and the same kind of mark for mod-sequences. What must hold (RFC
 * 3501 2.3.1.1): a UID is never given twice, UIDs ascend in the order they are given, and when that
 * cannot be kept UIDVALIDITY grows.
 *
 * Why it holds across crashes. The mark is always on disk, synced, before a UID below it is given,
 * and it runs ahead by a block, so giving UIDs seldom costs a sync. "next" is written without a
 * sync: it is right as long as the kernel that wrote it lives, since all processes see one page
 * cache. Whether that is so, byte 1 of the lock file tells: everyone who gives UIDs holds it shared
 * while he has the folder open. Who can take it exclusively is alone; then "next" may be from
 * before a power cut, or be short of what a killed process gave, and he goes on at the mark, which
 * skips at most a block. An orderly close by the last holder lowers the mark to next (synced), so
 * that nothing is skipped without need: at that time all given UIDs are below next and no one else
 * can give any. A torn or damaged line fails its checksum and counts as no file. Without the file
 * the names speak: the UIDVALIDITY that most of them carry is kept, and the next UID is the highest
 * of them plus UIDFILE_JUMP, beyond any UID that was given and whose message has been removed
 * since. With no name left there is nothing to keep: UIDVALIDITY is new, and greater than any of
 * this account, by the file bulkhead-uidvalidity in the Maildir's root and by the wall clock.
 *
 * Mod-sequences (RFC 7162) must not go back either. They are counted in the index, which is not
 * synced; modseq_mark is synced before a number above it is given, UIDFILE_MODSEQ_BLOCK ahead.
 * While the system runs the page cache keeps the index whole, whoever is killed. So it is enough to
 * know whether the system was started anew since (boot_s): then counting goes on at the mark, and
 * so it does when the index is lost.
 *
 * Locks are OFD locks (they die with their holder): byte 0, exclusive: to list or change names;
 * byte 1: above; byte 2, exclusive: a session that must be alone (POP3).
 */
#pragma once
#include "lib/base/err.h"

enum {
    UIDFILE_BLOCK = 64,
    UIDFILE_JUMP = 1 << 20,
    UIDFILE_LOCK_MS = 20000,
    UIDFILE_MODSEQ_BLOCK = 1 << 16,
};

struct uidfile {
    uint32_t validity; /* 0: no file yet */
    uint32_t next, mark;
    uint64_t modseq_mark; /* no mod-sequence above it has been given */
    uint64_t boot_s;      /* when the system was started that gave the last ones */
    bool holding;         /* we hold byte 1 shared */
    bool fresh;           /* just made: no mod-sequence of the marked block has been given */
};

/* The names' evidence, for when the file is lost. */
struct uid_evidence {
    uint32_t validity; /* that most names carry, 0: none */
    uint32_t highest;  /* UID with that validity */
};

/* Take the lock (byte 0), waiting at most UIDFILE_LOCK_MS; ERR_TEMPORARY then. And let go. */
int uidfile_lock(int lock_fd, struct err *e);
void uidfile_unlock(int lock_fd);
/* Of the root's file; let go by closing. Byte 4: the quota is looked at, alone. Byte 5: files come
 * and go that it knows of or is to know of, shared; or all are counted, alone: who has byte 4 may
 * wait for it, and not the other way round. */
int uidfile_lock_quota(int lock_fd, struct err *e);
int uidfile_lock_room(int lock_fd, bool alone, struct err *e);
void uidfile_unlock_quota(int lock_fd);
/* Byte 2, without waiting. 0, or -1 with ERR_LIMIT when somebody has it. */
int uidfile_claim(int lock_fd, struct err *e);

/* Under the lock: read the file again. 0 with u->validity 0: there is none that can be used. */
int uidfile_read(struct uidfile *u, int dir_fd, struct err *e);
/* Under the lock, after uidfile_read() found none: make one, from the evidence, with marks that let
 * n UIDs be given without another sync. */
int uidfile_make(struct uidfile *u, int dir_fd, int root_fd, int lock_fd,
                 const struct uid_evidence *seen, size_t n, struct err *e);
/* The same with a UIDVALIDITY that another server gave, and the next UID there. */
int uidfile_import(struct uidfile *u, int dir_fd, int root_fd, uint32_t validity, uint32_t next,
                   struct err *e);
/* Under the lock: give n UIDs, *first_r and following; all above highest (the highest in use).
 * ERR_LIMIT: the numbers are used up. */
int uidfile_give(struct uidfile *u, int dir_fd, int lock_fd, uint32_t highest, uint32_t n,
                 uint32_t *first_r, struct err *e);
/* Under the lock: the next change gets *base_r + 1. highest is that of the index, 0 when there is
 * none. *lost_r: what the index says since its last sync may have been lost. */
int uidfile_modseq(struct uidfile *u, int dir_fd, uint64_t highest, uint64_t *base_r, bool *lost_r,
                   struct err *e);
/* Lower the mark if we are the last, and close. */
void uidfile_close(struct uidfile *u, int lock_fd, int dir_fd);
/* A UIDVALIDITY greater than any given in this account; takes its own lock in the root. */
int uidfile_new_validity(int root_fd, uint32_t above, uint32_t *validity_r, struct err *e);
