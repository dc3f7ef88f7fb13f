#include "qmgr/qmgr.h"
#include "qmgr/index.h"

/*
 * What qmgr has done since it started, for the operator: group commit is measured, not assumed.
 */

static const char *const names[STATS] = {
    [STAT_ACCEPTED] = "accepted",
    [STAT_ACCEPTED_BYTES] = "accepted_bytes",
    [STAT_REFUSED] = "commits_refused",
    [STAT_SENT] = "recipients_sent",
    [STAT_DEFERRED] = "recipients_deferred",
    [STAT_BOUNCED] = "recipients_bounced",
    [STAT_EXPANDED] = "recipients_expanded",
    [STAT_SYNCS] = "syncs",
    [STAT_SYNC_US] = "sync_us",
    [STAT_SYNC_US_MAX] = "sync_us_max",
    [STAT_COMMIT_US] = "commit_us",
    [STAT_COMMIT_US_MAX] = "commit_us_max",
    [STAT_BATCH_MAX] = "batch_max",
    [STAT_BATCH] = "batches_of_1",
    [STAT_BATCH + 1] = "batches_of_2_to_3",
    [STAT_BATCH + 2] = "batches_of_4_to_7",
    [STAT_BATCH + 3] = "batches_of_8_to_15",
    [STAT_BATCH + 4] = "batches_of_16_to_31",
    [STAT_BATCH + 5] = "batches_of_32_or_more",
};

static uint64_t values[STATS];

void
stats_add(enum queue_stat stat, uint64_t n)
{
    values[stat] += n;
}

void
stats_max(enum queue_stat stat, uint64_t n)
{
    if (n > values[stat])
        values[stat] = n;
}

void
stats_batch(size_t n)
{
    size_t class = 0;
    for (size_t left = n; left > 1 && class < STAT_BATCH_CLASSES - 1; left /= 2)
        class ++;
    values[STAT_BATCH + class]++;
    stats_max(STAT_BATCH_MAX, n);
}

static void
put(struct msg *m, const char *name, uint64_t value)
{
    msg_put_str(m, str_z(name));
    msg_put_u64(m, value);
}

void
stats_answer(struct client *c, struct msg *in)
{
    struct msg out = {0};
    if (!msg_end(in)) {
        service_close(c);
        return;
    }
    msg_begin(&out, M_QUEUE_STATS_ARE);
    msg_put_u32(&out, STATS + 3);
    put(&out, "uptime_s", (uint64_t)(now_ms() - qmgr.started_ms) / 1000);
    put(&out, "queued", index_count());
    put(&out, "in_memory", qmgr.nactive);
    for (size_t i = 0; i < STATS; i++)
        put(&out, names[i], values[i]);
    service_send(c, &out);
    msg_free(&out);
}
