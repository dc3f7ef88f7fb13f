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

/* RFC 9228: its header tells. */
bool
deliver_was_here(struct local_session *s, struct delivery *d)
{
    struct header_field field;
    struct buf *header = &s->header;
    size_t want = d->size < HEADER_READ_MAX ? (size_t)d->size : HEADER_READ_MAX;
    buf_reset(header);
    char *to = buf_reserve(header, want);
    ssize_t n = to ? pread(d->fd, to, want, (off_t)d->offset) : -1;
    if (n > 0)
        buf_commit(header, (size_t)n);
    struct header h = header_of(buf_str(header));
    while (header_next(&h, &field))
        if (str_caseeq(field.name, STR("Delivered-To")) &&
            str_caseeq(str_trim(field.value), d->address)) {
            set(&d->result, OUTCOME_NEVER, "5.4.6",
                "mail loop: it was delivered to this address before");
            return true;
        }
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
    place->used = place->started = ++s->clock;
    memcpy(place->account, account.p, account.n);
    place->account[account.n] = '\0';
    return place;
}

static void
add_head(struct buf *head, const struct delivery *d)
{
    buf_addz(head, "Return-Path: <");
    buf_add(head, d->sender);
    buf_addz(head, ">\r\nDelivered-To: ");
    buf_add(head, d->address);
    buf_addz(head, "\r\n");
}

static int
ask_cell(struct local_session *s, struct delivery *d, struct err *e)
{
    struct msg m = {0};
    char room[2048];
    struct buf head = buf_on(room, sizeof room, sizeof room - 1);
    d->cell = get_cell(s, str_z(d->account), e);
    if (!d->cell)
        return -1;
    d->started = d->cell->started;
    add_head(&head, d);
    msg_begin(&m, M_CELL_DELIVER);
    msg_put_str(&m, d->id);
    msg_put_u32(&m, d->index);
    msg_put_u64(&m, (uint64_t)d->arrived_us);
    msg_put_u64(&m, d->offset);
    msg_put_u64(&m, d->size);
    msg_put_u64(&m, d->check);
    msg_put_bool(&m, d->again);
    msg_put_str(&m, buf_str(&head));
    msg_add_fd(&m, d->fd);
    int ok = buf_ok(&head) ? chan_send(d->cell->fd, &m, CELL_MS, e)
                           : err_set(e, ERR_PERMANENT, "the addresses are too long");
    msg_free(&m);
    return ok;
}

static int
hear_cell(struct local_session *s, struct delivery *d, struct buf *file, struct err *e)
{
    struct msg m = {0};
    if (d->started == s->stuck) /* it may have been the last that the stuck one did */
        return err_set(e, ERR_TIMEOUT, "no answer in time");
    if (d->cell->fd < 0 || d->cell->started != d->started)
        return err_set(e, ERR_CLOSED, "the cell has gone");
    int ok = chan_answer(d->cell->fd, &m, M_CELL_DELIVERED, R_LOCAL, R_CELL, CELL_MS, e);
    if (ok == 0)
        buf_add(file, msg_get_str(&m));
    msg_free(&m);
    return ok;
}

/* Whether it is worth another try at once: a cell that was kept may have gone meanwhile. A channel
 * that has failed is of no more use. */
static bool
has_gone(struct local_session *s, struct delivery *d, const struct err *e)
{
    if (!d->cell || chan_is_refusal(e->class))
        return false;
    if (d->cell->started == d->started)
        close_cell(d->cell);
    d->again = true;
    if (e->class != ERR_TIMEOUT)
        return true;
    s->stuck = d->started; /* the next would wait as long, and others wait for us */
    return false;
}

static void
set_failed(const struct local_session *s, struct delivery *d, const struct err *e)
{
    struct result *r = &d->result;
    log_warn("%s: to <%s>: %s", log_str(d->id), log_str(d->address), e->text);
    if (e->class == ERR_DAMAGED)
        set(r, OUTCOME_DAMAGED, "4.3.0", e->text);
    else if (e->class == ERR_PERMANENT)
        set(r, OUTCOME_NEVER, "5.2.0", e->text);
    else if (e->class == ERR_LIMIT && !s->local->conf->quota_wait)
        set(r, OUTCOME_NEVER, "5.2.2", e->text);
    else
        set(r, OUTCOME_LATER, e->class == ERR_LIMIT ? "4.2.2" : "4.3.0", e->text);
}

int
deliver_begin(struct local_session *s, struct delivery *d)
{
    struct err e = {0};
    /* One that has gone stays where it is: a new one must first be asked for what that was asked,
     * or answers would be taken for others'. So deliver_end() does it, for each in its turn. */
    if (ask_cell(s, d, &e) == 0 || (d->cell && e.class == ERR_CLOSED))
        return 0;
    (void)has_gone(s, d, &e);
    set_failed(s, d, &e);
    return -1;
}

void
deliver_end(struct local_session *s, struct delivery *d)
{
    struct err e = {0};
    char room[256];
    struct buf file = buf_on(room, sizeof room, sizeof room - 1);
    int ok = hear_cell(s, d, &file, &e);
    if (ok < 0 && has_gone(s, d, &e)) {
        ok = ask_cell(s, d, &e) < 0 ? -1 : hear_cell(s, d, &file, &e);
        if (ok < 0)
            (void)has_gone(s, d, &e);
    }
    if (ok < 0) {
        set_failed(s, d, &e);
        return;
    }
    char text[300];
    snprintf(text, sizeof text, "delivered to maildir as %s", buf_z(&file));
    set(&d->result, OUTCOME_DONE, "2.0.0", text);
}
