/*
 * login: what the fronts of imapd and pop3d share: TLS, the proof of who somebody is, the
 * hand-over.
 *
 * Used by the sessions of imapd and pop3d before anybody is logged in: every byte is a stranger's,
 * and the process holds nothing but the client's connection and doors to authd and keyd. A login
 * goes to authd with one end of a fresh socket pair; when the proof holds, authd gives that end to
 * a cell that runs as the account's user, and we send the client's connection into ours; with TLS
 * that is the socket to tlsd. The front is then finished.
 *
 * Limits: LOGIN_SECONDS in all before the login, LOGIN_FAILURES_MAX logins that fail, each answered
 * LOGIN_DELAY_MS after it came, LOGIN_BAD_MAX bad commands. Passwords are accepted only under TLS
 * or from this host (RFC 8314 3, catalogue F14).
 */
#pragma once
#include "lib/io/stream.h"
#include "lib/loop/listener.h"
#include "lib/role/starttls.h"

enum {
    LOGIN_SECONDS = 180,
    LOGIN_FAILURES_MAX = 5,
    LOGIN_DELAY_MS = 2000,
    LOGIN_BAD_MAX = 3,
    LOGIN_USER_MAX = 320,
    LOGIN_PASSWORD_MAX = 1024,
    LOGIN_TOKEN_MAX = 512, /* of a session that may be parked */
    LOGIN_LINE_MAX = 8192,
    LOGIN_ASK_MS = 30000,
};

/* Made once in the listener; the sessions have copies. */
struct login_front {
    struct start start;
    struct conf conf;
    const char *name; /* "imap-login", in log lines */
    int delay_ms;     /* LOGIN_DELAY_MS; tests are in more of a hurry */
};

struct login {
    struct login_front *front;
    const struct peer *peer;
    struct stream io;
    bool tls;
    int64_t began_ms;
    unsigned failures, troubles, bad;  /* wrong passwords; logins that nobody could try */
    bool disallowed;                   /* somebody showed us a password in clear */
    const char *ended;                 /* why, for the log; NULL: handed over */
    char user[LOGIN_USER_MAX * 4 + 8]; /* the last one tried, quoted */
    const char *method;
    int cell_pid;
};

enum login_result {
    LOGIN_GRANTED,     /* the cell has the client: say nothing more, login_end() */
    LOGIN_WRONG,       /* after the delay */
    LOGIN_UNAVAILABLE, /* nobody's fault: say so */
    LOGIN_MALFORMED,   /* not a response at all: a bad command */
};

/* A session begins, with TLS when its service name ends in 's'. -1: over, go to login_end(). */
int login_begin(struct login *l, struct login_front *f, const struct peer *peer);
/* After the positive answer to STARTTLS or STLS. -1: over. */
int login_start_tls(struct login *l);
/* Whether a password may be taken on this connection; whether STARTTLS can be offered. */
bool login_is_secure(const struct login *l);
bool login_has_starttls(const struct login *l);
/* method: "PLAIN" and so on, a string that stays. tag: for the cell's answer. */
enum login_result login_try(struct login *l, const char *method, struct str user,
                            struct str password, struct str tag);
/* The same with the response of SASL PLAIN, in base64; "=" is the empty one (RFC 4959 3). */
enum login_result login_try_plain(struct login *l, struct str response, struct str tag);
/* Whether it has tried often enough: a login that nobody could try counts, since authd's refusal of
 * who guesses too fast is one. */
bool login_is_spent(const struct login *l);
/* Count a bad command; false when it was one too many. */
bool login_may_go_on(struct login *l);
/* A line of a web browser that was led here (catalogue B14). */
bool login_is_http(struct str line);
/* Log how it ended, free and wipe. */
void login_end(struct login *l);
