#include "dnsd/lookup.h"
#include "lib/log/log.h"
#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { PARTS_MAX = 2, KEY_MAX = DNS_NAME_MAX + 2, COMPLAIN_MS = 60000 };

struct waiter {            /* one client's open question: client->state */
    struct client *client; /* NULL: it has gone */
    struct waiter *next;
};

struct part { /* one question to the resolver */
    struct lookup *lookup;
    enum dns_type type;
    enum dns_status status;
};

struct lookup {
    struct dnsd *dnsd;
    struct lookup *next, **link;
    const struct kind *kind;
    char key[KEY_MAX + 1];       /* a letter for the kind, and the name */
    char name[DNS_NAME_MAX + 1]; /* as it is asked */
    struct waiter *waiters;
    struct loop_timer deadline;
    struct part parts[PARTS_MAX];
    size_t nparts, left; /* left: still to be answered by the resolver */
    uint32_t ttl_s;
    uint32_t n;      /* records in rows */
    struct msg rows; /* their fields */
};

struct kind {
    enum msg_type ask, answer;
    char letter;
    enum dns_type types[PARTS_MAX];
    size_t ntypes;
};

static const struct kind kinds[] = {
    {M_DNS_MX, M_DNS_MX_IS, 'm', {DNS_T_MX}, 1},
    {M_DNS_ADDR, M_DNS_ADDR_IS, 'a', {DNS_T_A, DNS_T_AAAA}, 2},
};

static void
build(struct msg *m, const struct kind *kind, enum dns_status status, uint32_t n, struct str rows)
{
    msg_begin(m, kind->answer);
    msg_put_u32(m, status);
    msg_put_u32(m, n);
    buf_add(&m->fields, rows);
}

/* To a client that asked, which may have gone. */
static void
answer_waiters(struct lookup *l, const struct msg *m)
{
    while (l->waiters) {
        struct waiter *w = l->waiters;
        l->waiters = w->next;
        if (w->client) {
            w->client->state = NULL;
            service_send(w->client, m);
        }
        free(w);
    }
}

static void
add_rows(struct lookup *l, const struct dns_answer *a)
{
    for (size_t i = 0; i < a->n; i++) {
        const struct dns_record *at = &a->at[i];
        if (l->kind->ask == M_DNS_MX)
            msg_put_u32(&l->rows, at->preference);
        msg_put_str(&l->rows, str_of(at->data, at->n));
        l->n++;
    }
}

/* What the parts say together: any record is an answer; else what we could not learn counts more
 * than what we could. */
static enum dns_status
status_of(const struct lookup *l)
{
    bool again = false, nothing = false;
    for (size_t i = 0; i < l->nparts; i++) {
        again |= l->parts[i].status == DNS_TRY_AGAIN;
        nothing |= l->parts[i].status == DNS_NO_DOMAIN;
    }
    return l->n ? DNS_FOUND : again ? DNS_TRY_AGAIN : nothing ? DNS_NO_DOMAIN : DNS_NO_DATA;
}

static void
finish(struct lookup *l)
{
    struct dnsd *d = l->dnsd;
    struct msg m = {0};
    enum dns_status status = status_of(l);
    build(&m, l->kind, status, l->n, buf_str(&l->rows.fields));
    if (buf_ok(&m.fields))
        cache_put(&d->cache, str_z(l->key), buf_str(&m.fields),
                  now_ms() + (int64_t)l->ttl_s * 1000);
    else
        build(&m, l->kind, DNS_TRY_AGAIN, 0, STR(""));
    answer_waiters(l, &m);
    msg_free(&m);
    loop_timer_del(&d->loop, &l->deadline);
    *l->link = l->next;
    if (l->next)
        l->next->link = l->link;
    d->nlookups--;
    msg_free(&l->rows);
    free(l);
}

static void
on_packet(void *arg, struct str packet)
{
    static struct dns_answer a; /* one thread; used up before the next */
    struct part *part = arg;
    struct lookup *l = part->lookup;
    dns_answer_read(packet, str_z(l->name), part->type, &a);
    part->status = a.status;
    if (a.ttl_s < l->ttl_s)
        l->ttl_s = a.ttl_s;
    add_rows(l, &a);
    if (--l->left == 0)
        finish(l);
}

/* Those who wait are told now; the resolver's answer will find the cache. */
static void
on_deadline(struct loop_timer *t)
{
    struct lookup *l = t->arg;
    struct msg m = {0};
    build(&m, l->kind, DNS_TRY_AGAIN, 0, STR(""));
    answer_waiters(l, &m);
    msg_free(&m);
}

static void
try_again(struct client *c, const struct kind *kind)
{
    struct dnsd *d = c->service->arg;
    struct msg m = {0};
    if (now_ms() - d->complained_ms > COMPLAIN_MS || d->complained_ms == 0) {
        d->complained_ms = now_ms();
        log_warn("%zu questions under way: the next are put off", d->nlookups);
    }
    build(&m, kind, DNS_TRY_AGAIN, 0, STR(""));
    service_send(c, &m);
    msg_free(&m);
}

static struct lookup *
find(struct dnsd *d, const char *key)
{
    struct lookup *l = d->lookups;
    while (l && strcmp(l->key, key) != 0)
        l = l->next;
    return l;
}

static struct lookup *
new_lookup(struct dnsd *d, const struct kind *kind, const char *key)
{
    struct lookup *l = d->nlookups < DNSD_LOOKUPS_MAX ? calloc(1, sizeof *l) : NULL;
    if (!l)
        return NULL;
    l->dnsd = d;
    l->kind = kind;
    l->deadline = (struct loop_timer){.fire = on_deadline, .arg = l};
    l->ttl_s = DNS_TTL_MAX_S;
    l->nparts = l->left = kind->ntypes;
    memcpy(l->key, key, strlen(key) + 1);
    memcpy(l->name, key + 1, strlen(key + 1) + 1);
    msg_begin(&l->rows, kind->answer);
    l->next = d->lookups;
    l->link = &d->lookups;
    if (l->next)
        l->next->link = &l->next;
    d->lookups = l;
    d->nlookups++;
    return l;
}

static void
start_lookup(struct dnsd *d, struct lookup *l)
{
    size_t n = l->nparts; /* the last answer frees l, perhaps inside resolver_ask */
    for (size_t i = 0; i < n; i++)
        l->parts[i] = (struct part){l, l->kind->types[i], DNS_TRY_AGAIN};
    for (size_t i = 0; i < n; i++)
        resolver_ask(&d->resolver, l->name, l->kind->types[i], on_packet, &l->parts[i]);
}

static void
ask(struct client *c, const struct kind *kind, const char *key)
{
    struct dnsd *d = c->service->arg;
    struct str kept;
    if (cache_get(&d->cache, str_z(key), now_ms(), &kept)) {
        struct msg m = {0};
        msg_begin(&m, kind->answer);
        buf_add(&m.fields, kept);
        service_send(c, &m);
        msg_free(&m);
        return;
    }
    struct lookup *l = find(d, key);
    bool fresh = !l;
    struct waiter *w = calloc(1, sizeof *w);
    if (w && !l)
        l = new_lookup(d, kind, key);
    if (!w || !l) {
        free(w);
        try_again(c, kind);
        return;
    }
    w->client = c;
    w->next = l->waiters;
    l->waiters = w;
    c->state = w;
    if (!loop_timer_is_set(&l->deadline))
        (void)loop_timer_set(&d->loop, &l->deadline, now_ms() + d->deadline_ms);
    if (fresh)
        start_lookup(d, l);
}

static bool
make_key(const struct kind *kind, struct str s, char key[KEY_MAX + 1])
{
    key[0] = kind->letter;
    if (!dns_host_ok(s))
        return false;
    for (size_t i = 0; i < s.n; i++)
        key[1 + i] = ch_lower(s.p[i]);
    key[1 + s.n] = '\0';
    return true;
}

static void
on_message(struct client *c, struct msg *m)
{
    char key[KEY_MAX + 1];
    struct str s = msg_get_str(m);
    const struct kind *kind = NULL;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (kinds[i].ask == m->type)
            kind = &kinds[i];
    if (!kind || !msg_end(m) || c->state) {
        log_warn("closing a channel of %s: %s", role_name(c->role),
                 c->state ? "a second question before the first answer" : "bad question");
        service_close(c);
    } else if (!make_key(kind, s, key)) {
        service_fail(c, ERR_PERMANENT, "not a host name");
    } else {
        ask(c, kind, key);
    }
}

static void
on_gone(struct client *c)
{
    struct waiter *w = c->state;
    if (w)
        w->client = NULL;
}

static void
on_signal(struct loop *loop, int signo)
{
    (void)signo;
    loop->stop = true;
}

int
dnsd_prepare(struct dnsd *d, const struct conf *conf, struct err *e)
{
    d->deadline_ms = DNSD_DEADLINE_MS;
    if (cache_init(&d->cache) < 0)
        return err_errno(e, "cache");
    return resolver_init(&d->resolver, conf, e);
}

void
dnsd_serve(struct dnsd *d, const struct start *st)
{
    static const int signals[] = {SIGTERM, SIGINT, 0};
    d->loop.on_signal = on_signal;
    d->service = (struct service){
        .clients_max = DNSD_CHANNELS_MAX, .message = on_message, .gone = on_gone, .arg = d};
    if (loop_init(&d->loop, signals) < 0 || service_init(&d->service, &d->loop, st) < 0)
        log_fatal("event loop: %s", strerror(errno));
    resolver_start(&d->resolver, &d->loop);
    start_ready(st);
    loop_run(&d->loop);
}
