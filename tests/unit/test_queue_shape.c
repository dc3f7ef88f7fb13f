/* qmgr: counts by destination and age, beside a count of everything. */
#include "tests/unit/queue_world.h"
#include <stdlib.h>

enum { LIVE = 300, STEPS = 4000, DOMAINS = 150, CLASSES = 10, ROWS = 20100, NAMED = 19998 };
static const int64_t borders[] = {300, 600, 1200, 2400, 4800, 9600, 19200, 38400, 76800};

struct row {
    char name[260];
    uint64_t held, by_age[CLASSES];
};
static struct row rows[ROWS];
static size_t nrows;
static uint64_t totals[6]; /* messages, active, due, deferred, held, not read */

static struct row *
row_of(const char *name)
{
    for (size_t i = 0; i < nrows; i++)
        if (strcmp(rows[i].name, name) == 0)
            return &rows[i];
    return NULL;
}

/* One page; where the next begins, or 0. */
static uint32_t
ask_page(uint32_t from)
{
    struct msg m = {0};
    msg_begin(&m, M_QUEUE_SHAPE);
    msg_put_u32(&m, from);
    ask_qmgr(&m, M_QUEUE_SHAPE_IS);
    bool more = msg_get_bool(&m);
    uint32_t next = msg_get_u32(&m);
    for (size_t i = 0; i < 6; i++)
        totals[i] = msg_get_u64(&m);
    uint32_t n = msg_get_u32(&m);
    ck_assert_uint_le(n, 100);
    for (; n; n--) {
        struct row *r = &rows[nrows++];
        struct str name = msg_get_str(&m);
        ck_assert_uint_lt(nrows, ROWS);
        memcpy(r->name, name.p, name.n);
        r->name[name.n] = '\0';
        r->held = msg_get_u64(&m);
        for (size_t k = 0; k < CLASSES; k++)
            r->by_age[k] = msg_get_u64(&m);
    }
    ck_assert(msg_end(&m));
    msg_free(&m);
    return more ? next : 0;
}

static void
ask(void)
{
    uint32_t from = 0;
    nrows = 0;
    do
        from = ask_page(from);
    while (from);
}

static struct entry *
arrive(void)
{
    char id[ID_LEN + 1];
    store_new_id(id);
    struct entry *entry = entry_add(id, 's', PLACE_NEW, clock_steady_s());
    ck_assert_ptr_nonnull(entry);
    return entry;
}

/* Its first recipient is done, the second is in this domain. */
static void
read_as(struct entry *entry, const char *domain)
{
    char address[700];
    snprintf(address, sizeof address, "some@one@%s", domain);
    struct rcpt done = {.address = STR("x@done.example"), .state = RCPT_DONE};
    struct rcpt open = {.address = str_z(address), .state = RCPT_LATER};
    struct rcpt *rcpts[] = {&done, &open};
    struct message m = {.rcpts = rcpts, .nrcpt = 2};
    shape_learn(entry, &m);
}

static struct item {
    struct entry *entry;
    int domain; /* -1: not read; DOMAINS: one that has no name */
} items[LIVE];

static const char *
name_of(int domain, bool capitals)
{
    static char name[40];
    snprintf(name, sizeof name, capitals ? "HOST%d.Example" : "host%d.example", domain);
    return domain < 0 ? "(not read yet)" : domain == DOMAINS ? "(others)" : name;
}

static void
compare(void)
{
    static uint64_t counts[DOMAINS + 2][CLASSES], held[DOMAINS + 2];
    uint64_t n = 0, all_held = 0;
    int64_t now;
    do { /* all in one second */
        now = clock_wall_s();
        ask();
    } while (clock_wall_s() != now);
    memset(counts, 0, sizeof counts);
    memset(held, 0, sizeof held);
    for (size_t i = 0; i < LIVE; i++)
        if (items[i].entry) {
            size_t k = 0;
            while (k < CLASSES - 1 && now - entry_arrived_s(items[i].entry) > borders[k])
                k++;
            counts[items[i].domain + 1][k]++;
            held[items[i].domain + 1] += items[i].entry->state == ENTRY_HELD;
            all_held += items[i].entry->state == ENTRY_HELD;
            n++;
        }
    size_t named = 0;
    for (int d = -1; d <= DOMAINS; d++) {
        const struct row *r = row_of(name_of(d, false));
        uint64_t sum = 0;
        for (size_t k = 0; k < CLASSES; k++)
            sum += counts[d + 1][k];
        ck_assert_int_eq(r != NULL, sum || d < 0 || d == DOMAINS);
        named += r != NULL;
        if (!r)
            continue;
        ck_assert_uint_eq(r->held, held[d + 1]);
        for (size_t k = 0; k < CLASSES; k++)
            ck_assert_msg(r->by_age[k] == counts[d + 1][k], "%s, class %zu: %llu, not %llu",
                          r->name, k, (unsigned long long)r->by_age[k],
                          (unsigned long long)counts[d + 1][k]);
    }
    ck_assert_uint_eq(nrows, named);
    ck_assert_uint_eq(totals[0], n);
    ck_assert_uint_eq(totals[4], all_held);
    uint64_t not_read = 0;
    for (size_t k = 0; k < CLASSES; k++)
        not_read += counts[0][k];
    ck_assert_uint_eq(totals[5], not_read);
}

/* Come, go, are read, held, released, and grow older, in any order; the clock is set back, too. */
START_TEST(counts_are_right_at_any_time)
{
    char long_name[300];
    memset(long_name, 'x', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = '\0';
    srandom(1);
    for (int step = 0; step < STEPS; step++) {
        struct item *it = &items[random() % LIVE];
        long what = random() % 100;
        if (!it->entry) {
            *it = (struct item){arrive(), -1};
        } else if (what < 25) {
            entry_drop(it->entry);
            it->entry = NULL;
        } else if (what < 60) {
            it->domain = (int)(random() % (DOMAINS + 1));
            read_as(it->entry, it->domain < DOMAINS ? name_of(it->domain, what & 1)
                               : what & 1           ? long_name
                                                    : "");
        } else if (what < 95) {
            entry_become(it->entry, it->entry->state == ENTRY_HELD ? ENTRY_NONE : ENTRY_HELD);
        } else {
            clock_shift.wall_s += (random() % 60 - 10) * 100;
        }
        if (step % 100 == 0)
            compare();
    }
    compare();
}
END_TEST

/* So many have a line of their own; a line that is not needed any more is another's. */
START_TEST(more_destinations_than_lines)
{
    static struct entry *entries[NAMED + 1];
    char name[40];
    for (int i = 0; i <= NAMED; i++) {
        snprintf(name, sizeof name, "d%d.example", i);
        entries[i] = arrive();
        read_as(entries[i], name);
    }
    ask();
    ck_assert_uint_eq(nrows, NAMED + 2);
    ck_assert_uint_eq(row_of("(others)")->by_age[0], 1);
    ck_assert_ptr_null(row_of(name));
    entry_drop(entries[1000]);
    read_as(entries[NAMED], name);
    ask();
    ck_assert_uint_eq(nrows, NAMED + 2);
    ck_assert_uint_eq(row_of("(others)")->by_age[0], 0);
    ck_assert_uint_eq(row_of(name)->by_age[0], 1);
    ck_assert_ptr_null(row_of("d1000.example"));
}
END_TEST

/* What a predecessor left is read little by little, and then has a place. */
START_TEST(read_while_there_is_time)
{
    for (int i = 0; i < 30; i++) {
        struct entry *entry = accept_message("s@example.com", alice, 1);
        entry->due_s = clock_steady_s() + 1000;
        entry_wait(entry);
    }
    shape_start();
    ask();
    ck_assert_uint_eq(totals[5], 30);
    ck_assert_uint_eq(totals[3], 30);
    turn_ms(5200);
    ask();
    ck_assert_uint_eq(totals[5], 0);
    ck_assert_uint_eq(row_of("example.org")->by_age[0], 30);
}
END_TEST

/* Read, and put off with one recipient done: it is counted where the next attempt goes. */
START_TEST(counted_where_it_goes_next)
{
    static const char *const to[] = {"a@near.example", "b@far.example"};
    struct err e = {0};
    struct message *m = message_load(accept_message("s@example.com", to, 2), &e);
    ck_assert_ptr_nonnull(m);
    ask();
    ck_assert_uint_eq(row_of("near.example")->by_age[0], 1);
    m->open = 2;
    message_outcome(m, m->rcpts[0], OUTCOME_DONE, STR("2.0.0"), STR("ok"), STR("none"));
    message_outcome(m, m->rcpts[1], OUTCOME_LATER, STR("4.2.1"), STR("busy"), STR("none"));
    message_settle(m);
    ask();
    ck_assert_ptr_null(row_of("near.example"));
    ck_assert_uint_eq(row_of("far.example")->by_age[0], 1);
}
END_TEST

Suite *suite_queue_shape(void);
Suite *
suite_queue_shape(void)
{
    Suite *s = suite_create("queue_shape");
    TCase *t = tcase_create("shape");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 60);
    tcase_add_test(t, counts_are_right_at_any_time);
    tcase_add_test(t, more_destinations_than_lines);
    tcase_add_test(t, read_while_there_is_time);
    tcase_add_test(t, counted_where_it_goes_next);
    suite_add_tcase(s, t);
    return s;
}
