/*
 * plan: what master must know of the configuration, as one struct of fixed size.
 *
 * Root parses nothing: master has an unprivileged process (bulkhead plan) read the text, look at
 * the directories, make what memory is needed, and send this struct in one message; master checks
 * its counts and that every text ends within its place, and then only copies from it.
 */
#pragma once
#include "lib/ipc/table.h"
#include <sys/socket.h>

enum {
    PLAN_MAGIC = 0x424b5032,
    PLAN_PATH = 256,
    PLAN_ROLES = 16,
    PLAN_DIRS = 8,
    PLAN_LISTEN = 64,
    PLAN_KEYS = 16
};

struct plan_role {
    uint32_t role;
    uint32_t uid, gid;
};
struct plan_dir { /* made when it is not there; nobody but its owner may write to it */
    uint32_t mode, uid, gid;
    uint32_t roles; /* a set: who is given it, */
    char name[16];  /* and by which name */
    char path[PLAN_PATH];
};
struct plan_listen {
    uint32_t role;
    uint32_t tls;
    uint32_t port;
    char host[48];
};
struct plan_key {
    char chain[PLAN_PATH], key[PLAN_PATH];
};

struct plan {
    uint32_t magic, size;
    struct plan_fixed { /* what no reload changes */
        uint32_t nroles, ndirs;
        struct plan_role roles[PLAN_ROLES];
        struct plan_dir dirs[PLAN_DIRS];
        char run_dir[80]; /* short: the paths of Unix sockets are */
    } fixed;
    uint32_t nlisten, nkeys;
    char aliases[PLAN_PATH];
    char log[PLAN_PATH]; /* "syslog", "stderr" or a path */
    struct plan_listen listen[PLAN_LISTEN];
    struct plan_key keys[PLAN_KEYS];
};

/* The operator's requests to master, over run_dir/master (mode 0600): fixed structs, too. */
enum { CONTROL_STATUS = 1, CONTROL_RELOAD, CONTROL_STOP };
struct control_request {
    uint32_t magic, what;
};
struct control_row {
    uint32_t role;
    int32_t pid; /* 0: not running */
    uint32_t uid;
    uint32_t ready;
    uint32_t restarts;
    int64_t since_s; /* wall clock */
};
struct control_answer {
    uint32_t magic;
    int32_t result; /* 0, or -1: the text says why */
    uint32_t nrows;
    char text[256];
    struct control_row rows[PLAN_ROLES + 1]; /* master first */
};
