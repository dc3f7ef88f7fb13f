#include "lib/base/encode.h"
#include "lib/log/log.h"
#include "lib/mail/date.h"
#include "qmgr/qmgr.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { HEADER_MAX = 50000, BOUNCE_MAX = 4 << 20, TOLD_MAX = 1000 };

/* The header of the message that failed, as it is, at most HEADER_MAX bytes, whole lines. */
static int
add_header(struct buf *out, const struct message *m)
{
    char *room = malloc(HEADER_MAX);
    int fd = store_read_fd(m->entry);
    size_t want = m->env.message_size < HEADER_MAX ? (size_t)m->env.message_size : HEADER_MAX;
    ssize_t n = fd < 0 || !room ? -1 : pread(fd, room, want, (off_t)m->env.message_offset);
    if (fd >= 0)
        close(fd);
    if (n >= 0) {
        struct str text = str_of(room, (size_t)n);
        ptrdiff_t end = str_find(text, STR("\r\n\r\n"));
        ptrdiff_t last = str_rchr(text, '\n');
        text.n = end >= 0 ? (size_t)end + 2 : last >= 0 ? (size_t)last + 1 : 0;
        for (size_t i = 0; i < text.n;
             i++) /* 8-bit and odd bytes: this part says it is 7bit text */
            buf_addc(out, ch_print(text.p[i]) || ch_wsp(text.p[i]) || text.p[i] == '\r' ||
                                  text.p[i] == '\n'
                              ? text.p[i]
                              : '?');
    }
    free(room);
    return n < 0 ? -1 : 0;
}

/* An address or a reply as header text: printable ASCII, bounded. */
static void
add_clean(struct buf *out, struct str s)
{
    quote_add(out, s, REASON_MAX);
}

static const struct words {
    enum rcpt_state of; /* whom it is about */
    const char *subject, *human, *action;
} words[] = {
    [BOUNCE_FAILED] = {RCPT_NEVER, "Undelivered mail returned to sender",
                       "Your message could not be delivered to one or more recipients.\r\n"
                       "It was given up for them; they will not get it.\r\n",
                       "failed"},
    [BOUNCE_DELAYED] = {RCPT_LATER, "Delayed mail (still being tried)",
                        "Your message has not been delivered yet to one or more recipients.\r\n"
                        "It is still being tried; you need not send it again.\r\n",
                        "delayed"},
};

static void
add_human(struct buf *out, const struct message *m, const struct words *w, const char *boundary)
{
    size_t told = 0;
    buf_addf(out, "--%s\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n", boundary);
    buf_addf(out, "This is the mail system at host %.*s.\r\n\r\n", STR_ARG(qmgr.conf->hostname));
    buf_addz(out, w->human);
    buf_addz(out, "\r\n");
    for (size_t i = 0; i < m->nrcpt && told < TOLD_MAX; i++) {
        const struct rcpt *r = m->rcpts[i];
        if (r->state != w->of)
            continue;
        buf_addc(out, '<');
        add_clean(out, message_bare(r->address));
        buf_addz(out, ">:\r\n    ");
        add_clean(out, r->text);
        buf_addz(out, "\r\n\r\n");
        told++;
    }
}

/* RFC 3464 2.3.9: until when it will be tried, of a delay. */
static void
add_until(struct buf *out, const struct message *m)
{
    int64_t left_s = (int64_t)qmgr.conf->queue.expire_s - message_age_s(m);
    buf_addz(out, "Will-Retry-Until: ");
    date_format(out, clock_wall_s() + (left_s > 0 ? left_s : 0), 0);
    buf_addz(out, "\r\n");
}

/* RFC 3464 2.2, 2.3 */
static void
add_status(struct buf *out, const struct message *m, const struct words *w, const char *boundary)
{
    size_t told = 0;
    buf_addf(out, "--%s\r\nContent-Type: message/delivery-status\r\n\r\n", boundary);
    buf_addf(out, "Reporting-MTA: dns; %.*s\r\nArrival-Date: ", STR_ARG(qmgr.conf->hostname));
    date_format(out, m->env.arrived_us / 1000000, 0);
    buf_addz(out, "\r\n\r\n");
    for (size_t i = 0; i < m->nrcpt && told < TOLD_MAX; i++) {
        const struct rcpt *r = m->rcpts[i];
        if (r->state != w->of)
            continue;
        buf_addz(out, "Final-Recipient: rfc822; ");
        add_clean(out, message_bare(r->address));
        buf_addf(out, "\r\nAction: %s\r\nStatus: %s\r\nDiagnostic-Code: smtp; ", w->action,
                 r->dsn[0]             ? r->dsn
                 : w->of == RCPT_NEVER ? "5.0.0"
                                       : "4.0.0");
        add_clean(out, r->text);
        buf_addz(out, "\r\n");
        if (w->of == RCPT_LATER)
            add_until(out, m);
        buf_addz(out, "\r\n");
        told++;
    }
}

static int
compose(struct buf *out, const struct message *m, const struct words *w, const char *id)
{
    char boundary[64];
    snprintf(boundary, sizeof boundary, "bulkhead-%s", id);
    buf_addz(out, "Date: ");
    date_format(out, clock_wall_s(), 0);
    buf_addf(out, "\r\nFrom: Mail Delivery System <MAILER-DAEMON@%.*s>\r\nTo: <",
             STR_ARG(qmgr.conf->hostname));
    buf_add(out, m->env.sender);
    buf_addf(out, ">\r\nSubject: %s\r\nMessage-ID: <%s@%.*s>\r\n", w->subject, id,
             STR_ARG(qmgr.conf->hostname));
    buf_addf(out,
             "Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n"
             "Content-Type: multipart/report; report-type=delivery-status;\r\n"
             "\tboundary=\"%s\"\r\n\r\n",
             boundary);
    add_human(out, m, w, boundary);
    add_status(out, m, w, boundary);
    buf_addf(out, "--%s\r\nContent-Type: text/rfc822-headers\r\n\r\n", boundary);
    if (add_header(out, m) < 0)
        return -1;
    buf_addf(out, "\r\n--%s--\r\n", boundary);
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
    struct buf file = buf_new(QFILE_ENVELOPE_MAX);
    env->message_size = text.n;
    int fd = qfile_write(&file, env, e) < 0 ? -1 : store_create(id, e);
    if (fd < 0) {
        buf_free(&file);
        return -1;
    }
    int ok = write_all(fd, buf_str(&file)) < 0 || write_all(fd, text) < 0 || fsync(fd) < 0 ? -1 : 0;
    if (ok < 0 || store_commit_name(id, 'b') < 0) {
        err_errno(e, "cannot write");
        store_discard(id);
        ok = -1;
    } else if (store_sync_new() < 0) {
        /* This failure is told once: a later sync for a session's commit would look like a success.
         */
        store_uncommit(id, 'b');
        log_fatal("leaving after a failed sync: %s", strerror(errno));
    }
    close(fd);
    buf_free(&file);
    return ok;
}

int
bounce_send(struct message *m, enum bounce_kind kind, struct err *e)
{
    char id[ID_LEN + 1];
    struct buf text = buf_new(BOUNCE_MAX);
    struct qfile_rcpt to = {m->env.sender};
    struct envelope env = {.origin = STR("bounce"),
                           .client = STR("local"),
                           .arrived_us = wall_us(),
                           .rcpts = &to,
                           .nrcpt = 1};
    store_new_id(id);
    int ok = compose(&text, m, &words[kind], id);
    if (ok < 0)
        err_set(e, ERR_TEMPORARY, "cannot compose it");
    else
        ok = store(id, &env, buf_str(&text), e);
    buf_free(&text);
    if (ok < 0)
        return -1;
    log_info("%.*s: sender %s notification: %s", ID_LEN, m->entry->id,
             kind == BOUNCE_FAILED ? "non-delivery" : "delay", id);
    struct entry *entry = entry_add(id, 'b', PLACE_NEW, clock_steady_s());
    if (!entry)
        log_fatal("out of memory for the queue");
    entry_wait(entry);
    return 0;
}
