/*
 * mailcache: texts that were made from messages once and will be asked for again: the file
 * bulkhead.cache.
 *
 * Used by mailbox and the imapd cell. What a kind means is the caller's; a text of a kind must
 * depend on the message's bytes only. The file is disposable and the account's own: lengths are
 * checked, every item has a checksum that also knows its UID and its file, and what does not fit
 * counts as not cached.
 *
 * Items are appended, under the folder's lock, in batches; the index has for each message the place
 * of its newest item, which has the place of the one before. Nothing is changed in place, and the
 * file is not synced. When more than half of the items belong to messages that are gone, or have
 * been taken together, the rest is written anew and renamed over it.
 *
 * Limits: MAILCACHE_MAX bytes a folder, MAILCACHE_ITEM_MAX an item, MAILCACHE_WAIT_MAX waiting in
 * memory to be appended.
 */
#pragma once
#include "lib/base/buf.h"
#include "lib/base/err.h"

enum mailcache_kind {
    MAILCACHE_HEADER = 1, /* fields that clients ask for, as they are, in their order */
    MAILCACHE_ENVELOPE,
    MAILCACHE_BODY,
    MAILCACHE_STRUCTURE,
    MAILCACHE_PREVIEW,
    MAILCACHE_DIGEST,
    MAILCACHE_EMAILID,
};
enum {
    MAILCACHE_MAX = 1 << 30,
    MAILCACHE_ITEM_MAX = 1 << 20,
    MAILCACHE_WAIT_MAX = 1 << 20,
    MAILCACHE_WINDOW = 65536,
    MAILCACHE_WINDOWS = 4, /* as many sequences of items can be followed at once */
};

struct mailbox;

struct mailcache {
    int fd; /* -1: none */
    uint64_t id;
    uint64_t refused;         /* the cache_id that could not be opened: do not try again */
    struct mailcache_window { /* a piece of the file */
        struct buf bytes;
        uint64_t at;
        uint64_t good_at; /* the item there has been checked; 0: none */
    } windows[MAILCACHE_WINDOWS];
    unsigned turn;      /* the window that is replaced next */
    struct buf waiting; /* items to be appended, prev and check not yet set */
};

void mailcache_init(struct mailcache *c);
void mailcache_free(struct mailcache *c);
/* The text of a kind for message i: valid until the next call. -1: not cached. */
int mailcache_get(struct mailbox *mb, size_t i, enum mailcache_kind kind, struct str *text_r);
/* Keep a text; may be forgotten. */
void mailcache_put(struct mailbox *mb, size_t i, enum mailcache_kind kind, struct str text);
/* Write what waits. Called by mailbox_settle(). */
void mailcache_flush(struct mailbox *mb);
