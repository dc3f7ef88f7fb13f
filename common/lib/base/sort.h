/*
 * sort: heap sort in place. Not qsort(): glibc's asks the kernel how much memory there is (a call
 * that confined processes may not make), allocates, and may take quadratic time for input made for
 * that.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

/* n elements of size bytes each; size at most SORT_SIZE_MAX. Not stable: give compare a total
 * order. */
enum { SORT_SIZE_MAX = 512 };
void sort_array(void *base, size_t n, size_t size, int (*compare)(const void *, const void *));
/* By key, ascending, in time that grows with n only; those of one key stay in their order. room
 * holds n, too. */
struct sort_pair {
    uint64_t key, value;
};
void sort_pairs(struct sort_pair *at, struct sort_pair *room, size_t n);
