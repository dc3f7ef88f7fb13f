/*
 * qfile: the queue file: a typed, length-prefixed, versioned envelope, then the message as
 * received.
 *
 * Written by sessions (smtpd, submitd, local) through the one descriptor qmgr gave them; read and
 * checked whole by qmgr before it commits, and again when it meets the file after a restart: a
 * session's word is not trusted. Nothing in it is found by searching for a newline.
 *
 *   head (64 bytes): magic "BHQ1", version, flags, recipient count, envelope length, message
 * length, arrival time, then a check of the envelope, one of the message, and one of the head and
 * the ID, the seal (SipHash with a fixed key: they find damage, what a power cut left half written,
 * and a name that came to lead to another message, not forgery). The seal is made last: a head
 * without it is that of an unfinished file
 *   envelope: records {u8 type, u24 length, bytes}, ending with an END record; what a sender asked
 * of delivery reports (lib/mail/dsn.h) is in records of its own, and only there when it was asked
 *   message: exactly the message length, the end of the file
 *
 * Limits: QFILE_RCPT_MAX recipients, QFILE_ADDR_MAX bytes an address, QFILE_ENVELOPE_MAX bytes.
 */
#pragma once
#include "lib/base/arena.h"
#include "lib/base/buf.h"
#include "lib/base/err.h"
#include "lib/base/siphash.h"

enum {
    QFILE_HEAD = 64,
    QFILE_RCPT_MAX = 1000,
    QFILE_ADDR_MAX = 320,
    QFILE_FIELD_MAX = 1024,
    QFILE_ENVELOPE_MAX = 1 << 20,
};

struct qfile_rcpt {
    struct str address; /* user@domain, as the client gave it, without brackets */
    struct str orcpt;   /* RFC 3461 ORCPT, as it came, or empty */
    uint8_t notify;     /* enum dsn_notify */
};

struct envelope {
    struct str sender; /* user@domain, or empty for <> */
    struct str origin; /* "smtp", "submission", "sendmail", "bounce", "forward" */
    struct str client; /* "[192.0.2.1]" or "uid 1000": for the log */
    struct str login;  /* the account that submitted it, or empty */
    struct str helo;
    int64_t arrived_us;    /* wall clock, microseconds since 1970 */
    uint64_t message_size; /* this and the next two: filled by qfile_read() */
    uint64_t message_offset;
    uint64_t message_check;
    bool eight_bit;   /* BODY=8BITMIME was said */
    uint8_t ret;      /* enum dsn_ret */
    struct str envid; /* RFC 3461 ENVID, as it came, or empty */
    bool bulk;        /* list mail, by its header: delivered after what people wait for */
    struct qfile_rcpt *rcpts;
    size_t nrcpt;
};

/* Append head (not sealed) and envelope to out: what goes to the file first. */
int qfile_write(struct buf *out, const struct envelope *env, struct err *e);
/* The check of a message's bytes: begin, siphash_add() them, siphash_end(). */
struct siphash qfile_check_begin(void);
uint64_t qfile_check(struct str message); /* the same of one that is at hand whole */
/* For who has read a message piece by piece: ERR_DAMAGED when it is not what was put into the
 * queue. */
int qfile_check_end(struct siphash *check, uint64_t want, struct err *e);
/* Put into a head, QFILE_HEAD bytes, what is known last, and seal it for the message of this ID. */
void qfile_seal(char *head, struct str id, bool bulk, uint64_t message_size,
                uint64_t message_check);
/* The whole of a file: head, envelope, message. */
int qfile_whole(struct buf *out, struct str id, const struct envelope *env, struct str message,
                struct err *e);
/* Read and check head and envelope; strings live in the arena. ERR_DAMAGED: not whole, or not ours.
 */
int qfile_read(int fd, struct str id, struct arena *arena, struct envelope *env_r, struct err *e);
/* Read the message and check it against what the head says of it: the same errors. */
int qfile_check_message(int fd, const struct envelope *env, struct err *e);
