#include "lib/log/log.h"
#include "lib/loop/listener.h"
#include "lib/sasl/plain.h"
#include "submitd/session.h"

/*
 * AUTH PLAIN (RFC 4954, RFC 4616). The password exists in the input buffer, in the decoded response
 * and in the message to authd; each is wiped before this returns.
 */

static void
failed(struct smtp_server *s, const char *why, struct str user)
{
    s->auth_failures++;
    log_warn("%s: SASL PLAIN authentication failed: %s, sasl_username=%s", s->client, why,
             log_str(user));
    smtp_say(s, 535, "5.7.8", "Error: authentication failed");
}

static void
verify(struct smtp_server *s, const struct sasl_plain *plain)
{
    struct msg m = {0};
    struct err e = {0};
    msg_begin(&m, M_VERIFY);
    msg_put_str(&m, plain->user);
    msg_put_str(&m, plain->password);
    msg_put_str(&m, str_z(s->peer->ip));
    int n = remote_ask(&s->authd, &m, M_GRANTED, SMTP_ASK_MS, &e);
    struct str account = n == 0 ? msg_get_str(&m) : STR("");
    if (n == 0 && msg_end(&m) && account.n && account.n <= QFILE_ADDR_MAX) {
        memcpy(s->login, account.p, account.n);
        s->login[account.n] = '\0';
        listener_settled();
        smtp_say(s, 235, "2.7.0", "Authentication successful");
    } else if (n < 0 && e.class == ERR_PERMANENT) {
        failed(s, "bad user name or password", plain->user);
    } else {
        log_warn("%s: cannot authenticate %s: %s", s->client, log_str(plain->user),
                 n < 0 ? e.text : "malformed answer");
        s->auth_failures++; /* authd says so, too, to who guesses too fast */
        smtp_say(s, 454, "4.7.0", "Temporary authentication failure");
    }
    msg_free(&m);
}

static void
try_response(struct smtp_server *s, struct str response)
{
    struct sasl_plain plain;
    struct err e = {0};
    int n = sasl_plain_decode(response, &plain, &e);
    if (n == 0)
        verify(s, &plain);
    else if (e.class == ERR_PERMANENT) /* to be somebody else: catalogue F1 */
        failed(s, e.text, STR(""));
    else
        smtp_say(s, 501, "5.5.2", "Error: %s", e.text);
    sasl_plain_wipe(&plain);
}

/* What the argument or the input buffer holds of a secret. */
static void
wipe(struct str secret)
{
    if (secret.n)
        explicit_bzero((void *)(uintptr_t)secret.p, secret.n);
}

static void
ask_response(struct smtp_server *s)
{
    struct str line;
    struct err e = {0};
    bool bare;
    smtp_reply_put(&s->io, 334, "", STR(""));
    if (stream_line(&s->io, SMTP_AUTH_LINE_MAX, &line, &bare, &e) < 0) {
        if (e.class == ERR_LIMIT && !s->io.broken)
            smtp_leave(s, 500, "5.5.6", "Error: line too long");
        else
            smtp_lost(s, &e);
        return;
    }
    if (bare)
        smtp_say(s, 501, "5.5.2", "Error: malformed line");
    else if (str_eq(line, STR("*")))
        smtp_say(s, 501, "5.7.0", "Authentication aborted");
    else
        try_response(s, line);
    wipe(line);
}

/* False: answered. */
static bool
may_try(struct smtp_server *s)
{
    if (s->local || s->login[0]) {
        smtp_say(s, 503, "5.5.1", "Error: already authenticated");
    } else if (s->auth_failures >= SUBMITD_AUTH_FAILURES_MAX) {
        smtp_leave(s, 421, "4.7.0", "%.*s Error: too many failures", STR_ARG(s->conf->hostname));
    } else if (!s->tls) {
        s->auth_failures++;
        log_warn("%s: a password may have been sent without TLS", s->client);
        smtp_say(s, 538, "5.7.11", "Error: encryption is required, use STARTTLS");
    } else if (!s->esmtp) {
        smtp_say(s, 503, "5.5.1", "Error: send EHLO first");
    } else {
        return true;
    }
    return false;
}

void
submitd_auth(struct smtp_server *s, struct str argument)
{
    if (may_try(s)) {
        struct str rest = argument;
        struct str mechanism = str_cut(&rest, ' ');
        if (!str_caseeq(mechanism, STR("PLAIN")))
            smtp_say(s, 504, "5.5.4", "Error: unrecognized authentication type");
        else if (rest.n)
            try_response(s, str_trim(rest));
        else
            ask_response(s);
        if (!rest.n)
            return; /* argument may be gone: another line was read over it */
    }
    wipe(argument);
}
