#include "lib/base/err.h"
#include "lib/base/format.h"
#include <errno.h>
#include <stdarg.h>

static void
clean(char *z)
{
    for (; *z; z++)
        if (!ch_print(*z))
            *z = '?';
}

int
err_set(struct err *e, enum err_class class, const char *fmt, ...)
{
    if (!e)
        return -1;
    va_list ap;
    va_start(ap, fmt);
    e->class = class;
    format_v(e->text, sizeof e->text, fmt, ap);
    va_end(ap);
    clean(e->text);
    return -1;
}

int
err_errno(struct err *e, const char *fmt, ...)
{
    int saved = errno;
    if (!e)
        return -1;
    va_list ap;
    va_start(ap, fmt);
    e->class = ERR_TEMPORARY;
    int n = format_v(e->text, sizeof e->text, fmt, ap);
    va_end(ap);
    if (n >= 0 && (size_t)n < sizeof e->text)
        format(e->text + n, sizeof e->text - (size_t)n, ": %s", strerror(saved));
    clean(e->text);
    errno = saved;
    return -1;
}
