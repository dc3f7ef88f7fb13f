/*
 * session: submitd's policy: mail from our own users, to anybody.
 *
 * Used by the session processes of submitd. Three ways in: "submission" (587, STARTTLS),
 * "submissions" (465, TLS first): the client is a stranger until AUTH has succeeded; and "submit",
 * the Unix socket of sendmail(1): the kernel names the user, who may still send anything. A sender
 * address must belong to who sends; over TCP the address in the From field too.
 */
#pragma once
#include "lib/smtp/server.h"

enum { SUBMITD_AUTH_FAILURES_MAX = 3 };

struct submitd { /* the listener's state, which its sessions inherit */
    struct start start;
    struct conf conf;
    struct known known;
};

/* One connection. */
void submitd_session(const struct peer *peer, void *arg);

/* The login owns this address: 1; somebody else does, or nobody: 0; cannot be said now: -1. */
int submitd_owns(struct smtp_server *s, struct str address);

/* Rows of the command table: auth.c, xqueue.c. */
void submitd_auth(struct smtp_server *s, struct str argument);
void submitd_xqueue(struct smtp_server *s, struct str argument);
/* struct smtp_policy's head: fixup.c. Adds Date, Message-ID and From where missing, removes Bcc. */
bool submitd_fixup(struct smtp_server *s, struct str head, struct buf *out);
