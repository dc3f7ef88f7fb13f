/*
 * park: a session in IDLE is put away in idled, and taken up again (docs/ARCHITECTURE.md, "Parked
 * sessions").
 *
 * The state that idled carries is sealed with a key of the account's own, for the one socket it
 * belongs to; what does not fit is not looked into. It was written by this account's cell, but
 * maybe by another version of us: lengths are checked all the same.
 *
 * Limits: PARK_STATE_MAX bytes of state; what does not fit in is not parked.
 */
#pragma once
#include "imapd/cell/icell.h"

/* Whether a successor could know all that the client has been told. watch_fd: inotify, or -1. */
bool icell_can_park(const struct icell *ic, int watch_fd);
/* Hand the client over. park.done, and state is ICELL_LOGOUT; or nothing has happened, and it will
 * not be tried again. */
void icell_park(struct icell *ic, int watch_fd, int64_t end_ms);

/* Apart for tests: write the state, and read it back. */
int icell_park_write(struct icell *ic, int64_t end_ms, struct buf *out);
int icell_park_read(struct icell *ic, struct str state, int64_t *end_ms_r);
