/*
 * bare_server PORT DIRECTORY: the least that a process for each connection costs.
 *
 * For bench_smtp.py. A small static program that forks for each connection, says what smtp-source
 * wants to hear, writes the message to tmp/, syncs it, renames it to new/ and syncs that, before
 * its 250: and nothing else. It checks nothing, logs nothing, has no walls and no queue. What it
 * reaches on a machine is above what a mail server with one process for each connection can.
 */
#include <arpa/inet.h>
#include <err.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { BACKLOG = 1024, ROOM = 65536 };

static void
say(int fd, const char *line)
{
    if (send(fd, line, strlen(line), MSG_NOSIGNAL) < 0)
        _exit(1);
}

/* What is told with 250 is on the disk, as a file and as a name. */
static void
keep(int dir, const char *text, size_t n)
{
    char tmp[64], new[64];
    snprintf(tmp, sizeof tmp, "tmp/%d", (int)getpid());
    snprintf(new, sizeof new, "new/%d", (int)getpid());
    int fd = openat(dir, tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    int names = openat(dir, "new", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || names < 0 || write(fd, text, n) != (ssize_t)n || fdatasync(fd) < 0 ||
        renameat(dir, tmp, dir, new) < 0 || fsync(names) < 0)
        err(1, "%s", new);
}

/* The client waits for each answer, so what has come is a line, or the message. */
static void
session(int fd, int dir)
{
    static char in[ROOM];
    size_t n = 0;
    bool message = false;
    say(fd, "220 bare ESMTP\r\n");
    for (ssize_t got; n < ROOM && (got = recv(fd, in + n, ROOM - n, 0)) > 0;) {
        n += (size_t)got;
        if (message ? n < 5 || memcmp(in + n - 5, "\r\n.\r\n", 5) != 0 : in[n - 1] != '\n')
            continue;
        if (message)
            keep(dir, in, n);
        if (!message && n >= 4 && memcmp(in, "QUIT", 4) == 0)
            break;
        message = !message && n >= 4 && memcmp(in, "DATA", 4) == 0;
        say(fd, message ? "354 go on\r\n" : "250 well\r\n");
        n = 0;
    }
    say(fd, "221 bye\r\n");
}

int
main(int argc, char **argv)
{
    if (argc != 3)
        errx(64, "usage: bare_server PORT DIRECTORY");
    int listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    int dir = open(argv[2], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)strtoul(argv[1], NULL, 10)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (dir < 0 || bind(listening, (struct sockaddr *)&at, sizeof at) < 0 ||
        listen(listening, BACKLOG) < 0)
        err(71, "port %s, directory %s", argv[1], argv[2]);
    signal(SIGCHLD, SIG_IGN);
    for (;;) {
        int fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0 && syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0) == 0) {
            close(listening);
            session(fd, dir);
            _exit(0);
        }
        close(fd);
    }
}
