/*
 * trace: records what processes do to files, and lets one of their calls go wrong.
 *
 *   trace -o LOG [-c CALLS] [-i ROLE:N:WHAT] ROLE=PID...
 *
 * Follows the processes by ptrace (so also those that are linked statically, confined, set-uid, in
 * another root or mount namespace, or not dumpable; it takes root) and their children, whose role
 * is the parent's with a "+", or after an exec the name of the program. In LOG: a line for each
 * call that changes files or syncs them, with its bytes, in an order that keeps causes before
 * effects; and what is said on sockets. -i: the Nth call (of CALLS, else of any) of processes of
 * ROLE is made to fail with the error WHAT (an errno's number), is "short" (a write of half the
 * bytes), or ends the process before it is made ("kill"). Says "ready" on standard output once all
 * are followed, "hit NAME PATH" when it strikes, and ends at SIGTERM with "count N".
 *
 * A call that shall fail becomes getpid(), which every confined process may call, and its result is
 * replaced.
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <linux/ptrace.h>
#include <time.h>
#include <unistd.h>

enum {
    PROCS_MAX = 4096,
    ROLE_MAX = 40,
    PATH_SIZE = 4200,
    DATA_MAX = 64 << 20,
    SAY_MAX = 1000,
    TALLIES_MAX = 32
};

/* What its arguments are; OLD: names without a directory before them. */
enum how { NOT_LOGGED, FD, FD_DATA, FD_VEC, AT, AT_AT, OPEN, OLD, OLD_OLD, OLD_OPEN, SAY, SAY_MSG };
static const struct call {
    const char *name;
    long nr;
    enum how how;
} calls[] = {
    {"openat", SYS_openat, OPEN},
    {"write", SYS_write, FD_DATA},
    {"pwrite64", SYS_pwrite64, FD_DATA},
    {"ftruncate", SYS_ftruncate, FD},
    {"fsync", SYS_fsync, FD},
    {"fdatasync", SYS_fdatasync, FD},
    {"syncfs", SYS_syncfs, FD},
    {"renameat", SYS_renameat, AT_AT},
    {"renameat2", SYS_renameat2, AT_AT},
    {"linkat", SYS_linkat, AT_AT},
    {"unlinkat", SYS_unlinkat, AT},
    {"mkdirat", SYS_mkdirat, AT},
    {"utimensat", SYS_utimensat, AT},
    {"fchown", SYS_fchown, FD},
    {"open", SYS_open, OLD_OPEN},
    {"writev", SYS_writev, FD_VEC},
    {"truncate", SYS_truncate, OLD},
    {"rename", SYS_rename, OLD_OLD},
    {"link", SYS_link, OLD_OLD},
    {"unlink", SYS_unlink, OLD},
    {"mkdir", SYS_mkdir, OLD},
    {"rmdir", SYS_rmdir, OLD},
    {"fchmod", SYS_fchmod, FD},
    {"chmod", SYS_chmod, OLD},
    {"fchmodat", SYS_fchmodat, AT},
    {"chown", SYS_chown, OLD},
    {"fchownat", SYS_fchownat, AT},
    {"sync", SYS_sync, NOT_LOGGED},
    {"sendto", SYS_sendto, SAY},
    {"sendmsg", SYS_sendmsg, SAY_MSG},
    {"close", SYS_close, NOT_LOGGED},
    {"read", SYS_read, NOT_LOGGED},
    {"pread64", SYS_pread64, NOT_LOGGED},
    {"lseek", SYS_lseek, NOT_LOGGED},
    {"newfstatat", SYS_newfstatat, NOT_LOGGED},
    {"fstat", SYS_fstat, NOT_LOGGED},
    {"flock", SYS_flock, NOT_LOGGED},
    {"pipe", SYS_pipe, NOT_LOGGED},
    {"pipe2", SYS_pipe2, NOT_LOGGED},
    {"socket", SYS_socket, NOT_LOGGED},
    {"accept", SYS_accept, NOT_LOGGED},
    {"select", SYS_select, NOT_LOGGED},
    {"fork", SYS_fork, NOT_LOGGED},
    {"vfork", SYS_vfork, NOT_LOGGED},
    {"execve", SYS_execve, NOT_LOGGED},
    {"getdents", SYS_getdents, NOT_LOGGED},
    {"fstatfs", SYS_fstatfs, NOT_LOGGED},
    {"fcntl", SYS_fcntl, NOT_LOGGED},
    {"getdents64", SYS_getdents64, NOT_LOGGED},
    {"recvmsg", SYS_recvmsg, NOT_LOGGED},
    {"recvfrom", SYS_recvfrom, NOT_LOGGED},
    {"socketpair", SYS_socketpair, NOT_LOGGED},
    {"accept4", SYS_accept4, NOT_LOGGED},
    {"clone", SYS_clone, NOT_LOGGED},
    {"epoll_wait", SYS_epoll_wait, NOT_LOGGED},
    {"epoll_ctl", SYS_epoll_ctl, NOT_LOGGED},
    {"poll", SYS_poll, NOT_LOGGED},
    {"mmap", SYS_mmap, NOT_LOGGED},
    {"brk", SYS_brk, NOT_LOGGED},
    {"getrandom", SYS_getrandom, NOT_LOGGED},
};
enum { NCALLS = sizeof calls / sizeof calls[0] };

struct proc {
    pid_t pid;
    char role[ROLE_MAX];
    bool inside;         /* between entry and exit */
    int64_t replacement; /* of the result, when not 0 */
    const struct call *call;
    uint64_t args[6];
    char path[PATH_SIZE], path2[PATH_SIZE];
    char reach[PATH_SIZE]; /* where this process's path can be reached from here */
};

/* How often each role has made each call; at the end those of no name. */
struct tally {
    char role[ROLE_MAX];
    long n[NCALLS + 1];
};

static struct {
    struct tally tallies[TALLIES_MAX];
    struct proc procs[PROCS_MAX];
    size_t nprocs;
    FILE *log;
    unsigned long line;
    char role[ROLE_MAX], what[16];
    long nth, seen;
    bool only[NCALLS], some; /* -c */
} the;
static volatile sig_atomic_t stopping;

static void
on_term(int signo)
{
    (void)signo;
    stopping = 1;
}

static struct proc *
find(pid_t pid)
{
    for (size_t i = 0; i < the.nprocs; i++)
        if (the.procs[i].pid == pid)
            return &the.procs[i];
    return NULL;
}

static struct proc *
add(pid_t pid, const char *role)
{
    struct proc *p = find(pid);
    if (p)
        return p;
    if (the.nprocs == PROCS_MAX)
        abort();
    p = &the.procs[the.nprocs++];
    memset(p, 0, sizeof *p);
    p->pid = pid;
    snprintf(p->role, sizeof p->role, "%s", role);
    return p;
}

static void
drop(struct proc *p)
{
    *p = the.procs[--the.nprocs];
}

/* ---- what a call is about ---- */

static bool
peek(pid_t pid, uint64_t at, void *to, size_t n)
{
    struct iovec local = {to, n}, remote = {(void *)(uintptr_t)at, n};
    return process_vm_readv(pid, &local, 1, &remote, 1, 0) == (ssize_t)n;
}

/* A string may end just before a page that is not there. */
static void
peek_text(pid_t pid, uint64_t at, char *to, size_t size)
{
    size_t n = 0;
    while (n + 1 < size && peek(pid, at + n, to + n, 1) && to[n])
        n++;
    to[n] = '\0';
}

static void
path_of_fd(pid_t pid, int fd, char *to, size_t size)
{
    char link[64];
    if (fd == AT_FDCWD)
        snprintf(link, sizeof link, "/proc/%d/cwd", pid);
    else
        snprintf(link, sizeof link, "/proc/%d/fd/%d", pid, fd);
    ssize_t n = readlink(link, to, size - 1);
    to[n < 0 ? 0 : n] = '\0';
}

static void
path_at(pid_t pid, int dir, uint64_t name, char *to, char *reach, size_t size)
{
    char text[1024], link[64];
    peek_text(pid, name, text, sizeof text);
    if (text[0] == '/') {
        snprintf(link, sizeof link, "/proc/%d/root", pid);
        ssize_t n = readlink(link, to, size - 1);
        to[n < 0 ? 0 : n] = '\0';
    } else {
        path_of_fd(pid, dir, to, size);
        if (dir == AT_FDCWD)
            snprintf(link, sizeof link, "/proc/%d/cwd", pid);
        else
            snprintf(link, sizeof link, "/proc/%d/fd/%d", pid, dir);
    }
    size_t n = strlen(to);
    if (n && to[n - 1] == '/')
        n--;
    snprintf(to + n, size - n, "%s%s", text[0] == '/' ? "" : "/", text);
    if (reach)
        snprintf(reach, size, "%s/%s", link, text);
}

static void
fill_paths(struct proc *p)
{
    int dir = (int)p->args[0];
    p->path[0] = p->path2[0] = p->reach[0] = '\0';
    if (!p->call)
        return;
    switch (p->call->how) {
    case OPEN:
    case AT:
        path_at(p->pid, dir, p->args[1], p->path, p->reach, sizeof p->path);
        break;
    case AT_AT:
        path_at(p->pid, dir, p->args[1], p->path, NULL, sizeof p->path);
        path_at(p->pid, (int)p->args[2], p->args[3], p->path2, p->reach, sizeof p->path2);
        break;
    case OLD:
    case OLD_OPEN:
        path_at(p->pid, AT_FDCWD, p->args[0], p->path, p->reach, sizeof p->path);
        break;
    case OLD_OLD:
        path_at(p->pid, AT_FDCWD, p->args[0], p->path, NULL, sizeof p->path);
        path_at(p->pid, AT_FDCWD, p->args[1], p->path2, p->reach, sizeof p->path2);
        break;
    default:
        path_of_fd(p->pid, dir, p->path, sizeof p->path);
        snprintf(p->reach, sizeof p->reach, "/proc/%d/fd/%d", p->pid, dir);
    }
}

/* What is at a path: the inode; mode, user and group as "0644 0 0". */
static unsigned long
look(const char *path, char *owner, size_t size)
{
    struct stat st;
    bool there = stat(path, &st) == 0;
    owner[0] = '\0';
    if (there)
        snprintf(owner, size, "%04o %u %u", (unsigned)st.st_mode & 07777, (unsigned)st.st_uid,
                 (unsigned)st.st_gid);
    return there ? (unsigned long)st.st_ino : 0;
}

/* Where the next write to the descriptor goes. */
static long long
position(pid_t pid, int fd)
{
    char name[64], line[128];
    long long at = -1;
    snprintf(name, sizeof name, "/proc/%d/fdinfo/%d", pid, fd);
    FILE *f = fopen(name, "r");
    if (!f)
        return -1;
    if (fgets(line, sizeof line, f) && strncmp(line, "pos:", 4) == 0)
        at = strtoll(line + 4, NULL, 10);
    fclose(f);
    return at;
}

static void
put_hex(pid_t pid, uint64_t at, size_t n)
{
    unsigned char *data = n && n <= DATA_MAX ? malloc(n) : NULL;
    if (data && peek(pid, at, data, n))
        for (size_t i = 0; i < n; i++)
            fprintf(the.log, "%02x", data[i]);
    free(data);
}

static void
put_hex_vec(pid_t pid, uint64_t at, size_t parts, size_t n)
{
    for (size_t i = 0; i < parts && n; i++) {
        struct iovec v;
        if (!peek(pid, at + i * sizeof v, &v, sizeof v))
            return;
        size_t take = v.iov_len < n ? v.iov_len : n;
        put_hex(pid, (uint64_t)(uintptr_t)v.iov_base, take);
        n -= take;
    }
}

/* Tab-separated: line, time, process, role, phase, call, result, inode, path, other path or
 * argument (of a write: its place), bytes, and of what is there now "mode user group". */
static void
begin_line(const struct proc *p, const char *phase, int64_t result, unsigned long inode)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    fprintf(the.log, "%lu\t%lld.%09ld\t%d\t%s\t%s\t%s\t%lld\t%lu\t", the.line++,
            (long long)t.tv_sec, t.tv_nsec, p->pid, p->role, phase, p->call->name,
            (long long)result, inode);
}

static void
put_other(const struct proc *p, int64_t result)
{
    const struct call *c = p->call;
    long long other = (long long)p->args[c->how == AT || c->how == OPEN ? 2 : 1];
    if (c->how == AT_AT || c->how == OLD_OLD) {
        fputs(p->path2, the.log);
        return;
    }
    if (c->nr == SYS_pwrite64)
        other = (long long)p->args[3];
    else if (c->how == FD_DATA || c->how == FD_VEC)
        other = position(p->pid, (int)p->args[0]) - (long long)result;
    fprintf(the.log, "%lld", other);
}

static void
log_exit(struct proc *p, int64_t result)
{
    const struct call *c = p->call;
    char owner[64];
    if (!the.log || !c || result < 0 || p->path[0] != '/' || c->how == NOT_LOGGED ||
        c->how == SAY || c->how == SAY_MSG)
        return;
    bool opened = c->how == OPEN || c->how == OLD_OPEN;
    if (opened && !(p->args[c->how == OPEN ? 2 : 1] & (O_CREAT | O_TRUNC)))
        return;
    if (opened)
        snprintf(p->reach, sizeof p->reach, "/proc/%d/fd/%d", p->pid, (int)result);
    begin_line(p, "exit", result, look(p->reach, owner, sizeof owner));
    fputs(p->path, the.log);
    fputc('\t', the.log);
    put_other(p, result);
    fputc('\t', the.log);
    if (c->how == FD_DATA)
        put_hex(p->pid, p->args[1], (size_t)result);
    else if (c->how == FD_VEC)
        put_hex_vec(p->pid, p->args[1], p->args[2], (size_t)result);
    fprintf(the.log, "\t%s\n", owner);
}

/* The start of a sync, and what is said: it counts from here. */
static void
log_entry(struct proc *p)
{
    const struct call *c = p->call;
    char owner[64];
    if (!the.log || !c)
        return;
    bool sync = c->nr == SYS_fsync || c->nr == SYS_fdatasync || c->nr == SYS_syncfs;
    bool vec = c->nr == SYS_writev && p->path[0] != '/';
    bool socket = vec || ((c->nr == SYS_write || c->how == SAY) && p->path[0] != '/');
    if (!sync && !socket)
        return;
    begin_line(p, socket ? "say" : "enter", 0, look(p->reach, owner, sizeof owner));
    fprintf(the.log, "%s\t\t", p->path);
    if (vec)
        put_hex_vec(p->pid, p->args[1], p->args[2], SAY_MAX);
    else if (socket)
        put_hex(p->pid, p->args[1], p->args[2] < SAY_MAX ? p->args[2] : SAY_MAX);
    fputs("\t\n", the.log);
}

/* ---- the fault ---- */

static bool
counts(const struct proc *p)
{
    if (!the.nth || strcmp(p->role, the.role) != 0)
        return false;
    return !the.some || (p->call && the.only[p->call - calls]);
}

static void
strike(struct proc *p, long nr)
{
    struct user_regs_struct regs;
    printf("hit %s %s\n", p->call ? p->call->name : "other", p->path);
    fflush(stdout);
    if (strcmp(the.what, "kill") == 0) {
        kill(p->pid, SIGKILL);
        return;
    }
    if (ptrace(PTRACE_GETREGS, p->pid, 0, &regs) < 0)
        return;
    if (strcmp(the.what, "short") == 0) {
        if ((nr == SYS_write || nr == SYS_pwrite64) && regs.rdx > 1)
            regs.rdx /= 2;
    } else {
        p->replacement = -strtol(the.what, NULL, 10);
        if (nr != SYS_close) /* which closes, whatever it says */
            regs.orig_rax = SYS_getpid;
    }
    ptrace(PTRACE_SETREGS, p->pid, 0, &regs);
}

static void
tally(const struct proc *p)
{
    for (size_t i = 0; i < TALLIES_MAX; i++) {
        struct tally *t = &the.tallies[i];
        if (!t->role[0])
            snprintf(t->role, sizeof t->role, "%s", p->role);
        if (strcmp(t->role, p->role) == 0) {
            t->n[p->call ? p->call - calls : NCALLS]++;
            return;
        }
    }
}

static void
print_tallies(void)
{
    for (size_t i = 0; i < TALLIES_MAX && the.tallies[i].role[0]; i++)
        for (size_t k = 0; k <= NCALLS; k++)
            if (the.tallies[i].n[k])
                printf("calls %s %s %ld\n", the.tallies[i].role,
                       k < NCALLS ? calls[k].name : "other", the.tallies[i].n[k]);
}

static void
on_entry(struct proc *p, const struct ptrace_syscall_info *info)
{
    p->call = NULL;
    for (size_t i = 0; i < NCALLS; i++)
        if ((uint64_t)calls[i].nr == info->entry.nr)
            p->call = &calls[i];
    memcpy(p->args, info->entry.args, sizeof p->args);
    fill_paths(p);
    log_entry(p);
    tally(p);
    if (counts(p) && ++the.seen == the.nth)
        strike(p, (long)info->entry.nr);
}

static void
on_exit_of_call(struct proc *p, int64_t result)
{
    struct user_regs_struct regs;
    if (p->replacement && ptrace(PTRACE_GETREGS, p->pid, 0, &regs) == 0) {
        regs.rax = (uint64_t)p->replacement;
        result = p->replacement;
        ptrace(PTRACE_SETREGS, p->pid, 0, &regs);
    }
    p->replacement = 0;
    log_exit(p, result);
}

static void
on_call(struct proc *p)
{
    struct ptrace_syscall_info info = {0};
    if (ptrace(PTRACE_GET_SYSCALL_INFO, p->pid, sizeof info, &info) < 0)
        return;
    if (info.op == PTRACE_SYSCALL_INFO_ENTRY)
        on_entry(p, &info);
    else if (info.op == PTRACE_SYSCALL_INFO_EXIT)
        on_exit_of_call(p, info.exit.rval);
}

/* ---- following ---- */

static void
on_exec(struct proc *p)
{
    char link[64], path[PATH_SIZE];
    snprintf(link, sizeof link, "/proc/%d/exe", p->pid);
    ssize_t n = readlink(link, path, sizeof path - 1);
    path[n < 0 ? 0 : n] = '\0';
    const char *slash = strrchr(path, '/');
    snprintf(p->role, sizeof p->role, "%.*s", ROLE_MAX - 1, slash ? slash + 1 : path);
}

static void
on_stop(pid_t pid, int status)
{
    int signo = WSTOPSIG(status), event = status >> 16, deliver = 0;
    struct proc *p = find(pid);
    if (!p) { /* a child that is seen before its parent's event */
        p = add(pid, "");
        on_exec(p);
        snprintf(p->role + strnlen(p->role, ROLE_MAX - 2), 2, "+");
    }
    if (signo == (SIGTRAP | 0x80)) {
        on_call(p);
    } else if (event == PTRACE_EVENT_FORK || event == PTRACE_EVENT_CLONE ||
               event == PTRACE_EVENT_VFORK) {
        unsigned long child = 0;
        char role[ROLE_MAX];
        ptrace(PTRACE_GETEVENTMSG, pid, 0, &child);
        snprintf(role, sizeof role, "%.*s%s", ROLE_MAX - 2, p->role,
                 strchr(p->role, '+') ? "" : "+");
        struct proc *c = add((pid_t)child, role);
        snprintf(c->role, sizeof c->role, "%s", role);
    } else if (event == PTRACE_EVENT_EXEC) {
        on_exec(p);
    } else if (event == PTRACE_EVENT_STOP) {
        if (signo == SIGSTOP || signo == SIGTSTP || signo == SIGTTIN || signo == SIGTTOU) {
            ptrace(PTRACE_LISTEN, pid, 0, 0);
            return;
        }
    } else if (event == 0) {
        deliver = signo;
    }
    ptrace(PTRACE_SYSCALL, pid, 0, deliver);
}

static void
follow(void)
{
    int status;
    while (!stopping) {
        pid_t pid = waitpid(-1, &status, __WALL);
        if (pid < 0 && errno == ECHILD)
            return;
        if (pid < 0)
            continue;
        struct proc *p = find(pid);
        if (WIFSTOPPED(status))
            on_stop(pid, status);
        else if (p)
            drop(p);
    }
}

static void
die(const char *what)
{
    fprintf(stderr, "trace: %s: %s\n", what, strerror(errno));
    exit(2);
}

static void
take_calls(char *list)
{
    the.some = true;
    for (char *name; (name = strsep(&list, ","));)
        for (size_t i = 0; i < NCALLS; i++)
            the.only[i] |= strcmp(name, calls[i].name) == 0;
}

static void
take_fault(char *text)
{
    char *role = strsep(&text, ":"), *nth = strsep(&text, ":"), *what = strsep(&text, ":");
    if (!role || !nth || !what)
        die("-i ROLE:N:WHAT");
    snprintf(the.role, sizeof the.role, "%s", role);
    snprintf(the.what, sizeof the.what, "%s", what);
    the.nth = strtol(nth, NULL, 10);
}

/* No process any more, or one that nobody has waited for yet. */
static bool
gone(pid_t pid)
{
    char name[64], line[256] = "";
    snprintf(name, sizeof name, "/proc/%d/stat", pid);
    FILE *f = fopen(name, "r");
    bool read = f && fgets(line, sizeof line, f);
    if (f)
        fclose(f);
    const char *end = strrchr(line, ')');
    return !read || !end || strchr("ZX", end[2]);
}

static void
seize(char *text)
{
    const unsigned long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK |
                                  PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC;
    char *role = strsep(&text, "="), *pid = strsep(&text, "=");
    pid_t n = pid ? (pid_t)strtol(pid, NULL, 10) : 0;
    if (n <= 0)
        die("ROLE=PID");
    if (ptrace(PTRACE_SEIZE, n, 0, options) < 0) {
        int saved = errno;
        if (saved == ESRCH || strchr(role, '+') || gone(n))
            return;
        errno = saved;
        die(role);
    }
    add(n, role);
    ptrace(PTRACE_INTERRUPT, n, 0, 0);
}

int
main(int argc, char **argv)
{
    struct sigaction act = {.sa_handler = on_term};
    int opt;
    while ((opt = getopt(argc, argv, "o:c:i:")) != -1) {
        if (opt == 'o' && !(the.log = fopen(optarg, "w")))
            die(optarg);
        else if (opt == 'c')
            take_calls(optarg);
        else if (opt == 'i')
            take_fault(optarg);
        else if (opt == '?')
            return 2;
    }
    sigaction(SIGTERM, &act, NULL);
    for (int i = optind; i < argc; i++)
        seize(argv[i]);
    puts("ready");
    fflush(stdout);
    follow();
    print_tallies();
    if (the.log && fclose(the.log) != 0)
        die("log");
    return 0;
}
