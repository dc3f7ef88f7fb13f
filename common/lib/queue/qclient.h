/*
 * qclient: a session hands a message to qmgr: ask for a file, fill it, commit.
 *
 * Used by smtpd and submitd. The message is in the file, whole, before QUEUE_COMMIT; qmgr names and
 * syncs it, and only after QUEUE_DONE may the client be told 250.
 *
 * A message that fits in the buffer reaches the file in one write; a larger one is synced here as
 * well. After a failed write or sync the file is given up and nothing is tried again; after a
 * failed sync the process should end (dead).
 *
 * Errors: ERR_LIMIT: no room (452 4.3.1); anything else: temporary (451 4.3.0).
 */
#pragma once
#include "lib/ipc/remote.h"
#include "lib/queue/qfile.h"

enum {
    QCLIENT_BUFFER = 128 * 1024, /* written when this much is waiting */
    QCLIENT_ID_MAX = 64,
    QCLIENT_ASK_MS = 30000,
    QCLIENT_COMMIT_MS = 120000, /* a slow disk is slow */
};

struct qclient {
    struct remote remote;
    uint32_t user;               /* the local user whose message it will be; 0: root, or a client */
    int file;                    /* -1: no message in work */
    char id[QCLIENT_ID_MAX + 1]; /* of the message in work */
    const struct envelope *env;  /* the caller's, until commit or abort */
    struct buf waiting;          /* head, envelope and content not yet written */
    char head[QFILE_HEAD];       /* of the file, not sealed yet */
    uint64_t message_size;
    struct siphash check; /* of the message */
    bool ahead;           /* a file has been asked for, and not been taken */
    bool written;         /* something went to the file */
    bool dead;            /* a sync failed: trust this process no longer */
};

/* room: where a message that fits waits to be written; it must outlive q. */
void qclient_init(struct qclient *q, const struct start *start, enum role me, char *room,
                  size_t size);
/* A message is likely to come: ask for its file now, and take it in qclient_begin(). What fails
 * shows there. */
void qclient_ahead(struct qclient *q);
/* Ask for a new message; q->id names it. One at a time. */
int qclient_begin(struct qclient *q, struct err *e);
/* The envelope, before the first content; env must stay until commit or abort. */
int qclient_envelope(struct qclient *q, const struct envelope *env, struct err *e);
/* Some content of the message. */
int qclient_put(struct qclient *q, struct str content, struct err *e);
/* Write what waits, commit, and wait for qmgr's word: it is durable. Ends the message on -1 as
 * well. */
int qclient_commit(struct qclient *q, struct err *e);
/* Give the message in work up; harmless when there is none. */
void qclient_abort(struct qclient *q);
void qclient_close(struct qclient *q);
