/*
 * wire: a connection to a mail server, from connect() to QUIT.
 *
 * relay only. The server is a stranger: its replies are bounded and cleaned by lib/smtp/reply, each
 * command has a deadline. STARTTLS is used when it is offered, without asking who it is (RFC 7435);
 * when the handshake fails, the same address is tried once more in clear. Bytes that come behind
 * the 220 of STARTTLS end the connection (catalogue B3).
 */
#pragma once
#include "lib/smtp/ehlo.h"
#include "lib/smtp/reply.h"
#include "relay/route.h"

struct wire {
    const struct relay *relay;
    bool open;
    int fd;
    struct stream io;
    struct tls *tls;
    unsigned extensions;
    uint64_t size_max; /* 0: none said */
    struct smtp_reply reply;
    char name[RELAY_NAME_MAX + 1]; /* "mx.example.org[192.0.2.1]:25" */
    bool dirty;                    /* a transaction was left open: RSET first */
    bool no_tls;                   /* it offers it, and it could not be had */
    unsigned messages;
    int64_t give_up_ms; /* whatever the server does */
};

/* Connect and greet. -1 with *v_r, which is LATER: try the next address. */
int wire_open(struct wire *w, const struct relay *relay, const struct target *t,
              struct verdict *v_r);
/* From now on the deadline of one command holds. */
void wire_deadline(struct wire *w);
/* Read one reply into w->reply, with the deadline of a command. */
int wire_reply(struct wire *w, struct err *e);
/* One command line and its reply. */
int wire_command(struct wire *w, struct err *e, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Whether the reply refuses for good: not when it asks for the TLS that could not be had (RFC 3207
 * 4). */
bool wire_refuses(const struct wire *w);
/* The reply as a verdict: "host NAME said: 550 5.1.1 ... (in reply to RCPT TO)". A later one has a
 * status of class 4 whatever the server said. */
void wire_verdict(struct wire *w, struct verdict *v, enum outcome outcome, const char *command);
/* The connection failed: LATER 4.4.2. */
void wire_lost(const struct wire *w, struct verdict *v, const char *during, const struct err *e);
/* QUIT if polite and possible, close. */
void wire_close(struct wire *w, bool polite);
