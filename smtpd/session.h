/*
 * session: smtpd's policy: mail from the Internet for our own domains, from anybody; mail for other
 * domains from nobody but peers that the supervisor marked as relay clients.
 *
 * Used by the session processes of smtpd. The client is a stranger. Recipients are checked with
 * authd at RCPT; no AUTH is offered here.
 */
#pragma once
#include "lib/smtp/server.h"
#include "lib/tls/tls.h"

struct smtpd { /* the listener's state, which its sessions inherit */
    struct start start;
    const struct conf *conf;
    struct tls_server *tls; /* NULL: no certificate, STARTTLS is not offered */
};

/* Certificates from keyd; when there are none, that is logged and smtpd serves without TLS. */
void smtpd_prepare(struct smtpd *d);
/* One connection. */
void smtpd_session(const struct peer *peer, void *arg);
/* The same with its way to TLS given (a test has one of its own); NULL: none. */
typedef int smtpd_starttls(struct smtp_server *s, struct err *e);
void smtpd_serve(const struct smtpd *d, const struct peer *peer, smtpd_starttls *starttls);
