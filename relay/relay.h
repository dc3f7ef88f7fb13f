/*
 * relay: what a relay session knows: its context, the message it carries, and what became of it.
 *
 * Used by all of relay. What qmgr sends is checked but meant well; what servers say is a
 * stranger's. A session serves one route (one domain) and answers every recipient of every message
 * exactly once, with the server's words quoted and cut to RELAY_TEXT_MAX.
 */
#pragma once
#include "lib/conf/conf.h"
#include "lib/ipc/message.h"
#include "lib/queue/qfile.h"
#include "lib/role/start.h"
#include "lib/tls/tls.h"

enum {
    RELAY_TEXT_MAX = 1000,
    RELAY_NAME_MAX = 320,
    RELAY_IDLE_MS = 5000,     /* an open connection waits so long for the next message */
    RELAY_FIRST_MS = 60000,   /* a fresh channel waits so long for its route */
    RELAY_MESSAGES_MAX = 100, /* over one connection */
    RELAY_TRANSACTION_MS = 3600 * 1000,
};

/* Made once in the listener. */
struct relay {
    const struct start *start;
    const struct conf *conf;
    struct tls_client *tls; /* NULL: never STARTTLS */
};

struct verdict {
    enum outcome outcome;
    char dsn[12];                   /* "4.4.1" */
    char text[RELAY_TEXT_MAX + 1];  /* printable ASCII */
    char relay[RELAY_NAME_MAX + 1]; /* "mx.example.org[192.0.2.1]:25", or "none" */
};

enum recipient_state { RCPT_OPEN, RCPT_ACCEPTED, RCPT_SETTLED };
struct recipient {
    uint32_t index;
    struct str address;
    struct str orcpt; /* RFC 3461: to be passed on as it is, or empty */
    unsigned notify;  /* enum dsn_notify */
    enum recipient_state state;
};

/* One M_DELIVER. Strings point into in. */
struct delivery {
    int channel; /* to qmgr */
    struct msg in;
    int fd; /* the message, read-only; its file position is never used */
    struct str id, sender;
    uint64_t offset, size;
    uint64_t check; /* of the message: qfile.h */
    bool eight_bit;
    unsigned ret;     /* enum dsn_ret */
    struct str envid; /* RFC 3461 */
    uint32_t n;
    struct recipient *rcpts;
    bool lost; /* qmgr does not listen any more */
};

/* Fill in; text is printf's, cut, and cleaned of all but printable ASCII. relay is kept. */
void verdict_set(struct verdict *v, enum outcome outcome, const char *dsn, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* Read d->in (an M_DELIVER). On -1 the message breaks the rules. */
int delivery_read(struct delivery *d, struct err *e);
/* Tell qmgr what became of one recipient, once. */
void delivery_settle(struct delivery *d, struct recipient *r, const struct verdict *v);
/* The same for all that are in this state. */
void delivery_settle_all(struct delivery *d, enum recipient_state state, const struct verdict *v);
bool delivery_open(const struct delivery *d); /* whether any is not settled */
void delivery_reset(struct delivery *d);      /* for the next message; keeps the channel */
