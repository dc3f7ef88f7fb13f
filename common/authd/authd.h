/*
 * authd: who exists, what their password is, where their mail lies, and whether a cell may be
 * started.
 *
 * Trusts: the operator's accounts file and aliases. Serves smtpd, submitd, local, the fronts and
 * bulkhead(8) over channels; what they send is checked. Password hashes never leave it; each
 * password is tried by a forked worker, so that a slow hash holds up nobody.
 */
#pragma once
#include "lib/conf/conf.h"
#include "lib/ipc/known.h"
#include "lib/ipc/service.h"
#include "lib/mail/aliases.h"

enum {
    ACCOUNTS_MAX = 1000000,
    ACCOUNT_NAME_MAX = 127, /* fits struct cell_request */
    ACCOUNT_DIR_MAX = 255,
    HASH_MAX = 256,
    PASSWORD_MAX = 512,
};

struct account {
    struct str name; /* lower case: "user" (of the primary domain) or "user@domain" */
    struct str hash; /* crypt(3) */
    struct str directory;
    uint32_t uid, gid;
    struct account *next; /* in its bucket */
};

/* accounts.c: the table, and its file "accounts" in the state directory. The file is text:
 *   version 1
 *   given uid
 *   name:uid:gid:directory:hash
 * "given" is the last user ID that was given from the range. A file with a bad line is reported
 * line by line; the good lines serve, unknown names are "not known now", and nothing is written
 * until it is mended: nothing bounces and nothing is lost. */
struct accounts {
    int dirfd;
    struct arena arena;
    struct account **list; /* in order of name */
    size_t n, cap;
    struct account **buckets;
    size_t nbuckets;
    struct sipkey key;
    size_t bad_lines;
    uint32_t given; /* 0: none yet */
    struct {        /* the file as we know it */
        uint64_t inode;
        int64_t size, mtime_s, mtime_ns;
    } seen;
};

#define ACCOUNTS_INCOMPLETE "the accounts file has bad lines: nobody can be called unknown"
int accounts_load(struct accounts *a, int dirfd, struct err *e);
struct account *accounts_find(const struct accounts *a, struct str name);
struct account *accounts_by_uid(const struct accounts *a, uint32_t uid);
void accounts_free(struct accounts *a);
/* Change the table and its file, durably. -1 leaves both as they were. A file that somebody has
 * edited since it was read is not written over. */
int accounts_add(struct accounts *a, const struct account *account, struct err *e);
int accounts_remove(struct accounts *a, struct str name, struct err *e);
int accounts_set_hash(struct accounts *a, struct str name, struct str hash, struct err *e);
/* A user ID of the range for a new account, or 0. One that a removed account had, and whose files
 * it may still own, is given again only when the whole range has been given once; then that is
 * logged. The change that follows writes it down. */
uint32_t accounts_give_uid(struct accounts *a, uint32_t first, uint32_t last);
/* One of the range that an account had, and no other shall: before that is removed. */
void accounts_retire_uid(struct accounts *a, uint32_t uid, uint32_t first, uint32_t last);
/* Index of the first account after this name: for listing by pages. */
size_t accounts_after(const struct accounts *a, struct str name);
/* Whether this may be an account's name. */
bool accounts_name_ok(struct str name);

/* token.c: what lets a parked IMAP session have a cell again, without a password. It ends with the
 * account, and with its password. */
void token_open(int state_dir);
void token_put(struct buf *out, const struct account *account);
struct account *token_account(struct str token); /* NULL: not one of ours */

/* throttle.c: failed logins by network and by account; what is over the limit is refused unseen.
 * From a network where an account has logged in before, only those of the network count. */
bool throttle_allows(struct str remote, struct str user);
void throttle_failed(struct str remote, struct str user);
void throttle_succeeded(struct str remote, struct str user);
/* The network as a number. */
uint64_t throttle_network(struct str remote);

/* login.c: the workers. */
struct login {
    struct client *client; /* NULL when it has gone meanwhile */
    struct str user, account;
    char user_text[ACCOUNT_NAME_MAX + 1], account_text[ACCOUNT_NAME_MAX + 1], remote[64];
    int channel; /* the cell's, or -1 */
    int kind;    /* cell_kind, or -1 for submitd */
    uint64_t network;
    pid_t pid;
    struct login *next;
};

struct authd {
    struct conf *conf;
    struct accounts accounts;
    struct aliases aliases;
    const struct start *start;
    struct loop loop;
    struct service service;
    struct known known;        /* what smtpd and submitd need not ask again */
    int launcher;              /* channel, or -1 */
    bool unprivileged;         /* the whole suite is one user's: so are all accounts */
    uint32_t own_uid;          /* asked before the role is entered, which cannot ask */
    char dummy_hash[HASH_MAX]; /* tried for unknown users when there is no account at all */
    struct login *running, *waiting;
    size_t nrunning, nwaiting;
};
extern struct authd authd;

/* Read the tables; used at start and at reload. A table that cannot be read stays as it was. */
void authd_read_aliases(int fd);
void authd_read_accounts(void);
void login_start(struct client *c, struct str user, struct str password, struct str remote,
                 int kind, int channel);
void login_reap(pid_t pid, int status);
void login_forget(struct client *c);
int login_hash(struct str password, char *hash_r, size_t size);
/* Start a cell for this account on channel. */
int login_cell(const struct account *account, int kind, int channel, struct err *e);
/* The answer: GRANTED, or ENTERED with a token. */
void login_granted(struct client *c, const struct account *account, bool token);

/* resolve.c: what an address is. -1 with ERR_TEMPORARY when the tables are incomplete. */
int resolve_address(struct str address, enum address_kind *kind_r, struct account **account_r,
                    struct err *e);
/* A login name: "user", or "user@domain". */
struct account *resolve_login(struct str user);

/* serve.c */
void serve_message(struct client *c, struct msg *m);
void serve_gone(struct client *c);
