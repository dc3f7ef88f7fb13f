#include "submitd/session.h"
#include "lib/log/log.h"
#include <stdio.h>

static bool
later(struct smtp_server *s, const char *what, struct str address)
{
    return smtp_reject(s, what, address, 451, "4.3.0", "Temporary lookup failure");
}

int
submitd_owns(struct smtp_server *s, struct str address)
{
    char account[QFILE_ADDR_MAX + 1];
    enum address_kind kind = ADDRESS_UNKNOWN;
    struct err e = {0};
    if (smtp_ask_address(s, address, &kind, account, &e) < 0)
        return -1;
    return (kind == ADDRESS_ACCOUNT || kind == ADDRESS_ALIAS) && s->login[0] &&
           strcmp(account, s->login) == 0;
}

/* A user without an account here (a daemon's user, say) speaks for this host and its domains only.
 */
static bool
ours(const struct smtp_server *s, const struct address *a)
{
    return conf_is_ours(s->conf, address_domain(a));
}

/* The account of a local user, if it has one; of several that the sender's. */
static int
know_user(struct smtp_server *s, struct str sender)
{
    enum address_kind kind = ADDRESS_UNKNOWN;
    struct err e = {0};
    int n = s->peer->uid ? smtp_ask_uid(s, s->peer->uid, sender, &kind, s->login, &e) : 0;
    if (kind != ADDRESS_ACCOUNT)
        s->login[0] = '\0';
    return n;
}

static bool
local_sender(struct smtp_server *s, const struct address *a)
{
    struct str text = a ? address_str(a) : STR("");
    if (know_user(s, text) < 0)
        return later(s, "MAIL", text);
    if (s->peer->uid == (uid_t)-1)
        return smtp_reject(s, "MAIL", text, 550, "5.7.1", "Who are you?");
    /* <>: answers of programs; it names nobody, so it is nobody else's. */
    if (!a || s->peer->uid == 0)
        return true;
    int owns = s->login[0] ? submitd_owns(s, text) : ours(s, a);
    if (owns < 0)
        return later(s, "MAIL", text);
    return owns || smtp_reject(s, "MAIL", text, 553, "5.7.1",
                               "Sender address rejected: not owned by user %lu",
                               (unsigned long)s->peer->uid);
}

static bool
own_sender(struct smtp_server *s, const struct address *a)
{
    struct str text = a ? address_str(a) : STR("");
    if (s->local)
        return local_sender(s, a);
    if (!s->login[0])
        return smtp_reject(s, "MAIL", text, 530, "5.7.0", "Authentication required");
    int owns = a ? submitd_owns(s, text) : 0;
    if (owns < 0)
        return later(s, "MAIL", text);
    return owns ||
           smtp_reject(s, "MAIL", text, 553, "5.7.1",
                       "Sender address rejected: not owned by user %s", log_str(str_z(s->login)));
}

static bool
any_recipient(struct smtp_server *s, const struct address *a)
{
    char account[QFILE_ADDR_MAX + 1];
    enum address_kind kind = ADDRESS_FOREIGN;
    struct err e = {0};
    struct str text = address_str(a);
    if (smtp_is_known(s, text))
        return true;
    if (smtp_ask_address(s, text, &kind, account, &e) < 0)
        return later(s, "RCPT", text);
    return kind != ADDRESS_UNKNOWN ||
           smtp_reject(s, "RCPT", text, 550, "5.1.1", "Recipient address rejected: User unknown");
}

static unsigned
extensions(const struct smtp_server *s)
{
    return s->local ? SMTP_XQUEUE : s->tls ? SMTP_AUTH_PLAIN : 0;
}

void
submitd_session(const struct peer *peer, void *arg)
{
    static struct smtp_server s; /* large */
    static const struct smtp_verb verbs[] = {
        {"AUTH", SMTP_GREETED, .last = true, .junk = false, submitd_auth},
        {"XQUEUE", SMTP_NEW | SMTP_GREETED, .last = false, .junk = true, submitd_xqueue},
    };
    const struct submitd *d = arg;
    bool local = strcmp(peer->service, "submit") == 0;
    listener_own(&s, sizeof s);
    const struct smtp_policy policy = {
        .verbs = verbs,
        .nverbs = sizeof verbs / sizeof verbs[0],
        .sender = own_sender,
        .recipient = any_recipient,
        .extensions = extensions,
        .head = submitd_fixup,
    };
    s = (struct smtp_server){.policy = &policy,
                             .start = &d->start,
                             .conf = &d->conf,
                             .limits = &d->conf.submitd,
                             .peer = peer,
                             .known = &d->known,
                             .role = R_SUBMITD,
                             .origin = local ? "sendmail" : "submission",
                             .tls_possible = !local && starttls_possible(&d->start, &d->conf),
                             .tls_first = strcmp(peer->service, "submissions") == 0,
                             .qualify = local,
                             .local = local};
    smtp_server_run(&s);
}
