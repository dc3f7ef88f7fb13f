/*
 * session: smtpd's policy: mail from the Internet for our own domains, from anybody; mail for other
 * domains from nobody but peers that the supervisor marked as relay clients.
 *
 * Used by the session processes of smtpd. The client is a stranger. Recipients are checked with
 * authd at RCPT; no AUTH is offered here.
 */
#pragma once
#include "lib/smtp/server.h"

struct smtpd { /* the listener's state, which its sessions inherit */
    struct start start;
    struct conf conf;
    struct known known;
};

/* One connection. */
void smtpd_session(const struct peer *peer, void *arg);
