/*
 * mailbox: one Maildir folder: delivered to, opened, watched, changed. The files are the truth.
 *
 * Used by the cells of local, imapd and pop3d: processes of the account's own user ID, confined to
 * the account's Maildir. What lies in the Maildir is the account's own, and may be hostile
 * (catalogue K): everything is opened relative to a directory descriptor without following links,
 * only regular files are read, and names that do not parse are skipped. Foreign programs may work
 * on the same Maildir at any time.
 *
 * A message's name carries all we know of it:
 *
 *     1764000000.M1R2.host,S=1234,W=1260,U=17.1764000000:2,FSab
 *
 * S is its size, W its size with CRLF at each line's end (RFC822.SIZE), U its UID with the
 * UIDVALIDITY the UID belongs to; behind ":2," the flags. Fields and flags of others are kept as
 * they are. A file without our U= (or with another folder's) is given the next UID when it is first
 * seen, under the folder's lock: by rename, or if there are many by a list first (mailadopt.h). How
 * UIDs survive crashes: uidfile.h.
 *
 * A struct mailbox is one session's view. Nothing in it moves while the session does not ask:
 * mailbox_refresh() appends what is new, marks what is gone and what changed; the session takes
 * these up when its protocol allows (mailbox_drop_gone() renumbers).
 *
 * Our own processes rename and list only under the lock, so a listing cannot miss a file of ours
 * that is just being renamed; what seems gone is looked for twice because of the programs of
 * others. The listing is kept in an index (mailindex.h): a folder that has not changed since is
 * neither listed nor locked, and one with new mail in new/ only is listed there only.
 *
 * Limits: MAILBOX_MESSAGES_MAX messages a folder; those beyond, in order of UID, are not shown.
 */
#pragma once
#include "lib/base/buf.h"
#include "lib/base/err.h"
#include "lib/mailbox/keywords.h"
#include "lib/mailbox/mailcache.h"
#include "lib/mailbox/mailguard.h"
#include "lib/mailbox/mailindex.h"
#include "lib/mailbox/quota.h"
#include "lib/mailbox/uidfile.h"
#include <time.h>

/* ---- delivery ---- */

struct mailbox_delivery {
    struct str base; /* the file's unique name, the same at each try: mailbox_base_ok() */
    struct str head; /* lines put before the message, each with CRLF */
    int fd;          /* the message: size bytes at offset, read with pread() */
    uint64_t offset, size;
    uint64_t check; /* of the message: qfile.h */
    bool again;     /* it may have been delivered before: look first */
};

/* Whether text may be the base of a name: 1 to 150 of letters, digits and "._=+-", a digit first.
 */
bool mailbox_base_ok(struct str base);
/* Deliver into the Maildir at root_fd (made when it is not there), as it is, not converted. On 0
 * the message is durably in new/, or was there already (*already_r); *file_r, if not NULL, is its
 * name. ERR_TEMPORARY: disk full, quota, anything else that may pass. ERR_PERMANENT: a base that is
 * none. ERR_DAMAGED: the message does not fit its check. */
int mailbox_deliver(int root_fd, const struct mailbox_delivery *d, struct buf *file_r,
                    bool *already_r, struct err *e);

struct mailbox_writer {
    int tmp_fd; /* the directory tmp/, borrowed */
    int fd;
    uint64_t size, vsize;
    bool cr; /* the last byte was CR */
    char tmp_name[200];
};

/* The same for several, which wait for the disk together: begin with mailbox_inbox(), put each,
 * place each that could be put, settle, close. */
struct mailbox_inbox {
    int root_fd, tmp_fd, new_fd; /* the latter open from the first that is put */
    bool already;                /* some were there before */
};
enum { MAILBOX_FILE_MAX = 255 };
struct mailbox_put {
    struct mailbox_writer w;
    struct quota_room room;
    struct buf file; /* its name in new/ */
    bool already;    /* it was there before */
    char name[MAILBOX_FILE_MAX + 1];
};
struct mailbox_inbox mailbox_inbox(int root_fd);
/* Written in tmp/, but not known to be on disk. In a mailbox with a limit it is placed, too. */
int mailbox_put(struct mailbox_inbox *in, const struct mailbox_delivery *d, struct mailbox_put *p,
                struct err *e);
/* Synced, then in its place: its name is durable when mailbox_settle_inbox() says so. */
int mailbox_place(struct mailbox_inbox *in, struct mailbox_put *p, struct err *e);
/* -1: none of them can be called durable: mailbox_take_back() all that were placed. */
int mailbox_settle_inbox(struct mailbox_inbox *in, struct err *e);
/* But what was there before. */
void mailbox_take_back(struct mailbox_inbox *in, struct mailbox_put *p);
void mailbox_inbox_close(struct mailbox_inbox *in);

/* ---- a session's view ---- */

enum mailbox_flag {
    MAILBOX_ANSWERED = 1, /* R */
    MAILBOX_FLAGGED = 2,  /* F */
    MAILBOX_DELETED = 4,  /* T */
    MAILBOX_SEEN = 8,     /* S */
    MAILBOX_DRAFT = 16,   /* D */
};
enum { MAILBOX_MESSAGES_MAX = 1000000 };
#define MAILBOX_SIZE_UNKNOWN UINT64_MAX

/* A message: 64 bytes, as they lie in the index (mailindex.h). Its file's name is mailbox_name().
 */
struct mailbox_message {
    uint32_t uid;
    uint32_t keywords; /* bit k: the keyword of letter 'a' + k */
    uint32_t name_at;  /* where its name is kept */
    uint8_t name_n;
    uint8_t flags;
    bool in_new : 1; /* its file is in new/, else in cur/ */
    bool odd : 1;    /* the whole name is kept, since the flags do not make it */
    bool bare : 1;   /* its name does not say its UID yet: mailadopt.h */
    bool owed : 1;   /* its name does not say its flags yet, but what named says */
    /* Of a session only; 0 in the index. */
    bool recent : 1;  /* this session is the first to be told of it (RFC 3501 2.3.2) */
    bool gone : 1;    /* not on disk any more; kept until mailbox_drop_gone() */
    bool changed : 1; /* flags differ from what the session last cleared */
    bool missed : 1;  /* the last listing did not have it */
    uint8_t zero;
    uint64_t size;     /* bytes on disk, or MAILBOX_SIZE_UNKNOWN: ask mailbox_vsize() */
    uint64_t vsize;    /* with CRLF */
    int64_t date_s;    /* internal date; 0: not yet known, ask mailbox_date() */
    uint64_t modseq;   /* of its last change (RFC 7162) */
    uint64_t cache_at; /* what is cached of it; 0: nothing */
    uint32_t saved_s;  /* when it came into this folder (RFC 8514) */
    uint32_t named;    /* while owed: flags << 26 | keywords, as in the file's name */
};
_Static_assert(sizeof(struct mailbox_message) == 64, "a record of the index has no gaps");

struct mailbox {
    int root_fd; /* borrowed */
    int dir_fd, new_fd, cur_fd, tmp_fd, lock_fd;
    bool read_only;    /* EXAMINE and STATUS: nothing is moved from new/, no flag changes */
    bool target;       /* not listed: only put into */
    bool lazy;         /* nothing but counts is known: mailbox_load() */
    uint32_t validity; /* UIDVALIDITY of this session, which must not change under it */
    struct uidfile uids;
    struct keywords keywords;
    union {
        struct mailindex_rows rows;
        struct {
            struct mailbox_message *msgs; /* by UID, ascending */
            size_t n, cap, hint;
            bool news; /* something is to be told: cleared by who has told it */
        };
    };
    uint32_t seen_next; /* UIDs below it that are not in view stay out of it */
    struct mailindex ix;
    bool indexed;            /* ix.state tells of a listing, and which UIDs were accounted for */
    bool told;               /* the session knows a UIDVALIDITY: it may not change any more */
    bool suspect;            /* a file was not where the index says: list whatever the times say */
    struct quota_room freed; /* to be given back to the quota */
    bool tail_lost;          /* the index's log was torn */
    bool broken; /* the index's file does not know what this session has done: never to be read
                    again */
    struct mailcache cache;
    struct mailguard guard;
    size_t owed_from;    /* no row before it is bare or owed */
    unsigned direct;     /* renames since mailbox_settle() */
    bool settling;       /* nobody waits */
    bool owes;           /* this session left renames for later */
    unsigned changing;   /* depth of mailview_begin() */
    uint64_t now_modseq; /* of the changes under way, 0: none asked for yet */
    bool bump;           /* mod-sequences may have been lost: all messages get a new one */
    char path[264];      /* below the Maildir, for inotify: "." or ".Folder" */
};

/* Open the folder (an IMAP name that folder_check() accepts) of the Maildir at root_fd, and list
 * it. INBOX is made when it is not there. ERR_PERMANENT: no such folder. The mailbox need not be
 * initialised; after -1 there is nothing to close. */
int mailbox_open(struct mailbox *mb, int root_fd, struct str folder, bool read_only, struct err *e);
/* The same, but where the index still describes the folder no more of it is read than the counts,
 * whatever the number of messages: mailbox_count(), mailbox_uidnext() and mailbox_refresh() work,
 * mb->n is 0. */
int mailbox_peek(struct mailbox *mb, int root_fd, struct str folder, bool read_only, struct err *e);
/* Then: have the messages, just those that were counted. ERR_PERMANENT: the index was damaged, and
 * the folder has changed since: what was told of it cannot be kept up. */
int mailbox_load(struct mailbox *mb, struct err *e);
/* The same to put messages in only (mailbox_copy(), mailbox_write_commit()): it is not listed, so
 * its cost does not grow with the folder, and mb->n stays 0. */
int mailbox_open_target(struct mailbox *mb, int root_fd, struct str folder, struct err *e);
void mailbox_close(struct mailbox *mb);
/* Look at the disk when it may have changed: new messages are appended, missing ones marked gone,
 * flags updated and marked changed. */
int mailbox_refresh(struct mailbox *mb, struct err *e);
/* Remove all messages that are gone from view. */
void mailbox_drop_gone(struct mailbox *mb);
/* Whether the folder's name still means it: it may have been renamed, and another made. */
bool mailbox_is_named(const struct mailbox *mb);
/* An inotify descriptor that becomes readable when the folder changes (the Maildir must be the
 * working directory), or -1: then poll with mailbox_refresh(). And: forget what it has told. */
int mailbox_watch(const struct mailbox *mb);
void mailbox_watch_drain(int watch_fd);

struct mailbox_counts {
    uint32_t messages, recent, unseen, deleted;
    uint32_t first_unseen; /* its number, from 1; 0: none */
};
struct mailbox_counts mailbox_count(const struct mailbox *mb);
/* No message that comes will have a UID below it. */
uint32_t mailbox_uidnext(const struct mailbox *mb);

/* Messages are named by their index (0-based) in mb->msgs from here on: pointers into it do not
 * outlive a call.
 *
 * The name of its file as we know it; it may have been renamed since. -1: not known. */
int mailbox_name(struct mailbox *mb, size_t i, struct buf *name);
/* The base of that name, up to its fields, valid until the next call. -1: not known. */
int mailbox_base(struct mailbox *mb, size_t i, struct str *base_r);
/* The message's file, opened for reading and known to be regular, or -1; marks it gone when it is.
 */
int mailbox_open_message(struct mailbox *mb, size_t i, struct err *e);
/* Size with CRLF: from the name, or once by reading the file; then the name is told, if allowed. */
int mailbox_vsize(struct mailbox *mb, size_t i, uint64_t *vsize_r, struct err *e);
/* What a caller who has read the whole text found it to be. */
void mailbox_tell_vsize(struct mailbox *mb, size_t i, uint64_t vsize);
/* Internal date: the file's mtime, or the time in its name. Never fails: 0 at worst. */
int64_t mailbox_date(struct mailbox *mb, size_t i);

/* Tell the index and the cache what has been found out by reading messages, and give some files the
 * names they are owed (mailadopt.h). At a time when nobody waits. True: call again, there is more
 * to do. */
bool mailbox_settle(struct mailbox *mb);

/* The letter's number of a keyword, which is added when it is new: ERR_LIMIT when the table is
 * full. */
int mailbox_keyword(struct mailbox *mb, struct str name, int *number_r, struct err *e);

/* Around many changes at once: they take the lock once and are one batch of the index. May be left
 * out. Locked for long, others wait: end and begin anew after MAILBOX_BATCH. */
enum { MAILBOX_BATCH = 1000, MAILBOX_DIRECT = 32 };
int mailbox_changes_begin(struct mailbox *mb, struct err *e);
void mailbox_changes_end(struct mailbox *mb);

enum mailbox_store_op { MAILBOX_ADD, MAILBOX_REMOVE, MAILBOX_REPLACE };
/* Change flags and keywords: by rename; those behind the first MAILBOX_DIRECT of many in the index,
 * and the rename follows in mailbox_settle() or mailbox_close(). 0 also when the message is gone
 * (its mark says so). Does not mark as changed what was asked for, only what others had changed
 * meanwhile. */
int mailbox_store(struct mailbox *mb, size_t i, enum mailbox_store_op op, uint8_t flags,
                  uint32_t keywords, struct err *e);
/* Remove the message's file if the disk still says \Deleted, and mark it gone. */
int mailbox_expunge(struct mailbox *mb, size_t i, struct err *e);
/* Remove the message's file whatever its flags (POP3). */
int mailbox_unlink(struct mailbox *mb, size_t i, struct err *e);

/* Copy n messages (indices into from) to another folder, flags and dates kept: all or none. The
 * copies have the UIDs *first_uid_r and following, in order; messages that are gone make it fail.
 * move: mailbox_unlink_moved() follows for each of them, and the account needs no room (quota.h)
 * for those that it has already. */
int mailbox_copy(struct mailbox *from, const size_t *indices, size_t n, bool move,
                 struct mailbox *to, uint32_t *first_uid_r, struct err *e);
int mailbox_unlink_moved(struct mailbox *mb, size_t i, struct err *e);

/* Serialises sessions that must be alone on a folder (POP3). Held until mailbox_close().
 * ERR_LIMIT: somebody else has it. */
int mailbox_claim(struct mailbox *mb, struct err *e);

/* ---- a message being written (APPEND) ---- */

/* Start a file in tmp/; tmp_fd must stay open. */
int mailbox_write_begin(struct mailbox_writer *w, int tmp_fd, struct err *e);
int mailbox_write(struct mailbox_writer *w, struct str data, struct err *e);
/* Forget it; harmless after a commit or a failed begin. */
void mailbox_write_abort(struct mailbox_writer *w);
/* Sync the file and give it a place and a UID in mb. date_s 0: now. */
int mailbox_write_commit(struct mailbox_writer *w, struct mailbox *mb, uint8_t flags,
                         uint32_t keywords, int64_t date_s, uint32_t *uid_r, struct err *e);

/* Several at once: all of them or none, with the UIDs *first_uid_r and following, in order. All
 * writers are closed in any case. */
struct mailbox_writing {
    struct mailbox_writer w;
    uint8_t flags;
    uint32_t keywords;
    int64_t date_s; /* 0: now */
    char name[256]; /* of the file it became */
};
int mailbox_write_commit_all(struct mailbox_writing *at, size_t n, struct mailbox *mb,
                             uint32_t *first_uid_r, struct err *e);
