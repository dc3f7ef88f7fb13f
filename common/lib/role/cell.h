/*
 * cell: how a cell starts: locked to the account's Maildir before it reads a byte.
 *
 * Used by the cells of imapd, pop3d and local. The launcher has made the Maildir the working (and
 * where it may, root) directory, and put the cell's channel at descriptor CELL_CHANNEL.
 */
#pragma once
#include "lib/ipc/message.h"

enum { CELL_CHANNEL = 3 };

enum { CELL_TOKEN_MAX = 256 };
struct cell_client { /* whom a front hands over; the strings lie in the message */
    struct str user, remote, tag, unread;
    bool tls;
    uint64_t message_size_max;
    int fd; /* the client, plain */
    /* Of an IMAP session: how it may be parked (docs/ARCHITECTURE.md); park_fd -1: it may not. */
    int park_fd;
    uint64_t park_ms;
    char token[CELL_TOKEN_MAX];
    size_t token_n;
    bool resumed; /* it was parked, and all but fd and this is in state */
    struct str state;
};

/* Open the log as program and the Maildir of account, and enter the role. A descriptor of the
 * Maildir; exits with a message when that fails. */
int cell_enter(const char *program, const char *account);
/* Tell the front that we stand, and wait for the client it hands over. Closes the channel. name is
 * what log lines begin with; front: the role, or roles, that may hand one over. 0, or the status to
 * exit with, and it has been logged. */
int cell_await_client(const char *name, const char *account, unsigned front, struct msg *m,
                      struct cell_client *client_r);
