/* loop: timers in order, handles that remove each other, signals. */
#include "lib/loop/loop.h"
#include "tests/unit/temp.h"
#include "tests/unit/unit.h"
#include <signal.h>
#include <sys/epoll.h>

enum { TIMERS = 2000 };
static struct loop l;
static struct loop_timer timers[TIMERS];
static int64_t last;
static size_t fired;

static void
in_order(struct loop_timer *t)
{
    ck_assert((int64_t)t->node.key >= last);
    ck_assert(!loop_timer_is_set(t));
    last = (int64_t)t->node.key;
    fired++;
}

static void
stop(struct loop_timer *t)
{
    ((struct loop *)t->arg)->stop = true;
}

static void
run(int ms)
{
    struct loop_timer end = {.fire = stop, .arg = &l};
    l.stop = false;
    ck_assert_int_eq(loop_timer_set(&l, &end, now_ms() + ms), 0);
    loop_run(&l);
}

START_TEST(timers_fire_in_order)
{
    uint32_t r = 1;
    ck_assert_int_eq(loop_init(&l, NULL), 0);
    for (size_t i = 0; i < TIMERS; i++) {
        r = r * 1103515245 + 12345;
        timers[i].fire = in_order;
        loop_timer_set(&l, &timers[i], 1 + (r >> 16) % 5000);
    }
    for (size_t i = 0; i < TIMERS; i += 3) /* some again, some away */
        loop_timer_set(&l, &timers[i], (int64_t)i);
    for (size_t i = 1; i < TIMERS; i += 3)
        loop_timer_del(&l, &timers[i]);
    for (size_t i = 1; i < TIMERS; i += 3)
        loop_timer_del(&l, &timers[i]);
    for (size_t i = 0; i < l.timers.n; i++) {
        ck_assert_uint_eq(l.timers.at[i]->at, i + 1);
        ck_assert(i == 0 || l.timers.at[(i - 1) / 2]->key <= l.timers.at[i]->key);
    }
    run(1);
    ck_assert_uint_eq(fired, TIMERS - (TIMERS - 1 + 2) / 3);
    ck_assert_uint_eq(l.timers.n, 0);
}
END_TEST

static struct loop_io ios[2];
static int pipes[2][2];

static void
remove_the_other(struct loop_io *io, unsigned events)
{
    struct loop_io *other = &ios[io == &ios[0]];
    (void)events;
    fired++;
    loop_del(&l, other);
    close(other->fd);
    memset(other, 0xa5, sizeof *other); /* as if freed */
    other->added = false;
}

START_TEST(a_handle_removed_in_its_turn_is_not_called)
{
    ck_assert_int_eq(loop_init(&l, NULL), 0);
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(pipe2(pipes[i], O_CLOEXEC), 0);
        ck_assert_int_eq(write(pipes[i][1], "x", 1), 1);
        ios[i] = (struct loop_io){.fd = pipes[i][0], .ready = remove_the_other};
        ck_assert_int_eq(loop_add(&l, &ios[i], EPOLLIN), 0);
    }
    l.timers.n = 0;
    run(0);
    ck_assert_uint_ge(fired, 1);
}
END_TEST

static void
remove_itself(struct loop_io *io, unsigned events)
{
    (void)events;
    fired++;
    loop_del(&l, io);
    loop_del(&l, io);
}

START_TEST(a_handle_may_remove_itself)
{
    ck_assert_int_eq(loop_init(&l, NULL), 0);
    ck_assert_int_eq(pipe2(pipes[0], O_CLOEXEC), 0);
    ios[0] = (struct loop_io){.fd = pipes[0][0], .ready = remove_itself};
    ck_assert_int_eq(loop_add(&l, &ios[0], EPOLLIN), 0);
    ck_assert_int_eq(write(pipes[0][1], "x", 1), 1);
    run(20);
    ck_assert_uint_eq(fired, 1);
    ck_assert_int_eq(loop_add(&l, &ios[0], 0), 0);
    run(5);
    ck_assert_uint_eq(fired, 1);
    loop_want(&l, &ios[0], EPOLLIN);
    run(5);
    ck_assert_uint_eq(fired, 2);
}
END_TEST

static int got;
static void
on_signal(struct loop *x, int signo)
{
    got = signo;
    x->stop = true;
}

START_TEST(signals_are_read)
{
    static const int signals[] = {SIGUSR1, 0};
    l.on_signal = on_signal;
    ck_assert_int_eq(loop_init(&l, signals), 0);
    raise(SIGUSR1);
    run(2000);
    ck_assert_int_eq(got, SIGUSR1);
}
END_TEST

START_TEST(a_bad_descriptor_is_refused)
{
    ck_assert_int_eq(loop_init(&l, NULL), 0);
    ios[0] = (struct loop_io){.fd = -1, .ready = remove_itself};
    ck_assert_int_eq(loop_add(&l, &ios[0], EPOLLIN), -1);
    loop_del(&l, &ios[0]);
    loop_want(&l, &ios[0], EPOLLIN);
}
END_TEST

Suite *suite_loop(void);
Suite *
suite_loop(void)
{
    Suite *s = suite_create("loop");
    TCase *t = tcase_create("loop");
    tcase_add_test(t, timers_fire_in_order);
    tcase_add_test(t, a_handle_removed_in_its_turn_is_not_called);
    tcase_add_test(t, a_handle_may_remove_itself);
    tcase_add_test(t, signals_are_read);
    tcase_add_test(t, a_bad_descriptor_is_refused);
    suite_add_tcase(s, t);
    return s;
}
