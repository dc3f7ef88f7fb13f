/*
 * nfc: text in Unicode's normalization form C, as names of mailboxes have it (RFC 5198 3).
 *
 * Used by the imapd cell. The text is a stranger's. Limit: NFC_MAX bytes.
 */
#pragma once
#include "lib/base/buf.h"

enum { NFC_MAX = 1024 };

/* The text normalised, added to out. -1: it is not UTF-8, or too long. */
int nfc_normalise(struct buf *out, struct str text);
