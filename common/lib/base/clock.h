/*
 * clock: monotonic milliseconds for timers and deadlines, wall-clock seconds for stamps only.
 */
#pragma once
#include <stdint.h>

int64_t now_ms(void);  /* CLOCK_MONOTONIC: never jumps */
int64_t now_us(void);  /* the same clock, finer */
int64_t wall_s(void);  /* seconds since 1970 */
int64_t wall_us(void); /* microseconds since 1970 */
/* Minutes that local time is ahead of UTC; looked up at most once a minute. */
int zone_min(int64_t utc_s);
/* Milliseconds left until deadline_ms, 0 when it has passed, at most INT_MAX: for poll(). */
int ms_left(int64_t deadline_ms);
