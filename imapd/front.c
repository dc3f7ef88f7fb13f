#include "imapd/front.h"
#include "imapd/prelogin.h"
#include "lib/login/login.h"
#include <stdio.h>

struct front {
    struct login login;
    struct prelogin cmd;
    bool over;
};

struct command {
    const char *name;
    size_t args_min, args_max;
    void (*run)(struct front *f);
};

static void
tagged(struct front *f, const char *text)
{
    stream_putf(&f->login.io, "%s %s\r\n", f->cmd.tag, text);
}

/* Only what can be done now; the cell lists its own after the login. */
static void
put_capabilities(struct front *f)
{
    const struct login *l = &f->login;
    stream_putf(&f->login.io, "CAPABILITY IMAP4rev1 IMAP4rev2 SASL-IR LITERAL+%s%s",
                login_has_starttls(l) ? " STARTTLS" : "",
                login_is_secure(l) ? " AUTH=PLAIN" : " LOGINDISABLED");
}

static void
run_capability(struct front *f)
{
    stream_putz(&f->login.io, "* ");
    put_capabilities(f);
    stream_putz(&f->login.io, "\r\n");
    tagged(f, "OK done");
}

static void
run_noop(struct front *f)
{
    tagged(f, "OK done");
}

static void
run_logout(struct front *f)
{
    stream_putz(&f->login.io, "* BYE see you\r\n");
    tagged(f, "OK done");
    f->login.ended = "Logged out";
    f->over = true;
}

static void
run_starttls(struct front *f)
{
    struct err e;
    if (!login_has_starttls(&f->login)) {
        tagged(f, f->login.tls ? "BAD TLS is already there" : "BAD TLS is not available");
        return;
    }
    tagged(f, "OK begin TLS");
    if (stream_flush(&f->login.io, &e) < 0 || login_start_tls(&f->login) < 0)
        f->over = true;
}

/* RFC 3501 6.2: refused before the password is looked at; it has been heard by others all the same.
 */
static bool
is_refused_in_clear(struct front *f)
{
    if (login_is_secure(&f->login))
        return false;
    f->login.disallowed = true;
    tagged(f, "NO [PRIVACYREQUIRED] passwords are taken only under TLS");
    return true;
}

static void
bad(struct front *f, const char *why)
{
    stream_putf(&f->login.io, "%s BAD %s\r\n", f->cmd.tag[0] ? f->cmd.tag : "*", why);
    if (login_may_go_on(&f->login))
        return;
    stream_putz(&f->login.io, "* BYE too many invalid commands\r\n");
    f->over = true;
}

/* What the client is told of a login. */
static void
conclude(struct front *f, enum login_result result)
{
    switch (result) {
    case LOGIN_GRANTED:
        f->over = true;
        return;
    case LOGIN_WRONG:
        tagged(f, "NO [AUTHENTICATIONFAILED] wrong name or password");
        break;
    case LOGIN_UNAVAILABLE:
        tagged(f, "NO [UNAVAILABLE] logins do not work right now");
        break;
    case LOGIN_MALFORMED:
        bad(f, "not a PLAIN response");
        return;
    }
    if (login_is_spent(&f->login)) {
        stream_putz(&f->login.io, "* BYE too many failed logins\r\n");
        f->over = true;
    }
}

static void
run_login(struct front *f)
{
    if (!is_refused_in_clear(f))
        conclude(f, login_try(&f->login, "PLAIN", prelogin_arg(&f->cmd, 0),
                              prelogin_arg(&f->cmd, 1), str_z(f->cmd.tag)));
}

/* RFC 3501 6.2.2, with the initial response of RFC 4959. */
static void
run_authenticate(struct front *f)
{
    struct str line = prelogin_arg(&f->cmd, 1);
    struct err e;
    bool bare;
    if (!str_caseeq(prelogin_arg(&f->cmd, 0), STR("PLAIN"))) {
        tagged(f, "NO [CANNOT] no such mechanism");
        return;
    }
    if (is_refused_in_clear(f))
        return;
    if (f->cmd.nargs < 2) {
        stream_putz(&f->login.io, "+ \r\n");
        if (stream_line(&f->login.io, LOGIN_LINE_MAX, &line, &bare, &e) < 0) {
            f->over = true;
            return;
        }
        if (str_eq(line, STR("*"))) {
            bad(f, "cancelled");
            return;
        }
    }
    conclude(f, login_try_plain(&f->login, line, str_z(f->cmd.tag)));
}

static const struct command commands[] = {
    {"CAPABILITY", 0, 0, run_capability}, {"NOOP", 0, 0, run_noop},
    {"LOGOUT", 0, 0, run_logout},         {"STARTTLS", 0, 0, run_starttls},
    {"LOGIN", 2, 2, run_login},           {"AUTHENTICATE", 1, 2, run_authenticate},
};

static void
dispatch(struct front *f)
{
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(commands[i].name, f->cmd.name) != 0)
            continue;
        if (f->cmd.nargs < commands[i].args_min || f->cmd.nargs > commands[i].args_max)
            bad(f, "wrong number of arguments");
        else
            commands[i].run(f);
        return;
    }
    bad(f, "unknown command, or one that needs a login");
}

static void
say_bye(struct front *f, const struct err *e)
{
    f->over = true;
    if (e->class == ERR_TIMEOUT) {
        f->login.ended = "Inactivity";
        f->login.io.broken = false; /* only our patience has ended: it may still listen */
        f->login.io.deadline_ms = now_ms() + 1000;
        stream_putz(&f->login.io, "* BYE too slow\r\n");
    } else if (e->class == ERR_LIMIT) {
        f->login.ended = "Too long input";
        stream_putf(&f->login.io, "* BYE %s\r\n", e->text);
    } else if (e->class == ERR_PROTOCOL) {
        stream_putz(&f->login.io, "* BYE bad command with a literal\r\n");
    }
}

static void
one_command(struct front *f)
{
    struct err e = {0};
    enum prelogin_result r = prelogin_read(&f->cmd, &f->login.io, &e);
    if (f->cmd.http) {
        f->login.ended = "HTTP request";
        f->over = true;
        return;
    }
    switch (r) {
    case PRELOGIN_OK:
        dispatch(f);
        break;
    case PRELOGIN_BAD:
        bad(f, e.text);
        break;
    case PRELOGIN_BIG:
        bad(f, "[TOOBIG] literal too large");
        break;
    case PRELOGIN_CLOSE:
        say_bye(f, &e);
        break;
    }
}

void
imapd_session(const struct peer *peer, void *arg)
{
    struct front f = {.cmd = prelogin_new()};
    if (login_begin(&f.login, arg, peer) == 0) {
        stream_putz(&f.login.io, "* OK [");
        put_capabilities(&f);
        stream_putz(&f.login.io, "] Bulkhead ready\r\n");
        while (!f.over)
            one_command(&f);
    }
    prelogin_wipe(&f.cmd);
    login_end(&f.login);
}
