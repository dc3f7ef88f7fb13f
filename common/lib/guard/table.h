/*
 * table: what each role may do: resource limits and system calls. docs/SECURITY.md is checked
 * against it.
 */
#pragma once
#include "lib/guard/guard.h"

enum guard_set {                      /* groups of system calls; a role's list is a union of them */
                 GS_BASE = 1 << 0,    /* memory, time, read and write, poll, exit */
                 GS_TALK = 1 << 1,    /* messages and descriptors over sockets one holds */
                 GS_SYNC = 1 << 2,    /* fsync and positioned I/O on descriptors one holds */
                 GS_LOOP = 1 << 3,    /* epoll */
                 GS_ACCEPT = 1 << 4,  /* accept */
                 GS_FORK = 1 << 5,    /* fork and wait (a listener, authd's workers) */
                 GS_FILES = 1 << 6,   /* names below directories one holds */
                 GS_CONNECT = 1 << 7, /* socket, connect, bind (relay, dnsd) */
                 GS_LAUNCH = 1 << 8,  /* change user and root, execute (launcher) */
                 GS_NOTIFY = 1 << 9,  /* inotify and file locks (cells) */
                 GS_TUNE = 1 << 10,   /* mlock and scheduling */
                 GS_RESOLVE = 1 << 12, /* what the resolver's library calls besides (dnsd) */
                 GS_START = 1 << 11, /* what a fresh static program calls first (inherited from the
                                        launcher) */
                 GS_DISMISS = 1 << 14, /* SIGTERM to one process (a listener's sessions) */
                 GS_SYNCER = 1 << 15,  /* what qmgr's syncer needs besides (files come to it) */
                 GS_QUEUE = 1 << 13, /* cut a file, and ask how much room there is (qmgr: the log is
                                        a file, and nobody else is to cut it) */
};

struct guard_row {
    enum role role;
    unsigned sets;         /* after guard_enter */
    unsigned session_sets; /* after guard_session; 0: no sessions */
    size_t memory_max;     /* RLIMIT_AS, bytes */
    unsigned files_max;    /* RLIMIT_NOFILE */
    size_t file_size_max;  /* RLIMIT_FSIZE */
    bool connects;         /* outbound TCP */
};

const struct guard_row *guard_row(enum role role);
const struct guard_row *guard_rows(size_t *n_r);
/* The system calls of a union of sets, at most max; returns how many. */
size_t guard_calls(unsigned sets, int *calls_r, size_t max);
/* Those that a role has after guard_enter() and its sessions have no more. */
size_t guard_calls_lost(const struct guard_row *row, int *calls_r, size_t max);
const char *guard_call_name(int nr); /* for privileges and tests; NULL when not in any set */
