#include "qmgr/lane.h"
#include "lib/log/log.h"
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

enum { LANE_IDLE_MS = 2000, TROUBLE_MS = 1000, EXPANSION_MAX = 4 << 20, REPLACED_MS = 1000 };

static struct {
    struct lane *local_idle;
    struct lane *oldest, *newest; /* of relay's, idle */
    size_t relay_lanes;
    int64_t trouble_until_ms[POOLS];
    int64_t renewed_ms; /* lanes opened before lead to processes with the old tables */
} the;

static enum role
role_of(enum sched_pool pool)
{
    return pool == POOL_LOCAL ? R_LOCAL : R_RELAY;
}

/* The list of idle lanes that this one would be in: the head of a route's is the route's. */
static void
set_head(struct lane *lane, struct lane *head)
{
    if (lane->pool == POOL_LOCAL)
        the.local_idle = head;
    else
        lane->route->lanes = head;
}

static struct lane *
head_for(enum sched_pool pool, const struct sched_route *route)
{
    return pool == POOL_LOCAL ? the.local_idle : route->lanes;
}

static void
unlink_age(struct lane *lane)
{
    if (lane->older)
        lane->older->newer = lane->newer;
    else if (the.oldest == lane)
        the.oldest = lane->newer;
    if (lane->newer)
        lane->newer->older = lane->older;
    else if (the.newest == lane)
        the.newest = lane->older;
    lane->older = lane->newer = NULL;
}

static void
unlink_idle(struct lane *lane)
{
    struct lane *head = head_for(lane->pool, lane->route);
    for (struct lane **link = &head; *link; link = &(*link)->next_idle)
        if (*link == lane) {
            *link = lane->next_idle;
            break;
        }
    set_head(lane, head);
    lane->next_idle = NULL;
    unlink_age(lane);
    loop_timer_del(&qmgr.loop, &lane->idle);
}

static void
dismiss(struct lane *lane)
{
    unlink_idle(lane); /* no job may be put on it between now and its end */
    service_close(lane->client);
}

static void
on_idle(struct loop_timer *t)
{
    dismiss(t->arg);
}

void
lane_rest(struct lane *lane)
{
    lane->burst = 0;
    if (lane->opened_ms < the.renewed_ms) {
        service_close(lane->client);
        return;
    }
    lane->next_idle = head_for(lane->pool, lane->route);
    set_head(lane, lane);
    if (lane->pool == POOL_RELAY) {
        lane->older = the.newest;
        if (the.newest)
            the.newest->newer = lane;
        else
            the.oldest = lane;
        the.newest = lane;
    }
    loop_timer_set(&qmgr.loop, &lane->idle, now_ms() + LANE_IDLE_MS);
}

static int
open_channel(struct lane *lane, enum role role, const char *name)
{
    struct err e = {0};
    struct msg m = {0};
    int fd = start_channel(qmgr.start, role, NULL, &e);
    if (fd >= 0) {
        msg_begin(&m, M_ROUTE);
        msg_put_str(&m, str_z(name));
        if (msg_send(fd, &m) == 0)
            lane->client = service_adopt(&qmgr.service, fd, role, lane);
        msg_free(&m);
        if (!lane->client)
            close(fd);
    }
    if (lane->client)
        return 0;
    log_error("no way to %s: %s", role_name(role), e.text);
    return -1;
}

static struct lane *
open_lane(struct sched_route *route)
{
    struct lane *lane = calloc(1, sizeof *lane);
    bool relay = route->pool == POOL_RELAY;
    if (!lane || open_channel(lane, role_of(route->pool), relay ? route->name : "") < 0) {
        free(lane);
        the.trouble_until_ms[route->pool] = now_ms() + TROUBLE_MS;
        return NULL;
    }
    lane->pool = route->pool;
    lane->arena = arena_new(EXPANSION_MAX);
    lane->opened_ms = now_ms();
    lane->idle = (struct loop_timer){.fire = on_idle, .arg = lane};
    if (relay) {
        lane->route = route;
        route->pins++;
        the.relay_lanes++;
    }
    return lane;
}

struct lane *
lane_get(struct sched_route *route)
{
    struct lane *lane = head_for(route->pool, route);
    if (lane) {
        unlink_idle(lane);
        return lane;
    }
    if (route->pool == POOL_RELAY && the.relay_lanes >= qmgr.conf->queue.relay_max && the.oldest)
        dismiss(the.oldest);
    return open_lane(route);
}

bool
lane_trouble(enum sched_pool pool, int64_t now_ms)
{
    return the.trouble_until_ms[pool] > now_ms;
}

void
lane_gone(struct lane *lane)
{
    unlink_idle(lane);
    if (lane->pool == POOL_RELAY) {
        the.relay_lanes--;
        lane->route->pins--;
        sched_route_release(lane->route, now_ms());
    }
    arena_free(&lane->arena);
    free(lane);
}

/* No lane to a process of before is used for another message, busy as it may be kept. Those that
 * are opened while the old ones still take channels count as old, too. */
void
lane_renew(void)
{
    the.renewed_ms = now_ms() + REPLACED_MS;
    while (the.local_idle)
        dismiss(the.local_idle);
    while (the.oldest)
        dismiss(the.oldest);
}
