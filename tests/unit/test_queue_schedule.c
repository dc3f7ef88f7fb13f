/* The queue's scheduler in a simulated world: destinations that answer, are slow, full or dead, and
 * a clock that goes as fast as we like. Each bound that qmgr/schedule.h promises is asserted here.
 */
#include "qmgr/schedule.h"
#include "tests/unit/unit.h"
#include <stdio.h>
#include <stdlib.h>

enum { NEVER = 1 << 30, POOL = 100, ACTIVE = 5000 };

struct world_job {
    struct sched_job s;
    struct heap_node end; /* key: when */
    int who;
    int64_t pushed_ms, started_ms;
    bool refused;
};
struct destination { /* by the first letter of its name, see behave() */
    int64_t service_ms;
    size_t capacity, running;
    bool dead;
};

static struct {
    int64_t now_ms;
    struct heap ends;
    size_t started, finished, failed, put_off;
    struct destination slow; /* "c...": takes so many at once, refuses the others */
    size_t seen_max;
    int64_t longest_wait_ms; /* of jobs of who == 1 */
    size_t mine;             /* of them, started */
    const char *host;        /* all routes are found to lead there */
    const char *slow_host;   /* or those to "s..." */
} w;

static const struct sched_limits limits = {.pool_max = {20, POOL},
                                           .window_start = 5,
                                           .window_max = 20,
                                           .account_max = 5,
                                           .active_max = ACTIVE,
                                           .dead_ms = 300000,
                                           .dead_max_ms = 3600000};

static void
setup(void)
{
    static const struct sipkey key = {"of the simulator"};
    memset(&w, 0, sizeof w);
    sched_init(&limits, &key);
}

static struct sched_route *
route(const char *name)
{
    return sched_route(name[0] == '@' ? POOL_LOCAL : POOL_RELAY, str_z(name));
}

static void
push(const char *to, const char *account, bool bulk, size_t cost, int who)
{
    struct world_job *j = calloc(1, sizeof *j);
    struct sched_flow *flow = sched_flow(str_z(account), bulk);
    j->who = who;
    j->pushed_ms = w.now_ms;
    j->s.node.key = sched_tag(route(to), flow, cost);
    ck_assert_int_eq(sched_push(&j->s, route(to), flow, cost), 0);
}

static void
end_of(struct world_job *j)
{
    struct sched_route *r = j->s.route;
    struct sched_flow *f = j->s.flow;
    sched_end(&j->s);
    sched_flow_release(f);
    sched_route_release(r, w.now_ms);
    free(j);
}

/* d...: dead, found out after 30 s. c...: full beyond its capacity, says so at once. s...: 1 s.
 * @stuck: never ends. All others: 100 ms. */
static int64_t
begin(struct world_job *j)
{
    const char *name = j->s.route->name;
    j->started_ms = w.now_ms;
    w.started++;
    if (j->who == 1) {
        w.mine++;
        if (w.now_ms - j->pushed_ms > w.longest_wait_ms)
            w.longest_wait_ms = w.now_ms - j->pushed_ms;
    }
    if (name[0] == 'c') {
        j->refused = w.slow.running >= w.slow.capacity;
        w.slow.running += !j->refused;
        return j->refused ? 10 : 100;
    }
    return strcmp(name, "@stuck") == 0 ? NEVER
           : name[0] == 'd'            ? 30000
           : name[0] == 's'            ? 1000
                                       : 100;
}

static void
pull_all(void)
{
    struct sched_job *s;
    const char *reason;
    for (int pool = 0; pool < POOLS; pool++)
        while ((s = sched_pull((enum sched_pool)pool, w.now_ms))) {
            struct world_job *j = (struct world_job *)s;
            j->end.key = (uint64_t)(w.now_ms + begin(j));
            ck_assert_int_eq(heap_add(&w.ends, &j->end), 0);
        }
    while ((s = sched_pull_dead(w.now_ms, &reason))) {
        w.put_off++;
        end_of((struct world_job *)s);
    }
    if (sched_running(POOL_RELAY) > w.seen_max)
        w.seen_max = sched_running(POOL_RELAY);
}

static void
finish(struct world_job *j)
{
    char first = j->s.route->name[0];
    int64_t dead_ms;
    heap_del(&w.ends, &j->end);
    if (w.host)
        sched_seen(&j->s, str_z(w.host));
    if (w.slow_host && first == 's')
        sched_seen(&j->s, str_z(w.slow_host));
    if (first == 'd' || j->refused) {
        w.failed++;
        sched_bad(j->s.site, STR("no answer"), w.now_ms, &dead_ms);
    } else {
        w.finished++;
        sched_good(j->s.site);
    }
    if (first == 'c' && !j->refused)
        w.slow.running--;
    end_of(j);
}

/* Until that time, or until nothing happens any more. */
static void
run_until(int64_t ms)
{
    pull_all();
    for (struct heap_node *n; (n = heap_top(&w.ends)) && (int64_t)n->key <= ms;) {
        w.now_ms = (int64_t)n->key;
        finish((struct world_job *)(void *)((char *)n - offsetof(struct world_job, end)));
        pull_all();
    }
    if (ms < NEVER)
        w.now_ms = ms;
    pull_all();
}

/* N senders wait, one of them with 100,000 messages, to one destination or to one each. Another's
 * single message starts after at most N others. */
START_TEST(one_message_among_many)
{
    static const size_t senders[] = {1, 10, 100};
    size_t n = senders[_i / 2];
    bool spread = _i % 2;
    char to[32], from[32];
    for (int i = 0; i < 100000; i++) {
        snprintf(to, sizeof to, spread ? "x%d.example" : "x.example", i);
        push(to, "hog", false, 1, 0);
    }
    for (size_t k = 1; k < n; k++)
        for (int i = 0; i < 20; i++) {
            snprintf(from, sizeof from, "sender%zu", k);
            push(spread ? "y.example" : "x.example", from, false, 1, 0);
        }
    run_until(2000); /* everybody has had some turns */
    size_t before = w.started;
    push("x.example", "somebody", false, 1, 1);
    while (!w.mine)
        run_until(w.now_ms + 1);
    /* Those that start in the same moment are counted, too: at most a pool full. */
    ck_assert_uint_le(w.started - before, n + 1 + POOL);
    ck_assert_int_le(w.longest_wait_ms, 100 * (int64_t)(1 + n / 10));
}
END_TEST

/* His own mailing does not hold up a person's letter; and the mailing gets its share. */
START_TEST(bulk_mail_yields_and_goes_on)
{
    for (int i = 0; i < 1000; i++)
        push("x.example", "user", true, 50, 0);
    run_until(1000);
    size_t before = w.started;
    push("x.example", "user", false, 1, 1);
    while (!w.mine)
        run_until(w.now_ms + 1);
    ck_assert_uint_le(w.started - before, 20 + 1);
    for (int i = 0; i < 5000; i++)
        push("x.example", "other", false, 1, 1);
    before = w.started;
    size_t mine = w.mine;
    run_until(w.now_ms + 10000);
    size_t bulk = (w.started - before) - (w.mine - mine);
    /* 50 recipients at the cost of 4 against 1 each: a job of the mailing for 200 letters. */
    ck_assert_uint_ge(bulk, 5);
    ck_assert_uint_le(bulk, 50);
}
END_TEST

/* A thousand dead destinations, and one that has answered before: it never waits for them. */
START_TEST(dead_ones_do_not_delay_the_living)
{
    char to[32];
    push("alive.example", "good", false, 1, 1);
    run_until(1000);
    for (int i = 0; i < 1000; i++)
        for (int k = 0; k < 50; k++) {
            snprintf(to, sizeof to, "d%d.example", i);
            push(to, "hog", false, 1, 0);
        }
    for (int i = 0; i < 600; i++) {
        push("alive.example", "good", false, 1, 1);
        run_until(w.now_ms + 1000);
    }
    ck_assert_uint_eq(w.mine, 601);
    ck_assert_int_le(w.longest_wait_ms, 0);
    ck_assert_uint_le(w.seen_max, POOL * 3 / 4 + 1);
}
END_TEST

/* One that has never answered stands in line with those that never will: behind as many as fit into
 * three quarters of the places, each of which takes a connect timeout. And since its turn comes by
 * sender, not behind all of them. */
START_TEST(a_new_one_among_the_dead)
{
    char to[32];
    for (int i = 0; i < 1000; i++) {
        snprintf(to, sizeof to, "d%d.example", i);
        for (int k = 0; k < 50; k++)
            push(to, "hog", false, 1, 0);
    }
    run_until(1000);
    push("fresh.example", "good", false, 1, 1);
    run_until(w.now_ms + 40000);
    ck_assert_uint_eq(w.mine, 1);
    ck_assert_int_le(w.longest_wait_ms, 30000);
}
END_TEST

/* It takes 8 at once: the window finds that, and few are refused in vain. */
START_TEST(the_window_converges)
{
    w.slow.capacity = 8;
    for (int i = 0; i < 50000; i++)
        push("c.example", "hog", false, 1, 0);
    run_until(60000);
    size_t finished = w.finished, failed = w.failed;
    run_until(360000);
    finished = w.finished - finished;
    failed = w.failed - failed;
    /* 300 s at 80 a second would be 24,000. */
    ck_assert_uint_ge(finished, 24000 * 7 / 10);
    ck_assert_uint_le(failed, finished / 40);
    struct sched_route *r = route("c.example");
    ck_assert_uint_le(sched_window(r->site), 10);
    ck_assert(!sched_is_dead(r->site, w.now_ms));
}
END_TEST

START_TEST(the_window_grows_to_its_limit)
{
    for (int i = 0; i < 1000; i++)
        push("x.example", "user", false, 1, 0);
    pull_all();
    ck_assert_uint_eq(sched_running(POOL_RELAY), 5);
    run_until(NEVER);
    ck_assert_uint_eq(w.seen_max, 20);
    ck_assert_uint_eq(w.finished, 1000);
}
END_TEST

/* A whole window that fails: left alone, the rest is put off unseen; then one probe; then twice as
 * long. A success forgets it all. */
START_TEST(a_failed_cohort)
{
    for (int i = 0; i < 1000; i++)
        push("d.example", "user", false, 1, 0);
    run_until(31000);
    struct sched_route *r = route("d.example");
    r->pins++;
    ck_assert_uint_eq(w.started, 5);
    ck_assert_uint_eq(w.put_off, 995);
    ck_assert(sched_is_dead(r->site, w.now_ms));
    run_until(30000 + 300000);
    for (int i = 0; i < 10; i++)
        push("d.example", "user", false, 1, 0);
    run_until(w.now_ms + 31000);
    ck_assert_uint_eq(w.started, 6);
    ck_assert_uint_eq(w.put_off, 995 + 9);
    ck_assert(sched_is_dead(r->site, w.now_ms + 590000));
    ck_assert(!sched_is_dead(r->site, w.now_ms + 610000));
    sched_forget_failures();
    ck_assert(!sched_is_dead(r->site, w.now_ms));
}
END_TEST

/* Twice as long each time, an hour at most; one answer, and it begins anew. */
START_TEST(dead_for_an_hour_at_most)
{
    static const int64_t want_s[] = {300, 600, 1200, 2400, 3600, 3600, 3600};
    int64_t now_ms = 0, dead_ms = 0;
    struct sched_route *r = route("d.example");
    r->pins++;
    for (size_t i = 0; i < sizeof want_s / sizeof want_s[0]; i++) {
        for (int tries = 0; !sched_bad(r->site, STR("no answer"), now_ms, &dead_ms); tries++)
            ck_assert_int_lt(tries, 5);
        ck_assert_int_eq(dead_ms, want_s[i] * 1000);
        now_ms += dead_ms + 1;
    }
    sched_good(r->site);
    while (!sched_bad(r->site, STR("no answer"), now_ms, &dead_ms))
        ;
    ck_assert_int_eq(dead_ms, 300000);
}
END_TEST

/* Five hundred domains at one host: one window for all, and one failed cohort is enough. */
START_TEST(domains_of_one_host)
{
    char to[32];
    w.host = "mx.hoster.example";
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 500; i++) {
            snprintf(to, sizeof to, "x%d.example", i);
            push(to, "user", false, 1, 0);
        }
        run_until(round ? w.now_ms : w.now_ms + 100000);
    }
    ck_assert_uint_eq(sched_running(POOL_RELAY), 20);
    ck_assert_str_eq(sched_site_name(route("x7.example")->site), "mx.hoster.example");
    run_until(NEVER);
    ck_assert_uint_eq(w.finished, 1000);
    int64_t dead_ms;
    while (!sched_bad(route("x7.example")->site, STR("gone"), w.now_ms, &dead_ms))
        ;
    size_t started = w.started;
    for (int i = 0; i < 500; i++) {
        snprintf(to, sizeof to, "x%d.example", i);
        push(to, "user", false, 1, 0);
    }
    run_until(w.now_ms + 1000);
    ck_assert_uint_eq(w.started, started);
    ck_assert_uint_eq(w.put_off, 500);
}
END_TEST

/* One sender's mailing to a slow destination and to many quick ones, all at once or over some time;
 * to the slow one under one name, or under many that lead to one host. The quick ones are through
 * long before. A letter that comes then does not stand behind what came for the slow one. */
START_TEST(a_letter_to_a_slow_destination)
{
    enum { MAILING = 8000 };
    bool at_once = _i % 2, many_names = _i / 2;
    char to[32];
    w.slow_host = many_names ? "mx.hoster.example" : NULL;
    push("s0.example", "user", false, 1, 0); /* what hosts they are is known */
    push("s999.example", "user", false, 1, 0);
    run_until(2000);
    for (int i = 0; i < MAILING; i++) {
        bool slow = i % 4 == 0;
        snprintf(to, sizeof to, slow ? "s%d.example" : "x%d.example",
                 !slow        ? i % 300
                 : many_names ? i / 4 % 200
                              : 0);
        push(to, "hog", true, 1, 0);
        if (!at_once && i % 50 == 0)
            run_until(w.now_ms + 200);
    }
    run_until(w.now_ms + 10000);
    struct sched_route *slow = route("s0.example");
    ck_assert_uint_eq(slow->site == route("s4.example")->site, many_names);
    ck_assert_uint_ge(sched_running(POOL_RELAY), 20);
    for (int i = 0; i < 10; i++) {
        push("x1.example", "person", false, 1, 0);
        push(many_names ? "s999.example" : "s0.example", "person", false, 1, 1);
        run_until(w.now_ms + 2000);
        ck_assert_uint_eq(w.mine, (size_t)i + 1);
    }
    /* One place of twenty is free each twentieth of a second, if they are not in step. */
    ck_assert_int_le(w.longest_wait_ms, 1000);
    ck_assert_uint_lt(w.started, MAILING); /* much of it waits still */
}
END_TEST

/* Ten slow destinations take all places there are, since now each may have more of them, and quick
 * ones were through before: a letter to any other one has the next place. */
START_TEST(a_letter_when_all_places_are_taken)
{
    char to[32];
    struct sched_limits narrow = limits;
    narrow.window_max = 5;
    sched_limit(&narrow);
    for (int i = 0; i < 40000; i++) {
        snprintf(to, sizeof to, i % 2 ? "x%d.example" : "s%d.example", i % 2 ? i % 97 : i / 2 % 10);
        push(to, "hog", false, 1, 0);
    }
    run_until(60000);
    sched_limit(&limits);
    run_until(70000);
    ck_assert_uint_eq(sched_running(POOL_RELAY), POOL);
    push("y.example", "person", false, 1, 1);
    run_until(w.now_ms + 1100);
    ck_assert_uint_eq(w.mine, 1);
    ck_assert_uint_eq(sched_running(POOL_RELAY), POOL);
}
END_TEST

/* Letter for letter, of two who both have many. */
START_TEST(bulk_mail_costs_more)
{
    for (int i = 0; i < 4000; i++) {
        push("x.example", "user", true, 1, 0);
        push("x.example", "other", false, 1, 1);
    }
    run_until(10000);
    ck_assert_uint_ge(w.mine, (w.started - w.mine) * (SCHED_BULK_COST - 1));
    ck_assert_uint_le(w.mine, (w.started - w.mine) * (SCHED_BULK_COST + 1));
}
END_TEST

/* However many come whom nobody has seen before, those that wait have their turn. */
START_TEST(newcomers_have_their_share_only)
{
    char from[32];
    for (int i = 0; i < 5000; i++)
        push("s.example", "person", false, 1, 1);
    run_until(60000);
    size_t before = w.mine, started = w.started;
    for (int i = 0; w.now_ms < 860000; i++) {
        for (int k = 0; k < 100; k++) { /* five times as many as go out */
            snprintf(from, sizeof from, "stranger%d-%d", i, k);
            push("s.example", from, false, 1, 0);
        }
        run_until(w.now_ms + 1000);
    }
    size_t mine = w.mine - before;
    ck_assert_uint_ge(mine, (w.started - started) / (SCHED_COST + 1));
    ck_assert_uint_ge(mine, 3);
}
END_TEST

/* What was never sent, since its destination is dead, does not count against a sender. */
START_TEST(dead_mail_costs_nothing)
{
    char to[32];
    sched_flow(STR("user"), false)->pins++; /* he has more in the queue */
    for (int i = 0; i < 5000; i++)
        push("d.example", "user", false, 1, 0);
    run_until(40000);
    ck_assert_uint_eq(w.put_off, 4995);
    for (int i = 0; i < 20000; i++) {
        snprintf(to, sizeof to, "x%d.example", i % 100);
        push(to, "hog", false, 1, 0);
    }
    run_until(w.now_ms + 2000);
    push("y.example", "user", false, 1, 1);
    run_until(w.now_ms + 1000);
    ck_assert_uint_eq(w.mine, 1);
    ck_assert_int_le(w.longest_wait_ms, 200);
    ck_assert_uint_gt(sched_running(POOL_RELAY), POOL / 2);
}
END_TEST

/* An account that stops its deliveries holds its part of the lanes and no more. */
START_TEST(a_stuck_account)
{
    for (int i = 0; i < 1000; i++)
        push("@stuck", "enemy", false, 1, 0);
    for (int i = 0; i < 1000; i++)
        push(i % 2 ? "@alice" : "@bob", "user", false, 1, 1);
    run_until(20000);
    ck_assert_uint_eq(w.mine, 1000);
    ck_assert_uint_eq(sched_running(POOL_LOCAL), 5);
}
END_TEST

/* However much comes for one destination or from one sender, there is room for the next. */
START_TEST(memory_is_shared)
{
    size_t active = 0;
    struct sched_flow *hog = sched_flow(STR("hog"), false);
    struct sched_route *r = route("d.example");
    while (sched_admit(r, hog, active) == SCHED_ADMIT) {
        push("d.example", "hog", false, 1, 0);
        active++;
    }
    ck_assert_int_eq(sched_admit(r, hog, active), SCHED_PARK_ROUTE);
    ck_assert_uint_eq(active, ACTIVE / 5);
    ck_assert_int_eq(sched_admit(route("new.example"), hog, active), SCHED_ADMIT);
    for (int i = 0; i < 20000; i++) { /* the same sender, one destination each, then ten each */
        char to[32];
        snprintf(to, sizeof to, "d%d.example", i % 2000);
        if (sched_admit(route(to), hog, active) == SCHED_ADMIT) {
            push(to, "hog", false, 1, 0);
            active++;
        }
    }
    ck_assert_uint_eq(active, ACTIVE / 4 * 3);
    struct sched_flow *other = sched_flow(STR("other"), false);
    other->pins++;
    size_t room = 0;
    while (sched_admit(route("x.example"), other, active + room) == SCHED_ADMIT) {
        push("x.example", "other", false, 1, 0);
        room++;
    }
    ck_assert_uint_ge(room, 200);
    ck_assert_int_eq(sched_admit(route("x.example"), other, ACTIVE), SCHED_FULL);
}
END_TEST

/* Parked ones come back in the order of their tags, when there is room. */
START_TEST(parked_and_back)
{
    struct sched_route *r = route("d.example");
    struct sched_flow *hog = sched_flow(STR("hog"), false), *other = sched_flow(STR("o"), false);
    static struct heap_node nodes[1000], single;
    r->pins++;
    hog->pins++;
    other->pins++;
    for (int i = 0; i < 1000; i++) {
        nodes[i].key = sched_tag(r, hog, 1);
        ck_assert_int_eq(sched_park(&r->parked, &nodes[i]), 0);
    }
    single.key = sched_tag(r, other, 1);
    ck_assert_int_eq(sched_park(&r->parked, &single), 0);
    struct heap_node *first = sched_parked(r, other, 0);
    sched_unpark(&r->parked, first);
    struct heap_node *second = sched_parked(r, other, 0);
    ck_assert(first == &single || second == &single);
    for (size_t n = 0; n < SCHED_ROUTE_MIN; n++)
        push("d.example", "hog", false, 1, 0);
    ck_assert_ptr_null(sched_parked(r, hog, ACTIVE));
    ck_assert_ptr_nonnull(sched_parked(r, hog, 0));
}
END_TEST

/* What strangers make us remember is bounded. */
START_TEST(idle_routes_are_forgotten)
{
    char to[32];
    for (int i = 0; i < 3 * SCHED_KEPT_MAX; i++) {
        snprintf(to, sizeof to, "x%d.example", i);
        push(to, "user", false, 1, 0);
        run_until(w.now_ms + 101);
    }
    ck_assert_uint_le(sched_routes(), SCHED_KEPT_MAX);
    w.now_ms += SCHED_KEPT_MS + 1;
    push("y.example", "user", false, 1, 0);
    run_until(w.now_ms + 101);
    ck_assert_uint_eq(sched_routes(), 1);
    char name[SCHED_NAME_MAX + 2];
    memset(name, 'x', sizeof name);
    ck_assert_ptr_null(sched_route(POOL_RELAY, str_of(name, SCHED_NAME_MAX + 1)));
}
END_TEST

/* All at once, at random, with a check that nothing is lost. */
START_TEST(everything_ends)
{
    char to[32], from[32];
    size_t pushed = 0;
    srand(1);
    w.slow.capacity = 3;
    for (int i = 0; i < 30000; i++) {
        snprintf(to, sizeof to, "%cx%d.example", "dcxy"[rand() % 4], rand() % 50);
        snprintf(from, sizeof from, "s%d", rand() % 20);
        w.host = rand() % 3 ? NULL : rand() % 2 ? "mx1.example" : "mx2.example";
        push(to, from, rand() % 2, 1 + (size_t)rand() % 50, 0);
        pushed++;
        if (rand() % 10 == 0)
            run_until(w.now_ms + rand() % 1000);
    }
    for (int i = 0; i < 1000; i++)
        run_until(w.now_ms + 10000);
    ck_assert_uint_eq(w.finished + w.failed + w.put_off, pushed);
    ck_assert_uint_eq(sched_running(POOL_RELAY), 0);
}
END_TEST

/* A job that goes ahead takes no place until the one before it has ended, and counts like any other
 * for its route. At another host it does so only where no other connection may take it, and where
 * all goes well. */
START_TEST(what_goes_ahead_takes_no_place)
{
    int64_t dead_ms;
    struct sched_job *more[20], *s;
    size_t n = 0;
    for (int i = 0; i < 4; i++)
        push("@alice", "a", false, 1, 0);
    for (int i = 0; i < 20; i++)
        push("far.example", "a", false, 1, 0);
    struct sched_job *first = sched_pull(POOL_LOCAL, 0);
    struct sched_job *second = sched_pull_ahead(first->route, 0);
    ck_assert_ptr_nonnull(second);
    ck_assert_uint_eq(sched_running(POOL_LOCAL), 1);
    ck_assert_uint_eq(first->route->njobs, 4);
    end_of((struct world_job *)first);
    ck_assert_uint_eq(sched_running(POOL_LOCAL), 0);
    sched_step_up(second);
    ck_assert_uint_eq(sched_running(POOL_LOCAL), 1);
    struct sched_job *third = sched_pull_ahead(second->route, 0);
    ck_assert_int_eq(sched_push_back(third), 0);
    ck_assert_ptr_eq(sched_pull(POOL_LOCAL, 0), third);
    ck_assert_uint_eq(sched_running(POOL_LOCAL), 2);

    struct sched_job *far = sched_pull(POOL_RELAY, 0);
    ck_assert_ptr_null(sched_pull_ahead(far->route, 0));
    sched_good(far->site);
    ck_assert_ptr_null(sched_pull_ahead(far->route, 0));
    while ((s = sched_pull(POOL_RELAY, 0)))
        more[n++] = s;
    ck_assert_uint_ge(n, 5);
    ck_assert_uint_lt(n, 19);
    struct sched_job *ahead = sched_pull_ahead(far->route, 0);
    ck_assert_ptr_nonnull(ahead);
    sched_bad(far->site, STR("no answer"), 0, &dead_ms);
    ck_assert_ptr_null(sched_pull_ahead(far->route, 0));
    end_of((struct world_job *)far);
    sched_step_up(ahead);
    ck_assert_uint_eq(sched_running(POOL_RELAY), n + 1);
    end_of((struct world_job *)ahead);
    while (n > 0)
        end_of((struct world_job *)more[--n]);
    ck_assert_uint_eq(sched_running(POOL_RELAY), 0);
    end_of((struct world_job *)second);
    end_of((struct world_job *)third);
    ck_assert_uint_eq(sched_running(POOL_LOCAL), 0);
}
END_TEST

/* Two domains of one host that has room for one: the first turns out to be sent by another host
 * now, and the second has its turn all the same. */
START_TEST(a_domain_that_moves_away)
{
    int64_t dead_ms;
    const char *domains[] = {"a.example", "b.example"};
    for (int i = 0; i < 2; i++) {
        push(domains[i], "user", false, 1, 0);
        struct sched_job *s = sched_pull(POOL_RELAY, 0);
        sched_seen(s, STR("mx1.example"));
        end_of((struct world_job *)s);
    }
    while (!sched_bad(route("a.example")->site, STR("gone"), 0, &dead_ms))
        ;
    push("a.example", "user", false, 1, 0);
    push("a.example", "user", false, 1, 0);
    push("b.example", "user", false, 1, 0);
    struct sched_job *first = sched_pull(POOL_RELAY, dead_ms + 1);
    ck_assert_ptr_eq(first->route, route("a.example"));
    ck_assert_ptr_null(sched_pull(POOL_RELAY, dead_ms + 1)); /* one at a time */
    sched_seen(first, STR("mx2.example"));
    sched_good(first->site);
    end_of((struct world_job *)first);
    for (int i = 0; i < 2; i++) {
        struct sched_job *s = sched_pull(POOL_RELAY, dead_ms + 1);
        ck_assert_msg(s, "%zu routes wait for nothing", sched_routes());
        end_of((struct world_job *)s);
    }
}
END_TEST

Suite *suite_queue_schedule(void);
Suite *
suite_queue_schedule(void)
{
    Suite *s = suite_create("queue_schedule");
    TCase *t = tcase_create("schedule");
    tcase_set_timeout(t, 120);
    tcase_add_checked_fixture(t, setup, NULL);
    tcase_add_loop_test(t, one_message_among_many, 0, 6);
    tcase_add_test(t, what_goes_ahead_takes_no_place);
    tcase_add_test(t, bulk_mail_yields_and_goes_on);
    tcase_add_test(t, dead_ones_do_not_delay_the_living);
    tcase_add_test(t, a_new_one_among_the_dead);
    tcase_add_test(t, the_window_converges);
    tcase_add_test(t, the_window_grows_to_its_limit);
    tcase_add_test(t, a_failed_cohort);
    tcase_add_test(t, dead_for_an_hour_at_most);
    tcase_add_test(t, domains_of_one_host);
    tcase_add_test(t, a_domain_that_moves_away);
    tcase_add_loop_test(t, a_letter_to_a_slow_destination, 0, 4);
    tcase_add_test(t, a_letter_when_all_places_are_taken);
    tcase_add_test(t, bulk_mail_costs_more);
    tcase_add_test(t, newcomers_have_their_share_only);
    tcase_add_test(t, dead_mail_costs_nothing);
    tcase_add_test(t, a_stuck_account);
    tcase_add_test(t, memory_is_shared);
    tcase_add_test(t, parked_and_back);
    tcase_add_test(t, idle_routes_are_forgotten);
    tcase_add_test(t, everything_ends);
    suite_add_tcase(s, t);
    return s;
}
