/*
 * aliases: /etc/aliases (aliases(5)) in memory.
 *
 * Used by local, which expands, and by authd, which knows who exists. The text is the operator's:
 * trusted, but mistaken. Lines that cannot be used are reported and make the table incomplete,
 * which callers must treat as "unknown for now": nothing bounces because of a typing error.
 *
 *   name: target, target ...      # names and targets without a domain are of the primary domain
 *   name@domain: target           # continued by lines that begin with white space
 *
 * Targets are addresses. Deliveries to commands, files and :include: lists are refused with a
 * message. Limits: ALIASES_TEXT_MAX bytes, ALIASES_MAX names, ALIASES_TARGETS_MAX targets of one
 * name.
 */
#pragma once
#include "lib/base/arena.h"
#include "lib/base/err.h"
#include "lib/base/siphash.h"

enum { ALIASES_TEXT_MAX = 16 << 20, ALIASES_MAX = 200000, ALIASES_TARGETS_MAX = 1000 };

struct alias {
    struct str name;     /* lower case, with its domain */
    struct str *targets; /* with their domains; not lower-cased */
    size_t ntargets;
    bool broken;        /* its line cannot be used: mail for this name waits until it is mended */
    struct alias *next; /* in its bucket */
};

struct aliases {
    struct arena arena;
    struct alias **buckets;
    size_t nbuckets, n;
    struct sipkey key;
    size_t bad_lines; /* the table is incomplete */
    size_t lines;
};

/* Parse. other_name: the primary domain by another name, which becomes that one; or empty.
 * report(line, text) is called for each bad line. -1 only when memory is out or the text is too
 * large. */
int aliases_parse(struct aliases *a, struct str text, struct str primary_domain,
                  struct str other_name, void (*report)(size_t line, const char *what),
                  struct err *e);
/* The same from a descriptor; an empty file is an empty table. */
int aliases_read(struct aliases *a, int fd, struct str primary_domain, struct str other_name,
                 void (*report)(size_t line, const char *what), struct err *e);
void aliases_free(struct aliases *a);
/* The alias of exactly this address (any case), or NULL. */
const struct alias *aliases_find(const struct aliases *a, struct str address);
/* The alias for a recipient: first with its subaddress, then without (delimiter: one character). */
const struct alias *aliases_for(const struct aliases *a, struct str local, struct str domain,
                                char delimiter);
