#include "qmgr/qmgr.h"
#include "lib/log/log.h"
#include <stdlib.h>

/* What each local user has in the queue (catalogue E13). Of whom there is nothing, nothing is kept,
 * so there are never more of these than messages. */
struct user {
    uint32_t uid, messages;
    uint64_t kib;
    struct user *next;
};

enum { BUCKETS = 256 };
static struct user *users[BUCKETS];

static struct user **
find(uint32_t uid)
{
    struct user **u = &users[uid % BUCKETS];
    while (*u && (*u)->uid != uid)
        u = &(*u)->next;
    return u;
}

uint32_t
users_kib(uint64_t bytes)
{
    uint64_t kib = bytes / 1024 + 1;
    return kib < UINT32_MAX ? (uint32_t)kib : UINT32_MAX;
}

int
users_room(uint32_t uid, uint32_t messages, uint32_t kib, struct err *e)
{
    const struct user *u = uid ? *find(uid) : NULL;
    uint64_t kib_max = qmgr.conf->queue.user_size_max / 1024;
    if (uid && (u ? u->messages : 0) + (uint64_t)messages > qmgr.conf->queue.user_messages_max)
        return err_set(e, ERR_LIMIT, "user %u has %u messages in the queue: not more at once",
                       (unsigned)uid, u ? (unsigned)u->messages : 0);
    if (uid && (u ? u->kib : 0) + kib > kib_max)
        return err_set(
            e, ERR_LIMIT, "user %u has %llu KiB in the queue: not more than %llu at once",
            (unsigned)uid, u ? (unsigned long long)u->kib : 0, (unsigned long long)kib_max);
    return 0;
}

void
users_add(uint32_t uid, uint32_t messages, uint32_t kib)
{
    struct user **u = find(uid);
    if (uid == 0)
        return;
    if (!*u) {
        *u = calloc(1, sizeof **u);
        if (!*u)
            log_fatal("out of memory for the queue");
        (*u)->uid = uid;
    }
    (*u)->messages += messages;
    (*u)->kib += kib;
}

void
users_drop(uint32_t uid, uint32_t messages, uint32_t kib)
{
    struct user **link = find(uid), *u = *link;
    if (uid == 0 || !u)
        return;
    u->messages -= messages < u->messages ? messages : u->messages;
    u->kib -= kib < u->kib ? kib : u->kib;
    if (u->messages == 0 && u->kib == 0) {
        *link = u->next;
        free(u);
    }
}
