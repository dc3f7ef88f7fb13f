/*
 * head: what the SMTP side needs to know of a message's header: its end, its Received fields, and,
 * for submission, its fields and the mailboxes in them (RFC 5322 2.2, 3.4).
 *
 * Used by smtpd, submitd and sendmail(1). The text is a stranger's or a user's. Lines end in CR LF
 * (the dot decoder has made sure of that) or, in sendmail(1), in LF. Nothing here recurses; nested
 * comments are counted.
 */
#pragma once
#include "lib/base/buf.h"
#include "lib/base/cursor.h"

enum {
    SMTP_HEAD_MAX = 256 * 1024,      /* the header block */
    SMTP_HEAD_FIELD_MAX = 64 * 1024, /* one field */
    SMTP_HEAD_FIELDS_MAX = 2000,
    SMTP_HEAD_MAILBOXES_MAX = 5000, /* looked at in one field */
};

/* Counts Received fields (hops) in a message that streams by, in pieces cut anywhere. Zero is the
 * beginning of a message. */
struct smtp_hops {
    unsigned count;  /* Received fields so far */
    unsigned fields; /* all fields */
    size_t bytes;    /* of the header */
    size_t field;    /* bytes of the field we are in */
    bool too_large;  /* a ceiling above was passed */
    bool done;       /* the header has ended */
    size_t column;   /* in the line; matched while it equals matched */
    size_t matched;
};
void smtp_hops_feed(struct smtp_hops *h, struct str piece);

/* Looks in block from *scan on for the end of the header: an empty line, or a line that is no
 * field. True when found, *scan then being where the header ends and *body_r where the body begins
 * (behind the empty line, if there is one). False: *scan is where to look when more has come. */
bool smtp_head_end(struct str block, size_t *scan, size_t *body_r);

struct smtp_field {
    struct str name;
    struct str value; /* with folds, without the last line end */
    struct str whole; /* with the last line end */
};
/* The next field of a header block; false at its end. */
bool smtp_field_next(struct cursor *c, struct smtp_field *f_r);
/* Whether a header block says that no person waits for this message: List-Id (RFC 2919), or
 * Precedence: list, bulk or junk. */
bool smtp_head_bulk(struct str block);

/* The next mailbox of an address list (the value of From, To, Cc, Bcc): its addr-spec, comments and
 * folds removed, into out (emptied first). It may lack a domain, and is not checked:
 * address_parse() does. 1: one; 0: the list has ended; -1: malformed. *in_list counts mailboxes for
 * the ceiling and starts at 0. */
int smtp_mailbox_next(struct cursor *c, size_t *in_list, struct buf *out);
