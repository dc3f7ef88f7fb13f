/*
 * subject: the base subject of a message (RFC 5256 2.1), and text folded for comparison.
 *
 * Used by the imapd cell for SORT and THREAD. The text is a stranger's; every text has a base
 * subject, maybe an empty one. One pass from each end, no recursion: "Re: Re: [a] [b] ..." costs no
 * more than its length.
 *
 * Folding is i;unicode-casemap (RFC 5051) as far as one byte or two reach: ASCII, the letters of
 * Latin-1 (taken apart into letter and mark), Greek without accents and Cyrillic; all other text is
 * compared by its bytes.
 */
#pragma once
#include "lib/base/buf.h"

/* The base subject of a Subject field's value, not folded. *reply_r: it is a reply or a forward. */
void subject_base(struct buf *out, struct str value, bool *reply_r);
/* Upper case and taken apart, where we know it; at most half longer. */
void subject_fold(struct buf *out, struct str utf8);
