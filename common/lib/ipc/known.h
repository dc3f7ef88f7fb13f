/*
 * known: a page of memory on which authd notes the recipients it has just called known, so that
 * smtpd and submitd need not ask again for each message; and local, which asks which account an
 * address is, sees by the page's key whether an answer it had still stands.
 *
 * master makes the memory, once: authd maps it and writes; the others have a descriptor that only
 * reads, and read the few bytes they need (a mapping would cost each session a fork's copy of it
 * and two faults). It holds keyed hashes, no names. authd forgets all of it before it answers any
 * change of accounts, aliases or configuration, and when it starts; so nothing stands there that
 * authd would not say. Who finds nothing asks.
 *
 * Programs that master did not start have no such page, and always ask.
 */
#pragma once
#include "lib/base/siphash.h"
#include "lib/role/start.h"

enum { KNOWN_SLOTS = 65536 };

struct known_page {
    struct sipkey key;
    uint64_t slots[KNOWN_SLOTS]; /* a hash at its place, or 0 */
};

struct known {
    int fd;                  /* to read; -1: none */
    struct known_page *page; /* to write; NULL: none */
};

/* New memory for a page, of fixed size: one descriptor to write and one to read. */
int known_make(int *write_r, int *read_r, struct err *e);
/* The descriptor "map.known" of st, if there is one; write: authd. */
void known_open(struct known *k, const struct start *st, bool write);
/* For authd. Forget all; the hashes are keyed anew. */
void known_clear(struct known *k);
void known_note(struct known *k, struct str address);
/* For the others. Whether authd has said so. Letter case makes no difference. */
bool known_has(const struct known *k, struct str address);
/* A number that changes before accounts, aliases or configuration do: what authd answered after it
 * was read stands as long as it is the same. False: there is no page, ask. */
bool known_epoch(const struct known *k, struct sipkey *epoch_r);
