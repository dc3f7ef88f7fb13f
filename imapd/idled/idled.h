/*
 * idled: IMAP sessions in IDLE that have been quiet, put away: a record each instead of a process
 * (docs/ARCHITECTURE.md, "Parked sessions").
 *
 * The peers are cells of accounts, behind channels that imapd's fronts opened: what they send is
 * checked, and bounded. The state of a session is sealed by its account, and only carried here.
 * From the clients nothing is read: that there is something is enough to wake the session.
 *
 * Limits: PARK_STATE_MAX and PARK_TOKEN_MAX bytes a session, PARKED_MAX sessions, PARKED_USER_MAX
 * of one account; a session that cannot be woken in WAKE_TRIES is ended.
 */
#pragma once
#include "lib/ipc/service.h"

enum {
    PARK_STATE_MAX = 4096,
    PARK_TOKEN_MAX = 256,
    PARKED_MAX = 6000, /* two descriptors each */
    /* All of an account may have to wake at once: fewer than the launcher's CELLS_PER_USER_MAX. */
    PARKED_USER_MAX = 150,
};

/* Serve until told to stop; then every parked client is cut off. */
void idled_serve(const struct start *st);
