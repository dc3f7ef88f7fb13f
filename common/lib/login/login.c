#include "lib/login/login.h"
#include "lib/ipc/channel.h"
#include "lib/log/log.h"
#include "lib/sasl/plain.h"
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

bool
login_is_secure(const struct login *l)
{
    struct str ip = str_z(l->peer->ip);
    return l->tls || str_starts(ip, STR("127.")) || str_eq(ip, STR("::1"));
}

bool
login_has_starttls(const struct login *l)
{
    return starttls_possible(&l->front->start, &l->front->conf) && !l->tls;
}

int
login_start_tls(struct login *l)
{
    struct err e = {0};
    char text[STARTTLS_TEXT_MAX];
    l->tls = true;
    if (starttls(&l->front->start, &l->io, text, &e) == 0)
        return 0;
    log_info("%s: %s: rip=%s", l->front->name, e.text, l->peer->ip);
    l->ended = "TLS handshake failed";
    return -1;
}

int
login_begin(struct login *l, struct login_front *f, const struct peer *peer)
{
    const struct conf_service *block = f->start.role == R_POP3D ? &f->conf.pop3d : &f->conf.imapd;
    uint32_t idle_s =
        block->idle_s && block->idle_s < LOGIN_SECONDS ? block->idle_s : LOGIN_SECONDS;
    *l = (struct login){
        .front = f, .peer = peer, .began_ms = now_ms(), .method = "", .ended = "Connection closed"};
    stream_init(&l->io, peer->fd_in, peer->fd_out, (size_t)2 * LOGIN_LINE_MAX, (int)idle_s * 1000);
    l->io.deadline_ms = l->began_ms + LOGIN_SECONDS * 1000;
    static const int on = 1; /* for the cell, too: it is the same socket */
    setsockopt(peer->fd_out, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (!str_ends(str_z(peer->service), STR("s")))
        return 0;
    if (!login_has_starttls(l)) {
        l->ended = "no certificate is configured";
        return -1;
    }
    return login_start_tls(l);
}

bool
login_may_go_on(struct login *l)
{
    if (++l->bad < LOGIN_BAD_MAX)
        return true;
    l->ended = "Too many invalid commands";
    return false;
}

bool
login_is_spent(const struct login *l)
{
    return l->failures + l->troubles >= LOGIN_FAILURES_MAX;
}

bool
login_is_http(struct str line)
{
    static const char *const starts[] = {"GET /",     "POST /",   "HEAD /", "PUT /",
                                         "OPTIONS /", "CONNECT ", "Host:"};
    for (size_t i = 0; i < sizeof starts / sizeof starts[0]; i++)
        if (str_casestarts(line, str_z(starts[i])))
            return true;
    return false;
}

/* Text that may be a name or a password at all; what it may not be is answered like a wrong one
 * (catalogue F8, E12). */
static bool
is_plausible(struct str user, struct str password)
{
    if (user.n == 0 || user.n > LOGIN_USER_MAX || !str_utf8(user))
        return false;
    for (size_t i = 0; i < user.n; i++)
        if ((unsigned char)user.p[i] < 0x20 || user.p[i] == 0x7f)
            return false;
    return password.n > 0 && password.n <= LOGIN_PASSWORD_MAX && str_chr(password, '\0') < 0;
}

/* Ask authd, which gives cell_end to a new cell when the proof holds. account_r: whose it is. */
static enum login_result
enter(struct login *l, struct str user, struct str password, int cell_end, struct buf *account_r,
      struct buf *token_r)
{
    struct err e = {0};
    struct msg m = {0};
    enum login_result result = LOGIN_UNAVAILABLE;
    enum role me = l->front->start.role;
    int channel = start_channel(&l->front->start, R_AUTHD, NULL, &e);
    if (channel < 0) {
        log_error("%s: authd: %s", l->front->name, e.text);
        return LOGIN_UNAVAILABLE;
    }
    msg_begin(&m, M_ENTER);
    msg_put_str(&m, user);
    msg_put_str(&m, password);
    msg_put_str(&m, str_z(l->peer->ip));
    msg_add_fd(&m, cell_end);
    enum msg_type want = me == R_IMAPD ? M_ENTERED : M_GRANTED;
    if (chan_ask(channel, &m, want, me, R_AUTHD, LOGIN_ASK_MS, &e) == 0) {
        buf_add(account_r, msg_get_str(&m));
        if (want == M_ENTERED)
            buf_add(token_r, msg_get_str(&m));
        if (msg_end(&m) && buf_ok(account_r))
            result = LOGIN_GRANTED;
    } else if (e.class == ERR_PERMANENT) {
        result = LOGIN_WRONG;
    } else {
        log_error("%s: authd: %s", l->front->name, e.text);
    }
    msg_free(&m);
    close(channel);
    return result;
}

/* Wait until the cell stands, confined; what goes wrong until then the client can still be told. */
static int
await_cell(struct login *l, int cell, struct err *e)
{
    struct msg m = {0};
    int n = chan_recv(cell, &m, R_CELL, l->front->start.role, LOGIN_ASK_MS, e);
    if (n == 0)
        n = err_set(e, ERR_CLOSED, "it ended at once");
    if (n == 1) {
        l->cell_pid = (int)msg_get_u32(&m);
        if (m.type != M_CELL_READY || !msg_end(&m))
            n = err_set(e, ERR_PROTOCOL, "malformed greeting");
    }
    msg_free(&m);
    return n < 0 ? -1 : 0;
}

/* What an IMAP cell needs to have its session parked by and by. Without it the cell stays. */
static void
send_parking(struct login *l, int cell, struct str token)
{
    struct msg m = {0};
    struct err e = {0};
    const struct start *st = &l->front->start;
    if (st->role != R_IMAPD || start_door(st, R_IDLED) < 0 || !token.n)
        return;
    int channel = start_channel(st, R_IDLED, NULL, &e);
    if (channel < 0) {
        log_warn("%s: idled: %s", l->front->name, e.text);
        return;
    }
    msg_begin(&m, M_CELL_PARKING);
    msg_put_str(&m, token);
    msg_put_u64(&m, (uint64_t)l->front->conf.imapd.park_s * 1000);
    msg_add_fd(&m, channel);
    (void)chan_send(cell, &m, LOGIN_ASK_MS, &e);
    msg_free(&m);
    close(channel);
}

/* Tell the cell whom it serves, and give it client_fd. */
static int
send_client(struct login *l, int cell, struct str account, struct str tag, struct str token,
            int client_fd)
{
    struct msg m = {0};
    struct err e = {0};
    struct str unread = str_from(buf_str(&l->io.in), l->io.in_at);
    msg_begin(&m, M_CELL_CLIENT);
    msg_put_str(&m, account);
    msg_put_str(&m, str_z(l->peer->ip));
    msg_put_bool(&m, l->tls);
    msg_put_str(&m, tag);
    msg_put_str(&m, unread);
    msg_put_u64(&m, l->front->conf.message_size_max);
    msg_add_fd(&m, client_fd);
    int r = await_cell(l, cell, &e);
    if (r == 0) {
        send_parking(l, cell, token);
        r = chan_send(cell, &m, LOGIN_ASK_MS, &e);
    }
    if (r < 0)
        log_error("%s: the cell of %s: %s", l->front->name, log_str(account), e.text);
    msg_free(&m);
    return r;
}

static void
log_login(const struct login *l)
{
    log_info("%s: Login: user=<%s>, method=%s, rip=%s, lip=%s, mpid=%d%s", l->front->name, l->user,
             l->method, l->peer->ip, l->peer->local_ip, l->cell_pid,
             l->tls               ? ", TLS"
             : login_is_secure(l) ? ", secured"
                                  : "");
}

/* The client's connection goes to the cell, and we are finished. */
static enum login_result
hand_over(struct login *l, int cell, struct str account, struct str tag, struct str token)
{
    if (stream_flush(&l->io, NULL) < 0)
        return LOGIN_GRANTED; /* the client has gone; so will the cell */
    if (send_client(l, cell, account, tag, token, l->io.fd_in) < 0)
        return LOGIN_UNAVAILABLE;
    l->ended = NULL;
    log_login(l);
    return LOGIN_GRANTED;
}

/* Until at_ms, or until the client hangs up: nothing is gained by asking quickly. */
static void
wait_until(const struct login *l, int64_t at_ms)
{
    struct pollfd p = {.fd = l->io.fd_in, .events = POLLRDHUP};
    int n;
    do
        n = poll(&p, 1, ms_left(at_ms));
    while (n < 0 && errno == EINTR);
}

static void
remember(struct login *l, const char *method, struct str user)
{
    snprintf(l->user, sizeof l->user, "%s", log_str(user));
    for (char *p = l->user; *p; p++)
        if (*p == '>' || *p == '<' || *p == ',') /* they would end the field in the log line */
            *p = '?';
    l->method = method;
}

enum login_result
login_try(struct login *l, const char *method, struct str user, struct str password, struct str tag)
{
    int64_t answer_ms = now_ms() + l->front->delay_ms;
    struct buf account = buf_new(LOGIN_USER_MAX), token = buf_new(LOGIN_TOKEN_MAX);
    enum login_result result = LOGIN_WRONG;
    int pair[2];
    remember(l, method, user);
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
        l->troubles++;
        return LOGIN_UNAVAILABLE;
    }
    if (is_plausible(user, password))
        result = enter(l, user, password, pair[1], &account, &token);
    close(pair[1]);
    if (result == LOGIN_GRANTED)
        result = hand_over(l, pair[0], buf_str(&account), tag, buf_str(&token));
    close(pair[0]);
    buf_free(&account);
    buf_wipe(&token);
    if (result == LOGIN_GRANTED)
        return result;
    wait_until(l, answer_ms);
    l->failures += result == LOGIN_WRONG;
    l->troubles += result == LOGIN_UNAVAILABLE;
    if (login_is_spent(l))
        l->ended = "Too many failed logins";
    return result;
}

enum login_result
login_try_plain(struct login *l, struct str response, struct str tag)
{
    struct sasl_plain plain = {0};
    struct err e;
    enum login_result result = LOGIN_MALFORMED;
    if (sasl_plain_decode(str_eq(response, STR("=")) ? STR("") : response, &plain, &e) == 0)
        result = login_try(l, "PLAIN", plain.user, plain.password, tag);
    else if (e.class == ERR_PERMANENT) /* another's identity: no better than a wrong password */
        result = login_try(l, "PLAIN", STR(""), STR(""), tag);
    sasl_plain_wipe(&plain);
    return result;
}

static void
log_end(const struct login *l)
{
    char why[80];
    int64_t seconds = (now_ms() - l->began_ms) / 1000;
    if (l->failures)
        snprintf(why, sizeof why, "auth failed, %u attempts in %lld secs", l->failures,
                 (long long)seconds);
    else if (l->disallowed)
        snprintf(why, sizeof why, "tried to use disallowed plaintext auth");
    else
        snprintf(why, sizeof why, "no auth attempts in %lld secs", (long long)seconds);
    log_info("%s: Disconnected: %s (%s): user=<%s>%s%s, rip=%s, lip=%s%s", l->front->name, l->ended,
             why, l->user, *l->method ? ", method=" : "", l->method, l->peer->ip, l->peer->local_ip,
             l->tls ? ", TLS" : "");
}

void
login_end(struct login *l)
{
    if (l->ended) {
        if (!l->io.broken)
            (void)stream_flush(&l->io, NULL);
        log_end(l);
    }
    buf_wipe(&l->io.in);
    if (l->tls && l->io.fd_in >= 0)
        close(l->io.fd_in); /* what starttls() gave */
    stream_free(&l->io);
}
