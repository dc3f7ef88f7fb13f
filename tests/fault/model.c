/*
 * model: the way of one message (session, qmgr, its syncer, local, a cell, a relay, the disk) as a
 * small machine, walked through in full: every step, in every order, and at every point the kill of
 * a process, a sync that fails, and a power cut.
 *
 * The message has two recipients: an alias that leads to a mailbox, and one at another host, who
 * may be put off or refused. Its name in new/ and its bytes are synced in any order, the one by
 * qmgr, the other by the session, and the client has its answer after both are. The disk keeps what
 * was synced; of what was not, a power cut keeps any part: of a rename in the queue also the one
 * half or the other (a reader's in the Maildir is one step); with a directory that was made in cur/
 * what is in it; of a queue file nothing, a beginning, head and envelope with a message that is not
 * whole, all, or another message that lay there before. What was not synced may go long after: when
 * qmgr alone was killed, and the next one has put the message off, expanded it, bounced it.
 *
 * In no state that can be reached a message may be
 * - lost: the client has read 250, and a recipient has neither the message, nor a bounce, nor a
 *   place in the queue (what was put aside has none);
 * - duplicate: the mailbox has it twice, or once more one that had been removed;
 * - truncated: the mailbox has part of it, under a name that readers see, or the other host does;
 * - stuck: no process has anything left to do, and the message is still in the queue.
 * Each "control" leaves out one rule of the protocol: then the walk must find the
 * named fault, or the model proves nothing. Ends with "N passed, N failed".
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Where names are; for the sets: 1 << place. */
enum { NONE, TMP = 1, NEW = 2, CUR = 4, PLACES = 8 };
/* A file's bytes; for the sets: 1 << content. OTHER: the blocks, or the inode, are still those of a
 * message of that length that was removed. TORN: head, envelope and length are right, what lies
 * behind is not. */
enum { EMPTY, PART, OTHER, TORN, WHOLE };
/* A recipient, in qmgr's memory. DAMAGED: who was to deliver it found that it is not whole. */
enum { ABSENT, TODO, SENT, LATER, DONE, NEVER, BOUNCED, DAMAGED };
enum { ALIAS, BOX, FAR, RCPTS };
enum { R_ALIAS_DONE = 1, R_EXPANDED, R_BOX_DONE, R_FAR_DONE, R_FAR_BOUNCED, RECORDS = 6 };
enum { S_START, S_OPEN, S_PART, S_WHOLE, S_COMMIT, S_SYNCED, S_TOLD, S_OVER }; /* the session */
enum { I_NONE, I_CHECKED, I_NAMED, I_SYNCED, I_ANSWERED };                     /* qmgr's intake */
enum { B_NONE, B_NAMED, B_WRITTEN };                                           /* the bounce */
enum { C_IDLE, C_ASKED, C_MADE, C_PART, C_WRITTEN, C_SYNCED, C_NAMED, C_DURABLE }; /* the cell */

/* Where its names are and what is in it, now; and the sets of what a power cut may leave. */
struct file {
    uint8_t place, places, data, datas;
    uint8_t broken; /* a sync of its bytes failed: the kernel calls the pages clean */
};

enum { FILES = 4 }; /* of a state */
static const struct file no_file = {NONE, 1 << NONE, EMPTY, 1 << EMPTY, 0};

struct state {
    uint8_t session, heard, intake, qmgr_up;
    uint8_t said; /* to qmgr, that the file is synced */
    struct file queued;
    uint8_t new_broken; /* a sync of new/ failed */
    uint8_t known;      /* qmgr has it in memory: 1; from the disk, so it may be a second try: 2 */
    uint8_t rcpt[RCPTS];
    uint8_t expanding, bouncing, removing; /* between two steps of qmgr */
    uint8_t moving; /* into cur/: 1: its name there is not synced; 2: the one in new/ is to go */
    /* records, how many of them are durable, and the name */
    uint8_t journal[RECORDS], njournal, nsynced, jnamed;
    struct file dsn; /* the bounce that counts: the last */
    uint8_t dir; /* cur/XX: 1: made, and its name not synced; 2: durable; 3: as 1, by one before */
    uint8_t cell, slot;
    struct file box[2]; /* two deliveries of the same message */
    uint8_t far;        /* the other host has it: 1; part of it: 2 */
};

/* clang-format off */
/* Name, the rule that is left out, and the fault that this must lead to. */
#define CONTROL_ROWS(X) \
    X(ALL_RULES, "all rules kept", "") \
    X(NO_FILE_SYNC, "250 when new/ is synced, and the file is not", "lost") \
    X(NO_NAME_SYNC, "250 when the file is synced, and new/ is not", "lost") \
    X(ANSWER_FIRST, "250 when it has its name, before any sync", "lost") \
    X(FILE_SYNC_AGAIN, "a failed sync of the file is tried again, and believed", "lost") \
    X(NAME_SYNC_AGAIN, "a failed sync of new/ is tried again, and believed", "lost") \
    X(REMOVE_EARLY, "the message is removed when it is handed over", "lost") \
    X(EXPANSION_LATE, "the alias is marked before its expansion is on record", "lost") \
    X(BOUNCE_LATE, "the failure is marked before the bounce is written", "lost") \
    X(BOUNCE_FILE_LATE, "the failure is marked before the bounce's file is synced", "lost") \
    X(BOUNCE_NAME_LATE, "the failure is marked before the bounce's name is synced", "lost") \
    X(SEAL_NO_ID, "the seal of a file is that of its bytes, not of its ID", "duplicate") \
    X(CELL_NO_CHECK, "the cell does not check what it reads", "truncated") \
    X(RELAY_NO_CHECK, "the relay does not check what it reads", "truncated") \
    X(CELL_NO_FILE_SYNC, "the cell does not sync the file", "lost") \
    X(CELL_NO_NAME_SYNC, "the cell does not sync the name", "lost") \
    X(CELL_RANDOM_NAME, "the cell takes a fresh name each time", "duplicate") \
    X(CELL_NEW_ONLY, "a second try looks in new/ only", "duplicate") \
    X(CELL_FOUND_NO_SYNC, "what a second try finds is not synced", "lost") \
    X(START_NEW_ONLY, "a start reads new/ and not cur/", "stuck") \
    X(DAMAGED_LEFT, "what a start finds damaged is left where it is", "stuck") \
    X(DIR_FOUND, "put off: cur/XX is not synced, that a killed qmgr made", "lost") \
    X(MOVE_NO_SYNC, "put off: cur/ is not synced before the name in new/ goes", "lost") \
    X(MOVE_FORGOTTEN, "put off and removed: the name in new/ is forgotten", "stuck")
/* clang-format on */
#define CONTROL_NAME(name, rule, fault) name,
#define CONTROL_ROW(name, rule, fault) {rule, fault},
enum control { CONTROL_ROWS(CONTROL_NAME) CONTROLS };
static const struct {
    const char *rule, *fault;
} controls[CONTROLS] = {CONTROL_ROWS(CONTROL_ROW)};

/* ---- the set of states, and those that are still to be looked at ---- */

static struct {
    struct state *at;
    uint32_t *slots; /* index + 1 */
    size_t n, cap, nslots;
    enum control control;
    const char *fault;
    struct state now; /* whose steps are being made */
    size_t moves;     /* those that lead elsewhere */
} the;

static uint64_t
hash_of(const struct state *s)
{
    const unsigned char *p = (const unsigned char *)s;
    uint64_t h = 14695981039346656037u;
    for (size_t i = 0; i < sizeof *s; i++)
        h = (h ^ p[i]) * 1099511628211u;
    return h ^ h >> 29;
}

static void
put_slot(size_t index)
{
    size_t i = hash_of(&the.at[index]) % the.nslots;
    while (the.slots[i])
        i = (i + 1) % the.nslots;
    the.slots[i] = (uint32_t)index + 1;
}

static void
grow(void)
{
    the.cap = the.cap ? 2 * the.cap : 1 << 16;
    the.nslots = 2 * the.cap + 1;
    the.at = realloc(the.at, the.cap * sizeof *the.at);
    free(the.slots);
    the.slots = calloc(the.nslots, sizeof *the.slots);
    if (!the.at || !the.slots)
        abort();
    for (size_t i = 0; i < the.n; i++)
        put_slot(i);
}

static bool
has(const struct state *s)
{
    for (size_t i = hash_of(s) % the.nslots; the.slots[i]; i = (i + 1) % the.nslots)
        if (memcmp(&the.at[the.slots[i] - 1], s, sizeof *s) == 0)
            return true;
    return false;
}

/* ---- what must hold ---- */

static bool
in_box(const struct file *f)
{
    return f->place == NEW || f->place == CUR;
}

static bool
on_record(const struct state *s, int record)
{
    for (int i = 0; i < s->njournal; i++)
        if (s->journal[i] == record)
            return true;
    return false;
}

/* The mailbox's recipient is one of the queue's for as long as the alias is not done without its
 * expansion. */
static bool
queue_has(const struct state *s, int rcpt)
{
    if (!(s->queued.place & (NEW | CUR)) || s->queued.data != WHOLE)
        return false;
    if (rcpt == FAR)
        return !on_record(s, R_FAR_DONE) && !on_record(s, R_FAR_BOUNCED);
    return !on_record(s, R_BOX_DONE) && (!on_record(s, R_ALIAS_DONE) || on_record(s, R_EXPANDED));
}

static void
judge(const struct state *s)
{
    bool boxed = false;
    for (int i = 0; i < 2; i++)
        if (in_box(&s->box[i])) {
            if (s->box[i].data != WHOLE) /* that other one has been there before */
                the.fault = s->box[i].data == OTHER ? "duplicate" : "truncated";
            boxed = true;
        }
    if (in_box(&s->box[0]) && in_box(&s->box[1]))
        the.fault = "duplicate";
    if (s->heard && !boxed && !queue_has(s, BOX))
        the.fault = "lost";
    if (s->heard && !s->far && !(s->dsn.place == NEW && s->dsn.data == WHOLE) && !queue_has(s, FAR))
        the.fault = "lost";
    if (s->far > 1)
        the.fault = "truncated";
}

static struct file *
file_of(struct state *s, int i)
{
    return i == 0 ? &s->queued : i == 1 ? &s->dsn : &s->box[i - 2];
}

static void
reach(struct state s)
{
    for (int i = 0; i < FILES; i++)
        if (file_of(&s, i)->places == 1 << NONE) /* what nobody can see is all one */
            *file_of(&s, i) = no_file;
    the.moves += memcmp(&s, &the.now, sizeof s) != 0;
    if (the.n == the.cap)
        grow();
    if (has(&s))
        return;
    judge(&s);
    the.at[the.n] = s;
    put_slot(the.n++);
}

/* ---- the disk ---- */

static void
move(struct file *f, int place)
{
    f->place = (uint8_t)place;
    f->places |= (uint8_t)(1 << place);
}

/* A name more, or one less; each reaches the disk by itself, or does not. */
static void
add_name(struct file *f, int place)
{
    f->place |= (uint8_t)place;
    for (int m = 0; m < PLACES; m++)
        if (f->places & 1 << m)
            f->places |= (uint8_t)(1 << (m | place));
}

static void
drop_names(struct file *f, int places)
{
    f->place &= (uint8_t)~places;
    for (int place = TMP; place < PLACES; place *= 2)
        for (int m = 0; places & place && m < PLACES; m++)
            if (f->places & 1 << m)
                f->places |= (uint8_t)(1 << (m & ~place));
}

static void
fill(struct file *f, int data)
{
    f->data = (uint8_t)data;
    f->datas |= (uint8_t)(1 << data);
}

/* All of it is written, and none of that synced: any part of it may be what stays. */
static void
fill_whole(struct file *f)
{
    f->datas |= 1 << OTHER | 1 << TORN;
    fill(f, WHOLE);
}

static void
sync_data(struct file *f)
{
    if (!f->broken)
        f->datas = (uint8_t)(1 << f->data);
}

/* A sync of the directory `place` settles whether the name is there. */
static void
sync_dir(struct file *f, int place)
{
    for (int m = 0; m < PLACES; m++)
        if ((m & place) != (f->place & place))
            f->places &= (uint8_t) ~(1 << m);
}

static void
sync_new(struct state *s)
{
    if (s->new_broken)
        return;
    sync_dir(&s->queued, NEW);
    sync_dir(&s->dsn, NEW);
}

static void
append(struct state *s, int record)
{
    if (s->njournal < RECORDS && !on_record(s, record))
        s->journal[s->njournal++] = (uint8_t)record;
}

static void
sync_journal(struct state *s)
{
    s->nsynced = s->njournal;
    s->jnamed = 1;
}

/* ---- ends of processes ---- */

static void
qmgr_dies(struct state *s)
{
    s->qmgr_up = s->known = s->intake = s->said = 0;
    s->expanding = s->bouncing = s->removing = s->moving = 0;
    memset(s->rcpt, 0, sizeof s->rcpt);
    s->dir = s->dir == 1 ? 3 : s->dir;
    if (s->session == S_COMMIT || s->session == S_OPEN || s->session == S_PART ||
        s->session == S_WHOLE || s->session == S_SYNCED)
        s->session = S_OVER; /* its channel is gone: the client reads 4xx */
    /* what it does from here on nobody hears; that it ends halfway is another state */
    s->cell = C_IDLE;
    s->new_broken = 0;
}

static void
cell_dies(struct state *s)
{
    s->cell = C_IDLE;
    if (s->rcpt[BOX] == SENT) {
        s->rcpt[BOX] = TODO;
        s->known = 2; /* the next one is told that it may be a second try */
    }
}

static void
cut_journal(struct state s)
{
    int least = s.jnamed ? s.nsynced : 0;
    for (int n = least; n <= s.njournal; n++) {
        struct state t = s;
        memset(t.journal + n, 0, (size_t)(RECORDS - n));
        t.njournal = t.nsynced = (uint8_t)n;
        t.jnamed = n > 0;
        reach(t);
    }
}

/* The bytes and the names that a power cut may leave, in all combinations. */
static void
cut_files(struct state s, int i)
{
    if (i == FILES) {
        cut_journal(s);
        return;
    }
    struct file f = *file_of(&s, i);
    for (int place = NONE; place < PLACES; place++)
        for (int data = EMPTY; data <= WHOLE; data++)
            if (f.places & 1 << place && f.datas & 1 << data) {
                *file_of(&s, i) = (struct file){(uint8_t)place, (uint8_t)(1 << place),
                                                (uint8_t)data, (uint8_t)(1 << data), 0};
                cut_files(s, i + 1);
            }
}

static void
power_cut(struct state s)
{
    qmgr_dies(&s);
    s.session = s.session == S_TOLD ? S_TOLD : S_OVER;
    if (s.dir == 3) { /* it is gone, and what it held */
        struct state t = s;
        t.dir = 0;
        drop_names(&t.queued, CUR);
        sync_dir(&t.queued, CUR);
        cut_files(t, 0);
        s.dir = 2;
    }
    cut_files(s, 0);
}

/* ---- the steps ---- */

/* While qmgr checks and names it. */
static void
session_sync(struct state s)
{
    struct state t = s;
    t.session = S_SYNCED;
    t.said = 1;
    if (the.control != NO_FILE_SYNC)
        sync_data(&t.queued);
    reach(t);
    if (the.control == FILE_SYNC_AGAIN) {
        s.queued.broken = 1;
        s.session = S_SYNCED;
        s.said = 1;
    } else { /* it fails: 4xx, and qmgr hears that it is given up */
        s.session = S_OVER;
    }
    reach(s);
}

static void
session_steps(struct state s)
{
    switch (s.session) {
    case S_START:
        if (!s.qmgr_up)
            return;
        s.session = S_OPEN;
        s.queued = (struct file){TMP, 1 << NONE | 1 << TMP, EMPTY, 1 << EMPTY, 0};
        break;
    case S_OPEN:
        s.session = S_PART;
        fill(&s.queued, PART);
        break;
    case S_PART:
        s.session = S_WHOLE;
        fill_whole(&s.queued);
        break;
    case S_WHOLE:
        s.session = S_COMMIT;
        s.intake = I_CHECKED;
        break;
    case S_COMMIT:
        session_sync(s);
        return;
    default:
        return;
    }
    reach(s);
}

/* Known, and every recipient to be tried. */
static void
adopt(struct state *s, int known)
{
    s->known = (uint8_t)known;
    s->rcpt[ALIAS] = on_record(s, R_EXPANDED) || on_record(s, R_ALIAS_DONE) ? DONE : TODO;
    s->rcpt[BOX] = on_record(s, R_BOX_DONE) ? DONE : on_record(s, R_EXPANDED) ? TODO : ABSENT;
    s->rcpt[FAR] = on_record(s, R_FAR_DONE) ? DONE : on_record(s, R_FAR_BOUNCED) ? BOUNCED : TODO;
}

static void
answer(struct state *s)
{
    if (s->session == S_COMMIT || s->session == S_SYNCED) {
        s->session = S_TOLD;
        s->heard = 1;
    }
}

static void
intake_steps(struct state s)
{
    struct state t = s;
    if (s.intake == I_CHECKED) {
        add_name(&t.queued, NEW);
        drop_names(&t.queued, TMP);
        t.intake = I_NAMED;
        if (the.control == ANSWER_FIRST)
            answer(&t);
        reach(t);
    } else if (s.intake == I_NAMED) {
        t.intake = I_SYNCED;
        if (the.control != NO_NAME_SYNC)
            sync_new(&t);
        reach(t);
        t = s;
        t.new_broken = 1; /* it fails: the name is taken away, 4xx, and qmgr leaves */
        if (the.control != NAME_SYNC_AGAIN) {
            drop_names(&t.queued, NEW);
            qmgr_dies(&t);
        } else {
            t.intake = I_SYNCED;
        }
        reach(t);
    } else if (s.intake == I_SYNCED && s.said) {
        answer(&t);
        t.intake = I_ANSWERED;
        adopt(&t, 1);
        reach(t);
    }
    if (s.intake >= I_CHECKED && s.intake <= I_SYNCED && s.session == S_OVER && !s.said) {
        drop_names(&s.queued, TMP | NEW);
        s.intake = I_ANSWERED;
        reach(s);
    }
}

/* Out of the queue, to corrupt/: nobody delivers it. Its journal stays beside it. */
static void
put_aside(struct state *s)
{
    drop_names(&s->queued, s->queued.place);
    s->known = 0;
    memset(s->rcpt, 0, sizeof s->rcpt);
}

/* A start: tmp/ is cleared, what is in new/ and cur/ is taken in, the second name of a move that
 * was cut short goes, and what is empty in new/. What is read of a message here is head and
 * envelope. */
static void
start_step(struct state s)
{
    struct file *f = &s.queued;
    s.qmgr_up = 1;
    if (s.dir == 3 && the.control != DIR_FOUND)
        s.dir = 2; /* cur/ is synced */
    drop_names(f, f->place & TMP);
    if (s.dsn.data != WHOLE)
        drop_names(&s.dsn, s.dsn.place);
    if (f->place & NEW && f->data == EMPTY && the.control != DAMAGED_LEFT)
        drop_names(f, NEW);
    if (f->place == (NEW | CUR))
        drop_names(f, CUR);
    if (f->place & (the.control == START_NEW_ONLY ? NEW : NEW | CUR)) {
        s.intake = I_ANSWERED;
        if (f->data >= (the.control == SEAL_NO_ID ? OTHER : TORN))
            adopt(&s, 2);
        else if (the.control != DAMAGED_LEFT)
            put_aside(&s);
    }
    reach(s);
}

static void
alias_steps(struct state s)
{
    struct state t = s;
    bool early = the.control == EXPANSION_LATE;
    if (s.rcpt[ALIAS] == TODO) {
        t.rcpt[ALIAS] = SENT;
        reach(t);
    } else if (s.rcpt[ALIAS] == SENT && !s.expanding) {
        append(&t, early ? R_ALIAS_DONE : R_EXPANDED);
        t.expanding = 1;
        reach(t);
    } else if (s.rcpt[ALIAS] == SENT) {
        if (early)
            append(&t, R_EXPANDED);
        sync_journal(&t);
        t.expanding = 0;
        t.rcpt[ALIAS] = DONE;
        if (t.rcpt[BOX] == ABSENT)
            t.rcpt[BOX] = TODO;
        reach(t);
        qmgr_dies(&s); /* the sync fails: qmgr leaves; whether the record is durable nobody knows */
        reach(s);
    }
}

/* What whoever has the message's descriptor reads. */
static int
content(const struct state *s)
{
    return s->queued.place & (NEW | CUR) ? s->queued.data : WHOLE;
}

static void
far_steps(struct state s)
{
    static const uint8_t outcomes[] = {DONE, LATER, NEVER, SENT}; /* the last: its answer is lost */
    struct state t = s;
    if (s.rcpt[FAR] == TODO) {
        t.rcpt[FAR] = SENT;
        reach(t);
    }
    for (size_t i = 0; s.rcpt[FAR] == SENT && i < sizeof outcomes; i++) {
        bool sent = outcomes[i] == DONE || outcomes[i] == SENT;
        t = s;
        t.rcpt[FAR] = outcomes[i] == SENT ? LATER : outcomes[i];
        if (sent && content(&s) == TORN && the.control != RELAY_NO_CHECK)
            t.rcpt[FAR] = DAMAGED; /* broken off before the final dot */
        else if (sent)
            t.far = content(&s) == TORN ? 2 : 1;
        reach(t);
    }
}

static bool
open_rcpts(const struct state *s)
{
    return s->rcpt[ALIAS] < LATER || (s->rcpt[BOX] && s->rcpt[BOX] < LATER) || s->rcpt[FAR] < LATER;
}

static void
put_marks(struct state *s)
{
    if (s->rcpt[BOX] == DONE)
        append(s, R_BOX_DONE);
    if (s->rcpt[FAR] == DONE)
        append(s, R_FAR_DONE);
    if (s->rcpt[FAR] == BOUNCED)
        append(s, R_FAR_BOUNCED);
}

static void
mark_bounced(struct state *s)
{
    append(s, R_FAR_BOUNCED);
    sync_journal(s);
}

/* Written, named, its file synced, new/ synced: as a session's message, and by qmgr itself. */
static void
bounce_steps(struct state s)
{
    struct state t = s;
    if (s.bouncing == B_NONE && the.control == BOUNCE_LATE && !on_record(&s, R_FAR_BOUNCED)) {
        mark_bounced(&t);
    } else if (s.bouncing == B_NONE) {
        t.dsn = no_file;
        fill_whole(&t.dsn);
        add_name(&t.dsn, NEW);
        t.bouncing = B_NAMED;
    } else if (s.bouncing == B_NAMED) {
        t.bouncing = B_WRITTEN;
        if (the.control == BOUNCE_FILE_LATE)
            mark_bounced(&t);
        else
            sync_data(&t.dsn);
        drop_names(&s.dsn, NEW); /* the sync fails: taken away, and another one later */
        s.bouncing = B_NONE;
        s.rcpt[FAR] = LATER;
        reach(s);
    } else {
        if (the.control == BOUNCE_NAME_LATE) {
            mark_bounced(&t);
            reach(t);
        }
        sync_new(&t);
        t.bouncing = B_NONE;
        t.rcpt[FAR] = BOUNCED;
        drop_names(&s.dsn, NEW); /* the sync fails: taken away, and qmgr leaves */
        qmgr_dies(&s);
        reach(s);
    }
    reach(t);
}

/* Every recipient has its answer: bounce, then put off, or remove. */
static void
settle_steps(struct state s)
{
    struct state t = s;
    if (s.rcpt[FAR] == DAMAGED || s.rcpt[BOX] == DAMAGED) {
        if (s.moving) /* it has one name first */
            return;
        put_aside(&t);
        reach(t);
    } else if (s.rcpt[FAR] == NEVER) {
        bounce_steps(s);
    } else if (s.rcpt[FAR] == LATER || s.rcpt[BOX] == LATER) {
        put_marks(&t);
        reach(t); /* written, not yet synced */
        sync_journal(&t);
        reach(t);
        if (t.dir < 2) {
            t.dir++;
            reach(t);
            return;
        }
        if (!(t.queued.place & CUR)) {
            add_name(&t.queued, CUR);
            t.moving = 1;
        }
        for (int r = 0; r < RCPTS; r++)
            if (t.rcpt[r] == LATER)
                t.rcpt[r] = TODO;
        reach(t);
    } else if (s.moving && the.control != MOVE_FORGOTTEN) {
        return; /* it has one name first */
    } else if (!s.removing) {
        drop_names(&t.queued, the.control == MOVE_FORGOTTEN ? CUR : t.queued.place);
        t.removing = 1;
        reach(t);
    } else {
        /* unlinked, not synced: it may come back, and means nothing */
        memset(t.journal, 0, sizeof t.journal);
        t.njournal = t.nsynced = t.jnamed = 0;
        t.known = t.removing = 0;
        memset(t.rcpt, 0, sizeof t.rcpt);
        reach(t);
    }
}

static void
told(struct state *s, int outcome)
{
    s->cell = C_IDLE;
    s->rcpt[BOX] = (uint8_t)outcome;
}

/* A second try: the name is looked for; what is found is synced, too. */
static bool
found(struct state *s)
{
    for (int i = 0; i < 2; i++)
        if (in_box(&s->box[i]) && (s->box[i].place == NEW || the.control != CELL_NEW_ONLY)) {
            if (the.control != CELL_FOUND_NO_SYNC) {
                sync_dir(&s->box[i], NEW);
                sync_dir(&s->box[i], CUR);
            }
            told(s, DONE);
            return true;
        }
    return false;
}

static void
cell_steps(struct state s)
{
    struct state t = s;
    struct file *f = &t.box[s.slot];
    bool fresh = the.control == CELL_RANDOM_NAME;
    switch (s.cell) {
    case C_ASKED:
        if (s.known == 2 && !fresh && found(&t)) {
            reach(t);
            return;
        }
        t.slot = in_box(&s.box[0]) || s.box[0].places & (1 << NEW | 1 << CUR) ? 1 : 0;
        f = &t.box[t.slot];
        if (f->place == NEW || f->place == CUR)
            return; /* a third name: what two show is enough */
        *f = (struct file){TMP, 1 << NONE | 1 << TMP, EMPTY, 1 << EMPTY, 0};
        t.cell = C_MADE;
        break;
    case C_MADE:
        fill(f, PART);
        t.cell = C_PART;
        break;
    case C_PART: /* now it has read all of it */
        t.cell = C_WRITTEN;
        fill(f, content(&s));
        if (f->data == TORN && the.control != CELL_NO_CHECK) {
            move(f, NONE);
            told(&t, DAMAGED);
        }
        break;
    case C_WRITTEN:
        if (the.control != CELL_NO_FILE_SYNC)
            sync_data(f);
        t.cell = C_SYNCED;
        s.box[s.slot].broken = 1; /* it fails: the file is removed */
        move(&s.box[s.slot], NONE);
        told(&s, LATER);
        reach(s);
        break;
    case C_SYNCED:
        if (s.box[!s.slot].place == NEW && !fresh) { /* the name is taken */
            move(f, NONE);
            t.slot = !t.slot;
        } else {
            move(f, NEW);
        }
        t.cell = C_NAMED;
        break;
    case C_NAMED:
        if (the.control != CELL_NO_NAME_SYNC) {
            sync_dir(f, NEW);
            sync_dir(f, CUR);
        }
        t.cell = C_DURABLE;
        break;
    case C_DURABLE:
        told(&t, DONE);
        break;
    default:
        return;
    }
    reach(t);
}

/* Some time later: what was put off loses its first name. */
static void
move_steps(struct state s)
{
    if (s.moving == 1) {
        if (the.control != MOVE_NO_SYNC)
            sync_dir(&s.queued, CUR);
        s.moving = 2;
    } else {
        drop_names(&s.queued, NEW);
        s.moving = 0;
    }
    reach(s);
}

static void
qmgr_steps(struct state s)
{
    struct state t = s;
    intake_steps(s);
    if (!s.known)
        return;
    if (s.moving)
        move_steps(s);
    alias_steps(s);
    far_steps(s);
    if (s.rcpt[BOX] == TODO && s.cell == C_IDLE) {
        t.rcpt[BOX] = SENT;
        t.cell = C_ASKED;
        if (the.control == REMOVE_EARLY)
            drop_names(&t.queued, t.queued.place);
        reach(t);
    }
    t = s; /* marks while others are open: written, not synced */
    put_marks(&t);
    if (memcmp(&s, &t, sizeof s) != 0 && open_rcpts(&s))
        reach(t);
    if (!open_rcpts(&s))
        settle_steps(s);
}

/* What the programs do, without a fault from outside. */
static void
work(struct state s)
{
    session_steps(s);
    cell_steps(s);
    if (s.qmgr_up)
        qmgr_steps(s);
    else
        start_step(s);
}

static void
faults(struct state s)
{
    struct state t = s;
    power_cut(s);
    qmgr_dies(&t);
    reach(t);
    t = s;
    cell_dies(&t);
    reach(t);
    t = s; /* the session is killed, or its client goes; later nobody hears the answer */
    if (s.session > S_START && s.session <= S_SYNCED) {
        t.session = S_OVER;
        if (s.session < S_COMMIT)
            drop_names(&t.queued, TMP);
        reach(t);
    }
    for (int i = 0; i < 2; i++) /* a reader moves it */
        if (s.box[i].place == NEW) {
            t = s;
            move(&t.box[i], CUR);
            reach(t);
        }
}

static void
walk(enum control control)
{
    struct state s0 = {.qmgr_up = 1, .queued = no_file, .dsn = no_file, .box = {no_file, no_file}};
    the.n = 0;
    the.control = control;
    the.fault = NULL;
    if (the.slots)
        memset(the.slots, 0, the.nslots * sizeof *the.slots);
    reach(s0);
    for (size_t i = 0; i < the.n && !the.fault; i++) {
        struct state s = the.at[i];
        the.now = s;
        the.moves = 0;
        work(s);
        if (!the.moves && s.queued.place & (NEW | CUR))
            the.fault = "stuck";
        faults(s);
    }
}

int
main(void)
{
    int passed = 0, failed = 0;
    printf("%-56s %9s  %-10s %s\n", "protocol", "states", "found", "expected");
    for (int c = ALL_RULES; c < CONTROLS; c++) {
        walk((enum control)c);
        const char *got = the.fault ? the.fault : "";
        /* Part of a message in the mailbox is a loss, too: whichever is met first. */
        bool ok = strcmp(got, controls[c].fault) == 0 ||
                  (strcmp(controls[c].fault, "lost") == 0 && strcmp(got, "truncated") == 0);
        printf("%-56s %9zu  %-10s %-10s %s\n", controls[c].rule, the.n, *got ? got : "nothing",
               *controls[c].fault ? controls[c].fault : "nothing", ok ? "ok" : "FAIL");
        passed += ok;
        failed += !ok;
    }
    free(the.at);
    free(the.slots);
    printf("%d passed, %d failed\n", passed, failed);
    return failed || !passed;
}
