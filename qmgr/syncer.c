#include "lib/guard/guard.h"
#include "lib/log/log.h"
#include "qmgr/qmgr.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

/*
 * The process that syncs new/, so that qmgr serves others while the disk writes. A byte asks for a
 * sync, a byte with the error (0: none) answers; the other end's close is the end of both.
 */

static struct loop_io end = {.fd = -1};
static void (*finished)(int synced);

/* Nothing of qmgr but its socket and the directory. */
static void
become_syncer(int socket, int dir)
{
    unsigned char byte;
    /* At the end all of the program's processes are told; this one goes when qmgr has gone. */
    signal(SIGTERM, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    int keep = fcntl(socket, F_DUPFD, 10);
    /* Opened anew: each open directory is told once of an error, and qmgr is to hear of it, too. */
    int kept_dir = fcntl(openat(dir, ".", O_RDONLY | O_DIRECTORY), F_DUPFD, 10);
    if (keep < 0 || kept_dir < 0 || dup2(keep, 3) < 0 || dup2(kept_dir, 4) < 0 ||
        close_range(5, ~0U, 0) < 0)
        log_fatal("the syncer: %s", strerror(errno));
    guard_enter(&(struct guard){.role = R_QMGR, .root_fd = 4, .as_session = true});
    while (read(3, &byte, 1) == 1) {
        byte = fsync(4) < 0 ? (unsigned char)errno : 0;
        if (write(3, &byte, 1) != 1)
            break;
    }
    _exit(0);
}

void
syncer_start(void)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        log_fatal("the syncer: %s", strerror(errno));
    pid_t pid = fork();
    if (pid < 0)
        log_fatal("the syncer: %s", strerror(errno));
    if (pid == 0)
        become_syncer(pair[1], qmgr.new);
    close(pair[1]);
    end.fd = pair[0];
}

static void
on_answer(struct loop_io *io, unsigned events)
{
    unsigned char byte = 0;
    (void)events;
    if (read(io->fd, &byte, 1) != 1)
        log_fatal("the syncer has gone");
    errno = byte;
    finished(byte ? -1 : 0);
}

int
syncer_serve(void (*done)(int synced))
{
    finished = done;
    end.ready = on_answer;
    return loop_add(&qmgr.loop, &end, EPOLLIN);
}

void
syncer_wait(void)
{
    struct pollfd p = {.fd = end.fd, .events = POLLIN};
    while (poll(&p, 1, -1) != 1)
        ;
    on_answer(&end, EPOLLIN);
}

void
syncer_ask(void)
{
    if (write(end.fd, "", 1) != 1)
        log_fatal("the syncer has gone");
}
