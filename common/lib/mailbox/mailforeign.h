/*
 * mailforeign: what other servers know of a Maildir folder: UIDVALIDITY, UIDs and keywords.
 *
 * Used by `bulkhead mailbox import`, as the account's user. Read are, in this order: our own
 * bulkhead-uid (the UIDs are in the names then), dovecot-uidlist (versions 1 and 3) and
 * courierimapuiddb; dovecot-keywords or our own table, whose letters are in the names; and
 * courierimapkeywords/:list. The files are hostile input as all of a Maildir: a line that does not
 * parse is passed over, and two messages never get one UID.
 *
 * Limits: MAILBOX_MESSAGES_MAX lines, MAILFOREIGN_FILE_MAX bytes a file, KEYWORDS_MAX keywords.
 */
#pragma once
#include "lib/mailbox/keywords.h"
#include "lib/mailbox/mailadopt.h"

enum { MAILFOREIGN_FILE_MAX = 256 << 20 };

struct mailforeign {
    uint32_t validity, next;     /* 0: not known */
    bool in_names;               /* the UIDs are in the names */
    struct mailadopt uids;       /* by the base of the name */
    struct keywords letters;     /* of the flags in names */
    struct keywords listed;      /* Courier's, by number */
    struct mailadopt listed_for; /* bits of listed, by base */
};

int mailforeign_load(struct mailforeign *f, int dir_fd, struct err *e);
void mailforeign_free(struct mailforeign *f);
