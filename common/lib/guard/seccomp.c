#include "lib/guard/sandbox.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    PROGRAM_MAX = 512,
    PLAIN_MAX = 200,
    X32_BIT = 0x40000000,
    CLONE_DENIED = 0x7e020180,
    SOCK_TYPE_MASK = 0xf,
};

struct program {
    struct sock_filter code[PROGRAM_MAX];
    unsigned short n;
};

static void
put(struct program *p, struct sock_filter instruction)
{
    if (p->n < PROGRAM_MAX)
        p->code[p->n++] = instruction;
}

#define LOAD(field) (struct sock_filter) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (field))
#define RETURN(what) (struct sock_filter) BPF_STMT(BPF_RET | BPF_K, (what))
#define IF_EQ(k, yes, no) (struct sock_filter) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (k), (yes), (no))
#define IF_SET(k, yes, no)                                                                         \
    (struct sock_filter) BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, (k), (yes), (no))
#define IF_GREATER(k, yes, no)                                                                     \
    (struct sock_filter) BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, (k), (yes), (no))
#define AND(bits) (struct sock_filter) BPF_STMT(BPF_ALU | BPF_AND | BPF_K, (bits))
#define ARG(i) (unsigned)(offsetof(struct seccomp_data, args) + 8 * (i)) /* low half */
enum { NR = offsetof(struct seccomp_data, nr), ARCH = offsetof(struct seccomp_data, arch) };

/* Of a descriptor, its flags and copies; of a file, its locks. Not whom the kernel sends which
 * signal for it: F_SETOWN and F_SETSIG would kill any process of the same user. And flags only with
 * O_APPEND, which sockets do not mind: so nobody can take it from the log and write over its lines.
 */
static void
put_fcntl(struct program *p)
{
    static const unsigned commands[] = {F_GETFL,     F_GETFD,     F_SETFD,      F_DUPFD_CLOEXEC,
                                        F_DUPFD,     F_GETLK,     F_SETLK,      F_SETLKW,
                                        F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW, F_SETLEASE};
    enum { N = sizeof commands / sizeof commands[0] };
    put(p, IF_EQ(SYS_fcntl, 0, N + 7));
    put(p, LOAD(ARG(1)));
    for (unsigned char i = 0; i < N; i++)
        put(p, IF_EQ(commands[i], (unsigned char)(N - i + 4), 0));
    put(p, IF_EQ(F_SETFL, 0, 3));
    put(p, LOAD(ARG(2)));
    put(p, IF_SET(O_ASYNC, 1, 0));
    put(p, IF_SET(O_APPEND, 1, 0));
    put(p, RETURN(SECCOMP_RET_KILL_PROCESS));
    put(p, RETURN(SECCOMP_RET_ALLOW));
}

/* Calls that are allowed with some arguments only: a block of their own. False: any arguments do.
 */
static bool
put_special(struct program *p, int nr)
{
    switch (nr) {
    case SYS_mmap:
    case SYS_mprotect: /* no executable memory */
        put(p, IF_EQ((unsigned)nr, 0, 4));
        put(p, LOAD(ARG(2)));
        put(p, IF_SET(PROT_EXEC, 1, 0));
        put(p, RETURN(SECCOMP_RET_ALLOW));
        put(p, RETURN(SECCOMP_RET_KILL_PROCESS));
        return true;
    case SYS_clone: /* no namespaces, no threads that share memory */
        put(p, IF_EQ(SYS_clone, 0, 4));
        put(p, LOAD(ARG(0)));
        put(p, IF_SET(CLONE_DENIED, 1, 0));
        put(p, RETURN(SECCOMP_RET_ALLOW));
        put(p, RETURN(SECCOMP_RET_KILL_PROCESS));
        return true;
    case SYS_socketpair: /* AF_UNIX; no datagrams, which could be sent to any abstract name */
        put(p, IF_EQ((unsigned)nr, 0, 8));
        put(p, LOAD(ARG(0)));
        put(p, IF_EQ(AF_UNIX, 0, 5));
        put(p, LOAD(ARG(1)));
        put(p, AND(SOCK_TYPE_MASK));
        put(p, IF_EQ(SOCK_STREAM, 1, 0));
        put(p, IF_EQ(SOCK_SEQPACKET, 0, 1));
        put(p, RETURN(SECCOMP_RET_ALLOW));
        put(p, RETURN(SECCOMP_RET_ERRNO | EACCES));
        return true;
    case SYS_fcntl:
        put_fcntl(p);
        return true;
    case SYS_kill: /* no process group, not all, and nothing but the end */
        put(p, IF_EQ(SYS_kill, 0, 7));
        put(p, LOAD(ARG(0)));
        put(p, IF_SET(0x80000000, 4, 0));
        put(p, IF_GREATER(1, 0, 3));
        put(p, LOAD(ARG(1)));
        put(p, IF_EQ(SIGTERM, 0, 1));
        put(p, RETURN(SECCOMP_RET_ALLOW));
        put(p, RETURN(SECCOMP_RET_ERRNO | EPERM));
        return true;
    case SYS_socket: /* IPv4 and IPv6; others look absent */
        put(p, IF_EQ((unsigned)nr, 0, 5));
        put(p, LOAD(ARG(0)));
        put(p, IF_EQ(AF_INET, 1, 0));
        put(p, IF_EQ(AF_INET6, 0, 1));
        put(p, RETURN(SECCOMP_RET_ALLOW));
        put(p, RETURN(SECCOMP_RET_ERRNO | EAFNOSUPPORT));
        return true;
    case SYS_ioctl: /* the resolver's library asks for FIONREAD; nothing else is answered */
        put(p, IF_EQ((unsigned)nr, 0, 1));
        put(p, RETURN(SECCOMP_RET_ERRNO | ENOTTY));
        return true;
    default:
        return false;
    }
}

/* The rest: one comparison each, which jumps to the common end. */
static void
put_plain(struct program *p, const int *calls, size_t n)
{
    for (size_t i = 0; i < n; i++)
        put(p, IF_EQ((unsigned)calls[i], (unsigned char)(n - i), 0));
    put(p, RETURN(SECCOMP_RET_KILL_PROCESS));
    put(p, RETURN(SECCOMP_RET_ALLOW));
}

static int
install(const struct program *p)
{
    struct sock_fprog program = {p->n, (struct sock_filter *)(uintptr_t)p->code};
    if (p->n < PROGRAM_MAX)
        return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
    errno = E2BIG;
    return -1;
}

int
sandbox_seccomp(const int *calls, size_t ncalls)
{
    struct program p = {.n = 0};
    int plain[PLAIN_MAX];
    size_t nplain = 0;
    put(&p, LOAD(ARCH));
    put(&p, IF_EQ(AUDIT_ARCH_X86_64, 1, 0));
    put(&p, RETURN(SECCOMP_RET_KILL_PROCESS));
    put(&p, LOAD(NR));
    put(&p, IF_SET(X32_BIT, 0, 1));
    put(&p, RETURN(SECCOMP_RET_KILL_PROCESS));
    for (size_t i = 0; i < ncalls && nplain < PLAIN_MAX; i++)
        if (!put_special(&p, calls[i]))
            plain[nplain++] = calls[i];
    put_plain(&p, plain, nplain);
    if (nplain == PLAIN_MAX)
        p.n = PROGRAM_MAX;
    return install(&p);
}

static struct program session;

void
sandbox_deny_prepare(const int *calls, size_t ncalls)
{
    struct program *p = &session;
    p->n = 0;
    put(p, LOAD(NR));
    for (size_t i = 0; i < ncalls; i++)
        put(p, IF_EQ((unsigned)calls[i], (unsigned char)(ncalls - i), 0));
    put(p, RETURN(SECCOMP_RET_ALLOW));
    put(p, RETURN(SECCOMP_RET_KILL_PROCESS));
}

int
sandbox_deny(void)
{
    return install(&session);
}
