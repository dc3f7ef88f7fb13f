#include "lib/base/sort.h"
#include <string.h>

/* Let the element at `at` sink below those that are greater, within the first n. */
static void
sink(char *base, size_t at, size_t n, size_t size, int (*compare)(const void *, const void *))
{
    char hold[SORT_SIZE_MAX];
    memcpy(hold, base + at * size, size);
    for (size_t child = 2 * at + 1; child < n; child = 2 * at + 1) {
        if (child + 1 < n && compare(base + child * size, base + (child + 1) * size) < 0)
            child++;
        if (compare(hold, base + child * size) >= 0)
            break;
        memcpy(base + at * size, base + child * size, size);
        at = child;
    }
    memcpy(base + at * size, hold, size);
}

void
sort_array(void *base, size_t n, size_t size, int (*compare)(const void *, const void *))
{
    char hold[SORT_SIZE_MAX], *b = base;
    if (n < 2 || size > SORT_SIZE_MAX)
        return;
    for (size_t i = n / 2; i-- > 0;)
        sink(b, i, n, size, compare);
    for (size_t last = n - 1; last > 0; last--) {
        memcpy(hold, b, size);
        memcpy(b, b + last * size, size);
        memcpy(b + last * size, hold, size);
        sink(b, 0, last, size, compare);
    }
}
