/* giveway: who leaves when a listener is full. */
#include "lib/loop/giveway.h"
#include "tests/unit/unit.h"

enum { N = 1000 };
static struct session all[N];

static void
fill(uint64_t (*network)(int))
{
    for (int i = 0; i < N; i++)
        all[i] = (struct session){
            .pid = i + 1, .network = network(i), .began_ms = 100000 + (i * 7919) % N};
}

static uint64_t
each_its_own(int i)
{
    return (uint64_t)i * 0x9e3779b97f4a7c15u;
}

static uint64_t
a_crowd_of_900(int i)
{
    return i < 900 ? 77 : each_its_own(i);
}

START_TEST(a_crowd_displaces_itself)
{
    fill(a_crowd_of_900);
    struct session *s = giveway(all, N, 1234567, false, 100999);
    ck_assert_ptr_nonnull(s); /* at once, for somebody from elsewhere */
    ck_assert_uint_eq(s->network, 77);
    for (int i = 0; i < 900; i++)
        ck_assert_int_le(s->began_ms, all[i].began_ms);
    ck_assert_ptr_null(giveway(all, N, 77, false, 100999)); /* for one of its own: later */
    ck_assert_ptr_eq(giveway(all, N, 77, false, s->began_ms + GIVEWAY_MS), s);
    s->leaving = true;
    struct session *next = giveway(all, N, 1234567, false, 100999);
    ck_assert(next && next != s && next->network == 77);
}
END_TEST

START_TEST(among_equals_the_oldest_has_its_time)
{
    fill(each_its_own);
    int64_t first = 100000;
    ck_assert_ptr_null(giveway(all, N, 5, false, first + GIVEWAY_MS - 1));
    struct session *s = giveway(all, N, 5, false, first + GIVEWAY_MS);
    ck_assert(s && s->began_ms == first);
    all[500].network = all[501].network; /* two neighbours are no crowd */
    all[500].began_ms = all[501].began_ms = 100000 + N;
    ck_assert_ptr_eq(giveway(all, N, 5, false, first + GIVEWAY_MS), s);
}
END_TEST

START_TEST(who_has_settled_stays)
{
    fill(a_crowd_of_900);
    for (int i = 0; i < N; i++)
        all[i].settled = i != 950;
    struct session *s = giveway(all, N, 1, false, 200000);
    ck_assert_ptr_eq(s, &all[950]);
    all[950].settled = true;
    ck_assert_ptr_null(giveway(all, N, 1, false, 200000));
    all[3].settled = false;
    all[3].pid = 0; /* a free place */
    ck_assert_ptr_null(giveway(all, N, 1, false, 200000));
}
END_TEST

START_TEST(a_door_has_its_own_places)
{
    fill(a_crowd_of_900);
    struct session *s = giveway(all, N, all[950].network, true, 200000);
    ck_assert_ptr_eq(s, &all[950]);
    ck_assert_ptr_null(giveway(all, N, all[950].network, true, all[950].began_ms));
    ck_assert_ptr_null(giveway(all, N, 1234567, true, 200000));
}
END_TEST

Suite *suite_giveway(void);
Suite *
suite_giveway(void)
{
    Suite *s = suite_create("giveway");
    TCase *t = tcase_create("giveway");
    tcase_add_test(t, a_crowd_displaces_itself);
    tcase_add_test(t, among_equals_the_oldest_has_its_time);
    tcase_add_test(t, who_has_settled_stays);
    tcase_add_test(t, a_door_has_its_own_places);
    suite_add_tcase(s, t);
    return s;
}
