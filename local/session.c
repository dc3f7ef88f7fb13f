#include "lib/log/log.h"
#include "local/local.h"
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

enum {
    IDLE_MS = 60000,
    SEND_MS = 30000,
    AUTH_MS = 30000,
    ADDRESSES_A_MESSAGE = 100,
};

static int
send_outcome(int channel, uint32_t index, const struct result *r)
{
    struct msg m = {0};
    struct err e;
    msg_begin(&m, M_OUTCOME);
    msg_put_u32(&m, index);
    msg_put_u32(&m, (uint32_t)r->outcome);
    msg_put_str(&m, str_z(r->dsn));
    msg_put_str(&m, str_z(r->text));
    msg_put_str(&m, STR("local"));
    int ok = chan_send(channel, &m, SEND_MS, &e);
    msg_free(&m);
    return ok;
}

/* Where it leads, in as many messages as it takes; the outcome follows. */
static int
send_expansion(int channel, uint32_t index, const struct str *addresses, size_t n)
{
    struct err e;
    struct msg m = {0};
    int ok = 0;
    for (size_t at = 0; ok == 0 && at < n;) {
        size_t part = n - at < ADDRESSES_A_MESSAGE ? n - at : ADDRESSES_A_MESSAGE;
        msg_begin(&m, M_EXPAND);
        msg_put_u32(&m, index);
        msg_put_u32(&m, (uint32_t)part);
        for (size_t i = 0; i < part; i++)
            msg_put_str(&m, addresses[at + i]);
        ok = chan_send(channel, &m, SEND_MS, &e);
        at += part;
    }
    msg_free(&m);
    return ok;
}

static void
say(struct result *r, enum outcome outcome, const char *dsn, const char *text)
{
    r->outcome = outcome;
    r->dsn = dsn;
    snprintf(r->text, sizeof r->text, "%s", text);
}

/* What was kept goes when accounts may have changed, or when nobody would tell. */
static void
forget_if_old(struct local_session *s)
{
    struct sipkey epoch = {0};
    if (known_epoch(&s->local->known, &epoch) && memcmp(&epoch, &s->epoch, sizeof epoch) == 0)
        return;
    s->epoch = epoch;
    memset(s->answers, 0, sizeof s->answers);
    deliver_close_cells(s);
}

/* What authd has said of this address and would say again; NULL: ask. */
static const struct answer *
find_answer(const struct local_session *s, struct str address, bool final)
{
    for (size_t i = 0; address.n && i < ANSWERS_KEPT; i++)
        if (s->answers[i].final == final && str_eq(str_z(s->answers[i].address), address))
            return &s->answers[i];
    return NULL;
}

static void
keep_answer(struct local_session *s, struct str address, bool final, const char *account)
{
    struct answer *a = &s->answers[s->answered++ % ANSWERS_KEPT];
    if (address.n >= sizeof a->address)
        return;
    *a = (struct answer){.final = final};
    memcpy(a->address, address.p, address.n);
    memcpy(a->account, account, strlen(account) + 1);
}

/* Who this address is, by authd; account_r has room for 128 bytes. final: an alias led here, and of
 * a name that is alias and account the account is meant. */
static int
ask_account(struct local_session *s, struct str address, bool final, char account_r[128],
            struct result *r)
{
    struct msg m = {0};
    struct err e = {0};
    const struct answer *known = find_answer(s, address, final);
    if (known) {
        memcpy(account_r, known->account, sizeof known->account);
        return 0;
    }
    msg_begin(&m, M_ADDRESS);
    msg_put_str(&m, address);
    int ok = remote_ask(&s->authd, &m, M_ADDRESS_IS, AUTH_MS, &e);
    uint32_t kind = ok == 0 ? msg_get_u32(&m) : ADDRESS_UNKNOWN;
    struct str account = ok == 0 ? msg_get_str(&m) : STR("");
    if (ok < 0) {
        say(r, OUTCOME_LATER, "4.3.0", e.text);
    } else if (!msg_end(&m) || account.n >= 128) {
        say(r, OUTCOME_LATER, "4.3.0", "malformed answer of authd");
        ok = -1;
    } else if (kind == ADDRESS_ACCOUNT || (kind == ADDRESS_ALIAS && final && account.n)) {
        memcpy(account_r, account.p, account.n);
        account_r[account.n] = '\0';
        keep_answer(s, address, final, account_r);
    } else if (kind == ADDRESS_UNKNOWN) {
        say(r, OUTCOME_NEVER, "5.1.1", "no such user here");
        ok = -1;
    } else {
        say(r, OUTCOME_LATER, "4.3.0", "authd and local have different tables for the moment");
        ok = -1;
    }
    msg_free(&m);
    return ok;
}

static void
drop(struct delivery *d)
{
    if (d->fd >= 0)
        close(d->fd);
    d->fd = -1;
}

/* The cells of all are asked before any is waited for, and qmgr is told when all have answered: so
 * each wakes up once. Outcomes are in the order in which the messages came. */
static int
settle_batch(struct local_session *s, int channel)
{
    int ok = 0;
    for (size_t i = 0; i < s->nbatch; i++)
        if (s->batch[i].to_cell)
            s->batch[i].to_cell = deliver_begin(s, &s->batch[i]) == 0;
    for (size_t i = 0; i < s->nbatch; i++)
        if (s->batch[i].to_cell)
            deliver_end(s, &s->batch[i]);
    for (size_t i = 0; i < s->nbatch; i++) {
        ok = ok == 0 ? send_outcome(channel, s->batch[i].index, &s->batch[i].result) : -1;
        drop(&s->batch[i]);
    }
    s->nbatch = 0;
    return ok;
}

/* To a cell, or what became of it otherwise; *n_r addresses where it is an alias. */
static void
find_way(struct local_session *s, struct delivery *d, struct str **addresses_r, size_t *n_r)
{
    struct result *r = &d->result;
    struct err e = {0};
    bool final = d->address.n && d->address.p[0] == '\\';
    *n_r = 0;
    if (final)
        d->address = str_from(d->address, 1);
    arena_reset(&s->expansion);
    if (!final && expand_address(s->local, &s->expansion, d->address, addresses_r, n_r, &e) < 0) {
        bool later = e.class != ERR_PERMANENT;
        say(r, later ? OUTCOME_LATER : OUTCOME_NEVER, later ? "4.3.5" : "5.4.6", e.text);
    } else if (*n_r) {
        snprintf(r->text, sizeof r->text, "alias of %zu address%s", *n_r, *n_r == 1 ? "" : "es");
        r->outcome = OUTCOME_EXPANDED;
        r->dsn = "2.0.0";
    } else if (ask_account(s, d->address, final, d->account, r) == 0) {
        d->to_cell = !deliver_was_here(s, d);
    }
}

/* All is copied out of the message: its place is used again. */
static int
read_delivery(struct local_session *s, struct msg *m, struct delivery *d)
{
    d->id = arena_str(&s->arena, msg_get_str(m));
    d->sender = arena_str(&s->arena, msg_get_str(m));
    d->arrived_us = (int64_t)msg_get_u64(m);
    d->offset = msg_get_u64(m);
    d->size = msg_get_u64(m);
    d->check = msg_get_u64(m);
    d->again = msg_get_bool(m);
    (void)msg_get_u32(m);           /* 8-bit or not: stored as it is */
    bool one = msg_get_u32(m) == 1; /* recipient: qmgr gives local no more */
    d->index = msg_get_u32(m);
    d->address = arena_str(&s->arena, msg_get_str(m));
    d->fd = msg_take_fd(m, 0);
    return one && msg_end(m) && d->id.p && d->sender.p && d->address.p ? 0 : -1;
}

static int
serve_message(struct local_session *s, int channel, struct msg *m)
{
    struct delivery *d = &s->batch[s->nbatch];
    struct str *addresses;
    size_t n;
    *d = (struct delivery){.fd = -1};
    if (m->type != M_DELIVER || read_delivery(s, m, d) < 0) {
        drop(d);
        return -1;
    }
    find_way(s, d, &addresses, &n);
    /* Those before it are answered before it is. */
    if (n &&
        (settle_batch(s, channel) < 0 || send_expansion(channel, d->index, addresses, n) < 0)) {
        drop(d);
        return -1;
    }
    s->batch[s->nbatch++] = *d;
    return 0;
}

/* One message, and what has come behind it. */
static int
serve_batch(struct local_session *s, int channel, struct msg *m)
{
    int n, ok;
    forget_if_old(s);
    arena_reset(&s->arena);
    do {
        ok = serve_message(s, channel, m);
        n = ok == 0 && s->nbatch < BATCH_MAX ? msg_recv(channel, m, R_QMGR, R_LOCAL) : 0;
    } while (n == 1);
    if (n < 0 && errno == EPROTO)
        ok = -1;
    return settle_batch(s, channel) < 0 ? -1 : ok;
}

void
local_session(const struct peer *peer, void *arg)
{
    struct local_session s = {.local = arg,
                              .header = buf_new(HEADER_READ_MAX),
                              .arena = arena_new(8 << 20),
                              .expansion = arena_new(8 << 20)};
    struct msg m = {0};
    struct err e = {0};
    int n;
    remote_init(&s.authd, s.local->start, R_LOCAL, R_AUTHD);
    for (size_t i = 0; i < CELLS_KEPT; i++)
        s.cells[i].fd = -1;
    n = chan_recv(peer->fd_in, &m, R_QMGR, R_LOCAL, IDLE_MS, &e);
    if (n == 1 && m.type == M_ROUTE)
        while ((n = chan_recv(peer->fd_in, &m, R_QMGR, R_LOCAL, IDLE_MS, &e)) == 1)
            if (serve_batch(&s, peer->fd_in, &m) < 0)
                break;
    if (n < 0 && e.class != ERR_TIMEOUT)
        log_warn("channel to qmgr: %s", e.text);
    deliver_close_cells(&s);
    remote_close(&s.authd);
    arena_free(&s.arena);
    arena_free(&s.expansion);
    buf_free(&s.header);
    msg_free(&m);
}
