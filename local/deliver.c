#include "lib/log/log.h"
#include "lib/mail/header.h"
#include "local/local.h"
#include <stdio.h>
#include <unistd.h>

enum { CELL_MS = 120000, AUTH_MS = 30000 };

static void
set(struct result *r, enum outcome outcome, const char *dsn, const char *text)
{
    r->outcome = outcome;
    r->dsn = dsn;
    snprintf(r->text, sizeof r->text, "%s", text);
}

static void
read_header(struct delivery *d)
{
    size_t want = d->size < HEADER_READ_MAX ? (size_t)d->size : HEADER_READ_MAX;
    if (d->header_read)
        return;
    d->header_read = true;
    d->header = buf_new(HEADER_READ_MAX);
    char *to = buf_reserve(&d->header, want);
    ssize_t n = to ? pread(d->fd, to, want, (off_t)d->offset) : -1;
    if (n > 0)
        buf_commit(&d->header, (size_t)n);
}

/* RFC 9228: it has been here, for this very address. */
static bool
delivered_before(struct delivery *d, struct str address)
{
    struct header_field field;
    read_header(d);
    struct header h = header_of(buf_str(&d->header));
    while (header_next(&h, &field))
        if (str_caseeq(field.name, STR("Delivered-To")) &&
            str_caseeq(str_trim(field.value), address))
            return true;
    return false;
}

static void
close_cell(struct cell *cell)
{
    if (cell->fd >= 0)
        close(cell->fd);
    cell->fd = -1;
    cell->account[0] = '\0';
}

void
deliver_close_cells(struct local_session *s)
{
    for (size_t i = 0; i < CELLS_KEPT; i++)
        close_cell(&s->cells[i]);
}

/* The cell of this account: one we have, or a new one from authd in the least used place. */
static struct cell *
get_cell(struct local_session *s, struct str account, struct err *e)
{
    struct cell *place = &s->cells[0];
    struct msg m = {0};
    int pair[2];
    for (size_t i = 0; i < CELLS_KEPT; i++) {
        struct cell *c = &s->cells[i];
        if (c->fd >= 0 && str_eq(str_z(c->account), account)) {
            c->used = ++s->clock;
            return c;
        }
        if (c->fd < 0 || (place->fd >= 0 && c->used < place->used))
            place = c;
    }
    if (account.n >= sizeof place->account ||
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
        err_errno(e, "no channel for a cell");
        return NULL;
    }
    msg_begin(&m, M_CELL);
    msg_put_str(&m, account);
    msg_add_fd(&m, pair[1]);
    int ok = remote_ask(&s->authd, &m, M_GRANTED, AUTH_MS, e);
    msg_free(&m);
    close(pair[1]);
    if (ok < 0) {
        close(pair[0]);
        return NULL;
    }
    close_cell(place);
    place->fd = pair[0];
    place->used = ++s->clock;
    memcpy(place->account, account.p, account.n);
    place->account[account.n] = '\0';
    return place;
}

static void
add_head(struct buf *head, const struct delivery *d, struct str address)
{
    buf_addz(head, "Return-Path: <");
    buf_add(head, d->sender);
    buf_addz(head, ">\r\nDelivered-To: ");
    buf_add(head, address);
    buf_addz(head, "\r\n");
}

static int
ask_cell(struct cell *cell, struct delivery *d, uint32_t index, struct str address, bool again,
         struct buf *file, struct err *e)
{
    struct msg m = {0};
    struct buf head = buf_new(2048);
    add_head(&head, d, address);
    msg_begin(&m, M_CELL_DELIVER);
    msg_put_str(&m, d->id);
    msg_put_u32(&m, index);
    msg_put_u64(&m, (uint64_t)d->arrived_us);
    msg_put_u64(&m, d->offset);
    msg_put_u64(&m, d->size);
    msg_put_bool(&m, again);
    msg_put_str(&m, buf_str(&head));
    msg_add_fd(&m, d->fd);
    int ok = chan_ask(cell->fd, &m, M_CELL_DELIVERED, R_LOCAL, R_CELL, CELL_MS, e);
    if (ok == 0)
        buf_add(file, msg_get_str(&m));
    msg_free(&m);
    buf_free(&head);
    return ok;
}

void
deliver_to(struct local_session *s, struct delivery *d, uint32_t index, struct str address,
           struct str account, struct result *result_r)
{
    struct err e = {0};
    char room[256];
    struct buf file = buf_on(room, sizeof room, sizeof room - 1);
    bool again = d->again;
    if (delivered_before(d, address)) {
        set(result_r, OUTCOME_NEVER, "5.4.6", "mail loop: it was delivered to this address before");
        return;
    }
    /* A cell that was kept may have gone meanwhile: once more with a fresh one. */
    for (int tries = 0; tries < 2; tries++) {
        struct cell *cell = get_cell(s, account, &e);
        if (!cell)
            break;
        if (ask_cell(cell, d, index, address, again, &file, &e) == 0) {
            char text[300];
            snprintf(text, sizeof text, "delivered to maildir as %s", buf_z(&file));
            set(result_r, OUTCOME_DONE, "2.0.0", text);
            return;
        }
        if (e.class == ERR_TEMPORARY || e.class == ERR_PERMANENT || e.class == ERR_LIMIT)
            break;
        close_cell(cell);
        if (e.class == ERR_TIMEOUT) /* the next would wait as long, and others wait for us */
            break;
        again = true;
    }
    log_warn("%s: to <%s>: %s", log_str(d->id), log_str(address), e.text);
    if (e.class == ERR_PERMANENT)
        set(result_r, OUTCOME_NEVER, "5.2.0", e.text);
    else if (e.class == ERR_LIMIT && !s->local->conf->quota_wait)
        set(result_r, OUTCOME_NEVER, "5.2.2", e.text);
    else
        set(result_r, OUTCOME_LATER, e.class == ERR_LIMIT ? "4.2.2" : "4.3.0", e.text);
}
