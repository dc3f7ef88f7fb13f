/* relay: more hosts and addresses than are tried, with a resolver of its own. */
#include "lib/ipc/service.h"
#include "relay/route.h"
#include "tests/unit/keyring.h"
#include "tests/unit/temp.h"
#include "tests/unit/unit.h"
#include <signal.h>
#include <sys/wait.h>

static struct start start, dnsd;
static struct conf conf;
static pid_t pid;

/* hostsN has N exchangers, the best one last, with an address each; wideN has N with eight
 * addresses each; manyN has none, and N addresses. gone1 is as wide1, but the first question is not
 * answered; lost1 never is. */
static void
on_question(struct client *c, struct msg *m)
{
    static const char *const kinds[] = {"many", "hosts", "wide"};
    struct msg r = {0};
    struct str name = msg_get_str(m);
    bool mx = m->type == M_DNS_MX;
    static int questions;
    size_t kind = 0;
    uint32_t n = 0;
    if (str_starts(name, STR("lost")) || (str_starts(name, STR("gone")) && questions++ == 0)) {
        service_close(c);
        return;
    }
    while (kind < 2 && !str_starts(name, str_z(kinds[kind])))
        kind++;
    for (size_t i = strlen(kinds[kind]); i < name.n && ch_digit(name.p[i]); i++)
        n = 10 * n + (uint32_t)(name.p[i] - '0');
    n = mx && kind == 0 ? 0 : n;
    msg_begin(&r, mx ? M_DNS_MX_IS : M_DNS_ADDR_IS);
    msg_put_u32(&r, n ? DNS_FOUND : DNS_NO_DATA);
    msg_put_u32(&r, n);
    for (uint32_t i = 0; i < n; i++) {
        char text[40], address[4] = {127, 1, 0, (char)(i + 1)};
        snprintf(text, sizeof text, "many%d.%u.example", kind == 1 ? 1 : 8, n - i);
        if (mx)
            msg_put_u32(&r, 10 * (n - i));
        msg_put_str(&r, mx ? str_z(text) : str_of(address, sizeof address));
    }
    service_send(c, &r);
    msg_free(&r);
}

static void
setup(void)
{
    temp_quiet();
    start = (struct start){.role = R_RELAY};
    dnsd = (struct start){.role = R_DNSD};
    conf = (struct conf){.hostname = STR("relay.example")};
    keyring_door(&start, &dnsd, R_RELAY, R_DNSD);
    pid = fork();
    if (pid == 0) {
        struct loop loop = {0};
        struct service s = {.clients_max = 10, .message = on_question};
        if (loop_init(&loop, NULL) < 0 || service_init(&s, &loop, &dnsd) < 0)
            _exit(1);
        loop_run(&loop);
    }
    close(dnsd.fds[0].fd);
}

static void
teardown(void)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    close(start.fds[0].fd);
}

/* All targets of a domain: how many, each of them once. */
static size_t
targets(struct route *r, const char *domain)
{
    static const struct relay relay = {&start, &conf, NULL};
    struct verdict v = {0};
    const struct target *t;
    char seen[2 * ROUTE_ADDRESSES_MAX][320];
    size_t n = 0, fds = temp_fds();
    ck_assert_int_eq(route_find(r, &relay, str_z(domain), &v), 0);
    for (; (t = route_next(r, &v)); n++) {
        ck_assert_uint_lt(n, 2 * ROUTE_ADDRESSES_MAX);
        snprintf(seen[n], sizeof seen[n], "%s %s", t->host, t->ip);
        for (size_t i = 0; i < n; i++)
            ck_assert_str_ne(seen[i], seen[n]);
    }
    ck_assert_ptr_null(route_next(r, &v));
    ck_assert_int_ne(v.outcome, OUTCOME_NEVER);
    route_free(r);
    ck_assert_uint_eq(temp_fds(), fds);
    return n;
}

/* Of more hosts than are tried it is the worst that is left out, in whatever order they came. */
START_TEST(hosts_at_their_ceiling)
{
    struct route r;
    for (int i = 0; i < 2; i++) {
        ck_assert_uint_eq(targets(&r, i ? "hosts11" : "hosts10"), ROUTE_HOSTS_MAX);
        ck_assert_uint_eq(r.nhosts, ROUTE_HOSTS_MAX);
        for (uint32_t k = 0; k < ROUTE_HOSTS_MAX; k++)
            ck_assert_uint_eq(r.hosts[k].preference, 10 * (k + 1));
    }
}
END_TEST

/* Of one host, and of all of them. */
START_TEST(addresses_at_their_ceiling)
{
    struct route r;
    ck_assert_uint_eq(targets(&r, "many20"), ROUTE_ADDRESSES_MAX);
    ck_assert_uint_eq(targets(&r, "many21"), ROUTE_ADDRESSES_MAX);
    ck_assert_uint_eq(targets(&r, "wide2"), 16);
    ck_assert_uint_eq(targets(&r, "wide3"), ROUTE_ADDRESSES_MAX);
    ck_assert_uint_eq(r.next_host, 3);
}
END_TEST

/* dnsd goes with a question open: its successor is asked, and if all of them go, it is for later.
 */
START_TEST(a_dnsd_that_goes)
{
    static const struct relay relay = {&start, &conf, NULL};
    struct route r;
    struct verdict v = {0};
    ck_assert_uint_eq(targets(&r, "gone1"), 8);
    ck_assert_int_eq(route_find(&r, &relay, STR("lost1"), &v), -1);
    ck_assert_int_eq(v.outcome, OUTCOME_LATER);
    ck_str(str_z(v.dsn), "4.4.3");
    route_free(&r);
}
END_TEST

Suite *suite_route(void);
Suite *
suite_route(void)
{
    Suite *s = suite_create("route");
    TCase *t = tcase_create("route");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, hosts_at_their_ceiling);
    tcase_add_test(t, addresses_at_their_ceiling);
    tcase_add_test(t, a_dnsd_that_goes);
    suite_add_tcase(s, t);
    return s;
}
