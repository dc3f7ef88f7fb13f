/*
 * smtp_fakes: an authd, a qmgr and a tlsd that speak the real messages (but TLS is none: the tlsd
 * gives the client back as it is), and an SMTP client, for the tests
 * of smtpd's and submitd's sessions in one process.
 */
#pragma once
#include "lib/conf/conf.h"
#include "lib/loop/listener.h"
#include "lib/role/start.h"
#include "tests/unit/unit.h"
#include <pthread.h>

enum { FAKE_MESSAGES_MAX = 64, FAKE_MESSAGE_MAX = 4 << 20, FAKE_SERVICES = 3 };

struct fake_message {
    char sender[512], origin[32], client[64], login[64];
    char rcpts[2048];  /* a space behind each */
    char wishes[2048]; /* "RET ENVID", then for each recipient " notify/orcpt" */
    char *text;        /* ends with a NUL */
    size_t n;
    bool bulk;
};

struct fakes {
    struct start start;
    struct conf conf;
    enum role role;
    pthread_t threads[FAKE_SERVICES];
    pthread_mutex_t lock;
    struct fake_message messages[FAKE_MESSAGES_MAX];
    size_t nmessages, nnew, naborted, nverify, ntls;
    /* What shall go wrong. */
    bool authd_fails, qmgr_fails, qmgr_full, commit_fails, qmgr_drops;
};

/* Our domain is example.org, our accounts user and other; alias@ and postmaster@ are aliases; user
 * has the password "secret" and uid 1000; temp@ and the user temp cannot be looked up. */
void fakes_start(struct fakes *f, enum role role);
void fakes_stop(struct fakes *f);
/* How many messages were given up, so far. */
size_t fakes_aborted(struct fakes *f);

struct chat {
    int fd;
    struct peer peer;
    struct fakes *fakes;
    void (*session)(struct chat *c);
    pthread_t thread;
    char in[1 << 16];
    size_t n;
    char reply[1 << 15]; /* the last one, all lines */
};
/* A connection; session runs in a thread of its own. service: "smtp", ... */
void chat_open(struct chat *c, struct fakes *f, const char *service,
               void (*session)(struct chat *));
/* The same, with input that is there before the session begins. */
void chat_open_early(struct chat *c, struct fakes *f, const char *service,
                     void (*session)(struct chat *), const char *early);
void chat_put(struct chat *c, const char *text);
void chat_write(struct chat *c, const char *p, size_t n);
/* Read one whole reply and check how it begins. */
void chat_expect(struct chat *c, const char *start);
void chat_say(struct chat *c, const char *line, const char *start); /* line without CR LF */
/* The server has closed, with nothing more to read. */
void chat_expect_end(struct chat *c);
void chat_close(struct chat *c);
