/*
 * sendmail: the command that every Unix program knows, as a client of submitd.
 *
 * Run by anybody, with no privilege: it reads a message from descriptor 0 and speaks SMTP to
 * submitd's Unix socket, where the kernel says who the user is. Options are those of Postfix's
 * sendmail(1). Exit status: sysexits(3). What it reads is the user's own; what submitd must not
 * believe, submitd checks.
 */
#pragma once
#include "lib/base/arena.h"
#include "lib/io/stream.h"
#include "lib/mail/dsn.h"
#include "lib/smtp/ehlo.h"
#include "lib/smtp/head.h"

enum { SENDMAIL_RCPT_MAX = 1000, SENDMAIL_CHUNK = 65536 };

struct sendmail_options {
    enum {
        SENDMAIL_DELIVER, /* -bm */
        SENDMAIL_SMTP,    /* -bs */
        SENDMAIL_QUEUE,   /* -bp, mailq */
        SENDMAIL_ALIASES, /* -bi, -I, newaliases */
        SENDMAIL_VERIFY,  /* -bv */
        SENDMAIL_DAEMON,  /* -bd, -bl, -q */
        SENDMAIL_NOTHING, /* -bh, -bH */
    } mode;
    const char *config;            /* -C */
    const char *sender;            /* -f, -r; NULL: the login name */
    const char *full_name;         /* -F; NULL: from the user database */
    bool from_header;              /* -t: recipients from the message */
    bool ignore_dots;              /* -i */
    bool eight_bit;                /* -B 8BITMIME */
    bool verbose;                  /* -v */
    uint8_t notify;                /* -N: enum dsn_notify */
    uint8_t ret;                   /* -R: enum dsn_ret */
    char envid[DSN_ENVID_MAX + 1]; /* -V, as xtext */
    char **rcpts;                  /* the arguments behind the options */
    size_t nrcpts;
};
/* 0, or EX_USAGE with a message on stderr. */
int sendmail_options(int argc, char **argv, struct sendmail_options *o_r);

/* Descriptor 0, in pieces of whole lines where it matters. */
struct sendmail_input {
    int fd;
    bool dot_ends; /* a line of a single dot is the end */
    bool in_line;  /* the last piece did not end a line */
    bool ended;
    size_t at, n;
    char chunk[SENDMAIL_CHUNK];
};
/* 1: a piece, valid until the next call; 0: the end; -1: errno. */
int sendmail_read(struct sendmail_input *in, struct str *piece_r);

/* The message: its header as it will be sent, and the first of its body. */
struct sendmail_letter {
    struct sendmail_input input;
    struct buf raw;  /* what was read so far */
    struct str head; /* of raw */
    struct str body; /* of raw: more follows in input */
    bool has_from;
};
/* Read up to the end of the header. 0, or an exit status with a message on stderr. */
int sendmail_letter_open(struct sendmail_letter *l, const struct sendmail_options *o);
/* The header to send, into out: without Bcc when recipients come from it; with a From made of name
 * and address when it has none. */
void sendmail_letter_head(const struct sendmail_letter *l, const char *name, struct str address,
                          struct buf *out);

/* Recipients: bare addr-specs, each ending with a NUL. */
struct sendmail_rcpts {
    struct arena arena;
    struct str at[SENDMAIL_RCPT_MAX];
    size_t n;
};
/* Add all mailboxes of an address list. 0, or an exit status with a message. */
int sendmail_rcpts_add(struct sendmail_rcpts *r, struct str list);
int sendmail_rcpts_from(struct sendmail_rcpts *r, const struct sendmail_letter *l);

/* The modes that talk to submitd. Each returns an exit status. */
int sendmail_submit(const struct sendmail_options *o);
int sendmail_verify(const struct sendmail_options *o);
int sendmail_list(const struct sendmail_options *o);
int sendmail_proxy(const struct sendmail_options *o);
/* A connection to submitd, or -1 with a message. */
int sendmail_connect(const struct sendmail_options *o);
/* Everything: options, mode. */
int sendmail_run(int argc, char **argv);
