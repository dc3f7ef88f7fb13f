/*
 * serve: keyd's event loop: tlsd's questions, each answered at once.
 *
 * keyd only. A session that breaks a rule loses its channel. When master wants other keys it starts
 * another keyd and closes its end of the control channel. Then this one answers who still has a
 * door to it, and ends when nobody has, after KEYD_LEAVE_MS at the latest.
 */
#pragma once
#include "keyd/sign.h"
#include "lib/role/start.h"

enum {
    KEYD_CHANNELS_MAX = 12000,
    KEYD_LEAVE_MS = 45000, /* a front's question and a handshake take no longer */
    KEYD_LEAVE_LOOK_MS = 200,
};

/* For a start by hand: open the files that master would have opened. -1 names the file. */
int keyd_open_files(struct start *st, const struct conf *conf, struct err *e);
/* Until SIGTERM, or others have taken over. */
void keyd_serve(struct keyd *k, const struct start *st);
