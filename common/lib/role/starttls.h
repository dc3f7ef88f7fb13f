/*
 * starttls: how a front gets TLS under its connection: it gives the client away to tlsd, and goes
 * on with the bytes in clear.
 *
 * Used by the sessions of smtpd, submitd, imapd and pop3d. The client's descriptors go to a tlsd
 * session (TLS_START), which does the handshake and answers with one end of a socket pair. From
 * then on the front has nothing of the client but what comes out of TLS.
 *
 * The end of that socket is the end of the connection, however the client ended it: who needs to
 * know that a message is whole finds that in its protocol, as SMTP, IMAP and POP3 have it.
 */
#pragma once
#include "lib/io/stream.h"
#include "lib/role/start.h"

enum { STARTTLS_MS = 35000, STARTTLS_TEXT_MAX = 96 };

/* Whether STARTTLS can be offered: there are certificates, and a way to tlsd. */
bool starttls_possible(const struct start *start, const struct conf *conf);
/* Input that was read before TLS must be gone: -1 with ERR_PROTOCOL when the stream has any
 * buffered (catalogue B1, B3). text_r: "TLSv1.3 TLS_AES_256_GCM_SHA384". The client's descriptors
 * are closed here, after a -1 too: then the connection is over. */
int starttls(const struct start *start, struct stream *s, char *text_r, struct err *e);
