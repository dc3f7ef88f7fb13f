/*
 * server: the SMTP dialogue of a server (RFC 5321), for one connection: what smtpd and submitd
 * share.
 *
 * A session process fills a struct smtp_server and calls smtp_server_run(). What differs between
 * the two programs is in struct smtp_policy: who may send, who may receive, what is done to the
 * header, and further commands. The client's bytes are a stranger's.
 *
 * A command is a row in a table: its name, the states it is legal in, whether it must be the last
 * of a pipelined group, and its function. All state of a mail transaction is struct
 * smtp_transaction, with one reset, called on every way out of it: RSET, EHLO, STARTTLS, the end of
 * DATA however it ended.
 *
 * Limits: SMTP_LINE_MAX (lib/smtp/command.h), SMTP_ERRORS_MAX, the configuration's recipients_max,
 * message_size_max, hops_max, idle and session times.
 */
#pragma once
#include "lib/conf/conf.h"
#include "lib/ipc/known.h"
#include "lib/ipc/remote.h"
#include "lib/loop/listener.h"
#include "lib/queue/qclient.h"
#include "lib/role/starttls.h"
#include "lib/smtp/command.h"
#include "lib/smtp/ehlo.h"
#include "lib/smtp/head.h"

enum {
    SMTP_ERRORS_MAX = 20,
    SMTP_JUNK_MAX = 100, /* NOOP, RSET and the like between two messages; then each is an error */
    SMTP_VERBS_MAX = 24,
    SMTP_ASK_MS = 30000, /* authd's answer */
};

enum smtp_state {
    SMTP_NEW = 1 << 0,     /* no HELO yet */
    SMTP_GREETED = 1 << 1, /* no transaction */
    SMTP_MAIL = 1 << 2,    /* a sender */
    SMTP_RCPT = 1 << 3,    /* a sender and a recipient */
    SMTP_ANY = (1 << 4) - 1,
};

struct smtp_server;

struct smtp_verb {
    const char *name;
    unsigned states; /* legal in; else 503 */
    bool last;       /* input behind it in the same group breaks synchronisation (RFC 2920 3.1) */
    bool junk;       /* does no work: see SMTP_JUNK_MAX */
    void (*run)(struct smtp_server *s, struct str argument);
};

struct smtp_policy {
    const struct smtp_verb *verbs; /* beside those of every server */
    size_t nverbs;
    /* Each of the two: true when the address is welcome; else it has answered (smtp_reject). A NULL
     * address is the sender <>. */
    bool (*sender)(struct smtp_server *s, const struct address *a);
    bool (*recipient)(struct smtp_server *s, const struct address *a);
    /* Extensions to offer now, beside the common ones. NULL: none. */
    unsigned (*extensions)(const struct smtp_server *s);
    /* The header as it came to the header as it is to be queued. NULL: it stays as it is. On false,
     * the refusal is in s->refusal (smtp_refuse). */
    bool (*head)(struct smtp_server *s, struct str head, struct buf *out);
};

struct smtp_transaction {
    struct arena arena; /* the addresses */
    struct str sender;
    bool null_sender;
    bool eight_bit;
    uint8_t ret;              /* enum dsn_ret */
    struct str envid;         /* RFC 3461 4.4, or empty */
    struct qfile_rcpt *rcpts; /* in the arena, grown as they come */
    size_t nrcpt, rcpts_cap;
};

struct smtp_refusal { /* of a message, decided while it comes in; answered at its end */
    unsigned code;    /* 0: none */
    char status[12];
    char text[256];
};

struct smtp_server {
    /* Filled by the program. */
    const struct smtp_policy *policy;
    const struct start *start;
    const struct conf *conf;
    const struct conf_service *limits;
    const struct peer *peer;
    void *arg;
    const struct known *known; /* recipients that need no question, or NULL */
    enum role role;
    const char *origin; /* of the envelope: "smtp", "submission", "sendmail" */
    bool tls_possible;  /* STARTTLS is offered */
    bool tls_first;     /* TLS before the first line */
    bool qualify;       /* addresses without a domain get ours */
    bool local;         /* the peer is a local user, peer->uid */

    struct stream io;
    struct remote authd;
    struct qclient queue;

    /* The session, but for the transaction. */
    enum smtp_state state;
    char helo[ADDRESS_DOMAIN_MAX + 1];
    bool esmtp, tls;
    char tls_text[STARTTLS_TEXT_MAX];
    char login[QFILE_ADDR_MAX + 1]; /* the account, after AUTH */
    char client[64];                /* "[192.0.2.1]", "uid 1000": for logs */
    unsigned errors, junk, rejected, auth_failures;
    unsigned counts[SMTP_VERBS_MAX]; /* commands seen, by row */
    const char *last_verb;
    bool leave;     /* after the next flush, close */
    bool batch;     /* the commands of a local user come from a file, and wait for no reply */
    bool data_said; /* 354: what follows is a message */
    struct smtp_refusal refusal;
    struct smtp_transaction tx;

    /* Where its buffers begin: side by side, since each page that a process touches after its
     * fork costs as much as a few system calls. */
    struct {
        _Alignas(max_align_t) char transaction[1024];
        char in[4096], out[512], message[6144];
    } room;
};

/* The whole connection, from the greeting (or TLS) to the close. */
void smtp_server_run(struct smtp_server *s);

/* For commands and policies. */

/* A reply. Codes 500 to 504 count as errors of the client. */
void smtp_say(struct smtp_server *s, unsigned code, const char *status, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* A reply that refuses MAIL or RCPT, and the log line of it; what is the command's name, address
 * what it named. Always false. */
bool smtp_reject(struct smtp_server *s, const char *what, struct str address, unsigned code,
                 const char *status, const char *fmt, ...) __attribute__((format(printf, 6, 7)));
/* Decide that the message that is coming in is refused; the first decision stands. Always false. */
bool smtp_refuse(struct smtp_server *s, unsigned code, const char *status, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* The same as smtp_say(), and the connection ends. */
void smtp_leave(struct smtp_server *s, unsigned code, const char *status, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* A read or write has failed: the connection ends, with a 421 if it was for lack of time. */
void smtp_lost(struct smtp_server *s, const struct err *e);
/* Forget the transaction. */
void smtp_reset(struct smtp_server *s);
/* Whether authd has called this recipient known; if not, ask. */
bool smtp_is_known(const struct smtp_server *s, struct str address);
/* Who an address is, from authd if its domain is ours. account needs QFILE_ADDR_MAX + 1 bytes. */
int smtp_ask_address(struct smtp_server *s, struct str address, enum address_kind *kind_r,
                     char *account, struct err *e);
/* The same for a user ID: ADDRESS_ACCOUNT and its name, or ADDRESS_UNKNOWN. Of several accounts
 * that share it, the one that sender is an address of, if any is. */
int smtp_ask_uid(struct smtp_server *s, uid_t uid, struct str sender, enum address_kind *kind_r,
                 char *account, struct err *e);
/* Add our domain to a name without one. */
int smtp_qualify(const struct smtp_server *s, struct str local, struct address *a_r, struct err *e);
/* The domain that names without one get: the primary domain, or the host's name. */
struct str smtp_origin_domain(const struct conf *conf);
