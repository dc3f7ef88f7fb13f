/*
 * qmgr: the queue manager: owns the queue directory, commits, schedules, retries, bounces.
 *
 * One event loop. Trusts nobody's word: what sessions wrote is read back and checked before it is
 * accepted, what local and relay answer must fit what they were asked.
 *
 * On disk (all below the queue directory, 0700, bh-qmgr):
 *   tmp/ID            being written by a session; removed when the session goes, and at start
 *   new/ID.O          accepted, never tried
 *   cur/XX/ID.O       tried before; mtime is the time of the next attempt; XX: two letters of the
 * ID journal/XX/ID     outcomes and expansions, made when first needed (journal.h) corrupt/ID.O
 * damaged; kept for the operator O is the origin: which role brought the message, a thing no
 * session can forge: s smtpd, u submitd, l local (a forward), b a bounce of our own.
 *
 * In memory: a small fixed record (struct entry) for each message; a struct message only while it
 * is being delivered.
 */
#pragma once
#include "lib/conf/conf.h"
#include "lib/ipc/service.h"
#include "lib/queue/qfile.h"

enum {
    ID_LEN = 20,
    ACTIVE_MAX = 5000,   /* messages in delivery at once */
    EXPANDED_MAX = 5000, /* recipients of one message, with those that aliases led to */
    REASON_MAX = 400,
};

enum place { PLACE_NEW, PLACE_CUR };

struct message;
struct entry {
    char id[ID_LEN];
    char origin;
    uint8_t place;
    uint32_t attempts;
    int64_t due_s;           /* wall clock: the file's mtime */
    struct loop_timer timer; /* set while it waits */
    struct message *active;  /* while it is being delivered */
    struct entry *next;      /* in its bucket */
};

enum rcpt_state {
    RCPT_TODO,    /* to be tried in this attempt */
    RCPT_SENT,    /* handed to local or relay */
    RCPT_LATER,   /* tried, to be tried again */
    RCPT_DONE,    /* delivered, or expanded */
    RCPT_NEVER,   /* failed for good, not yet bounced */
    RCPT_BOUNCED, /* and told to the sender */
};

struct rcpt {
    struct str address; /* with a leading backslash: an alias led here, and no alias is to be tried
                           again */
    enum rcpt_state state;
    bool marked; /* its final state is in the journal */
    uint32_t index;
    char dsn[12];    /* "5.1.1" */
    struct str text; /* why: the reply, quoted */
    struct rcpt *next_in_job;
};

struct message {
    struct entry *entry;
    struct arena arena;
    struct envelope env;
    struct rcpt **rcpts; /* the envelope's first, then those that expansion added */
    size_t nrcpt, cap;
    size_t open;    /* in state TODO or SENT */
    bool journaled; /* the journal's file is there */
    bool named;     /* and its name is durable */
    bool unsynced;  /* and has marks that are not durable */
    bool again;     /* handed out before, and no answer is on record */
    int64_t loaded_ms;
};

struct qmgr {
    const struct start *start;
    struct conf *conf;
    struct loop loop;
    struct service service;
    int dir, tmp, new, cur, journal, corrupt; /* directories */
    size_t nactive;
    bool leases;    /* the file system has them */
    bool new_dirty; /* names were removed from new/ since it was last synced */
};
extern struct qmgr qmgr;

/* store.c: names and files. Functions return -1 with errno. */
int store_open(const char *path_or_null, struct err *e);
void store_new_id(char id_r[ID_LEN + 1]);
bool store_id_ok(struct str id);
int store_create(const char *id, struct err *e); /* tmp/ID: a descriptor */
int store_reopen(const char *id);                /* tmp/ID, to read */
bool store_is_written(int fd); /* whether somebody has it open for writing; else nobody can again */
void store_discard(const char *id);                 /* tmp/ID away */
int store_commit_name(const char *id, char origin); /* tmp/ID to new/ID.O, not yet synced */
void store_uncommit(const char *id, char origin);   /* after a failed sync */
int store_sync_new(void);
int store_read_fd(const struct entry *entry);                /* the message, read-only */
int store_defer(struct entry *entry);                        /* into cur/, mtime = due_s */
int store_remove(const struct entry *entry, bool journaled); /* logs; -1: it is still there */
void store_quarantine(const struct entry *entry, const char *why);
int store_subdir(int dir, const char *id, bool make); /* dir/XX: a descriptor */
bool store_room(uint64_t want);                       /* free bytes and inodes */

/* entry.c: all messages of the queue. */
struct entry *entry_find(struct str id);
struct entry *entry_add(const char *id, char origin, enum place place, int64_t due_s);
void entry_drop(struct entry *entry);
void entry_wait(struct entry *entry); /* until due_s, or until there is room for it */
size_t entry_count(void);
/* At most max entries with the smallest IDs after this one, in order; whether there are more. */
size_t entry_page(struct str after, struct entry **page_r, size_t max, bool *more_r);
bool entry_for_each(bool (*fn)(struct entry *, void *), void *arg);

/* syncer.c: a process that syncs new/ while this one goes on. */
void syncer_start(void); /* before the role is entered */
/* done is called in the loop, with 0, or -1 and errno. */
int syncer_serve(void (*done)(int synced));
void syncer_ask(void); /* not again before it is done */

/* intake.c: sessions that bring messages. */
void intake_message(struct client *c, struct msg *m);
void intake_gone(struct client *c);
bool intake_has(struct str id); /* in new/, and becomes an entry when that is synced */
void intake_after_turn(void);   /* one sync for all commits that wait for one */
void intake_synced(int synced); /* the syncer's answer */

/* message.c: a message's life while it is being delivered. */
struct message *message_load(struct entry *entry, struct err *e); /* reads file and journal */
void message_free(struct message *m);
void message_start(struct entry *entry); /* its time has come */
/* The same for one just accepted: arena and envelope become the message's. */
void message_adopt(struct entry *entry, struct arena *arena, struct envelope *env);
void message_mark(struct message *m);   /* on record what is done, while others are open */
void message_settle(struct message *m); /* conclude this attempt if no recipient is open any more */
int message_add_rcpt(struct message *m, struct str address); /* by expansion; 0 also when known */
/* An answer of local or relay, put on record where it must be, and logged. */
void message_outcome(struct message *m, struct rcpt *r, enum outcome outcome, struct str dsn,
                     struct str text, struct str relay);
/* An alias led from r to these addresses: durable, then they are recipients. -1: nothing has
 * changed. */
int message_expand(struct message *m, struct rcpt *r, const struct str *addresses, size_t n);
bool message_is_local(struct str address);

/* route.c: destinations, and the channels (lanes) to local and relay. */
void route_submit(struct message *m); /* all recipients in state TODO */
void route_message(struct client *c, struct msg *m);
void route_gone(struct client *c);
void route_renew(void);           /* local and relay are being replaced */
void route_forget_failures(void); /* the operator wants everything tried now */

/* bounce.c */
int bounce_send(struct message *m,
                struct err *e); /* one DSN for all in state NEVER; durable on 0 */

/* operate.c */
void operate_message(struct client *c, struct msg *m);

/* scan.c: find what lies in the queue, a little in each turn. */
void scan_start(void);
