/*
 * lane: a channel to a process of local or relay, that delivers jobs one after another.
 *
 * A relay lane serves one route, and is kept a little when idle: its connection to the other host
 * is still open. A local lane serves any local recipient. No more lanes are open than the
 * configuration says; an idle one gives way.
 *
 * A lane is handed some jobs of one route at once, so that each process on the way wakes up for
 * several of them; answers come in their order. The first counts as running, the others wait
 * behind it. When the process dies, all of them go back, and each is tried alone from then on.
 */
#pragma once
#include "qmgr/qmgr.h"

enum {
    LANE_LOCAL_JOBS = 4, /* on one lane at once */
    LANE_RELAY_JOBS = 2,
    LANE_ALONE_SIZE = 256 * 1024, /* a message that is larger has a lane for itself */
};

struct job { /* the recipients of one message that go one way together */
    struct sched_job sched;
    struct message *message;
    struct rcpt *rcpts;
    size_t n, open;
    unsigned deaths;
    bool reached; /* some answer came from the destination itself */
    bool failed;  /* it could not be reached; why: */
    struct str why;
    struct job *next; /* while they are built; then: behind it on its lane */
};

struct lane {
    struct client *client;
    enum sched_pool pool;
    struct sched_route *route; /* of relay; pinned */
    struct job *job;           /* that is being done; NULL: idle. Others wait behind it (next) */
    size_t njobs;              /* with these */
    unsigned burst;            /* jobs since others had their turn */
    int64_t opened_ms;
    struct loop_timer idle;
    struct lane *next_idle; /* of the same route, or of local */
    struct lane *older, *newer;
    struct arena arena; /* addresses of an expansion that is being told */
    struct str *expanded;
    size_t nexpanded;
    uint32_t expanded_index;
};

/* An idle one for this route, or a new one. NULL: none can be had now; lane_trouble() then. */
struct lane *lane_get(struct sched_route *route);
bool lane_trouble(enum sched_pool pool, int64_t now_ms); /* none for a second */
void lane_rest(struct lane *lane);
void lane_gone(struct lane *lane); /* its channel is closed; frees it */
void lane_renew(void);             /* local and relay are being replaced */
