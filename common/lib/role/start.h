/*
 * start: how a program finds out how it was launched, and what it was given.
 *
 * One code path for the four ways: under master (which passes descriptors by the LISTEN_FDS
 * convention, with names), under systemd (the same convention), from inetd or tcpserver
 * (descriptors 0 and 1, UCSPI variables), and by hand in the foreground (-f FILE, unprivileged).
 *
 * Names of descriptors: a service ("smtp", "submission", "submissions", "pop3", "pop3s", "imap",
 * "imaps"), or "listen.SERVICE.N", is a listening TCP socket; "to.ROLE" a door to a service;
 * "from.ROLE" the service's side of a door (tlsd has one to keyd
 * for each front: "to.keyd.smtpd", "from.tlsd.smtpd"); "path.ROLE" the service's listening Unix
 * socket for that role (run_dir/SERVICE.ROLE, which only that role's user may connect to); "submit"
 * the socket of sendmail(1); "config" the configuration's text; "root" the empty directory;
 * "control" the channel to master; "dir.NAME" a directory or file that is ours.
 *
 * What was not given (by hand nothing, by another supervisor perhaps the listening socket alone),
 * start_sockets() makes itself.
 */
#pragma once
#include "lib/base/err.h"
#include "lib/conf/conf.h"
#include "lib/ipc/message.h"
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
    bool inetd; /* serve one session on descriptors 0 and 1 */
    bool given; /* master passed all there is; another supervisor may pass some */
    /* UCSPI variables, or what the kernel says of descriptor 0. */
    char remote_ip[46], local_ip[46];
    uint16_t remote_port;
    bool relayclient;
};

/* Read arguments and environment; opens the log; clears the environment but for the UCSPI
 * variables. Exits with a usage message on bad arguments. Call first in main(). */
void start_read(struct start *st, enum role role, int argc, char **argv);
/* Read the configuration from where it lies; on errors all are logged and the program exits 78. */
void start_config(const struct start *st, struct conf *conf);
/* Make what was not given: listening sockets from the configuration, doors by connecting to the
 * paths of running services, the service's own paths. Exits with a message when an address is
 * taken. */
void start_sockets(struct start *st, const struct conf *conf);
/* The descriptor of this name, or -1. */
int start_fd(const struct start *st, const char *name);
/* The door to a service, or -1 when this launch has none. */
int start_door(const struct start *st, enum role service);
/* The same of a service that has a door for each front; R_NONE: one that has not. */
int start_door_for(const struct start *st, enum role service, enum role front);
/* A channel to a service, through the door; first, or NULL, is sent ahead. ERR_TEMPORARY when there
 * is none. */
int start_channel(const struct start *st, enum role service, const struct msg *first,
                  struct err *e);
/* The same by the door for a front; R_NONE: of a service that has but one. */
int start_channel_for(const struct start *st, enum role service, enum role front,
                      const struct msg *first, struct err *e);
/* Add a descriptor under a name. */
void start_add_fd(struct start *st, int fd, const char *name);
/* Tell master that we serve. */
void start_ready(const struct start *st);
