/*
 * heap: OpenSSL's memory, laid out for sessions that are forked and end soon.
 *
 * tlsd only; it must come before OpenSSL's first allocation. What the listener made lies still: a
 * session frees none of it, and takes its own memory from a part that nobody has used, so that the
 * pages it shares with others stay shared. The few blocks of the listener that every session writes
 * to (locks, counters of references) lie together in front of that part, so that one call makes
 * all these pages the session's own, in place of a fault for each.
 *
 * HEAP_OLD bytes for the listener, HEAP_NEW for a session; what is larger than HEAP_BLOCK_MAX, or
 * finds no place, comes from malloc().
 */
#pragma once
#include <stddef.h>

enum { HEAP_OLD = 32 << 20, HEAP_NEW = 16 << 20, HEAP_BLOCK_MAX = 64 << 10 };

/* Once; has no effect on OpenSSL when it has allocated already, as in tests. */
void heap_prepare(void);
/* In a fresh session. */
void heap_session(void);
/* The session will be silent for long: pages of freed blocks go back. */
void heap_rest(void);

/* As OpenSSL calls them; file says who wants the memory. */
void *heap_take(size_t n, const char *file, int line);
void *heap_resize(void *p, size_t n, const char *file, int line);
void heap_give(void *p, const char *file, int line);
