#include "lib/log/log.h"
#include "lib/mail/dsn.h"
#include "qmgr/journal.h"
#include "qmgr/qmgr.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

enum {
    ARENA_MAX = 16 << 20,
    JITTER_PERCENT = 10,
    DOUBLES_MAX = 100, /* double bounces in DOUBLES_S; the postmaster learns no more from others */
    DOUBLES_S = 3600
};

void
message_free(struct message *m)
{
    if (m->entry && entry_message(m->entry) == m) {
        entry_become(m->entry, ENTRY_NONE);
        qmgr.nactive--;
        ready_wake();
    }
    if (m->flow) {
        m->flow->pins--;
        sched_flow_release(m->flow);
    }
    if (loop_timer_is_set(&m->record_again))
        loop_timer_del(&qmgr.loop, &m->record_again);
    if (m->fd >= 0)
        close(m->fd);
    free(m->rcpts);
    arena_free(&m->arena);
    free(m);
}

bool
message_is_local(struct str address)
{
    ptrdiff_t at = str_rchr(address, '@');
    struct str domain = str_from(address, (size_t)at + 1);
    return at < 0 || (address.n && address.p[0] == '\\') || conf_is_ours(qmgr.conf, domain);
}

static struct rcpt *
append_rcpt(struct message *m, struct str address)
{
    if (m->nrcpt == m->cap) {
        size_t cap = m->cap ? 2 * m->cap : 4;
        struct rcpt **rcpts = reallocarray(m->rcpts, cap, sizeof(struct rcpt *));
        if (!rcpts)
            return NULL;
        m->rcpts = rcpts;
        m->cap = cap;
    }
    struct rcpt *r = arena_alloc(&m->arena, sizeof *r);
    if (!r)
        return NULL;
    r->address = address;
    r->index = (uint32_t)m->nrcpt;
    m->rcpts[m->nrcpt++] = r;
    return r;
}

struct str
message_bare(struct str address)
{
    return address.n && address.p[0] == '\\' ? str_from(address, 1) : address;
}

bool
message_has_room(const struct message *m, struct str address)
{
    return address.n && address.n <= QFILE_ADDR_MAX + 1 && m->nrcpt < EXPANDED_MAX;
}

int
message_add_rcpt(struct message *m, struct str address)
{
    for (size_t i = 0; i < m->nrcpt; i++)
        if (str_caseeq(m->rcpts[i]->address, address))
            return 0;
    struct str kept = message_has_room(m, address) ? arena_str(&m->arena, address) : STR("");
    return kept.n && append_rcpt(m, kept) ? 0 : -1;
}

int
message_add_expanded(struct message *m, const struct rcpt *alias, unsigned notify,
                     struct str address)
{
    size_t before = m->nrcpt;
    if (message_add_rcpt(m, address) < 0)
        return -1;
    if (m->nrcpt > before) {
        m->rcpts[before]->notify = (uint8_t)notify;
        m->rcpts[before]->orcpt = alias->orcpt;
    }
    return 0;
}

static struct message *
new_message(struct entry *entry)
{
    struct message *m = calloc(1, sizeof *m);
    if (m) {
        m->entry = entry;
        m->fd = -1;
        m->arena = arena_new(ARENA_MAX);
        m->loaded_ms = now_ms();
    }
    return m;
}

static int
take_envelope(struct message *m, struct err *e)
{
    for (size_t i = 0; i < m->env.nrcpt; i++) {
        struct rcpt *r = append_rcpt(m, m->env.rcpts[i].address);
        if (!r)
            return err_set(e, ERR_TEMPORARY, "out of memory");
        r->notify = m->env.rcpts[i].notify;
        r->orcpt = m->env.rcpts[i].orcpt;
    }
    m->bulk = m->env.bulk || m->env.sender.n == 0 || m->env.nrcpt >= BULK_RCPTS;
    return 0;
}

/* What has no attempt on record is not older than one day, whatever the clock says now: who knows
 * what it said then. */
static void
learn_age(struct message *m)
{
    struct entry *entry = m->entry;
    if (!(entry->flags & ENTRY_AGED) && entry->attempts == 0) {
        int64_t age_s = clock_wall_s() - m->env.arrived_us / 1000000;
        age_s = age_s < 0 ? 0 : age_s > JOURNAL_DOWN_MAX_S ? JOURNAL_DOWN_MAX_S : age_s;
        entry->born_s = clock_steady_s() - age_s;
    }
    entry->flags |= ENTRY_AGED;
    shape_learn(entry, m);
}

int64_t
message_age_s(const struct message *m)
{
    return clock_steady_s() - m->entry->born_s;
}

struct message *
message_load(struct entry *entry, struct err *e)
{
    int fd = store_read_fd(entry);
    if (fd < 0) {
        err_errno(e, "cannot open the queue file");
        if (errno == ENOENT)
            e->class = ERR_CLOSED;
        else if (errno == ELOOP || errno == ENXIO) /* a link or a socket: never a queue file */
            e->class = ERR_DAMAGED;
        return NULL;
    }
    struct message *m = new_message(entry);
    int ok = m ? qfile_read(fd, str_of(entry->id, ID_LEN), &m->arena, &m->env, e)
               : err_set(e, ERR_TEMPORARY, "out of memory");
    close(fd);
    if (ok == 0 && take_envelope(m, e) == 0 && journal_replay(m, e) == 0) {
        learn_age(m);
        return m;
    }
    if (m)
        message_free(m);
    return NULL;
}

int
message_check(const struct message *m, struct err *e)
{
    int fd = store_read_fd(m->entry);
    if (fd < 0)
        return err_errno(e, "cannot open the queue file");
    int ok = qfile_check_message(fd, &m->env, e);
    close(fd);
    return ok;
}

/* Whoever reads it says so: seen with our own eyes before it counts. */
static bool
is_damaged(const struct message *m)
{
    struct err e = {0};
    int ok = message_check(m, &e);
    if (ok == 0)
        log_error("%.*s: called damaged, and is not", ID_LEN, m->entry->id);
    else if (e.class != ERR_DAMAGED)
        log_error("%.*s: %s", ID_LEN, m->entry->id, e.text);
    return ok < 0 && e.class == ERR_DAMAGED;
}

/* As message_load(), and of what was in new/ at the start, where a power cut may leave what was
 * never synced, all bytes are known to be there. */
static struct message *
load_whole(struct entry *entry, struct err *e)
{
    struct message *m = message_load(entry, e);
    if (!m || !(entry->flags & ENTRY_FOUND))
        return m;
    if (message_check(m, e) < 0) {
        message_free(m);
        return NULL;
    }
    entry->flags &= (uint8_t)~ENTRY_FOUND;
    return m;
}

int64_t
message_expire_s(const struct message *m)
{
    return m->env.sender.n == 0 ? qmgr.conf->queue.bounce_expire_s
           : m->bulk            ? qmgr.conf->queue.list_expire_s
                                : qmgr.conf->queue.expire_s;
}

/* Old enough, and tried half as often as that time allows at least. */
static bool
expired(const struct message *m)
{
    return message_age_s(m) > message_expire_s(m) && m->entry->attempts > 0 &&
           m->entry->attempts >= message_expire_s(m) / qmgr.conf->queue.retry_max_s / 2;
}

static void
give_up_expired(struct message *m)
{
    for (size_t i = 0; i < m->nrcpt; i++) {
        struct rcpt *r = m->rcpts[i];
        if (r->state != RCPT_TODO)
            continue;
        struct buf text = buf_new(REASON_MAX * 2);
        if (!str_starts(r->text, STR(EXPIRED_TEXT))) /* given up before: nobody could be told */
            buf_addz(&text, EXPIRED_TEXT);
        buf_add(&text, r->text.n ? r->text : STR("unknown"));
        message_outcome(m, r, OUTCOME_NEVER, STR("4.4.7"), buf_str(&text), STR("none"));
        buf_free(&text);
    }
}

static void
begin_attempt(struct message *m)
{
    m->flow->pins++;
    m->entry->flags &= (uint8_t)~ENTRY_FRESH;
    entry_become(m->entry, ENTRY_ACTIVE);
    m->entry->message = m;
    qmgr.nactive++;
    for (size_t i = 0; i < m->nrcpt; i++)
        m->open += m->rcpts[i]->state == RCPT_TODO;
    if (expired(m))
        give_up_expired(m);
    else
        route_submit(m);
    message_settle(m);
}

/* Whoever brought it, by what no stranger can make up: the account, else the client, else the kind
 * of mail. */
static struct str
account_of(const struct message *m)
{
    return m->env.login.n ? m->env.login : m->env.client.n ? m->env.client : m->env.origin;
}

static void
release_pinned(struct sched_route *route)
{
    route->pins--;
    sched_route_release(route, now_ms());
}

/* Whether there is room for it: on one of its routes at least. Else with what it is to be parked,
 * the first of them, pinned. */
static enum sched_admission
admission(const struct message *m, const struct sched_flow *flow, struct sched_route **route_r)
{
    enum sched_admission first = SCHED_ADMIT, now = SCHED_ADMIT;
    *route_r = NULL;
    for (size_t i = 0; i < m->nrcpt; i++) {
        struct sched_route *route =
            m->rcpts[i]->state == RCPT_TODO ? route_of_rcpt(m->rcpts[i]->address) : NULL;
        if (!route)
            continue;
        now = sched_admit(route, flow, qmgr.nactive);
        if (!*route_r) {
            first = now;
            *route_r = route;
            route->pins++;
        }
        sched_route_release(route, now_ms());
        if (now == SCHED_ADMIT || now == SCHED_FULL)
            break;
    }
    if (!*route_r || now == SCHED_PARK_ROUTE || now == SCHED_PARK_FLOW)
        return first;
    release_pinned(*route_r);
    return now;
}

/* Into memory, or to where it waits for that. tag: it was parked, and has its place. */
static void
admit(struct message *m, uint64_t tag)
{
    struct entry *entry = m->entry;
    struct sched_route *route = NULL;
    struct sched_flow *flow = sched_flow(account_of(m), m->bulk);
    if (!flow)
        log_fatal("out of memory for the queue");
    enum sched_admission a = tag || expired(m) ? SCHED_ADMIT : admission(m, flow, &route);
    if (a == SCHED_ADMIT) {
        m->flow = flow;
        m->tag = tag;
        begin_attempt(m);
        return;
    }
    message_free(m);
    if (a == SCHED_FULL) {
        sched_flow_release(flow);
        ready_add(entry);
        return;
    }
    ready_park(entry, a == SCHED_PARK_FLOW ? &flow->parked : &route->parked,
               sched_tag(route, flow, 1), route, flow);
    release_pinned(route);
}

void
message_adopt(struct entry *entry, struct arena *arena, struct envelope *env, int *fd)
{
    struct err e;
    struct message *m = qmgr.nactive < ACTIVE_MAX ? new_message(entry) : NULL;
    entry->flags |= ENTRY_AGED | ENTRY_FRESH;
    if (!m) {
        entry_wait(entry);
        return;
    }
    m->arena = *arena;
    m->arena.max = ARENA_MAX;
    *arena = arena_new(0);
    m->fd = *fd;
    *fd = -1;
    m->env = *env;
    if (take_envelope(m, &e) < 0) {
        message_free(m);
        entry->due_s = clock_steady_s() + 1;
        entry_wait(entry);
        return;
    }
    shape_learn(entry, m);
    admit(m, 0);
}

static void
try_later(struct entry *entry)
{
    entry->due_s = clock_steady_s() + qmgr.conf->queue.retry_min_s;
    entry_wait(entry);
}

static void
put_aside(struct entry *entry, const char *why)
{
    if (place_quarantine(entry, why) == 0)
        entry_drop(entry);
    else
        try_later(entry);
}

int
message_file(struct message *m)
{
    int fd = m->fd;
    m->fd = -1;
    return fd >= 0 ? fd : store_read_fd(m->entry);
}

void
message_start(struct entry *entry, uint64_t tag)
{
    struct err e;
    struct message *m = load_whole(entry, &e);
    if (m) {
        /* It may have been handed out before, by this process or another; then local looks through
         * the whole mailbox for it. */
        m->again = !(entry->flags & ENTRY_FRESH);
        admit(m, tag);
        return;
    }
    if (e.class == ERR_DAMAGED) {
        put_aside(entry, e.text);
    } else if (e.class == ERR_CLOSED) {
        log_warn("%.*s: its file has gone", ID_LEN, entry->id);
        entry_drop(entry);
    } else {
        log_error("%.*s: %s", ID_LEN, entry->id, e.text);
        try_later(entry);
    }
}

static void
log_outcome(const struct message *m, const struct rcpt *r, const char *status, struct str relay)
{
    double age = (double)(wall_us() - m->env.arrived_us) / 1e6;
    double active = (double)(now_ms() - m->loaded_ms) / 1e3;
    log_info("%.*s: to=<%s>, relay=%s, delay=%.2f, delays=%.2f/0/0/%.2f, dsn=%s, status=%s (%s)",
             ID_LEN, m->entry->id, log_str(message_bare(r->address)), log_str(relay),
             age < 0 ? 0 : age, age > active ? age - active : 0, active, r->dsn, status,
             log_str(r->text));
}

/* The sender wants to hear that it is done (RFC 3461 5.2.2 (b), 5.2.3 (a), 5.2.7.3 (c)). */
static void
owe(struct message *m, struct rcpt *r, enum report report)
{
    if (m->env.sender.n == 0 || !(r->notify & DSN_SUCCESS) || r->report != REPORT_NONE)
        return;
    r->report = (uint8_t)report;
    m->owed++;
}

static void
owe_done(struct message *m, struct rcpt *r, enum outcome outcome, struct str relay)
{
    char said[2 * REASON_MAX];
    if (outcome == OUTCOME_DONE && message_is_local(r->address))
        owe(m, r, REPORT_DELIVERED);
    if (outcome != OUTCOME_RELAYED)
        return; /* DONE: the next host reports, having been asked to */
    owe(m, r, REPORT_RELAYED);
    if (r->report == REPORT_NONE)
        return;
    snprintf(said, sizeof said, "host %.*s said: %.*s", STR_ARG(str_sub(relay, 0, 300)),
             STR_ARG(r->text));
    r->text = arena_str(&m->arena, str_sub(str_z(said), 0, REASON_MAX));
}

void
message_outcome(struct message *m, struct rcpt *r, enum outcome outcome, struct str dsn,
                struct str text, struct str relay)
{
    static const char *const status[] = {"sent",     "deferred", "bounced",
                                         "expanded", "sent",     "deferred"};
    static const enum rcpt_state state[] = {RCPT_DONE, RCPT_LATER, RCPT_NEVER,
                                            RCPT_DONE, RCPT_DONE,  RCPT_LATER};
    static const enum queue_stat counted[] = {STAT_SENT,     STAT_DEFERRED, STAT_BOUNCED,
                                              STAT_EXPANDED, STAT_SENT,     STAT_DEFERRED};
    r->state = state[outcome];
    r->text = arena_str(&m->arena, str_sub(text, 0, REASON_MAX));
    snprintf(r->dsn, sizeof r->dsn, "%.*s", STR_ARG(str_sub(dsn, 0, 11)));
    log_outcome(m, r, status[outcome], relay);
    stats_add(counted[outcome], 1);
    if (r->notify & DSN_SUCCESS)
        owe_done(m, r, outcome, relay);
    m->open--;
    if (outcome == OUTCOME_DAMAGED && !m->damaged)
        m->damaged = is_damaged(m);
}

int
message_expand(struct message *m, struct rcpt *r, const struct str *addresses, size_t n)
{
    struct err e = {0};
    struct buf record = buf_new(2 << 20);
    size_t before = m->nrcpt, owed = m->owed;
    /* RFC 3461 5.2.7.2: an alias of one address is that address; 5.2.7.3 (c): of several, the
     * sender is told of the alias, not of them. */
    unsigned notify = n > 1 ? dsn_notify_expanded(r->notify) : r->notify;
    int ok = 0;
    for (size_t i = 0; ok == 0 && i < n; i++)
        if (message_add_expanded(m, r, notify, addresses[i]) < 0)
            ok = message_has_room(m, addresses[i]) ? -1 : -2;
    if (ok == 0) {
        journal_put_expanded(&record, r->index, notify, m->rcpts + before, m->nrcpt - before);
        if (n > 1)
            owe(m, r, REPORT_EXPANDED);
        if (r->report)
            journal_put_owed(&record, r);
        ok = journal_append(m, &record, true, &e);
        if (ok < 0)
            log_error("%s", e.text);
    }
    buf_free(&record);
    if (ok < 0) {
        m->nrcpt = before;
        m->owed = owed;
        r->report = REPORT_NONE;
        return ok;
    }
    r->marked = true;
    m->open += m->nrcpt - before;
    return 0;
}

static size_t
count_state(const struct message *m, enum rcpt_state state)
{
    size_t n = 0;
    for (size_t i = 0; i < m->nrcpt; i++)
        n += m->rcpts[i]->state == state;
    return n;
}

/* A bounce that failed is told to the postmaster, once: what comes of that has another origin. So
 * many of them in an hour, which a flood of forged senders must not exceed. */
static bool
double_bounces(const struct message *m)
{
    static int64_t since_s;
    static unsigned n;
    if (m->entry->origin != 'b' || !str_eq(m->env.origin, STR(ORIGIN_BOUNCE)))
        return false;
    if (n == 0 || clock_steady_s() - since_s >= DOUBLES_S) {
        since_s = clock_steady_s();
        n = 0;
    }
    return n < DOUBLES_MAX && ++n;
}

/* Whom to tell of what failed. False: nobody. */
static bool
whom_to_tell(const struct message *m, enum bounce_kind *kind_r)
{
    *kind_r = m->env.sender.n ? BOUNCE_FAILED : BOUNCE_DOUBLE;
    if (m->env.sender.n) {
        bool wanted = bounce_wanted(m, BOUNCE_FAILED);
        if (!wanted)
            log_info("%.*s: undeliverable; its sender wants no notice", ID_LEN, m->entry->id);
        return wanted;
    }
    if (double_bounces(m))
        return true;
    /* RFC 5321 6.1: never a bounce of a bounce. */
    log_warn("%.*s: undeliverable, from <>: dropped without notice (%zu since the start)", ID_LEN,
             m->entry->id, ++qmgr.dropped);
    return false;
}

/* One DSN for all that failed; when it cannot be written now, they are tried again later. */
static void
bounce_failed(struct message *m)
{
    struct err e = {0};
    enum bounce_kind kind;
    enum rcpt_state state = RCPT_BOUNCED;
    if (whom_to_tell(m, &kind) && bounce_send(m, kind, &e) < 0) {
        log_error("%.*s: cannot write the bounce: %s", ID_LEN, m->entry->id, e.text);
        state = RCPT_LATER;
    }
    for (size_t i = 0; i < m->nrcpt; i++)
        if (m->rcpts[i]->state == RCPT_NEVER)
            m->rcpts[i]->state = state;
}

/* One report for all that are done and whose sender asked for it. When it cannot be written now it
 * stays owed, until the message is as old as a message may be. */
static void
report_done(struct message *m)
{
    struct err e = {0};
    if (bounce_send(m, BOUNCE_DONE, &e) < 0) {
        log_error("%.*s: cannot write the report: %s", ID_LEN, m->entry->id, e.text);
        if (!expired(m))
            return;
    }
    for (size_t i = 0; i < m->nrcpt; i++)
        if (m->rcpts[i]->report) {
            m->rcpts[i]->report = REPORT_NONE;
            m->rcpts[i]->marked = false;
        }
    m->owed = 0;
}

/* Those that are done or bounced and not yet on record; whether there are any. */
static bool
put_final(struct message *m, struct buf *out)
{
    bool any = false;
    for (size_t i = 0; i < m->nrcpt; i++) {
        struct rcpt *r = m->rcpts[i];
        if (r->marked || (r->state != RCPT_DONE && r->state != RCPT_BOUNCED))
            continue;
        if (r->report)
            journal_put_owed(out, r);
        else
            journal_put_rcpt(out, r->index, r->state);
        any = true;
    }
    return any;
}

static void
set_marked(struct message *m)
{
    for (size_t i = 0; i < m->nrcpt; i++)
        if (m->rcpts[i]->state == RCPT_DONE || m->rcpts[i]->state == RCPT_BOUNCED)
            m->rcpts[i]->marked = true;
}

/* The others may take hours yet, and a process after us must not deliver again what is done. It is
 * written and not synced: that is for record(), when the message is put off. */
void
message_mark(struct message *m)
{
    struct err e;
    struct buf out = buf_new(4 << 20);
    if (m->open && put_final(m, &out)) {
        m->unsynced = true;
        if (journal_append(m, &out, false, &e) < 0)
            log_error("%s", e.text);
        else
            set_marked(m);
    }
    buf_free(&out);
}

/* The last reason of each, once; a journal that has grown long takes no more of them. */
static void
put_reasons(struct message *m, struct buf *out)
{
    for (size_t i = 0; i < m->nrcpt; i++) {
        struct rcpt *r = m->rcpts[i];
        if (r->state != RCPT_LATER || str_eq(r->text, r->recorded) ||
            m->journal_size + out->n > JOURNAL_REASONS_MAX)
            continue;
        journal_put_deferred(out, r->index, r->text);
        r->recorded = r->text;
    }
}

/* What is final goes on record, durably, before the message waits for its next attempt. -1: it
 * could not be written, and would be done a second time if it were forgotten now. */
static int
record(struct message *m)
{
    struct err e;
    struct buf out = buf_new(8 << 20);
    bool final = put_final(m, &out) || m->unsynced || m->warned_now;
    put_reasons(m, &out);
    if (m->warned_now)
        journal_put_warned(&out);
    journal_put_attempt(&out, m->entry->attempts, message_age_s(m));
    int ok = journal_append(m, &out, final, &e);
    if (ok == 0)
        set_marked(m);
    else
        log_error("%s", e.text);
    for (size_t i = 0; ok < 0 && i < m->nrcpt; i++)
        m->rcpts[i]->recorded = STR("");
    buf_free(&out);
    return final ? ok : 0;
}

/* One notice of a delay, to people only and who asks for it, and only while there is hope. */
static bool
warn(struct message *m)
{
    struct err e;
    if (m->warned || message_age_s(m) < (int64_t)qmgr.conf->queue.warn_after_s ||
        !bounce_wanted(m, BOUNCE_DELAYED))
        return false;
    if (bounce_send(m, BOUNCE_DELAYED, &e) < 0) {
        log_error("%.*s: cannot write the notice of delay: %s", ID_LEN, m->entry->id, e.text);
        return false;
    }
    m->warned = true;
    return true;
}

/* Twice as long each time, with some jitter so that what failed together is not tried together. */
static int64_t
backoff_s(const struct entry *entry)
{
    const struct conf *conf = qmgr.conf;
    unsigned shift = entry->attempts > 20 ? 20 : entry->attempts ? entry->attempts - 1 : 0;
    int64_t wait = (int64_t)conf->queue.retry_min_s << shift;
    unsigned char random = 0;
    if (wait > (int64_t)conf->queue.retry_max_s)
        wait = conf->queue.retry_max_s;
    (void)!getrandom(&random, sizeof random, 0);
    return wait + wait * random * JITTER_PERCENT / (100 * 255);
}

static void finish_put_off(struct message *m);

/* The disk has had a while; or the operator wants the message gone. */
static void
on_record_again(struct loop_timer *t)
{
    struct message *m = t->arg;
    if (m->entry->flags & ENTRY_REMOVE)
        message_settle(m);
    else
        finish_put_off(m);
}

static void
put_off(struct message *m)
{
    m->entry->attempts++;
    m->warned_now = warn(m) || m->warned_now; /* told before, and not on record yet */
    finish_put_off(m);
}

/* It stays in memory until what is final is on record. */
static void
finish_put_off(struct message *m)
{
    struct entry *entry = m->entry;
    if (record(m) < 0) {
        m->record_again = (struct loop_timer){.fire = on_record_again, .arg = m};
        if (loop_timer_set(&qmgr.loop, &m->record_again, now_ms() + RECORD_AGAIN_MS) < 0)
            log_fatal("out of memory for the queue");
        return;
    }
    entry->due_s = clock_steady_s() + backoff_s(entry);
    bool hold = entry->flags & ENTRY_HOLD;
    entry->flags &= (uint8_t)~ENTRY_HOLD;
    if ((hold ? place_hold(entry) : place_defer(entry)) < 0)
        log_error("%.*s: cannot put it off: %s", ID_LEN, entry->id, strerror(errno));
    shape_learn(entry, m);
    message_free(m);
    if (entry->place != PLACE_HOLD) {
        entry_wait(entry);
        return;
    }
    log_info("%.*s: placed on hold", ID_LEN, entry->id);
    entry_become(entry, ENTRY_HELD);
    place_sync();
}

void
message_settle(struct message *m)
{
    struct entry *entry = m->entry;
    if (m->open)
        return;
    if (m->damaged && !(entry->flags & ENTRY_REMOVE)) {
        (void)record(m); /* for who mends the file and puts it back */
        message_free(m);
        put_aside(entry, "damaged queue file: its message is not what was written");
        return;
    }
    if (count_state(m, RCPT_NEVER))
        bounce_failed(m);
    if (m->owed)
        report_done(m);
    bool unfinished = m->owed || count_state(m, RCPT_LATER) || count_state(m, RCPT_TODO);
    if (unfinished && !(entry->flags & ENTRY_REMOVE)) {
        put_off(m);
        return;
    }
    if (store_remove(entry, m->journaled) < 0) {
        put_off(m); /* with all marks on record: what is left to do is its removal */
        return;
    }
    log_info("%.*s: removed%s", ID_LEN, entry->id, unfinished ? " by the operator" : "");
    message_free(m);
    entry_drop(entry);
}
