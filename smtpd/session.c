#include "smtpd/session.h"
#include "lib/log/log.h"
#include <stdio.h>

static bool
any_sender(struct smtp_server *s, const struct address *a)
{
    (void)s;
    (void)a;
    return true;
}

static bool
our_recipient(struct smtp_server *s, const struct address *a)
{
    char account[QFILE_ADDR_MAX + 1];
    enum address_kind kind = ADDRESS_FOREIGN;
    struct err e = {0};
    struct str text = address_str(a);
    /* What old mailers took for a route through us is refused, whoever it ends at (catalogue H2).
     */
    if (address_is_routed(a))
        return smtp_reject(s, "RCPT", text, 550, "5.7.1", "Relay access denied");
    if (smtp_ask_address(s, text, &kind, account, &e) < 0)
        return smtp_reject(s, "RCPT", text, 451, "4.3.0", "Temporary lookup failure");
    switch (kind) {
    case ADDRESS_ACCOUNT:
    case ADDRESS_ALIAS:
        return true;
    case ADDRESS_UNKNOWN:
        return smtp_reject(s, "RCPT", text, 550, "5.1.1",
                           "Recipient address rejected: User unknown");
    case ADDRESS_FOREIGN:
        break;
    }
    if (s->peer->relayclient &&
        s->conf->relayclient) /* the operator allows it, and the variable is set */
        return true;
    return smtp_reject(s, "RCPT", text, 550, "5.7.1", "Relay access denied");
}

struct connection {
    const struct smtpd *d;
    struct tls *tls;
};

static int
start_tls(struct smtp_server *s, struct err *e)
{
    struct connection *c = s->arg;
    if (tls_accept(c->d->tls, &s->io, &c->tls, e) < 0)
        return -1;
    snprintf(s->tls_text, sizeof s->tls_text, "%s %s", tls_version(c->tls), tls_cipher(c->tls));
    return 0;
}

void
smtpd_serve(const struct smtpd *d, const struct peer *peer, smtpd_starttls *starttls)
{
    static struct smtp_server s; /* large */
    struct connection c = {.d = d};
    const struct smtp_policy policy = {
        .sender = any_sender,
        .recipient = our_recipient,
        .starttls = starttls,
    };
    s = (struct smtp_server){.policy = &policy,
                             .start = &c.d->start,
                             .conf = c.d->conf,
                             .limits = &c.d->conf->smtpd,
                             .peer = peer,
                             .arg = &c,
                             .role = R_SMTPD,
                             .origin = "smtp",
                             .tls_first = strcmp(peer->service, "smtps") == 0};
    smtp_server_run(&s);
    if (c.tls)
        tls_close(c.tls, &s.io);
}

void
smtpd_session(const struct peer *peer, void *arg)
{
    const struct smtpd *d = arg;
    smtpd_serve(d, peer, d->tls ? start_tls : NULL);
}

void
smtpd_prepare(struct smtpd *d)
{
    struct err e = {0};
    struct tls_server *tls = tls_server_new(&d->start, d->conf, "smtp", &e);
    if (!tls)
        log_warn("no certificate, STARTTLS is not offered: %s", e.text);
    d->tls = tls;
}
