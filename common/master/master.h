/*
 * master: the supervisor. Root, with its capabilities cut to what it uses; sees no byte from the
 * network, the queue or a mailbox. Everything it takes from others is a struct of fixed size.
 */
#pragma once
#include "common/master/plan.h"
#include "lib/ipc/message.h"
#include "lib/loop/loop.h"
#include "lib/role/start.h"

enum { FDS_MAX = 96, DOORS_MAX = 64 };

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
    struct loop_io control;         /* our end of its control channel */
    struct start_fd wires[FDS_MAX]; /* what it is given */
    size_t nwires;
};

struct door { /* a socket pair from a client's to a service's wires */
    struct child *client, *service;
    const char *more;   /* in its name: see sockets_door() */
    struct loop_io end; /* the service's end, to see when somebody shuts it down */
};

struct master {
    struct plan plan;
    const char *config_path;
    const char *programs_dir;
    int config_fd; /* a sealed copy of the text */
    int aliases_fd;
    bool privileged;
    struct loop loop;
    struct child children[PLAN_ROLES];
    size_t nchildren;
    int sockets[PLAN_LISTEN]; /* of plan.listen; one whose line stays outlives a reload */
    size_t nsockets;
    struct door doors[DOORS_MAX];
    size_t ndoors;
    void (*on_door_shut)(struct loop_io *io, unsigned events);
    struct loop_io control; /* run_dir/master */
    bool stopping;
    uint32_t restarts; /* of master itself */
    int died_of;       /* the signal that ended the one before */
    int64_t since_s;
};

/* plan.c: have the configuration compiled by an unprivileged child. -1 when it is bad: what is
 * wrong was written to descriptor 2. */
enum { PLAN_FDS = 3 };
struct plan_made {
    struct plan plan;
    int fds[PLAN_FDS]; /* the text, sealed; the page of known recipients, to write and to read */
};
int plan_load(const struct master *m, struct plan_made *made_r);

/* wires.c: directories, sockets, doors: everything a child is given. -1 with a message logged. */
int wires_directories(struct master *m);
int wires_doors(struct master *m);                 /* between all children, once */
void wires_door(struct master *m, struct door *d); /* a new pair in its place */
/* Listening sockets as the plan has them; closes those that went. */
int wires_sockets(struct master *m, const struct plan *plan);
/* Once: authd writes the page of known recipients (lib/ipc/known.h), smtpd and submitd read. It
 * stays for good, so that a new authd clears what the old one wrote. Closes both. */
void wires_known(struct master *m, int write_fd, int read_fd);
void wires_files(struct master *m); /* configuration, keys, aliases: again at each reload */
int wires_log(struct master *m);
int wires_nothing(int last); /* descriptors 0 to last lead nowhere */

/* spawn.c */
int spawn_child(struct master *m, struct child *c);
void spawn_cut_capabilities(void);
