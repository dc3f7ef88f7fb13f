/*
 * mailname: the name of a file in a Maildir, taken apart and put together.
 *
 * Used by mailbox. Names come from the disk, where anybody who can write there may have put
 * anything: parsing is lenient and total, what is built is strict (catalogue K1, K2).
 */
#pragma once
#include "lib/base/buf.h"

enum { MAILNAME_MAX = 255, MAILNAME_SUFFIX_MAX = 3 + 5 + 26 };

struct mailname {
    struct str base;        /* up to the first ',' or ':' */
    struct str fields;      /* ",S=1,W=2": from there to ":2," */
    struct str info;        /* behind ":2,"; flags and what else */
    uint64_t size, vsize;   /* UINT64_MAX: not in the name */
    uint32_t uid, validity; /* 0: not in the name */
    uint32_t keywords;
    uint8_t flags;  /* enum mailbox_flag */
    int64_t time_s; /* the number the name begins with, or 0 */
};

/* -1: not the name of a message (empty, hidden, too long, control characters). */
int mailname_parse(struct str name, struct mailname *m_r);
/* Only what its field "U=UID.UIDVALIDITY" says. -1: it is none. */
int mailname_uid(struct str field, struct mailname *m_r);
/* What to write; 0 and UINT64_MAX mean: leave out. */
struct mailname_new {
    uint64_t size, vsize;
    uint32_t uid, validity;
    uint32_t keywords;
    uint8_t flags;
    bool info; /* with ":2,FLAGS" */
};
/* The name of old with the sizes (where old has none), UID and flags replaced; fields and flags
 * that are not ours are kept. When that would be too long the sizes are left out, and then the base
 * is shortened to a random one. */
void mailname_build(struct buf *out, const struct mailname *old, const struct mailname_new *with);
/* ":2," and the flags, as mailname_build() writes them for a name without others' letters. */
struct str mailname_suffix(char room[static MAILNAME_SUFFIX_MAX], uint8_t flags, uint32_t keywords);
/* What of a name lies before ":2,"; and what of that before the first ','. */
struct str mailname_head(struct str name);
struct str mailname_base(struct str name);
/* A new base: seconds, microseconds, random. */
void mailname_fresh(struct buf *out, int64_t time_s);
