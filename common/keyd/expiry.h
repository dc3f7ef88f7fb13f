/*
 * expiry: how long the certificates still hold, told to the log in time and to the operator who
 * asks.
 *
 * keyd only. A certificate is named by its first DNS name, quoted; both come from the operator's
 * file. Warned of at 30, 14, 7 and 1 days, once each, and every day when it is over.
 */
#pragma once
#include "keyd/keys.h"

enum { EXPIRY_TELL_MS = 86400 * 1000 };

/* What the first certificate of the chain says: into k's name and end. -1 when it says nothing. */
int expiry_read(struct keyd_key *k, X509 *cert);
/* Whole days that are left at a time; below zero: over. */
int expiry_days(const struct keyd_key *k, int64_t at_s);
/* Log what is due: at start, and then once a day. How many lines. */
unsigned expiry_tell(struct keyd_keys *keys, int64_t at_s);
