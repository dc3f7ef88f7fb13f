#include "qmgr/schedule.h"
#include <stdlib.h>

enum {
    BUCKETS = 4096,
    ONE = 1000, /* windows and cohorts count in thousandths */
    REASON_MAX = 400,
    DOUBLINGS_MAX = 16,
    CAREFUL = 8, /* successes for each place of the window, to add one */
};

struct sched_site {
    char name[SCHED_NAME_MAX + 1]; /* "": one route's own */
    size_t refs;                   /* routes, and running jobs */
    bool fixed;                    /* a local account: the window says nothing about it */
    bool proven;                   /* its last answer was one */
    bool failed;                   /* it has failed since: the window grows carefully */
    size_t running;
    uint64_t window, cohort;
    unsigned deaths; /* in a row */
    int64_t dead_until_ms;
    char reason[REASON_MAX];
    struct heap blocked; /* routes that wait for room */
    struct sched_site *next;
};

/* What waits or runs of one flow at one site. */
struct sched_pair {
    struct sched_flow *flow;
    struct sched_site *site;
    uint64_t last; /* the end of its last job there, in tags */
    size_t jobs;
    struct sched_pair *next;
};

static struct {
    struct sched_limits limits;
    struct sipkey key;
    uint64_t now; /* the furthest tag that a job has started with */
    struct sched_route *routes[BUCKETS];
    struct sched_site *sites[BUCKETS];
    struct sched_flow *flows[BUCKETS];
    struct sched_pair *pairs[BUCKETS];
    size_t npairs;
    struct pool {
        size_t running, unproven; /* of those: at sites that have not answered yet */
        struct heap open, open_unproven;
    } pools[POOLS];
    struct heap dead; /* routes with jobs, whose site is */
    struct sched_route *kept, **kept_last;
    size_t nkept, nroutes;
} the;

static bool
is_dead(const struct sched_site *site, int64_t now_ms)
{
    return site->dead_until_ms > now_ms;
}

bool
sched_is_dead(const struct sched_site *site, int64_t now_ms)
{
    return is_dead(site, now_ms);
}

size_t
sched_window(const struct sched_site *site)
{
    return site->fixed ? the.limits.account_max : site->window / ONE;
}

size_t
sched_running(enum sched_pool pool)
{
    return the.pools[pool].running;
}

const char *
sched_site_name(const struct sched_site *site)
{
    return site->name;
}

size_t
sched_routes(void)
{
    return the.nroutes;
}

void
sched_limit(const struct sched_limits *limits)
{
    the.limits = *limits;
}

static uint64_t
hash(struct str s)
{
    return siphash(&the.key, s);
}

/* --- sites --- */

static struct sched_site *
new_site(struct str name, bool fixed)
{
    struct sched_site *site = calloc(1, sizeof *site);
    if (!site)
        return NULL;
    memcpy(site->name, name.p, name.n);
    site->fixed = fixed;
    site->proven = fixed;
    site->window = the.limits.window_start * ONE;
    if (name.n) {
        struct sched_site **bucket = &the.sites[hash(name) % BUCKETS];
        site->next = *bucket;
        *bucket = site;
    }
    return site;
}

static struct sched_site *
shared_site(struct str name)
{
    for (struct sched_site *x = the.sites[hash(name) % BUCKETS]; x; x = x->next)
        if (str_eq(str_z(x->name), name))
            return x;
    return new_site(name, false);
}

static void
release_site(struct sched_site *site)
{
    if (--site->refs)
        return;
    if (site->name[0]) {
        struct sched_site **link = &the.sites[hash(str_z(site->name)) % BUCKETS];
        while (*link != site)
            link = &(*link)->next;
        *link = site->next;
    }
    heap_free(&site->blocked);
    free(site);
}

/* --- routes: where each one waits --- */

static void
leave(struct sched_route *route)
{
    if (route->in)
        heap_del(route->in, &route->node);
    route->in = NULL;
}

/* Into the heap where it waits now. */
static int
enter_heap(struct sched_route *route, struct heap *h)
{
    leave(route);
    route->node.key = heap_top(&route->jobs)->key;
    if (heap_add(h, &route->node) < 0)
        return -1;
    route->in = h;
    return 0;
}

static struct heap *
open_heap(const struct sched_route *route)
{
    struct pool *pool = &the.pools[route->pool];
    return route->site->proven ? &pool->open : &pool->open_unproven;
}

/* Its jobs or its site have changed. Without memory it stays where it is, and is looked at when one
 * of its jobs ends. */
static void
reopen(struct sched_route *route)
{
    if (route->jobs.n == 0)
        leave(route);
    else
        (void)enter_heap(route, open_heap(route));
}

static bool
site_room(const struct sched_site *site)
{
    return site->running < sched_window(site);
}

static struct sched_route *
route_of(struct heap_node *node)
{
    return (struct sched_route *)(void *)((char *)node - offsetof(struct sched_route, node));
}

static struct sched_job *
job_of(struct heap_node *node)
{
    return (struct sched_job *)(void *)((char *)node - offsetof(struct sched_job, node));
}

/* As many of those that wait for the site as it has room for. */
static void
unblock(struct sched_site *site)
{
    size_t window = sched_window(site);
    for (size_t room = window > site->running ? window - site->running : 0;
         room && heap_top(&site->blocked); room--)
        reopen(route_of(heap_top(&site->blocked)));
}

static void
unkeep(struct sched_route *route)
{
    if (!route->kept_link)
        return;
    *route->kept_link = route->kept_next;
    if (route->kept_next)
        route->kept_next->kept_link = route->kept_link;
    else
        the.kept_last = route->kept_link;
    route->kept_link = NULL;
    the.nkept--;
}

static void
forget_route(struct sched_route *route)
{
    struct sched_route **link = &the.routes[hash(str_z(route->name)) % BUCKETS];
    while (*link != route)
        link = &(*link)->next;
    *link = route->next;
    unkeep(route);
    leave(route);
    release_site(route->site);
    heap_free(&route->jobs);
    heap_free(&route->parked);
    free(route);
    the.nroutes--;
}

/* The oldest of those that do nothing and are only remembered. */
static void
forget_old(int64_t now_ms)
{
    while (the.kept &&
           (the.nkept > SCHED_KEPT_MAX ||
            (the.kept->idle_since_ms + SCHED_KEPT_MS < now_ms && !is_dead(the.kept->site, now_ms))))
        forget_route(the.kept);
}

struct sched_route *
sched_route(enum sched_pool pool, struct str name)
{
    if (name.n > SCHED_NAME_MAX)
        return NULL;
    struct sched_route **bucket = &the.routes[hash(name) % BUCKETS];
    for (struct sched_route *x = *bucket; x; x = x->next)
        if (x->pool == pool && str_eq(str_z(x->name), name)) {
            unkeep(x);
            return x;
        }
    struct sched_route *route = calloc(1, sizeof *route);
    struct sched_site *site = route ? new_site(STR(""), pool == POOL_LOCAL) : NULL;
    if (!site) {
        free(route);
        return NULL;
    }
    memcpy(route->name, name.p, name.n);
    route->pool = pool;
    route->site = site;
    site->refs = 1;
    route->next = *bucket;
    *bucket = route;
    the.nroutes++;
    return route;
}

void
sched_route_release(struct sched_route *route, int64_t now_ms)
{
    if (route->njobs || route->parked.n || route->pins || route->kept_link)
        return;
    if (route->site->fixed) {
        forget_route(route);
        return;
    }
    route->idle_since_ms = now_ms;
    route->kept_next = NULL;
    route->kept_link = the.kept_last;
    *the.kept_last = route;
    the.kept_last = &route->kept_next;
    the.nkept++;
    forget_old(now_ms);
}

/* --- flows --- */

struct sched_flow *
sched_flow(struct str account, bool bulk)
{
    uint64_t key = hash(account) ^ (bulk ? 0x9e3779b97f4a7c15u : 0);
    struct sched_flow **bucket = &the.flows[key % BUCKETS];
    for (struct sched_flow *x = *bucket; x; x = x->next)
        if (x->key == key)
            return x;
    struct sched_flow *flow = calloc(1, sizeof *flow);
    if (!flow)
        return NULL;
    flow->key = key;
    flow->weight = bulk ? SCHED_BULK_COST : 1;
    flow->next = *bucket;
    *bucket = flow;
    return flow;
}

void
sched_flow_release(struct sched_flow *flow)
{
    if (flow->njobs || flow->parked.n || flow->pins)
        return;
    struct sched_flow **link = &the.flows[flow->key % BUCKETS];
    while (*link != flow)
        link = &(*link)->next;
    *link = flow->next;
    heap_free(&flow->parked);
    free(flow);
}

/* --- pairs, and tags --- */

static struct sched_pair **
find_pair(const struct sched_flow *flow, const struct sched_site *site)
{
    uint64_t mixed = ((uint64_t)(uintptr_t)site ^ flow->key) * 0x9e3779b97f4a7c15u;
    struct sched_pair **link = &the.pairs[(mixed >> 32) % BUCKETS];
    while (*link && ((*link)->flow != flow || (*link)->site != site))
        link = &(*link)->next;
    return link;
}

static struct sched_pair *
join_pair(struct sched_flow *flow, struct sched_site *site)
{
    struct sched_pair **link = find_pair(flow, site);
    if (!*link) {
        *link = calloc(1, sizeof **link);
        if (!*link)
            return NULL;
        (*link)->flow = flow;
        (*link)->site = site;
        site->refs++;
        the.npairs++;
    }
    (*link)->jobs++;
    return *link;
}

static void
leave_pair(struct sched_pair *pair)
{
    struct sched_pair **link = find_pair(pair->flow, pair->site);
    if (--pair->jobs)
        return;
    *link = pair->next;
    release_site(pair->site);
    free(pair);
    the.npairs--;
}

static uint64_t
not_behind(uint64_t tag, const struct heap *h)
{
    const struct heap_node *first = heap_top(h);
    return first && first->key < tag ? first->key : tag;
}

/* Whoever is next where this route waits. */
static uint64_t
present(const struct sched_route *route)
{
    const struct pool *pool = &the.pools[route->pool];
    uint64_t tag = not_behind(the.now, &route->jobs);
    tag = not_behind(tag, &route->site->blocked);
    return not_behind(not_behind(tag, &pool->open), &pool->open_unproven);
}

uint64_t
sched_tag(const struct sched_route *route, const struct sched_flow *flow, size_t cost)
{
    struct sched_pair *pair = *find_pair(flow, route->site);
    uint64_t debt = flow->last > the.now ? flow->last - the.now : 0;
    /* Newcomers stand behind each other, and so before no more than SCHED_COST of them does one
     * that waits have its turn. */
    uint64_t tag = present(route) + 1 + the.npairs + debt;
    if (pair && pair->last > tag)
        tag = pair->last;
    if (pair)
        pair->last = tag + cost * SCHED_COST * flow->weight;
    return tag;
}

/* --- memory --- */

static size_t
at_least(size_t min, size_t n)
{
    return n > min ? n : min;
}

/* Each may have a share of what is free, so that there is always something free for the next. */
enum sched_admission
sched_admit(const struct sched_route *route, const struct sched_flow *flow, size_t active)
{
    size_t max = the.limits.active_max, left = active < max ? max - active : 0;
    if (left == 0)
        return SCHED_FULL;
    if (route->njobs < SCHED_ROUTE_MIN && active < max / 4 * 3)
        return SCHED_ADMIT;
    if (route->njobs >= at_least(SCHED_ROUTE_MIN, left / 4))
        return SCHED_PARK_ROUTE;
    return flow->njobs >= at_least(SCHED_ROUTE_MIN, left / 2) ? SCHED_PARK_FLOW : SCHED_ADMIT;
}

int
sched_park(struct heap *parked, struct heap_node *node)
{
    return heap_add(parked, node);
}

void
sched_unpark(struct heap *parked, struct heap_node *node)
{
    heap_del(parked, node);
}

struct heap_node *
sched_parked(struct sched_route *route, struct sched_flow *flow, size_t active)
{
    size_t max = the.limits.active_max, left = active < max ? max - active : 0;
    if (route->parked.n && route->njobs < at_least(SCHED_ROUTE_MIN, left / 4))
        return heap_top(&route->parked);
    if (flow->parked.n && flow->njobs < at_least(SCHED_ROUTE_MIN, left / 2))
        return heap_top(&flow->parked);
    return NULL;
}

/* --- jobs --- */

static int
queue_job(struct sched_job *job)
{
    struct sched_route *route = job->route;
    if (heap_add(&route->jobs, &job->node) < 0)
        return -1;
    if (!route->in || route->node.key > job->node.key) {
        struct heap *where = route->in ? route->in : open_heap(route);
        (void)enter_heap(route, where);
    }
    return 0;
}

int
sched_push(struct sched_job *job, struct sched_route *route, struct sched_flow *flow, size_t cost)
{
    job->route = route;
    job->flow = flow;
    job->site = NULL;
    job->price = cost * SCHED_COST * flow->weight;
    job->pair = join_pair(flow, route->site);
    if (!job->pair || queue_job(job) < 0)
        return -1;
    if (job->pair->last < job->node.key + job->price)
        job->pair->last = job->node.key + job->price;
    flow->last = (flow->last > the.now ? flow->last : the.now) + job->price;
    route->njobs++;
    flow->njobs++;
    return 0;
}

static void
count_running(struct sched_job *job, struct sched_site *site)
{
    struct pool *pool = &the.pools[job->route->pool];
    job->site = site;
    site->refs++;
    site->running++;
    pool->running++;
    pool->unproven += !site->proven;
}

static void
uncount_running(struct sched_job *job)
{
    struct sched_site *site = job->site;
    struct pool *pool = &the.pools[job->route->pool];
    job->site = NULL;
    site->running--;
    pool->running--;
    pool->unproven -= !site->proven;
    unblock(site);
    release_site(site);
}

static struct sched_job *
take_first(struct sched_route *route)
{
    struct sched_job *job = job_of(heap_top(&route->jobs));
    heap_del(&route->jobs, &job->node);
    return job;
}

static struct sched_job *
take_next(struct sched_route *route, bool runs)
{
    struct sched_job *job = take_first(route);
    if (runs)
        count_running(job, route->site);
    if (job->node.key > the.now)
        the.now = job->node.key;
    reopen(route);
    return job;
}

static struct sched_job *
start(struct sched_route *route)
{
    return take_next(route, true);
}

/* Whether a route may start a job; if not it is put where it waits for that. */
static bool
may_start(struct sched_route *route, int64_t now_ms)
{
    if (is_dead(route->site, now_ms))
        (void)enter_heap(route, &the.dead);
    else if (!site_room(route->site))
        (void)enter_heap(route, &route->site->blocked);
    else
        return true;
    return false;
}

/* A quarter of the places is for sites that have shown to be alive. */
static bool
unproven_room(const struct pool *pool, enum sched_pool which)
{
    size_t max = the.limits.pool_max[which];
    return pool->unproven < at_least(1, max - max / 4);
}

static struct heap_node *
first_of(struct pool *pool, enum sched_pool which)
{
    /* What is known of a site changes while its routes wait: they are sorted when they are first.
     */
    while (heap_top(&pool->open_unproven) && route_of(heap_top(&pool->open_unproven))->site->proven)
        reopen(route_of(heap_top(&pool->open_unproven)));
    while (heap_top(&pool->open) && !route_of(heap_top(&pool->open))->site->proven)
        reopen(route_of(heap_top(&pool->open)));
    struct heap_node *a = heap_top(&pool->open), *b = heap_top(&pool->open_unproven);
    if (b && !unproven_room(pool, which))
        b = NULL;
    return !a ? b : !b ? a : a->key <= b->key ? a : b;
}

struct sched_job *
sched_pull(enum sched_pool which, int64_t now_ms)
{
    struct pool *pool = &the.pools[which];
    while (pool->running < the.limits.pool_max[which]) {
        struct heap_node *node = first_of(pool, which);
        if (!node)
            return NULL;
        if (may_start(route_of(node), now_ms))
            return start(route_of(node));
    }
    return NULL;
}

struct sched_job *
sched_pull_from(struct sched_route *route, int64_t now_ms)
{
    const struct pool *pool = &the.pools[route->pool];
    if (route->jobs.n == 0 || pool->running >= the.limits.pool_max[route->pool] ||
        (!route->site->proven && !unproven_room(pool, route->pool)))
        return NULL;
    return may_start(route, now_ms) ? start(route) : NULL;
}

struct sched_job *
sched_pull_ahead(struct sched_route *route, int64_t now_ms)
{
    const struct sched_site *site = route->site;
    /* While another host has room, another connection does it sooner. */
    bool well = site->fixed || (site->proven && site->cohort == 0 && !site_room(site));
    if (route->jobs.n == 0 || !well || is_dead(site, now_ms))
        return NULL;
    return take_next(route, false);
}

void
sched_step_up(struct sched_job *job)
{
    count_running(job, job->route->site);
}

bool
sched_others_wait(const struct sched_route *route)
{
    const struct pool *pool = &the.pools[route->pool];
    return pool->open.n + pool->open_unproven.n >
           (route->in == &pool->open || route->in == &pool->open_unproven);
}

struct sched_job *
sched_pull_dead(int64_t now_ms, const char **reason_r)
{
    struct heap_node *node;
    while ((node = heap_top(&the.dead))) {
        struct sched_route *route = route_of(node);
        if (!is_dead(route->site, now_ms)) { /* left alone long enough */
            reopen(route);
            continue;
        }
        struct sched_job *job = take_first(route);
        *reason_r = route->site->reason;
        job->flow->last -= job->price;
        if (route->jobs.n == 0)
            leave(route);
        return job;
    }
    return NULL;
}

void
sched_end(struct sched_job *job)
{
    struct sched_route *route = job->route;
    if (job->site)
        uncount_running(job);
    leave_pair(job->pair);
    route->njobs--;
    job->flow->njobs--;
    if (!route->in)
        reopen(route);
}

int
sched_push_back(struct sched_job *job)
{
    if (job->site)
        uncount_running(job);
    return queue_job(job);
}

/* --- feedback --- */

/* A change of what is known of a site, while jobs run there and routes wait for it. */
static void
prove(struct sched_site *site, bool proven)
{
    if (site->fixed || site->proven == proven)
        return;
    struct pool *pool = &the.pools[POOL_RELAY];
    if (proven)
        pool->unproven -= site->running;
    else
        pool->unproven += site->running;
    site->proven = proven;
}

void
sched_good(struct sched_site *site)
{
    if (site->fixed)
        return;
    prove(site, true);
    site->cohort = 0;
    site->deaths = 0;
    site->dead_until_ms = 0;
    site->window += site->failed ? (uint64_t)ONE * ONE / (site->window * CAREFUL) : ONE;
    if (site->window > the.limits.window_max * ONE)
        site->window = the.limits.window_max * ONE;
    unblock(site);
}

bool
sched_bad(struct sched_site *site, struct str reason, int64_t now_ms, int64_t *dead_ms_r)
{
    if (site->fixed || is_dead(site, now_ms))
        return false;
    prove(site, false);
    site->failed = true;
    site->cohort += (uint64_t)ONE * ONE / site->window;
    site->window = site->window > 2 * ONE ? site->window - ONE : ONE;
    if (site->cohort < ONE - 1) /* thirds do not quite add up */
        return false;
    int64_t dead_ms = the.limits.dead_ms
                      << (site->deaths < DOUBLINGS_MAX ? site->deaths : DOUBLINGS_MAX);
    if (dead_ms > the.limits.dead_max_ms)
        dead_ms = the.limits.dead_max_ms;
    site->deaths++;
    site->failed = false; /* when it is back it is as good as new */
    site->cohort = 0;
    site->window = ONE;
    site->dead_until_ms = now_ms + dead_ms;
    size_t n = reason.n < REASON_MAX - 1 ? reason.n : REASON_MAX - 1;
    memcpy(site->reason, reason.p, n);
    site->reason[n] = '\0';
    /* All that wait for it are looked at, and put with the dead. */
    while (heap_top(&site->blocked))
        reopen(route_of(heap_top(&site->blocked)));
    *dead_ms_r = dead_ms;
    return true;
}

/* The route's own site, or the host it had before, is not where it leads now. */
static void
move_route(struct sched_route *route, struct sched_site *site)
{
    struct sched_site *old = route->site;
    site->refs++;
    route->site = site;
    reopen(route);
    unblock(old); /* its turn there is the next one's */
    release_site(old);
}

void
sched_seen(struct sched_job *job, struct str host)
{
    struct sched_route *route = job->route;
    if (route->site->fixed || host.n == 0 || host.n > SCHED_NAME_MAX)
        return;
    struct sched_site *site = shared_site(host);
    if (!site)
        return;
    site->refs++;
    if (job->site && job->site != site) {
        uncount_running(job);
        count_running(job, site);
    }
    if (route->site != site)
        move_route(route, site);
    release_site(site);
}

void
sched_forget_failures(void)
{
    for (size_t i = 0; i < BUCKETS; i++)
        for (struct sched_route *r = the.routes[i]; r; r = r->next) {
            r->site->dead_until_ms = 0;
            r->site->deaths = 0;
            r->site->cohort = 0;
        }
}

void
sched_init(const struct sched_limits *limits, const struct sipkey *key)
{
    for (size_t i = 0; i < BUCKETS; i++) {
        while (the.pairs[i]) {
            the.pairs[i]->jobs = 1;
            leave_pair(the.pairs[i]);
        }
        while (the.routes[i])
            forget_route(the.routes[i]);
        for (struct sched_flow *x = the.flows[i], *next; x; x = next) {
            next = x->next;
            heap_free(&x->parked);
            free(x);
        }
        the.flows[i] = NULL;
    }
    for (size_t i = 0; i < POOLS; i++) {
        heap_free(&the.pools[i].open);
        heap_free(&the.pools[i].open_unproven);
        the.pools[i] = (struct pool){0};
    }
    heap_free(&the.dead);
    the.now = 0;
    the.kept = NULL;
    the.kept_last = &the.kept;
    the.nkept = 0;
    the.limits = *limits;
    the.key = *key;
}
