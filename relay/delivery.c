#include "lib/ipc/channel.h"
#include "lib/log/log.h"
#include "lib/mail/dsn.h"
#include "relay/relay.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { SEND_MS = 30000 };

void
verdict_set(struct verdict *v, enum outcome outcome, const char *dsn, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(v->text, sizeof v->text, fmt, ap);
    va_end(ap);
    for (char *p = v->text; *p; p++)
        if (!ch_print(*p))
            *p = '?';
    v->outcome = outcome;
    snprintf(v->dsn, sizeof v->dsn, "%s", dsn);
}

/* What the sender asked of reports: qmgr has checked it, and it goes into command lines. */
static int
read_dsn(struct delivery *d)
{
    struct msg *m = &d->in;
    d->ret = msg_get_u32(m);
    d->envid = msg_get_str(m);
    bool ok = d->ret <= DSN_RET_HDRS && (!d->envid.n || dsn_envid_ok(d->envid));
    for (uint32_t i = 0; i < d->n; i++) {
        struct recipient *r = &d->rcpts[i];
        r->notify = msg_get_u32(m);
        r->orcpt = msg_get_str(m);
        ok = ok && dsn_notify_ok(r->notify) && (!r->orcpt.n || dsn_orcpt_ok(r->orcpt));
    }
    return ok ? 0 : -1;
}

int
delivery_read(struct delivery *d, struct err *e)
{
    struct msg *m = &d->in;
    d->id = msg_get_str(m);
    d->sender = msg_get_str(m);
    (void)msg_get_u64(m); /* the time of arrival */
    d->offset = msg_get_u64(m);
    d->size = msg_get_u64(m);
    d->check = msg_get_u64(m);
    (void)msg_get_bool(m);
    uint32_t how = msg_get_u32(m);
    d->eight_bit = how & DELIVER_8BIT;
    d->n = msg_get_u32(m);
    if (m->bad || d->n == 0 || d->n > QFILE_RCPT_MAX || d->offset > INT64_MAX / 2 ||
        d->size > INT64_MAX / 2)
        return err_set(e, ERR_PROTOCOL, "bad DELIVER");
    d->rcpts = calloc(d->n, sizeof *d->rcpts);
    if (!d->rcpts)
        return err_set(e, ERR_TEMPORARY, "out of memory");
    for (uint32_t i = 0; i < d->n; i++) {
        d->rcpts[i].index = msg_get_u32(m);
        d->rcpts[i].address = msg_get_str(m);
    }
    if ((how & DELIVER_DSN) && read_dsn(d) < 0)
        return err_set(e, ERR_PROTOCOL, "bad DELIVER");
    d->fd = msg_take_fd(m, 0);
    return msg_end(m) && d->fd >= 0 ? 0 : err_set(e, ERR_PROTOCOL, "bad DELIVER");
}

void
delivery_settle(struct delivery *d, struct recipient *r, const struct verdict *v)
{
    struct msg m = {0};
    struct err e = {0};
    if (r->state == RCPT_SETTLED)
        return;
    r->state = RCPT_SETTLED;
    msg_begin(&m, M_OUTCOME);
    msg_put_u32(&m, r->index);
    msg_put_u32(&m, v->outcome);
    msg_put_str(&m, str_z(v->dsn));
    msg_put_str(&m, str_z(v->text));
    msg_put_str(&m, v->relay[0] ? str_z(v->relay) : STR("none"));
    if (!d->lost && chan_send(d->channel, &m, SEND_MS, &e) < 0) {
        d->lost = true;
        log_warn("%s: cannot report to qmgr: %s", log_str(d->id), e.text);
    }
    msg_free(&m);
}

void
delivery_settle_all(struct delivery *d, enum recipient_state state, const struct verdict *v)
{
    for (uint32_t i = 0; i < d->n; i++)
        if (d->rcpts[i].state == state)
            delivery_settle(d, &d->rcpts[i], v);
}

bool
delivery_open(const struct delivery *d)
{
    for (uint32_t i = 0; i < d->n; i++)
        if (d->rcpts[i].state != RCPT_SETTLED)
            return true;
    return false;
}

void
delivery_reset(struct delivery *d)
{
    int channel = d->channel;
    bool lost = d->lost;
    if (d->fd >= 0)
        close(d->fd);
    free(d->rcpts);
    msg_free(&d->in);
    *d = (struct delivery){.channel = channel, .lost = lost, .fd = -1};
}
