#include "lib/base/clock.h"
#include <limits.h>
#include <time.h>

static int64_t
read_clock(clockid_t id, int64_t per_second)
{
    struct timespec ts;
    clock_gettime(id, &ts);
    return (int64_t)ts.tv_sec * per_second + ts.tv_nsec / (1000000000 / per_second);
}

int64_t
now_ms(void)
{
    return read_clock(CLOCK_MONOTONIC, 1000);
}

int64_t
now_us(void)
{
    return read_clock(CLOCK_MONOTONIC, 1000000);
}

int64_t
wall_s(void)
{
    return read_clock(CLOCK_REALTIME, 1);
}

int64_t
wall_us(void)
{
    return read_clock(CLOCK_REALTIME, 1000000);
}

int
zone_min(int64_t utc_s)
{
    static int64_t of = -1;
    static int minutes;
    time_t t = (time_t)utc_s;
    struct tm tm;
    if (utc_s / 60 != of) {
        minutes = localtime_r(&t, &tm) ? (int)(tm.tm_gmtoff / 60) : 0;
        of = utc_s / 60;
    }
    return minutes;
}

int
ms_left(int64_t deadline_ms)
{
    int64_t left = deadline_ms - now_ms();
    return left <= 0 ? 0 : left > INT_MAX ? INT_MAX : (int)left;
}
