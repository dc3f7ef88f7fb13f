#include "lib/base/encode.h"
#include "lib/log/log.h"
#include "lib/mail/date.h"
#include "lib/mail/dsn.h"
#include "qmgr/qmgr.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    HEADER_MAX = 50000,
    FULL_MAX = 65536,       /* a larger message is not returned whole, whatever RET says */
    CHECKED_MAX = 64 << 20, /* nothing of a larger one: reading it would hold up all others */
    BOUNCE_MAX = 4 << 20,   /* more than TOLD_MAX recipients at their longest take */
    TOLD_MAX = 1000,
    NAME_SHOWN = 400, /* lines stay below 998 bytes (RFC 5322 2.1.1), however it is quoted */
    TEXT_SHOWN = 600,
};

/* One notice while it is composed. */
struct notice {
    struct message *m;
    enum bounce_kind kind;
    const struct words *words;
    char boundary[64];
    struct str returned; /* of the message: all of it, or its header */
    bool full;
    bool nothing;   /* is returned */
    bool eight_bit; /* and it has bytes above 0x7f */
    struct buf out;
};

static const struct words {
    const char *log, *origin, *subject, *human, *action;
} words[] = {
    [BOUNCE_FAILED] = {"sender non-delivery notification", ORIGIN_BOUNCE,
                       "Undelivered mail returned to sender",
                       "Your message could not be delivered to one or more recipients.\r\n"
                       "It was given up for them; they will not get it.\r\n",
                       "failed"},
    [BOUNCE_DELAYED] = {"sender delay notification", ORIGIN_NOTICE,
                        "Delayed mail (still being tried)",
                        "Your message has not been delivered yet to one or more recipients.\r\n"
                        "It is still being tried; you need not send it again.\r\n",
                        "delayed"},
    [BOUNCE_DONE] = {"sender delivery status notification", ORIGIN_NOTICE,
                     "Successful mail delivery report",
                     "You asked to be told what became of your message. For these recipients it\r\n"
                     "has arrived, or went on to where no further report will come from:\r\n",
                     NULL},
    [BOUNCE_DOUBLE] = {"postmaster non-delivery notification", ORIGIN_DOUBLE,
                       "Undeliverable bounce",
                       "A notice of this system could not be delivered to the sender of the\r\n"
                       "message that it is about. It was given up; nobody else is told.\r\n",
                       "failed"},
};

static const struct {
    const char *action, *human;
} reports[] = {
    [REPORT_DELIVERED] = {"delivered", "delivered to the mailbox"},
    [REPORT_RELAYED] = {"relayed", "handed to another system, which sends no reports"},
    [REPORT_EXPANDED] = {"expanded", "sent on to the several addresses that it stands for"},
};

/* Whether this kind of notice is about this recipient (RFC 3461 5.2). */
static bool
concerns(const struct message *m, const struct rcpt *r, enum bounce_kind kind)
{
    switch (kind) {
    case BOUNCE_FAILED:
        return r->state == RCPT_NEVER && dsn_wants_failure(r->notify);
    case BOUNCE_DELAYED: /* of bulk mail only who asks for it */
        return r->state == RCPT_LATER && (r->notify || !m->bulk) && dsn_wants_delay(r->notify);
    case BOUNCE_DONE:
        return r->report != REPORT_NONE;
    case BOUNCE_DOUBLE:
        return r->state == RCPT_NEVER;
    }
    return false;
}

bool
bounce_wanted(const struct message *m, enum bounce_kind kind)
{
    /* RFC 5321 6.1, RFC 3461 5.2: never a notice to <>. */
    if (m->env.sender.n == 0 && kind != BOUNCE_DOUBLE)
        return false;
    for (size_t i = 0; i < m->nrcpt; i++)
        if (concerns(m, m->rcpts[i], kind))
            return true;
    return false;
}

/* An address or a name: what cannot be part of one becomes '?'. */
static void
add_name(struct buf *out, struct str s)
{
    s = str_sub(s, 0, NAME_SHOWN);
    for (size_t i = 0; i < s.n; i++)
        buf_addc(out, ch_print(s.p[i]) ? s.p[i] : '?');
}

/* A reason or a reply: printable ASCII, bounded. */
static void
add_clean(struct buf *out, struct str s, size_t max)
{
    size_t from = out->n;
    quote_add(out, s, REASON_MAX);
    if (out->n - from > max) {
        buf_truncate(out, from + max);
        buf_addz(out, "...");
    }
}

/* The first bytes of the message, at most max, into room. */
static ssize_t
read_message(const struct message *m, char *room, size_t max)
{
    size_t want = m->env.message_size < max ? (size_t)m->env.message_size : max;
    int fd = store_read_fd(m->entry);
    ssize_t n = fd < 0 ? -1 : pread(fd, room, want, (off_t)m->env.message_offset);
    if (fd >= 0)
        close(fd);
    return n;
}

/* Whether anything of it can be returned: 1; 0: it is too large to look through, or what is in its
 * file is not what was written, and may be of another message; -1: it cannot be read now. */
static int
is_whole(const struct message *m)
{
    struct err e;
    if (m->env.message_size > CHECKED_MAX)
        return 0;
    if (message_check(m, &e) == 0)
        return 1;
    log_error("%.*s: %s", ID_LEN, m->entry->id, e.text);
    return e.class == ERR_DAMAGED ? 0 : -1;
}

/* What is returned: the message if the sender asked for that and it is small, else its header, at
 * most HEADER_MAX bytes, whole lines. RFC 3461 6.2: all of it only in a notice of failure. */
static int
read_returned(struct notice *n, char room[FULL_MAX])
{
    bool failed = n->kind == BOUNCE_FAILED || n->kind == BOUNCE_DOUBLE;
    int whole = is_whole(n->m);
    n->nothing = whole == 0;
    if (whole <= 0)
        return whole;
    n->full = failed && (n->m->env.ret == DSN_RET_FULL || n->kind == BOUNCE_DOUBLE) &&
              n->m->env.message_size <= FULL_MAX;
    ssize_t got = read_message(n->m, room, n->full ? FULL_MAX : HEADER_MAX);
    if (got < 0 || (n->full && (uint64_t)got != n->m->env.message_size))
        return -1;
    struct str text = str_of(room, (size_t)got);
    if (!n->full) {
        ptrdiff_t end = str_find(text, STR("\r\n\r\n"));
        ptrdiff_t last = str_rchr(text, '\n');
        text.n = end >= 0 ? (size_t)end + 2 : last >= 0 ? (size_t)last + 1 : 0;
    }
    for (size_t i = 0; n->full && i < text.n; i++)
        n->eight_bit |= (text.p[i] & 0x80) != 0;
    n->returned = text;
    return 0;
}

static bool
is_blind(struct str line)
{
    struct str name = str_trim(str_cut(&line, ':'));
    return str_caseeq(name, STR("Bcc")) || str_caseeq(name, STR("Resent-Bcc"));
}

/* 8-bit and odd bytes: this part says it is 7bit text. Blind copies are nobody's business
 * (catalogue H20), and who has a filter for them may not know this part. */
static void
add_header(struct notice *n)
{
    struct str left = n->returned;
    bool hidden = false;
    while (left.n) {
        struct str line = str_sub(left, 0, (size_t)str_chr(left, '\n') + 1);
        left = str_from(left, line.n);
        if (!ch_wsp(line.p[0]))
            hidden = is_blind(line);
        for (size_t i = 0; !hidden && i < line.n; i++)
            buf_addc(&n->out, ch_print(line.p[i]) || ch_wsp(line.p[i]) || line.p[i] == '\r' ||
                                      line.p[i] == '\n'
                                  ? line.p[i]
                                  : '?');
    }
}

static void
add_returned(struct notice *n)
{
    buf_addf(&n->out, "--%s\r\nContent-Type: %s\r\n", n->boundary,
             n->full ? "message/rfc822" : "text/rfc822-headers");
    if (n->eight_bit)
        buf_addz(&n->out, "Content-Transfer-Encoding: 8bit\r\n");
    buf_addz(&n->out, "\r\n");
    if (n->full)
        buf_add(&n->out, n->returned);
    else
        add_header(n);
}

/* A reason that quotes a host, "host NAME said: 550 no (in reply to RCPT TO)", in its parts. */
static bool
split_reason(struct str text, struct str *host_r, struct str *reply_r)
{
    if (str_starts(text, STR(EXPIRED_TEXT)))
        text = str_from(text, sizeof EXPIRED_TEXT - 1);
    if (!str_starts(text, STR("host ")))
        return false;
    text = str_from(text, 5);
    *host_r = str_cut(&text, ' ');
    if (!str_starts(text, STR("said: ")))
        return false;
    text = str_from(text, 6);
    ptrdiff_t behind = str_find(text, STR(" (in reply to "));
    *reply_r = behind < 0 ? text : str_sub(text, 0, (size_t)behind);
    return true;
}

static void
add_human(struct notice *n)
{
    struct buf *out = &n->out;
    const struct message *m = n->m;
    size_t told = 0, more = 0;
    buf_addf(out, "--%s\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n", n->boundary);
    buf_addf(out, "This is the mail system at host %.*s.\r\n\r\n", STR_ARG(qmgr.conf->hostname));
    buf_addz(out, n->words->human);
    buf_addz(out, "\r\n");
    for (size_t i = 0; i < m->nrcpt; i++) {
        const struct rcpt *r = m->rcpts[i];
        if (!concerns(m, r, n->kind))
            continue;
        if (told == TOLD_MAX) {
            more++;
            continue;
        }
        told++;
        buf_addc(out, '<');
        add_name(out, message_bare(r->address));
        buf_addz(out, ">:\r\n    ");
        if (n->kind == BOUNCE_DONE)
            buf_addz(out, reports[r->report].human);
        else
            add_clean(out, r->text, TEXT_SHOWN);
        buf_addz(out, "\r\n\r\n");
    }
    if (more)
        buf_addf(out, "And %zu more.\r\n\r\n", more);
    if (n->nothing)
        buf_addz(out, "Nothing of your message can be returned.\r\n\r\n");
    else if (n->kind == BOUNCE_FAILED && m->env.ret == DSN_RET_FULL && !n->full)
        buf_addz(out, "Your message is too large to be returned; its header follows.\r\n\r\n");
}

static void
add_date(struct buf *out, const char *field, int64_t wall_s)
{
    buf_addf(out, "%s: ", field);
    date_format(out, wall_s, 0);
    buf_addz(out, "\r\n");
}

/* RFC 3464 2.2 */
static void
add_message_fields(struct notice *n)
{
    struct buf *out = &n->out;
    const struct envelope *env = &n->m->env;
    buf_addf(out, "--%s\r\nContent-Type: message/delivery-status\r\n\r\n", n->boundary);
    if (env->envid.n) {
        buf_addz(out, "Original-Envelope-Id: ");
        dsn_envid_decode(out, env->envid);
        buf_addz(out, "\r\n");
    }
    buf_addf(out, "Reporting-MTA: dns; %.*s\r\n", STR_ARG(qmgr.conf->hostname));
    if (str_starts(env->client, STR("["))) {
        buf_addz(out, "Received-From-MTA: dns; ");
        add_name(out, env->helo.n ? env->helo : env->client);
        if (env->helo.n) {
            buf_addz(out, " (");
            add_name(out, env->client);
            buf_addc(out, ')');
        }
        buf_addz(out, "\r\n");
    }
    add_date(out, "Arrival-Date", env->arrived_us / 1000000);
}

/* RFC 3464 2.3.5, 2.3.6: who said what. */
static void
add_diagnostic(struct buf *out, const struct rcpt *r)
{
    struct str host, reply;
    if (!split_reason(r->text, &host, &reply)) {
        if (r->report == REPORT_NONE) {
            buf_addz(out, "Diagnostic-Code: x-bulkhead; ");
            add_clean(out, r->text, TEXT_SHOWN);
            buf_addz(out, "\r\n");
        }
        return;
    }
    struct str left = host, name = str_cut(&left, '[');
    bool literal = name.n == 0 || !ch_alpha(name.p[name.n - 1]); /* no top level ends in a digit */
    buf_addz(out, "Remote-MTA: dns; ");
    if (literal)
        buf_addc(out, '[');
    add_name(out, name);
    if (literal)
        buf_addc(out, ']');
    buf_addz(out, "\r\nDiagnostic-Code: smtp; ");
    add_clean(out, reply, TEXT_SHOWN);
    buf_addz(out, "\r\n");
}

/* RFC 3464 2.3 */
static void
add_recipient(struct notice *n, const struct rcpt *r)
{
    struct buf *out = &n->out;
    bool done = n->kind == BOUNCE_DONE;
    buf_addz(out, "\r\n");
    if (r->orcpt.n) {
        buf_addz(out, "Original-Recipient: ");
        dsn_orcpt_decode(out, r->orcpt);
        buf_addz(out, "\r\n");
    }
    buf_addz(out, "Final-Recipient: rfc822; ");
    add_name(out, message_bare(r->address));
    buf_addf(out, "\r\nAction: %s\r\nStatus: %s\r\n",
             done ? reports[r->report].action : n->words->action,
             r->dsn[0]                   ? r->dsn
             : done                      ? "2.0.0"
             : n->kind == BOUNCE_DELAYED ? "4.0.0"
                                         : "5.0.0");
    add_diagnostic(out, r);
    if (!done && !str_starts(r->text, STR(EXPIRED_TEXT)))
        add_date(out, "Last-Attempt-Date", clock_wall_s());
    if (n->kind == BOUNCE_DELAYED) {
        int64_t left_s = message_expire_s(n->m) - message_age_s(n->m);
        add_date(out, "Will-Retry-Until", clock_wall_s() + (left_s > 0 ? left_s : 0));
    }
}

static void
add_status(struct notice *n)
{
    size_t told = 0;
    add_message_fields(n);
    for (size_t i = 0; i < n->m->nrcpt && told < TOLD_MAX; i++)
        if (concerns(n->m, n->m->rcpts[i], n->kind)) {
            add_recipient(n, n->m->rcpts[i]);
            told++;
        }
}

static int
compose(struct notice *n, struct str to, const char *id)
{
    struct buf *out = &n->out;
    buf_addz(out, "Date: ");
    date_format(out, clock_wall_s(), 0);
    buf_addf(out, "\r\nFrom: Mail Delivery System <MAILER-DAEMON@%.*s>\r\nTo: <",
             STR_ARG(qmgr.conf->hostname));
    add_name(out, to);
    buf_addf(out, ">\r\nSubject: %s\r\nMessage-ID: <%s@%.*s>\r\n", n->words->subject, id,
             STR_ARG(qmgr.conf->hostname));
    buf_addz(out, "Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n");
    if (n->eight_bit)
        buf_addz(out, "Content-Transfer-Encoding: 8bit\r\n");
    buf_addf(out,
             "Content-Type: multipart/report; report-type=delivery-status;\r\n"
             "\tboundary=\"%s\"\r\n\r\n",
             n->boundary);
    add_human(n);
    add_status(n);
    buf_addz(out, "\r\n");
    if (!n->nothing) /* RFC 6522 3: this part may be missing */
        add_returned(n);
    buf_addf(out, "\r\n--%s--\r\n", n->boundary);
    return buf_ok(out) ? 0 : -1;
}

static int
write_all(int fd, struct str s)
{
    while (s.n) {
        ssize_t n = write(fd, s.p, s.n);
        if (n <= 0)
            return -1;
        s = str_from(s, (size_t)n);
    }
    return 0;
}

/* As a session would bring it, and as durable, before the failures go on record. */
static int
store(const char *id, struct envelope *env, struct str text, struct err *e)
{
    struct buf file = buf_new(QFILE_ENVELOPE_MAX + BOUNCE_MAX);
    int fd = qfile_whole(&file, str_z(id), env, text, e) < 0 ? -1 : store_create(id, NULL, e);
    if (fd < 0) {
        buf_free(&file);
        return -1;
    }
    int ok = write_all(fd, buf_str(&file));
    if (ok < 0 || store_commit_name(id, 'b', 0) < 0) {
        ok = err_errno(e, "cannot write");
        store_discard(id);
    } else if (fdatasync(fd) < 0) {
        ok = err_errno(e, "cannot sync");
        store_uncommit(id, 'b', 0);
    } else if (place_sync_new() < 0) {
        /* This failure is told once: a later sync for a session's commit would look like a success.
         */
        store_uncommit(id, 'b', 0);
        log_fatal("leaving after a failed sync: %s", strerror(errno));
    }
    close(fd);
    buf_free(&file);
    return ok;
}

static int
compose_and_store(struct notice *n, struct str to, const char *id, struct err *e)
{
    struct qfile_rcpt rcpt = {.address = to};
    struct envelope env = {.origin = str_z(n->words->origin),
                           .client = STR("local"),
                           .arrived_us = wall_us(),
                           .rcpts = &rcpt,
                           .nrcpt = 1};
    char *room = malloc(FULL_MAX);
    int ok = room && read_returned(n, room) == 0 && compose(n, to, id) == 0
                 ? 0
                 : err_set(e, ERR_TEMPORARY, "cannot compose it");
    env.eight_bit = n->eight_bit;
    if (ok == 0)
        ok = store(id, &env, buf_str(&n->out), e);
    free(room);
    return ok;
}

int
bounce_send(struct message *m, enum bounce_kind kind, struct err *e)
{
    char id[ID_LEN + 1];
    struct notice n = {.m = m, .kind = kind, .words = &words[kind], .out = buf_new(BOUNCE_MAX)};
    struct buf postmaster = buf_new(QFILE_ADDR_MAX);
    store_new_id(id);
    snprintf(n.boundary, sizeof n.boundary, "bulkhead-%s", id);
    buf_addf(&postmaster, "postmaster@%.*s",
             STR_ARG(qmgr.conf->ndomains ? qmgr.conf->domains[0] : qmgr.conf->hostname));
    int ok =
        compose_and_store(&n, kind == BOUNCE_DOUBLE ? buf_str(&postmaster) : m->env.sender, id, e);
    buf_free(&postmaster);
    buf_free(&n.out);
    if (ok < 0)
        return -1;
    log_info("%.*s: %s: %s", ID_LEN, m->entry->id, n.words->log, id);
    struct entry *entry = entry_add(id, 'b', PLACE_NEW, clock_steady_s());
    if (!entry)
        log_fatal("out of memory for the queue");
    entry_wait(entry);
    return 0;
}
