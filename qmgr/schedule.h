/*
 * schedule: which delivery is next. Decisions only: no files, no channels, no clock; time comes in
 * as an argument, so a test can let days pass in a moment.
 *
 * Words: a *job* is what one delivery process does in one go: some recipients of one message. A
 * *route* is a destination: a domain, or one local account. A *site* is what answers behind it: the
 * mail exchanger, shared by all routes that were seen to lead there, or a route's own until one is
 * known. A *flow* is whoever brought the message: an account, or a client, in one class (personal
 * or bulk). A *pool* is how much may run at once: local, relay.
 *
 * - Fair shares: start-time fair queueing. A job's tag says when its flow has its turn. A flow that
 *   owes nothing stands behind the one who is next there: next of the route, of those that wait for
 *   the site, of those that wait for a place of the pool; not behind all that came before, for
 *   elsewhere time may have run ahead. What its own jobs cost that have not had their turn, here or
 *   anywhere, it stands that much further behind. The smallest tag of all routes that may run is
 *   next. So among N flows that wait a new flow's first job starts after at most one job of each,
 *   whatever they have queued, also at a destination that is slow; and one that waits has its
 *   turn after at most SCHED_COST newcomers, however many come. Bulk mail's jobs cost
 *   four times as much. What was put off for a dead site has cost nothing.
 * - Concurrency of a site: a window, that grows with each success until the first failure, then by
 *   one for each eight windows full of them, and shrinks by one with each failure to reach it. When
 *   as many have failed in a row as the window was wide (a failed cohort), the site is dead for a
 *   while, each time twice as long.
 * - Dead sites delay nobody: their jobs are handed out apart (sched_pull_dead), to be put off; and
 *   all sites that have not answered yet together have at most three quarters of a pool.
 * - Memory: when a route or a flow has more in memory than its share of what is free, its further
 *   messages are *parked*: only their small entries wait, in tag order (sched_admit).
 *
 * Routes, sites and flows belong to the module; jobs and parked nodes to the caller.
 */
#pragma once
#include "lib/base/siphash.h"
#include "lib/base/heap.h"

enum sched_pool { POOL_LOCAL, POOL_RELAY, POOLS };
enum sched_admission { SCHED_ADMIT, SCHED_PARK_ROUTE, SCHED_PARK_FLOW, SCHED_FULL };
enum {
    SCHED_NAME_MAX = 330,       /* a local recipient's address is one */
    SCHED_ROUTE_MIN = 10,       /* jobs that a route may always have in memory */
    SCHED_COST = 4096,          /* of a recipient, in tags */
    SCHED_BULK_COST = 4,        /* times that of personal mail */
    SCHED_BURST = 5,            /* jobs in a row over one connection while others wait */
    SCHED_KEPT_MAX = 5000,      /* idle routes that are remembered, */
    SCHED_KEPT_MS = 600 * 1000, /* for so long */
};

struct sched_limits {
    size_t pool_max[POOLS];
    size_t window_start, window_max; /* of a site of relay */
    size_t account_max;              /* deliveries to one local account at once */
    size_t active_max;               /* messages in memory */
    int64_t dead_ms, dead_max_ms;
};

struct sched_site;
struct sched_pair;
struct sched_route {
    char name[SCHED_NAME_MAX + 1];
    enum sched_pool pool;
    struct sched_site *site;
    struct heap jobs; /* that wait */
    size_t njobs;     /* waiting and running */
    struct heap parked;
    struct heap_node node; /* in one of the heaps of routes, by its first job's tag */
    struct heap *in;
    void *lanes;    /* the caller's: idle connections */
    void *building; /* the caller's: a job that is not pushed yet */
    size_t pins;    /* the caller's: not to be forgotten */
    struct sched_route *next;
    struct sched_route *kept_next, **kept_link; /* idle, and remembered */
    int64_t idle_since_ms;
};
struct sched_flow {
    uint64_t key;
    uint64_t last; /* the end of all its jobs, in tags: what lies behind the present it owes */
    unsigned weight;
    size_t njobs;
    size_t pins; /* the caller's */
    struct heap parked;
    struct sched_flow *next;
};
struct sched_job {
    struct heap_node node; /* key: the tag */
    struct sched_route *route;
    struct sched_flow *flow;
    struct sched_site *site; /* while it runs */
    struct sched_pair *pair; /* its flow at its site */
    uint64_t price;
};

/* Empty. The key: no stranger may know which names share a bucket. */
void sched_init(const struct sched_limits *limits, const struct sipkey *key);
void sched_limit(const struct sched_limits *limits); /* changed by a reload */

/* NULL when memory is out, or the name is longer than SCHED_NAME_MAX. */
struct sched_route *sched_route(enum sched_pool pool, struct str name);
struct sched_flow *sched_flow(struct str account, bool bulk);
/* Forget them if nothing needs them any more. */
void sched_route_release(struct sched_route *route, int64_t now_ms);
void sched_flow_release(struct sched_flow *flow);

/* Whether a message of this flow may be in memory with a job on this route; active: how many are.
 */
enum sched_admission sched_admit(const struct sched_route *route, const struct sched_flow *flow,
                                 size_t active);
/* Where the flow's next message stands on this route, for cost recipients. */
uint64_t sched_tag(const struct sched_route *route, const struct sched_flow *flow, size_t cost);
/* A node waits outside of memory, in tag order (node->key is set). -1: out of memory. */
int sched_park(struct heap *parked, struct heap_node *node);
void sched_unpark(struct heap *parked, struct heap_node *node);
/* One that may come back now, of this route or this flow; it stays parked. */
struct heap_node *sched_parked(struct sched_route *route, struct sched_flow *flow, size_t active);

/* A job waits on its route, with the tag in job->node.key. -1: out of memory. */
int sched_push(struct sched_job *job, struct sched_route *route, struct sched_flow *flow,
               size_t cost);
/* A job that has not ended well, or was pulled ahead, goes back, with the tag that it had. */
int sched_push_back(struct sched_job *job);
/* The next job of the pool that may start now; it counts as running. NULL: none. */
struct sched_job *sched_pull(enum sched_pool pool, int64_t now_ms);
/* The same of this one route. */
struct sched_job *sched_pull_from(struct sched_route *route, int64_t now_ms);
/* One more of a route that a job runs on, to wait behind that one in the same hands: it takes no
 * place and does not count as running. Not of a site that fails, or of which nothing is known, or
 * that has room for another connection. */
struct sched_job *sched_pull_ahead(struct sched_route *route, int64_t now_ms);
/* The one before it has ended: it takes that one's place. */
void sched_step_up(struct sched_job *job);
/* A job whose destination is left alone, and why; it does not count as running. */
struct sched_job *sched_pull_dead(int64_t now_ms, const char **reason_r);
/* It has ended; it is the caller's to free. Its route and flow may be released now. */
void sched_end(struct sched_job *job);
/* Whether another route of the pool could start a job if there were room. */
bool sched_others_wait(const struct sched_route *route);

/* What a running job learnt: by which host, whether it answered. The last: dead now? for how long.
 */
void sched_seen(struct sched_job *job, struct str host);
void sched_good(struct sched_site *site);
bool sched_bad(struct sched_site *site, struct str reason, int64_t now_ms, int64_t *dead_ms_r);
void sched_forget_failures(void);
/* For tests and people. */
size_t sched_window(const struct sched_site *site);
size_t sched_running(enum sched_pool pool);
bool sched_is_dead(const struct sched_site *site, int64_t now_ms);
const char *sched_site_name(const struct sched_site *site);
size_t sched_routes(void);
