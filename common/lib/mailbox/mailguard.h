/*
 * mailguard: whether the index still describes the directories, and keeping it so while we change
 * them ourselves.
 *
 * Used by mailbox only. The index says which mtimes new/ and cur/ had when it described them. That
 * is only worth something if every later change shows in the mtime, also one in the same tick of
 * the file system's clock; so we set the mtime ourselves, to the nanosecond of a clock that is
 * finer than the file system's: a change of anybody gives it another value. A listing is marked
 * before it is made. Our own changes, under the lock, are followed by a new mark: that would hide a
 * change of a foreign program at the same moment, so inotify counts what happens meanwhile: when
 * that is not what we did, no more and no less, nothing is claimed, and the next look lists again.
 * So it is also where inotify cannot be had, or the file system keeps no nanoseconds: slower, never
 * wrong.
 *
 * One inotify descriptor a process, kept: closing one takes the kernel many milliseconds.
 */
#pragma once
#include "lib/mailbox/mailindex.h"

struct mailbox;

struct mailguard {
    bool clean; /* at the beginning the directories were as the index says */
    bool watching;
    bool left;       /* some of those that were counted tell of a name that went away */
    unsigned seen;   /* names that came or went, as far as they have been counted */
    unsigned expect; /* names that we have made or taken away since */
    int new_watch, cur_watch;
};

/* Whether new/ and cur/ are as the index says. */
bool mailguard_new_same(const struct mailbox *mb);
bool mailguard_cur_same(const struct mailbox *mb);
/* Before a listing: mark the directory, *time_r is what it has from now on (0: cannot be marked).
 */
void mailguard_mark(int dir_fd, struct mailindex_time *time_r);
/* Before new/ and cur/ are read; and after: whether no name left them meanwhile, so that none can
 * have been passed over. Where inotify cannot be had, cur/ must be as it was marked. */
void mailguard_reading(struct mailbox *mb);
bool mailguard_was_still(struct mailbox *mb);
/* Around changes of our own. */
void mailguard_begin(struct mailbox *mb);
/* Sets the times in the index's state, when they can be known. */
void mailguard_end(struct mailbox *mb);
