#include "lib/guard/guard.h"
#include "lib/log/log.h"
#include "qmgr/qmgr.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

/*
 * The process that syncs, so that qmgr serves others while the disk writes. To it goes how many
 * files, and a descriptor of each, read-only; from it comes an error for each of them, and one for
 * new/ (0: none). The other end's close is the end of both.
 */

static struct loop_io end = {.fd = -1};
static void (*finished)(const unsigned char *errors);

union fds_room {
    struct cmsghdr align;
    char room[CMSG_SPACE(SYNC_MAX * sizeof(int))];
};

/* All on their way before any is waited for; the names are in the same journal entry of a file
 * system that has one. */
static void
sync_all(const int *fds, size_t n, int dir, unsigned char *errors_r)
{
    for (size_t i = 0; n > 1 && i < n; i++)
        (void)sync_file_range(fds[i], 0, 0, SYNC_FILE_RANGE_WRITE); /* fdatasync() tells */
    for (size_t i = 0; i < n; i++)
        errors_r[i] = fdatasync(fds[i]) < 0 ? (unsigned char)errno : 0;
    errors_r[n] = fsync(dir) < 0 ? (unsigned char)errno : 0;
}

int
syncer_do(const int *fds, size_t n, unsigned char *errors_r)
{
    int failed = 0;
    place_new_syncing();
    sync_all(fds, n, qmgr.new, errors_r);
    for (size_t i = 0; i <= n; i++)
        failed |= errors_r[i];
    return failed ? -1 : 0;
}

/* The files to sync: how many, or 0 at the end. What there was no room for is -1. */
static size_t
take(int socket, int *fds_r)
{
    unsigned char n = 0;
    union fds_room control = {0};
    struct iovec bytes = {&n, 1};
    struct msghdr m = {.msg_iov = &bytes,
                       .msg_iovlen = 1,
                       .msg_control = control.room,
                       .msg_controllen = sizeof control.room};
    ssize_t got;
    while ((got = recvmsg(socket, &m, MSG_CMSG_CLOEXEC)) < 0 && errno == EINTR)
        ;
    if (got != 1 || n > SYNC_MAX)
        return 0;
    const struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    size_t came = c && c->cmsg_type == SCM_RIGHTS ? (c->cmsg_len - CMSG_LEN(0)) / sizeof(int) : 0;
    for (size_t i = 0; i < n; i++)
        fds_r[i] = -1;
    if (came <= n && came)
        memcpy(fds_r, CMSG_DATA(c), came * sizeof(int));
    return n;
}

/* Nothing of qmgr but its socket and the directory. */
static void
become_syncer(int socket, int dir)
{
    int fds[SYNC_MAX];
    unsigned char errors[SYNC_MAX + 1];
    size_t n;
    /* At the end all of the program's processes are told; this one goes when qmgr has gone. */
    signal(SIGTERM, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    int keep = fcntl(socket, F_DUPFD, 10), kept_dir = fcntl(dir, F_DUPFD, 10);
    if (keep < 0 || kept_dir < 0 || dup2(keep, 3) < 0 || dup2(kept_dir, 4) < 0 ||
        close_range(5, ~0U, 0) < 0)
        log_fatal("the syncer: %s", strerror(errno));
    guard_enter(&(struct guard){.role = R_QMGR, .root_fd = 4, .as_session = true});
    while ((n = take(3, fds)) > 0) {
        sync_all(fds, n, 4, errors);
        for (size_t i = 0; i < n; i++)
            if (fds[i] >= 0)
                close(fds[i]);
        if (write(3, errors, n + 1) != (ssize_t)n + 1)
            break;
    }
    _exit(0);
}

void
syncer_start(void)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
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
    unsigned char errors[SYNC_MAX + 1] = {0};
    (void)events;
    if (read(io->fd, errors, sizeof errors) < 2)
        log_fatal("the syncer has gone");
    finished(errors);
}

int
syncer_serve(void (*done)(const unsigned char *errors))
{
    finished = done;
    end.ready = on_answer;
    return loop_add(&qmgr.loop, &end, EPOLLIN);
}

void
syncer_ask(const int *fds, size_t n)
{
    unsigned char count = (unsigned char)n;
    union fds_room control = {0};
    struct iovec bytes = {&count, 1};
    struct msghdr m = {.msg_iov = &bytes,
                       .msg_iovlen = 1,
                       .msg_control = control.room,
                       .msg_controllen = CMSG_SPACE(n * sizeof(int))};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    *c = (struct cmsghdr){
        .cmsg_len = CMSG_LEN(n * sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(c), fds, n * sizeof(int));
    place_new_syncing();
    if (sendmsg(end.fd, &m, 0) != 1)
        log_fatal("the syncer has gone: %s", strerror(errno));
}
