/*
 * transaction: one message over one connection: MAIL, RCPT, DATA (RFC 5321 3.3), pipelined when the
 * server offers it (RFC 2920).
 *
 * relay only. Replies are matched to commands strictly in order. At most TRANSACTION_WINDOW
 * commands wait for replies, so neither side can fill the other's buffers and stall.
 */
#pragma once
#include "relay/wire.h"

enum { TRANSACTION_WINDOW = 50 };

enum transaction_end {
    TRANSACTION_DONE, /* every recipient is settled; the connection may be used again if open */
    TRANSACTION_ELSEWHERE, /* nobody is settled that is not: try the next host; *v_r says why */
};

enum transaction_end transaction_run(struct wire *w, struct delivery *d, struct verdict *v_r);
