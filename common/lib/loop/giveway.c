#include "lib/loop/giveway.h"
#include <string.h>

/* Two networks that share a counter are taken for one: then the older of them may leave for no good
 * reason, which happens to one in thousands. */
enum { COUNTERS = 16384 };
static uint32_t counters[COUNTERS];

static uint32_t *
counter_of(uint64_t network)
{
    return &counters[network % COUNTERS];
}

static bool
may_leave(const struct session *s)
{
    return s->pid && !s->settled && !s->leaving;
}

struct session *
giveway(struct session *all, size_t n, uint64_t network, bool of_it, int64_t at_ms)
{
    uint32_t most = 0;
    struct session *oldest = NULL;
    memset(counters, 0, sizeof counters);
    for (size_t i = 0; i < n; i++)
        if (may_leave(&all[i]) && ++*counter_of(all[i].network) > most)
            most = *counter_of(all[i].network);
    uint32_t own = *counter_of(network);
    bool crowd = !of_it && most > GIVEWAY_CROWD * (own + 1);
    for (size_t i = 0; i < n; i++)
        if (may_leave(&all[i]) &&
            (of_it ? all[i].network == network
                   : *counter_of(all[i].network) >= (crowd ? most : own)) &&
            (!oldest || all[i].began_ms < oldest->began_ms))
            oldest = &all[i];
    return oldest && (crowd || at_ms - oldest->began_ms >= GIVEWAY_MS) ? oldest : NULL;
}
