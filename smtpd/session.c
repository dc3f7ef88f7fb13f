#include "smtpd/session.h"
#include "lib/log/log.h"
#include <string.h>

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
    if (smtp_is_known(s, text))
        return true;
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
    /* The operator named its network, or allows the variable and it is set. */
    if (conf_relays_for(s->conf, str_z(s->peer->ip)) ||
        (s->conf->relayclient && s->peer->relayclient))
        return true;
    return smtp_reject(s, "RCPT", text, 550, "5.7.1", "Relay access denied");
}

void
smtpd_session(const struct peer *peer, void *arg)
{
    static struct smtp_server s; /* large */
    static const struct smtp_policy policy = {.sender = any_sender, .recipient = our_recipient};
    const struct smtpd *d = arg;
    listener_own(&s, sizeof s);
    s = (struct smtp_server){.policy = &policy,
                             .start = &d->start,
                             .conf = &d->conf,
                             .limits = &d->conf.smtpd,
                             .peer = peer,
                             .known = &d->known,
                             .role = R_SMTPD,
                             .origin = "smtp",
                             .tls_possible = starttls_possible(&d->start, &d->conf),
                             .tls_first = strcmp(peer->service, "smtps") == 0};
    smtp_server_run(&s);
}
