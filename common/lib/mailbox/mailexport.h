/*
 * mailexport: all folders of a Maildir as another Maildir++ or as mbox files, and looking through
 * them for damage.
 *
 * Used by `bulkhead mailbox`, as the account's user. A Maildir is written with the names that
 * messages have, and with dovecot-uidlist, dovecot-keywords and subscriptions beside, so that
 * Dovecot goes on with the same UIDs (and so do we: mailimport.h). An mbox file is written for each
 * folder, as mboxrd (mbox.h). What is there already is not written again.
 */
#pragma once
#include "lib/base/err.h"
#include "lib/base/str.h"
#include <stdbool.h>
#include <stdint.h>

struct mailexport {
    int root_fd; /* the Maildir */
    int to_fd;   /* where to write */
    bool mbox;
    uint64_t folders, messages, already, problems;
    void (*progress)(void *arg, uint64_t done);
    void (*report)(void *arg, struct str folder, const char *what); /* a problem */
    void *arg;
};

/* Write all folders. -1: it could not go on; the rest is there, and it may be repeated. */
int mailexport_all(struct mailexport *x, struct err *e);
/* Open each folder, read each message, and compare with what names and index say. */
int mailexport_check(struct mailexport *x, struct err *e);
/* Forget what can be made anew, and make it. */
int mailexport_rebuild(struct mailexport *x, struct err *e);
