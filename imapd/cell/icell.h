/*
 * icell: an IMAP session after login (RFC 3501 6.2.3 to 6.4), in a cell of the account's own user
 * ID.
 *
 * The peer is a stranger who holds the account's password, behind the front (with TLS) or directly:
 * its bytes are not trusted. The session can reach the account's Maildir, which is its working
 * directory, and nothing else. One process, one session; all state is in struct icell, what belongs
 * to one command in struct icell_command, which icell_command_reset() empties after each.
 *
 * A session begins as IMAP4rev1, and is IMAP4rev2 (RFC 9051) from ENABLE on: what differs is said
 * where it does. Names of mailboxes lie on disk in modified UTF-7; a client that has enabled UTF-8
 * gives and gets them in UTF-8. Header fields in UTF-8 (RFC 6532) go to all clients as they are, in
 * literals.
 *
 * Each command is a row of the table in commands.c: the states it is legal in are checked before
 * its code runs. A command's code says how it ended with icell_end(); the loop then tells what
 * changed in the mailbox (when the command allows that) and sends the tagged line.
 *
 * Limits: ICELL_LINE_MAX bytes a line, ICELL_LITERAL_MAX a literal but APPEND's, ICELL_COMMAND_MAX
 * in all of a command, ICELL_NESTING_MAX parentheses, ICELL_BAD_MAX commands in a row that cannot
 * be understood.
 */
#pragma once
#include "lib/base/arena.h"
#include "lib/base/cursor.h"
#include "lib/base/siphash.h"
#include "lib/io/stream.h"
#include "lib/mail/mime.h"
#include "lib/mailbox/folder.h"
#include "lib/mailbox/mailbox.h"
#include "lib/mailbox/mailfile.h"

enum {
    ICELL_LINE_MAX = 65536,
    ICELL_LITERAL_MAX = 65536,
    ICELL_LITERAL_MINUS_MAX = 4096, /* non-synchronising, of IMAP4rev2: RFC 9051 4.3, RFC 7888 5 */
    ICELL_COMMAND_MAX = 4 * 65536,
    ICELL_NESTING_MAX = 64,
    ICELL_APPEND_MAX = 64, /* messages at once: each has its file open */
    ICELL_BAD_MAX = 20,
    ICELL_IDLE_MS = 31 * 60 * 1000, /* RFC 3501 5.4: at least 30 minutes */
    ICELL_ARENA_MAX = 64 * 1024 * 1024,
    ICELL_READY_MAX = 64 * 1024 * 1024,
};

enum icell_state { ICELL_AUTHENTICATED = 1, ICELL_SELECTED = 2, ICELL_LOGOUT = 4 };
enum icell_status { ICELL_NONE, ICELL_OK, ICELL_NO, ICELL_BAD };

struct icell_command {
    struct buf text;    /* the command with its literals: "{n}" CRLF and the bytes, in place */
    struct str tag;     /* into text */
    struct cursor args; /* behind the command's name and the space */
    bool uid;           /* with UID before it */
    bool malformed;     /* NUL or CR where none can be */
    struct {
        bool waiting; /* a message literal is announced and not read yet */
        bool plus;    /* it is non-synchronising: the bytes come anyway */
        bool binary;  /* "~{": it may have NUL (RFC 3516 4.4) */
        uint64_t size;
    } literal;
    bool unknown_cte; /* a part's encoding is not known (RFC 3516) */
    /* What the client called the mailbox, when that is not its name: in another case, or not
     * normalised. p NULL: it is. */
    struct str oldname;
    enum icell_status status;
    struct buf answer; /* text of the tagged line, with a response code in front */
};

struct icell_message { /* the message that was last looked into */
    uint32_t uid;      /* 0: none */
    bool large;        /* not held whole, and that was wanted */
    struct mailfile file;
    struct mime mime;
    struct arena arena;
};

/* How this session may be parked (docs/ARCHITECTURE.md, "Parked sessions"). */
struct icell_park {
    int fd; /* a channel to idled; -1: it stays here */
    uint64_t after_ms;
    struct str token, user; /* the caller's */
    bool done;              /* it is parked: this process has nothing to do any more */
};

struct icell {
    struct stream s;
    struct icell_park park;    /* set before icell_run() or icell_resume() */
    uint64_t message_size_max; /* of APPEND; set before icell_run() */
    int root_fd;
    enum icell_state state;
    struct mailbox mb; /* while mb_open */
    bool mb_open;
    size_t told_exists;
    struct buf told_flags; /* the FLAGS list last sent */
    struct icell_message msg;
    uint32_t hot_uid; /* whose fields are in hot; 0: nobody's */
    struct buf hot;
    struct sipkey digest_key; /* of the selected mailbox */
    bool digest_keyed;
    struct buf digest;
    struct buf ready; /* what FETCH will say of one message, before it says it */
    /* Enabled by the client: RFC 7162; IMAP4rev2 (RFC 9051 A); UTF-8 in names, by that or by
     * UTF8=ACCEPT (RFC 9755), which is charset_free: SEARCH has no CHARSET then. */
    bool condstore, qresync, rev2, utf8, charset_free;
    uint32_t *saved; /* UIDs that SEARCH saved: "$" (RFC 5182) */
    size_t nsaved;
    struct icell_deflate *deflate; /* NULL: nothing is compressed */
    struct arena arena;            /* of one command */
    struct icell_command cmd;
    unsigned bad;    /* in a row */
    const char *bye; /* why the session ended, for the log */
};

/* Serve the client on fd; tag is the LOGIN's, unread what it said behind it. Returns when it has
 * gone. */
void icell_run(struct icell *ic, int client_fd, int root_fd, struct str tag, struct str unread);
/* The same for a session that was parked: state is what idled kept of it. -1: it is not one of
 * ours, and nothing was said. */
int icell_resume(struct icell *ic, int client_fd, int root_fd, struct str state);
void icell_free(struct icell *ic);
/* What both begin with, and go on with. */
void icell_begin(struct icell *ic, int client_fd, int root_fd);
void icell_loop(struct icell *ic);
/* IDLE: until the client says something, or is parked; the end of the command is then set. */
void icell_idle(struct icell *ic, int64_t end_ms);
/* The tagged line of the command. */
void icell_answer(struct icell *ic);

/* How the command ended; the last call counts. Text like "[READ-ONLY] Done". */
void icell_end(struct icell *ic, enum icell_status status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* NO with the text of e; over quota and disk full are named. */
void icell_end_err(struct icell *ic, const struct err *e);
/* BAD: the arguments. */
void icell_end_syntax(struct icell *ic);

/* Whether a literal is non-synchronising and longer than such may be now. */
bool icell_literal_too_long(const struct icell *ic, uint64_t size, bool plus);
/* "{123}" or "{123+}" at the end of a line. -1: none. */
int icell_find_literal(struct str line, struct str *head_r, uint64_t *size_r, bool *plus_r);
/* What the loop does, apart for tests: read one command; run it and answer. 0, or -1: the session
 * is over. */
int icell_read_command(struct icell *ic);
void icell_run_command(struct icell *ic);
void icell_command_reset(struct icell *ic);
/* Tell what changed on disk: EXPUNGE only when allowed, then EXISTS, RECENT, FETCH FLAGS. */
void icell_sync(struct icell *ic, bool expunge);
/* Expunge those of n messages (indices at, or NULL: the first n) that are \Deleted. */
int icell_expunge(struct icell *ic, const size_t *at, size_t n, struct err *e);
/* From here on the client knows mod-sequences; it is told the highest if a mailbox is selected. */
void icell_enable_condstore(struct icell *ic);
/* The messages of the mailbox, of which SELECT read the counts only. -1: the session is over. */
int icell_need_messages(struct icell *ic);
/* EXPUNGE of what is gone, and the rest as it is known, without looking at the disk. */
void icell_tell(struct icell *ic, bool expunge);
/* "* n EXISTS", and RECENT where there still is such a thing. */
void icell_tell_exists(struct icell *ic);
/* Forget the selected mailbox. */
void icell_unselect(struct icell *ic);
/* "(\Seen \Answered ...)" of a message. */
void icell_add_flags(const struct icell *ic, struct buf *out, const struct mailbox_message *m);
/* "* FLAGS" and PERMANENTFLAGS when they differ from what was told. */
void icell_tell_flags(struct icell *ic);
/* The words behind CAPABILITY. */
void icell_put_capabilities(struct icell *ic);

/* The message at this index, loaded (only its header when that is enough) and cached. -1: gone, or
 * not readable. And its structure. */
int icell_load(struct icell *ic, size_t i, bool head_only, struct err *e);
int icell_load_mime(struct icell *ic, size_t i, struct err *e);
void icell_message_reset(struct icell_message *m);
/* Bytes of a loaded message, made into room (as much as fits) when they are not held. */
struct str icell_range(const struct mailfile *f, uint64_t from, uint64_t to, struct buf *room);
/* Those fields of message i that are kept of each, as they are and in their order; without opening
 * the message if they have been asked for before. Valid until the next call. */
int icell_hot_header(struct icell *ic, size_t i, struct str *header_r, struct err *e);
bool icell_is_hot(struct str name);
/* ENVELOPE, BODY or BODYSTRUCTURE of message i, kept or made. */
int icell_text(struct icell *ic, size_t i, enum mailcache_kind kind, struct buf *out,
               struct err *e);
