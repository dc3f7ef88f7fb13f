#include "lib/log/log.h"
#include "lib/base/encode.h"
#include "lib/base/format.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static struct {
    int fd;
    bool datagram;
    bool debug;
    const char *program;
    unsigned long dropped;
    char host[64];
    bool gather;
    size_t lines, n; /* in gathered */
} the = {.fd = 2, .program = "bulkhead"};

/* Syslog takes datagrams. A stream, as a supervisor may give for descriptor 2, wants lines that
 * end. */
static bool
is_datagram(int fd)
{
    int type = 0;
    socklen_t n = sizeof type;
    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) == 0 && type == SOCK_DGRAM;
}

#ifdef BH_SANITIZE
/* The leak checker reads /proc/self at the end: where a process may not, it is not to try. */
int __lsan_is_turned_off(void);
int
__lsan_is_turned_off(void)
{
    int fd = open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0)
        close(fd);
    return fd < 0 || prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) != 1;
}
#endif

void
log_open(int fd, const char *program)
{
    the.fd = fd;
    the.program = program;
    the.datagram = is_datagram(fd);
    tzset();
    if (gethostname(the.host, sizeof the.host - 1) < 0)
        strncpy(the.host, "localhost", sizeof the.host - 1);
    the.host[strcspn(the.host, ".")] = '\0';
}

void
log_move(int fd)
{
    log_flush();
    close(the.fd);
    /* The lowest that is free, and what we have just closed is: 0 and 1 are always open. */
    int copy = fcntl(fd, F_DUPFD, 2);
    if (copy >= 0)
        the.fd = copy;
    the.datagram = is_datagram(the.fd);
}

void
log_debug_set(bool on)
{
    the.debug = on;
}

static int
priority(enum log_level level)
{
    static const int of[] = {7, 6, 4, 3};
    return 2 * 8 + of[level]; /* facility mail */
}

const char *
log_stamp(void)
{
    static char stamp[32];
    static time_t of;
    time_t now = time(NULL);
    struct tm tm;
    if (now == of)
        return stamp;
    stamp[0] = '\0';
    if (localtime_r(&now, &tm))
        strftime(stamp, sizeof stamp, "%b %e %H:%M:%S", &tm);
    of = now;
    return stamp;
}

/* The syslog header that log parsers know: "Nov 21 20:33:00 host bulkhead/smtpd[123]: ". */
static void
head(struct buf *line, enum log_level level)
{
    const char *stamp = log_stamp();
    if (the.datagram)
        buf_addf(line, "<%d>%s ", priority(level), stamp);
    else
        buf_addf(line, "%s %s ", stamp, the.host);
    buf_addf(line, "bulkhead/%s[%d]: ", the.program, (int)getpid());
}

static char gathered[16 * 1024];

void
log_gather(void)
{
    the.gather = true;
}

void
log_flush(void)
{
    if (the.n == 0) /* and nothing is written to: a listener's turn would cost a page */
        return;
    if (write(the.fd, gathered, the.n) != (ssize_t)the.n)
        the.dropped += the.lines;
    the.n = the.lines = 0;
}

static void
put(struct buf *line, bool now)
{
    if (the.datagram) {
        if (send(the.fd, line->p, line->n, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)line->n)
            the.dropped++;
        return;
    }
    if (the.gather && the.n + line->n > sizeof gathered)
        log_flush();
    if (the.gather) {
        memcpy(gathered + the.n, line->p, line->n);
        the.n += line->n;
        the.lines++;
        if (now)
            log_flush();
    } else if (write(the.fd, line->p, line->n) != (ssize_t)line->n) {
        the.dropped++;
    }
}

static void
emit(enum log_level level, const char *fmt, va_list ap)
{
    static const char *const mark[] = {"debug: ", "", "warning: ", "error: "};
    char room[LOG_LINE_MAX + 2];
    int saved = errno;
    struct buf line = buf_on(room, sizeof room, LOG_LINE_MAX);
    if (the.dropped) {
        unsigned long dropped = the.dropped;
        the.dropped = 0;
        head(&line, LOG_WARN_);
        buf_addf(&line, "warning: dropped %lu lines\n", dropped);
        put(&line, false);
        buf_reset(&line);
    }
    head(&line, level);
    buf_addz(&line, mark[level]);
    size_t from = line.n;
    int n = format_v(room + from, LOG_LINE_MAX + 1 - from, fmt, ap);
    line.n += n < 0 ? 0 : (size_t)n < LOG_LINE_MAX - from ? (size_t)n : LOG_LINE_MAX - from;
    for (size_t i = from; i < line.n; i++)
        if (!ch_print(room[i]))
            room[i] = '?';
    if (!the.datagram)
        room[line.n++] = '\n';
    put(&line, level >= LOG_WARN_);
    if (errno != saved)
        errno = saved;
}

#define LOG_FUNCTION(name, level)                                                                  \
    void name(const char *fmt, ...)                                                                \
    {                                                                                              \
        va_list ap;                                                                                \
        va_start(ap, fmt);                                                                         \
        emit(level, fmt, ap);                                                                      \
        va_end(ap);                                                                                \
    }

LOG_FUNCTION(log_info, LOG_INFO_)
LOG_FUNCTION(log_warn, LOG_WARN_)
LOG_FUNCTION(log_error, LOG_ERROR_)

void
log_debug(const char *fmt, ...)
{
    if (!the.debug)
        return;
    va_list ap;
    va_start(ap, fmt);
    emit(LOG_DEBUG_, fmt, ap);
    va_end(ap);
}

void
log_fatal(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    emit(LOG_ERROR_, fmt, ap);
    va_end(ap);
    _exit(71); /* EX_OSERR */
}

const char *
log_str(struct str s)
{
    static char places[8][LOG_FIELD_MAX * 4 + 8];
    static unsigned next;
    char *place = places[next++ % 8];
    struct buf b = buf_on(place, sizeof places[0], sizeof places[0] - 1);
    quote_add(&b, s, LOG_FIELD_MAX);
    return buf_z(&b);
}

int
log_syslog_socket(void)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX, .sun_path = "/dev/log"};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&sun, sizeof sun) == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}
