/*
 * master: the supervisor. Root, with its capabilities cut to what it uses; sees no byte from the
 * network, the queue or a mailbox. Everything it takes from others is a struct of fixed size.
 */
#pragma once
#include "common/master/plan.h"
#include "lib/ipc/message.h"
#include "lib/loop/loop.h"

enum { FDS_MAX = 96, DOORS_MAX = 64 };

struct wire { /* a descriptor that a child gets, under this name */
    int fd;
    char name[32];
};

struct child {
    enum role role;
    uid_t uid;
    gid_t gid;
    pid_t pid;   /* 0: not running */
    pid_t group; /* process group of it and its sessions; outlives it */
    bool ready;
    bool renewed; /* told to go by a reload: no failure */
    uint32_t restarts;
    int64_t started_ms;
    int64_t since_s;
    int backoff_ms;
    struct loop_timer restart;
    struct loop_io control; /* our end of its control channel */
    struct wire wires[FDS_MAX];
    size_t nwires;
};

struct kept { /* a listening socket, and the line it is for: it outlives reloads */
    struct plan_listen listen;
    int fd;
};

struct door { /* a socket pair from a client's to a service's wires */
    struct child *client, *service;
    struct loop_io end; /* the service's end, to see when somebody shuts it down */
};

struct master {
    struct plan plan;
    const char *config_path;
    const char *programs_dir;
    int config_fd; /* a sealed copy of the text; -1 */
    int empty_fd;  /* the empty directory */
    bool privileged;
    struct loop loop;
    struct child children[PLAN_ROLES];
    size_t nchildren;
    struct kept sockets[PLAN_LISTEN];
    size_t nsockets;
    struct door doors[DOORS_MAX];
    size_t ndoors;
    struct loop_io control; /* run_dir/master */
    bool stopping;
    uint32_t restarts; /* of master itself */
    int died_of;       /* the signal that ended the one before */
    int64_t since_s;
};

/* plan.c: copy the configuration's text into a sealed memory file, and have it compiled into
 * *plan_r by an unprivileged child. -1 when it is bad: what is wrong was written to descriptor 2.
 */
int plan_load(struct master *m, int *config_fd_r, struct plan *plan_r);

/* wires.c: directories, sockets, doors: everything a child is given. Exit or -1 with a message. */
int wires_directories(struct master *m);
int wires_doors(struct master *m); /* between all children, once */
int wires_door(struct door *d);    /* a new pair in its place */
int wires_sockets(
    struct master *m); /* listening sockets as the plan has them; closes those that went */
void wires_known(struct master *m); /* once */
int wires_submit(struct master *m); /* the socket of sendmail(1), once */
int wires_files(struct master *m);  /* configuration, keys, aliases: again at each reload */
int wires_log(struct master *m);
void wire_set(struct child *c, int fd,
              const char *name);                     /* replaces (and closes) one of that name */
void wire_drop(struct child *c, const char *prefix); /* closes all whose names begin so */

/* spawn.c */
int spawn_child(struct master *m, struct child *c);
void spawn_cut_capabilities(void);
