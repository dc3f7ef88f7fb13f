/* A keyd of its own for tests: fresh keys and certificates, a child process, and a door to it. */
#pragma once
#include "keyd/keys.h"
#include "lib/role/start.h"
#include <sys/types.h>

struct keyring {
    struct start start; /* of the client: has "to.keyd" */
    pid_t pid;
};

/* names: of the certificates, NULL at the end; "rsa." or "ec." in front says which kind of key. */
void keyring_start(struct keyring *k, enum role client, const char *const *names);
void keyring_stop(struct keyring *k);
/* A tlsd for one front: door gets the front's end ("to.tlsd"). Sessions are its children. */
pid_t keyring_tlsd(struct keyring *k, struct start *front);
/* One key and its certificate as files (memory): the descriptors. */
void keyring_pair(const char *name, int *key_fd, int *chain_fd);
/* The child's end of a door pair: what a service calls "from.CLIENT". */
void keyring_door(struct start *client, struct start *service, enum role from, enum role to);
