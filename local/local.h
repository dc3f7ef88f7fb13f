/*
 * local: the delivery agent: aliases, then Maildirs, each by a cell of the account's own user.
 *
 * A listener whose connections are channels that qmgr opens; each gets a process, which serves one
 * message after another in a straight line. Those that lie in the channel together go to their
 * cells together, and are answered in the order they came. Trusts: the operator's aliases. Reads of
 * a stranger's message only its header, for the loop check. Opens nothing: cells come from authd.
 */
#pragma once
#include "lib/conf/conf.h"
#include "lib/ipc/known.h"
#include "lib/ipc/remote.h"
#include "lib/loop/listener.h"
#include "lib/mail/aliases.h"

enum { CELLS_KEPT = 8, ANSWERS_KEPT = 8, EXPAND_MAX = 5000, HEADER_READ_MAX = 256 * 1024 };
enum { BATCH_MAX = CELLS_KEPT }; /* no cell that one of a batch waits for is closed for another */

struct local {
    const struct start *start;
    const struct conf *conf;
    struct aliases aliases;
    struct known known;
};

struct answer { /* of authd: this address is this account's */
    bool final;
    char address[256]; /* "": none */
    char account[128];
};

struct cell { /* kept for the next message to the same account */
    int fd;   /* channel; -1: none */
    char account[128];
    unsigned used;    /* by the session's counter */
    unsigned started; /* the same: which one it is */
};

struct result { /* the answer for one recipient */
    enum outcome outcome;
    const char *dsn;
    char text[400];
};

struct delivery { /* one DELIVER */
    struct str id, sender, address;
    uint32_t index;
    int64_t arrived_us;
    uint64_t offset, size, check;
    bool again;
    int fd;
    char account[128];
    bool to_cell;
    struct cell *cell; /* asked, */
    unsigned started;  /* this one */
    struct result result;
};

struct local_session {
    const struct local *local;
    struct remote authd;
    struct sipkey epoch; /* answers and cells stand while it lasts */
    struct cell cells[CELLS_KEPT];
    unsigned clock;
    struct answer answers[ANSWERS_KEPT];
    unsigned answered;
    struct delivery batch[BATCH_MAX]; /* not answered yet */
    size_t nbatch;
    unsigned stuck;         /* the cell that was given up waiting for */
    struct buf header;      /* of one message */
    struct arena arena;     /* of one batch */
    struct arena expansion; /* of one recipient */
};

/* session.c */
void local_session(const struct peer *peer, void *arg);

/* expand.c: where aliases lead from this address. 0 and *n_r == 0: it is no alias. Addresses that
 * end at an account of ours begin with a backslash. -1 with ERR_TEMPORARY (the table is incomplete
 * and does not know this address) or ERR_PERMANENT (the aliases lead nowhere). */
int expand_address(const struct local *l, struct arena *arena, struct str address,
                   struct str **addresses_r, size_t *n_r, struct err *e);

/* deliver.c: into the Maildir of d->account. Whether it went through this very address before; the
 * result says so. */
bool deliver_was_here(struct local_session *s, struct delivery *d);
/* 0: its cell has been asked; -1 with the result: it has not, and will not be. */
int deliver_begin(struct local_session *s, struct delivery *d);
/* What came of it, into the result; of all that one cell was asked, in that order. */
void deliver_end(struct local_session *s, struct delivery *d);
void deliver_close_cells(struct local_session *s);
