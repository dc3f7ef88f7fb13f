#include "relay/route.h"
#include "lib/base/sort.h"
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

static uint32_t
random_u32(void)
{
    uint32_t v = 0;
    if (getrandom(&v, sizeof v, 0) != (ssize_t)sizeof v)
        v = (uint32_t)now_ms();
    return v;
}

/* Ask dnsd: the status, or DNS_TRY_AGAIN when it could not be asked; fields follow in m.
 * ERR_PERMANENT comes from dnsd alone, which says by it that this is no name at all. */
static enum dns_status
ask(struct route *r, enum msg_type question, enum msg_type answer, struct str name, struct msg *m,
    struct err *e)
{
    msg_begin(m, question);
    msg_put_str(m, name);
    if (remote_ask(&r->dnsd, m, answer, ROUTE_LOOKUP_MS, e) < 0)
        return e->class == ERR_PERMANENT ? DNS_NO_DOMAIN : DNS_TRY_AGAIN;
    uint32_t status = msg_get_u32(m);
    if (m->bad || status > DNS_TRY_AGAIN)
        return DNS_TRY_AGAIN;
    err_set(e, ERR_TEMPORARY, "no answer from the name servers");
    return (enum dns_status)status;
}

void
route_free(struct route *r)
{
    remote_close(&r->dnsd);
}

static int
by_preference(const void *a, const void *b)
{
    const struct route_host *x = a, *y = b;
    if (x->preference != y->preference)
        return x->preference < y->preference ? -1 : 1;
    return x->shuffle < y->shuffle ? -1 : x->shuffle > y->shuffle;
}

static void
set_host(struct route_host *h, uint32_t preference, struct str name)
{
    h->preference = preference;
    h->shuffle = random_u32();
    snprintf(h->name, sizeof h->name, "%.*s", STR_ARG(name));
}

/* Keep the best ROUTE_HOSTS_MAX: a newcomer takes the place of the worst. */
static void
keep_host(struct route *r, const struct route_host *h)
{
    size_t worst = 0;
    if (r->nhosts < ROUTE_HOSTS_MAX) {
        r->hosts[r->nhosts++] = *h;
        return;
    }
    for (size_t i = 1; i < r->nhosts; i++)
        if (by_preference(&r->hosts[i], &r->hosts[worst]) > 0)
            worst = i;
    if (by_preference(h, &r->hosts[worst]) < 0)
        r->hosts[worst] = *h;
}

/* RFC 5321 5.1: when we are one of the hosts, only better ones than us are any use. */
static int
drop_ourselves(struct route *r, uint32_t ours, struct verdict *v)
{
    size_t kept = 0;
    for (size_t i = 0; i < r->nhosts; i++)
        if (r->hosts[i].preference < ours)
            r->hosts[kept++] = r->hosts[i];
    r->nhosts = kept;
    if (kept)
        return 0;
    verdict_set(v, OUTCOME_NEVER, "5.4.6", "mail loops back to %.*s",
                STR_ARG(r->relay->conf->hostname));
    return -1;
}

static int
take_mx(struct route *r, struct msg *m, struct str domain, struct verdict *v)
{
    uint32_t n = msg_get_u32(m), ours = UINT32_MAX;
    for (uint32_t i = 0; i < n && !m->bad; i++) {
        struct route_host h;
        uint32_t preference = msg_get_u32(m);
        struct str name = msg_get_str(m);
        if (n == 1 && str_eq(name, STR("."))) { /* RFC 7505 */
            verdict_set(v, OUTCOME_NEVER, "5.1.10", "domain %.*s does not accept mail (null MX)",
                        STR_ARG(domain));
            return -1;
        }
        if (str_caseeq(name, r->relay->conf->hostname) && preference < ours)
            ours = preference;
        set_host(&h, preference, name);
        if (!m->bad)
            keep_host(r, &h);
    }
    if (!msg_end(m) || r->nhosts == 0) {
        verdict_set(v, OUTCOME_LATER, "4.4.3", "bad answer of dnsd about %.*s", STR_ARG(domain));
        return -1;
    }
    _Static_assert(sizeof r->hosts[0] <= SORT_SIZE_MAX, "sort_array() holds one");
    sort_array(r->hosts, r->nhosts, sizeof r->hosts[0], by_preference);
    return ours == UINT32_MAX ? 0 : drop_ourselves(r, ours, v);
}

static int
find_mx(struct route *r, struct str domain, struct verdict *v)
{
    struct msg m = {0};
    struct err e = {0};
    int result = -1;
    switch (ask(r, M_DNS_MX, M_DNS_MX_IS, domain, &m, &e)) {
    case DNS_FOUND:
        result = take_mx(r, &m, domain, v);
        break;
    case DNS_NO_DATA: /* RFC 5321 5.1: the implicit MX */
        set_host(&r->hosts[r->nhosts++], 0, domain);
        result = 0;
        break;
    case DNS_NO_DOMAIN:
        verdict_set(v, OUTCOME_NEVER, "5.1.2", "domain %.*s does not exist", STR_ARG(domain));
        break;
    case DNS_TRY_AGAIN:
        verdict_set(v, OUTCOME_LATER, "4.4.3", "MX of %.*s: %s", STR_ARG(domain), e.text);
        break;
    }
    msg_free(&m);
    return result;
}

static void
add_address(struct route *r, const char *host, int family, const void *raw)
{
    struct target *t = &r->addresses[r->naddresses];
    struct sockaddr_in *in = (void *)&t->address;
    struct sockaddr_in6 *in6 = (void *)&t->address;
    if (r->naddresses == ROUTE_ADDRESSES_MAX)
        return;
    r->naddresses++;
    *t = (struct target){.port = r->port};
    snprintf(t->host, sizeof t->host, "%s", host);
    inet_ntop(family, raw, t->ip, sizeof t->ip);
    t->address.ss_family = (sa_family_t)family;
    if (family == AF_INET) {
        memcpy(&in->sin_addr, raw, 4);
        in->sin_port = htons(r->port);
        t->address_n = sizeof *in;
    } else {
        memcpy(&in6->sin6_addr, raw, 16);
        in6->sin6_port = htons(r->port);
        t->address_n = sizeof *in6;
    }
}

/* name as an address in digits, added. */
static bool
add_numeric(struct route *r, const char *name)
{
    unsigned char raw[16];
    int family = inet_pton(AF_INET, name, raw) == 1    ? AF_INET
                 : inet_pton(AF_INET6, name, raw) == 1 ? AF_INET6
                                                       : 0;
    if (family)
        add_address(r, name, family, raw);
    return family != 0;
}

/* RFC 5321 4.1.3: "[192.0.2.1]", "[IPv6:2001:db8::1]". */
static bool
is_literal(struct str domain)
{
    return domain.n > 2 && domain.p[0] == '[' && domain.p[domain.n - 1] == ']';
}

static bool
add_literal(struct route *r, struct str domain)
{
    char name[64];
    struct str inner = str_sub(domain, 1, domain.n - 2);
    if (str_casestarts(inner, STR("IPv6:")))
        inner = str_from(inner, 5);
    if (inner.n >= sizeof name)
        return false;
    snprintf(name, sizeof name, "%.*s", STR_ARG(inner));
    return add_numeric(r, name);
}

int
route_find(struct route *r, const struct relay *relay, struct str domain, struct verdict *v_r)
{
    const struct conf *conf = relay->conf;
    *r = (struct route){.relay = relay, .port = conf->relay.port};
    remote_init(&r->dnsd, relay->start, R_RELAY, R_DNSD);
    if (conf->relay.host.n)
        domain = conf->relay.host;
    if (is_literal(domain)) {
        if (add_literal(r, domain))
            return 0;
        verdict_set(v_r, OUTCOME_NEVER, "5.1.2", "%.*s is not an address", STR_ARG(domain));
        return -1;
    }
    if (!conf->relay.host.n)
        return find_mx(r, domain, v_r);
    set_host(&r->hosts[0], 0, domain); /* a smarthost is a host: it has no MX */
    if (!add_numeric(r, r->hosts[0].name))
        r->nhosts = 1;
    return 0;
}

static void
shuffle_addresses(struct route *r)
{
    for (size_t i = r->naddresses; i > 1; i--) {
        size_t k = random_u32() % i;
        struct target t = r->addresses[i - 1];
        r->addresses[i - 1] = r->addresses[k];
        r->addresses[k] = t;
    }
}

static void
find_addresses(struct route *r, const char *host, struct verdict *v)
{
    struct msg m = {0};
    struct err e = {0};
    enum dns_status status = ask(r, M_DNS_ADDR, M_DNS_ADDR_IS, str_z(host), &m, &e);
    r->naddresses = r->next_address = 0;
    if (status == DNS_FOUND) {
        uint32_t n = msg_get_u32(&m);
        for (uint32_t i = 0; i < n && !m.bad; i++) {
            struct str raw = msg_get_str(&m);
            if (raw.n == 4 || raw.n == 16)
                add_address(r, host, raw.n == 4 ? AF_INET : AF_INET6, raw.p);
        }
        shuffle_addresses(r);
    } else if (status == DNS_TRY_AGAIN) {
        verdict_set(v, OUTCOME_LATER, "4.4.3", "address of %s: %s", host, e.text);
    } else if (r->relay->conf->relay.host.n) { /* a mistake of ours, not of who is written to */
        verdict_set(v, OUTCOME_LATER, "4.3.5", "smarthost %s has no address", host);
    } else if (v->outcome != OUTCOME_LATER) { /* another host may still be found one day */
        verdict_set(v, OUTCOME_NEVER, "5.4.4", "host %s has no address", host);
    }
    msg_free(&m);
}

const struct target *
route_next(struct route *r, struct verdict *v_r)
{
    while (r->next_address == r->naddresses) {
        if (r->next_host == r->nhosts || r->given >= ROUTE_ADDRESSES_MAX)
            return NULL;
        find_addresses(r, r->hosts[r->next_host++].name, v_r);
    }
    if (r->given++ >= ROUTE_ADDRESSES_MAX)
        return NULL;
    return &r->addresses[r->next_address++];
}
