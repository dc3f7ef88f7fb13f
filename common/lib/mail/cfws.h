/*
 * cfws: comments and folding white space (RFC 5322 3.2.2), which structured fields may have between
 * any two tokens. The text is a stranger's; nesting is counted, not recursed into, and an open
 * comment ends with the text (catalogue C17).
 */
#pragma once
#include "lib/base/cursor.h"

/* Pass over blanks, line ends and comments. */
void cfws_skip(struct cursor *c);
