/*
 * bulkhead launcher: for the launcher, when an ordinary user starts it by hand. It reads no
 * configuration, so we do, and start it again with what master would have given.
 */
#include "common/master/ctl/ctl.h"
#include "lib/log/log.h"
#include "lib/role/start.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FIRST_FD = 3, NAMES_MAX = 256 };

/* The descriptors at 3, 4, 5, ..., and their names. */
static int
place(const struct start *st, char *names, size_t size)
{
    size_t used = 0;
    int high[START_FDS_MAX];
    for (size_t i = 0; i < st->nfds; i++) {
        high[i] = fcntl(st->fds[i].fd, F_DUPFD_CLOEXEC, FIRST_FD + START_FDS_MAX);
        used += (size_t)snprintf(names + used, size - used, "%s%s", i ? ":" : "", st->fds[i].name);
        if (high[i] < 0 || used >= size)
            return -1;
    }
    for (size_t i = 0; i < st->nfds; i++)
        if (dup2(high[i], FIRST_FD + (int)i) < 0)
            return -1;
    return 0;
}

int
ctl_launcher(struct ctl *ctl, int argc, char **argv)
{
    static struct start st = {.role = R_LAUNCHER};
    char program[320], names[NAMES_MAX] = "LISTEN_FDNAMES=", count[32], pid[32];
    const size_t prefix = strlen(names);
    int pair[2];
    (void)argv;
    if (argc != 1 || geteuid() == 0)
        return 64;
    start_sockets(&st, &ctl->conf);
    mkdir(ctl->conf.mail_dir.p, 0711);
    int mail = open(ctl->conf.mail_dir.p, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (mail < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        log_fatal("%s: %s", ctl->conf.mail_dir.p, strerror(errno));
    start_add_fd(&st, mail, "dir.mail");
    start_add_fd(&st, pair[0], "control"); /* nobody listens */
    snprintf(program, sizeof program, "%.*s/launcher", STR_ARG(ctl->conf.libexec_dir));
    snprintf(count, sizeof count, "LISTEN_FDS=%zu", st.nfds);
    snprintf(pid, sizeof pid, "LISTEN_PID=%d", (int)getpid());
    char *args[] = {program, NULL}, *env[] = {names, count, pid, NULL};
    if (place(&st, names + prefix, sizeof names - prefix) == 0)
        execve(program, args, env);
    log_fatal("%s: %s", program, strerror(errno));
}
