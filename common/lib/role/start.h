/*
 * start: how a program finds out how it was launched, and what it was given.
 *
 * One code path for the four ways: under master (which passes descriptors by the LISTEN_FDS
 * convention, with names), under systemd (the same convention), from inetd or tcpserver (descriptors
 * 0 and 1, UCSPI variables), and by hand in the foreground (-f FILE, unprivileged).
 *
 * Names of descriptors: a service ("smtp", "submission", "submissions", "pop3", "pop3s", "imap",
 * "imaps") is a listening TCP socket; "to.ROLE" a door to a service; "from.ROLE" the service's side
 * of a door; "path" our own listening Unix socket; "config" the configuration's text; "root" the
 * empty directory; "control" the channel to master; "dir.NAME" a directory or file that is ours.
 */
#pragma once
#include "lib/base/err.h"
#include "lib/conf/conf.h"
#include "lib/ipc/table.h"
#include <netinet/in.h>

enum { START_FDS_MAX = 96 };

struct start_fd {
    int fd;
    char name[32];
};

struct start {
    enum role role;
    const char *config_path; /* -f FILE, or NULL: the descriptor "config", or the default path */
    struct start_fd fds[START_FDS_MAX];
    size_t nfds;
    bool inetd;  /* serve one session on descriptors 0 and 1 */
    bool master; /* launched by master */
};

/* Read arguments and environment; opens the log; clears the environment but for the UCSPI variables.
 * Exits with a usage message on bad arguments. Call first in main(). */
void start_read(struct start *st, enum role role, int argc, char **argv);
/* Read the configuration from where it lies; on errors all are logged and the program exits 78. */
void start_config(const struct start *st, struct conf *conf);
/* The descriptor of this name, or -1. */
int start_fd(const struct start *st, const char *name);
/* The door to a service, or -1 when this launch has none. */
int start_door(const struct start *st, enum role service);
/* A channel to a service, through the door or (inetd, by hand) at its path below conf's run_dir. */
int start_channel(const struct start *st, const struct conf *conf, enum role service, struct err *e);
/* Tell master that we serve. */
void start_ready(const struct start *st);
