/*
 * service: the serving side of doors and paths, in an event loop (qmgr, authd, keyd, dnsd,
 * launcher).
 *
 * Takes new channels from the descriptors "from.ROLE" and "path.ROLE" (or
 * "from.ROLE.FRONT") of a struct start. A client's
 * role is that of the way it came. Each frame is checked against the table before message() sees
 * it; a client that breaks a rule, or does not read its answers, is closed and logged, and nobody
 * else notices. Three quarters of the places at most are one role's.
 */
#pragma once
#include "lib/ipc/message.h"
#include "lib/loop/loop.h"
#include "lib/role/start.h"

struct service;
struct client {
    struct loop_io io; /* io.fd is the channel */
    struct service *service;
    enum role role;
    enum role front; /* whose door of that role it came by, or R_NONE: see sockets_door() */
    void *state;     /* the service's own, for this client */
    struct client *next, **link;
    bool eager; /* the owner's: more than one message may lie there, and all are read in one turn */
    bool closing;
    bool outside; /* it came by a door or a path: counted for its role */
    bool door;    /* it came by a path: it may bring further channels (DOOR_OPEN) */
};

struct service {
    struct loop *loop;
    enum role me;
    size_t clients_max; /* beyond it new channels are closed at once */
    /* One request. m and what its strings point to live until it returns. */
    void (*message)(struct client *c, struct msg *m);
    void (*gone)(struct client *c); /* free c->state; may be NULL */
    void *arg;
    /* private */
    struct client *clients;
    size_t nclients;
    size_t by_role[17]; /* that came from outside: no role may take all places */
    struct msg in;
    struct service_way {
        struct loop_io io; /* a door, or a path to accept from */
        struct service *service;
        enum role role, front; /* of who comes by it */
    } ways[2 * 16];
    size_t nways;
};

/* Register all entries of st with the loop. */
int service_init(struct service *s, struct loop *l, const struct start *st);
/* Take over a channel whose other end has this role (qmgr's own routes). NULL when memory is out.
 */
struct client *service_adopt(struct service *s, int fd, enum role role, void *state);
/* Answer. A client whose queue is full is closed: 0, or -1 when it was. */
int service_send(struct client *c, const struct msg *m);
/* Answer FAILED. */
int service_fail(struct client *c, enum err_class class, const char *text);
/* Close soon (after the current callback); gone() is called then. */
void service_close(struct client *c);
/* Another process has our paths from now on: nobody comes by them any more. Doors stay, for those
 * that hold them. */
void service_leave(struct service *s);
/* Whether nobody holds a door or a channel any more. */
bool service_deserted(const struct service *s);
