/*
 * authd(8): see authd.h.
 */
#include "common/authd/authd.h"
#include "lib/guard/guard.h"
#include "lib/log/log.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static struct start start;
static struct conf conf;
static struct loop_io control;

static void
on_signal(struct loop *l, int signo)
{
    int status;
    pid_t pid;
    if (signo != SIGCHLD) {
        l->stop = true;
        return;
    }
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        login_reap(pid, status);
}

static void
on_control(struct loop_io *io, unsigned events)
{
    static struct conf_errors errors;
    struct conf fresh;
    struct msg m = {0};
    (void)events;
    int n = msg_recv(io->fd, &m, R_MASTER, R_AUTHD);
    if (n == 1 && m.type == M_RELOAD) {
        log_move(m.fds[2]);
        if (conf_read(&fresh, STR("bulkhead.conf"), m.fds[0], &errors) == 0) {
            conf_free(&conf);
            conf = fresh;
            authd_read_aliases(m.fds[1]);
            authd_read_accounts();
            known_clear(&authd.known);
        }
    } else if (n == 0 || (n < 0 && errno != EAGAIN)) {
        loop_del(&authd.loop, io);
    }
    msg_free(&m);
}

/* Who made the door to the launcher, as the kernel knows: root, or the one user whose suite this
 * is. */
static bool
made_by_us(int door)
{
    struct ucred cred = {.uid = 0};
    socklen_t n = sizeof cred;
    return door >= 0 && getsockopt(door, SOL_SOCKET, SO_PEERCRED, &cred, &n) == 0 &&
           cred.uid == geteuid() && cred.uid != 0;
}

int
main(int argc, char **argv)
{
    static const int signals[] = {SIGCHLD, SIGTERM, SIGINT, 0};
    struct err e = {0};
    start_read(&start, R_AUTHD, argc, argv);
    start_config(&start, &conf);
    start_sockets(&start, &conf);
    int state = start_fd(&start, "dir.state");
    if (state < 0) {
        mkdir(conf.state_dir.p, 0700);
        state = open(conf.state_dir.p, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    if (state < 0)
        log_fatal("%s: %s", conf.state_dir.p, strerror(errno));
    int aliases = start_fd(&start, "dir.aliases");
    if (aliases < 0 && !start.given)
        aliases = open(conf.aliases.p, O_RDONLY | O_CLOEXEC);
    authd.own_uid = geteuid();
    authd.unprivileged = made_by_us(start_door(&start, R_LAUNCHER));
    struct guard_dir dirs[] = {{.dirfd = state, .write = true}};
    struct guard guard = {
        .role = R_AUTHD, .root_fd = start_fd(&start, "root"), .dirs = dirs, .ndirs = 1};
    known_open(&authd.known, &start, true);
    guard_enter(&guard);

    known_clear(&authd.known); /* it may be a predecessor's */
    authd.conf = &conf;
    authd.start = &start;
    authd.launcher = -1;
    if (accounts_load(&authd.accounts, state, &e) < 0)
        log_fatal("%s", e.text);
    authd_read_aliases(aliases);
    token_open(state);
    if (login_hash(STR("nobody's password"), authd.dummy_hash, sizeof authd.dummy_hash) < 0)
        log_fatal("crypt(3) has no yescrypt");
    authd.loop.on_signal = on_signal;
    authd.service =
        (struct service){.clients_max = 4000, .message = serve_message, .gone = serve_gone};
    if (loop_init(&authd.loop, signals) < 0 ||
        service_init(&authd.service, &authd.loop, &start) < 0)
        log_fatal("event loop: %s", strerror(errno));
    control = (struct loop_io){.fd = start_fd(&start, "control"), .ready = on_control};
    if (control.fd >= 0 && loop_add(&authd.loop, &control, EPOLLIN) < 0)
        log_fatal("cannot watch master: %s", strerror(errno));
    start_ready(&start);
    loop_run(&authd.loop);
    return 0;
}
