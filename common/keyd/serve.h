/*
 * serve: keyd's event loop: tlsd's questions, each answered at once.
 *
 * keyd only. A session that breaks a rule loses its channel. When master wants other keys it starts
 * keyd anew.
 */
#pragma once
#include "keyd/sign.h"
#include "lib/role/start.h"

enum { KEYD_CHANNELS_MAX = 12000 };

/* For a start by hand: open the files that master would have opened. -1 names the file. */
int keyd_open_files(struct start *st, const struct conf *conf, struct err *e);
/* Until SIGTERM. */
void keyd_serve(struct keyd *k, const struct start *st);
