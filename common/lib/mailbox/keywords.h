/*
 * keywords: which letter in a file's name stands for which IMAP keyword, one table a folder.
 *
 * The file bulkhead-keywords holds lines "NUMBER NAME", NUMBER 0 for the letter a, as Dovecot's
 * dovecot-keywords does; that one is taken as the start when ours is not there. A letter once given
 * keeps its meaning. Used under the folder's lock; the content is the account's own and lines that
 * do not parse are skipped.
 *
 * Limits: KEYWORDS_MAX keywords a folder, KEYWORD_LEN_MAX bytes each, atoms only (RFC 3501 9).
 */
#pragma once
#include "lib/base/err.h"
#include <time.h>

enum { KEYWORDS_MAX = 26, KEYWORD_LEN_MAX = 100 };

struct keywords {
    char name[KEYWORDS_MAX][KEYWORD_LEN_MAX + 1]; /* "" where none */
    struct timespec mtime;                        /* of the file that was read */
};

/* Whether text is a keyword: an atom of printable ASCII that does not begin with a backslash. */
bool keywords_valid(struct str name);
/* Read the table again if its file has changed. A missing file is an empty table. */
int keywords_load(struct keywords *k, int dir_fd, struct err *e);
/* The letter's number of a name (any case), or -1. */
int keywords_find(const struct keywords *k, struct str name);
/* The same, adding the name when there is a free letter, durably. ERR_LIMIT: the table is full. */
int keywords_add(struct keywords *k, int dir_fd, struct str name, int *number_r, struct err *e);
