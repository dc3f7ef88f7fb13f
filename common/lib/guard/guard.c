#include "lib/guard/guard.h"
#include "lib/guard/sandbox.h"
#include "lib/guard/table.h"
#include "lib/log/log.h"
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { CALLS_MAX = 128 };

static void
die(const char *what)
{
    log_fatal("cannot confine myself: %s: %s", what, strerror(errno));
}

static void
limit(int resource, rlim_t value)
{
    struct rlimit now, want;
    if (getrlimit((__rlimit_resource_t)resource, &now) < 0)
        die("getrlimit");
    /* What an administrator set lower stays lower. */
    want.rlim_max = now.rlim_max < value ? now.rlim_max : value;
    want.rlim_cur = want.rlim_max;
    if (setrlimit((__rlimit_resource_t)resource, &want) < 0)
        die("setrlimit");
}

static void
limits(const struct guard_row *row, size_t file_size_max)
{
    limit(RLIMIT_CORE, 0);
    limit(RLIMIT_NOFILE, row->files_max);
    limit(RLIMIT_FSIZE, file_size_max ? file_size_max : row->file_size_max);
#ifndef BH_SANITIZE /* its shadow memory is larger than any limit */
    limit(RLIMIT_AS, row->memory_max);
#endif
}

/* The empty directory as root: by right of CAP_SYS_CHROOT, which master leaves us for this. */
static void
empty_root(int root_fd)
{
    if (root_fd < 0)
        return;
    if (fchdir(root_fd) < 0)
        die("fchdir to the empty directory");
    if (chroot(".") < 0 && errno != EPERM)
        die("chroot");
}

static void
drop_user(uid_t uid, gid_t gid)
{
    uid_t r, e, s;
    if (geteuid() == 0 && uid) {
        if (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0)
            die("changing the user");
    }
    if (getresuid(&r, &e, &s) < 0 || r != e || e != s)
        die("the user IDs differ");
    if (r != 0 && setuid(0) == 0)
        log_fatal("I could become root again");
}

static void
drop_capabilities(void)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[2] = {{0}};
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    if (geteuid() != 0 && syscall(SYS_capset, &head, none) < 0)
        die("capset");
}

static void
no_way_back(void)
{
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        die("no_new_privs");
#ifndef BH_SANITIZE /* the leak checker reads its own memory */
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        die("not dumpable");
#endif
}

static void
filter(unsigned sets)
{
#ifndef BH_SANITIZE /* the sanitizers make calls of their own: a debugging build is not confined   \
                     */
    int calls[CALLS_MAX];
    size_t n = guard_calls(sets, calls, CALLS_MAX);
    if (sandbox_seccomp(calls, n) < 0)
        die("seccomp");
#else
    (void)sets;
    (void)sandbox_seccomp;
#endif
}

/* A session's list is part of its listener's (a test holds it so): what is over will go. */
static void
prepare_session(const struct guard_row *row)
{
    int over[CALLS_MAX];
    sandbox_deny_prepare(over, guard_calls_lost(row, over, CALLS_MAX));
}

/* What this kernel lacks, said once at the start by those whom it concerns; not by each cell. */
static void
say_landlock(const struct guard *g, const struct guard_row *row, int version)
{
    if (g->role == R_CELL || g->no_landlock)
        return;
    if (version == 0 && (g->ndirs || row->connects))
        log_warn("this kernel has no Landlock that I can use: seccomp and the root directory alone "
                 "confine me");
    else if (version < 4 && row->connects)
        log_warn("Landlock %d of this kernel does not know TCP: I may connect to any port",
                 version);
}

void
guard_enter(const struct guard *g)
{
    const struct guard_row *row = guard_row(g->role);
    if (!row)
        log_fatal("role %s has no row in the guard's table", role_name(g->role));
    limits(row, g->file_size_max);
    if (!g->keep_root_dir)
        empty_root(g->root_fd);
    drop_user(g->uid, g->gid);
    drop_capabilities();
    no_way_back();
    int landlock = g->no_landlock ? 1 : sandbox_landlock(g, row->connects);
    if (landlock < 0)
        die("Landlock");
    say_landlock(g, row, landlock);
    if (row->session_sets)
        prepare_session(row);
    filter(g->as_session ? row->session_sets : row->sets);
}

void
guard_unblock(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags >= 0 && !(flags & O_NONBLOCK))
        fcntl(fd, F_SETFL, flags | O_NONBLOCK | O_APPEND);
}

void
guard_session(enum role role)
{
    const struct guard_row *row = guard_row(role);
    if (!row || !row->session_sets)
        log_fatal("role %s has no sessions in the guard's table", role_name(role));
    /* Not fewer descriptors: the kernel holds the number of those in flight over sockets, summed
     * over all processes of the user, against this limit, and each session sends one to each
     * service. */
    if (setrlimit(RLIMIT_NPROC, &(struct rlimit){0, 0}) < 0)
        die("setrlimit");
#ifndef BH_SANITIZE
    if (sandbox_deny() < 0)
        die("seccomp");
#endif
}
