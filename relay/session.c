#include "relay/session.h"
#include "lib/ipc/channel.h"
#include "lib/log/log.h"
#include "relay/transaction.h"
#include <unistd.h>

struct session {
    const struct relay *relay;
    struct wire wire;
    struct delivery d;
    char domain[256];
};

/* Try address after address until one has had the message. */
static void
deliver_anew(struct session *s)
{
    struct route route;
    struct verdict v = {0};
    struct verdict last = {0};
    const struct target *t;
    if (route_find(&route, s->relay, str_z(s->domain), &last) == 0) {
        verdict_set(&last, OUTCOME_NEVER, "5.4.4", "no address to deliver to");
        while (delivery_open(&s->d) && (t = route_next(&route, &last))) {
            v.outcome = OUTCOME_LATER;
            if (wire_open(&s->wire, s->relay, t, &v) == 0 &&
                transaction_run(&s->wire, &s->d, &v) == TRANSACTION_DONE)
                break;
            last = v;
        }
    }
    route_free(&route);
    delivery_settle_all(&s->d, RCPT_OPEN, &last);
}

/* A recipient of another domain was put on this route when there was a smarthost: qmgr finds it the
 * one of today when it is tried again. */
static void
put_off_strays(struct session *s)
{
    struct verdict v = {0};
    verdict_set(&v, OUTCOME_LATER, "4.3.5", "its route is that of an earlier configuration");
    for (uint32_t i = 0; i < s->d.n && !s->relay->conf->relay.host.n; i++) {
        struct str to = s->d.rcpts[i].address;
        struct str domain = str_from(to, (size_t)(str_rchr(to, '@') + 1));
        if (!str_caseeq(domain, str_z(s->domain)))
            delivery_settle(&s->d, &s->d.rcpts[i], &v);
    }
}

static void
deliver(struct session *s)
{
    struct verdict v = {0};
    put_off_strays(s);
    if (!delivery_open(&s->d))
        return;
    if (s->wire.open && s->wire.messages >= RELAY_MESSAGES_MAX)
        wire_close(&s->wire, true);
    /* A connection that waited may have died meanwhile: that is no failure of the host. */
    if (s->wire.open && transaction_run(&s->wire, &s->d, &v) == TRANSACTION_DONE)
        return;
    wire_close(&s->wire, true);
    if (delivery_open(&s->d))
        deliver_anew(s);
}

static int
take_route(struct session *s, struct err *e)
{
    struct msg *m = &s->d.in;
    if (chan_recv(s->d.channel, m, R_QMGR, R_RELAY, RELAY_FIRST_MS, e) != 1)
        return -1;
    struct str domain = m->type == M_ROUTE ? msg_get_str(m) : STR("");
    if (domain.n == 0 || domain.n >= sizeof s->domain || !msg_end(m))
        return err_set(e, ERR_PROTOCOL, "qmgr did not begin with a route");
    for (size_t i = 0; i < domain.n; i++)
        s->domain[i] = ch_lower(domain.p[i]);
    s->domain[domain.n] = '\0';
    return 0;
}

/* 1: a message; 0: no more, qmgr closed or has none for now. */
static int
take_message(struct session *s, int wait_ms, struct err *e)
{
    int n = chan_recv(s->d.channel, &s->d.in, R_QMGR, R_RELAY, wait_ms, e);
    if (n < 0 && e->class == ERR_TIMEOUT)
        return 0;
    if (n <= 0)
        return n;
    if (s->d.in.type != M_DELIVER)
        return err_set(e, ERR_PROTOCOL, "not a DELIVER");
    return delivery_read(&s->d, e) < 0 ? -1 : 1;
}

void
relay_session(const struct peer *peer, void *arg)
{
    struct session *s = &(struct session){.relay = arg, .wire.fd = -1};
    struct err e = {0};
    int wait_ms = RELAY_FIRST_MS, n = -1;
    s->d = (struct delivery){.channel = peer->fd_in, .fd = -1};
    if (take_route(s, &e) == 0) {
        while ((n = take_message(s, wait_ms, &e)) == 1 && !s->d.lost) {
            deliver(s);
            delivery_reset(&s->d);
            wait_ms = RELAY_IDLE_MS;
        }
    }
    if (n < 0 && e.text[0])
        log_warn("channel of qmgr: %s", e.text);
    delivery_reset(&s->d);
    /* Closed first: qmgr must not send into a channel that nobody reads while we say goodbye. */
    close(peer->fd_in);
    wire_close(&s->wire, true);
}
