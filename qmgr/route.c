#include "lib/ipc/channel.h"
#include "lib/log/log.h"
#include "qmgr/lane.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

enum {
    JOB_RCPTS = 50, /* in one DELIVER: they fit its 64 KiB */
    DEATHS_MAX = 3, /* of the process that had a job */
    WINDOW_START = 5,
    ACCOUNT_SHARE = 4, /* of the local deliveries: one account has one part of so many at most */
    DEAD_MAX_S = 3600,
    DEAD_SLICE_MS = 4,
    DEATH_PAUSE_MS = 100,
    LOCAL_MARK_MS = 1000,
};

static struct loop_timer pump_timer;

void
route_configure(void)
{
    const struct conf *c = qmgr.conf;
    size_t share = c->queue.local_max / ACCOUNT_SHARE;
    int64_t dead_s = c->queue.retry_min_s;
    sched_limit(&(struct sched_limits){
        .pool_max = {[POOL_LOCAL] = c->queue.local_max, [POOL_RELAY] = c->queue.relay_max},
        .window_start =
            c->queue.destination_max < WINDOW_START ? c->queue.destination_max : WINDOW_START,
        .window_max = c->queue.destination_max,
        .account_max = share ? share : 1,
        .active_max = ACTIVE_MAX,
        .dead_ms = dead_s * 1000,
        .dead_max_ms = (dead_s > DEAD_MAX_S ? dead_s : DEAD_MAX_S) * 1000});
}

static void
add_lower(struct buf *out, struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        buf_addc(out, ch_lower(s.p[i]));
}

/* One local mailbox, however it is written: without case and subaddress. */
static void
local_key(struct buf *out, struct str address)
{
    address = message_bare(address);
    ptrdiff_t at = str_rchr(address, '@');
    struct str user = at < 0 ? address : str_sub(address, 0, (size_t)at);
    struct str domain = at < 0 ? qmgr.conf->domains[0] : str_from(address, (size_t)at);
    ptrdiff_t sub = qmgr.conf->delimiter.n ? str_chr(user, qmgr.conf->delimiter.p[0]) : -1;
    add_lower(out, sub > 0 ? str_sub(user, 0, (size_t)sub) : user);
    if (at < 0)
        buf_addc(out, '@');
    add_lower(out, domain);
}

/* NULL when its name is longer than any domain can be. */
struct sched_route *
route_of_rcpt(struct str address)
{
    enum { DOMAIN_MAX = 255 }; /* RFC 1035 2.3.4 */
    struct buf key = buf_new(SCHED_NAME_MAX + 1);
    bool local = message_is_local(address);
    if (local)
        local_key(&key, address);
    else if (qmgr.conf->relay.host.n)
        add_lower(&key, qmgr.conf->relay.host);
    else
        add_lower(&key, str_from(address, (size_t)str_rchr(address, '@') + 1));
    bool fits = buf_ok(&key) && (local || (key.n && key.n <= DOMAIN_MAX));
    struct sched_route *route =
        fits ? sched_route(local ? POOL_LOCAL : POOL_RELAY, buf_str(&key)) : NULL;
    buf_free(&key);
    if (fits && !route)
        log_fatal("out of memory for the queue");
    return route;
}

static void on_pump(struct loop_timer *t);

/* In this turn, but not from here: it may settle messages that the caller still holds. */
void
route_pump(void)
{
    pump_timer.fire = on_pump;
    if (!loop_timer_is_set(&pump_timer))
        loop_timer_set(&qmgr.loop, &pump_timer, now_ms());
}

static struct str
relay_name(const struct sched_route *route)
{
    return route->pool == POOL_RELAY ? str_z(route->name) : STR("local");
}

/* The job is over: nothing of it may be used behind this. */
static void
end_job(struct job *job)
{
    struct sched_route *route = job->sched.route;
    struct sched_flow *flow = job->sched.flow;
    struct message *m = job->message;
    route->pins++;
    flow->pins++;
    sched_end(&job->sched);
    free(job);
    message_settle(m);
    ready_unpin(route, flow);
    route_pump();
}

/* Every recipient of a job that has no answer gets this one. */
static void
answer_all(struct job *job, const char *dsn, const char *text)
{
    for (struct rcpt *r = job->rcpts; r; r = r->next_in_job)
        if (r->state == RCPT_SENT)
            message_outcome(job->message, r, OUTCOME_LATER, str_z(dsn), str_z(text),
                            relay_name(job->sched.route));
    end_job(job);
}

static struct job *
job_for(struct message *m, struct sched_route *route, struct job ***last)
{
    struct job *job = route->building;
    if (job && job->n < (route->pool == POOL_LOCAL ? 1 : JOB_RCPTS))
        return job;
    job = calloc(1, sizeof *job);
    if (!job)
        log_fatal("out of memory for the queue");
    job->message = m;
    job->sched.route = route;
    **last = job;
    *last = &job->next;
    route->building = job;
    return job;
}

static void
add_rcpt(struct job *job, struct rcpt *r)
{
    r->state = RCPT_SENT;
    r->next_in_job = job->rcpts;
    job->rcpts = r;
    job->n++;
    job->open++;
}

void
route_submit(struct message *m)
{
    struct job *building = NULL, **last = &building;
    for (size_t i = 0; i < m->nrcpt; i++) {
        struct rcpt *r = m->rcpts[i];
        if (r->state != RCPT_TODO)
            continue;
        struct sched_route *route = route_of_rcpt(r->address);
        if (route)
            add_rcpt(job_for(m, route, &last), r);
        else
            message_outcome(m, r, OUTCOME_NEVER, STR("5.1.2"), STR("no domain is so long"),
                            STR("none"));
    }
    for (struct job *job = building, *next; job; job = next) {
        next = job->next;
        struct sched_route *route = job->sched.route;
        route->building = NULL;
        job->sched.node.key = m->tag ? m->tag : sched_tag(route, m->flow, job->n);
        if (sched_push(&job->sched, route, m->flow, job->n) < 0)
            log_fatal("out of memory for the queue");
    }
    m->tag = 0;
    route_pump();
}

/* Whether the next host is to hear what the sender asked of reports. */
static bool
has_wishes(const struct lane *lane, const struct job *job)
{
    const struct envelope *env = &job->message->env;
    bool any = env->ret || env->envid.n;
    for (const struct rcpt *r = job->rcpts; r && !any; r = r->next_in_job)
        any = r->notify || r->orcpt.n;
    return any && lane->pool == POOL_RELAY;
}

static void
put_wishes(struct msg *out, const struct job *job)
{
    msg_put_u32(out, job->message->env.ret);
    msg_put_str(out, job->message->env.envid);
    for (const struct rcpt *r = job->rcpts; r; r = r->next_in_job)
        if (r->state == RCPT_SENT) {
            msg_put_u32(out, r->notify);
            msg_put_str(out, r->orcpt);
        }
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
    msg_put_u64(&out, m->env.message_check);
    msg_put_bool(&out, m->again || job->deaths);
    bool wishes = has_wishes(lane, job);
    msg_put_u32(&out, (m->env.eight_bit ? DELIVER_8BIT : 0) | (wishes ? DELIVER_DSN : 0));
    msg_put_u32(&out, (uint32_t)job->open);
    for (struct rcpt *r = job->rcpts; r; r = r->next_in_job)
        if (r->state == RCPT_SENT) {
            msg_put_u32(&out, r->index);
            msg_put_str(&out, r->address);
        }
    if (wishes)
        put_wishes(&out, job);
    msg_add_fd(&out, fd);
    int ok = msg_send(lane->client->io.fd, &out);
    int saved = errno;
    msg_free(&out);
    errno = saved;
    return ok;
}

static void
append(struct lane *lane, struct job *job)
{
    struct job **last = &lane->job;
    while (*last)
        last = &(*last)->next;
    *last = job;
    job->next = NULL;
    lane->njobs++;
}

/* The lane has the job from here on, and if its channel turns out to be dead (the process at its
 * other end has just gone, idle), route_gone() takes it back. */
static void
hand_over(struct lane *lane, struct job *job)
{
    int fd = message_file(job->message);
    if (fd < 0) {
        log_error("%.*s: cannot open it: %s", ID_LEN, job->message->entry->id, strerror(errno));
        answer_all(job, "4.3.0", "the queue file cannot be opened");
        return;
    }
    append(lane, job);
    if (send_job(lane, job, fd) < 0) {
        log_debug("%.*s: cannot hand it over: %s", ID_LEN, job->message->entry->id,
                  strerror(errno));
        service_close(lane->client);
    }
    close(fd);
}

static struct job *
job_of(struct sched_job *job)
{
    return (struct job *)(void *)((char *)job - offsetof(struct job, sched));
}

static void
push_back(struct job *job)
{
    if (sched_push_back(&job->sched) < 0)
        log_fatal("out of memory for the queue");
}

/* Whether the lane's route may have another job on it while others wait for a place. */
static bool
may_go_on(const struct lane *lane, const struct sched_route *route)
{
    return lane->burst + lane->njobs < SCHED_BURST || !sched_others_wait(route);
}

/* A job that a process died of, which is then found out, and one that takes long. */
static bool
goes_alone(const struct job *job)
{
    return job->deaths || job->message->env.message_size > LANE_ALONE_SIZE;
}

/* More of the same route behind what the lane has. */
static void
hand_ahead(struct lane *lane)
{
    size_t max = lane->pool == POOL_LOCAL ? LANE_LOCAL_JOBS : LANE_RELAY_JOBS;
    while (lane->job && lane->njobs < max && !goes_alone(lane->job) && !lane->client->closing &&
           may_go_on(lane, lane->job->sched.route)) {
        struct sched_job *next = sched_pull_ahead(lane->job->sched.route, now_ms());
        if (next && goes_alone(job_of(next))) {
            push_back(job_of(next));
            next = NULL;
        }
        if (!next)
            break;
        hand_over(lane, job_of(next));
    }
}

static void
set_off(struct lane *lane, struct job *job)
{
    hand_over(lane, job);
    hand_ahead(lane);
    if (!lane->job)
        lane_rest(lane);
}

static void
pump_pool(enum sched_pool pool)
{
    struct sched_job *next;
    while (!lane_trouble(pool, now_ms()) && (next = sched_pull(pool, now_ms()))) {
        struct lane *lane = lane_get(next->route);
        if (lane)
            set_off(lane, job_of(next));
        else
            push_back(job_of(next));
    }
}

/* Mail for destinations that are left alone is put off, a little in each turn. */
static bool
pump_dead(void)
{
    const char *reason;
    struct sched_job *next;
    int64_t end = now_ms() + DEAD_SLICE_MS;
    while (now_ms() < end) {
        if (!(next = sched_pull_dead(now_ms(), &reason)))
            return false;
        answer_all(job_of(next), "4.4.1", reason);
    }
    return true;
}

static void
on_pump(struct loop_timer *t)
{
    pump_pool(POOL_LOCAL);
    pump_pool(POOL_RELAY);
    bool more = pump_dead();
    bool trouble = lane_trouble(POOL_LOCAL, now_ms()) || lane_trouble(POOL_RELAY, now_ms());
    if (more || trouble)
        loop_timer_set(&qmgr.loop, t, now_ms() + (more ? 1 : 1000));
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

/* Whether a destination was not reached, or did not want to talk at all (RFC 5321 3.8: 421). */
static bool
unreached(enum outcome outcome, struct str dsn, struct str text)
{
    return outcome == OUTCOME_LATER &&
           (str_starts(dsn, STR("4.4.")) || str_find(text, STR(" said: 421")) >= 0 ||
            str_starts(text, STR("421")));
}

/* "mx.example.org[192.0.2.1]:25" is the host mx.example.org. */
static void
learn_host(struct job *job, struct str relay)
{
    char lower[SCHED_NAME_MAX + 1];
    ptrdiff_t end = str_chr(relay, '[');
    if (job->sched.route->pool != POOL_RELAY || end <= 0 || end > SCHED_NAME_MAX)
        return;
    for (ptrdiff_t i = 0; i < end; i++)
        lower[i] = ch_lower(relay.p[i]);
    sched_seen(&job->sched, str_of(lower, (size_t)end));
}

/* The destination as a whole, by what became of one job. */
static void
learn(struct job *job)
{
    struct sched_site *site = job->sched.site;
    int64_t dead_ms;
    if (job->reached)
        sched_good(site);
    else if (job->failed && sched_bad(site, job->why, now_ms(), &dead_ms))
        log_warn("destination %s (%s) is left alone for %lld s: %s",
                 log_str(str_z(job->sched.route->name)), log_str(str_z(sched_site_name(site))),
                 (long long)(dead_ms / 1000), log_str(job->why));
}

/* Another job of the same route goes on over the same connection, for a while even when other
 * routes wait for one. */
static void
go_on(struct lane *lane)
{
    struct sched_job *next = NULL;
    lane->burst++;
    if (lane->job) {
        sched_step_up(&lane->job->sched);
        if (lane->route)
            hand_ahead(lane);
        return;
    }
    if (lane->route && may_go_on(lane, lane->route))
        next = sched_pull_from(lane->route, now_ms());
    if (next)
        set_off(lane, job_of(next));
    else
        lane_rest(lane);
}

static void
finish_job(struct lane *lane)
{
    struct job *job = lane->job;
    lane->job = job->next;
    lane->njobs--;
    /* A local delivery that is done again finds itself by its name: not worth a journal unless the
     * message is with us for long. */
    if (lane->route || now_ms() - job->message->loaded_ms > LOCAL_MARK_MS)
        message_mark(job->message);
    learn(job);
    end_job(job);
    go_on(lane);
}

/* It goes into reports and the log as it is. */
static bool
status_ok(struct str dsn)
{
    for (size_t i = 0; i < dsn.n; i++)
        if (!ch_digit(dsn.p[i]) && dsn.p[i] != '.')
            return false;
    return true;
}

static int
on_outcome(struct lane *lane, struct msg *in)
{
    uint32_t index = msg_get_u32(in), outcome = msg_get_u32(in);
    struct str dsn = msg_get_str(in), text = msg_get_str(in), relay = msg_get_str(in);
    struct rcpt *r = rcpt_of(lane, index);
    struct job *job = lane->job;
    if (!msg_end(in) || !r || outcome > OUTCOME_DAMAGED || !status_ok(dsn) ||
        (outcome == OUTCOME_RELAYED && lane->pool != POOL_RELAY))
        return -1;
    if (outcome == OUTCOME_EXPANDED) {
        if (lane->nexpanded == 0 || lane->expanded_index != index)
            return -1;
        int ok = message_expand(job->message, r, lane->expanded, lane->nexpanded);
        if (ok == -1) {
            outcome = OUTCOME_LATER;
            dsn = STR("4.3.0");
            text = STR("the expansion could not be recorded");
        } else if (ok < 0) {
            outcome = OUTCOME_NEVER;
            dsn = STR("5.2.4");
            text = STR("the recipients and those that aliases lead to are too many");
        }
    }
    message_outcome(job->message, r, (enum outcome)outcome, dsn, text,
                    relay.n ? relay : relay_name(job->sched.route));
    if (outcome == OUTCOME_EXPANDED)
        route_submit(job->message);
    forget_expansion(lane);
    learn_host(job, relay);
    if (unreached((enum outcome)outcome, dsn, text)) {
        job->failed = true;
        job->why = r->text;
    } else {
        job->reached = true;
    }
    if (--job->open == 0)
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
    if (ok == 0) {
        c->eager = lane->job; /* the next answer is often there */
        return;
    }
    log_warn("%s answered what it was not asked", role_name(c->role));
    service_close(c);
}

/* The process went away in the middle of a job: what it answered stands, the rest is tried again.
 */
static void
take_back(struct job *job)
{
    if (++job->deaths >= DEATHS_MAX)
        answer_all(job, "4.3.0", "the delivery process died");
    else
        push_back(job);
}

static void
on_pause(struct loop_timer *t)
{
    (void)t;
    route_pump();
}

void
route_gone(struct client *c)
{
    static struct loop_timer pause = {.fire = on_pause};
    struct lane *lane = c->state;
    if (!lane)
        return;
    bool busy = lane->job;
    for (struct job *job = lane->job, *next; job; job = next) {
        next = job->next;
        take_back(job);
    }
    lane_gone(lane);
    /* Not at once: a process that dies at every job must not make us spin. */
    if (busy)
        loop_timer_set(&qmgr.loop, &pause, now_ms() + DEATH_PAUSE_MS);
    else
        route_pump();
}

void
route_renew(void)
{
    lane_renew();
}

void
route_start(void)
{
    struct sipkey key;
    if (getrandom(&key, sizeof key, 0) != sizeof key)
        log_fatal("getrandom: %s", strerror(errno));
    sched_init(&(struct sched_limits){0}, &key);
    route_configure();
}
