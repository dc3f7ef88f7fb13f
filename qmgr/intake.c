#include "lib/log/log.h"
#include "qmgr/qmgr.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* One message being brought by a session. */
struct intake {
    char id[ID_LEN + 1];
    enum name {
        UNNAMED, /* tmp/ID: the session is at it */
        NAMED,   /* new/ID.O, and checked */
        SYNCING, /* new/ is being synced since then */
        SYNCED,
    } name;
    bool file_synced;   /* by the session */
    char origin;        /* once it is named */
    int fd;             /* the file, read-only; or -1 */
    uint32_t user, kib; /* counted for this user (users.c); 0: nobody */
    struct arena arena;
    struct envelope env;
    int64_t commit_us;           /* when the session said so */
    struct client *client;       /* NULL: it went before the answer */
    struct intake *next, **prev; /* once it is named, in one of these: */
};

static struct intake *named;
static struct intake *syncing;
static struct intake *waiting; /* for the session's word: their names are synced */
static bool wanted;            /* the sync, by one whose file is synced */
static bool under_way;         /* by the syncer */
static size_t nsyncing;
static int64_t sync_began_us;
static size_t open_intakes; /* sessions between QUEUE_NEW and their answer */

static void
put_into(struct intake **list, struct intake *in)
{
    in->next = *list;
    in->prev = list;
    if (*list)
        (*list)->prev = &in->next;
    *list = in;
}

static void
take_out(struct intake *in)
{
    *in->prev = in->next;
    if (in->next)
        in->next->prev = in->prev;
}

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

/* The session has gone, or gives it up. What it has synced stays, whether anybody hears of it or
 * not. */
static void
abandon(struct client *c)
{
    struct intake *in = c->state;
    c->state = NULL;
    if (!in)
        return;
    if (in->file_synced) {
        in->client = NULL;
        return;
    }
    if (in->name != UNNAMED) {
        take_out(in);
        store_uncommit(in->id, in->origin, in->user);
    } else {
        store_discard(in->id);
    }
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
    in->arena = arena_new((size_t)2 * QFILE_ENVELOPE_MAX);
    store_new_id(in->id);
    int fd = store_create(in->id, &in->fd, &e);
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
    msg_add_fd(&out, in->fd);
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
    /* From here on it never changes: a session that kept it open could put other recipients into
     * it, or other content, behind our back. */
    int ok = store_is_written(in->fd)
                 ? err_set(e, ERR_TEMPORARY, "the session has not let go of the file")
                 : qfile_read(in->fd, str_z(in->id), &in->arena, &in->env, e);
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
    if (!in || in->name != UNNAMED) {
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
        in->name = NAMED;
        in->commit_us = now_us();
        in->client = c;
        put_into(&named, in);
        return;
    }
    stats_add(STAT_REFUSED, 1);
    service_fail(c, e.class, e.text);
    abandon(c);
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
    return has(named, id) || has(syncing, id) || has(waiting, id);
}

static void
fail(struct intake *in)
{
    store_uncommit(in->id, in->origin, in->user);
    if (!in->client)
        return;
    in->client->state = NULL;
    service_fail(in->client, ERR_TEMPORARY, "cannot sync the queue");
}

/* It is durable. */
static void
finish(struct intake *in)
{
    struct msg out = {0};
    stats_add(STAT_COMMIT_US, (uint64_t)(now_us() - in->commit_us));
    stats_max(STAT_COMMIT_US_MAX, (uint64_t)(now_us() - in->commit_us));
    if (in->client) {
        in->client->state = NULL;
        msg_begin(&out, M_QUEUE_DONE);
        service_send(in->client, &out);
        msg_free(&out);
    }
    take_out(in);
    accepted(in);
    forget(in);
}

static void
on_synced(struct client *c)
{
    struct intake *in = c->state;
    if (!in) /* the commit was refused, and the session has not read so yet */
        return;
    if (in->name == UNNAMED || in->file_synced) {
        service_close(c);
        return;
    }
    in->file_synced = true;
    if (in->name == NAMED)
        wanted = true;
    else if (in->name == SYNCED)
        finish(in);
}

/* How long the sync took, and for how many. */
static void
measure(void)
{
    int64_t now = now_us();
    stats_add(STAT_SYNCS, 1);
    stats_add(STAT_SYNC_US, (uint64_t)(now - sync_began_us));
    stats_max(STAT_SYNC_US_MAX, (uint64_t)(now - sync_began_us));
    stats_batch(nsyncing);
}

/* A failed sync is never tried again: pages may be gone and marked clean. Start afresh. */
static void
leave(int why)
{
    struct intake *const lists[] = {syncing, named, waiting};
    log_error("cannot sync the queue: %s", strerror(why));
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++)
        for (struct intake *in = lists[i]; in; in = in->next)
            fail(in);
    log_fatal("leaving after a failed sync");
}

void
intake_synced(int ok)
{
    int why = errno;
    under_way = false;
    measure();
    if (ok < 0)
        leave(why);
    for (struct intake *in = syncing, *next; in; in = next) {
        next = in->next;
        in->name = SYNCED;
        if (in->file_synced) {
            finish(in);
        } else {
            take_out(in);
            put_into(&waiting, in);
        }
    }
}

static void
begin_sync(void)
{
    syncing = named;
    if (syncing)
        syncing->prev = &syncing;
    named = NULL;
    wanted = false;
    nsyncing = 0;
    for (struct intake *in = syncing; in; in = in->next, nsyncing++)
        in->name = SYNCING;
    sync_began_us = now_us();
}

void
intake_after_turn(void)
{
    if (!wanted || under_way)
        return;
    begin_sync();
    /* With nobody else to serve meanwhile, the way to the syncer and back would only cost time. */
    if (open_intakes == 1) {
        intake_synced(place_sync_new());
        return;
    }
    under_way = true;
    place_new_syncing();
    syncer_ask();
}

/* What is synced is answered; what is not goes, since nobody was told of it. */
void
intake_leave(void)
{
    if (under_way)
        syncer_wait();
    if (named) {
        begin_sync();
        intake_synced(place_sync_new());
    }
    for (struct intake *in = waiting; in; in = in->next)
        store_uncommit(in->id, in->origin, in->user);
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
    } else if (m->type == M_QUEUE_SYNCED) {
        on_synced(c);
    } else {
        abandon(c);
    }
}

void
intake_gone(struct client *c)
{
    abandon(c);
}
