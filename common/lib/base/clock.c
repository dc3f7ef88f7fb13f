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
ms_left(int64_t deadline_ms)
{
    int64_t left = deadline_ms - now_ms();
    return left <= 0 ? 0 : left > INT_MAX ? INT_MAX : (int)left;
}
