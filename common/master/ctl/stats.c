#include "common/master/ctl/ctl.h"
#include <stdio.h>

/* stats: what the queue manager has done since it started. */

struct numbers { /* of one answer */
    uint64_t syncs, sync_us, commit_us, accepted;
};

static void
keep(struct numbers *n, struct str name, uint64_t value)
{
    if (str_eq(name, STR("syncs")))
        n->syncs = value;
    else if (str_eq(name, STR("sync_us")))
        n->sync_us = value;
    else if (str_eq(name, STR("commit_us")))
        n->commit_us = value;
    else if (str_eq(name, STR("accepted")))
        n->accepted = value;
}

static double
mean(uint64_t sum, uint64_t n)
{
    return n ? (double)sum / (double)n : 0;
}

static void
print_means(const struct numbers *n, bool json)
{
    const double batch = mean(n->accepted, n->syncs), sync = mean(n->sync_us, n->syncs) / 1000,
                 commit = mean(n->commit_us, n->accepted) / 1000;
    printf(json ? ", \"batch_mean\": %.2f, \"sync_ms_mean\": %.3f, \"commit_ms_mean\": %.3f}\n"
                : "batch_mean               %14.2f\nsync_ms_mean             %14.3f\n"
                  "commit_ms_mean           %14.3f\n",
           batch, sync, commit);
}

int
ctl_stats(struct ctl *ctl, int argc, char **argv)
{
    struct msg m = {0};
    struct numbers numbers = {0};
    (void)argv;
    if (argc != 1) {
        fprintf(stderr, "usage: bulkhead [-f FILE] [--json] stats\n");
        return 64;
    }
    msg_begin(&m, M_QUEUE_STATS);
    if (ctl_ask(ctl, R_QMGR, &m, M_QUEUE_STATS_ARE) < 0)
        return 69;
    uint32_t n = msg_get_u32(&m);
    for (uint32_t i = 0; i < n && !m.bad; i++) {
        struct str name = msg_get_str(&m);
        uint64_t value = msg_get_u64(&m);
        keep(&numbers, name, value);
        if (ctl->json) {
            printf("%s", i ? ", " : "{");
            ctl_json_str(name);
            printf(": %llu", (unsigned long long)value);
        } else {
            printf("%-24.*s %14llu\n", STR_ARG(name), (unsigned long long)value);
        }
    }
    bool whole = msg_end(&m);
    msg_free(&m);
    if (!whole)
        return 76;
    print_means(&numbers, ctl->json);
    return 0;
}
