/*
 * later: the unit tests' monotonic clock. now_ms() of all that is under test is so much later than
 * it is (the linker puts ours in its place); what waits until a time (ms_left) goes by the true
 * one.
 */
#pragma once
#include <stdint.h>

extern int64_t later_ms; /* 0 at the start of each test, which is a process of its own */
