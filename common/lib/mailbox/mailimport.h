/*
 * mailimport: messages from elsewhere into a folder, with their dates, flags, keywords and, where
 * the folder is new, UIDVALIDITY and UIDs, so that clients need not download again.
 *
 * Used by `bulkhead mailbox import`, as the account's user, confined to the source and the Maildir.
 * Bytes are copied as they are. A message has a base: that of its file's name, or one made from
 * what it is (mbox). One whose base is in the folder already is passed over, so what was
 * interrupted may be repeated. Messages are written a batch at a time to tmp/, synced at once (the
 * caller's sync), then renamed to their places; the last thing done to a folder is to forget its
 * index, so that the names speak.
 *
 * A UIDVALIDITY is taken over only by a folder that has none yet. Else, and for what has no UID,
 * the messages get the next ones.
 */
#pragma once
#include "lib/mailbox/mailbox.h"
#include "lib/mailbox/mailforeign.h"

enum { MAILIMPORT_BATCH = 500 };

struct mailimport_item {
    char tmp[200], base[160];
    uint32_t uid, keywords;
    uint64_t size, vsize;
    uint8_t flags;
    bool fresh;        /* into new/ */
    struct buf fields; /* of the old name: kept */
};

struct mailimport {
    struct mailbox to; /* a target */
    bool keep_uids;
    bool locked;
    struct mailadopt bases; /* of what is there, and comes */
    struct mailimport_item *items;
    size_t n;
    uint64_t added, already, bytes;
    int (*sync)(void *arg); /* all that was written is on disk: 0 or -1 */
    /* Called with the messages that are done; of an mbox, with the bytes that are read. */
    void (*progress)(void *arg, uint64_t done);
    bool by_bytes;
    void *arg;
};

struct mailimport_from { /* a message */
    struct str base;     /* of its name */
    struct str fields;   /* ",S=1,W=2", other programs' too */
    uint32_t uid;        /* 0: none */
    uint8_t flags;
    uint32_t keywords; /* bits of the target's table */
    bool fresh;
    int64_t date_s;
};

/* Begin with a folder, made when it is not there. validity and next are the source's (0: none).
 * expected: how many may come at most. */
int mailimport_begin(struct mailimport *im, int root_fd, struct str folder, uint32_t validity,
                     uint32_t next, size_t expected, struct err *e);
/* Whether a message of this base is there already (and count it, then). */
bool mailimport_has(struct mailimport *im, struct str base);
/* One message: start, bytes, end. */
int mailimport_open(struct mailimport *im, struct mailbox_writer *w, struct err *e);
int mailimport_put(struct mailimport *im, struct mailbox_writer *w,
                   const struct mailimport_from *from, struct err *e);
/* The letter's bit of a keyword in the target; 0: no room. */
uint32_t mailimport_keyword(struct mailimport *im, struct str name);
/* All in their places, synced. Call it in any case; failed: what is not placed is removed. */
int mailimport_end(struct mailimport *im, bool failed, struct err *e);

/* All folders of the Maildir at from_fd, and its subscriptions. */
int mailimport_maildir(struct mailimport *im, int from_fd, int root_fd, struct err *e);
/* How many messages a Maildir has in all its folders. */
uint64_t mailimport_count(int from_fd);
/* The messages of an mbox file into one folder. */
int mailimport_mbox(struct mailimport *im, int fd, bool mboxo, int root_fd, struct str folder,
                    struct err *e);
