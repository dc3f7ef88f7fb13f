/*
 * imap_load: many IMAP or POP3 sessions at once, for measurements.
 *
 *     imap_load hold|run PORT USERS AT_ONCE TOTAL COMMAND...
 *
 * Each session connects to 127.0.0.1, from one of 200 networks, reads the greeting and says the
 * commands in turn, each with a tag, when the one before is answered. %u in a command is the
 * session's number modulo USERS. "run": AT_ONCE sessions at a time until TOTAL are through. "hold":
 * TOTAL sessions are opened, AT_ONCE at a time; when all have had their answers "ready" is printed,
 * and they stay until the input ends. A command that begins with "!" is POP3's: no tag, one line of
 * answer. Prints seconds and failures.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { LINE_MAX_ = 400, COMMANDS_MAX = 32 };

struct session {
    int fd;
    unsigned number;
    int at;         /* the command that is being answered; -1: the greeting */
    char start[16]; /* of the line that is being read */
    size_t line_n;
    bool done;
};

static struct {
    int epoll, port, ncommands;
    unsigned users, total, begun, ended, failed;
    bool hold;
    char **commands;
} load;

static double
now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void
begin(struct session *s)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)load.port)};
    int one = 1;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    struct sockaddr_in own = {.sin_family = AF_INET};
    own.sin_addr.s_addr = htonl(0x7f000001u + (load.begun % 200 + 1) * 256);
    *s = (struct session){.fd = socket(AF_INET, SOCK_STREAM, 0), .number = load.begun++, .at = -1};
    if (s->fd < 0 || bind(s->fd, (struct sockaddr *)&own, sizeof own) < 0 ||
        connect(s->fd, (struct sockaddr *)&to, sizeof to) < 0) {
        perror("connect");
        exit(1);
    }
    setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(s->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = s};
    epoll_ctl(load.epoll, EPOLL_CTL_ADD, s->fd, &ev);
}

static void
say(struct session *s)
{
    char line[LINE_MAX_], *to = line;
    const char *from = load.commands[s->at];
    if (*from == '!')
        from++;
    else
        to += snprintf(to, 16, "a%d ", s->at);
    for (; *from && to < line + sizeof line - 16; from++)
        if (from[0] == '%' && from[1] == 'u') {
            to += snprintf(to, 12, "%u", s->number % load.users);
            from++;
        } else {
            *to++ = *from;
        }
    memcpy(to, "\r\n", 2);
    to += 2;
    (void)!write(s->fd, line, (size_t)(to - line));
}

/* A line has come whose first bytes are in start: was it the answer? */
static void
take_line(struct session *s)
{
    char tag[16];
    const char *what = s->start;
    if (s->at >= 0 && load.commands[s->at][0] != '!') {
        int n = snprintf(tag, sizeof tag, "a%d ", s->at);
        bool idling = s->start[0] == '+';
        if (!idling && strncmp(what, tag, (size_t)n) != 0)
            return;
        what += idling ? 0 : n;
    }
    if (strncmp(what, "OK", 2) != 0 && strncmp(what, "* OK", 4) != 0 && what[0] != '+') {
        load.failed++;
        fprintf(stderr, "session %u, command %d: %.16s\n", s->number, s->at, s->start);
    }
    if (++s->at < load.ncommands) {
        say(s);
    } else {
        s->done = true;
        load.ended++;
    }
}

/* False: it is over. */
static bool
serve(struct session *s)
{
    static char piece[65536];
    for (;;) {
        /* Some servers leave Nagle's algorithm on: they are not to wait for us. */
        setsockopt(s->fd, IPPROTO_TCP, TCP_QUICKACK, &(int){1}, sizeof(int));
        ssize_t n = read(s->fd, piece, sizeof piece);
        if (n < 0 && errno == EAGAIN)
            return true;
        if (n <= 0)
            return false;
        for (ssize_t i = 0; i < n && !s->done; i++) {
            if (piece[i] == '\n') {
                s->line_n = 0;
                take_line(s);
                memset(s->start, 0, sizeof s->start);
            } else if (s->line_n < sizeof s->start - 1) {
                s->start[s->line_n++] = piece[i];
            }
        }
        if (s->done)
            return load.hold;
    }
}

static void
run(struct session *all, unsigned at_once)
{
    struct epoll_event evs[64];
    while (load.ended < load.total) {
        while (load.begun < load.total && load.begun - load.ended < at_once) {
            begin(&all[load.begun]);
        }
        int n = epoll_wait(load.epoll, evs, 64, 60000);
        if (n == 0) {
            fprintf(stderr, "nothing for a minute: %u of %u\n", load.ended, load.total);
            exit(1);
        }
        for (int i = 0; i < n; i++) {
            struct session *s = evs[i].data.ptr;
            if (serve(s))
                continue;
            if (!s->done) {
                load.failed++;
                load.ended++;
            }
            close(s->fd);
        }
    }
}

int
main(int argc, char **argv)
{
    struct rlimit many = {100000, 100000};
    if (argc < 7 || argc - 6 > COMMANDS_MAX) {
        fprintf(stderr, "usage: imap_load hold|run PORT USERS AT_ONCE TOTAL COMMAND...\n");
        return 2;
    }
    load.hold = strcmp(argv[1], "hold") == 0;
    load.port = (int)strtol(argv[2], NULL, 10);
    load.users = (unsigned)strtoul(argv[3], NULL, 10);
    load.total = (unsigned)strtoul(argv[5], NULL, 10);
    load.commands = argv + 6;
    load.ncommands = argc - 6;
    load.epoll = epoll_create1(0);
    setrlimit(RLIMIT_NOFILE, &many);
    struct session *all = calloc(load.total + 1, sizeof *all);
    double start = now();
    if (!all || !load.users)
        return 2;
    run(all, (unsigned)strtoul(argv[4], NULL, 10));
    printf("%.4f %u\n", now() - start, load.failed);
    if (load.hold) {
        puts("ready");
        fflush(stdout);
        while (getchar() != EOF)
            ;
    }
    free(all);
    return load.failed != 0;
}
