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

/* By one byte after the other, from the lowest on; bytes that are the same in all are passed over.
 */
void
sort_pairs(struct sort_pair *at, struct sort_pair *room, size_t n)
{
    size_t count[8][256] = {{0}};
    struct sort_pair *from = at, *to = room;
    for (size_t i = 0; i < n; i++)
        for (unsigned byte = 0; byte < 8; byte++)
            count[byte][at[i].key >> 8 * byte & 255]++;
    for (unsigned byte = 0; byte < 8 && n; byte++) {
        size_t place = 0;
        if (count[byte][from[0].key >> 8 * byte & 255] == n)
            continue;
        for (unsigned k = 0; k < 256; k++) {
            size_t here = count[byte][k];
            count[byte][k] = place;
            place += here;
        }
        for (size_t i = 0; i < n; i++)
            to[count[byte][from[i].key >> 8 * byte & 255]++] = from[i];
        struct sort_pair *swap = from;
        from = to;
        to = swap;
    }
    if (from != at)
        memcpy(at, from, n * sizeof *at);
}
