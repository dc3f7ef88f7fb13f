#include "lib/role/start.h"
#include "lib/base/format.h"
#include "lib/ipc/channel.h"
#include "lib/log/log.h"
#include "lib/role/sockets.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/rseq.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { FIRST_FD = 3 };

void
start_add_fd(struct start *st, int fd, const char *name)
{
    if (st->nfds == START_FDS_MAX)
        log_fatal("too many descriptors at start");
    struct start_fd *slot = &st->fds[st->nfds++];
    slot->fd = fd;
    snprintf(slot->name, sizeof slot->name, "%s", name);
}

/* LISTEN_FDS and LISTEN_FDNAMES, as sd_listen_fds(3) describes them. */
static void
take_listen_fds(struct start *st)
{
    uint32_t n = 0, pid = 0;
    struct str names = str_z(getenv("LISTEN_FDNAMES"));
    if (str_u32(str_z(getenv("LISTEN_PID")), INT32_MAX, &pid) < 0 || (pid_t)pid != getpid())
        return;
    if (str_u32(str_z(getenv("LISTEN_FDS")), START_FDS_MAX, &n) < 0)
        return;
    for (uint32_t i = 0; i < n; i++) {
        struct str name = str_cut(&names, ':');
        char z[32];
        int fd = FIRST_FD + (int)i;
        snprintf(z, sizeof z, "%.*s", STR_ARG(name));
        fcntl(fd, F_SETFD, FD_CLOEXEC);
        start_add_fd(st, fd, z);
    }
    st->given = start_fd(st, "control") >= 0;
}

static void
copy_env(char *to, size_t size, const char *name)
{
    const char *value = getenv(name);
    if (value && strlen(value) < size)
        memcpy(to, value, strlen(value) + 1);
}

static bool
is_connected_tcp(int fd, struct sockaddr_storage *ss)
{
    socklen_t n = sizeof *ss;
    return getpeername(fd, (struct sockaddr *)ss, &n) == 0 &&
           (ss->ss_family == AF_INET || ss->ss_family == AF_INET6);
}

/* inetd makes descriptor 2 the client, too, who is not to read our log. */
static void
spare_client_the_log(const struct start *st)
{
    struct stat client, err;
    if (fstat(0, &client) < 0 || fstat(2, &err) < 0 || client.st_dev != err.st_dev ||
        client.st_ino != err.st_ino)
        return;
    int fd = log_syslog_socket();
    if (fd < 0)
        fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (fd < 0 || dup2(fd, 2) < 0)
        _exit(71);
    close(fd);
    log_open(2, role_name(st->role));
}

/* inetd and tcpserver: descriptor 0 is the client, and UCSPI variables may say more of it. */
static void
take_inetd(struct start *st, bool asked)
{
    struct sockaddr_storage ss = {0};
    bool tcp = is_connected_tcp(0, &ss);
    if (!asked && !tcp && str_z(getenv("TCPREMOTEIP")).n == 0)
        return;
    st->inetd = true;
    spare_client_the_log(st);
    if (tcp) {
        socklen_t n = sizeof ss;
        uint16_t local_port = 0;
        sockets_describe(&ss, st->remote_ip, sizeof st->remote_ip, &st->remote_port);
        if (getsockname(0, (struct sockaddr *)&ss, &n) == 0)
            sockets_describe(&ss, st->local_ip, sizeof st->local_ip, &local_port);
    } else {
        copy_env(st->remote_ip, sizeof st->remote_ip, "TCPREMOTEIP");
        copy_env(st->local_ip, sizeof st->local_ip, "TCPLOCALIP");
    }
    st->relayclient = getenv("RELAYCLIENT") != NULL;
}

/* The C library asks the kernel to note the processor in each thread's own page at every switch.
 * Nothing here wants to know, and a forked session would get a copy of that page for it. */
static void
forget_processor(void)
{
    if (__rseq_size)
        syscall(SYS_rseq, (char *)__builtin_thread_pointer() + __rseq_offset, 32,
                RSEQ_FLAG_UNREGISTER, RSEQ_SIG);
}

void
start_read(struct start *st, enum role role, int argc, char **argv)
{
    bool inetd = false;
    int c;
    *st = (struct start){.role = role};
    umask_for_role();
    forget_processor();
    signal(SIGXFSZ, SIG_IGN); /* a file at its limit is an error to be answered; cells inherit it */
    while ((c = getopt(argc, argv, "f:i")) != -1) {
        if (c == 'f') {
            st->config_path = optarg;
        } else if (c == 'i') {
            inetd = true;
        } else {
            fprintf(stderr, "usage: %s [-i] [-f FILE]\n", role_name(role));
            exit(64); /* EX_USAGE */
        }
    }
    if (optind < argc) {
        fprintf(stderr, "%s: unexpected argument: %s\n", role_name(role), argv[optind]);
        exit(64);
    }
    log_open(2, role_name(role));
    take_listen_fds(st);
    if (st->nfds == 0)
        take_inetd(st, inetd);
    clearenv();
}

int
start_fd(const struct start *st, const char *name)
{
    for (size_t i = 0; i < st->nfds; i++)
        if (strcmp(st->fds[i].name, name) == 0)
            return st->fds[i].fd;
    return -1;
}

int
start_door_for(const struct start *st, enum role service, enum role front)
{
    char name[32];
    format(name, sizeof name, "to.%s%s%s", role_name(service), front ? "." : "",
           front ? role_name(front) : "");
    return start_fd(st, name);
}

int
start_door(const struct start *st, enum role service)
{
    return start_door_for(st, service, R_NONE);
}

int
start_channel_for(const struct start *st, enum role service, enum role front,
                  const struct msg *first, struct err *e)
{
    int door = start_door_for(st, service, front);
    if (door < 0)
        return err_set(e, ERR_TEMPORARY, "no way to %s", role_name(service));
    return chan_open(door, first, e);
}

int
start_channel(const struct start *st, enum role service, const struct msg *first, struct err *e)
{
    return start_channel_for(st, service, R_NONE, first, e);
}

void
start_ready(const struct start *st)
{
    int control = start_fd(st, "control");
    struct msg m = {0};
    if (control < 0)
        return;
    msg_begin(&m, M_READY);
    (void)msg_send(control, &m);
    msg_free(&m);
}
