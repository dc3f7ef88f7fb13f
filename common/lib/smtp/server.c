#include "lib/smtp/server.h"
#include "lib/base/format.h"
#include "lib/log/log.h"
#include "lib/mail/dsn.h"
#include "lib/smtp/received.h"
#include "lib/smtp/verbs.h"
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    IN_MAX = 256 * 1024,
    ARENA_MAX = 2 << 20, /* QFILE_RCPT_MAX addresses, each with its ORCPT, and more */
    LAST_WORDS_MS = 2000,
    DRAIN_MAX = 1 << 20,
};

void
smtp_reset(struct smtp_server *s)
{
    qclient_abort(&s->queue);
    arena_reset(&s->tx.arena);
    s->tx.sender = STR("");
    s->tx.null_sender = s->tx.eight_bit = false;
    s->tx.ret = DSN_RET_ANY;
    s->tx.envid = STR("");
    s->tx.rcpts = NULL;
    s->tx.nrcpt = s->tx.rcpts_cap = 0;
    s->refusal.code = 0;
    if (s->state != SMTP_NEW)
        s->state = SMTP_GREETED;
}

static void
say(struct smtp_server *s, unsigned code, const char *status, const char *fmt, va_list ap)
{
    char text[1024];
    format_v(text, sizeof text, fmt, ap);
    smtp_reply_put(&s->io, code, status, str_z(text));
    if (code >= 500 && code <= 504)
        s->errors++;
}

void
smtp_say(struct smtp_server *s, unsigned code, const char *status, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    say(s, code, status, fmt, ap);
    va_end(ap);
}

void
smtp_leave(struct smtp_server *s, unsigned code, const char *status, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    say(s, code, status, fmt, ap);
    va_end(ap);
    s->leave = true;
}

bool
smtp_reject(struct smtp_server *s, const char *what, struct str address, unsigned code,
            const char *status, const char *fmt, ...)
{
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    format_v(text, sizeof text, fmt, ap);
    va_end(ap);
    struct str to = strcmp(what, "RCPT") == 0 ? address : STR("");
    struct str from = to.n ? s->tx.sender : address;
    log_info("NOQUEUE: reject: %s from %s: %u %s <%s>: %s; from=<%s> to=<%s> proto=%s helo=<%s>",
             what, s->client, code, status, log_str(address), text, log_str(from), log_str(to),
             smtp_protocol(s->esmtp, s->tls, s->login[0]), log_str(str_z(s->helo)));
    smtp_say(s, code, status, "<%.*s>: %s", STR_ARG(str_sub(address, 0, 320)), text);
    /* Guessing recipients is no error of syntax, but it ends somewhere too; also while nobody can
     * say who exists. */
    if (++s->rejected > s->conf->recipients_max)
        smtp_leave(s, 421, "4.7.0", "%.*s too many refused addresses", STR_ARG(s->conf->hostname));
    return false;
}

bool
smtp_refuse(struct smtp_server *s, unsigned code, const char *status, const char *fmt, ...)
{
    va_list ap;
    if (s->refusal.code)
        return false;
    s->refusal.code = code;
    format(s->refusal.status, sizeof s->refusal.status, "%s", status);
    va_start(ap, fmt);
    format_v(s->refusal.text, sizeof s->refusal.text, fmt, ap);
    va_end(ap);
    return false;
}

struct str
smtp_origin_domain(const struct conf *conf)
{
    return conf->ndomains ? conf->domains[0] : conf->hostname;
}

int
smtp_qualify(const struct smtp_server *s, struct str local, struct address *a_r, struct err *e)
{
    struct buf whole = buf_new(ADDRESS_LOCAL_MAX + ADDRESS_DOMAIN_MAX + 1);
    buf_add(&whole, local);
    buf_addc(&whole, '@');
    buf_add(&whole, smtp_origin_domain(s->conf));
    int n = address_parse(buf_str(&whole), a_r, e);
    buf_free(&whole);
    return n;
}

/* Send m, to be answered by ADDRESS_IS. */
static int
ask_who(struct smtp_server *s, struct msg *m, enum address_kind *kind_r, char *account,
        struct err *e)
{
    if (remote_ask(&s->authd, m, M_ADDRESS_IS, SMTP_ASK_MS, e) < 0)
        return -1;
    uint32_t kind = msg_get_u32(m);
    struct str name = msg_get_str(m);
    if (!msg_end(m) || kind > ADDRESS_FOREIGN || name.n > QFILE_ADDR_MAX)
        return err_set(e, ERR_PROTOCOL, "authd: malformed answer");
    *kind_r = (enum address_kind)kind;
    memcpy(account, name.p, name.n);
    account[name.n] = '\0';
    return 0;
}

bool
smtp_is_known(const struct smtp_server *s, struct str address)
{
    return s->known && known_has(s->known, address);
}

int
smtp_ask_address(struct smtp_server *s, struct str address, enum address_kind *kind_r,
                 char *account, struct err *e)
{
    struct msg m = {0};
    ptrdiff_t at = str_rchr(address, '@');
    struct str domain = str_from(address, (size_t)(at + 1));
    account[0] = '\0';
    *kind_r = ADDRESS_FOREIGN;
    if (at >= 0 && !conf_is_ours(s->conf, domain))
        return 0;
    msg_begin(&m, M_ADDRESS);
    msg_put_str(&m, address);
    int n = ask_who(s, &m, kind_r, account, e);
    msg_free(&m);
    if (n < 0)
        log_warn("%s: cannot look up <%s>: %s", s->client, log_str(address), e->text);
    return n;
}

int
smtp_ask_uid(struct smtp_server *s, uid_t uid, struct str sender, enum address_kind *kind_r,
             char *account, struct err *e)
{
    struct msg m = {0};
    msg_begin(&m, M_UID_ACCOUNT);
    msg_put_u32(&m, uid);
    msg_put_str(&m, sender);
    int n = ask_who(s, &m, kind_r, account, e);
    msg_free(&m);
    if (n < 0)
        log_warn("%s: cannot look up the user: %s", s->client, e->text);
    return n;
}

/* Row i of both tables, or NULL behind the last. */
static const struct smtp_verb *
verb_at(const struct smtp_server *s, size_t i)
{
    if (i < smtp_verbs_n)
        return &smtp_verbs[i];
    i -= smtp_verbs_n;
    return i < s->policy->nverbs ? &s->policy->verbs[i] : NULL;
}

static void
out_of_sync(struct smtp_server *s, const char *after)
{
    log_info("NOQUEUE: reject: %s from %s: 554 5.5.0 improper command pipelining", after,
             s->client);
    smtp_leave(s, 554, "5.5.0", "Error: SMTP protocol synchronization");
}

/* Input waits that a peer which keeps in step would not have sent. A local user may feed sendmail
 * -bs from a file, where no commands are but his own; see refused_in_batch(). */
static bool
talks_ahead(const struct smtp_server *s)
{
    return !s->local && stream_buffered(&s->io) > 0;
}

/* The file has a message behind DATA, perhaps of somebody else's words: they are no commands when
 * DATA was refused. */
static bool
refused_in_batch(const struct smtp_server *s, const struct smtp_verb *v)
{
    return s->batch && v->run == smtp_data && !s->data_said;
}

static void
dispatch(struct smtp_server *s, struct str line)
{
    struct smtp_command c;
    const struct smtp_verb *v;
    size_t i = 0;
    smtp_command_parse(line, &c);
    while ((v = verb_at(s, i)) && !str_caseeq(c.verb, str_z(v->name)))
        i++;
    if (!v) {
        smtp_say(s, 500, "5.5.2", "Error: command not recognized");
        return;
    }
    s->last_verb = v->name;
    if (i < SMTP_VERBS_MAX)
        s->counts[i]++;
    if (v->junk && ++s->junk > SMTP_JUNK_MAX)
        s->errors++;
    s->batch |= s->local && v->last && stream_buffered(&s->io);
    s->data_said = false;
    /* Who speaks HELO was not offered PIPELINING and may send nothing ahead at all (catalogue A9).
     */
    if (v->last && talks_ahead(s))
        out_of_sync(s, v->name);
    else if (!(v->states & s->state))
        smtp_say(s, 503, "5.5.1", "Error: %s",
                 s->state == SMTP_NEW ? "send HELO or EHLO first" : "bad sequence of commands");
    else
        v->run(s, c.argument);
    if (!s->leave && refused_in_batch(s, v))
        out_of_sync(s, v->name);
    bool greeted_plainly = s->state != SMTP_NEW && !s->esmtp;
    if (!s->leave && greeted_plainly && talks_ahead(s) && !str_caseeq(c.verb, STR("QUIT")))
        out_of_sync(s, v->name);
}

/* One command line: 1; 0 when it was bad and has been answered; -1 when the connection is over. */
static int
read_line(struct smtp_server *s, struct str *line_r, struct err *e)
{
    bool bare;
    int n = stream_line(&s->io, SMTP_LINE_MAX, line_r, &bare, e);
    struct str start;
    if (n < 0 && e->class == ERR_LIMIT && !s->io.broken && stream_peek(&s->io, &start, e) == 0 &&
        str_casestarts(start, STR("AUTH ")))
        n = stream_line(&s->io, SMTP_AUTH_LINE_MAX, line_r, &bare, e);
    if (n < 0 && e->class == ERR_LIMIT && !s->io.broken) {
        if (stream_skip_line(&s->io, SMTP_LINE_SKIP_MAX, e) < 0) {
            s->io.broken = false;
            smtp_leave(s, 500, "5.5.2", "Error: endless line");
            return 0;
        }
        smtp_say(s, 500, "5.5.2", "Error: line too long");
        return 0;
    }
    if (n < 0)
        return -1;
    if (bare) {
        smtp_say(s, 500, "5.5.2", "Error: a line ends in CR LF, and has no CR, LF or NUL in it");
        return 0;
    }
    return 1;
}

/* The client has gone, or is too slow: one line, if it can be sent at once. */
void
smtp_lost(struct smtp_server *s, const struct err *e)
{
    s->leave = true;
    log_info("%s after %s from %s", e->class == ERR_TIMEOUT ? "timeout" : "lost connection",
             s->last_verb ? s->last_verb : "CONNECT", s->client);
    if (e->class != ERR_TIMEOUT)
        return;
    s->io.broken = false;
    s->io.deadline_ms = now_ms() + LAST_WORDS_MS;
    smtp_say(s, 421, "4.4.2", "%.*s Error: timeout exceeded", STR_ARG(s->conf->hostname));
    (void)stream_flush(&s->io, NULL);
}

static void
serve(struct smtp_server *s)
{
    struct err e = {0};
    while (!s->leave) {
        struct str line;
        int n = read_line(s, &line, &e);
        if (n < 0) {
            smtp_lost(s, &e);
            return;
        }
        if (n > 0)
            dispatch(s, line);
        if (s->errors > SMTP_ERRORS_MAX && !s->leave) {
            log_info("too many errors after %s from %s", s->last_verb ? s->last_verb : "CONNECT",
                     s->client);
            smtp_leave(s, 421, "4.7.0", "%.*s Error: too many errors", STR_ARG(s->conf->hostname));
        }
        /* A stream that broke inside a command shows at the next read. */
    }
}

/* Whether the peer speaks before it was greeted. */
static bool
talks_early(struct smtp_server *s)
{
    char byte;
    struct pollfd p = {.fd = s->io.fd_in, .events = POLLIN};
    if (s->local)
        return talks_ahead(s);
    return poll(&p, 1, 0) > 0 && recv(s->io.fd_in, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

static void
name_client(struct smtp_server *s)
{
    if (s->local)
        format(s->client, sizeof s->client, "uid %lu", (unsigned long)s->peer->uid);
    else
        format(s->client, sizeof s->client, "[%s]", s->peer->ip[0] ? s->peer->ip : "unknown");
}

/* Send what waits, and let the peer read it: what it has sent and we have not read would turn our
 * close into a reset that destroys our last reply on its way. */
static void
part(struct smtp_server *s)
{
    struct str data;
    if (s->io.broken || stream_flush(&s->io, NULL) < 0)
        return;
    s->io.deadline_ms = now_ms() + LAST_WORDS_MS;
    bool quit = s->last_verb && strcmp(s->last_verb, "QUIT") == 0;
    if (quit && !stream_buffered(&s->io)) /* it has said all it wanted to */
        return;
    if (shutdown(s->io.fd_out, SHUT_WR) < 0)
        return;
    for (size_t drained = 0; drained < DRAIN_MAX && stream_peek(&s->io, &data, NULL) == 0;) {
        drained += data.n;
        stream_take(&s->io, data.n);
    }
}

static void
log_end(const struct smtp_server *s)
{
    char room[512];
    struct buf line = buf_on(room, sizeof room, sizeof room - 1);
    unsigned all = 0;
    const struct smtp_verb *v;
    for (size_t i = 0; (v = verb_at(s, i)) && i < SMTP_VERBS_MAX; i++) {
        if (!s->counts[i])
            continue;
        all += s->counts[i];
        buf_addc(&line, ' ');
        for (const char *p = v->name; *p; p++)
            buf_addc(&line, ch_lower(*p));
        buf_addc(&line, '=');
        buf_addu(&line, s->counts[i]);
    }
    log_info("disconnect from %s%s commands=%u", s->client, buf_z(&line), all);
}

static void
greet(struct smtp_server *s)
{
    if (talks_early(s))
        out_of_sync(s, "CONNECT");
    else
        smtp_say(s, 220, "", "%.*s ESMTP Bulkhead", STR_ARG(s->conf->hostname));
}

void
smtp_server_run(struct smtp_server *s)
{
    s->state = SMTP_NEW;
    s->tx.arena = arena_on(s->room.transaction, sizeof s->room.transaction, ARENA_MAX);
    name_client(s);
    stream_init(&s->io, s->peer->fd_in, s->peer->fd_out, IN_MAX, (int)s->limits->idle_s * 1000);
    s->io.deadline_ms = now_ms() + (int64_t)s->limits->session_s * 1000;
    remote_init(&s->authd, s->start, s->role, R_AUTHD);
    s->io.in = buf_on(s->room.in, sizeof s->room.in, IN_MAX);
    s->io.out = buf_on(s->room.out, sizeof s->room.out, s->io.out.max);
    qclient_init(&s->queue, s->start, s->role, s->room.message, sizeof s->room.message);
    s->queue.user = s->local ? (uint32_t)s->peer->uid : 0;
    log_info("connect from %s", s->client);
    if (!s->tls_first || smtp_enter_tls(s) == 0) {
        greet(s);
        serve(s);
        part(s);
    }
    log_end(s);
    qclient_close(&s->queue);
    remote_close(&s->authd);
    arena_free(&s->tx.arena);
    if (s->tls)
        close(s->io.fd_in); /* what starttls() gave */
    stream_free(&s->io);
}
