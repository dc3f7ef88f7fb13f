/*
 * qmgr: the queue manager: owns the queue directory, commits, schedules, retries, bounces.
 *
 * One event loop. Trusts nobody's word: what sessions wrote is read back and checked before it is
 * accepted, what local and relay answer must fit what they were asked.
 *
 * On disk (all below the queue directory, 0700, bh-qmgr):
 *   tmp/ID            being written by a session; removed when the session goes, and at start
 *   new/ID.O          accepted, never tried; or, after a power cut, what was not synced yet
 *   cur/XX/ID.O       tried before; mtime is the time of the next attempt
 *   hold/ID.O         held by the operator
 *   journal/XX/ID     outcomes and expansions, made when first needed (journal.h)
 *   corrupt/ID.O      damaged, or not whole; kept for the operator
 *
 * XX are the last two letters of the ID. O is the origin: which role brought the message, a thing
 * no session can forge: s smtpd, u submitd, l local (a forward), b a bounce of our own. What a
 * local user gave to sendmail(1) has the user's number behind that: ID.u.1000. On its way from one
 * directory to another a message has two names (place.c).
 *
 * In memory: a small fixed record (struct entry) for each message; a struct message only while it
 * is being delivered.
 */
#pragma once
#include "lib/conf/conf.h"
#include "lib/ipc/service.h"
#include "lib/queue/qfile.h"
#include "lib/queue/qfilter.h"
#include "qmgr/clock.h"
#include "qmgr/index.h"
#include "qmgr/schedule.h"

enum {
    ID_LEN = 20,
    ACTIVE_MAX = 5000,    /* messages in delivery at once */
    FILES_KEPT = 500,     /* open, of messages that are about to be delivered, */
    FILES_CLIENTS = 2000, /* and only while there are no more channels than that */
    BULK_RCPTS = 50,      /* a message to so many is a mailing */
    EXPANDED_MAX = 5000,  /* recipients of one message, with those that aliases led to */
    REASON_MAX = 400,
    RECORD_AGAIN_MS = 5000, /* a journal that could not be written is tried again */
};

/* The letters of an ID, in their order, so that names sort by time; and what one stands for. */
#define ID_LETTERS "234567abcdefghijklmnopqrstuvwxyz"
static inline unsigned
id_value(char c)
{
    return (unsigned)(c >= 'a' ? c - 'a' + 6 : c - '2');
}

enum place { PLACE_NEW, PLACE_CUR, PLACE_HOLD };
enum entry_state {
    ENTRY_NONE,   /* between two of the others */
    ENTRY_WAITS,  /* for its time */
    ENTRY_QUEUED, /* its time has come: in a heap of ready.c, or parked with a route or a flow */
    ENTRY_ACTIVE, /* in memory: a struct message */
    ENTRY_HELD,
    ENTRY_STATES,
};
enum entry_flag {
    ENTRY_HOLD = 1,   /* held when this attempt ends */
    ENTRY_REMOVE = 2, /* removed when this attempt ends */
    ENTRY_AGED = 4,   /* born_s is known well: see message_age_s() */
    ENTRY_FRESH = 8,  /* taken in by this process, and in no attempt yet */
    ENTRY_TWO = 16,   /* of a move: its first name is still there (place.c) */
    ENTRY_FOUND = 32, /* in new/ at the start: whether it was synced, and is whole, is not known */
};

struct message;
struct entry {
    char id[ID_LEN];
    char origin;
    uint8_t place, state, flags;
    uint8_t age_class; /* in which column of shape.c it is counted */
    uint32_t attempts;
    uint32_t dest;  /* by which line of shape.c it is counted; 0: not read yet */
    int64_t due_s;  /* steady clock (clock.h); on disk: the file's mtime */
    int64_t born_s; /* steady clock, may be negative */
    uint32_t user;  /* whose message it is (users.c), or 0 */
    uint32_t kib;   /* and how large, when it has one */
    union {
        struct loop_timer timer; /* ENTRY_WAITS */
        struct {                 /* ENTRY_QUEUED */
            struct heap_node node;
            struct heap *heap;
            struct sched_route *route; /* parked: with these */
            struct sched_flow *flow;
        };
        struct message *message; /* ENTRY_ACTIVE */
        struct entry *next_free;
    };
};

enum rcpt_state {
    RCPT_TODO,    /* to be tried in this attempt */
    RCPT_SENT,    /* handed to local or relay */
    RCPT_LATER,   /* tried, to be tried again */
    RCPT_DONE,    /* delivered, or expanded */
    RCPT_NEVER,   /* failed for good, not yet bounced */
    RCPT_BOUNCED, /* and told to the sender */
};

/* Of a recipient that is done: what its sender asked to be told, and was not yet (RFC 3461). */
enum report { REPORT_NONE, REPORT_DELIVERED, REPORT_RELAYED, REPORT_EXPANDED, REPORT_END };

struct rcpt {
    struct str address; /* with a leading backslash: an alias led here, and no alias is to be tried
                           again */
    enum rcpt_state state;
    bool marked;    /* its final state, and what is owed, is in the journal */
    uint8_t notify; /* enum dsn_notify */
    uint8_t report; /* enum report */
    uint32_t index;
    struct str orcpt;    /* what the sender called it: RFC 3461 4.2, or empty */
    char dsn[12];        /* "5.1.1" */
    struct str text;     /* why: the reply, quoted */
    struct str recorded; /* the same, as the journal has it */
    struct rcpt *next_in_job;
};

struct message {
    struct entry *entry;
    int fd; /* its file, open since it was accepted, for its first job; or -1 */
    struct arena arena;
    struct envelope env;
    struct rcpt **rcpts; /* the envelope's first, then those that expansion added */
    size_t nrcpt, cap;
    size_t open;    /* in state TODO or SENT */
    size_t owed;    /* whose report is not REPORT_NONE */
    bool journaled; /* the journal's file is there */
    bool named;     /* and its name is durable */
    bool unsynced;  /* and has marks that are not durable */
    size_t journal_size;
    bool warned;  /* the sender was told of the delay */
    bool again;   /* handed out before, and no answer is on record */
    bool damaged; /* its file is not what was written: it goes nowhere any more */
    bool bulk;    /* no person waits for it */
    struct sched_flow *flow;
    uint64_t tag; /* of its next jobs; 0: to be given */
    int64_t loaded_ms;
    bool warned_now;                /* the notice of delay of this attempt is not on record yet */
    struct loop_timer record_again; /* set while the journal cannot be written */
};

struct qmgr {
    const struct start *start;
    struct conf *conf;
    struct loop loop;
    struct service service;
    int dir, tmp, new, cur, hold, journal, corrupt; /* directories */
    int64_t started_ms;
    size_t nactive;
    size_t states[ENTRY_STATES]; /* how many entries are in each */
    bool leases;                 /* the file system has them */
    size_t dropped;              /* undeliverable messages from <> that nobody was told of */
};
extern struct qmgr qmgr;

/* store.c: names and files. Functions return -1 with errno. */
int store_open(const char *path_or_null, struct err *e);
/* Waits for another qmgr to end: two at one queue would remove each other's names (place.c).
 * master, when it was killed, starts the next while the one before is at its end. */
void store_lock(void);
void store_new_id(char id_r[ID_LEN + 1]);
bool store_id_ok(struct str id);
/* tmp/ID: a descriptor to write, and one to read, if wanted. */
int store_create(const char *id, int *read_fd_or_null, struct err *e);
bool store_is_written(int fd); /* whether somebody has it open for writing; else nobody can again */
void store_discard(const char *id); /* tmp/ID away */
/* tmp/ID to new/ID.O, not yet synced; and back, after a failed sync. user: or 0. */
int store_commit_name(const char *id, char origin, uint32_t user);
void store_uncommit(const char *id, char origin, uint32_t user);
const char *store_name(const struct entry *entry);     /* ID.O; until the next call */
int store_read_fd(const struct entry *entry);          /* the message, read-only */
int store_remove(struct entry *entry, bool journaled); /* logs; -1: it is still there */
void store_sync(int fd);                               /* ends the process when it fails */
int store_subdir(int dir, const char *id, bool make);  /* dir/XX: a descriptor */
/* A journal whose message is in no directory: false when that is not certain. */
bool store_drop_orphan(const char *id);
bool store_room(uint64_t want); /* free bytes and inodes */

/* place.c: in which directory a message is, and how it comes into another. Functions return -1 with
 * errno. */
int place_open(const struct entry *entry); /* the directory; place_close() it */
void place_close(const struct entry *entry, int dir);
int place_defer(struct entry *entry);   /* into cur/, mtime = due_s */
int place_hold(struct entry *entry);    /* into hold/; durable after place_sync() */
int place_release(struct entry *entry); /* out of it, into new/; the same */
void place_sync(void);                  /* ends the process when it fails */
int place_remove(struct entry *entry);  /* logs */
int place_quarantine(struct entry *entry, const char *why); /* logs; -1: it is still there */
/* A move that was cut short, as scan.c finds it: the other names of the file go. Whether there were
 * any. */
bool place_drop_twins(const struct entry *kept, uint64_t inode);
int place_sync_new(void);
void place_new_syncing(void); /* somebody syncs it now */
void place_new_changed(void); /* a name has gone: to be synced, some time */
void place_settle(void);      /* every message has one name: before qmgr leaves */

/* entry.c: all messages of the queue. */
struct entry *entry_add(const char *id, char origin, enum place place, int64_t due_s);
void entry_own(struct entry *entry, uint32_t user, uint32_t kib); /* it counts for this user */
void entry_drop(struct entry *entry);
void entry_wait(struct entry *entry);                           /* until due_s */
void entry_become(struct entry *entry, enum entry_state state); /* counted */
void entry_detach(struct entry *entry);                         /* it waits for nothing any more */
struct message *entry_message(const struct entry *entry); /* while it is being delivered, or NULL */
int64_t entry_arrived_s(const struct entry *entry);       /* wall clock: its ID says so */
struct index_at entry_arrived_from(int64_t wall_s);       /* the first that came then or later */

/* users.c: how much each local user (not root: 0) may have in the queue, and has. */
uint32_t users_kib(uint64_t bytes);
/* Whether there is room for so much more: 0, or -1 with ERR_LIMIT. */
int users_room(uint32_t uid, uint32_t messages, uint32_t kib, struct err *e);
void users_add(uint32_t uid, uint32_t messages, uint32_t kib);
void users_drop(uint32_t uid, uint32_t messages, uint32_t kib);

/* ready.c: those whose time has come, until there is room for them in memory. */
void ready_add(struct entry *entry);
void ready_park(struct entry *entry, struct heap *parked, uint64_t tag, struct sched_route *route,
                struct sched_flow *flow);
void ready_detach(struct entry *entry); /* for entry_detach() */
/* They were pinned for a job that has ended, or a message that waits no more: others may have its
 * place. */
void ready_unpin(struct sched_route *route, struct sched_flow *flow);
void ready_wake(void); /* a message has left the memory */

/* shape.c: counts of messages by destination and age, kept as they change. */
void shape_add(struct entry *entry);
void shape_drop(struct entry *entry);
void shape_hold(const struct entry *entry, bool held);
void shape_learn(struct entry *entry, const struct message *m); /* where it goes */
void shape_start(void);
void shape_answer(struct client *c, struct msg *in);

/* stats.c: numbers for the operator. */
enum {
    STAT_BATCH_CLASSES = 6, /* 1, 2 to 3, 4 to 7, ... commits made durable by one sync */
};
enum queue_stat {
    STAT_ACCEPTED,
    STAT_ACCEPTED_BYTES,
    STAT_REFUSED,
    STAT_SENT,
    STAT_DEFERRED,
    STAT_BOUNCED,
    STAT_EXPANDED,
    STAT_SYNCS,
    STAT_SYNC_US,
    STAT_SYNC_US_MAX,
    STAT_COMMIT_US, /* from a session's commit to its answer */
    STAT_COMMIT_US_MAX,
    STAT_BATCH_MAX,
    STAT_BATCH,
    STATS = STAT_BATCH + STAT_BATCH_CLASSES,
};
void stats_add(enum queue_stat stat, uint64_t n);
void stats_max(enum queue_stat stat, uint64_t n);
void stats_batch(size_t n);
void stats_answer(struct client *c, struct msg *in);

/* syncer.c: a process that syncs new/ while this one goes on. */
void syncer_start(void); /* before the role is entered */
/* done is called in the loop, with 0, or -1 and errno. */
int syncer_serve(void (*done)(int synced));
void syncer_ask(void);  /* not again before it is done */
void syncer_wait(void); /* until it is done; done has been called */

/* intake.c: sessions that bring messages. */
void intake_message(struct client *c, struct msg *m);
void intake_gone(struct client *c);
bool intake_has(struct str id); /* in new/, and becomes an entry when that is synced */
void intake_after_turn(void);   /* one sync for all commits that wait for one */
void intake_synced(int ok);     /* the syncer's answer */
void intake_leave(void);        /* qmgr is told to stop: nobody waits for an answer any more */

/* message.c: a message's life while it is being delivered. */
struct message *message_load(struct entry *entry, struct err *e); /* reads file and journal */
void message_free(struct message *m);
/* Its bytes, against their check. ERR_DAMAGED: they are not what was written. */
int message_check(const struct message *m, struct err *e);
void message_start(struct entry *entry, uint64_t tag); /* its time has come; tag: or 0 */
/* The same for one just accepted: arena and envelope become the message's, and so may *fd, its
 * file, or -1: *fd is -1 then. */
void message_adopt(struct entry *entry, struct arena *arena, struct envelope *env, int *fd);
int message_file(struct message *m);    /* to be closed by the caller; -1 with errno */
void message_mark(struct message *m);   /* on record what is done, while others are open */
void message_settle(struct message *m); /* conclude this attempt if no recipient is open any more */
int message_add_rcpt(struct message *m, struct str address); /* by expansion; 0 also when known */
/* Whether this one more may be a recipient: when it could not be added, memory was out. */
bool message_has_room(const struct message *m, struct str address);
/* The same, with the sender's wishes: those of the alias, but notify. */
int message_add_expanded(struct message *m, const struct rcpt *alias, unsigned notify,
                         struct str address);
/* An answer of local or relay, put on record where it must be, and logged. */
void message_outcome(struct message *m, struct rcpt *r, enum outcome outcome, struct str dsn,
                     struct str text, struct str relay);
/* An alias led from r to these addresses: durable, then they are recipients. -1: not
 * now; -2: never, they are too many or too long. Then nothing has changed. */
int message_expand(struct message *m, struct rcpt *r, const struct str *addresses, size_t n);
bool message_is_local(struct str address);
int64_t message_age_s(const struct message *m);
int64_t message_expire_s(const struct message *m); /* the age at which it is given up */
struct str
message_bare(struct str address); /* without the mark that says no alias is to be tried */

/* route.c: the jobs of messages, and what comes of them. */
void route_start(void);
void route_configure(void); /* limits, from the configuration */
struct sched_route *route_of_rcpt(struct str address);
void route_submit(struct message *m); /* all recipients in state TODO */
void route_message(struct client *c, struct msg *m);
void route_gone(struct client *c);
void route_pump(void);  /* soon, not at once */
void route_renew(void); /* local and relay are being replaced */

/* bounce.c: one notice to the sender, durable on 0, about all recipients it concerns: who failed
 * for good, who waits, for whom a report is owed; or, of a bounce of our own that failed, to the
 * postmaster. A notice never leads to another but in that last way, once: its origin says what it
 * is. */
#define ORIGIN_BOUNCE "bounce"
#define ORIGIN_DOUBLE "double-bounce"
#define ORIGIN_NOTICE "notice"
#define EXPIRED_TEXT "delivery time expired; the last reason was: "
enum bounce_kind { BOUNCE_FAILED, BOUNCE_DELAYED, BOUNCE_DONE, BOUNCE_DOUBLE };
/* Whether there is a recipient for it, and it may be sent at all. */
bool bounce_wanted(const struct message *m, enum bounce_kind kind);
int bounce_send(struct message *m, enum bounce_kind kind, struct err *e);

/* operate.c */
void operate_message(struct client *c, struct msg *m);

/* scan.c: find what lies in the queue, a little in each turn. */
void scan_start(void);
