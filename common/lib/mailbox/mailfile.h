/*
 * mailfile: the text of a stored message in memory, fit for IMAP and POP3.
 *
 * Used by the imapd and pop3d cells. Messages lie on disk as they came: with CRLF, or with LF only
 * when a foreign program put them there. What is handed out has CRLF at each line's end, and 0x80
 * for a NUL, which IMAP cannot send (RFC 3501 4.3; catalogue G2). The file is read, not mapped: a
 * file that somebody cuts short under us must not kill the session.
 *
 * Limit: MAILFILE_MAX bytes.
 */
#pragma once
#include "lib/base/err.h"

#define MAILFILE_MAX ((size_t)512 << 20)
enum { MAILFILE_HEAD = 32768 };

struct mailfile {
    char *p;
    struct str text;
    bool whole; /* false: only the first MAILFILE_HEAD bytes, and the header ends in them */
};

/* Read the file from its start. head_only: the beginning is enough when the header's end is in it.
 * Closes nothing. */
int mailfile_load(struct mailfile *f, int fd, bool head_only, struct err *e);
void mailfile_free(struct mailfile *f);
/* Size with CRLF, and as it is, without keeping the text. */
int mailfile_measure(int fd, uint64_t *size_r, uint64_t *vsize_r, struct err *e);
/* How many LF of s have no CR before them; *cr is the state between two pieces. */
size_t mailfile_bare_lf(struct str s, bool *cr);
