#include "qmgr/clock.h"
#include "lib/base/clock.h"
#include "lib/log/log.h"
#include <stdlib.h>
#include <time.h>

enum { JUMP_S = 10 };
struct clock_shift clock_shift;

int64_t
clock_steady_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return (int64_t)t.tv_sec + clock_shift.steady_s;
}

/* Time that passes passes on the wall, too. */
int64_t
clock_wall_s(void)
{
    return wall_s() + clock_shift.steady_s + clock_shift.wall_s;
}

int64_t
clock_to_wall_s(int64_t steady_s)
{
    return clock_wall_s() + (steady_s - clock_steady_s());
}

int64_t
clock_from_wall_s(int64_t wall_s)
{
    return clock_steady_s() + (wall_s - clock_wall_s());
}

void
clock_watch(void)
{
    static int64_t last;
    int64_t offset = clock_wall_s() - clock_steady_s();
    if (last && llabs(offset - last) > JUMP_S)
        log_warn("the clock was set by %lld s; what waits in the queue does not care",
                 (long long)(offset - last));
    last = offset;
}
