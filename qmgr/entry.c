#include "lib/log/log.h"
#include "qmgr/qmgr.h"
#include <stdlib.h>

enum { BLOCK = 512 }; /* entries allocated together, and never given back */

static struct entry *free_list;

static struct entry *
take_free(void)
{
    if (!free_list) {
        struct entry *block = calloc(BLOCK, sizeof *block);
        for (size_t i = 0; block && i < BLOCK; i++) {
            block[i].next_free = free_list;
            free_list = &block[i];
        }
    }
    struct entry *entry = free_list;
    if (entry) {
        free_list = entry->next_free;
        memset(entry, 0, sizeof *entry);
    }
    return entry;
}

static void
give_back(struct entry *entry)
{
    entry->next_free = free_list;
    free_list = entry;
}

static void
on_due(struct loop_timer *t)
{
    struct entry *entry = t->arg;
    entry_detach(entry);
    ready_add(entry);
}

struct entry *
entry_add(const char *id, char origin, enum place place, int64_t due_s)
{
    struct entry *entry = take_free();
    if (!entry)
        return NULL;
    memcpy(entry->id, id, ID_LEN);
    entry->origin = origin;
    entry->place = (uint8_t)place;
    entry->due_s = due_s;
    entry->born_s = clock_steady_s();
    if (index_add(entry) < 0) {
        give_back(entry);
        return NULL;
    }
    shape_add(entry);
    qmgr.states[ENTRY_NONE]++;
    if (place == PLACE_HOLD)
        entry_become(entry, ENTRY_HELD);
    return entry;
}

void
entry_become(struct entry *entry, enum entry_state state)
{
    if ((entry->state == ENTRY_HELD) != (state == ENTRY_HELD))
        shape_hold(entry, state == ENTRY_HELD);
    qmgr.states[entry->state]--;
    qmgr.states[state]++;
    entry->state = (uint8_t)state;
}

void
entry_detach(struct entry *entry)
{
    if (entry->state == ENTRY_WAITS)
        loop_timer_del(&qmgr.loop, &entry->timer);
    else if (entry->state == ENTRY_QUEUED)
        ready_detach(entry);
    entry_become(entry, ENTRY_NONE);
}

void
entry_own(struct entry *entry, uint32_t user, uint32_t kib)
{
    entry->user = user;
    entry->kib = kib;
    users_add(user, 1, kib);
}

void
entry_drop(struct entry *entry)
{
    entry_detach(entry);
    users_drop(entry->user, 1, entry->kib);
    qmgr.states[ENTRY_NONE]--;
    shape_drop(entry);
    index_del(entry);
    give_back(entry);
}

struct message *
entry_message(const struct entry *entry)
{
    return entry->state == ENTRY_ACTIVE ? entry->message : NULL;
}

/* The longest wait there is, with its jitter: a time further ahead was written by a clock that was
 * wrong. */
static int64_t
longest_s(void)
{
    return (int64_t)qmgr.conf->queue.retry_max_s + qmgr.conf->queue.retry_max_s / 10 + 1;
}

void
entry_wait(struct entry *entry)
{
    int64_t wait_s = entry->due_s - clock_steady_s();
    entry_detach(entry);
    if (wait_s <= 0) {
        ready_add(entry);
        return;
    }
    if (wait_s > longest_s()) {
        wait_s = qmgr.conf->queue.retry_min_s;
        entry->due_s = clock_steady_s() + wait_s;
    }
    entry->timer = (struct loop_timer){.fire = on_due, .arg = entry};
    entry_become(entry, ENTRY_WAITS);
    if (loop_timer_set(&qmgr.loop, &entry->timer, now_ms() + wait_s * 1000) < 0)
        log_fatal("out of memory for the queue");
}

/* The first nine characters are milliseconds: see store_new_id(). */
int64_t
entry_arrived_s(const struct entry *entry)
{
    int64_t ms = 0;
    for (int i = 0; i < 9; i++)
        ms = ms << 5 | id_value(entry->id[i]);
    return ms / 1000;
}

struct index_at
entry_arrived_from(int64_t wall_s)
{
    char prefix[9];
    uint64_t ms = wall_s > 0 ? (uint64_t)wall_s * 1000 : 0;
    for (int i = 8; i >= 0; i--, ms >>= 5)
        prefix[i] = ID_LETTERS[ms & 31];
    return index_after(str_of(prefix, sizeof prefix));
}
