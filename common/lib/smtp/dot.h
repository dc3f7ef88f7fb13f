/*
 * dot: the dot-stuffed message of DATA (RFC 5321 4.5.2), both ways, as state machines that may be
 * stopped and fed again at any byte.
 *
 * The decoder reads a stranger's bytes in smtpd and submitd. Only CR LF . CR LF ends a message; a
 * CR without LF or an LF without CR anywhere condemns it (catalogue A1, A2, A8). NUL is passed
 * through. The encoder writes for relay and sendmail(1). Whatever goes in, in its output CR comes
 * only with LF and LF only with CR (catalogue A5).
 */
#pragma once
#include "lib/base/buf.h"

enum dot_step {
    DOT_PIECE, /* *piece_r is content; ask again */
    DOT_MORE,  /* the input is used up */
    DOT_END,   /* CR LF . CR LF was read; the rest of the input is not looked at */
    DOT_BARE,  /* a bare CR or LF: give the message up; stays so */
};

struct dot_decoder {
    /* Zero is the beginning of a message, which is the beginning of a line. */
    enum {
        DOT_AT_LINE,
        DOT_IN_LINE,
        DOT_AFTER_CR,
        DOT_AFTER_DOT,
        DOT_AFTER_DOT_CR,
        DOT_DEAD
    } state;
};

/* Look at in from *at on. Advances *at behind what was used; a piece points into in. */
enum dot_step dot_decode(struct dot_decoder *d, struct str in, size_t *at, struct str *piece_r);

struct dot_encoder {
    bool text;    /* LF alone is a line end (sendmail's input); else a stray LF becomes a space */
    bool started; /* something was written */
    bool in_line; /* the last byte written was not a line end */
    bool cr;      /* a CR was read, and not yet written */
};

/* Append in, encoded, to out: at most 2 * in.n + 2 bytes. */
void dot_encode(struct dot_encoder *d, struct str in, struct buf *out);
/* Append what ends the message: a line end if one is missing, and the final dot: at most 7 bytes.
 */
void dot_encode_end(struct dot_encoder *d, struct buf *out);
