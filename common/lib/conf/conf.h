/*
 * conf: /etc/bulkhead/bulkhead.conf, read and checked.
 *
 * Every program reads the same text (master passes one sealed copy to all) and takes what concerns
 * it. The text is the operator's: trusted, but mistaken. All errors are reported at once, each with
 * line, column and the nearest valid word; an unknown word is an error.
 *
 * The grammar is a table (words.c): blocks, and in them words with typed values. To add a word, add
 * a field here and a row there; bulkhead.conf(5) is checked against the table.
 *
 * All text lies in the arena of the struct and ends with a NUL.
 */
#pragma once
#include "lib/base/arena.h"
#include "lib/base/buf.h"
#include "lib/base/err.h"
#include "lib/base/network.h"

enum {
    CONF_TEXT_MAX = 1 << 20,
    CONF_LIST_MAX = 1000, /* domains */
    CONF_LISTEN_MAX = 16, /* in a block */
    CONF_KEYS_MAX = 16,
    CONF_RUN_MAX = 79, /* bytes of the run directory: paths of sockets are short */
    CONF_RESOLVERS_MAX = 3,
    CONF_NETWORKS_MAX = 64,
    CONF_ERRORS_MAX = 50,
};

struct conf_listen {
    struct str host; /* "*", an address */
    uint16_t port;
    bool tls; /* TLS from the first byte */
};

struct conf_service { /* smtpd, submitd, pop3d, imapd */
    bool present;     /* the block is there: the program runs */
    struct conf_listen listen[CONF_LISTEN_MAX];
    size_t nlisten;
    unsigned listen_line[CONF_LISTEN_MAX], listen_column[CONF_LISTEN_MAX]; /* 0: by default */
    uint32_t sessions_max, sessions_per_ip_max;
    uint32_t idle_s;    /* between two commands */
    uint32_t park_s;    /* imapd: silence in IDLE after which a session is put away */
    uint32_t session_s; /* in all: smtpd and submitd only */
};

struct conf_key {
    struct str chain, key; /* PEM files */
    unsigned fronts;       /* the programs (a set of enum role) whose clients it is for */
};

struct conf_resolver {
    struct str host;
    uint16_t port;
};

struct conf {
    struct arena arena;
    struct str path; /* for messages */

    struct str hostname;
    struct str domains[CONF_LIST_MAX]; /* lower case; the first is the primary one */
    size_t ndomains;
    struct str postmaster; /* an address */
    struct str aliases;    /* path */
    struct str run_dir;    /* sockets, the empty directory */
    struct str queue_dir;
    struct str state_dir;   /* accounts */
    struct str mail_dir;    /* below it: the directories of virtual accounts */
    struct str user_prefix; /* "bh-": the users of the roles are bh-smtpd, ... */
    struct str log;         /* "syslog", "stderr", or a path */
    bool log_debug;
    struct conf_key keys[CONF_KEYS_MAX]; /* the first is the default one */
    size_t nkeys;
    struct conf_resolver resolvers[CONF_RESOLVERS_MAX]; /* none: those of /etc/resolv.conf */
    size_t nresolvers;
    uint64_t message_size_max;    /* bytes */
    uint32_t recipients_max;      /* of one message */
    uint32_t hops_max;            /* Received fields */
    uint32_t uid_first, uid_last; /* for accounts without a system user */
    struct str delimiter;         /* of subaddresses: "+" */
    uint64_t quota_bytes;         /* of an account's Maildir; 0: no limit */
    uint32_t quota_messages;
    bool quota_wait; /* mail for a full one waits in the queue, or is returned */

    struct conf_service smtpd, submitd, pop3d, imapd;
    struct network relay_from[CONF_NETWORKS_MAX]; /* smtpd: clients here may send anywhere */
    size_t nrelay_from;
    bool relayclient; /* smtpd: RELAYCLIENT in the environment lets a client relay (inetd mode) */

    struct {
        uint32_t retry_min_s, retry_max_s, expire_s;
        uint32_t bounce_expire_s, list_expire_s; /* of mail from <>; of bulk mail */
        uint32_t warn_after_s;
        uint32_t user_messages_max; /* of a local user, by sendmail(1), in the queue at once */
        uint64_t user_size_max;
        uint32_t local_max;       /* deliveries to local at once */
        uint32_t relay_max;       /* relay sessions at once */
        uint32_t destination_max; /* relay sessions to one destination */
    } queue;

    struct {
        uint16_t port;     /* 25 */
        struct str host;   /* a smarthost, or empty: by MX */
        struct str source; /* local address, or empty */
        uint32_t connect_s, command_s, data_s;
        bool tls; /* opportunistic STARTTLS */
    } relay;

    struct str libexec_dir; /* where the programs lie */
};

struct conf_error {
    unsigned line, column;
    char text[200];
};
struct conf_errors {
    struct conf_error at[CONF_ERRORS_MAX];
    size_t n, suppressed;
};

/* Parse and check text into a fresh conf. 0, or -1 with at least one error. */
int conf_parse(struct conf *conf, struct str path, struct str text, struct conf_errors *errors_r);
/* Read fd (from its start, at most CONF_TEXT_MAX) and parse. */
int conf_read(struct conf *conf, struct str path, int fd, struct conf_errors *errors_r);
void conf_free(struct conf *conf);
/* How many certificates this program (enum role) has. */
size_t conf_keys(const struct conf *conf, unsigned front);
/* Whether smtpd takes mail for other domains from this client, an address as text. */
bool conf_relays_for(const struct conf *conf, struct str ip);
/* Whether mail for this domain (any case) is delivered here. */
bool conf_is_local(const struct conf *conf, struct str domain);
/* The same, or it is the host's own name: nobody else's mail goes there. */
bool conf_is_ours(const struct conf *conf, struct str domain);
/* The host's own name where it is the primary domain by another name; else, being one of the
 * domains, empty. */
struct str conf_other_name(const struct conf *conf);
/* Where the mail of an account lies that names no directory: "MAIL/DOMAIN/USER", in lower case. */
struct str conf_maildir(const struct conf *conf, struct str account, struct buf *out);
