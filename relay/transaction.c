#include "relay/transaction.h"
#include "lib/log/log.h"
#include "lib/mail/address.h"
#include "lib/mail/dsn.h"
#include "lib/smtp/dot.h"
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

enum {
    READ_SIZE = 32768,
    RATE_MIN = 1024, /* bytes a second, over a whole message */
    LAST_WORDS_MS = 2000,
};

/* A transaction is a row of steps: 0 is MAIL, 1..n the recipients, n+1 DATA. */
struct transaction {
    struct wire *w;
    struct delivery *d;
    struct verdict *v;
    size_t window;
    uint32_t accepted; /* recipients */
    bool mail_ok, go;  /* go: 354 was said */
    bool elsewhere;    /* the next host may do better */
    bool gone;         /* the connection is of no more use */
};

/* Fit to stand between < and > on a command line. */
static bool
is_safe(struct str text)
{
    struct address a;
    return address_parse(text, &a, NULL) == 0;
}

static const char *
step_name(const struct transaction *t, size_t step)
{
    return step == 0 ? "MAIL FROM" : step <= t->d->n ? "RCPT TO" : "DATA";
}

static void
put_mail(struct transaction *t)
{
    struct wire *w = t->w;
    stream_putf(&w->io, "MAIL FROM:<%.*s>", STR_ARG(t->d->sender));
    if (w->extensions & SMTP_SIZE)
        stream_putf(&w->io, " SIZE=%llu", (unsigned long long)t->d->size);
    /* To a server without 8BITMIME it goes as it is: all of today's take it. */
    if (t->d->eight_bit && (w->extensions & SMTP_8BITMIME))
        stream_putz(&w->io, " BODY=8BITMIME");
    /* RFC 3461 5.2.1 (a), (b): what came goes on, and nothing else. */
    if ((w->extensions & SMTP_DSN) && t->d->ret)
        stream_putf(&w->io, " RET=%s", dsn_ret_name(t->d->ret));
    if ((w->extensions & SMTP_DSN) && t->d->envid.n)
        stream_putf(&w->io, " ENVID=%.*s", STR_ARG(t->d->envid));
    stream_putz(&w->io, "\r\n");
}

static void
put_rcpt(struct transaction *t, const struct recipient *r)
{
    struct wire *w = t->w;
    stream_putf(&w->io, "RCPT TO:<%.*s>", STR_ARG(r->address));
    if ((w->extensions & SMTP_DSN) && r->notify) { /* RFC 3461 5.2.1 (c) */
        char room[DSN_NOTIFY_MAX + 1];
        struct buf words = buf_on(room, sizeof room, sizeof room - 1);
        dsn_notify_put(&words, r->notify);
        stream_putf(&w->io, " NOTIFY=%.*s", STR_ARG(buf_str(&words)));
    }
    if ((w->extensions & SMTP_DSN) && r->orcpt.n) /* (d) */
        stream_putf(&w->io, " ORCPT=%.*s", STR_ARG(r->orcpt));
    stream_putz(&w->io, "\r\n");
}

static void
put_step(struct transaction *t, size_t step)
{
    if (step == 0)
        put_mail(t);
    else if (step <= t->d->n)
        put_rcpt(t, &t->d->rcpts[step - 1]);
    else
        stream_putz(&t->w->io, "DATA\r\n");
}

static void
take_mail(struct transaction *t)
{
    bool never = wire_refuses(t->w);
    t->mail_ok = t->w->reply.code / 100 == 2;
    if (t->mail_ok)
        return;
    wire_verdict(t->w, t->v, never ? OUTCOME_NEVER : OUTCOME_LATER, "MAIL FROM");
    t->elsewhere = !never;
}

static void
take_rcpt(struct transaction *t, struct recipient *r)
{
    unsigned code = t->w->reply.code;
    if (!t->mail_ok || r->state == RCPT_SETTLED)
        return;
    if (code / 100 == 2) {
        r->state = RCPT_ACCEPTED;
        t->accepted++;
        return;
    }
    /* 552 here is "too many recipients": RFC 5321 4.5.3.1.10 */
    bool never = wire_refuses(t->w) && code != 552;
    wire_verdict(t->w, t->v, never ? OUTCOME_NEVER : OUTCOME_LATER, "RCPT TO");
    delivery_settle(t->d, r, t->v);
}

static void
take_data(struct transaction *t)
{
    unsigned code = t->w->reply.code;
    t->go = code == 354;
    if (t->go || !t->mail_ok || t->accepted == 0)
        return;
    wire_verdict(t->w, t->v, wire_refuses(t->w) ? OUTCOME_NEVER : OUTCOME_LATER, "DATA");
    delivery_settle_all(t->d, RCPT_ACCEPTED, t->v);
}

static int
take_step(struct transaction *t, size_t step)
{
    struct err e = {0};
    char during[48];
    if (wire_reply(t->w, &e) < 0) {
        snprintf(during, sizeof during, "sending %s", step_name(t, step));
        wire_lost(t->w, t->v, during, &e);
        log_info("%s: %s", log_str(t->d->id), t->v->text);
        t->gone = true;
        t->elsewhere = step == 0;
        return -1;
    }
    if (t->w->reply.code == 421) { /* RFC 5321 3.8: it closes */
        wire_verdict(t->w, t->v, OUTCOME_LATER, step_name(t, step));
        t->gone = true;
        t->elsewhere = step == 0;
        return -1;
    }
    if (step == 0)
        take_mail(t);
    else if (step <= t->d->n)
        take_rcpt(t, &t->d->rcpts[step - 1]);
    else
        take_data(t);
    return 0;
}

/* All steps, a window at a time; false when there is no use in going on. */
static bool
converse(struct transaction *t)
{
    size_t steps = (size_t)t->d->n + 2;
    for (size_t from = 0; from < steps;) {
        size_t to = from + t->window < steps ? from + t->window : steps;
        if (from == steps - 1 && t->accepted == 0)
            return false;
        wire_deadline(t->w);
        for (size_t i = from; i < to; i++)
            put_step(t, i);
        t->w->dirty = true;
        for (size_t i = from; i < to; i++)
            if (take_step(t, i) < 0)
                return false;
        if (!t->mail_ok && !t->go)
            return false;
        from = to;
    }
    return t->go;
}

/* The message, encoded. -1 with e: broken off before its final dot. ERR_DAMAGED: it is not what was
 * put into the queue. */
static int
send_content(struct transaction *t, struct buf *out, struct err *e)
{
    static char piece[READ_SIZE];
    struct dot_encoder dot = {0};
    struct siphash check = qfile_check_begin();
    for (uint64_t done = 0; done < t->d->size;) {
        uint64_t left = t->d->size - done;
        size_t want = left < READ_SIZE ? (size_t)left : READ_SIZE;
        ssize_t n = pread(t->d->fd, piece, want, (off_t)(t->d->offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? err_errno(e, "reading the message")
                         : err_set(e, ERR_TEMPORARY, "the message is shorter than it was");
        done += (uint64_t)n;
        siphash_add(&check, str_of(piece, (size_t)n));
        buf_reset(out);
        dot_encode(&dot, str_of(piece, (size_t)n), out);
        if (!buf_ok(out))
            return err_set(e, ERR_TEMPORARY, "out of memory");
        stream_put(&t->w->io, buf_str(out));
        if (t->w->io.broken)
            return err_set(e, ERR_CLOSED, "connection lost");
    }
    if (qfile_check_end(&check, t->d->check, e) < 0)
        return -1;
    buf_reset(out);
    dot_encode_end(&dot, out);
    stream_put(&t->w->io, buf_str(out));
    return stream_flush(&t->w->io, e);
}

/* Whether a host that closed in the middle of the message has said why: nobody has it then. */
static bool
was_refused(struct transaction *t)
{
    struct stream *io = &t->w->io;
    io->broken = false;
    buf_reset(&io->out);
    io->deadline_ms = now_ms() + LAST_WORDS_MS;
    return smtp_reply_read(io, &t->w->reply, NULL) == 0 && t->w->reply.code >= 400;
}

static void
send_message(struct transaction *t)
{
    const struct conf *conf = t->w->relay->conf;
    struct buf out = buf_new(2 * READ_SIZE + 64);
    struct stream *io = &t->w->io;
    struct err e = {0};
    int64_t data_ms = (int64_t)conf->relay.data_s * 1000;
    io->idle_ms = (int)data_ms;
    io->deadline_ms = now_ms() + data_ms + (int64_t)(t->d->size / RATE_MIN) * 1000;
    int sent = send_content(t, &out, &e);
    buf_free(&out);
    bool refused = sent < 0 && e.class == ERR_CLOSED && was_refused(t);
    if (sent == 0) {
        /* The answer may take long, and must not be missed (RFC 5321 4.5.3.2.6). */
        io->deadline_ms = now_ms() + data_ms;
        sent = smtp_reply_read(io, &t->w->reply, &e);
    }
    io->idle_ms = (int)conf->relay.command_s * 1000;
    if (sent < 0) {
        if (refused)
            wire_verdict(t->w, t->v, wire_refuses(t->w) ? OUTCOME_NEVER : OUTCOME_LATER,
                         "the message");
        else if (e.class == ERR_DAMAGED)
            verdict_set(t->v, OUTCOME_DAMAGED, "4.3.0", "%s", e.text);
        else
            wire_lost(t->w, t->v, "sending the message", &e);
        log_info("%s: %s", log_str(t->d->id), t->v->text);
        t->gone = true;
        /* Without its final dot a broken message must not look like a whole one: no QUIT. */
        io->broken = true;
    } else {
        unsigned code = t->w->reply.code;
        wire_verdict(t->w, t->v,
                     code / 100 == 2 ? OUTCOME_DONE
                     : code >= 500   ? OUTCOME_NEVER
                                     : OUTCOME_LATER,
                     "end of DATA");
        if (t->v->outcome == OUTCOME_DONE && !(t->w->extensions & SMTP_DSN))
            t->v->outcome = OUTCOME_RELAYED;
        t->w->dirty = false;
        t->gone = code == 421;
    }
    delivery_settle_all(t->d, RCPT_ACCEPTED, t->v);
}

/* 354, and nobody to send it to: RFC 2920 3.1 says to send an empty message, which is refused. */
static void
send_nothing(struct transaction *t)
{
    struct err e = {0};
    stream_putz(&t->w->io, ".\r\n");
    if (wire_reply(t->w, &e) < 0)
        t->gone = true;
}

/* What can be refused without asking the server. */
static void
refuse_early(struct transaction *t)
{
    struct delivery *d = t->d;
    snprintf(t->v->relay, sizeof t->v->relay, "%s", t->w->name);
    if (d->sender.n && !is_safe(d->sender)) {
        verdict_set(t->v, OUTCOME_NEVER, "5.1.7", "the sender's address cannot be sent");
        delivery_settle_all(d, RCPT_OPEN, t->v);
    }
    if ((t->w->extensions & SMTP_SIZE) && t->w->size_max && d->size > t->w->size_max) {
        verdict_set(t->v, OUTCOME_NEVER, "5.3.4", "message of %llu bytes; host %.200s takes %llu",
                    (unsigned long long)d->size, t->w->name, (unsigned long long)t->w->size_max);
        delivery_settle_all(d, RCPT_OPEN, t->v);
    }
    for (uint32_t i = 0; i < d->n; i++)
        if (d->rcpts[i].state == RCPT_OPEN && !is_safe(d->rcpts[i].address)) {
            verdict_set(t->v, OUTCOME_NEVER, "5.1.3", "this address cannot be sent");
            delivery_settle(d, &d->rcpts[i], t->v);
        }
}

/* Settled ones are not asked for again: the open ones move to the front. */
static void
keep_open(struct delivery *d)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < d->n; i++)
        if (d->rcpts[i].state != RCPT_SETTLED)
            d->rcpts[kept++] = d->rcpts[i];
    d->n = kept;
}

static bool
clean_up(struct transaction *t)
{
    struct err e = {0};
    if (!t->w->dirty)
        return true;
    if (wire_command(t->w, &e, "RSET") == 0 && t->w->reply.code / 100 == 2) {
        t->w->dirty = false;
        return true;
    }
    if (t->w->io.broken)
        wire_lost(t->w, t->v, "sending RSET", &e);
    else
        wire_verdict(t->w, t->v, OUTCOME_LATER, "RSET");
    return false;
}

enum transaction_end
transaction_run(struct wire *w, struct delivery *d, struct verdict *v_r)
{
    struct transaction t = {.w = w, .d = d, .v = v_r};
    w->give_up_ms = now_ms() + RELAY_TRANSACTION_MS;
    t.window = w->extensions & SMTP_PIPELINING ? TRANSACTION_WINDOW : 1;
    if (!clean_up(&t)) {
        wire_close(w, true);
        return TRANSACTION_ELSEWHERE;
    }
    refuse_early(&t);
    keep_open(d);
    if (d->n == 0)
        return TRANSACTION_DONE;
    w->messages++;
    if (converse(&t) && t.accepted)
        send_message(&t);
    else if (t.go && !t.gone)
        send_nothing(&t);
    bool elsewhere = t.elsewhere;
    if (t.gone || (elsewhere && delivery_open(d)))
        wire_close(w, !t.gone || !w->io.broken);
    if (elsewhere)
        return TRANSACTION_ELSEWHERE;
    /* Whoever is left has the verdict that ended it: MAIL refused, or the connection gone. */
    delivery_settle_all(d, RCPT_OPEN, v_r);
    delivery_settle_all(d, RCPT_ACCEPTED, v_r);
    return TRANSACTION_DONE;
}
