/*
 * reply: SMTP replies (RFC 5321 4.2), read by relay and sendmail(1), written by smtpd and submitd.
 *
 * What is read is a stranger's: the code must be the same on each line, lines and their number have
 * ceilings, and every byte outside printable ASCII becomes '?', so the text can go anywhere a line
 * of text can go. Lines may end in LF alone (many servers' do); a reply is never longer for it.
 */
#pragma once
#include "lib/io/stream.h"

enum {
    SMTP_REPLY_LINES_MAX = 100,
    SMTP_REPLY_LINE_MAX = 2048,  /* RFC 5321 4.5.3.1.5 says 512; real ones are longer */
    SMTP_REPLY_TEXT_MAX = 16384, /* kept; more is counted and forgotten */
};

struct smtp_reply {
    unsigned code; /* 200..599; 0: no line read yet */
    unsigned lines;
    char status[12]; /* "5.1.1" when the first line has one that fits its code, else "" */
    struct buf text; /* the lines without codes, a '\n' between two */
};

static inline struct smtp_reply
smtp_reply_new(void)
{
    return (struct smtp_reply){.text = buf_new(SMTP_REPLY_TEXT_MAX)};
}
void smtp_reply_free(struct smtp_reply *r);
void smtp_reply_reset(struct smtp_reply *r);

/* One line without its end. 1: the reply is complete; 0: more lines follow; -1 (ERR_PROTOCOL,
 * ERR_LIMIT): not a reply. */
int smtp_reply_line(struct smtp_reply *r, struct str line, struct err *e);
/* Empty r and read a whole reply into it; output that waits is sent first. */
int smtp_reply_read(struct stream *io, struct smtp_reply *r, struct err *e);
/* "5.1.1", or "5.0.0" by the code when the server sent none. */
const char *smtp_reply_status(struct smtp_reply *r);
/* The code and the text on one line, for logs and DSNs: "550 5.1.1 no such user". At most
 * SMTP_REPLY_TEXT_MAX bytes. */
void smtp_reply_flat(const struct smtp_reply *r, struct buf *out);

/* Write a reply. text may have several lines, '\n' between them; each is cut to what one line
 * holds, and anything but printable ASCII becomes '?'. status "": none (greetings, EHLO, 354). */
void smtp_reply_put(struct stream *io, unsigned code, const char *status, struct str text);
