/*
 * mailindex: what a folder's listing said, kept in the file bulkhead.index, so that it need not be
 * listed again.
 *
 * Used by mailbox only. The file is disposable: the names of the messages say the same, and whoever
 * finds it missing, damaged or of another version makes it anew. It is the account's own file, so
 * its bytes are not trusted: every length is checked, every block has a checksum, and a name that
 * comes out of it is used only if it says the UID and UIDVALIDITY of its record.
 *
 * The file is a snapshot and a log behind it:
 *
 *     header | records, 64 bytes each, by UID | UIDs that have gone | names | batch | batch ...
 *
 * A record is struct mailbox_message as it lies in memory: one read makes a session's view. A name
 * is stored without its flags, which the record has. Changes are appended, under the folder's lock,
 * as batches: each is valid whole or not at all, and says at last which state of the directories it
 * describes, and how many messages there are then. That state has a check of its own and lies at
 * the end of the file, so that who wants no more (SELECT) reads the head and the end only
 * (mailindex_peek()). Readers take no lock: they read to the last batch that is valid. The file
 * never shrinks in place; a new snapshot is written beside and renamed over it, and those who have
 * the old one open go on with it until they look (mailindex_follow()). Nothing here is synced:
 * after a power cut the index is old, or fails its checksums; how mod-sequences survive that:
 * uidfile.h.
 *
 * Limits: MAILINDEX_LOG_MAX bytes of log, then nothing is appended until somebody who has the whole
 * view writes a snapshot, which he does when the log is an eighth as long as the records;
 * MAILINDEX_GONE_MAX ranges of UIDs that have gone are remembered (RFC 7162 3.2.5.1 and 5: when
 * they do not reach back far enough the answer names every UID that is not there).
 */
#pragma once
#include "lib/base/buf.h"
#include "lib/base/err.h"

enum {
    MAILINDEX_VERSION = 3,
    MAILINDEX_LOG_MAX = 64 << 20,
    MAILINDEX_GONE_MAX = 8192,
    MAILINDEX_WINDOW = 16384,
};

struct mailbox_message;

struct mailindex_time { /* a directory's mtime; all 0: not known */
    int64_t s, ns;
};

struct mailindex_counts {
    uint32_t messages, unseen, deleted;
    uint32_t in_new;       /* files in new/ */
    uint32_t first_unseen; /* its number, from 1; 0: none */
    uint32_t owed;         /* names that do not say their UID, or not their flags, yet */
};

struct mailindex_state {
    uint64_t modseq;                 /* the highest given */
    struct mailindex_time new_, cur; /* of the directories, as described here */
    uint32_t next_uid;               /* all below are accounted for */
    uint32_t validity;
    uint64_t cache_id; /* the bulkhead.cache that the records point into */
    uint64_t cached;   /* items put into it, dead ones too */
    struct mailindex_counts counts;
};

struct mailindex_gone {
    uint32_t from, to; /* UIDs */
    uint64_t modseq;
};

struct mailindex_rows {
    struct mailbox_message *at;
    size_t n, cap;
    size_t hint; /* where the last one was found: the next is often behind it */
    bool news;   /* rows were appended, changed or marked gone since somebody cleared this */
};

struct mailindex {
    int fd;           /* -1: there is none that can be used; names are in heap */
    uint64_t id;      /* of this snapshot */
    uint64_t ino;     /* of the file */
    uint64_t log_at;  /* where the log begins */
    uint64_t read_to; /* how far it has been applied */
    bool torn;        /* what lies there is no batch, and nobody is writing one */
    struct mailindex_state state;
    struct mailindex_state saved; /* as the file has it */
    struct mailindex_gone *gone;  /* by modseq, ascending */
    size_t ngone;
    uint64_t gone_floor;           /* of what went at or below it not all is in gone */
    struct buf heap;               /* names, while fd is -1 */
    struct buf batch;              /* entries to be appended */
    struct mailindex_counts added; /* of messages in the batch that are no rows yet */
    bool recount;                  /* rows differ in what counts tell */
    struct buf window;             /* a piece of the file, for names */
    uint64_t window_at;
};

void mailindex_init(struct mailindex *ix);
void mailindex_free(struct mailindex *ix);

/* Read the folder's index; rows may be NULL (only the state is wanted). 0, or -1: there is none
 * that can be used, or it is of another UIDVALIDITY (0: any). Frees what ix and rows held. */
int mailindex_load(struct mailindex *ix, int dir_fd, uint32_t validity,
                   struct mailindex_rows *rows);
/* The state only, from the head and the last batch, whatever lies between: cheap however many
 * messages there are. Records are then not known, and may be had by mailindex_load_rows(). -1: none
 * that can be used. */
int mailindex_peek(struct mailindex *ix, int dir_fd, uint32_t validity);
/* After a peek: the records as they were then. -1: damaged; ix is then free of everything. */
int mailindex_load_rows(struct mailindex *ix, struct mailindex_rows *rows);
/* Count the rows that are not gone. */
struct mailindex_counts mailindex_count(const struct mailindex_rows *rows);
/* Whether there is more to know than what was read. */
enum mailindex_news { MAILINDEX_SAME, MAILINDEX_GREW, MAILINDEX_REPLACED };
enum mailindex_news mailindex_look(const struct mailindex *ix, int dir_fd);
/* Apply what was appended. Rows that differ are marked changed, or gone. locked: who finds no valid
 * batch then knows that the tail is torn. -1: out of memory, or it cannot be read. */
int mailindex_follow(struct mailindex *ix, struct mailindex_rows *rows, bool locked);

/* ---- changes, under the folder's lock: gathered, then committed in one batch ---- */

/* Where the name will lie is set in m, and is right until the batch is thrown away. */
void mailindex_put_record(struct mailindex *ix, struct mailbox_message *m, struct str name);
/* A message that becomes a row when the batch is applied. */
void mailindex_put_added(struct mailindex *ix, struct mailbox_message *m, struct str name);
void mailindex_put_flags(struct mailindex *ix, const struct mailbox_message *m);
void mailindex_put_facts(struct mailindex *ix, const struct mailbox_message *m);
void mailindex_put_cache(struct mailindex *ix, const struct mailbox_message *m);
void mailindex_put_gone(struct mailindex *ix, uint32_t uid, uint64_t modseq);
/* Append them and the state. -1: not done, and nothing is half done; the index is then behind. */
int mailindex_commit(struct mailindex *ix, struct mailindex_rows *rows);
/* Forget what was gathered. */
void mailindex_drop_batch(struct mailindex *ix);
/* A new snapshot of the rows that are not gone. bump: they all get the state's modseq. -1: not
 * done; the old file, if there was one, is then left and not used any more. */
int mailindex_write(struct mailindex *ix, int dir_fd, struct mailindex_rows *rows, bool bump);
/* Whether the log is so long that a snapshot is due; busy: somebody waits. */
bool mailindex_is_long(const struct mailindex *ix, size_t rows, bool busy);

/* ---- names ---- */

/* What of a file's name is stored for this record; sets m->odd when it has to be the whole. */
struct str mailindex_stem(struct mailbox_message *m, struct str name);
/* Give the record a name, in memory (while fd is -1). */
int mailindex_set_name(struct mailindex *ix, struct mailbox_message *m, struct str name);
/* The file's name. -1: it cannot be read, or is not this record's. */
int mailindex_name(struct mailindex *ix, const struct mailbox_message *m, struct buf *name);
/* The base of it, valid until the index is asked again. */
int mailindex_base(struct mailindex *ix, const struct mailbox_message *m, struct str *base_r);

/* What is stored of it; raw: whatever it is, if it is as long as it should be. */
int mailindex_raw(struct mailindex *ix, const struct mailbox_message *m, struct buf *stem);
/* The row of a UID, or the place before which it would be. */
size_t mailindex_find(const struct mailindex_rows *rows, uint32_t uid);
int mailindex_reserve(struct mailindex_rows *rows, size_t n);
/* Tells damage, not forgery. n bytes. */
uint64_t mailindex_check(uint64_t seed, const void *p, size_t n);
/* Remember that UIDs have gone. */
void mailindex_add_gone(struct mailindex *ix, uint32_t uid, uint64_t modseq);
