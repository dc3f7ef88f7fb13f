/*
 * clock: what time it is, for a queue that lives longer than its clock is right.
 *
 * Inside this process everything counts in steady seconds: they never jump, and go on while the
 * machine sleeps (CLOCK_BOOTTIME). The wall clock is for what leaves the process: the mtime of a
 * file, a date in a notice. So a clock that is set, by ten years either way, moves nothing that
 * waits and makes nothing older.
 */
#pragma once
#include <stdint.h>

int64_t clock_steady_s(void); /* since the machine was started */
int64_t clock_wall_s(void);   /* since 1970 */
/* A time of this process as wall clock, and back. */
int64_t clock_to_wall_s(int64_t steady_s);
int64_t clock_from_wall_s(int64_t wall_s);
/* Once a turn: log when the wall clock was set. */
void clock_watch(void);

/* For tests: added to what the system's clocks say. */
extern struct clock_shift {
    int64_t steady_s, wall_s;
} clock_shift;
