#include "lib/base/siphash.h"
#include "lib/log/log.h"
#include "qmgr/qmgr.h"
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

/*
 * Counts of messages by destination and age. Each message is counted once, at the domain of its
 * first open recipient; what has not been read since the start is counted apart, and read little by
 * little. Ages change by themselves: the index is in order of arrival, so those that grow into the
 * next class lie together, between where the border was and where it is now.
 */
enum {
    CLASSES = 10,
    BORDERS = CLASSES - 1,
    DESTS_MAX = 20000, /* named; all others are counted together */
    UNREAD = 0,
    OTHERS = 1,
    DOMAIN_MAX = 255,
    BUCKETS = 8192,
    TICK_MS = 5000,
    SURVEY_MS = 20,
    SURVEY_AT_ONCE = 20,
    SURVEY_LOOKED_AT = 5000,
    BUSY = 50, /* messages in memory: then the survey waits */
    PAGE = 100,
};
static const int64_t border_s[BORDERS] = {300, 600, 1200, 2400, 4800, 9600, 19200, 38400, 76800};

struct dest {
    char *domain; /* NULL: not in use */
    uint64_t held, by_age[CLASSES];
    uint32_t next; /* in its bucket, or in the free list */
};

static struct {
    struct dest *at;
    uint32_t n, cap, free;
    uint32_t buckets[BUCKETS]; /* 0: none */
    struct sipkey key;
    int64_t borders[BORDERS]; /* arrival times, wall clock */
    struct loop_timer tick, survey;
    char surveyed[ID_LEN];
} the;

static uint8_t
class_of(const struct entry *entry)
{
    int64_t arrived_s = entry_arrived_s(entry);
    uint8_t k = 0;
    while (k < BORDERS && arrived_s < the.borders[k])
        k++;
    return k;
}

static int
grow(void)
{
    uint32_t cap = the.cap ? 2 * the.cap : 64;
    struct dest *at = reallocarray(the.at, cap, sizeof *at);
    if (!at)
        return -1;
    memset(at + the.cap, 0, (cap - the.cap) * sizeof *at);
    the.at = at;
    the.cap = cap;
    if (the.n == 0)
        the.n = OTHERS + 1;
    return 0;
}

static uint32_t *
bucket_of(const char *domain)
{
    return &the.buckets[siphash(&the.key, str_z(domain)) % BUCKETS];
}

/* The line of a domain, made if there is room for it. */
static uint32_t
line_of(struct str name)
{
    char lower[DOMAIN_MAX + 1];
    if (name.n == 0 || name.n > DOMAIN_MAX)
        return OTHERS;
    for (size_t i = 0; i < name.n; i++)
        lower[i] = ch_lower(name.p[i]);
    lower[name.n] = '\0';
    uint32_t *bucket = bucket_of(lower);
    for (uint32_t i = *bucket; i; i = the.at[i].next)
        if (strcmp(the.at[i].domain, lower) == 0)
            return i;
    uint32_t i = the.free;
    char *copy = i || the.n < DESTS_MAX ? strdup(lower) : NULL;
    if (!copy || (!i && the.n == the.cap && grow() < 0)) {
        free(copy);
        return OTHERS;
    }
    if (i)
        the.free = the.at[i].next;
    else
        i = the.n++;
    the.at[i] = (struct dest){.domain = copy, .next = *bucket};
    *bucket = i;
    return i;
}

static void
count(const struct entry *entry, int by)
{
    struct dest *d = &the.at[entry->dest];
    d->by_age[entry->age_class] += (uint64_t)(int64_t)by;
    if (entry->state == ENTRY_HELD)
        d->held += (uint64_t)(int64_t)by;
}

static void
drop_if_empty(uint32_t i)
{
    struct dest *d = &the.at[i];
    if (i <= OTHERS)
        return;
    for (size_t k = 0; k < CLASSES; k++)
        if (d->by_age[k])
            return;
    uint32_t *link = bucket_of(d->domain);
    while (*link != i)
        link = &the.at[*link].next;
    *link = d->next;
    free(d->domain);
    *d = (struct dest){.next = the.free};
    the.free = i;
}

void
shape_add(struct entry *entry)
{
    if (the.cap == 0 && grow() < 0)
        log_fatal("out of memory for the queue");
    entry->age_class = class_of(entry);
    entry->dest = UNREAD;
    count(entry, 1);
}

void
shape_hold(const struct entry *entry, bool held)
{
    the.at[entry->dest].held += held ? 1 : (uint64_t)-1;
}

void
shape_drop(struct entry *entry)
{
    count(entry, -1);
    drop_if_empty(entry->dest);
}

void
shape_learn(struct entry *entry, const struct message *m)
{
    struct str domain = STR("");
    for (size_t i = 0; i < m->nrcpt; i++)
        if (m->rcpts[i]->state != RCPT_DONE && m->rcpts[i]->state != RCPT_BOUNCED) {
            struct str address = m->rcpts[i]->address;
            ptrdiff_t at = str_rchr(address, '@');
            domain = at < 0 ? qmgr.conf->hostname : str_from(address, (size_t)at + 1);
            break;
        }
    uint32_t line = line_of(domain), old = entry->dest;
    if (line == old)
        return;
    count(entry, -1);
    entry->dest = line;
    count(entry, 1);
    drop_if_empty(old);
}

static void
recount(int64_t from_s, int64_t to_s)
{
    struct index_at at = entry_arrived_from(from_s);
    struct entry *entry;
    while ((entry = index_next(&at)) && entry_arrived_s(entry) < to_s) {
        count(entry, -1);
        entry->age_class = class_of(entry);
        count(entry, 1);
    }
}

static void
move_borders(void)
{
    int64_t old[BORDERS], now = clock_wall_s();
    memcpy(old, the.borders, sizeof old);
    for (size_t k = 0; k < BORDERS; k++)
        the.borders[k] = now - border_s[k];
    for (size_t k = 0; k < BORDERS; k++)
        recount(old[k] < the.borders[k] ? old[k] : the.borders[k],
                old[k] < the.borders[k] ? the.borders[k] : old[k]);
}

static void
on_tick(struct loop_timer *t)
{
    clock_watch();
    move_borders();
    loop_timer_set(&qmgr.loop, t, now_ms() + TICK_MS);
}

static uint64_t
unread(void)
{
    uint64_t n = 0;
    for (size_t k = 0; k < CLASSES && the.at; k++)
        n += the.at[UNREAD].by_age[k];
    return n;
}

/* Reads (message_load() tells us) what nobody has read yet, while there is nothing better to do. */
static void
on_survey(struct loop_timer *t)
{
    struct index_at at = index_after(str_of(the.surveyed, the.surveyed[0] ? ID_LEN : 0));
    struct entry *entry = NULL;
    for (int n = 0, looked = 0; unread() && qmgr.nactive < BUSY && n < SURVEY_AT_ONCE &&
                                looked < SURVEY_LOOKED_AT && (entry = index_next(&at));
         looked++) {
        struct err e;
        memcpy(the.surveyed, entry->id, ID_LEN);
        if (entry->dest != UNREAD)
            continue;
        struct message *m = message_load(entry, &e);
        n++;
        if (m)
            message_free(m);
    }
    if (!entry && qmgr.nactive < BUSY)
        the.surveyed[0] = '\0';
    loop_timer_set(&qmgr.loop, t, now_ms() + (entry ? SURVEY_MS : TICK_MS));
}

void
shape_start(void)
{
    if (getrandom(&the.key, sizeof the.key, 0) != sizeof the.key)
        log_fatal("getrandom failed");
    the.tick.fire = on_tick;
    the.survey.fire = on_survey;
    move_borders();
    loop_timer_set(&qmgr.loop, &the.tick, now_ms() + TICK_MS);
    loop_timer_set(&qmgr.loop, &the.survey, now_ms() + TICK_MS);
}

static void
put_dest(struct msg *out, const struct dest *d, const char *name)
{
    msg_put_str(out, str_z(name));
    msg_put_u64(out, d->held);
    for (size_t k = 0; k < CLASSES; k++)
        msg_put_u64(out, d->by_age[k]);
}

static void
put_totals(struct msg *out)
{
    msg_put_u64(out, index_count());
    msg_put_u64(out, qmgr.states[ENTRY_ACTIVE]);
    msg_put_u64(out, qmgr.states[ENTRY_QUEUED]);
    msg_put_u64(out, qmgr.states[ENTRY_WAITS]);
    msg_put_u64(out, qmgr.states[ENTRY_HELD]);
    msg_put_u64(out, unread());
}

void
shape_answer(struct client *c, struct msg *in)
{
    struct msg out = {0}, rows = {0};
    uint32_t from = msg_get_u32(in), n = 0, i = from;
    if (!msg_end(in)) {
        service_close(c);
        return;
    }
    if (from == 0)
        move_borders();
    msg_begin(&rows, M_QUEUE_SHAPE_IS);
    for (; i < the.n && n < PAGE; i++)
        if (i <= OTHERS || the.at[i].domain) {
            put_dest(&rows, &the.at[i],
                     i == UNREAD   ? "(not read yet)"
                     : i == OTHERS ? "(others)"
                                   : the.at[i].domain);
            n++;
        }
    msg_begin(&out, M_QUEUE_SHAPE_IS);
    msg_put_bool(&out, i < the.n);
    msg_put_u32(&out, i);
    put_totals(&out);
    msg_put_u32(&out, n);
    buf_add(&out.fields, buf_str(&rows.fields));
    service_send(c, &out);
    msg_free(&rows);
    msg_free(&out);
}
