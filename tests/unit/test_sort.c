/* sort: against what must be, for many lengths and orders. */
#include "lib/base/sort.h"
#include "tests/unit/unit.h"

struct item {
    unsigned key;
    char more[17];
};

static int
by_key(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    return x->key < y->key ? -1 : x->key > y->key;
}

START_TEST(everything_ends_in_order)
{
    static struct item items[1000];
    for (size_t n = 0; n < 1000; n += n < 40 ? 1 : 97)
        for (unsigned order = 0; order < 4; order++) {
            unsigned long sum = 0, sorted = 0;
            for (unsigned i = 0; i < n; i++) {
                unsigned keys[] = {i, (unsigned)n - i, i * 2654435761u % 1009, i % 3};
                items[i].key = keys[order];
                items[i].more[16] = (char)keys[order];
                sum += keys[order];
            }
            sort_array(items, n, sizeof items[0], by_key);
            for (size_t i = 0; i < n; i++) {
                ck_assert(i == 0 || items[i - 1].key <= items[i].key);
                ck_assert(items[i].more[16] == (char)items[i].key);
                sorted += items[i].key;
            }
            ck_assert_uint_eq(sum, sorted);
        }
}
END_TEST

START_TEST(numbers_end_in_order)
{
    static struct sort_pair keys[1000], room[1000];
    static const uint64_t spread[] = {1, 1009, UINT64_MAX / 1000, (uint64_t)1 << 33};
    for (size_t n = 0; n < 1000; n += n < 40 ? 1 : 97)
        for (size_t k = 0; k < sizeof spread / sizeof spread[0]; k++) {
            uint64_t sum = 0;
            for (size_t i = 0; i < n; i++)
                sum += (keys[i] = (struct sort_pair){i * 2654435761u % 337 * spread[k], i}).key;
            sort_pairs(keys, room, n);
            for (size_t i = 0; i < n; i++) {
                ck_assert(i == 0 || keys[i - 1].key < keys[i].key ||
                          (keys[i - 1].key == keys[i].key && keys[i - 1].value < keys[i].value));
                ck_assert_uint_eq(keys[i].key, keys[i].value * 2654435761u % 337 * spread[k]);
                sum -= keys[i].key;
            }
            ck_assert_uint_eq(sum, 0);
        }
}
END_TEST

Suite *suite_sort(void);
Suite *
suite_sort(void)
{
    Suite *s = suite_create("sort");
    TCase *t = tcase_create("sort");
    tcase_add_test(t, everything_ends_in_order);
    tcase_add_test(t, numbers_end_in_order);
    suite_add_tcase(s, t);
    return s;
}
