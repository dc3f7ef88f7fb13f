#include "lib/log/log.h"
#include "qmgr/qmgr.h"
#include <unistd.h>

enum { PAGE = 40, RCPTS_SHOWN = 20 };

static struct str
state_of(const struct entry *entry)
{
    return entry->active ? STR("active") : entry->place == PLACE_NEW ? STR("new") : STR("deferred");
}

/* A file that cannot be read now: it must not hide, and the list must get past it. */
static void
put_unreadable(struct msg *out, const struct entry *entry, const struct err *e)
{
    msg_put_str(out, str_of(entry->id, ID_LEN));
    msg_put_u64(out, 0);
    msg_put_u64(out, 0);
    msg_put_u64(out, (uint64_t)entry->due_s);
    msg_put_u32(out, entry->attempts);
    msg_put_str(out, STR(""));
    msg_put_str(out, STR("damaged"));
    msg_put_str(out, str_z(e->text));
    msg_put_u32(out, 0);
}

static void
put_row(struct msg *out, const struct entry *entry, const struct message *m)
{
    struct str reason = STR("");
    uint32_t shown = 0;
    for (size_t i = 0; i < m->nrcpt; i++) {
        const struct rcpt *r = m->rcpts[i];
        bool open = r->state != RCPT_DONE && r->state != RCPT_BOUNCED;
        shown += open && shown < RCPTS_SHOWN;
        if (open && reason.n == 0)
            reason = r->text;
    }
    msg_put_str(out, str_of(entry->id, ID_LEN));
    msg_put_u64(out, m->env.message_size);
    msg_put_u64(out, (uint64_t)(m->env.arrived_us / 1000000));
    msg_put_u64(out, (uint64_t)entry->due_s);
    msg_put_u32(out, entry->attempts);
    msg_put_str(out, m->env.sender);
    msg_put_str(out, state_of(entry));
    msg_put_str(out, reason);
    msg_put_u32(out, shown);
    for (size_t i = 0; i < m->nrcpt && shown; i++)
        if (m->rcpts[i]->state != RCPT_DONE && m->rcpts[i]->state != RCPT_BOUNCED) {
            struct str address = m->rcpts[i]->address;
            msg_put_str(out, address.p[0] == '\\' ? str_from(address, 1) : address);
            shown--;
        }
}

/* A page is as long as fits one frame. */
static void
on_list(struct client *c, struct msg *in)
{
    enum { ROW_MAX = (RCPTS_SHOWN + 2) * (QFILE_ADDR_MAX + 8) + REASON_MAX + 200 };
    struct entry *page[PAGE];
    struct msg out = {0}, rows = {0};
    bool more;
    uint32_t put = 0;
    struct str after = msg_get_str(in);
    if (!msg_end(in)) {
        service_close(c);
        return;
    }
    size_t n = entry_page(after, page, PAGE, &more);
    msg_begin(&rows, M_QUEUE_ROWS);
    size_t i = 0;
    for (; i < n && msg_room(&rows) > ROW_MAX; i++) {
        struct err e;
        struct message *m = page[i]->active ? page[i]->active : message_load(page[i], &e);
        put++;
        if (!m) {
            put_unreadable(&rows, page[i], &e);
            continue;
        }
        put_row(&rows, page[i], m);
        if (m != page[i]->active)
            message_free(m);
    }
    msg_begin(&out, M_QUEUE_ROWS);
    msg_put_bool(&out, more || i < n);
    msg_put_u32(&out, put);
    buf_add(&out.fields, buf_str(&rows.fields));
    service_send(c, &out);
    msg_free(&rows);
    msg_free(&out);
}

static void
on_show(struct client *c, struct entry *entry)
{
    struct err e = {0};
    struct msg out = {0};
    struct message *m = entry->active ? entry->active : message_load(entry, &e);
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
    if (m && m != entry->active)
        message_free(m);
}

static void
done(struct client *c, uint32_t count)
{
    struct msg out = {0};
    msg_begin(&out, M_QUEUE_OK);
    msg_put_u32(&out, count);
    service_send(c, &out);
    msg_free(&out);
}

static bool
retry_one(struct entry *entry, void *arg)
{
    if (!entry->active) {
        entry->due_s = wall_s();
        entry_wait(entry);
        ++*(uint32_t *)arg;
    }
    return true;
}

static void
remove_one(struct client *c, struct entry *entry)
{
    struct err e;
    if (entry->active) {
        service_fail(c, ERR_TEMPORARY, "it is being delivered right now");
        return;
    }
    struct message *m = message_load(entry, &e);
    bool removed = store_remove(entry, !m || m->journaled) == 0;
    if (m)
        message_free(m);
    if (!removed) {
        service_fail(c, ERR_TEMPORARY, "its file cannot be removed");
        return;
    }
    log_info("%.*s: removed by the operator", ID_LEN, entry->id);
    entry_drop(entry);
    done(c, 1);
}

void
operate_message(struct client *c, struct msg *in)
{
    uint32_t count = 0;
    if (in->type == M_QUEUE_LIST) {
        on_list(c, in);
        return;
    }
    struct str id = msg_get_str(in);
    struct entry *entry = entry_find(id);
    if (!msg_end(in)) {
        service_close(c);
    } else if (in->type == M_QUEUE_RETRY && id.n == 0) {
        route_forget_failures();
        entry_for_each(retry_one, &count);
        done(c, count);
    } else if (!entry) {
        service_fail(c, ERR_PERMANENT, "no message of this ID in the queue");
    } else if (in->type == M_QUEUE_SHOW) {
        on_show(c, entry);
    } else if (in->type == M_QUEUE_RETRY) {
        route_forget_failures();
        retry_one(entry, &count);
        done(c, count);
    } else if (in->type == M_QUEUE_REMOVE) {
        remove_one(c, entry);
    } else {
        service_close(c);
    }
}
