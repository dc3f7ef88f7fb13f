/*
 * oldkernel: runs a command as on a kernel that lacks something: a filter answers for it.
 *
 *   oldkernel [landlock=N] [leases] [inotify] [mlock] [renameat2] [seccomp] -- COMMAND...
 *
 * landlock=0: the calls are not there; landlock=N: a process beside says that the version is N, and
 * older rules are taken as they are. leases: F_SETLEASE fails. inotify, mlock, seccomp: not there.
 * renameat2: EINVAL, as on NFS.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CODE_MAX = 64 };
static struct sock_filter code[CODE_MAX];
static unsigned short n;

static void
put(struct sock_filter instruction)
{
    if (n < CODE_MAX)
        code[n++] = instruction;
}

#define LOAD(what)                                                                                 \
    (struct sock_filter)                                                                           \
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (unsigned)offsetof(struct seccomp_data, what))
#define RETURN(what) (struct sock_filter) BPF_STMT(BPF_RET | BPF_K, (what))
#define UNLESS(k, over) (struct sock_filter) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (k), 0, (over))

static void
fail(long nr, int with)
{
    put(UNLESS((unsigned)nr, 1));
    put(RETURN(SECCOMP_RET_ERRNO | (unsigned)with));
}

/* When an argument has this value. */
static void
when(long nr, int argument, unsigned value, unsigned answer)
{
    put(UNLESS((unsigned)nr, 4));
    put(LOAD(args[argument]));
    put(UNLESS(value, 1));
    put(RETURN(answer));
    put(RETURN(SECCOMP_RET_ALLOW));
}

/* As long as there is somebody who may ask. */
static void
answer(int listener, int version)
{
    struct seccomp_notif ask;
    struct pollfd p = {.fd = listener, .events = POLLIN};
    for (;;) {
        if (poll(&p, 1, -1) < 0 || (p.revents & (POLLHUP | POLLERR)))
            return;
        memset(&ask, 0, sizeof ask);
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &ask) < 0)
            continue;
        struct seccomp_notif_resp say = {.id = ask.id, .val = version};
        ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &say);
    }
}

/* The child's side: somebody has the listener before we go on without it. */
static bool
handed_over(int to, int listener)
{
    char byte;
    bool done = write(to, &listener, sizeof listener) == (ssize_t)sizeof listener &&
                read(to, &byte, 1) == 1;
    close(listener);
    return done;
}

/* Who answers is a process of its own, with the listener and nothing else, and without the filter:
 * so the listener hangs up when the last one has gone that has it. */
static void
take_over(int from, pid_t child, int version)
{
    int theirs, pidfd = (int)syscall(SYS_pidfd_open, child, 0);
    if (read(from, &theirs, sizeof theirs) != (ssize_t)sizeof theirs)
        return;
    int listener = (int)syscall(SYS_pidfd_getfd, pidfd, theirs, 0);
    pid_t beside = listener < 0 ? -1 : fork();
    if (beside == 0) {
        setsid();
        int null = open("/dev/null", O_RDWR);
        for (int at = 0; at < 3; at++)
            dup2(null, at);
        close(from);
        answer(listener, version);
        _exit(0);
    }
    if (beside > 0 && write(from, "", 1) < 0)
        perror("oldkernel");
    close(from);
    close(listener);
}

static int
lacks(const char *what)
{
    if (strcmp(what, "leases") == 0)
        when(SYS_fcntl, 1, F_SETLEASE, SECCOMP_RET_ERRNO | EINVAL);
    else if (strcmp(what, "inotify") == 0)
        fail(SYS_inotify_init1, ENOSYS);
    else if (strcmp(what, "mlock") == 0)
        fail(SYS_mlock, ENOSYS);
    else if (strcmp(what, "renameat2") == 0)
        fail(SYS_renameat2, EINVAL);
    else if (strcmp(what, "landlock=0") == 0)
        fail(SYS_landlock_create_ruleset, ENOSYS);
    else if (strcmp(what, "seccomp") == 0)
        fail(SYS_seccomp, ENOSYS);
    else if (strncmp(what, "landlock=", 9) == 0)
        when(SYS_landlock_create_ruleset, 2, LANDLOCK_CREATE_RULESET_VERSION,
             SECCOMP_RET_USER_NOTIF);
    else
        return -1;
    return 0;
}

int
main(int argc, char **argv)
{
    int version = 0, i = 1, status;
    put(LOAD(arch));
    put(UNLESS(AUDIT_ARCH_X86_64, 1));
    put((struct sock_filter)BPF_STMT(BPF_JMP | BPF_JA, 1));
    put(RETURN(SECCOMP_RET_ALLOW));
    put(LOAD(nr));
    for (; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strncmp(argv[i], "landlock=", 9) == 0)
            version = (int)strtol(argv[i] + 9, NULL, 10);
        if (lacks(argv[i]) < 0)
            return 64;
    }
    put(RETURN(SECCOMP_RET_ALLOW));
    if (i + 1 >= argc)
        return 64;
    struct sock_fprog program = {n, code};
    if (geteuid() != 0)
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    unsigned flags = version ? SECCOMP_FILTER_FLAG_NEW_LISTENER : 0;
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return 71;
    pid_t child = fork();
    if (child == 0) {
        long fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
        if (fd < 0 || (version && !handed_over(pair[1], (int)fd))) {
            perror("oldkernel");
            _exit(71);
        }
        execvp(argv[i + 1], argv + i + 1);
        perror(argv[i + 1]);
        _exit(71);
    }
    close(pair[1]);
    if (version)
        take_over(pair[0], child, version);
    return waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : 71;
}
