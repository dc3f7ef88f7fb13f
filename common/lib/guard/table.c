#include "lib/guard/table.h"
#include <sys/syscall.h>

struct call {
    int nr;
    const char *name;
    unsigned sets; /* the sets it belongs to */
};

#define CALL(name, sets)                                                                           \
    {                                                                                              \
        SYS_##name, #name, sets                                                                    \
    }

static const struct call calls[] = {
    CALL(read, GS_BASE),
    CALL(write, GS_BASE),
    CALL(close, GS_BASE),
    CALL(poll, GS_BASE),
    CALL(mmap, GS_BASE),     /* never executable: see seccomp.c */
    CALL(mprotect, GS_BASE), /* the same */
    CALL(munmap, GS_BASE),
    CALL(mremap, GS_BASE),
    CALL(madvise, GS_BASE),
    CALL(brk, GS_BASE),
    CALL(rt_sigreturn, GS_BASE),
    CALL(rt_sigprocmask, GS_BASE),
    CALL(restart_syscall, GS_BASE),
    CALL(clock_gettime, GS_BASE),
    CALL(clock_nanosleep, GS_BASE),
    CALL(getpid, GS_BASE),
    CALL(getrandom, GS_BASE),
    CALL(futex, GS_BASE),
    CALL(fcntl, GS_BASE),
    CALL(newfstatat, GS_BASE), /* fstat, as glibc makes it; names lead nowhere in an empty root */
    CALL(exit_group, GS_BASE),
    CALL(sendmsg, GS_TALK),
    CALL(recvmsg, GS_TALK),
    CALL(sendto, GS_TALK),
    CALL(recvfrom, GS_TALK),
    CALL(shutdown, GS_TALK),
    CALL(socketpair, GS_TALK),
    CALL(getsockopt, GS_TALK),
    CALL(setsockopt, GS_TALK),
    CALL(fsync, GS_SYNC | GS_FILES),
    CALL(fdatasync, GS_SYNC | GS_FILES),
    CALL(pread64, GS_SYNC | GS_FILES),
    CALL(pwrite64, GS_SYNC | GS_FILES),
    CALL(lseek, GS_SYNC | GS_FILES),
    CALL(epoll_wait, GS_LOOP),
    CALL(epoll_ctl, GS_LOOP),
    CALL(epoll_create1, GS_LOOP),
    CALL(signalfd4, GS_LOOP),
    CALL(accept4, GS_ACCEPT),
    CALL(getsockname, GS_ACCEPT | GS_CONNECT),
    CALL(getpeername, GS_ACCEPT | GS_CONNECT),
    CALL(clone, GS_FORK | GS_LAUNCH),
    CALL(wait4, GS_FORK | GS_LAUNCH),
    CALL(set_robust_list, GS_FORK | GS_LAUNCH),
    CALL(gettid, GS_FORK | GS_LAUNCH),
    CALL(setrlimit, GS_FORK | GS_LAUNCH),
    CALL(prlimit64, GS_FORK | GS_LAUNCH),
    CALL(prctl, GS_FORK | GS_LAUNCH),
    CALL(seccomp, GS_FORK | GS_LAUNCH),
    CALL(openat, GS_FILES | GS_LAUNCH),
    CALL(sync_file_range, GS_FILES),
    CALL(renameat, GS_FILES),
    CALL(renameat2, GS_FILES),
    CALL(unlinkat, GS_FILES),
    CALL(linkat, GS_FILES),
    CALL(mkdirat, GS_FILES | GS_LAUNCH),
    CALL(getdents64, GS_FILES),
    CALL(ftruncate, GS_QUEUE),
    CALL(utimensat, GS_FILES),
    CALL(fstatfs, GS_QUEUE),
    CALL(inotify_init1, GS_NOTIFY),
    CALL(inotify_add_watch, GS_NOTIFY),
    CALL(inotify_rm_watch, GS_NOTIFY),
    CALL(socket, GS_CONNECT), /* AF_INET and AF_INET6 only: see seccomp.c */
    CALL(connect, GS_CONNECT),
    CALL(bind, GS_CONNECT),
    CALL(gettimeofday, GS_RESOLVE),
    CALL(ioctl, GS_RESOLVE),
    CALL(sendmmsg, GS_RESOLVE),
    CALL(setresuid, GS_LAUNCH),
    CALL(setresgid, GS_LAUNCH),
    CALL(setgroups, GS_LAUNCH),
    CALL(getresuid, GS_LAUNCH),
    CALL(chroot, GS_LAUNCH),
    CALL(fchdir, GS_LAUNCH),
    CALL(fchown, GS_LAUNCH),
    CALL(fchmod, GS_LAUNCH),
    CALL(execveat, GS_LAUNCH),
    CALL(dup3, GS_LAUNCH),
    CALL(close_range, GS_LAUNCH),
    CALL(setsid, GS_LAUNCH),
    CALL(capget, GS_LAUNCH),
    CALL(capset, GS_LAUNCH),
    CALL(arch_prctl, GS_START),
    CALL(set_tid_address, GS_START),
    CALL(rseq, GS_START),
    CALL(readlink, GS_START),
    CALL(readlinkat, GS_START),
    CALL(uname, GS_START),
    CALL(umask, GS_START),
    CALL(landlock_create_ruleset, GS_START),
    CALL(landlock_add_rule, GS_START),
    CALL(landlock_restrict_self, GS_START),
    CALL(getrlimit, GS_START),
    CALL(geteuid, GS_START),
    CALL(setuid, GS_START), /* a cell proves that it cannot */
    CALL(kill, GS_DISMISS), /* SIGTERM to one process only: see seccomp.c */
    CALL(mlock, GS_TUNE),
    CALL(munlock, GS_TUNE),
};

enum {
    LISTENER = GS_BASE | GS_TALK | GS_LOOP | GS_ACCEPT | GS_FORK | GS_SYNC,
    FRONT = LISTENER | GS_DISMISS,
    SESSION = GS_BASE | GS_TALK | GS_SYNC,
    MB = 1 << 20,
};
/* Not less for those that write no file: the log is one, and it may be large. */
#define FILE_MAX ((size_t)1 << 40)

static const struct guard_row rows[] = {
    {R_AUTHD, GS_BASE | GS_TALK | GS_LOOP | GS_ACCEPT | GS_FORK | GS_FILES, GS_BASE | GS_TALK,
     (size_t)1024 * MB, 8192, FILE_MAX, false},
    {R_KEYD, GS_BASE | GS_TALK | GS_LOOP | GS_ACCEPT | GS_SYNC | GS_TUNE, 0, (size_t)512 * MB,
     16384, FILE_MAX, false},
    {R_TLSD, FRONT, SESSION, (size_t)256 * MB, 16384, FILE_MAX, false},
    {R_DNSD, GS_BASE | GS_TALK | GS_LOOP | GS_ACCEPT | GS_CONNECT | GS_RESOLVE, 0, (size_t)512 * MB,
     8192, FILE_MAX, true},
    {R_SMTPD, FRONT, SESSION, (size_t)256 * MB, 4096, FILE_MAX, false},
    {R_SUBMITD, FRONT, SESSION, (size_t)256 * MB, 4096, FILE_MAX, false},
    {R_QMGR, GS_BASE | GS_TALK | GS_LOOP | GS_ACCEPT | GS_FILES | GS_QUEUE, GS_BASE | GS_SYNC,
     (size_t)4096 * MB, 16384, FILE_MAX, false},
    {R_RELAY, LISTENER | GS_CONNECT, SESSION | GS_CONNECT, (size_t)256 * MB, 4096, FILE_MAX, true},
    {R_LOCAL, LISTENER, SESSION, (size_t)256 * MB, 4096, FILE_MAX, false},
    {R_POP3D, FRONT, SESSION, (size_t)256 * MB, 4096, FILE_MAX, false},
    {R_IMAPD, FRONT, SESSION, (size_t)256 * MB, 4096, FILE_MAX, false},
    {R_IDLED, GS_BASE | GS_TALK | GS_LOOP | GS_ACCEPT, 0, (size_t)512 * MB, 16384, FILE_MAX, false},
    {R_CELL, GS_BASE | GS_TALK | GS_FILES | GS_NOTIFY, 0, (size_t)1024 * MB, 128, FILE_MAX, false},
    /* A filter is inherited: the launcher's list contains its cells'. */
    {R_LAUNCHER,
     GS_BASE | GS_TALK | GS_LOOP | GS_ACCEPT | GS_LAUNCH | GS_START | GS_FILES | GS_NOTIFY, 0,
     (size_t)1024 * MB, 1024, FILE_MAX, false},
};

const struct guard_row *
guard_row(enum role role)
{
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (rows[i].role == role)
            return &rows[i];
    return NULL;
}

const struct guard_row *
guard_rows(size_t *n_r)
{
    *n_r = sizeof rows / sizeof rows[0];
    return rows;
}

size_t
guard_calls(unsigned sets, int *calls_r, size_t max)
{
    size_t n = 0;
    for (size_t i = 0; i < sizeof calls / sizeof calls[0] && n < max; i++)
        if (calls[i].sets & sets)
            calls_r[n++] = calls[i].nr;
    return n;
}

size_t
guard_calls_lost(const struct guard_row *row, int *calls_r, size_t max)
{
    size_t n = 0;
    for (size_t i = 0; i < sizeof calls / sizeof calls[0] && n < max; i++)
        if ((calls[i].sets & row->sets) && !(calls[i].sets & row->session_sets))
            calls_r[n++] = calls[i].nr;
    return n;
}

const char *
guard_call_name(int nr)
{
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++)
        if (calls[i].nr == nr)
            return calls[i].name;
    return NULL;
}
