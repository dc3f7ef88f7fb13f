/*
 * quota: the limit of one Maildir as Maildir++ has it: the file maildirsize in its root.
 *
 * Used by mailbox, in the cells. Where there is no such file there is no limit, and nothing is
 * counted. Its first line says the limits ("1000000000S,10000C": bytes, messages); each further
 * line what came or went ("1234 1", "-1234 -1"). Courier, maildrop and others read and write the
 * same file. We add our lines under a lock of our own, so that two deliveries cannot both take the
 * last room; others use none, and what is then wrong goes when the file is made anew from the
 * names, which is done when it has grown (QUOTA_FILE_MAX) and before anything is refused. While
 * names are counted nobody holds a struct quota_room: else a message whose room is taken, but which
 * is not there yet, would lose it, and one that has gone would be given back twice.
 */
#pragma once
#include "lib/base/err.h"

enum { QUOTA_FILE_MAX = 5120 };

struct quota_room {
    bool asked, held; /* asked: and there is no limit unless it is held */
    int root_fd, lock_fd;
    uint64_t bytes, count;
};
/* Take room for count messages of bytes in all, and hold it. ERR_LIMIT: over quota. */
int quota_take(int root_fd, uint64_t bytes, uint64_t count, struct quota_room *r, struct err *e);
/* They are there (used), or will not come. */
void quota_end(struct quota_room *r, bool used);
/* Messages will go: tell how many in r before quota_end(r, false). What cannot be written is found
 * at the next counting. */
void quota_hold(int root_fd, struct quota_room *r);

/* What the configuration says, as the launcher passes it on: "BYTES MESSAGES", 0 for no limit. The
 * file gets these limits; without any it is left as it is. Failures are found again by the next. */
void quota_configure(int root_fd, struct str text);

/* Count anew, where there is a limit. */
void quota_recount(int root_fd);

struct quota {
    bool there;
    uint64_t bytes_max, count_max; /* 0: no limit */
    int64_t bytes, count;          /* used */
};
/* What the file says. */
int quota_read(int root_fd, struct quota *q_r, struct err *e);
