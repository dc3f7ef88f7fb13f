#include "lib/ipc/channel.h"
#include "lib/base/siphash.h"
#include "lib/log/log.h"
#include "qmgr/qmgr.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    BUCKETS = 4096,
    JOB_RCPTS = 50, /* in one DELIVER: they fit its 64 KiB */
    LANE_IDLE_MS = 2000,
    FAILURES_DEAD = 3, /* in a row, and the destination is left alone for a while */
    DEATHS_MAX = 3,    /* of the process that had a job */
    START_LIMIT = 5,
    DOMAIN_MAX = 255,
};

struct route;
struct job { /* the recipients of one message that go one way together */
    struct message *message;
    struct rcpt *rcpts;
    size_t n, open;
    unsigned deaths;
    struct job *next;
};

struct lane { /* a channel to a process of local or relay that serves one route */
    struct route *route;
    struct client *client;
    struct job *job; /* NULL: idle */
    struct loop_timer idle;
    struct lane *next_idle;
    int64_t opened_ms;
    struct arena arena; /* addresses of an expansion that is being told */
    struct str *expanded;
    size_t nexpanded;
    uint32_t expanded_index;
};

struct route {
    char domain[DOMAIN_MAX + 1]; /* "" is local */
    struct job *first, *tail;
    struct lane *idle;
    size_t lanes, limit;
    unsigned failures; /* in a row */
    int64_t dead_until_ms;
    char dead_reason[REASON_MAX];
    struct loop_timer retry;
    struct route *next;         /* in its bucket */
    struct route *next_waiting; /* for a lane of the common limit */
    bool waiting;
};

static struct {
    struct route *buckets[BUCKETS];
    struct sipkey key;
    size_t relay_lanes, local_lanes;
    struct route *waiting, **waiting_last;
    int64_t renewed_ms; /* lanes opened before lead to processes with the old tables */
} the = {.waiting_last = &the.waiting};

static void pump(struct route *route);

static struct str
route_key(struct str address)
{
    if (message_is_local(address))
        return STR("");
    if (qmgr.conf->relay.host.n)
        return qmgr.conf->relay.host;
    return str_from(address, (size_t)str_rchr(address, '@') + 1);
}

static void
on_retry(struct loop_timer *t)
{
    pump(t->arg);
}

/* Strangers choose the domains: no bucket may be theirs to choose. */
static void
make_key(void)
{
    static bool made;
    if (!made && getrandom(&the.key, sizeof the.key, 0) != sizeof the.key)
        log_fatal("getrandom: %s", strerror(errno));
    made = true;
}

static struct route *
find_route(struct str domain)
{
    char lower[DOMAIN_MAX + 1];
    struct str key = str_sub(domain, 0, DOMAIN_MAX);
    make_key();
    for (size_t i = 0; i < key.n; i++)
        lower[i] = ch_lower(key.p[i]);
    lower[key.n] = '\0';
    struct route **bucket = &the.buckets[siphash(&the.key, str_of(lower, key.n)) % BUCKETS];
    for (struct route *r = *bucket; r; r = r->next)
        if (strcmp(r->domain, lower) == 0)
            return r;
    struct route *r = calloc(1, sizeof *r);
    if (!r)
        log_fatal("out of memory for the queue");
    memcpy(r->domain, lower, key.n + 1);
    r->limit = key.n ? START_LIMIT : qmgr.conf->queue.local_max;
    r->retry = (struct loop_timer){.fire = on_retry, .arg = r};
    r->next = *bucket;
    *bucket = r;
    return r;
}

/* A route that does nothing and knows nothing is forgotten. */
static void
drop_if_unused(struct route *route)
{
    if (route->first || route->lanes || route->waiting)
        return;
    if (route->dead_until_ms > now_ms()) {
        loop_timer_set(&qmgr.loop, &route->retry, route->dead_until_ms);
        return;
    }
    struct str domain = str_z(route->domain);
    struct route **link = &the.buckets[siphash(&the.key, domain) % BUCKETS];
    while (*link != route)
        link = &(*link)->next;
    *link = route->next;
    loop_timer_del(&qmgr.loop, &route->retry);
    free(route);
}

static struct str
relay_name(const struct route *route)
{
    return route->domain[0] ? str_z(route->domain) : STR("local");
}

/* Every recipient of a job that has no answer gets this one. */
static void
answer_all(struct route *route, struct job *job, const char *dsn, const char *text)
{
    struct message *m = job->message;
    for (struct rcpt *r = job->rcpts; r; r = r->next_in_job)
        if (r->state == RCPT_SENT)
            message_outcome(m, r, OUTCOME_LATER, str_z(dsn), str_z(text), relay_name(route));
    free(job);
    message_settle(m);
}

/* At the end of the queue; the route is looked at in this turn, but not from here: pumping may
 * settle messages that the caller still holds. */
static void
enqueue(struct route *route, struct job *job)
{
    if (route->first)
        route->tail->next = job;
    else
        route->first = job;
    route->tail = job;
    loop_timer_set(&qmgr.loop, &route->retry, now_ms());
}

static struct job *
dequeue(struct route *route)
{
    struct job *job = route->first;
    if (job) {
        route->first = job->next;
        if (!route->first)
            route->tail = NULL;
    }
    return job;
}

void
route_submit(struct message *m)
{
    for (size_t i = 0; i < m->nrcpt; i++) {
        struct rcpt *r = m->rcpts[i];
        if (r->state != RCPT_TODO)
            continue;
        struct route *route = find_route(route_key(r->address));
        struct job *job = route->tail; /* it may be ours, and have room */
        if (!job || job->message != m || job->n == JOB_RCPTS) {
            job = calloc(1, sizeof *job);
            if (!job)
                log_fatal("out of memory for the queue");
            job->message = m;
            enqueue(route, job);
        }
        r->state = RCPT_SENT;
        r->next_in_job = job->rcpts;
        job->rcpts = r;
        job->n++;
        job->open++;
    }
}

static void
unlink_idle(struct lane *lane)
{
    for (struct lane **link = &lane->route->idle; *link; link = &(*link)->next_idle)
        if (*link == lane) {
            *link = lane->next_idle;
            return;
        }
}

static void
on_idle(struct loop_timer *t)
{
    struct lane *lane = t->arg;
    unlink_idle(lane); /* no job may be put on it between now and its end */
    service_close(lane->client);
}

static void
rest_lane(struct lane *lane)
{
    if (lane->opened_ms < the.renewed_ms) {
        service_close(lane->client);
        return;
    }
    lane->next_idle = lane->route->idle;
    lane->route->idle = lane;
    loop_timer_set(&qmgr.loop, &lane->idle, now_ms() + LANE_IDLE_MS);
}

static struct lane *
open_lane(struct route *route)
{
    struct err e = {0};
    struct msg m = {0};
    enum role role = route->domain[0] ? R_RELAY : R_LOCAL;
    struct lane *lane = calloc(1, sizeof *lane);
    int fd = lane ? start_channel(qmgr.start, role, NULL, &e) : -1;
    if (fd >= 0) {
        msg_begin(&m, M_ROUTE);
        msg_put_str(&m, str_z(route->domain));
        if (msg_send(fd, &m) == 0)
            lane->client = service_adopt(&qmgr.service, fd, role, lane);
        msg_free(&m);
        if (!lane->client)
            close(fd);
    }
    if (!lane || !lane->client) {
        log_error("no way to %s: %s", role_name(role), e.text);
        free(lane);
        return NULL;
    }
    lane->route = route;
    lane->arena = arena_new(4 << 20);
    lane->opened_ms = now_ms();
    lane->idle = (struct loop_timer){.fire = on_idle, .arg = lane};
    route->lanes++;
    *(role == R_RELAY ? &the.relay_lanes : &the.local_lanes) += 1;
    return lane;
}

/* An idle lane, or a new one within the limits; NULL when the job must wait. */
static struct lane *
get_lane(struct route *route)
{
    struct lane *lane = route->idle;
    if (lane) {
        route->idle = lane->next_idle;
        loop_timer_del(&qmgr.loop, &lane->idle);
        return lane;
    }
    if (route->lanes >= route->limit)
        return NULL;
    if (route->domain[0] && the.relay_lanes >= qmgr.conf->queue.relay_max) {
        if (!route->waiting) {
            route->waiting = true;
            route->next_waiting = NULL;
            *the.waiting_last = route;
            the.waiting_last = &route->next_waiting;
        }
        return NULL;
    }
    lane = open_lane(route);
    if (!lane)
        loop_timer_set(&qmgr.loop, &route->retry, now_ms() + 1000);
    return lane;
}

/* 0; -1 when the channel takes it not. */
static int
send_job(struct lane *lane, struct job *job, int fd)
{
    struct message *m = job->message;
    struct msg out = {0};
    msg_begin(&out, M_DELIVER);
    msg_put_str(&out, str_of(m->entry->id, ID_LEN));
    msg_put_str(&out, m->env.sender);
    msg_put_u64(&out, (uint64_t)m->env.arrived_us);
    msg_put_u64(&out, m->env.message_offset);
    msg_put_u64(&out, m->env.message_size);
    msg_put_bool(&out, m->again || job->deaths);
    msg_put_u32(&out, m->env.eight_bit);
    msg_put_u32(&out, (uint32_t)job->open);
    for (struct rcpt *r = job->rcpts; r; r = r->next_in_job)
        if (r->state == RCPT_SENT) {
            msg_put_u32(&out, r->index);
            msg_put_str(&out, r->address);
        }
    msg_add_fd(&out, fd);
    int ok = msg_send(lane->client->io.fd, &out);
    int saved = errno;
    msg_free(&out);
    errno = saved;
    return ok;
}

/* The lane has the job from here on, and if its channel turns out to be dead (the process at its
 * other end has just gone, idle), route_gone() takes it back. */
static void
hand_over(struct lane *lane, struct job *job)
{
    struct route *route = lane->route;
    int fd = store_read_fd(job->message->entry);
    if (fd < 0) {
        log_error("%.*s: cannot open it: %s", ID_LEN, job->message->entry->id, strerror(errno));
        rest_lane(lane);
        answer_all(route, job, "4.3.0", "the queue file cannot be opened");
        return;
    }
    lane->job = job;
    if (send_job(lane, job, fd) < 0) {
        log_debug("%.*s: cannot hand it to %s: %s", ID_LEN, job->message->entry->id,
                  route->domain[0] ? "relay" : "local", strerror(errno));
        service_close(lane->client);
    }
    close(fd);
}

static void
fail_dead(struct route *route)
{
    struct job *job;
    while ((job = dequeue(route)))
        answer_all(route, job, "4.4.1", route->dead_reason);
}

static void
pump(struct route *route)
{
    if (route->dead_until_ms > now_ms())
        fail_dead(route);
    while (route->first) {
        struct lane *lane = get_lane(route);
        if (!lane)
            return;
        hand_over(lane, dequeue(route));
    }
    drop_if_unused(route);
}

static struct rcpt *
rcpt_of(const struct lane *lane, uint32_t index)
{
    for (struct rcpt *r = lane->job ? lane->job->rcpts : NULL; r; r = r->next_in_job)
        if (r->index == index && r->state == RCPT_SENT)
            return r;
    return NULL;
}

static void
forget_expansion(struct lane *lane)
{
    arena_reset(&lane->arena);
    lane->expanded = NULL;
    lane->nexpanded = 0;
}

static int
on_expand(struct lane *lane, struct msg *in)
{
    uint32_t index = msg_get_u32(in), n = msg_get_u32(in);
    if (n > EXPANDED_MAX || !rcpt_of(lane, index) ||
        (lane->nexpanded && lane->expanded_index != index))
        return -1;
    if (!lane->expanded)
        lane->expanded = arena_array(&lane->arena, EXPANDED_MAX, sizeof *lane->expanded);
    lane->expanded_index = index;
    for (uint32_t i = 0; i < n && lane->expanded; i++) {
        struct str address = arena_str(&lane->arena, msg_get_str(in));
        if (lane->nexpanded == EXPANDED_MAX || !address.p)
            return -1;
        lane->expanded[lane->nexpanded++] = address;
    }
    return lane->expanded && msg_end(in) ? 0 : -1;
}

/* Concurrency follows success: one more for each delivery, half for each failure to reach it. */
static void
learn(struct route *route, enum outcome outcome, struct str dsn, struct str text)
{
    if (!route->domain[0])
        return;
    if (outcome != OUTCOME_LATER || !str_starts(dsn, STR("4.4."))) {
        route->failures = 0;
        if (route->limit < qmgr.conf->queue.destination_max)
            route->limit++;
        return;
    }
    route->limit = route->limit > 1 ? route->limit / 2 : 1;
    if (++route->failures < FAILURES_DEAD)
        return;
    route->failures = 0;
    route->dead_until_ms = now_ms() + (int64_t)qmgr.conf->queue.retry_min_s * 1000;
    snprintf(route->dead_reason, sizeof route->dead_reason, "%.*s", STR_ARG(text));
    log_warn("destination %s is left alone for %u s: %s", log_str(str_z(route->domain)),
             qmgr.conf->queue.retry_min_s, log_str(text));
}

static void
finish_job(struct lane *lane)
{
    struct route *route = lane->route;
    struct job *job = lane->job;
    struct message *m = job->message;
    lane->job = NULL;
    rest_lane(lane);
    free(job);
    message_mark(m);
    message_settle(m);
    pump(route);
}

static int
on_outcome(struct lane *lane, struct msg *in)
{
    uint32_t index = msg_get_u32(in), outcome = msg_get_u32(in);
    struct str dsn = msg_get_str(in), text = msg_get_str(in), relay = msg_get_str(in);
    struct rcpt *r = rcpt_of(lane, index);
    if (!msg_end(in) || !r || outcome > OUTCOME_EXPANDED)
        return -1;
    struct message *m = lane->job->message;
    if (outcome == OUTCOME_EXPANDED) {
        if (lane->nexpanded == 0 || lane->expanded_index != index)
            return -1;
        if (message_expand(m, r, lane->expanded, lane->nexpanded) < 0) {
            outcome = OUTCOME_LATER;
            dsn = STR("4.3.0");
            text = STR("the expansion could not be recorded");
        }
    }
    message_outcome(m, r, (enum outcome)outcome, dsn, text,
                    relay.n ? relay : relay_name(lane->route));
    if (outcome == OUTCOME_EXPANDED)
        route_submit(m);
    forget_expansion(lane);
    learn(lane->route, (enum outcome)outcome, dsn, text);
    if (--lane->job->open == 0)
        finish_job(lane);
    return 0;
}

void
route_message(struct client *c, struct msg *in)
{
    struct lane *lane = c->state;
    int ok = !lane                   ? -1 /* a channel that we did not open */
             : in->type == M_EXPAND  ? on_expand(lane, in)
             : in->type == M_OUTCOME ? on_outcome(lane, in)
                                     : -1;
    if (ok == 0)
        return;
    log_warn("%s answered what it was not asked", role_name(c->role));
    service_close(c);
}

/* The process went away in the middle of a job: what it answered stands, the rest is tried again.
 */
static void
take_back(struct route *route, struct job *job)
{
    if (++job->deaths >= DEATHS_MAX) {
        answer_all(route, job, "4.3.0", "the delivery process died");
        return;
    }
    job->next = route->first;
    route->first = job;
    if (!job->next)
        route->tail = job;
}

void
route_gone(struct client *c)
{
    struct lane *lane = c->state;
    if (!lane)
        return;
    struct route *route = lane->route;
    struct job *job = lane->job;
    unlink_idle(lane);
    loop_timer_del(&qmgr.loop, &lane->idle);
    route->lanes--;
    *(c->role == R_RELAY ? &the.relay_lanes : &the.local_lanes) -= 1;
    arena_free(&lane->arena);
    free(lane);
    if (job)
        take_back(route, job);
    if (c->role == R_RELAY && the.waiting) {
        struct route *next = the.waiting;
        the.waiting = next->next_waiting;
        if (!the.waiting)
            the.waiting_last = &the.waiting;
        next->waiting = false;
        loop_timer_set(&qmgr.loop, &next->retry, now_ms());
    }
    /* Not at once: a process that dies at every job must not make us spin. */
    loop_timer_set(&qmgr.loop, &route->retry, now_ms() + (job ? 100 : 0));
}

void
route_forget_failures(void)
{
    for (size_t i = 0; i < BUCKETS; i++)
        for (struct route *r = the.buckets[i]; r; r = r->next) {
            r->dead_until_ms = 0;
            r->failures = 0;
        }
}

/* local and relay are being replaced: no lane to one of before is used for another message, busy as
 * it may be kept. Those that are opened while the old ones still take channels count as old, too.
 */
void
route_renew(void)
{
    enum { REPLACED_MS = 1000 };
    the.renewed_ms = now_ms() + REPLACED_MS;
    for (size_t i = 0; i < BUCKETS; i++)
        for (struct route *r = the.buckets[i]; r; r = r->next)
            while (r->idle) {
                struct lane *lane = r->idle;
                r->idle = lane->next_idle;
                loop_timer_del(&qmgr.loop, &lane->idle);
                service_close(lane->client);
            }
}
