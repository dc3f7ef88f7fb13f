/*
 * front: a POP3 connection until its user is known (RFC 1939 4, AUTHORIZATION state).
 *
 * pop3d only. arg is the struct login_front. Lines are a stranger's: at most POP3D_LINE_MAX bytes,
 * and LOGIN_LINE_MAX for AUTH. See lib/login for what becomes of the connection.
 */
#pragma once
#include "lib/loop/listener.h"

enum { POP3D_LINE_MAX = 512 };

void pop3d_session(const struct peer *peer, void *arg);
