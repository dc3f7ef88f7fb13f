/*
 * verbs: the commands every SMTP server has; rows for lib/smtp/server.c, nobody else.
 */
#pragma once
#include "lib/smtp/server.h"

extern const struct smtp_verb smtp_verbs[];
extern const size_t smtp_verbs_n;

/* DATA, in intake.c. */
void smtp_data(struct smtp_server *s, struct str argument);
/* The TLS handshake, after which the session begins anew. -1: close. */
int smtp_enter_tls(struct smtp_server *s);
