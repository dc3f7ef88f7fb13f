#include "pop3d/front.h"
#include "lib/login/login.h"

struct front {
    struct login login;
    struct buf user; /* of USER, for PASS; empty: none was given */
    struct str arg;  /* of the command */
    bool over;
};

struct command {
    const char *name;
    bool has_arg;
    void (*run)(struct front *f);
};

static void
say(struct front *f, const char *text)
{
    stream_putf(&f->login.io, "%s\r\n", text);
}

static void
bad(struct front *f, const char *text)
{
    say(f, text);
    if (!login_may_go_on(&f->login))
        f->over = true;
}

/* RFC 2449 5; the rest is the cell's, which has them all. */
static void
run_capa(struct front *f)
{
    const struct login *l = &f->login;
    say(f,
        "+OK here is what I can do\r\nTOP\r\nUIDL\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\nPIPELINING");
    if (login_has_starttls(l))
        say(f, "STLS");
    if (login_is_secure(l))
        say(f, "USER\r\nSASL PLAIN");
    say(f, ".");
}

/* RFC 2595 4 */
static void
run_stls(struct front *f)
{
    struct err e;
    if (!login_has_starttls(&f->login)) {
        bad(f, f->login.tls ? "-ERR TLS is already there" : "-ERR TLS is not available");
        return;
    }
    say(f, "+OK begin TLS");
    buf_reset(&f->user); /* what was said before is forgotten */
    if (stream_flush(&f->login.io, &e) < 0 || login_start_tls(&f->login) < 0)
        f->over = true;
}

static bool
is_refused_in_clear(struct front *f)
{
    if (login_is_secure(&f->login))
        return false;
    f->login.disallowed = true;
    say(f, "-ERR [AUTH] passwords are taken only under TLS");
    return true;
}

/* What the client is told of a login (RFC 3206). */
static void
conclude(struct front *f, enum login_result result)
{
    switch (result) {
    case LOGIN_GRANTED:
        f->over = true;
        return;
    case LOGIN_WRONG:
        say(f, "-ERR [AUTH] wrong name or password");
        break;
    case LOGIN_UNAVAILABLE:
        say(f, "-ERR [SYS/TEMP] logins do not work right now");
        break;
    case LOGIN_MALFORMED:
        bad(f, "-ERR not a PLAIN response");
        return;
    }
    if (login_is_spent(&f->login))
        f->over = true;
}

static void
run_user(struct front *f)
{
    if (is_refused_in_clear(f))
        return;
    buf_reset(&f->user);
    buf_add(&f->user, str_trim(f->arg));
    if (f->user.n == 0 || !buf_ok(&f->user)) {
        buf_reset(&f->user);
        bad(f, "-ERR not a name");
    } else {
        say(f, "+OK");
    }
}

/* RFC 1939 7: the password is the rest of the line, blanks and all. */
static void
run_pass(struct front *f)
{
    if (is_refused_in_clear(f))
        return;
    if (f->user.n == 0) {
        bad(f, "-ERR USER first");
        return;
    }
    conclude(f, login_try(&f->login, "PLAIN", buf_str(&f->user), f->arg, STR("")));
    buf_reset(&f->user);
}

/* RFC 5034 4: AUTH mechanism [initial-response] */
static void
run_auth(struct front *f)
{
    struct str rest = f->arg, line;
    struct str mechanism = str_cut(&rest, ' ');
    struct err e;
    bool bare;
    if (!str_caseeq(mechanism, STR("PLAIN"))) {
        bad(f, "-ERR no such mechanism");
        return;
    }
    if (is_refused_in_clear(f))
        return;
    line = rest;
    if (rest.n == 0) {
        stream_putz(&f->login.io, "+ \r\n");
        if (stream_line(&f->login.io, LOGIN_LINE_MAX, &line, &bare, &e) < 0) {
            f->over = true;
            return;
        }
        if (str_eq(line, STR("*"))) {
            bad(f, "-ERR cancelled");
            return;
        }
    }
    conclude(f, login_try_plain(&f->login, line, STR("")));
}

static void
run_quit(struct front *f)
{
    say(f, "+OK see you");
    f->login.ended = "Logged out";
    f->over = true;
}

static const struct command commands[] = {
    {"CAPA", false, run_capa}, {"STLS", false, run_stls}, {"USER", true, run_user},
    {"PASS", true, run_pass},  {"AUTH", true, run_auth},  {"QUIT", false, run_quit},
};

static void
dispatch(struct front *f, struct str line)
{
    struct str rest = line;
    struct str name = str_cut(&rest, ' ');
    bool auth = str_caseeq(name, STR("AUTH"));
    if (login_is_http(line)) {
        f->login.ended = "HTTP request";
        f->over = true;
        return;
    }
    if (line.n > POP3D_LINE_MAX && !auth) {
        bad(f, "-ERR line too long");
        return;
    }
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (!str_caseeq(name, str_z(commands[i].name)))
            continue;
        if (commands[i].has_arg != (rest.n > 0)) {
            bad(f,
                commands[i].has_arg ? "-ERR an argument is missing" : "-ERR no argument is wanted");
            return;
        }
        f->arg = rest;
        commands[i].run(f);
        return;
    }
    bad(f, "-ERR unknown command, or one that needs a login");
}

static void
one_command(struct front *f)
{
    struct str line;
    struct err e = {0};
    bool bare;
    if (stream_line(&f->login.io, LOGIN_LINE_MAX, &line, &bare, &e) < 0) {
        f->over = true;
        if (e.class == ERR_TIMEOUT) {
            f->login.ended = "Inactivity";
            f->login.io.broken = false; /* only our patience has ended: it may still listen */
            f->login.io.deadline_ms = now_ms() + 1000;
            say(f, "-ERR too slow");
        } else if (e.class == ERR_LIMIT) {
            f->login.ended = "Too long input";
            say(f, "-ERR line too long");
        }
        return;
    }
    /* LF alone ends a line for people at a terminal; nothing else may be bare (catalogue G1). */
    if (str_chr(line, '\r') >= 0 || str_chr(line, '\0') >= 0)
        bad(f, "-ERR NUL or bare CR");
    else
        dispatch(f, line);
}

void
pop3d_session(const struct peer *peer, void *arg)
{
    struct front f = {.user = buf_new(LOGIN_USER_MAX)};
    if (login_begin(&f.login, arg, peer) == 0) {
        say(&f, "+OK Bulkhead ready");
        while (!f.over)
            one_command(&f);
    }
    buf_wipe(&f.user);
    login_end(&f.login);
}
