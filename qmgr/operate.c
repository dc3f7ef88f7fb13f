#include "lib/log/log.h"
#include "qmgr/qmgr.h"
#include <stdlib.h>
#include <unistd.h>

/*
 * The operator's questions and orders. What may concern the whole queue is done in parts: each
 * answer says how far it got, and the asker goes on from there. So a part takes SLICE_MS at most,
 * and nothing is remembered here between two.
 */
enum { PAGE = 40, RCPTS_SHOWN = 20, SLICE_MS = 20, LOOKED_AT_MAX = 20000 };

static struct str
state_of(const struct entry *entry)
{
    return entry->state == ENTRY_ACTIVE ? STR("active")
           : entry->place == PLACE_HOLD ? STR("hold")
           : entry->place == PLACE_NEW  ? STR("new")
                                        : STR("deferred");
}

/* A file that cannot be read now: it must not hide, and the list must get past it. */
static void
put_unreadable(struct msg *out, const struct entry *entry, const struct err *e)
{
    msg_put_str(out, str_of(entry->id, ID_LEN));
    msg_put_u64(out, 0);
    msg_put_u64(out, 0);
    msg_put_u64(out, (uint64_t)clock_to_wall_s(entry->due_s));
    msg_put_u32(out, entry->attempts);
    msg_put_str(out, STR(""));
    msg_put_str(out, STR("damaged"));
    msg_put_str(out, str_z(e->text));
    msg_put_u32(out, 0);
}

static bool
is_open(const struct rcpt *r)
{
    return r->state != RCPT_DONE && r->state != RCPT_BOUNCED;
}

static void
put_row(struct msg *out, const struct entry *entry, const struct message *m)
{
    struct str reason = STR("");
    uint32_t shown = 0;
    for (size_t i = 0; i < m->nrcpt; i++) {
        const struct rcpt *r = m->rcpts[i];
        shown += is_open(r) && shown < RCPTS_SHOWN;
        if (is_open(r) && reason.n == 0)
            reason = r->text;
    }
    msg_put_str(out, str_of(entry->id, ID_LEN));
    msg_put_u64(out, m->env.message_size);
    msg_put_u64(out, (uint64_t)(m->env.arrived_us / 1000000));
    msg_put_u64(out, (uint64_t)clock_to_wall_s(entry->due_s));
    msg_put_u32(out, entry->attempts);
    msg_put_str(out, m->env.sender);
    msg_put_str(out, state_of(entry));
    msg_put_str(out, reason);
    msg_put_u32(out, shown);
    for (size_t i = 0; i < m->nrcpt && shown; i++)
        if (is_open(m->rcpts[i])) {
            msg_put_str(out, message_bare(m->rcpts[i]->address));
            shown--;
        }
}

struct part { /* of a walk over the queue */
    enum queue_action action;
    bool dry;
    struct qfilter f;
    struct index_at at;
    struct entry *last; /* looked at */
    size_t id;          /* the next of f.ids */
    char after[ID_LEN];
    bool more;
    uint32_t count, busy;
    struct msg rows;
};

/* A message in memory, or read for this; free it when it is not the entry's own. */
static struct message *
read_message(struct entry *entry, struct err *e)
{
    struct message *m = entry_message(entry);
    return m ? m : message_load(entry, e);
}

static void
done_with(const struct entry *entry, struct message *m)
{
    if (m && m != entry_message(entry))
        message_free(m);
}

static bool
recipient_matches(const struct qfilter *f, const struct message *m)
{
    bool address = !f->recipient.p, domain = !f->domain.p;
    for (size_t i = 0; i < m->nrcpt && !(address && domain); i++) {
        struct str a = message_bare(m->rcpts[i]->address);
        if (!is_open(m->rcpts[i]))
            continue;
        address = address || qfilter_address(f->recipient, a);
        domain = domain || str_caseeq(f->domain, str_from(a, (size_t)str_rchr(a, '@') + 1));
    }
    return address && domain;
}

static bool
matches(const struct qfilter *f, struct entry *entry)
{
    struct err e;
    int64_t age_s = clock_wall_s() - entry_arrived_s(entry);
    if ((f->older_s && age_s < (int64_t)f->older_s) || (f->newer_s && age_s > (int64_t)f->newer_s))
        return false;
    if (!qfilter_needs_envelope(f))
        return true;
    struct message *m = read_message(entry, &e);
    bool yes =
        m && (!f->sender.p || qfilter_address(f->sender, m->env.sender)) && recipient_matches(f, m);
    done_with(entry, m);
    return yes;
}

/* The next entry that the filter may mean: of those named, or of all, in the order of their IDs. */
static struct entry *
next_entry(struct part *p)
{
    if (p->f.nids == 0) {
        struct entry *entry = index_next(&p->at);
        /* In order of arrival: behind the first that is too young there is none that is not. */
        if (entry && p->f.older_s &&
            entry_arrived_s(entry) > clock_wall_s() - (int64_t)p->f.older_s)
            return NULL;
        if (entry)
            memcpy(p->after, entry->id, ID_LEN);
        return entry;
    }
    while (p->id < p->f.nids) {
        struct str id = p->f.ids[p->id++];
        struct entry *entry = index_find(id);
        if (entry && memcmp(id.p, p->after, ID_LEN) > 0) {
            memcpy(p->after, id.p, ID_LEN);
            return entry;
        }
    }
    return NULL;
}

static void
find_one(struct part *p, struct entry *entry)
{
    struct err e;
    struct message *m = read_message(entry, &e);
    p->count++;
    if (m)
        put_row(&p->rows, entry, m);
    else
        put_unreadable(&p->rows, entry, &e);
    done_with(entry, m);
}

static void
hold_one(struct part *p, struct entry *entry)
{
    if (entry->state == ENTRY_HELD)
        return;
    if (p->dry) {
        p->count++;
    } else if (entry->state == ENTRY_ACTIVE) {
        entry->flags |= ENTRY_HOLD;
        p->busy++;
    } else if (place_hold(entry) == 0) {
        entry_detach(entry);
        entry_become(entry, ENTRY_HELD);
        log_info("%.*s: placed on hold", ID_LEN, entry->id);
        p->count++;
    } else {
        log_error("%.*s: cannot be held", ID_LEN, entry->id);
    }
}

static void
try_now(struct entry *entry)
{
    entry->due_s = clock_steady_s();
    entry_wait(entry);
}

static void
release_one(struct part *p, struct entry *entry)
{
    if (!p->dry)
        entry->flags &= (uint8_t)~ENTRY_HOLD;
    if (entry->state != ENTRY_HELD)
        return;
    if (!p->dry) {
        if (place_release(entry) < 0) {
            log_error("%.*s: cannot be released", ID_LEN, entry->id);
            return;
        }
        log_info("%.*s: released from hold", ID_LEN, entry->id);
        try_now(entry);
    }
    p->count++;
}

static void
try_one(struct part *p, struct entry *entry)
{
    if (entry->state != ENTRY_WAITS && entry->state != ENTRY_QUEUED)
        return;
    if (!p->dry && entry->state == ENTRY_WAITS)
        try_now(entry);
    p->count++;
}

static void
drop_one(struct part *p, struct entry *entry)
{
    if (p->dry) {
        p->count++;
        return;
    }
    if (entry->state == ENTRY_ACTIVE) {
        entry->flags |= ENTRY_REMOVE;
        p->busy++;
        return;
    }
    if (store_remove(entry, true) < 0) /* it has logged why; it stays */
        return;
    log_info("%.*s: removed by the operator", ID_LEN, entry->id);
    entry_drop(entry);
    p->count++;
}

static void (*const actions[QUEUE_ACTIONS])(struct part *, struct entry *) = {
    [QUEUE_FIND] = find_one, [QUEUE_HOLD] = hold_one, [QUEUE_RELEASE] = release_one,
    [QUEUE_TRY] = try_one,   [QUEUE_DROP] = drop_one,
};

static void
walk(struct part *p)
{
    enum { ROW_MAX = (RCPTS_SHOWN + 2) * (QFILE_ADDR_MAX + 8) + REASON_MAX + 200 };
    int64_t end = now_ms() + SLICE_MS;
    p->more = true;
    for (size_t n = 1; n <= LOOKED_AT_MAX; n++) {
        struct entry *entry = next_entry(p);
        if (!entry) {
            p->more = false;
            return;
        }
        if (matches(&p->f, entry)) {
            struct index_at before = p->at;
            size_t count = index_count();
            actions[p->action](p, entry);
            if (index_count() != count) /* it was removed: the place before it is as good */
                p->at = p->f.nids ? before : index_after(str_of(p->after, ID_LEN));
        }
        bool full = p->action == QUEUE_FIND && (p->count == PAGE || msg_room(&p->rows) < ROW_MAX);
        if (full || (n % 16 == 0 && now_ms() > end))
            return;
    }
}

static void
answer(struct client *c, struct part *p)
{
    struct msg out = {0};
    bool find = p->action == QUEUE_FIND;
    msg_begin(&out, find ? M_QUEUE_FOUND : M_QUEUE_DID);
    msg_put_bool(&out, p->more);
    msg_put_str(&out, str_of(p->after, p->after[0] ? ID_LEN : 0));
    msg_put_u32(&out, p->count);
    if (find)
        buf_add(&out.fields, buf_str(&p->rows.fields));
    else
        msg_put_u32(&out, p->busy);
    service_send(c, &out);
    msg_free(&out);
}

static void
on_select(struct client *c, struct msg *in)
{
    static struct part p; /* large */
    struct str after = msg_get_str(in);
    uint32_t action = msg_get_u32(in);
    p = (struct part){.dry = msg_get_bool(in)};
    qfilter_get(in, &p.f);
    if (!msg_end(in) || action >= QUEUE_ACTIONS || (after.n && after.n != ID_LEN) ||
        qfilter_empty(&p.f)) {
        service_close(c);
        return;
    }
    p.action = (enum queue_action)action;
    memcpy(p.after, after.p, after.n);
    p.at = after.n || !p.f.newer_s ? index_after(after)
                                   : entry_arrived_from(clock_wall_s() - (int64_t)p.f.newer_s - 1);
    if (p.action == QUEUE_TRY && !p.dry && after.n == 0)
        sched_forget_failures();
    msg_begin(&p.rows, M_QUEUE_FOUND);
    walk(&p);
    bool moved = (p.action == QUEUE_HOLD || p.action == QUEUE_RELEASE) && !p.dry && p.count;
    if (moved)
        place_sync();
    answer(c, &p);
    msg_free(&p.rows);
}

/* As QUEUE_SELECT of all, for mailq. */
static void
on_list(struct client *c, struct msg *in)
{
    struct msg out = {0};
    static struct part p;
    struct str after = msg_get_str(in);
    if (!msg_end(in)) {
        service_close(c);
        return;
    }
    p = (struct part){.action = QUEUE_FIND, .f.all = true, .at = index_after(after)};
    msg_begin(&p.rows, M_QUEUE_ROWS);
    walk(&p);
    msg_begin(&out, M_QUEUE_ROWS);
    msg_put_bool(&out, p.more);
    msg_put_u32(&out, p.count);
    buf_add(&out.fields, buf_str(&p.rows.fields));
    service_send(c, &out);
    msg_free(&p.rows);
    msg_free(&out);
}

static void
on_show(struct client *c, struct msg *in)
{
    struct err e = {0};
    struct msg out = {0};
    struct entry *entry = index_find(msg_get_str(in));
    if (!msg_end(in)) {
        service_close(c);
        return;
    }
    if (!entry) {
        service_fail(c, ERR_PERMANENT, "no message of this ID in the queue");
        return;
    }
    struct message *m = read_message(entry, &e);
    int fd = m ? store_read_fd(entry) : -1;
    if (fd < 0) {
        service_fail(c, ERR_TEMPORARY, m ? "cannot open it" : e.text);
    } else {
        msg_begin(&out, M_QUEUE_MESSAGE);
        msg_put_u64(&out, m->env.message_offset);
        msg_put_u64(&out, m->env.message_size);
        msg_add_fd(&out, fd);
        service_send(c, &out);
        msg_free(&out);
        close(fd);
    }
    done_with(entry, m);
}

void
operate_message(struct client *c, struct msg *in)
{
    static const struct {
        enum msg_type type;
        void (*run)(struct client *, struct msg *);
    } rows[] = {{M_QUEUE_LIST, on_list},
                {M_QUEUE_SELECT, on_select},
                {M_QUEUE_SHOW, on_show},
                {M_QUEUE_SHAPE, shape_answer},
                {M_QUEUE_STATS, stats_answer}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (rows[i].type == in->type) {
            rows[i].run(c, in);
            return;
        }
    service_close(c);
}
