/*
 * prelogin: commands of a client that has not logged in (RFC 3501 6.2 and 9), read whole.
 *
 * Used by the front of imapd. The bytes are a stranger's: lines have at most LOGIN_LINE_MAX bytes,
 * literals PRELOGIN_LITERAL_MAX, a command PRELOGIN_ARGS_MAX arguments; a length is looked at
 * before a byte is kept (catalogue G4), NUL and bare CR are refused (G1), and so are parentheses,
 * which no command here has (G3). The struct owns the text, which holds passwords: prelogin_wipe()
 * after each.
 */
#pragma once
#include "lib/io/stream.h"

enum {
    PRELOGIN_ARGS_MAX = 4,
    PRELOGIN_LITERAL_MAX = 1024,
    PRELOGIN_TAG_MAX = 64,
    PRELOGIN_TEXT_MAX = 8192 + PRELOGIN_ARGS_MAX * PRELOGIN_LITERAL_MAX,
};

struct prelogin {
    char tag[PRELOGIN_TAG_MAX + 1]; /* "" when there was no usable one */
    char name[32];                  /* the command, in upper case */
    struct buf text;                /* the arguments, decoded, one behind the other */
    struct {
        size_t at, n;
    } args[PRELOGIN_ARGS_MAX];
    size_t nargs;
    bool http; /* it came from a web browser */
};

enum prelogin_result {
    PRELOGIN_OK,
    PRELOGIN_BAD,   /* not a command: e says why; the line is used up */
    PRELOGIN_BIG,   /* a literal that is too large, and was not sent yet */
    PRELOGIN_CLOSE, /* the connection has ended, or cannot be kept in step: e */
};

static inline struct prelogin
prelogin_new(void)
{
    return (struct prelogin){.text = buf_new(PRELOGIN_TEXT_MAX)};
}
enum prelogin_result prelogin_read(struct prelogin *p, struct stream *io, struct err *e);
struct str prelogin_arg(const struct prelogin *p, size_t i);
void prelogin_wipe(struct prelogin *p);
