/*
 * priv: what bulkhead privileges knows of the suite: the roles as the tables have them, and the
 * processes as the kernel has them.
 *
 * Used by bulkhead(8) only, which trusts /proc and no process: what a process may do is read from
 * the kernel, never asked of the process.
 */
#pragma once
#include "common/master/ctl/ctl.h"
#include "common/master/plan.h"
#include <sys/resource.h>

enum { PRIV_PROCS_MAX = 4096, PRIV_CALLS = 512, PRIV_LIMITS = 5 };

enum priv_kind { PRIV_PROGRAM, PRIV_SESSION, PRIV_WATCHER };
enum priv_fd { /* kinds of open descriptors */
               FD_TCP,
               FD_UDP,
               FD_STREAM,    /* of Unix */
               FD_SEQPACKET, /* doors and channels */
               FD_DATAGRAM,  /* of Unix: the system's log */
               FD_FILE,
               FD_DIRECTORY,
               FD_DEVICE,
               FD_PIPE,
               FD_EPOLL,
               FD_OTHER,
               FD_KINDS,
};
enum priv_read { /* the kernel's filters beside the table */
                 PR_NOT_READ,
                 PR_AS_TABLE,
                 PR_DIFFERS,
                 PR_NONE_WANTED, /* a role without a filter */
};

struct priv_proc {
    enum role role;
    enum priv_kind kind;
    pid_t pid;
    uid_t uids[4]; /* real, effective, saved, file system */
    gid_t gid;
    unsigned groups; /* how many supplementary ones */
    uint64_t cap_eff, cap_prm, cap_inh, cap_bnd, cap_amb;
    unsigned no_new_privs, seccomp, filters;
    char root[96];              /* "system", "empty", "queue", "state", "account PATH", or a path */
    rlim_t limits[PRIV_LIMITS]; /* soft */
    unsigned fds[FD_KINDS];
    enum priv_read read;
    unsigned calls;     /* that the kernel's filters let through, if read */
    int differs_nr;     /* the first call that differs from the table */
    bool unreadable_fd; /* no right to look */
};

/* One role, as far as the tables of the library do not say it. */
struct priv_role {
    enum role role;
    const char *reads;     /* strangers' bytes that it parses */
    const char *directory; /* what Landlock leaves it */
    const char *network;
    bool confined;
};

struct priv {
    struct priv_proc *procs;
    size_t n;
    int landlock;       /* the kernel's version; 0: none */
    unsigned inherited; /* filters that master was started under, and all with it */
};

const struct priv_role *priv_roles(size_t *n_r);
extern const char *const priv_fd_names[FD_KINDS];
extern const char *const priv_limit_names[PRIV_LIMITS];

/* privproc.c: find all processes of the running instance. -1 after printing why. */
int priv_find(const struct ctl *ctl, const struct control_answer *answer, struct priv *p);
/* privfilter.c: read the filters of a process back (needs CAP_SYS_ADMIN) and compare: but not those
 * that it inherited from whoever started master, which can only forbid more. */
void priv_filter(struct priv_proc *proc, unsigned inherited);
/* The roles that this one may send a message of row to: a set. */
unsigned priv_receivers(enum role role, const struct msg_row *row);
/* privsvg.c: the picture. 0, or an exit status. */
int priv_svg(const struct priv *p, const char *path);
