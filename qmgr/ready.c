#include "lib/log/log.h"
#include "qmgr/qmgr.h"

/*
 * From "its time has come" to "in memory". Messages found at start or due again are read here, some
 * in each turn; new ones, whose envelope is in memory anyway, come by only when there is no room.
 * Each is admitted or, when its destination or its sender has more than its share of the memory,
 * parked with that until one of those has ended.
 */
enum {
    SLICE_MS = 4, /* of a turn, so that new mail is accepted meanwhile */
    CHECKED = 2,  /* unparked for each job that ends: so a share that grows is filled */
};

static struct {
    struct heap fresh, retry; /* never tried; tried before: taken in turns */
    struct heap unparked;     /* have been read before: first of all */
    uint64_t sequence;
    bool retry_next;
    struct loop_timer timer;
} the;

static void
enter(struct entry *entry, struct heap *heap)
{
    entry_become(entry, ENTRY_QUEUED);
    entry->heap = heap;
    if (heap_add(heap, &entry->node) < 0)
        log_fatal("out of memory for the queue");
}

static struct entry *
entry_of(struct heap_node *node)
{
    return (struct entry *)(void *)((char *)node - offsetof(struct entry, node));
}

/* Out of its heap; its route and its flow stay pinned. An unparked one holds places of them, so
 * that not too many come at once. */
static void
unhook(struct entry *entry)
{
    heap_del(entry->heap, &entry->node);
    if (entry->heap == &the.unparked) {
        entry->route->njobs--;
        entry->flow->njobs--;
    }
}

void
ready_detach(struct entry *entry)
{
    unhook(entry);
    if (entry->route)
        ready_unpin(entry->route, entry->flow);
}

static void
take_unparked(void)
{
    struct entry *entry = entry_of(heap_top(&the.unparked));
    struct sched_route *route = entry->route;
    struct sched_flow *flow = entry->flow;
    uint64_t tag = entry->node.key;
    unhook(entry);
    entry_become(entry, ENTRY_NONE);
    message_start(entry, tag);
    ready_unpin(route, flow); /* it may have come to nothing */
}

/* Three quarters of the places at most: the rest is for what comes in new. */
static bool
room(void)
{
    return qmgr.nactive < ACTIVE_MAX / 4 * 3;
}

static bool
step(void)
{
    struct heap *first = the.retry_next ? &the.retry : &the.fresh;
    struct heap *second = the.retry_next ? &the.fresh : &the.retry;
    struct heap *from = first->n ? first : second;
    if (the.unparked.n) {
        take_unparked();
        return true;
    }
    if (!from->n || !room())
        return false;
    the.retry_next = from == &the.fresh;
    struct entry *entry = entry_of(heap_top(from));
    entry_detach(entry);
    message_start(entry, 0);
    return true;
}

static void
work(struct loop_timer *t)
{
    int64_t end = now_ms() + SLICE_MS;
    bool more = true;
    while (more && now_ms() < end)
        for (int i = 0; i < 8 && more; i++)
            more = step();
    route_pump();
    /* Without room the end of a job wakes us: ready_unpin(). */
    if (more)
        loop_timer_set(&qmgr.loop, t, now_ms() + 1);
}

static void
wake(void)
{
    the.timer.fire = work;
    if (!loop_timer_is_set(&the.timer) && loop_timer_set(&qmgr.loop, &the.timer, now_ms()) < 0)
        log_fatal("out of memory for the queue");
}

void
ready_wake(void)
{
    if (the.unparked.n || (the.fresh.n + the.retry.n && room()))
        wake();
}

void
ready_add(struct entry *entry)
{
    entry->node = (struct heap_node){.key = ++the.sequence};
    entry->route = NULL;
    entry->flow = NULL;
    enter(entry, entry->place == PLACE_NEW ? &the.fresh : &the.retry);
    wake();
}

void
ready_park(struct entry *entry, struct heap *parked, uint64_t tag, struct sched_route *route,
           struct sched_flow *flow)
{
    entry->node = (struct heap_node){.key = tag};
    entry->route = route;
    entry->flow = flow;
    /* Whichever of them it is not parked with may have nothing else that keeps it. */
    route->pins++;
    flow->pins++;
    enter(entry, parked);
}

void
ready_unpin(struct sched_route *route, struct sched_flow *flow)
{
    route->pins--;
    flow->pins--;
    struct heap_node *node;
    for (int i = 0; i < CHECKED && (node = sched_parked(route, flow, qmgr.nactive)); i++) {
        struct entry *entry = entry_of(node);
        heap_del(entry->heap, node);
        entry->route->njobs++;
        entry->flow->njobs++;
        enter(entry, &the.unparked);
    }
    ready_wake();
    sched_flow_release(flow);
    sched_route_release(route, now_ms());
}
