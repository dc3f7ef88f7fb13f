#include "tests/unit/later.h"

int64_t later_ms;

int64_t __real_now_ms(void);
int64_t __wrap_now_ms(void);

int64_t
__wrap_now_ms(void)
{
    return __real_now_ms() + later_ms;
}
