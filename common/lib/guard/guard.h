/*
 * guard: entering a role. The same call in every program, before the first untrusted byte.
 *
 * guard_enter() closes what is not ours, sets resource limits, changes the root to the empty
 * directory, drops groups, group and user for good and proves it, sheds all capabilities, sets
 * no_new_privs and not dumpable, and adds Landlock (as much as the kernel offers) and last the
 * role's seccomp allow-list (default: kill the process). It does not return on failure: it logs and
 * exits.
 *
 * What each role may do is one table (table.c), which docs/SECURITY.md is checked against. A
 * listener's children call guard_session(), which adds the shorter list of a session.
 */
#pragma once
#include "lib/ipc/table.h"
#include <sys/types.h>

struct guard_dir {    /* a directory that this role alone may reach, for Landlock */
    const char *path; /* or NULL: dirfd */
    int dirfd;
    bool write;
};

struct guard {
    enum role role;
    uid_t uid; /* to become when we are root; 0: no change */
    gid_t gid;
    int root_fd;        /* the empty directory, or -1 */
    bool keep_root_dir; /* do not change the root directory (a cell's is its Maildir already) */
    bool as_session;    /* with the list of a session at once: for a part that needs no more */
    bool no_landlock;   /* the launcher: Landlock would be inherited by its cells */
    const struct guard_dir *dirs;
    size_t ndirs;
    const uint16_t *ports; /* where it may connect by TCP (Landlock 4); none given: anywhere */
    size_t nports;
    size_t file_size_max; /* RLIMIT_FSIZE; 0: the role's default */
};

void guard_enter(const struct guard *g);
/* Make a descriptor non-blocking. From guard_enter() on there is no other way: the filter wants
 * O_APPEND among the flags, so that it cannot be taken from the log. */
void guard_unblock(int fd);
/* In a freshly forked session of role: the session's list. Cannot fork, exec, open, socket, connect
 * (a relay session may socket and connect) from here on. */
void guard_session(enum role role);
