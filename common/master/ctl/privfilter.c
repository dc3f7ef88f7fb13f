#include "common/master/ctl/priv.h"
#include "lib/guard/table.h"
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/*
 * A filter is read as a list of what it may answer to a call's number, whatever the arguments: a
 * walk over the program with the accumulator known (number, architecture) or not. Jumps go forward
 * only, so one pass in the order of the program does it.
 */
enum { GET_FILTER = 0x420c }; /* PTRACE_SECCOMP_GET_FILTER; linux/ptrace.h and libc's clash */
enum { A_UNSEEN, A_KNOWN, A_ANY };
enum { MAY_PASS = 1, MAY_KILL = 2, FILTERS_MAX = 16 };

struct point { /* what is known when the walk comes here */
    int state;
    uint32_t a;
};

static void
arrive(struct point *points, size_t n, size_t at, int state, uint32_t a)
{
    if (at >= n)
        return;
    struct point *p = &points[at];
    if (p->state == A_UNSEEN)
        *p = (struct point){state, a};
    else if (p->state != state || p->a != a)
        p->state = A_ANY;
}

static bool
condition(const struct sock_filter *f, uint32_t a)
{
    switch (BPF_OP(f->code)) {
    case BPF_JEQ:
        return a == f->k;
    case BPF_JGT:
        return a > f->k;
    case BPF_JGE:
        return a >= f->k;
    default:
        return (a & f->k) != 0;
    }
}

static void
jump(const struct sock_filter *f, size_t i, struct point *points, size_t n)
{
    int state = points[i].state;
    uint32_t a = points[i].a;
    if (BPF_OP(f->code) == BPF_JA) {
        arrive(points, n, i + 1 + f->k, state, a);
        return;
    }
    bool yes = state == A_ANY || condition(f, a), no = state == A_ANY || !condition(f, a);
    if (yes)
        arrive(points, n, i + 1 + f->jt, state, a);
    if (no)
        arrive(points, n, i + 1 + f->jf, state, a);
}

/* MAY_PASS, MAY_KILL, or both. */
static unsigned
outcomes(const struct sock_filter *code, size_t n, uint32_t nr)
{
    struct point *points = calloc(n, sizeof *points);
    unsigned may = 0;
    if (!points)
        return MAY_PASS | MAY_KILL;
    points[0].state = A_ANY;
    for (size_t i = 0; i < n; i++) {
        const struct sock_filter *f = &code[i];
        if (points[i].state == A_UNSEEN)
            continue;
        if (BPF_CLASS(f->code) == BPF_RET) {
            uint32_t action = f->k & SECCOMP_RET_ACTION_FULL;
            may |= action == SECCOMP_RET_ALLOW || action == SECCOMP_RET_ERRNO ? MAY_PASS : MAY_KILL;
        } else if (BPF_CLASS(f->code) == BPF_JMP) {
            jump(f, i, points, n);
        } else if (f->code == (BPF_LD | BPF_W | BPF_ABS) &&
                   f->k == offsetof(struct seccomp_data, nr)) {
            arrive(points, n, i + 1, A_KNOWN, nr);
        } else if (f->code == (BPF_LD | BPF_W | BPF_ABS) &&
                   f->k == offsetof(struct seccomp_data, arch)) {
            arrive(points, n, i + 1, A_KNOWN, AUDIT_ARCH_X86_64);
        } else {
            arrive(points, n, i + 1, A_ANY, 0);
        }
    }
    free(points);
    return may;
}

/* Take from allowed what this filter of a stopped process, the oldest being 0, always kills. -1:
 * there is no such. */
static int
apply_filter(pid_t pid, unsigned which, bool *allowed)
{
    struct sock_filter *code = calloc(BPF_MAXINSNS, sizeof *code);
    long n = code ? syscall(SYS_ptrace, (long)GET_FILTER, (long)pid, (long)which, code) : -1;
    for (uint32_t nr = 0; n > 0 && nr < PRIV_CALLS; nr++)
        if (!(outcomes(code, (size_t)n, nr) & MAY_PASS))
            allowed[nr] = false;
    free(code);
    return n > 0 ? 0 : -1;
}

static bool
stop(pid_t pid)
{
    int status;
    if (ptrace(PTRACE_SEIZE, pid, NULL, NULL) < 0)
        return false;
    if (ptrace(PTRACE_INTERRUPT, pid, NULL, NULL) == 0 && waitpid(pid, &status, __WALL) == pid &&
        WIFSTOPPED(status))
        return true;
    ptrace(PTRACE_DETACH, pid, NULL, NULL);
    return false;
}

static void
compare(struct priv_proc *proc, const bool *allowed)
{
    int list[PRIV_CALLS];
    bool table[PRIV_CALLS] = {false};
    const struct guard_row *row = guard_row(proc->role);
    unsigned sets =
        row ? proc->kind == PRIV_SESSION && row->session_sets ? row->session_sets : row->sets : 0;
    size_t n = guard_calls(sets, list, PRIV_CALLS);
    for (size_t i = 0; i < n; i++)
        if (list[i] >= 0 && list[i] < PRIV_CALLS)
            table[list[i]] = true;
    proc->read = PR_AS_TABLE;
    for (int nr = 0; nr < PRIV_CALLS; nr++) {
        proc->calls += allowed[nr];
        if (allowed[nr] != table[nr] && proc->read == PR_AS_TABLE) {
            proc->read = PR_DIFFERS;
            proc->differs_nr = nr;
        }
    }
}

void
priv_filter(struct priv_proc *proc, unsigned inherited)
{
    bool allowed[PRIV_CALLS];
    unsigned own = proc->filters > inherited ? proc->filters - inherited : 0, n = 0;
    if (!guard_row(proc->role)) {
        proc->read = PR_NONE_WANTED;
        return;
    }
    if (own == 0) {
        proc->read = PR_DIFFERS;
        return;
    }
    if (!stop(proc->pid))
        return;
    memset(allowed, 1, sizeof allowed);
    while (n < own && n < FILTERS_MAX && apply_filter(proc->pid, inherited + n, allowed) == 0)
        n++;
    ptrace(PTRACE_DETACH, proc->pid, NULL, NULL);
    if (n == own)
        compare(proc, allowed);
}
