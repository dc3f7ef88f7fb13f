/*
 * folder: the folders of one Maildir++ and their IMAP names.
 *
 * Folder "A.B" is the directory ".A.B" in the Maildir's root, INBOX is the root itself; "."
 * separates levels. Names are modified UTF-7 (RFC 3501 5.1.3) in IMAP and on disk, as Dovecot and
 * Courier have them. Names come from clients and from the disk: both are checked by the same
 * function before they touch a system call (catalogue K3).
 *
 * Limits: FOLDER_NAME_MAX bytes, FOLDER_DEPTH_MAX levels, FOLDERS_MAX folders.
 */
#pragma once
#include "lib/base/arena.h"
#include "lib/base/buf.h"
#include "lib/base/err.h"

enum { FOLDER_NAME_MAX = 200, FOLDER_DEPTH_MAX = 32, FOLDERS_MAX = 10000 };

/* Whether name can be a folder: no empty level, printable ASCII in valid modified UTF-7 without
 * '/', '*', '%' or '"' and backslash. */
bool folder_check(struct str name);
bool folder_is_inbox(struct str name);
/* The directory's name: "." for INBOX, else "." and the name. -1 when folder_check() says no. */
int folder_path(struct str name, char path_r[FOLDER_NAME_MAX + 8]);

struct folder_entry {
    struct str name;
    bool exists; /* false: only a level above some that exist (\Noselect) */
    bool children;
    bool subscribed;
    bool listed; /* for who merges lists */
};
struct folder_list {
    struct folder_entry *at; /* sorted by name, INBOX first */
    size_t n;
};
/* The level above; empty: there is none. */
struct str folder_above(struct str name);
struct folder_entry *folder_list_find(const struct folder_list *list, struct str name);
/* Sort, and make one of those of one name, with all that is true of any of them. */
void folder_list_merge(struct folder_list *list);
/* All folders and the levels above them; text lies in the arena. */
int folder_list(int root_fd, struct arena *arena, struct folder_list *list_r, struct err *e);
/* The names of the file "subscriptions", as entries that need not exist; levels above are not
 * added. */
int folder_subscriptions(int root_fd, struct arena *arena, struct folder_list *list_r,
                         struct err *e);
int folder_subscribe(int root_fd, struct str name, bool on, struct err *e);

bool folder_exists(int root_fd, struct str name);
/* Whether path, which is no link, is the directory open at fd. */
bool folder_is_at(int at_fd, const char *path, int fd);
/* ERR_PERMANENT: it is there already, or the name cannot be. */
int folder_create(int root_fd, struct str name, struct err *e);
/* The folder and all in it; the levels below stay. Not INBOX. */
int folder_delete(int root_fd, struct str name, struct err *e);
/* With all levels below. INBOX is not renamed: its messages are the caller's to move. */
int folder_rename(int root_fd, struct str from, struct str to, struct err *e);

/* What a folder is for (RFC 6154): "\\Sent" or another of its attributes, or NULL. It is what was
 * said when the folder was made (kept in it, so that it is renamed and deleted with it), or what
 * its name says to most clients. */
const char *folder_use(int root_fd, struct str name);
/* The attribute as it is written, for any case; NULL: none that a folder can have here. */
const char *folder_use_known(struct str attribute);
int folder_set_use(int root_fd, struct str name, const char *use, struct err *e);

/* LIST's pattern (RFC 3501 6.3.8): '*' any bytes, '%' any but the separator; INBOX in any case. All
 * states are followed at once: time is at most the product of the lengths (catalogue G9). */
bool folder_match(struct str pattern, struct str name);

/* Make new/, cur/ and tmp/ in dir_fd where missing. None is seen before dir_fd's own name in
 * above_fd (-1: that is not ours to sync) and its own are on the disk. */
int folder_make_subdirs(int dir_fd, int above_fd, struct err *e);
