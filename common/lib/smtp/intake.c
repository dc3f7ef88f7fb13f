#include "lib/log/log.h"
#include "lib/smtp/dot.h"
#include "lib/smtp/head.h"
#include "lib/smtp/received.h"
#include "lib/smtp/verbs.h"

/*
 * One message on its way in: DATA, from 354 to the reply to the final dot. The transaction is over
 * however this ends (catalogue A11 to A13).
 */
enum {
    DISCARD_MAX = 1 << 20, /* read beyond a refused message's size limit, before we hang up */
    RECEIVED_MAX = 2048,
    READ_MORE = 64 * 1024, /* read at once, when a message has turned out to be large */
};

struct intake {
    struct smtp_server *s;
    struct dot_decoder dot;
    struct smtp_hops hops;
    struct envelope env;
    uint64_t size;   /* of the content as it came */
    struct buf head; /* held back until the header has ended, for the policy to work on */
    size_t scan;     /* place in head */
    bool in_head;
    size_t begins; /* of what waits to be written, the message: where nothing is held back */
    bool looked;   /* at its header there */
};

/* Whatever goes wrong with the queue is temporary; only "no room" has a code of its own. */
static bool
queue_failed(struct smtp_server *s, const struct err *e)
{
    log_warn("%s: %s", s->client, e->text);
    if (e->class == ERR_LIMIT && s->local)
        return smtp_refuse(s, 452, "4.3.1", "Error: %s", e->text);
    if (e->class == ERR_LIMIT)
        return smtp_refuse(s, 452, "4.3.1", "Error: insufficient system storage");
    return smtp_refuse(s, 451, "4.3.0", "Error: queue file trouble, try again later");
}

static void
put(struct intake *in, struct str content)
{
    struct err e = {0};
    if (!in->s->refusal.code && qclient_put(&in->s->queue, content, &e) < 0)
        queue_failed(in->s, &e);
}

static void
fill_envelope(struct intake *in)
{
    struct smtp_server *s = in->s;
    in->env = (struct envelope){.sender = s->tx.sender,
                                .origin = str_z(s->origin),
                                .client = str_z(s->client),
                                .login = str_z(s->login),
                                .helo = str_z(s->helo),
                                .arrived_us = wall_us(),
                                .eight_bit = s->tx.eight_bit,
                                .ret = s->tx.ret,
                                .envid = s->tx.envid,
                                .rcpts = s->tx.rcpts,
                                .nrcpt = s->tx.nrcpt};
}

static void
put_received(struct intake *in)
{
    struct smtp_server *s = in->s;
    char room[1024];
    struct buf field = buf_on(room, sizeof room, RECEIVED_MAX);
    struct smtp_received r = {.helo = str_z(s->helo),
                              .ip = str_z(s->local         ? ""
                                          : s->peer->ip[0] ? s->peer->ip
                                                           : "unknown"), /* by inetd, a pipe */
                              .uid = s->peer->uid,
                              .esmtp = s->esmtp,
                              .tls = s->tls,
                              .auth = s->login[0] != '\0',
                              .tls_text = str_z(s->tls_text),
                              .by = s->conf->hostname,
                              .id = str_z(s->queue.id),
                              .when_s = in->env.arrived_us / 1000000};
    smtp_received_put(&field, &r);
    put(in, buf_str(&field));
    buf_free(&field);
}

/* A file in the queue, with the envelope and our Received in it. False: answered. */
static bool
open_message(struct intake *in)
{
    struct smtp_server *s = in->s;
    struct err e = {0};
    fill_envelope(in);
    if (qclient_begin(&s->queue, &e) < 0 || qclient_envelope(&s->queue, &in->env, &e) < 0) {
        queue_failed(s, &e);
        return false;
    }
    if (s->login[0] && !s->local)
        log_info("%s: client=%s, sasl_method=PLAIN, sasl_username=%s", s->queue.id, s->client,
                 log_str(str_z(s->login)));
    else
        log_info("%s: client=%s", s->queue.id, s->client);
    put_received(in);
    in->begins = s->queue.waiting.n;
    return !s->refusal.code;
}

/* Who is to be told that it is bulk mail needs no copy of the header: it has not been written yet
 * (unless it is larger than anything that people send). */
static void
look_at_head(struct intake *in)
{
    const struct qclient *q = &in->s->queue;
    if (!in->looked && !in->s->policy->head && !q->written)
        in->env.bulk = smtp_head_bulk(str_from(buf_str(&q->waiting), in->begins));
    in->looked = true;
}

/* The header is whole (the first end bytes of in->head), or the message is (end < 0). */
static void
finish_head(struct intake *in, size_t head_size, size_t body_at)
{
    struct smtp_server *s = in->s;
    struct buf out = buf_new(2 * SMTP_HEAD_MAX);
    in->in_head = false;
    in->env.bulk = smtp_head_bulk(str_sub(buf_str(&in->head), 0, head_size));
    if (!s->refusal.code && s->policy->head(s, str_sub(buf_str(&in->head), 0, head_size), &out)) {
        if (!buf_ok(&out))
            smtp_refuse(s, 451, "4.3.0", "Error: out of memory");
        put(in, buf_str(&out));
        put(in, STR("\r\n"));
        put(in, str_from(buf_str(&in->head), body_at));
    }
    buf_free(&out);
    buf_free(&in->head);
}

static void
take_head(struct intake *in, struct str piece)
{
    size_t body_at;
    buf_add(&in->head, piece);
    if (!buf_ok(&in->head)) {
        smtp_refuse(in->s, 552, "5.3.4", "Error: header too large");
        in->in_head = false;
    } else if (smtp_head_end(buf_str(&in->head), &in->scan, &body_at)) {
        finish_head(in, in->scan, body_at);
    }
}

static void
take(struct intake *in, struct str piece)
{
    struct smtp_server *s = in->s;
    in->size += piece.n;
    if (s->refusal.code)
        return;
    if (in->size > s->conf->message_size_max) {
        smtp_refuse(s, 552, "5.3.4", "Error: message size exceeds fixed limit");
        return;
    }
    smtp_hops_feed(&in->hops, piece);
    if (in->hops.too_large)
        smtp_refuse(s, 552, "5.3.4", "Error: header too large");
    else if (in->hops.count > s->conf->hops_max)
        smtp_refuse(s, 554, "5.4.6", "Error: too many hops");
    else if (in->in_head)
        take_head(in, piece);
    else
        put(in, piece);
    if (in->hops.done && !in->looked)
        look_at_head(in);
}

/* Read until the end of the message: 1; a bare CR or LF, or far too much: 0; gone: -1. */
static int
receive(struct intake *in, struct err *e)
{
    struct smtp_server *s = in->s;
    for (;;) {
        struct str data, piece;
        size_t at = 0;
        enum dot_step step;
        if (in->size > READ_MORE && s->io.in.cap < READ_MORE) /* room for larger reads */
            buf_reserve(&s->io.in, READ_MORE);
        if (stream_peek(&s->io, &data, e) < 0)
            return -1;
        while ((step = dot_decode(&in->dot, data, &at, &piece)) == DOT_PIECE)
            take(in, piece);
        stream_take(&s->io, at);
        if (step == DOT_END)
            return 1;
        if (step == DOT_BARE) {
            s->refusal.code = 0;
            smtp_refuse(s, 550, "5.5.2", "Error: bare CR or LF received");
            return 0;
        }
        if (in->size > s->conf->message_size_max + DISCARD_MAX)
            return 0;
    }
}

/* Answer the final dot. */
static void
answer(struct intake *in, bool at_end)
{
    struct smtp_server *s = in->s;
    struct err e = {0};
    if (at_end && in->in_head)
        finish_head(in, in->head.n, in->head.n);
    look_at_head(in); /* it may have no body */
    if (!s->refusal.code && qclient_commit(&s->queue, &e) == 0) {
        smtp_say(s, 250, "2.0.0", "Ok: queued as %s", s->queue.id);
        s->junk = 0;
        return;
    }
    if (!s->refusal.code)
        queue_failed(s, &e);
    log_info("%s: reject: END-OF-MESSAGE from %s: %u %s %s; from=<%s> proto=%s helo=<%s>",
             s->queue.id, s->client, s->refusal.code, s->refusal.status, s->refusal.text,
             log_str(s->tx.sender), smtp_protocol(s->esmtp, s->tls, s->login[0]),
             log_str(str_z(s->helo)));
    smtp_say(s, s->refusal.code, s->refusal.status, "%s", s->refusal.text);
    if (!at_end || s->queue.dead)
        s->leave = true;
}

static void
take_message(struct intake *in)
{
    struct smtp_server *s = in->s;
    struct err e = {0};
    s->data_said = true;
    smtp_say(s, 354, "", "End data with <CR><LF>.<CR><LF>");
    int n = stream_flush(&s->io, &e) < 0 ? -1 : receive(in, &e);
    if (n >= 0)
        answer(in, n > 0);
    else
        smtp_lost(s, &e);
}

void
smtp_data(struct smtp_server *s, struct str argument)
{
    if (argument.n) {
        smtp_say(s, 501, "5.5.4", "Error: no argument is expected");
        return;
    }
    if (s->tx.nrcpt == 0) {
        /* RFC 2920 3.1: the client could not know. The transaction stays, as RFC 5321 has it. */
        smtp_say(s, 554, "5.5.1", "Error: no valid recipients");
        return;
    }
    struct intake in = {
        .s = s, .head = buf_new(2 * SMTP_HEAD_MAX), .in_head = s->policy->head != NULL};
    if (open_message(&in))
        take_message(&in);
    else
        smtp_say(s, s->refusal.code, s->refusal.status, "%s", s->refusal.text);
    qclient_abort(&s->queue);
    buf_free(&in.head);
    smtp_reset(s);
}
