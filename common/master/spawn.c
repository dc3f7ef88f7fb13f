#include "common/master/master.h"
#include "lib/log/log.h"
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { FIRST_FD = 3, ENV_SIZE = FDS_MAX * 33 + 32 };

static int
set_caps(uint64_t caps, uint64_t inheritable)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {
        {(uint32_t)caps, (uint32_t)caps, (uint32_t)inheritable},
        {(uint32_t)(caps >> 32), (uint32_t)(caps >> 32), (uint32_t)(inheritable >> 32)}};
    return (int)syscall(SYS_capset, &head, data);
}

static void
bound_caps(uint64_t keep)
{
    for (unsigned cap = 0; cap <= CAP_LAST_CAP; cap++)
        if (!(keep & 1ull << cap))
            prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
}

enum {
    CELL_CAPS = 1 << CAP_SETUID | 1 << CAP_SETGID | 1 << CAP_SYS_CHROOT | 1 << CAP_CHOWN |
                1 << CAP_DAC_OVERRIDE | 1 << CAP_FOWNER,
    MASTER_CAPS = CELL_CAPS | 1 << CAP_NET_BIND_SERVICE | 1 << CAP_KILL | 1 << CAP_SETPCAP,
};

void
spawn_cut_capabilities(void)
{
    bound_caps(MASTER_CAPS);
    if (set_caps(MASTER_CAPS, 0) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        log_fatal("cannot cut my capabilities: %s", strerror(errno));
}

/* The role's user for good, and of all capabilities only the one to change its root, which
 * guard_enter() uses and drops. */
static int
become(const struct child *c)
{
    if (c->role == R_LAUNCHER) {
        bound_caps(CELL_CAPS);
        return set_caps(CELL_CAPS, 0);
    }
    uint64_t only = 1ull << CAP_SYS_CHROOT;
    bound_caps(only);
    if (setgroups(0, NULL) < 0 || setresgid(c->gid, c->gid, c->gid) < 0 ||
        prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0 || setresuid(c->uid, c->uid, c->uid) < 0 ||
        set_caps(only, only) < 0)
        return -1;
    return prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_SYS_CHROOT, 0, 0);
}

/* Put the wires at 3, 4, 5, ... In two steps: none may land on one still to be moved. */
static int
place_wires(const struct child *c, int control, char *names, size_t size)
{
    int high[FDS_MAX + 1];
    size_t n = c->nwires + 1, used = 0;
    for (size_t i = 0; i < n; i++) {
        int fd = i < c->nwires ? c->wires[i].fd : control;
        high[i] = fcntl(fd, F_DUPFD_CLOEXEC, 2 * FDS_MAX);
        if (high[i] < 0)
            return -1;
        used += (size_t)snprintf(names + used, size - used, "%s%s", i ? ":" : "",
                                 i < c->nwires ? c->wires[i].name : "control");
        if (used >= size)
            return -1;
    }
    for (size_t i = 0; i < n; i++)
        if (dup2(high[i], FIRST_FD + (int)i) < 0)
            return -1;
    return (int)syscall(SYS_close_range, FIRST_FD + (unsigned)n, ~0U, 0);
}

static void
child_side(struct master *m, struct child *c, int control)
{
    char names[ENV_SIZE] = "LISTEN_FDNAMES=", count[32], pid[32], program[PLAN_PATH * 2];
    const size_t prefix = strlen(names);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    /* Into the group its predecessor's sessions are in, if any is left. */
    if (c->group == 0 || setpgid(0, c->group) < 0)
        setpgid(0, 0);
    snprintf(program, sizeof program, "%s/%s", m->programs_dir, role_name(c->role));
    snprintf(count, sizeof count, "LISTEN_FDS=%zu", c->nwires + 1);
    snprintf(pid, sizeof pid, "LISTEN_PID=%d", (int)getpid());
    char *argv[] = {program, (char *)"-f", (char *)m->config_path, NULL};
    char *env[] = {names, count, pid, NULL};
    /* When master is killed its successor starts all anew: told so after the change of user, which
     * clears it. */
    if (place_wires(c, control, names + prefix, sizeof names - prefix) == 0 &&
        (!m->privileged || become(c) == 0) && prctl(PR_SET_PDEATHSIG, SIGTERM) == 0 &&
        getppid() != 1 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && chdir("/") == 0)
        execve(program, argv, env);
    log_error("%s: %s", program, strerror(errno));
    _exit(71);
}

int
spawn_child(struct master *m, struct child *c)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
        return -1;
    pid_t pid = fork();
    if (pid == 0)
        child_side(m, c, pair[1]);
    close(pair[1]);
    if (pid < 0) {
        close(pair[0]);
        return -1;
    }
    /* The child does the same: whoever comes first. Once it has executed its program we may not any
     * more, and what counts is what it has done. */
    if (c->group == 0 || setpgid(pid, c->group) < 0)
        setpgid(pid, pid);
    c->group = getpgid(pid);
    if (c->group < 0)
        c->group = pid;
    if (c->control.added) {
        loop_del(&m->loop, &c->control);
        close(c->control.fd);
    }
    c->pid = pid;
    c->ready = false;
    c->started_ms = now_ms();
    c->since_s = wall_s();
    c->control.fd = pair[0];
    return 0;
}
