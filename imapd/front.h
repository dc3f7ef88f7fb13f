/*
 * front: an IMAP connection until its user is known (RFC 3501 states "not authenticated").
 *
 * imapd only. arg is the struct login_front. See lib/login for what becomes of the connection.
 */
#pragma once
#include "lib/loop/listener.h"

void imapd_session(const struct peer *peer, void *arg);
