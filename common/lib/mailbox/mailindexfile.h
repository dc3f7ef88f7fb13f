/*
 * mailindexfile: how the bytes of bulkhead.index lie. For mailindex and its tests.
 *
 * Numbers are the machine's own: an index that comes from another kind of machine fails its
 * checksum, and is made anew.
 */
#pragma once
#include "lib/mailbox/mailindex.h"

#define MAILINDEX_MAGIC "BHINDEX\n"
enum { MAILINDEX_BATCH = 0x48424254 };
/* So many records have a check together, which goes on from that of those before. */
enum { MAILINDEX_PIECE = 1024, MAILINDEX_ROWS_SEED = 2 };

struct mailindex_head {
    char magic[8];
    uint32_t version, record_size;
    uint64_t id; /* chance; goes into the checks of the log, so that no old bytes can fit */
    uint64_t n, ngone, names_n;
    uint64_t gone_floor;
    struct mailindex_state state;
    uint64_t rows_check, gone_check;
    uint64_t check; /* of all above */
};

struct mailindex_batch { /* entries follow */
    uint32_t magic;
    uint32_t n; /* bytes of them */
    uint64_t check;
};

enum mailindex_type {
    MAILINDEX_RECORD = 1, /* struct mailbox_message, then the name; new, or with another name */
    MAILINDEX_FLAGS,
    MAILINDEX_FACTS,
    MAILINDEX_CACHE, /* uint64_t */
    MAILINDEX_GONE,  /* uint64_t modseq */
    MAILINDEX_STATE, /* struct mailindex_tail: the last entry of each batch */
};

struct mailindex_entry {
    uint16_t type;
    uint16_t zero;
    uint32_t n; /* with this head; a multiple of 8 */
    uint32_t uid;
    uint32_t zero2;
};
struct mailindex_tail {
    struct mailindex_state state;
    uint64_t batch_n; /* bytes of all entries, this one too */
    uint64_t check;   /* of both, with the snapshot's id and the place */
};
struct mailindex_flags {
    uint32_t flags, keywords;
    uint64_t modseq;
    uint32_t owed, named;
};
struct mailindex_facts {
    uint64_t size, vsize;
    int64_t date_s;
};

/* The check of all records, piece by piece. */
uint64_t mailindex_rows_check(const struct mailbox_message *at, size_t n);
/* The check of a batch's last entry; end: the place behind it. */
uint64_t mailindex_tail_check(uint64_t id, uint64_t end, const struct mailindex_tail *t);
/* One more message. */
void mailindex_count_one(struct mailindex_counts *c, const struct mailbox_message *m);

/* The least size of an entry with its head; larger than any when the type is unknown. */
size_t mailindex_entry_size(unsigned type);
