#include "lib/smtp/verbs.h"
#include "lib/log/log.h"
#include "lib/mail/dsn.h"
#include <stdio.h>

static unsigned
extensions(const struct smtp_server *s)
{
    unsigned set = SMTP_PIPELINING | SMTP_SIZE | SMTP_ENHANCED | SMTP_8BITMIME | SMTP_DSN;
    if (s->tls_possible && !s->tls)
        set |= SMTP_STARTTLS;
    if (s->policy->extensions)
        set |= s->policy->extensions(s);
    return set;
}

/* RFC 5321 4.1.4: both end a transaction. */
static bool
hello(struct smtp_server *s, struct str name)
{
    if (!smtp_helo_ok(name)) {
        log_info("NOQUEUE: reject: HELO from %s: 501 5.5.4 malformed name; helo=<%s>", s->client,
                 log_str(name));
        smtp_say(s, 501, "5.5.4", "Error: a host name or address literal is expected");
        return false;
    }
    memcpy(s->helo, name.p, name.n);
    s->helo[name.n] = '\0';
    s->state = SMTP_GREETED;
    smtp_reset(s);
    return true;
}

static void
cmd_helo(struct smtp_server *s, struct str argument)
{
    if (!hello(s, argument))
        return;
    s->esmtp = false;
    smtp_say(s, 250, "", "%.*s", STR_ARG(s->conf->hostname));
}

static void
cmd_ehlo(struct smtp_server *s, struct str argument)
{
    struct buf text = buf_new(2048);
    if (!hello(s, argument))
        return;
    s->esmtp = true;
    buf_add(&text, s->conf->hostname);
    if (s->local) { /* sendmail(1) wants to know what follows a login name */
        buf_addc(&text, ' ');
        buf_add(&text, smtp_origin_domain(s->conf));
    }
    smtp_ehlo_put(&text, extensions(s), s->conf->message_size_max);
    smtp_reply_put(&s->io, 250, "", buf_str(&text));
    buf_free(&text);
}

static bool
malformed(struct smtp_server *s, const char *parameter)
{
    smtp_say(s, 501, "5.5.4", "Error: malformed %s", parameter);
    return false;
}

/* RFC 3461 4.5: each of its parameters stands once. */
static bool
once(struct smtp_server *s, bool seen, const char *parameter)
{
    if (seen)
        smtp_say(s, 501, "5.5.4", "Error: %s given twice", parameter);
    return !seen;
}

static bool
take_envid(struct smtp_server *s, struct str value)
{
    if (!once(s, s->tx.envid.n, "ENVID"))
        return false;
    if (!dsn_envid_ok(value))
        return malformed(s, "ENVID");
    s->tx.envid = arena_str(&s->tx.arena, value);
    if (s->tx.envid.p)
        return true;
    smtp_say(s, 451, "4.3.0", "Error: out of memory");
    return false;
}

/* The parameters of RCPT, into r; what it points to is in the command line. */
static bool
rcpt_params(struct smtp_server *s, const struct smtp_path *p, struct qfile_rcpt *r)
{
    for (size_t i = 0; i < p->nparams; i++) {
        const struct smtp_param *one = &p->params[i];
        if (!s->esmtp) {
            smtp_say(s, 555, "5.5.4", "Error: parameters need EHLO");
            return false;
        } else if (str_caseeq(one->key, STR("NOTIFY"))) {
            if (!once(s, r->notify, "NOTIFY"))
                return false;
            if (dsn_notify_parse(one->value, &r->notify) < 0)
                return malformed(s, "NOTIFY");
        } else if (str_caseeq(one->key, STR("ORCPT"))) {
            if (!once(s, r->orcpt.n, "ORCPT"))
                return false;
            if (!dsn_orcpt_ok(one->value))
                return malformed(s, "ORCPT");
            r->orcpt = one->value;
        } else {
            smtp_say(s, 555, "5.5.4", "Error: unsupported parameter");
            return false;
        }
    }
    return true;
}

/* The parameters of MAIL; false when one was refused. */
static bool
mail_params(struct smtp_server *s, const struct smtp_path *p)
{
    for (size_t i = 0; i < p->nparams; i++) {
        const struct smtp_param *one = &p->params[i];
        uint64_t size;
        if (!s->esmtp) {
            smtp_say(s, 555, "5.5.4", "Error: parameters need EHLO");
            return false;
        } else if (str_caseeq(one->key, STR("SIZE"))) { /* RFC 1870 */
            if (one->value.n > 20 || str_u64(one->value, UINT64_MAX, &size) < 0)
                return malformed(s, "SIZE");
            if (size > s->conf->message_size_max) {
                smtp_say(s, 552, "5.3.4", "Error: message size exceeds fixed limit");
                return false;
            }
        } else if (str_caseeq(one->key, STR("BODY"))) { /* RFC 6152 */
            s->tx.eight_bit = str_caseeq(one->value, STR("8BITMIME"));
            if (!s->tx.eight_bit && !str_caseeq(one->value, STR("7BIT"))) {
                smtp_say(s, 501, "5.5.4", "Error: BODY is 7BIT or 8BITMIME");
                return false;
            }
        } else if (str_caseeq(one->key, STR("RET"))) {
            if (!once(s, s->tx.ret, "RET"))
                return false;
            if (dsn_ret_parse(one->value, &s->tx.ret) < 0)
                return malformed(s, "RET");
        } else if (str_caseeq(one->key, STR("ENVID"))) {
            if (!take_envid(s, one->value))
                return false;
        } else if (!(str_caseeq(one->key, STR("AUTH")) && one->has_value && s->login[0])) {
            /* RFC 4954 5: AUTH= from a client we know is read and means nothing to us. */
            smtp_say(s, 555, "5.5.4", "Error: unsupported parameter");
            return false;
        }
    }
    return true;
}

/* The path of MAIL or RCPT; false when it was refused. */
static bool
take_path(struct smtp_server *s, struct str argument, const char *verb, struct smtp_path *p)
{
    struct err e = {0};
    bool mail = strcmp(verb, "MAIL") == 0;
    int n = smtp_path_parse(argument, mail ? STR("FROM") : STR("TO"), p, &e);
    if (n == 0 && p->kind == SMTP_PATH_LOCAL &&
        (s->qualify || (!mail && str_caseeq(p->raw, STR("postmaster"))))) {
        p->kind = SMTP_PATH_ADDRESS;
        n = smtp_qualify(s, p->raw, &p->address, &e);
    }
    if (n < 0 && e.class == ERR_PROTOCOL) {
        smtp_say(s, 501, "5.5.4", "Error: %s", e.text);
        return false;
    }
    /* RFC 5321 4.1.1.3: a route was once a way to be relayed (catalogue H2). */
    if (n < 0 && p->raw.n && p->raw.p[0] == '@' && !mail)
        return smtp_reject(s, verb, p->raw, 550, "5.7.1", "relaying denied");
    if (n == 0 && p->kind == SMTP_PATH_LOCAL)
        n = err_set(&e, ERR_PERMANENT, "the address has no domain");
    if (n == 0 && p->kind == SMTP_PATH_NULL && !mail)
        n = err_set(&e, ERR_PERMANENT, "a recipient is needed");
    if (n < 0)
        return smtp_reject(s, verb, p->raw, 553, mail ? "5.1.7" : "5.1.3", "%s", e.text);
    return true;
}

static void
cmd_mail(struct smtp_server *s, struct str argument)
{
    struct smtp_path p;
    const struct address *a = &p.address;
    if (!take_path(s, argument, "MAIL", &p))
        return;
    bool null = p.kind == SMTP_PATH_NULL;
    if (mail_params(s, &p) && s->policy->sender(s, null ? NULL : a)) {
        s->tx.null_sender = null;
        s->tx.sender = null ? STR("") : arena_str(&s->tx.arena, address_str(a));
        if (s->tx.sender.p) {
            s->state = SMTP_MAIL;
            smtp_say(s, 250, "2.1.0", "Ok");
            return;
        }
        smtp_say(s, 451, "4.3.0", "Error: out of memory");
    }
    smtp_reset(s);
}

/* Said before: in our domains, where case means nothing, in any spelling; else it would come twice.
 */
static bool
known_recipient(const struct smtp_server *s, const struct address *a)
{
    const struct smtp_transaction *tx = &s->tx;
    struct str address = address_str(a);
    bool ours = conf_is_ours(s->conf, address_domain(a));
    for (size_t i = 0; i < tx->nrcpt; i++)
        if (ours ? str_caseeq(tx->rcpts[i].address, address)
                 : str_eq(tx->rcpts[i].address, address))
            return true;
    return false;
}

/* Twice as many each time: what the arena loses of old arrays is no more than the last one. */
static int
add_recipient(struct smtp_transaction *tx, const struct qfile_rcpt *r)
{
    if (tx->nrcpt == tx->rcpts_cap) {
        size_t cap = tx->rcpts_cap ? 2 * tx->rcpts_cap : 8;
        struct qfile_rcpt *more = arena_array(&tx->arena, cap, sizeof *more);
        if (!more)
            return -1;
        if (tx->nrcpt)
            memcpy(more, tx->rcpts, tx->nrcpt * sizeof *more);
        tx->rcpts = more;
        tx->rcpts_cap = cap;
    }
    struct qfile_rcpt kept = {.address = arena_str(&tx->arena, r->address), .notify = r->notify};
    if (r->orcpt.n)
        kept.orcpt = arena_str(&tx->arena, r->orcpt);
    if (!kept.address.p || (r->orcpt.n && !kept.orcpt.p))
        return -1;
    tx->rcpts[tx->nrcpt++] = kept;
    return 0;
}

static void
cmd_rcpt(struct smtp_server *s, struct str argument)
{
    struct smtp_path p;
    if (!take_path(s, argument, "RCPT", &p))
        return;
    struct qfile_rcpt r = {.address = address_str(&p.address)};
    if (!rcpt_params(s, &p, &r))
        return;
    if (known_recipient(s, &p.address)) {
        smtp_say(s, 250, "2.1.5", "Ok");
        return;
    }
    if (s->tx.nrcpt >= s->conf->recipients_max || s->tx.nrcpt >= QFILE_RCPT_MAX) {
        smtp_say(s, 452, "4.5.3", "Error: too many recipients");
        return;
    }
    if (!s->policy->recipient(s, &p.address))
        return;
    if (add_recipient(&s->tx, &r) < 0) {
        smtp_say(s, 451, "4.3.0", "Error: out of memory");
        return;
    }
    s->state = SMTP_RCPT;
    smtp_say(s, 250, "2.1.5", "Ok");
    if (s->tx.nrcpt == 1)
        qclient_ahead(&s->queue);
}

static bool
no_argument(struct smtp_server *s, struct str argument)
{
    if (argument.n == 0)
        return true;
    smtp_say(s, 501, "5.5.4", "Error: no argument is expected");
    return false;
}

static void
cmd_rset(struct smtp_server *s, struct str argument)
{
    if (!no_argument(s, argument))
        return;
    smtp_reset(s);
    smtp_say(s, 250, "2.0.0", "Ok");
}

static void
cmd_noop(struct smtp_server *s, struct str argument)
{
    (void)argument; /* RFC 5321 4.1.1.9: may have one, which means nothing */
    smtp_say(s, 250, "2.0.0", "Ok");
}

static void
cmd_vrfy(struct smtp_server *s, struct str argument)
{
    if (argument.n == 0)
        smtp_say(s, 501, "5.5.4", "Error: what address?");
    else /* RFC 5321 3.5.3, 7.3: says nothing of who exists (catalogue F10) */
        smtp_say(s, 252, "2.5.2", "Cannot VRFY, but will take a message and try to deliver it");
}

static void
cmd_expn(struct smtp_server *s, struct str argument)
{
    (void)argument;
    smtp_say(s, 502, "5.5.1", "Error: EXPN is not offered");
}

static void
cmd_help(struct smtp_server *s, struct str argument)
{
    (void)argument;
    smtp_say(s, 214, "2.0.0", "Commands: EHLO HELO MAIL RCPT DATA RSET NOOP VRFY QUIT%s",
             s->tls_possible ? " STARTTLS" : "");
}

static void
cmd_quit(struct smtp_server *s, struct str argument)
{
    if (no_argument(s, argument))
        smtp_leave(s, 221, "2.0.0", "Bye");
}

int
smtp_enter_tls(struct smtp_server *s)
{
    struct err e = {0};
    if (!s->tls_possible || starttls(s->start, &s->io, s->tls_text, &e) < 0) {
        log_info("TLS handshake failed from %s: %s", s->client,
                 s->tls_possible ? e.text : "no certificate");
        s->io.broken = true;
        return -1;
    }
    s->tls = true;
    /* RFC 3207 4.2: what was learnt before is forgotten (catalogue B4). */
    s->state = SMTP_NEW;
    smtp_reset(s);
    s->helo[0] = s->login[0] = '\0';
    s->esmtp = false;
    return 0;
}

static void
cmd_starttls(struct smtp_server *s, struct str argument)
{
    struct err e = {0};
    if (!no_argument(s, argument))
        return;
    if (s->tls || !s->tls_possible) {
        smtp_say(s, s->tls ? 503 : 502, "5.5.1", "Error: %s",
                 s->tls ? "TLS is already active" : "STARTTLS is not offered");
        return;
    }
    smtp_say(s, 220, "2.0.0", "Ready to start TLS");
    if (stream_flush(&s->io, &e) < 0 || smtp_enter_tls(s) < 0)
        s->leave = true;
}

const struct smtp_verb smtp_verbs[] = {
    {"EHLO", SMTP_ANY, .last = true, .junk = true, cmd_ehlo},
    {"HELO", SMTP_ANY, .last = true, .junk = true, cmd_helo},
    {"MAIL", SMTP_GREETED, false, false, cmd_mail},
    {"RCPT", SMTP_MAIL | SMTP_RCPT, false, false, cmd_rcpt},
    {"DATA", SMTP_MAIL | SMTP_RCPT, .last = true, false, smtp_data},
    {"RSET", SMTP_ANY, false, .junk = true, cmd_rset},
    {"NOOP", SMTP_ANY, false, .junk = true, cmd_noop},
    {"VRFY", SMTP_ANY, false, .junk = true, cmd_vrfy},
    {"EXPN", SMTP_ANY, false, .junk = true, cmd_expn},
    {"HELP", SMTP_ANY, false, .junk = true, cmd_help},
    {"STARTTLS", SMTP_GREETED, .last = true, false, cmd_starttls},
    {"QUIT", SMTP_ANY, false, false, cmd_quit},
};
const size_t smtp_verbs_n = sizeof smtp_verbs / sizeof smtp_verbs[0];
