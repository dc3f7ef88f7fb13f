/*
 * thread: the trees of THREAD (RFC 5256 3), from what is known of each message.
 *
 * Identifiers and subjects come as keyed hashes of 64 bits: nobody can make two that collide, and
 * a message costs a few dozen bytes. All steps are loops over arrays, linear in messages and
 * references but for one sort (catalogue G20): a chain of 100,000 costs no more than 100,000
 * messages apart, and a loop of references is cut where it would close. Parents that messages name
 * themselves are linked before those that other messages' References only suggest: what comes out
 * is what the RFC's order gives, since it lets the former replace the latter.
 *
 * Limit: ICELL_REFS_MAX references a message: the first one and the last ones.
 */
#pragma once
#include "lib/base/arena.h"

enum { ICELL_REFS_MAX = 100 };
#define ICELL_THREAD_NONE UINT32_MAX

struct icell_thread_message {
    uint32_t number;  /* as the client counts */
    int64_t date_s;   /* sent */
    uint64_t id;      /* 0: none */
    uint64_t subject; /* the base subject; 0: empty */
    bool reply;       /* or forward */
    uint64_t *refs;   /* oldest first */
    uint32_t nrefs;
};

/* A forest. Nodes 0 to nmessages-1 are the messages; those behind stand for messages that are
 * not there. */
struct icell_forest {
    const struct icell_thread_message *messages;
    size_t nmessages, n;
    uint32_t *parent; /* ICELL_THREAD_NONE: a root */
    uint32_t *first;  /* child */
    uint32_t *next;   /* sibling, or root */
    uint32_t root;    /* the first */
};

/* Messages in the mailbox's order. -1: the arena is full. */
int icell_thread_references(const struct icell_thread_message *m, size_t n, struct arena *arena,
                            struct icell_forest *f_r);
int icell_thread_subjects(const struct icell_thread_message *m, size_t n, struct arena *arena,
                          struct icell_forest *f_r);
/* " (1 2)(3 (4)(5))", told in pieces. */
void icell_thread_put(const struct icell_forest *f, void (*put)(void *to, struct str piece),
                      void *to);
