#include "lib/log/log.h"
#include "local/local.h"
#include <stdio.h>
#include <unistd.h>

enum {
    IDLE_MS = 60000,
    SEND_MS = 30000,
    AUTH_MS = 30000,
    ADDRESSES_A_MESSAGE = 100,
    RCPTS_MAX = 100
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

static int
serve_rcpt(struct local_session *s, int channel, struct delivery *d, uint32_t index,
           struct str address)
{
    struct result r = {0};
    struct err e = {0};
    struct str *addresses = NULL;
    size_t n = 0;
    char account[128];
    bool final = address.n && address.p[0] == '\\';
    if (final)
        address = str_from(address, 1);
    forget_if_old(s);
    arena_reset(&s->expansion);
    if (!final && expand_address(s->local, &s->expansion, address, &addresses, &n, &e) < 0) {
        bool later = e.class != ERR_PERMANENT;
        say(&r, later ? OUTCOME_LATER : OUTCOME_NEVER, later ? "4.3.5" : "5.4.6", e.text);
    } else if (n) {
        snprintf(r.text, sizeof r.text, "alias of %zu address%s", n, n == 1 ? "" : "es");
        r.outcome = OUTCOME_EXPANDED;
        r.dsn = "2.0.0";
        if (send_expansion(channel, index, addresses, n) < 0)
            return -1;
    } else if (ask_account(s, address, final, account, &r) == 0) {
        deliver_to(s, d, index, address, str_z(account), &r);
    }
    return send_outcome(channel, index, &r);
}

struct wanted {
    uint32_t index;
    struct str address;
};

/* All is copied out of the message first: its place is used again. */
static int
read_delivery(struct local_session *s, struct msg *m, struct delivery *d, struct wanted *rcpts,
              uint32_t *n_r)
{
    d->id = arena_str(&s->arena, msg_get_str(m));
    d->sender = arena_str(&s->arena, msg_get_str(m));
    d->arrived_us = (int64_t)msg_get_u64(m);
    d->offset = msg_get_u64(m);
    d->size = msg_get_u64(m);
    d->again = msg_get_bool(m);
    (void)msg_get_u32(m); /* 8-bit or not: stored as it is */
    *n_r = msg_get_u32(m);
    if (*n_r == 0 || *n_r > RCPTS_MAX)
        return -1;
    for (uint32_t i = 0; i < *n_r; i++) {
        rcpts[i].index = msg_get_u32(m);
        rcpts[i].address = arena_str(&s->arena, msg_get_str(m));
        if (!rcpts[i].address.p)
            return -1;
    }
    d->fd = msg_take_fd(m, 0);
    return msg_end(m) && d->id.p && d->sender.p ? 0 : -1;
}

static int
serve_message(struct local_session *s, int channel, struct msg *m)
{
    struct delivery d = {.fd = -1};
    struct wanted rcpts[RCPTS_MAX];
    uint32_t n = 0;
    int ok = read_delivery(s, m, &d, rcpts, &n);
    for (uint32_t i = 0; ok == 0 && i < n; i++)
        ok = serve_rcpt(s, channel, &d, rcpts[i].index, rcpts[i].address);
    if (d.fd >= 0)
        close(d.fd);
    buf_free(&d.header);
    arena_reset(&s->arena);
    return ok;
}

void
local_session(const struct peer *peer, void *arg)
{
    struct local_session s = {
        .local = arg, .arena = arena_new(8 << 20), .expansion = arena_new(8 << 20)};
    struct msg m = {0};
    struct err e = {0};
    int n;
    remote_init(&s.authd, s.local->start, R_LOCAL, R_AUTHD);
    for (size_t i = 0; i < CELLS_KEPT; i++)
        s.cells[i].fd = -1;
    n = chan_recv(peer->fd_in, &m, R_QMGR, R_LOCAL, IDLE_MS, &e);
    if (n == 1 && m.type == M_ROUTE)
        while ((n = chan_recv(peer->fd_in, &m, R_QMGR, R_LOCAL, IDLE_MS, &e)) == 1)
            if (m.type != M_DELIVER || serve_message(&s, peer->fd_in, &m) < 0)
                break;
    if (n < 0 && e.class != ERR_TIMEOUT)
        log_warn("channel to qmgr: %s", e.text);
    deliver_close_cells(&s);
    remote_close(&s.authd);
    arena_free(&s.arena);
    arena_free(&s.expansion);
    msg_free(&m);
}
