/*
 * addrlist: the addresses of a From, To, ... field, as IMAP's ENVELOPE wants them (RFC
 * 5322 3.4, 4.4; RFC 3501 7.4.2).
 *
 * The text is a stranger's, and often malformed: every text gives a list, maybe an empty one. One
 * pass, no recursion; each step takes at least one byte.
 *
 * Limit: ADDRLIST_MAX entries a field; the rest is not looked at.
 */
#pragma once
#include "lib/base/arena.h"

enum { ADDRLIST_MAX = 5000 };

enum addrlist_kind {
    ADDRLIST_ADDRESS,
    ADDRLIST_GROUP_START, /* mailbox is the group's name */
    ADDRLIST_GROUP_END,
};

struct addrlist_entry {
    enum addrlist_kind kind;
    struct str name;    /* unquoted; of "<...>" the phrase, else the comment; n 0: none */
    struct str route;   /* "@a,@b" */
    struct str mailbox; /* the local part, unquoted */
    struct str host;    /* "" when there is none */
};

struct addrlist {
    struct addrlist_entry *at;
    size_t n;
};

/* All text lies in the arena. -1: the arena is full. */
int addrlist_parse(struct str value, struct arena *arena, struct addrlist *list_r);
