/*
 * pcell: a POP3 session after login (RFC 1939 5, 6; RFC 2449), in a cell of the account's own user
 * ID.
 *
 * The peer is a stranger who holds the account's password. The session reaches the account's
 * Maildir and nothing else. It sees the INBOX as it was at login; a second session at the same time
 * is told [IN-USE]. Messages are removed at QUIT only.
 *
 * UIDL gives the base of the file's name (up to the first ',' or ':'), which no flag, no move from
 * new/ to cur/ and no loss of an index changes, and which stays when the Maildir moves to another
 * server (catalogue G25). Where it is longer than the 70 bytes of RFC 1939 7, or holds other bytes
 * than that allows, it is a hash of it.
 *
 * Limits: PCELL_LINE_MAX bytes a line (RFC 2449 4), PCELL_BAD_MAX unknown commands in a row,
 * PCELL_IDLE_MS.
 */
#pragma once
#include "lib/io/stream.h"
#include "lib/mailbox/mailbox.h"

enum {
    PCELL_LINE_MAX = 255,
    PCELL_BAD_MAX = 20,
    PCELL_IDLE_MS = 10 * 60 * 1000, /* RFC 1939 3: at least ten minutes */
};

struct pcell {
    struct stream s;
    struct mailbox mb;
    size_t n;      /* messages of this session: the first n of mb */
    bool *deleted; /* n of them */
    bool *read;    /* the same: sent, and not told the mailbox yet */
    uint64_t *sizes;
    unsigned bad;
    bool over;
    const char *ended; /* for the log */
    struct {
        unsigned top, retr, dele, failed;
        uint64_t top_bytes, retr_bytes;
    } did;
};

/* Serve the client on fd, with the input that the front had read already. */
void pcell_run(struct pcell *pc, int client_fd, int root_fd, struct str unread);
void pcell_free(struct pcell *pc);
/* What was read is \Seen, so that an IMAP client knows; if it cannot be told, no harm. Renames take
 * their time: it waits for the end of the session. */
void pcell_mark_read(struct pcell *pc);
/* The unique ID of a file name: 1 to 70 bytes of 0x21 to 0x7e. */
void pcell_uidl(struct buf *out, struct str file);
/* A message as a multi-line answer (RFC 1939 3), in pieces of any lengths: at most body_lines lines
 * behind the header, then done is set. */
struct pcell_text {
    bool line_start; /* the next byte begins a line */
    bool empty;      /* the line has held nothing so far */
    bool in_body;
    bool done;
    uint64_t left; /* lines of the body that may still be sent */
};
void pcell_put_begin(struct pcell_text *t, uint64_t body_lines);
void pcell_put_piece(struct stream *s, struct pcell_text *t, struct str piece);
void pcell_put_end(struct stream *s, struct pcell_text *t);
