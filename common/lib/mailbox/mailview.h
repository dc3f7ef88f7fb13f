/*
 * mailview: what the parts of mailbox share and nobody else calls: lock, list, find.
 */
#pragma once
#include "lib/mailbox/mailbox.h"

struct mailscan;

/* Open bulkhead-lock in a folder, made when missing. */
int mailview_open_lock(int dir_fd, struct err *e);
/* The folder's lock, on a file that is still there. */
int mailview_lock(struct mailbox *mb, struct err *e);
void mailview_unlock(struct mailbox *mb);
/* List and merge; the lock is held. */
int mailview_relist(struct mailbox *mb, struct err *e);
/* The names in one directory, errors ignored. */
int mailview_list_dir(struct mailscan *s, int dir_fd, const char *sub);
/* Take the lock and n UIDs; on 0 the lock is held. */
int mailview_reserve(struct mailbox *mb, uint32_t n, uint32_t *first_r, struct err *e);
