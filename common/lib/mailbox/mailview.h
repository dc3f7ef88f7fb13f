/*
 * mailview: what the parts of mailbox share and nobody else calls: lock, list, find, change.
 */
#pragma once
#include "lib/mailbox/mailbox.h"

struct mailscan;

/* Open the folder's directories and its lock, nothing else. */
int mailview_open_dirs(struct mailbox *mb, int root_fd, struct str folder, bool read_only,
                       struct err *e);
/* Open bulkhead-lock in a folder, made when missing. */
int mailview_open_lock(int dir_fd, struct err *e);
/* The index, and if it does not say how the folder is now, a listing. 1: it was listed; 0, -1. */
int mailview_open(struct mailbox *mb, struct err *e);
/* Take the folder's lock, on a file that is still there, and know what others did. Changes that are
 * made until mailview_end() go into one batch of the index. They nest. */
int mailview_begin(struct mailbox *mb, struct err *e);
void mailview_end(struct mailbox *mb);
/* Between these: the mod-sequence of what is changed now (0: it could not be had; go on). */
uint64_t mailview_modseq(struct mailbox *mb);
/* Between these: look at the directories, and bring view and index up to them. */
int mailview_relist(struct mailbox *mb, struct err *e);
/* The names in one directory, errors ignored. */
int mailview_list_dir(struct mailscan *s, int dir_fd, const char *sub);
/* Begin, and take n UIDs; on 0 mailview_end() is due. */
int mailview_reserve(struct mailbox *mb, uint32_t n, uint32_t *first_r, struct err *e);
/* Rename, or remove, a message's file; counted by the guard. -1 with errno. */
int mailview_rename(struct mailbox *mb, int from_fd, const char *from, int to_fd, const char *to);
/* A new file with this name and these data has been put into the folder by us: tell the index. */
void mailview_added(struct mailbox *mb, struct mailbox_message *m, struct str name);
/* Flags and keywords as one number. */
static inline uint32_t
mailview_pack(uint8_t flags, uint32_t keywords)
{
    return (uint32_t)flags << KEYWORDS_MAX | keywords;
}
/* Give some of the bare and owed files their names. False: none is left, or it did not work. */
bool mailview_pay_names(struct mailbox *mb);
/* Size or date of a message have been found out: the index will be told at the next occasion. */
void mailview_learnt(struct mailbox *mb, size_t i);
