/*
 * giveway: who leaves when a listener is full and another client comes (catalogue J1).
 *
 * Decisions only, no processes. A session that has settled (its client has logged in) stays. Of the
 * others the oldest goes, but only one whose network holds at least as many as the newcomer's, so
 * that a crowd displaces itself; where one network holds many times as many (GIVEWAY_CROWD) it is
 * that one's, at once. Else a session has GIVEWAY_MS first: a client that works is through before
 * its turn comes.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { GIVEWAY_MS = 2000, GIVEWAY_CROWD = 4 };

struct session {      /* one running child of a listener */
    pid_t pid;        /* 0: the place is free */
    uint64_t address; /* keyed hash of the peer's address, or its door; 0: not counted */
    uint64_t network; /* of its network: /24, or /48 of IPv6 */
    int64_t began_ms;
    bool settled;
    bool leaving; /* it has been told */
    struct session *next;
};

/* The session that is to leave for a newcomer of this network, or NULL: then that one is refused.
 * of_it: it must be one of that network (a door's places are its own). */
struct session *giveway(struct session *all, size_t n, uint64_t network, bool of_it, int64_t at_ms);
