#include "relay/wire.h"
#include "lib/log/log.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

enum { IN_MAX = 16384, QUIT_MS = 2000, COMMAND_MAX = 2048 };

enum wire_step { WIRE_FAILED = -1, WIRE_READY, WIRE_RETRY_CLEAR };

static int
bind_source(int fd, const struct conf *conf, sa_family_t family)
{
    struct sockaddr_in in = {.sin_family = AF_INET};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
    const char *source = conf->relay.source.p;
    if (!conf->relay.source.n)
        return 0;
    if (family == AF_INET && inet_pton(AF_INET, source, &in.sin_addr) == 1)
        return bind(fd, (struct sockaddr *)&in, sizeof in);
    if (family == AF_INET6 && inet_pton(AF_INET6, source, &in6.sin6_addr) == 1)
        return bind(fd, (struct sockaddr *)&in6, sizeof in6);
    return 0; /* of the other family: the system's choice */
}

/* 0 when the connection stands, else an errno. */
static int
await_connection(int fd, uint32_t seconds)
{
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    int64_t deadline = now_ms() + (int64_t)seconds * 1000;
    for (;;) {
        int n = poll(&p, 1, ms_left(deadline));
        if (n == 0)
            return ETIMEDOUT;
        if (n < 0 && errno != EINTR)
            return errno;
        if (n > 0)
            break;
    }
    int why = 0;
    socklen_t size = sizeof why;
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &why, &size) < 0 ? errno : why;
}

static int
connect_to(const struct relay *relay, const struct target *t, struct err *e)
{
    int fd = socket(t->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_errno(e, "socket");
    if (bind_source(fd, relay->conf, t->address.ss_family) == 0) {
        int why = connect(fd, (const struct sockaddr *)&t->address, t->address_n) == 0 ? 0 : errno;
        if (why == EINPROGRESS)
            why = await_connection(fd, relay->conf->relay.connect_s);
        if (why == 0)
            return fd;
        errno = why;
    }
    err_errno(e, "connect to %s[%s]:%u", t->host, t->ip, t->port);
    close(fd);
    return -1;
}

void
wire_deadline(struct wire *w)
{
    int64_t end = now_ms() + (int64_t)w->relay->conf->relay.command_s * 1000;
    w->io.deadline_ms = end < w->give_up_ms ? end : w->give_up_ms;
}

int
wire_reply(struct wire *w, struct err *e)
{
    wire_deadline(w);
    return smtp_reply_read(&w->io, &w->reply, e);
}

int
wire_command(struct wire *w, struct err *e, const char *fmt, ...)
{
    char line[COMMAND_MAX];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(line, sizeof line - 2, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= sizeof line - 2)
        return err_set(e, ERR_LIMIT, "command too long");
    line[n] = '\r';
    line[n + 1] = '\n';
    stream_put(&w->io, str_of(line, (size_t)n + 2));
    return wire_reply(w, e);
}

bool
wire_refuses(const struct wire *w)
{
    enum { STARTTLS_FIRST = 530 };
    return w->reply.code >= 500 && !(w->no_tls && w->reply.code == STARTTLS_FIRST);
}

void
wire_verdict(struct wire *w, struct verdict *v, enum outcome outcome, const char *command)
{
    struct buf flat = buf_new(SMTP_REPLY_TEXT_MAX + 16);
    char dsn[12];
    snprintf(dsn, sizeof dsn, "%s", smtp_reply_status(&w->reply));
    dsn[0] = outcome == OUTCOME_DONE ? '2' : outcome == OUTCOME_NEVER ? '5' : '4';
    smtp_reply_flat(&w->reply, &flat);
    struct str said = str_sub(buf_str(&flat), 0, RELAY_TEXT_MAX - RELAY_NAME_MAX - 40);
    if (outcome == OUTCOME_DONE)
        verdict_set(v, outcome, dsn, "%.*s", STR_ARG(said));
    else
        verdict_set(v, outcome, dsn, "host %s said: %.*s (in reply to %s)", w->name, STR_ARG(said),
                    command);
    snprintf(v->relay, sizeof v->relay, "%s", w->name);
    buf_free(&flat);
}

void
wire_lost(const struct wire *w, struct verdict *v, const char *during, const struct err *e)
{
    verdict_set(v, OUTCOME_LATER, "4.4.2", "lost connection with %.300s while %s: %s", w->name,
                during, e->text);
    snprintf(v->relay, sizeof v->relay, "%s", w->name);
}

/* It has our name, whatever the name is that led there: it would only send it here again. With a
 * smarthost the operator knows who it is: a filter beside us may have the same name. */
static bool
is_ourselves(const struct wire *w)
{
    struct str name = buf_str(&w->reply.text);
    name = str_cut(&name, '\n');
    return !w->relay->conf->relay.host.n &&
           str_caseeq(str_cut(&name, ' '), w->relay->conf->hostname);
}

static enum wire_step
greeted(const struct wire *w, struct verdict *v)
{
    if (!is_ourselves(w))
        return WIRE_READY;
    verdict_set(v, OUTCOME_LATER, "4.4.6", "mail loops back to us: %.300s has our name", w->name);
    snprintf(v->relay, sizeof v->relay, "%s", w->name);
    return WIRE_FAILED;
}

/* EHLO, or HELO where that is not understood (RFC 5321 3.2). */
static enum wire_step
greet(struct wire *w, struct verdict *v)
{
    struct err e = {0};
    struct str self = w->relay->conf->hostname;
    w->extensions = 0;
    w->size_max = 0;
    if (wire_command(w, &e, "EHLO %.*s", STR_ARG(self)) < 0)
        goto lost;
    if (w->reply.code == 250) {
        w->extensions = smtp_ehlo_parse(&w->reply, &w->size_max);
        return greeted(w, v);
    }
    if (w->reply.code >= 500) {
        if (wire_command(w, &e, "HELO %.*s", STR_ARG(self)) < 0)
            goto lost;
        if (w->reply.code == 250)
            return greeted(w, v);
    }
    wire_verdict(w, v, OUTCOME_LATER, "EHLO");
    return WIRE_FAILED;
lost:
    wire_lost(w, v, "sending EHLO", &e);
    return WIRE_FAILED;
}

static enum wire_step
start_tls(struct wire *w, const struct target *t, struct verdict *v)
{
    struct err e = {0};
    if (wire_command(w, &e, "STARTTLS") < 0) {
        wire_lost(w, v, "sending STARTTLS", &e);
        return WIRE_FAILED;
    }
    if (w->reply.code != 220) { /* it offered, and now declines: go on in clear */
        if (w->reply.code == 421) {
            wire_verdict(w, v, OUTCOME_LATER, "STARTTLS");
            return WIRE_FAILED;
        }
        w->no_tls = true;
        return WIRE_READY;
    }
    if (tls_connect(w->relay->tls, &w->io, t->host, &w->tls, &e) == 0)
        return greet(w, v); /* what was said before TLS is forgotten (RFC 3207 4.2) */
    log_info("%s: %s", w->name, e.text);
    verdict_set(v, OUTCOME_LATER, "4.7.5", "TLS with %.300s: %s", w->name, e.text);
    snprintf(v->relay, sizeof v->relay, "%s", w->name);
    /* Somebody spoke in between: then clear text is not safer. */
    return e.class == ERR_PROTOCOL ? WIRE_FAILED : WIRE_RETRY_CLEAR;
}

static enum wire_step
open_once(struct wire *w, const struct target *t, bool use_tls, struct verdict *v)
{
    const struct conf *conf = w->relay->conf;
    struct err e = {0};
    w->fd = connect_to(w->relay, t, &e);
    if (w->fd < 0) {
        log_info("%s", e.text);
        verdict_set(v, OUTCOME_LATER, "4.4.1", "%s", e.text);
        snprintf(v->relay, sizeof v->relay, "%s", w->name);
        return WIRE_FAILED;
    }
    static const int on = 1; /* a stream gathers by itself: what it writes is to go at once */
    setsockopt(w->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    w->open = true;
    stream_init(&w->io, w->fd, w->fd, IN_MAX, (int)conf->relay.command_s * 1000);
    w->reply = smtp_reply_new();
    if (wire_reply(w, &e) < 0) {
        wire_lost(w, v, "waiting for the greeting", &e);
        return WIRE_FAILED;
    }
    if (w->reply.code != 220) {
        wire_verdict(w, v, OUTCOME_LATER, "connecting");
        return WIRE_FAILED;
    }
    enum wire_step step = greet(w, v);
    if (step == WIRE_READY && use_tls && (w->extensions & SMTP_STARTTLS))
        step = start_tls(w, t, v);
    return step;
}

int
wire_open(struct wire *w, const struct relay *relay, const struct target *t, struct verdict *v_r)
{
    bool use_tls = relay->tls != NULL;
    for (int attempt = 0; attempt < 2; attempt++) {
        *w = (struct wire){.relay = relay,
                           .fd = -1,
                           .give_up_ms = now_ms() + RELAY_TRANSACTION_MS,
                           .no_tls = attempt > 0};
        snprintf(w->name, sizeof w->name, "%s[%s]:%u", t->host, t->ip, t->port);
        enum wire_step step = open_once(w, t, use_tls, v_r);
        if (step == WIRE_READY)
            return 0;
        if (w->open && step == WIRE_FAILED)
            log_info("%s", v_r->text);
        wire_close(w, step == WIRE_FAILED);
        if (step == WIRE_FAILED)
            break;
        use_tls = false;
    }
    return -1;
}

void
wire_close(struct wire *w, bool polite)
{
    if (!w->open)
        return;
    w->open = false;
    if (polite && !w->io.broken) {
        w->io.idle_ms = QUIT_MS;
        w->io.deadline_ms = now_ms() + QUIT_MS;
        stream_putz(&w->io, "QUIT\r\n");
        (void)smtp_reply_read(&w->io, &w->reply, NULL);
    }
    tls_close(w->tls, &w->io);
    w->tls = NULL;
    stream_free(&w->io);
    smtp_reply_free(&w->reply);
    close(w->fd);
    w->fd = -1;
}
