/*
 * mailfile: the text of a stored message, fit for IMAP and POP3.
 *
 * Used by the imapd and pop3d cells. Messages lie on disk as they came: with CRLF, or with LF only
 * when a foreign program put them there. What is handed out has CRLF at each line's end, and 0x80
 * for a NUL, which IMAP cannot send (RFC 3501 4.3; catalogue G2). The file is read, not mapped: a
 * file that somebody cuts short under us must not kill the session.
 *
 * A small message is held whole; of a large one its header is, and the rest is read in pieces when
 * it is sent (mailreader). Offsets and sizes are those of the text as it is handed out.
 *
 * Limits: MAILFILE_WHOLE bytes are held; a header longer than that ends there. MAILFILE_MAX bytes a
 * message.
 */
#pragma once
#include "lib/base/buf.h"
#include "lib/base/err.h"

#define MAILFILE_MAX ((uint64_t)4 << 30)
enum { MAILFILE_HEAD = 16384, MAILFILE_WHOLE = 1 << 20, MAILFILE_PIECE = 32768 };

struct mailfile {
    int fd; /* of a message that is not held whole (open) */
    bool open;
    char *p;
    struct str text; /* all of it (whole), or its beginning with the header */
    size_t body_at;  /* where the body begins */
    uint64_t raw;    /* bytes of the file */
    uint64_t size;   /* of the whole text; 0 while it has not been measured */
    bool whole;
};

/* Take the descriptor of a message and read its beginning; all of it when it is not longer than
 * MAILFILE_WHOLE, unless head_only. */
int mailfile_load(struct mailfile *f, int fd, bool head_only, struct err *e);
/* The size of the whole text: measured, so that what is announced is what will come. */
int mailfile_size(struct mailfile *f, uint64_t *size_r, struct err *e);
void mailfile_free(struct mailfile *f);
/* Size with CRLF, and as it is, without keeping the text. */
int mailfile_measure(int fd, uint64_t *size_r, uint64_t *vsize_r, struct err *e);
/* How many LF of s have no CR before them; *cr is the state between two pieces. */
size_t mailfile_bare_lf(struct str s, bool *cr);

/* The text from one offset to another, in pieces. */
struct mailreader {
    const struct mailfile *f;
    uint64_t at, end; /* in the text */
    uint64_t raw_at;  /* in the file */
    uint64_t skip;    /* of the text that comes next, what is before the range */
    bool cr;          /* the byte before was CR */
    size_t held;
    char room[2 * MAILFILE_PIECE];
};
void mailreader_begin(struct mailreader *r, const struct mailfile *f, uint64_t from, uint64_t to);
/* The next piece, valid until the next call: 1; 0 at the end; -1: it cannot be read, or has become
 * shorter. */
int mailreader_next(struct mailreader *r, struct str *piece_r, struct err *e);
/* All of a range at once, appended to out. -1 also when it does not fit. */
int mailfile_range(const struct mailfile *f, uint64_t from, uint64_t to, struct buf *out,
                   struct err *e);
