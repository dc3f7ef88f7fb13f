#include "lib/log/log.h"
#include "qmgr/qmgr.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* One message being brought by a session. */
struct intake {
    char id[ID_LEN + 1];
    bool committing; /* renamed, waits for a sync */
    int error;       /* of the sync */
    char origin;
    int fd;             /* the file, read-only, from its commit on; or -1 */
    uint32_t user, kib; /* counted for this user (users.c); 0: nobody */
    struct arena arena;
    struct envelope env;
    int64_t commit_us;     /* when the session said so */
    struct client *client; /* NULL: it went before the answer */
    struct intake *next;
};

static struct intake *named, **last_named = &named; /* renamed; their sync has not begun */
static struct intake *syncing;                      /* it is under way */
static int64_t sync_began_us;
static size_t open_intakes; /* sessions between QUEUE_NEW and their answer */

static char
origin_of(enum role role)
{
    return role == R_SMTPD ? 's' : role == R_SUBMITD ? 'u' : 'l';
}

static void
forget(struct intake *in)
{
    open_intakes--;
    if (in->fd >= 0)
        close(in->fd);
    users_drop(in->user, 1, in->kib);
    arena_free(&in->arena);
    free(in);
}

static void
abandon(struct client *c)
{
    struct intake *in = c->state;
    c->state = NULL;
    if (!in)
        return;
    if (in->committing) {
        in->client = NULL; /* it is in new/: it stays, whether anybody hears of it or not */
        return;
    }
    store_discard(in->id);
    forget(in);
}

/* user: who gave it to sendmail(1), as the kernel told submitd; 0: root, or nobody here. */
static void
on_new(struct client *c, uint32_t user)
{
    struct err e = {0};
    struct msg out = {0};
    abandon(c);
    if (users_room(user, 1, 1, &e) < 0) {
        log_warn("%s", e.text);
        service_fail(c, e.class, e.text);
        return;
    }
    if (!store_room(qmgr.conf->message_size_max)) {
        log_error("no room in the queue's file system");
        service_fail(c, ERR_LIMIT, "insufficient system storage");
        return;
    }
    struct intake *in = calloc(1, sizeof *in);
    if (!in) {
        service_fail(c, ERR_TEMPORARY, "out of memory");
        return;
    }
    in->fd = -1;
    in->arena = arena_new((size_t)2 * QFILE_ENVELOPE_MAX);
    store_new_id(in->id);
    int fd = store_create(in->id, &e);
    if (fd < 0) {
        log_error("%s", e.text);
        service_fail(c, e.class, e.text);
        free(in);
        return;
    }
    open_intakes++;
    in->user = user;
    users_add(user, 1, 0);
    c->state = in;
    msg_begin(&out, M_QUEUE_FILE);
    msg_put_str(&out, str_z(in->id));
    msg_add_fd(&out, fd);
    service_send(c, &out);
    msg_free(&out);
    close(fd);
}

/* The second wall against an open relay: what came in through smtpd goes to us and nowhere else,
 * however the session came to think otherwise. */
static bool
may_go(char origin, const struct envelope *env)
{
    if (origin != 's' || qmgr.conf->relayclient || qmgr.conf->nrelay_from)
        return true;
    for (size_t i = 0; i < env->nrcpt; i++)
        if (!message_is_local(env->rcpts[i].address))
            return false;
    return true;
}

/* What the session wrote, read back through our own eyes. */
static int
check(struct intake *in, struct err *e)
{
    in->fd = store_reopen(in->id);
    if (in->fd < 0)
        return err_errno(e, "cannot read the queue file");
    /* From here on it never changes: a session that kept it open could put other recipients into
     * it, or other content, behind our back. */
    int ok = store_is_written(in->fd)
                 ? err_set(e, ERR_TEMPORARY, "the session has not let go of the file")
                 : qfile_read(in->fd, &in->arena, &in->env, e);
    if (ok == 0 && in->env.message_size > qmgr.conf->message_size_max)
        ok = err_set(e, ERR_PERMANENT, "message too large");
    if (ok == 0 && !may_go(in->origin, &in->env))
        ok = err_set(e, ERR_PERMANENT, "smtpd may not relay");
    if (ok == 0 && in->user) {
        uint32_t kib = users_kib(in->env.message_offset + in->env.message_size);
        ok = users_room(in->user, 0, kib, e);
        if (ok == 0) {
            in->kib = kib;
            users_add(in->user, 0, kib);
        }
    }
    return ok;
}

static void
on_commit(struct client *c)
{
    struct intake *in = c->state;
    struct err e = {0};
    if (!in || in->committing) {
        service_fail(c, ERR_PERMANENT, "nothing to commit");
        return;
    }
    in->origin = origin_of(c->role);
    if (check(in, &e) < 0) {
        log_error("%s: refused from %s: %s", in->id, role_name(c->role), e.text);
    } else if (store_commit_name(in->id, in->origin, in->user) < 0) {
        err_errno(&e, "cannot name the queue file");
        log_error("%s: %s", in->id, e.text);
    } else {
        in->committing = true;
        in->commit_us = now_us();
        in->client = c;
        *last_named = in;
        last_named = &in->next;
        return;
    }
    stats_add(STAT_REFUSED, 1);
    service_fail(c, e.class, e.text);
    abandon(c);
}

static void
answer(struct intake *in, int error)
{
    struct msg out = {0};
    struct client *c = in->client;
    if (c)
        c->state = NULL;
    if (!c)
        return;
    if (error) {
        service_fail(c, error == ENOSPC || error == EDQUOT ? ERR_LIMIT : ERR_TEMPORARY,
                     "cannot sync the queue file");
        return;
    }
    msg_begin(&out, M_QUEUE_DONE);
    service_send(c, &out);
    msg_free(&out);
}

static void
accepted(struct intake *in)
{
    struct entry *entry = entry_add(in->id, in->origin, PLACE_NEW, clock_steady_s());
    log_info("%s: from=<%s>, size=%llu, nrcpt=%zu (queue active)", in->id, log_str(in->env.sender),
             (unsigned long long)in->env.message_size, in->env.nrcpt);
    if (!entry)
        log_fatal("out of memory for the queue");
    if (in->user)
        entry_own(entry, in->user, in->kib);
    stats_add(STAT_ACCEPTED, 1);
    stats_add(STAT_ACCEPTED_BYTES, in->env.message_size);
    bool keep = qmgr.nactive < FILES_KEPT && qmgr.service.nclients <= FILES_CLIENTS;
    message_adopt(entry, &in->arena, &in->env, keep ? &in->fd : &(int){-1});
}

static bool
has(const struct intake *in, struct str id)
{
    while (in && !str_eq(str_z(in->id), id))
        in = in->next;
    return in != NULL;
}

bool
intake_has(struct str id)
{
    return has(named, id) || has(syncing, id);
}

/* How long the sync took, for how many, and how long they have waited in all. */
static void
measure(const struct intake *list)
{
    int64_t now = now_us();
    size_t n = 0;
    for (const struct intake *in = list; in; in = in->next, n++) {
        stats_add(STAT_COMMIT_US, (uint64_t)(now - in->commit_us));
        stats_max(STAT_COMMIT_US_MAX, (uint64_t)(now - in->commit_us));
    }
    stats_add(STAT_SYNCS, 1);
    stats_add(STAT_SYNC_US, (uint64_t)(now - sync_began_us));
    stats_max(STAT_SYNC_US_MAX, (uint64_t)(now - sync_began_us));
    stats_batch(n);
}

/* A failed sync is never tried again: pages may be gone and marked clean. The file goes. */
static void
refused(struct intake *in, int error)
{
    log_error("%s: cannot sync the queue: %s", in->id, strerror(error));
    stats_add(STAT_REFUSED, 1);
    store_uncommit(in->id, in->origin, in->user);
}

void
intake_synced(const unsigned char *errors)
{
    struct intake *list = syncing;
    size_t n = 0;
    syncing = NULL;
    measure(list);
    for (const struct intake *in = list; in; in = in->next)
        n++;
    int of_new = errors[n];
    n = 0;
    for (struct intake *in = list; in; in = in->next, n++) {
        in->error = of_new ? of_new : errors[n];
        if (in->error)
            refused(in, in->error);
        answer(in, in->error);
    }
    while (list) {
        struct intake *in = list;
        list = in->next;
        if (in->error == 0)
            accepted(in);
        forget(in);
    }
    /* Of the directory others want to know, too: start afresh. */
    if (of_new)
        log_fatal("leaving after a failed sync");
}

/* Some of those that wait for it, in their order, and the file of each. */
static size_t
take_named(int *fds_r)
{
    struct intake **at = &named;
    size_t n = 0;
    for (; *at && n < SYNC_MAX; at = &(*at)->next) {
        fds_r[n++] = (*at)->fd;
    }
    syncing = named;
    named = *at;
    *at = NULL;
    if (!named)
        last_named = &named;
    return n;
}

void
intake_after_turn(void)
{
    int fds[SYNC_MAX];
    unsigned char errors[2];
    if (!named || syncing)
        return;
    size_t n = take_named(fds);
    sync_began_us = now_us();
    /* With nobody else to serve meanwhile, the way to the syncer and back would only cost time. */
    if (open_intakes > 1) {
        syncer_ask(fds, n);
        return;
    }
    (void)syncer_do(fds, 1, errors);
    intake_synced(errors);
}

void
intake_message(struct client *c, struct msg *m)
{
    uint32_t user = m->type == M_QUEUE_NEW ? msg_get_u32(m) : 0;
    if (!msg_end(m)) {
        service_close(c);
    } else if (m->type == M_QUEUE_NEW) {
        on_new(c, c->role == R_SUBMITD ? user : 0);
    } else if (m->type == M_QUEUE_COMMIT) {
        on_commit(c);
    } else {
        abandon(c);
    }
}

void
intake_gone(struct client *c)
{
    abandon(c);
}
