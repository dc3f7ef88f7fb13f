/*
 * master: starts every program of the suite under its own user, keeps it running, and answers the
 * operator. usage: master -p PROGRAMS_DIR -f FILE
 */
#include "common/master/master.h"
#include "lib/log/log.h"
#include "lib/role/sockets.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BACKOFF_MIN_MS = 1000, BACKOFF_MAX_MS = 60000, STEADY_MS = 10000, STOP_MS = 5000 };

static struct master the;
static const int signals[] = {SIGCHLD, SIGHUP, SIGTERM, SIGINT, 0};

/* What a child says on its control channel: that it is ready, and nothing else. */
static void
on_child_says(struct loop_io *io, unsigned events)
{
    struct child *c = io->arg;
    struct msg m = {0};
    (void)events;
    int n = msg_recv(io->fd, &m, c->role, R_MASTER);
    if (n == 1 && m.type == M_READY) {
        c->ready = true;
        log_info("%s is ready, process %d", role_name(c->role), (int)c->pid);
    } else if (n >= 0 || errno != EAGAIN) {
        loop_del(&the.loop, io);
        close(io->fd);
    }
    msg_free(&m);
}

static void
start(struct loop_timer *t)
{
    struct child *c = t->arg;
    if (spawn_child(&the, c) < 0) {
        log_error("cannot start %s: %s", role_name(c->role), strerror(errno));
        loop_timer_set(&the.loop, &c->restart, now_ms() + BACKOFF_MIN_MS);
        return;
    }
    if (loop_add(&the.loop, &c->control, EPOLLIN) < 0)
        log_warn("cannot hear %s", role_name(c->role));
}

/* The first restart is at once; then one that does not last is kept waiting longer each time. */
static void
again(struct child *c)
{
    if (c->renewed || now_ms() - c->started_ms > STEADY_MS)
        c->backoff_ms = 0;
    int longer = c->backoff_ms ? 2 * c->backoff_ms : BACKOFF_MIN_MS;
    loop_timer_set(&the.loop, &c->restart, now_ms() + c->backoff_ms);
    if (!c->renewed) {
        c->backoff_ms = longer < BACKOFF_MAX_MS ? longer : BACKOFF_MAX_MS;
        c->restarts++;
    }
    c->renewed = false;
}

static void
on_exit_of(struct child *c, int status)
{
    bool killed = WIFSIGNALED(status);
    if (!the.stopping && (killed ? !c->renewed : WEXITSTATUS(status)))
        log_error("%s (process %d) %s %d", role_name(c->role), (int)c->pid,
                  killed ? "died of signal" : "exited with status",
                  killed ? WTERMSIG(status) : WEXITSTATUS(status));
    c->pid = 0;
    c->ready = false;
    if (kill(-c->group, 0) < 0 && errno == ESRCH) /* it had no sessions left */
        c->group = 0;
    if (!the.stopping)
        again(c);
}

/* Whether there are processes left. */
static bool
reap(void)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        for (size_t i = 0; i < the.nchildren; i++)
            if (the.children[i].pid == pid)
                on_exit_of(&the.children[i], status);
    return pid == 0;
}

/* Any process that holds a door can shut it down, for all that share it: a taken session would cut
 * off its whole program. The two programs get a new one, and start anew; sessions go on. */
static void
on_door_shut(struct loop_io *io, unsigned events)
{
    struct door *d = io->arg;
    struct child *both[] = {d->client, d->service};
    (void)events;
    log_error("the door from %s to %s was shut down by a process that holds it: made anew",
              role_name(d->client->role), role_name(d->service->role));
    wires_door(&the, d);
    for (size_t i = 0; i < 2; i++)
        if (both[i]->pid) {
            kill(both[i]->pid, SIGTERM);
            both[i]->renewed = true;
        }
}

/* The plan's roles become children; their users may not change while we run. */
static void
adopt_roles(void)
{
    for (size_t i = 0; i < the.plan.fixed.nroles; i++) {
        const struct plan_role *r = &the.plan.fixed.roles[i];
        struct child *c = &the.children[the.nchildren++];
        *c = (struct child){.role = (enum role)r->role, .uid = r->uid, .gid = r->gid};
        c->restart = (struct loop_timer){.fire = start, .arg = c};
        c->control = (struct loop_io){.ready = on_child_says, .arg = c};
    }
}

/* A handshake that has begun has the old certificate: the old keyd keeps its doors, for the
 * sessions that hold them, and goes when they have (it sees that its control channel is closed). */
static void
renew_keyd(struct child *c)
{
    for (size_t i = 0; i < the.ndoors; i++)
        if (the.doors[i].service == c)
            wires_door(&the, &the.doors[i]);
    c->pid = 0;
    loop_timer_set(&the.loop, &c->restart, now_ms());
}

/* In place: what keeps state that sessions depend on. Replaced (new process, then the old one stops
 * accepting and its sessions go on): all others. */
static void
renew(struct child *c)
{
    struct msg m = {0};
    if (c->role == R_KEYD)
        renew_keyd(c);
    if (c->pid == 0)
        return;
    if (!(c->role & (R_QMGR | R_AUTHD | R_IDLED))) {
        kill(c->pid, SIGTERM); /* its restart follows its exit; doors and sockets wait here */
        c->renewed = true;
        return;
    }
    msg_begin(&m, M_RELOAD);
    msg_add_fd(&m, the.config_fd);
    msg_add_fd(&m, the.aliases_fd);
    msg_add_fd(&m, 2); /* the log, opened anew: logrotate(8) has moved the old one away */
    if (!c->control.added || msg_send(c->control.fd, &m) < 0)
        log_error("cannot tell %s to reload", role_name(c->role));
    msg_free(&m);
}

/* NULL, or why nothing has changed. */
static const char *
reload(void)
{
    static struct plan_made made;
    const char *wrong = NULL;
    if (plan_load(&the, &made) < 0)
        return "the configuration is bad; nothing has changed: see bulkhead check";
    if (memcmp(&made.plan.fixed, &the.plan.fixed, sizeof made.plan.fixed) != 0)
        wrong = "programs, users and directories change only with stop and start";
    else if (wires_sockets(&the, &made.plan) < 0)
        wrong = "a listen line failed: see the log";
    close(made.fds[1]); /* we have one since the start */
    close(made.fds[2]);
    close(wrong ? made.fds[0] : the.config_fd);
    if (wrong)
        return wrong;
    the.plan = made.plan;
    the.config_fd = made.fds[0];
    if (wires_log(&the) < 0)
        log_warn("the log was not reopened");
    wires_files(&the);
    for (size_t i = 0; i < the.nchildren; i++)
        renew(&the.children[i]);
    log_info("configuration reloaded");
    return NULL;
}

static void
stop(void)
{
    the.stopping = the.loop.stop = true;
}

static void
answer_control(int fd)
{
    struct control_request request = {0};
    struct control_answer answer = {.magic = PLAN_MAGIC};
    ssize_t n = recv(fd, &request, sizeof request, MSG_TRUNC);
    if (n != (ssize_t)sizeof request || request.magic != PLAN_MAGIC)
        return;
    const char *wrong = request.what == CONTROL_RELOAD ? reload() : NULL;
    answer.result = wrong ? -1 : 0;
    snprintf(answer.text, sizeof answer.text, "%s", wrong ? wrong : "");
    if (request.what == CONTROL_STOP)
        stop();
    answer.rows[answer.nrows++] =
        (struct control_row){R_MASTER, getpid(), geteuid(), 1, the.restarts, the.since_s};
    for (size_t i = 0; i < the.nchildren; i++) {
        const struct child *c = &the.children[i];
        answer.rows[answer.nrows++] =
            (struct control_row){c->role, c->pid, c->uid, c->ready, c->restarts, c->since_s};
    }
    (void)!send(fd, &answer, sizeof answer, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* One request a connection; only root (or, unprivileged, we ourselves) can open the socket. */
static void
on_control(struct loop_io *io, unsigned events)
{
    (void)events;
    int fd = accept4(io->fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return;
    struct timeval second = {1, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &second, sizeof second);
    answer_control(fd);
    close(fd);
}

static void
on_signal(struct loop *l, int signo)
{
    const char *wrong = signo == SIGHUP ? reload() : NULL;
    (void)l;
    if (wrong)
        log_error("%s", wrong);
    if (signo == SIGCHLD)
        reap();
    else if (signo != SIGHUP)
        stop();
}

/* A number that stands for nobody any more may be given to a stranger next: it is forgotten at
 * once. */
static void
signal_groups(int signo)
{
    for (size_t i = 0; i < the.nchildren; i++) {
        struct child *c = &the.children[i];
        if (c->group && kill(-c->group, signo) < 0 && errno == ESRCH)
            c->group = 0;
        if (c->pid)
            kill(c->pid, signo);
    }
}

/* Everybody is told; who has not gone after a while is killed. */
static void
stop_all(void)
{
    int64_t deadline = now_ms() + STOP_MS;
    signal_groups(SIGTERM);
    for (; reap(); usleep(10000))
        if (now_ms() > deadline)
            signal_groups(SIGKILL);
    log_info("stopped");
}

static void
listen_control(void)
{
    struct err e = {0};
    int fd = sockets_unix(the.plan.fixed.run_dir, "master", SOCK_SEQPACKET, 0600, &e);
    the.control = (struct loop_io){.fd = fd, .ready = on_control};
    if (fd < 0 || loop_add(&the.loop, &the.control, EPOLLIN) < 0)
        log_fatal("%s", e.text);
}

static void
arguments(int argc, char **argv)
{
    int c;
    the.config_path = BH_SYSCONFDIR "/bulkhead/bulkhead.conf";
    the.programs_dir = BH_LIBEXEC;
    while ((c = getopt(argc, argv, "f:p:")) != -1) {
        if (c == '?')
            exit(64);
        *(c == 'f' ? &the.config_path : &the.programs_dir) = optarg;
    }
}

/* A parent that does nothing but wait, and start master anew if it is killed: its children are told
 * to end by the kernel (PR_SET_PDEATHSIG), sessions go on. Returns in each new master, which has
 * these signals blocked until it has its event loop. */
static void
under_watch(void)
{
    sigset_t set;
    int status = 0, signo;
    sigemptyset(&set);
    for (const int *s = signals; *s; s++)
        sigaddset(&set, *s);
    sigprocmask(SIG_BLOCK, &set, NULL);
    for (the.restarts = 0;; the.restarts++) {
        int64_t started = now_ms();
        pid_t pid = fork();
        if (pid == 0)
            return;
        wires_nothing(2); /* whoever started us may be waiting for their end */
        while (pid > 0 && waitpid(pid, &status, WNOHANG) == 0)
            if (sigwait(&set, &signo) == 0 && signo != SIGCHLD)
                kill(pid, signo);
        if (pid < 0 || WIFEXITED(status))
            _exit(pid < 0 ? 71 : WEXITSTATUS(status));
        the.died_of = WTERMSIG(status);
        usleep(now_ms() - started < STEADY_MS ? 500000 : 100000);
    }
}

int
main(int argc, char **argv)
{
    static struct plan_made made;
    arguments(argc, argv);
    umask_for_role();
    log_open(2, "master");
    the.privileged = geteuid() == 0;
    if (the.privileged) /* of the watcher, too */
        spawn_cut_capabilities();
    under_watch();
    the.since_s = wall_s();
    if (plan_load(&the, &made) < 0)
        return 78; /* EX_CONFIG */
    the.plan = made.plan;
    the.config_fd = made.fds[0];
    adopt_roles();
    if (!the.privileged)
        log_warn(
            "not started by root: all programs run as user %u, apart only by Landlock and seccomp",
            geteuid());
    the.loop.on_signal = on_signal;
    if (loop_init(&the.loop, signals) < 0 || prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0)
        log_fatal("event loop: %s", strerror(errno));
    the.on_door_shut = on_door_shut;
    if (wires_directories(&the) < 0 || wires_sockets(&the, &the.plan) < 0 || wires_doors(&the) < 0)
        return 71; /* EX_OSERR */
    wires_files(&the);
    wires_known(&the, made.fds[1], made.fds[2]);
    if (wires_log(&the) < 0)
        return 71;
    if (the.died_of)
        log_error("master died of signal %d, and has been started again", the.died_of);
    listen_control();
    for (size_t i = 0; i < the.nchildren; i++)
        start(&the.children[i].restart);
    loop_run(&the.loop);
    stop_all();
    return 0;
}
