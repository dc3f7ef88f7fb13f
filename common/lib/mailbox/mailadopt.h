/*
 * mailadopt: the file bulkhead-adopt: UIDs of messages whose names do not say them yet.
 *
 * Used by mailbox, under the folder's lock. A folder that another program has filled is taken in
 * when it is first opened. To rename all its files takes the kernel longer than all the rest, and a
 * client waits. So the UIDs are written into this list, synced, and the files are renamed
 * afterwards, a batch at a time when nobody waits (mailbox_settle()); a change of flags does it,
 * too. When the last one has its name, and the directory is synced, the list is removed.
 *
 * A line is found by the base of the file's name, which no program changes. The list comes first
 * and names after it: a kill or a power cut at any call leaves each file with its name, or with its
 * line. Lost or damaged (it has a checksum) it counts as none: the files that it still named get
 * new UIDs. Limits: MAILBOX_MESSAGES_MAX lines.
 */
#pragma once
#include "lib/base/buf.h"
#include "lib/base/err.h"

struct mailadopt {
    uint32_t validity; /* 0: there is no list */
    size_t n;
    struct buf text; /* the file's: a head; then uint32_t uid, uint8_t length, base: n times */
    struct mailadopt_slot {
        uint32_t at;  /* of the line in text; 0: free */
        uint32_t tag; /* of the hash, so that few lines are looked at in vain */
    } * table;
    size_t slots; /* a power of two; 0: no table, and nothing can be found */
};

/* Read the list of the folder; an unusable one is none. -1: it cannot be read now. */
int mailadopt_load(struct mailadopt *a, int dir_fd, struct err *e);
void mailadopt_free(struct mailadopt *a);
/* The UID of the message with this base, or 0. */
uint32_t mailadopt_find(const struct mailadopt *a, struct str base);

/* Make one: room for n lines; -1: out of memory. Then the lines: -1: this base is there already, or
 * it cannot be kept. Without a table the caller sees to it that no base comes twice. */
int mailadopt_begin(struct mailadopt *a, uint32_t validity, size_t n, bool table);
int mailadopt_add(struct mailadopt *a, struct str base, uint32_t uid);
/* Durably in the place of the old one. */
int mailadopt_write(struct mailadopt *a, int dir_fd, struct err *e);
/* All have their names: sync these, and remove the list. */
void mailadopt_end(int dir_fd, int cur_fd);
