/*
 * session: one channel of qmgr: its route, then message after message, over as few connections as
 * will do.
 *
 * relay only. peer is a channel (listener.h); arg is the struct relay.
 */
#pragma once
#include "lib/loop/listener.h"
#include "relay/relay.h"

void relay_session(const struct peer *peer, void *arg);
