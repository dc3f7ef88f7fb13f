/*
 * qfilter: which messages of the queue an operator means.
 *
 * bulkhead(8) parses the words (qfilter_word), sends the fields (qfilter_put), and qmgr reads them
 * (qfilter_get) and compares. All that is said must hold; a filter that says nothing means no
 * message unless it says all.
 *
 *   --sender A, --recipient A   an address; "*@domain" is any of that domain, "<>" the null sender
 *   --domain D                  some open recipient is in D
 *   --older T, --newer T        since it arrived: 90, 90s, 5m, 4h, 2d
 *   --all
 *   ID ...                      at most QFILTER_IDS_MAX
 */
#pragma once
#include "lib/ipc/message.h"

enum { QFILTER_IDS_MAX = 1000, QFILTER_TEXT_MAX = 330 };

/* What is to be done with them. */
enum queue_action {
    QUEUE_FIND,
    QUEUE_HOLD,
    QUEUE_RELEASE,
    QUEUE_TRY,
    QUEUE_DROP,
    QUEUE_ACTIONS,
};

struct qfilter {
    struct str sender, recipient, domain; /* p NULL: not said */
    uint64_t older_s, newer_s;            /* 0: not said */
    bool all;
    struct str ids[QFILTER_IDS_MAX]; /* sorted by qfilter_get() */
    size_t nids;
};

/* One option with its value (NULL: there is none), or an ID with option NULL. 1: taken, with its
 * value; 0: taken alone; -1: e says why not. The strings must stay. */
int qfilter_word(struct qfilter *f, const char *option, const char *value, struct err *e);
bool qfilter_empty(const struct qfilter *f);
void qfilter_put(struct msg *m, const struct qfilter *f);
void qfilter_get(struct msg *m, struct qfilter *f_r);
/* Whether it says something that only the message's envelope can answer. */
bool qfilter_needs_envelope(const struct qfilter *f);
/* An address of the filter and one of a message; ASCII case does not matter. */
bool qfilter_address(struct str wanted, struct str address);
