/* The fronts of imapd and pop3d: whole sessions, with authd and the cells played by children. */
#include "imapd/front.h"
#include "lib/base/clock.h"
#include "lib/ipc/channel.h"
#include "lib/ipc/service.h"
#include "lib/log/log.h"
#include "lib/login/login.h"
#include "lib/tls/tls.h"
#include "pop3d/front.h"
#include "tests/unit/keyring.h"
#include "tests/unit/later.h"
#include "tests/unit/unit.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static struct {
    struct login_front front;
    pid_t authd, tlsd, session;
    int client;
    unsigned *asked; /* questions to authd, in shared memory */
    struct keyring ring;
    bool has_ring;
} the;

/* A cell: says what it was told, then sends every line back; "bye" ends it. */
static void
play_cell(int channel)
{
    struct msg m = {0};
    struct err e;
    struct stream io;
    struct str line;
    bool bare;
    msg_begin(&m, M_CELL_READY);
    msg_put_u32(&m, (uint32_t)getpid());
    if (msg_send(channel, &m) < 0 || chan_recv(channel, &m, R_IMAPD, R_CELL, 5000, &e) != 1 ||
        m.type != M_CELL_CLIENT)
        _exit(1);
    struct str user = msg_get_str(&m), remote = msg_get_str(&m);
    bool tls = msg_get_bool(&m);
    struct str tag = msg_get_str(&m), unread = msg_get_str(&m);
    int fd = msg_take_fd(&m, 0);
    close(channel);
    stream_init(&io, fd, fd, 1 << 17, 5000);
    stream_putf(&io, "%.*s OK cell %.*s %.*s %d [%.*s]\r\n", STR_ARG(tag), STR_ARG(user),
                STR_ARG(remote), tls, STR_ARG(unread));
    while (stream_line(&io, 1 << 16, &line, &bare, &e) == 0 && !str_eq(line, STR("bye"))) {
        stream_put(&io, line);
        stream_putz(&io, "\r\n");
    }
    if (e.class == ERR_CLOSED)
        io.broken = false; /* it may have shut only its side */
    stream_putz(&io, "cell ends\r\n");
    stream_flush(&io, &e);
    _exit(0);
}

static void
on_enter(struct client *c, struct msg *m)
{
    struct str user = msg_get_str(m), password = msg_get_str(m);
    struct msg r = {0};
    int fd = msg_take_fd(m, 0);
    ++*the.asked;
    if (m->type != M_ENTER || str_eq(password, STR("down"))) {
        service_fail(c, ERR_TEMPORARY, "out of order");
    } else if (str_starts(password, STR("right")) || str_eq(password, STR("nocell"))) {
        if (*password.p == 'r' && fork() == 0)
            play_cell(fd);
        close(fd);
        fd = -1;
        msg_begin(&r, c->role == R_IMAPD ? M_ENTERED : M_GRANTED);
        msg_put_str(&r, user);
        if (c->role == R_IMAPD)
            msg_put_str(&r, STR("token"));
        service_send(c, &r);
    } else {
        service_fail(c, ERR_PERMANENT, "wrong");
    }
    if (fd >= 0)
        close(fd);
    msg_free(&r);
}

static void
play_authd(const struct start *st)
{
    struct loop loop = {0};
    struct service s = {.clients_max = 100, .message = on_enter};
    signal(SIGCHLD, SIG_IGN);
    if (loop_init(&loop, NULL) < 0 || service_init(&s, &loop, st) < 0)
        _exit(1);
    loop_run(&loop);
}

static void
setup_for(enum role role, bool tls)
{
    struct start authd = {.role = R_AUTHD};
    log_open(open("/dev/null", O_WRONLY | O_CLOEXEC), "test");
    the.asked = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    the.front = (struct login_front){0};
    the.has_ring = tls;
    the.front.start.role = role;
    if (tls) {
        keyring_start(&the.ring, R_TLSD, (const char *const[]){"ec.mail.example", NULL});
        the.tlsd = keyring_tlsd(&the.ring, &the.front.start);
        the.front.conf.nkeys = 1;
        the.front.conf.keys[0].fronts = R_ANY;
    }
    the.front.conf.imapd.idle_s = the.front.conf.pop3d.idle_s = 5;
    keyring_door(&the.front.start, &authd, role, R_AUTHD);
    the.authd = fork();
    if (the.authd == 0)
        play_authd(&authd);
    close(authd.fds[0].fd);
    the.front.name = role == R_IMAPD ? "imap-login" : "pop3-login";
    the.front.delay_ms = 100;
}

static void
setup_imap(void)
{
    setup_for(R_IMAPD, false);
}

static void
setup_imap_tls(void)
{
    setup_for(R_IMAPD, true);
}

static void
setup_pop3(void)
{
    setup_for(R_POP3D, false);
}

static void
setup_pop3_tls(void)
{
    setup_for(R_POP3D, true);
}

static void
teardown(void)
{
    kill(the.authd, SIGKILL);
    waitpid(the.authd, NULL, 0);
    if (!the.has_ring)
        return;
    close(start_door(&the.front.start, R_TLSD));
    waitpid(the.tlsd, NULL, 0);
    keyring_stop(&the.ring);
}

static void
begin(const char *ip, const char *service)
{
    int pair[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    the.client = pair[0];
    the.session = fork();
    if (the.session == 0) {
        struct peer peer = {.fd_in = pair[1], .fd_out = pair[1], .service = service};
        snprintf(peer.ip, sizeof peer.ip, "%s", ip);
        close(pair[0]);
        if (the.front.start.role == R_IMAPD)
            imapd_session(&peer, &the.front);
        else
            pop3d_session(&peer, &the.front);
        exit(0); /* so that a leak checker has its say */
    }
    close(pair[1]);
}

static void
ended(void)
{
    int status;
    ck_assert_int_eq(waitpid(the.session, &status, 0), the.session);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "session: status %d", status);
    close(the.client);
}

static char output[1 << 18];

/* Send all, end our side, and collect everything that is said until the other side ends. */
static const char *
talk(struct str text)
{
    size_t n = 0;
    fcntl(the.client, F_SETFL, O_NONBLOCK);
    for (size_t sent = 0;;) {
        struct pollfd p = {.fd = the.client,
                           .events = (short)(POLLIN | (sent < text.n ? POLLOUT : 0))};
        ck_assert_int_gt(poll(&p, 1, 20000), 0);
        if ((p.revents & POLLOUT) && sent < text.n) {
            ssize_t k = send(the.client, text.p + sent, text.n - sent, MSG_NOSIGNAL);
            sent = k < 0 ? text.n : sent + (size_t)k;
            if (sent == text.n)
                shutdown(the.client, SHUT_WR);
        }
        if (p.revents & (POLLIN | POLLHUP)) {
            ssize_t k = read(the.client, output + n, sizeof output - 1 - n);
            if (k == 0 || (k < 0 && errno != EAGAIN))
                break;
            n += k > 0 ? (size_t)k : 0;
        }
    }
    output[n] = '\0';
    ended();
    return output;
}

static const char *
dialogue(const char *ip, struct str text)
{
    begin(ip, the.front.start.role == R_IMAPD ? "imap" : "pop3");
    return talk(text);
}

static bool
has(const char *text)
{
    return strstr(output, text) != NULL;
}

static unsigned
count(const char *what)
{
    unsigned n = 0;
    for (const char *p = output; (p = strstr(p, what)); p++)
        n++;
    return n;
}

#define HERE "127.0.0.1"
#define AWAY "192.0.2.7"

START_TEST(imap_capabilities_are_what_works)
{
    dialogue(HERE, STR("a CAPABILITY\r\nb noop\r\nc Logout\r\n"));
    ck_assert_str_eq(
        output,
        "* OK [CAPABILITY IMAP4rev1 IMAP4rev2 SASL-IR LITERAL+ AUTH=PLAIN] Bulkhead ready\r\n"
        "* CAPABILITY IMAP4rev1 IMAP4rev2 SASL-IR LITERAL+ AUTH=PLAIN\r\na OK done\r\n"
        "b OK done\r\n* BYE see you\r\nc OK done\r\n");
    dialogue(AWAY, STR("a STARTTLS\r\nc LOGOUT\r\n"));
    ck_assert(has("* OK [CAPABILITY IMAP4rev1 IMAP4rev2 SASL-IR LITERAL+ LOGINDISABLED] "));
    ck_assert(has("a BAD TLS is not available\r\n"));
}
END_TEST

START_TEST(imap_logins_in_every_spelling)
{
    static const char *const logins[] = {
        "a1 LOGIN user right\r\n",
        "a1 login \"user\" \"right\"\r\n",
        "a1 LOGIN \"us\\\\er\" \"right\\\"x\"\r\n",
        "a1 LOGIN {4}\r\nuser {5}\r\nright\r\n",
        "a1 LOGIN {4+}\r\nuser {5+}\r\nright\r\n",
        "a1 LOGIN user {5+}\r\nright\r\n",
        "a1 AUTHENTICATE PLAIN AHVzZXIAcmlnaHQ=\r\n",
        "a1 authenticate \"plain\" AHVzZXIAcmlnaHQ=\r\n",
        "a1 AUTHENTICATE PLAIN\r\nAHVzZXIAcmlnaHQ=\r\n",
        "a1 AUTHENTICATE PLAIN dXNlcgB1c2VyAHJpZ2h0\r\n",
        "a1 LOGIN user right\n",
    };
    for (size_t i = 0; i < sizeof logins / sizeof logins[0]; i++) {
        dialogue(HERE, str_z(logins[i]));
        ck_assert_msg(has("\r\na1 OK cell us"), "%s: %s", logins[i], output);
        ck_assert(has(" 127.0.0.1 0 ["));
        ck_assert(has("cell ends\r\n"));
        ck_assert(!has("Bulkhead ready\r\n+ OK\r\n+ OK\r\n+ OK"));
    }
}
END_TEST

START_TEST(imap_bytes_behind_the_login_go_to_the_cell)
{
    dialogue(HERE, STR("a LOGIN user right\r\nb SELECT INBOX\r\n"));
    ck_assert_msg(has("a OK cell user 127.0.0.1 0 [b SELECT INBOX\r\n]\r\n"), "%s", output);
}
END_TEST

START_TEST(imap_byte_by_byte)
{
    struct str text = STR("a LOGIN {4}\r\nuser \"right\"\r\nbye\r\n");
    begin(HERE, "imap");
    for (size_t i = 0; i < text.n; i++) {
        ck_assert_int_eq(write(the.client, text.p + i, 1), 1);
        usleep(1000);
    }
    talk(STR(""));
    ck_assert(has("a OK cell user"));
    ck_assert(has("cell ends"));
}
END_TEST

START_TEST(imap_wrong_passwords_cost_time_and_end)
{
    static char text[1000];
    struct buf b = {.p = text, .cap = sizeof text, .max = sizeof text - 1};
    for (int i = 0; i < 10; i++)
        buf_addz(&b, "a LOGIN user wrong\r\n");
    begin(HERE, "imap");
    int64_t began = now_ms();
    ck_assert_int_eq(write(the.client, b.p, b.n), (ssize_t)b.n);
    waitpid(the.session, NULL, WNOHANG);
    struct pollfd p = {.fd = the.client, .events = POLLRDHUP};
    ck_assert_int_eq(poll(&p, 1, 10000), 1);
    ck_assert_int_ge(now_ms() - began, LOGIN_FAILURES_MAX * the.front.delay_ms);
    talk(STR(""));
    ck_assert_uint_eq(count("a NO [AUTHENTICATIONFAILED]"), LOGIN_FAILURES_MAX);
    ck_assert(has("* BYE too many failed logins"));
    ck_assert_uint_eq(*the.asked, LOGIN_FAILURES_MAX);
}
END_TEST

START_TEST(imap_trouble_is_not_a_wrong_password)
{
    dialogue(HERE, STR("a LOGIN user down\r\nb LOGIN user nocell\r\nc LOGOUT\r\n"));
    ck_assert(has("a NO [UNAVAILABLE]"));
    ck_assert(has("b NO [UNAVAILABLE]"));
    ck_assert(has("c OK done"));
    kill(the.authd, SIGKILL);
    waitpid(the.authd, NULL, 0);
    dialogue(HERE, STR("a LOGIN user right\r\n"));
    ck_assert(has("a NO [UNAVAILABLE]"));
}
END_TEST

/* Catalogue F14: in clear nothing is looked at, and nobody asked. */
START_TEST(imap_passwords_in_clear_are_refused)
{
    dialogue(AWAY, STR("a LOGIN user right\r\nb AUTHENTICATE PLAIN AHVzZXIAcmlnaHQ=\r\n"
                       "c AUTHENTICATE PLAIN\r\n"));
    ck_assert(has("a NO [PRIVACYREQUIRED]"));
    ck_assert(has("b NO [PRIVACYREQUIRED]"));
    ck_assert(has("c NO [PRIVACYREQUIRED]"));
    ck_assert_uint_eq(*the.asked, 0);
}
END_TEST

/* Catalogue F1, F5, F8, E12, C4: what is not a proper proof is never one. */
START_TEST(imap_proofs_that_are_none)
{
    static const struct {
        struct str text;
        const char *want;
    } rows[] = {
        {STR("a AUTHENTICATE PLAIN YWRtaW4AdXNlcgByaWdodA==\r\n"), "a NO [AUTHENTICATIONFAILED]"},
        {STR("a AUTHENTICATE PLAIN ====\r\n"), "a BAD"},
        {STR("a AUTHENTICATE PLAIN =\r\n"), "a BAD"},
        {STR("a AUTHENTICATE PLAIN AHVzZXIAcmlnaHQ\r\n"), "a BAD"},
        {STR("a AUTHENTICATE PLAIN AHVzZXI=\r\n"), "a BAD"},
        {STR("a AUTHENTICATE PLAIN\r\n*\r\n"), "a BAD cancelled"},
        {STR("a AUTHENTICATE PLAIN\r\n\r\n"), "a BAD"},
        {STR("a AUTHENTICATE NTLM\r\n"), "a NO [CANNOT]"},
        {STR("a AUTHENTICATE CRAM-MD5\r\n"), "a NO [CANNOT]"},
        {STR("a LOGIN \"\xff\xfe\" right\r\n"), "a NO [AUTHENTICATIONFAILED]"},
        {STR("a LOGIN \"\xc0\xaf\" right\r\n"), "a NO [AUTHENTICATIONFAILED]"},
        {STR("a LOGIN \"a\x1b[2J\" right\r\n"), "a NO [AUTHENTICATIONFAILED]"},
        {STR("a LOGIN \"\" right\r\n"), "a NO [AUTHENTICATIONFAILED]"},
        {STR("a LOGIN user \"\"\r\n"), "a NO [AUTHENTICATIONFAILED]"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        dialogue(HERE, rows[i].text);
        ck_assert_msg(has(rows[i].want), "%zu: %s", i, output);
        ck_assert(!has("OK cell"));
    }
    ck_assert_uint_eq(*the.asked, 0);
}
END_TEST

/* Catalogue G1, G3, G4, G15, G16: the parser before anybody is known. */
START_TEST(imap_input_that_is_refused)
{
    static char open[9000], many[9000], args[9000];
    memset(open, '(', sizeof open);
    memset(many, '{', sizeof many);
    memset(args, ' ', sizeof args);
    memcpy(open, "a LOGIN ", 8);
    memcpy(many, "a ", 2);
    memcpy(open + 8000, "\r\n", 2);
    memcpy(many + 8000, "\r\n", 2);
    memcpy(args, "a LOGIN", 7);
    memcpy(args + 8000, "\r\n", 2);
    const struct {
        struct str text;
        const char *want;
    } rows[] = {
        {STR("a LOGIN \"u\0\" \"p\0\0\"\r\n"), "BAD"},
        {STR("a LOGIN {3}\r\nu\0v p\r\n"), "a BAD"},
        {STR("a LOGIN u\rx p\r\n"), "BAD"},
        {str_of(open, 8002), "a BAD"},
        {str_of(many, 8002), "a BAD"},
        {str_of(args, 8002), "a BAD"},
        {STR("a LOGIN ()()()\r\n"), "a BAD"},
        {STR("a LOGIN ))))\r\n"), "a BAD"},
        {STR("a LOGIN {4294967295}\r\n"), "a BAD [TOOBIG]"},
        {STR("a LOGIN {1025}\r\n"), "a BAD [TOOBIG]"},
        {STR("a LOGIN {4294967296+}\r\nx"), "* BYE"},
        {STR("a LOGIN {1025+}\r\nx"), "* BYE"},
        {STR("a LOGIN {-1}\r\n"), "a BAD"},
        {STR("a LOGIN {}\r\n"), "a BAD"},
        {STR("a LOGIN {00000000000000000005}\r\n"), "a BAD"},
        {STR("a LOGIN {99999999999999999999}\r\n"), "a BAD"},
        {STR("a LOGIN {5} x\r\n"), "a BAD"},
        {STR("a AUTHENTICATE \"PLAIN\" {1000000000+}\r\n"), "* BYE"},
        {STR("a LOGIN ( {5+}\r\nb NOOP\r\n"), "* BYE"},
        {STR("a NOOP junk\r\n"), "a BAD"},
        {STR("a STARTTLS \r\n"), "a BAD"},
        {STR("a LOGIN u p q r s t\r\n"), "a BAD"},
        {STR("a LOGIN \"u\r\n"), "a BAD"},
        {STR("a LOGIN \"u\\x\" p\r\n"), "a BAD"},
        {STR("a SELECT INBOX\r\n"), "a BAD"},
        {STR("+ NOOP\r\n"), "* BAD"},
        {STR(" \r\n"), "* BAD"},
        {STR("a\r\n"), "a BAD"},
        {STR("\xff\xff\r\n"), "* BAD"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        dialogue(HERE, rows[i].text);
        ck_assert_msg(has(rows[i].want), "%zu: %s", i, output);
    }
    ck_assert_uint_eq(*the.asked, 0);
}
END_TEST

START_TEST(imap_literals_up_to_the_limit)
{
    static char text[4096];
    struct buf b = {.p = text, .cap = sizeof text, .max = sizeof text - 1};
    buf_addz(&b, "a LOGIN user {1024+}\r\nright");
    for (int i = 0; i < 1019; i++)
        buf_addc(&b, 'x');
    buf_addz(&b, "\r\nbye\r\n");
    dialogue(HERE, buf_str(&b));
    ck_assert(has("a OK cell user"));
}
END_TEST

/* As long as that authd is asked; a longer one is wrong without a question, and the session goes
 * on. */
START_TEST(imap_a_password_at_its_ceiling)
{
    static char text[LOGIN_LINE_MAX];
    for (int extra = 0; extra < 2; extra++) {
        struct buf b = {.p = text, .cap = sizeof text, .max = sizeof text - 1};
        unsigned before = *the.asked;
        buf_addz(&b, "a LOGIN user \"right");
        for (int i = 0; i < LOGIN_PASSWORD_MAX + extra - 5; i++)
            buf_addc(&b, 'x');
        buf_addz(&b, extra ? "\"\r\nb NOOP\r\nc LOGOUT\r\n" : "\"\r\nbye\r\n");
        dialogue(HERE, buf_str(&b));
        ck_assert_int_ne(has("a OK cell user"), extra);
        ck_assert_int_eq(has("a NO [AUTHENTICATIONFAILED]"), extra);
        ck_assert_int_eq(has("b OK"), extra);
        ck_assert_uint_eq(*the.asked, before + !extra);
    }
}
END_TEST

/* Whoever says something again and again is not silent, but has no longer for that. */
START_TEST(login_has_a_time_in_all)
{
    static struct login l;
    struct err e = {0};
    struct str line;
    bool bare;
    int pair[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    struct login_front front = {.start = {.role = R_IMAPD}, .conf = {.imapd = {.idle_s = 1860}}};
    struct peer peer = {.fd_in = pair[0], .fd_out = pair[0], .service = "imap"};
    later_ms = 300 - LOGIN_SECONDS * 1000; /* it began so long ago */
    ck_assert_int_eq(login_begin(&l, &front, &peer), 0);
    later_ms = 0;
    int64_t began = now_ms();
    ck_assert_int_eq(write(pair[1], "a noop\r\n", 8), 8);
    ck_assert_int_eq(stream_line(&l.io, LOGIN_LINE_MAX, &line, &bare, &e), 0);
    ck_assert_int_eq(stream_line(&l.io, LOGIN_LINE_MAX, &line, &bare, &e), -1);
    ck_assert_int_eq(e.class, ERR_TIMEOUT);
    ck_assert_int_ge(now_ms() - began, 250);
    ck_assert_int_lt(now_ms() - began, 20000);
    stream_free(&l.io);
    close(pair[0]);
    close(pair[1]);
}
END_TEST

START_TEST(imap_three_bad_commands_and_out)
{
    static char text[200000];
    memset(text, '\n', sizeof text);
    dialogue(HERE, str_of(text, sizeof text));
    ck_assert_uint_eq(count("BAD"), LOGIN_BAD_MAX);
    ck_assert(has("* BYE too many invalid commands"));
    memset(text, 'x', sizeof text);
    dialogue(HERE, str_of(text, sizeof text)); /* a line without an end */
    ck_assert(has("* BYE line longer than 8192"));
    dialogue(HERE, STR("GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
    ck_assert_uint_eq(count("\n"), 1);
}
END_TEST

/* Catalogue G5: every prefix of a command is one, and none does harm. */
START_TEST(imap_every_prefix)
{
    static const char *const commands[] = {"a LOGIN {4+}\r\nuser {5+}\r\nwrong",
                                           "a LOGIN \"us\\\"er\" \"wr\\\\ong\"",
                                           "a AUTHENTICATE PLAIN AHVzZXIAd3Jvbmc="};
    char text[100];
    the.front.delay_ms = 1;
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        for (size_t n = 0; n <= strlen(commands[i]); n++) {
            snprintf(text, sizeof text, "%.*s\r\nz LOGOUT\r\n", (int)n, commands[i]);
            dialogue(HERE, str_z(text));
            ck_assert(has("BAD") || has("NO [") || has("z OK") || has("+ "));
            ck_assert(!has("OK cell"));
        }
}
END_TEST

/* Cut off at every byte of a dialogue (catalogue F7). */
START_TEST(imap_every_cut)
{
    struct str text = STR("a LOGIN {4+}\r\nuser {5+}\r\nwrong\r\nb AUTHENTICATE PLAIN\r\nAHVz\r\n");
    the.front.delay_ms = 1;
    for (size_t n = 0; n <= text.n; n++) {
        begin(HERE, "imap");
        ck_assert_int_eq(write(the.client, text.p, n), (ssize_t)n);
        close(the.client);
        the.client = open("/dev/null", O_RDONLY);
        ended();
    }
}
END_TEST

/* TLS: the client is ours. */
struct tls_talk {
    struct tls_client *client;
    struct stream io;
    struct tls *tls;
};

static void
over_tls(struct tls_talk *t)
{
    struct err e = {0};
    ck_assert_msg(tls_connect(t->client, &t->io, "ec.mail.example", &t->tls, &e) == 0, "%s",
                  e.text);
}

static void
expect(struct tls_talk *t, const char *start)
{
    struct str line;
    struct err e = {0};
    bool bare;
    ck_assert_msg(stream_line(&t->io, 100000, &line, &bare, &e) == 0, "%s", e.text);
    ck_assert_msg(str_starts(line, str_z(start)), "got \"%.*s\", want \"%s\"", STR_ARG(line),
                  start);
}

static struct tls_talk
start_talk(const char *service)
{
    struct tls_talk t = {0};
    struct err e;
    t.client = tls_client_new(&e);
    begin(AWAY, service);
    stream_init(&t.io, the.client, the.client, 1 << 17, 10000);
    return t;
}

static void
end_talk(struct tls_talk *t)
{
    tls_close(t->tls, &t->io);
    stream_free(&t->io);
    tls_client_free(t->client);
    shutdown(the.client, SHUT_RDWR);
    ended();
}

START_TEST(imap_tls_from_the_first_byte)
{
    struct tls_talk t = start_talk("imaps");
    over_tls(&t);
    expect(&t, "* OK [CAPABILITY IMAP4rev1 IMAP4rev2 SASL-IR LITERAL+ AUTH=PLAIN]");
    stream_putz(&t.io, "a LOGIN user right\r\nhello\r\n");
    expect(&t, "a OK cell user 192.0.2.7 1 [hello");
    expect(&t, "]");
    stream_putz(&t.io, "echo\r\nbye\r\n");
    expect(&t, "echo");
    expect(&t, "cell ends");
    struct str line;
    struct err e;
    bool bare;
    ck_assert_int_eq(stream_line(&t.io, 100, &line, &bare, &e), -1);
    ck_str(str_z(e.text), "connection closed by peer"); /* by close_notify, not cut */
    end_talk(&t);
}
END_TEST

START_TEST(imap_starttls_forgets_and_proxies)
{
    static char big[60000];
    struct tls_talk t = start_talk("imap");
    expect(&t, "* OK [CAPABILITY IMAP4rev1 IMAP4rev2 SASL-IR LITERAL+ STARTTLS LOGINDISABLED]");
    stream_putz(&t.io, "a STARTTLS\r\n");
    expect(&t, "a OK");
    over_tls(&t);
    stream_putz(&t.io, "b CAPABILITY\r\n");
    expect(&t, "* CAPABILITY IMAP4rev1 IMAP4rev2 SASL-IR LITERAL+ AUTH=PLAIN");
    expect(&t, "b OK");
    stream_putz(&t.io, "c STARTTLS\r\n");
    expect(&t, "c BAD");
    stream_putz(&t.io, "d AUTHENTICATE PLAIN AHVzZXIAcmlnaHQ=\r\n");
    expect(&t, "d OK cell user 192.0.2.7 1 []");
    memset(big, 'x', sizeof big - 1);
    for (int i = 0; i < 20; i++) {
        stream_put(&t.io, str_of(big, sizeof big - 1));
        stream_putz(&t.io, "\r\n");
        struct str line;
        struct err e;
        bool bare;
        ck_assert_int_eq(stream_line(&t.io, sizeof big, &line, &bare, &e), 0);
        ck_assert_uint_eq(line.n, sizeof big - 1);
    }
    end_talk(&t);
}
END_TEST

/* Catalogue B1, B2: what comes in clear behind STARTTLS is never taken. */
START_TEST(imap_injection_behind_starttls)
{
    static const char *const texts[] = {"a STARTTLS\r\nb LOGIN user right\r\n",
                                        "a starttls\r\nb NOOP\r\n", "a STARTTLS\r\nx"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        dialogue(AWAY, str_z(texts[i]));
        ck_assert(has("a OK begin TLS"));
        ck_assert(!has("b "));
    }
    ck_assert_uint_eq(*the.asked, 0);
}
END_TEST

START_TEST(imap_a_cut_client_ends_the_proxy)
{
    struct tls_talk t = start_talk("imaps");
    over_tls(&t);
    expect(&t, "* OK");
    stream_putz(&t.io, "a LOGIN user right\r\n");
    expect(&t, "a OK cell");
    shutdown(the.client, SHUT_RDWR); /* without close_notify */
    end_talk(&t);
}
END_TEST

START_TEST(pop3_states_and_words)
{
    dialogue(HERE, STR("CAPA\r\nSTLS\r\nPASS right\r\nQUIT\r\n"));
    ck_assert_str_eq(output,
                     "+OK Bulkhead ready\r\n+OK here is what I can do\r\nTOP\r\nUIDL\r\n"
                     "RESP-CODES\r\nAUTH-RESP-CODE\r\nPIPELINING\r\nUSER\r\nSASL PLAIN\r\n"
                     ".\r\n-ERR TLS is not available\r\n-ERR USER first\r\n+OK see you\r\n");
    dialogue(HERE, STR("user user\r\npass right word\r\nSTAT\r\n"));
    ck_assert_msg(has("+OK\r\n OK cell user 127.0.0.1 0 [STAT\r\n]"), "%s", output);
    dialogue(HERE, STR("AUTH PLAIN AHVzZXIAcmlnaHQ=\r\n"));
    ck_assert(has(" OK cell user"));
    dialogue(HERE, STR("AUTH PLAIN\r\nAHVzZXIAcmlnaHQ=\r\n"));
    ck_assert(has("+ \r\n OK cell user"));
    dialogue(HERE, STR("USER user\r\nPASS wrong\r\nPASS right\r\nUSER user\r\nPASS down\r\n"));
    ck_assert(has("-ERR [AUTH]"));
    ck_assert(has("-ERR USER first"));
    ck_assert(has("-ERR [SYS/TEMP]"));
    ck_assert(!has("OK cell"));
}
END_TEST

START_TEST(pop3_input_that_is_refused)
{
    static char longer[9000];
    memset(longer, 'x', sizeof longer);
    memcpy(longer, "USER ", 5);
    memcpy(longer + 600, "\r\n", 2);
    dialogue(HERE, str_of(longer, 602));
    ck_assert(has("-ERR line too long"));
    longer[600] = longer[601] = 'x';
    dialogue(HERE, str_of(longer, sizeof longer));
    ck_assert(has("-ERR line too long"));
    dialogue(HERE, STR("USER u\0x\r\nUSER\r\nNOOP\r\nQUIT\r\n"));
    ck_assert_uint_eq(count("-ERR"), LOGIN_BAD_MAX);
    ck_assert(!has("see you"));
    dialogue(HERE, STR("AUTH PLAIN ====\r\nAUTH PLAIN YWRtaW4AdXNlcgByaWdodA==\r\nAUTH\r\n"));
    ck_assert(!has("OK cell"));
    dialogue(HERE, STR("POST / HTTP/1.1\r\n"));
    ck_assert_uint_eq(count("\n"), 1);
    ck_assert_uint_eq(*the.asked, 0);
    dialogue(AWAY, STR("USER user\r\nPASS right\r\nAUTH PLAIN AHVzZXIAcmlnaHQ=\r\n"));
    ck_assert_uint_eq(count("-ERR [AUTH] passwords are taken only under TLS"), 3);
    ck_assert_uint_eq(*the.asked, 0);
}
END_TEST

START_TEST(pop3_stls)
{
    struct tls_talk t = start_talk("pop3");
    expect(&t, "+OK");
    stream_putz(&t.io, "STLS\r\n");
    expect(&t, "+OK begin TLS");
    over_tls(&t);
    stream_putz(&t.io, "USER user\r\n");
    expect(&t, "+OK");
    stream_putz(&t.io, "PASS right\r\n");
    expect(&t, " OK cell user 192.0.2.7 1 []");
    end_talk(&t);
    dialogue(AWAY, STR("STLS\r\nUSER user\r\n"));
    ck_assert_str_eq(output, "+OK Bulkhead ready\r\n+OK begin TLS\r\n");
}
END_TEST

static void
add_case(Suite *s, const char *name, void (*setup)(void), const TTest *const *tests)
{
    TCase *t = tcase_create(name);
    tcase_set_timeout(t, 300);
    tcase_add_checked_fixture(t, setup, teardown);
    for (; *tests; tests++)
        tcase_add_test(t, *tests);
    suite_add_tcase(s, t);
}

Suite *suite_login(void);
Suite *
suite_login(void)
{
    Suite *s = suite_create("login");
    add_case(s, "imap", setup_imap,
             (const TTest *const[]){
                 imap_capabilities_are_what_works, imap_logins_in_every_spelling,
                 imap_bytes_behind_the_login_go_to_the_cell, imap_byte_by_byte,
                 imap_wrong_passwords_cost_time_and_end, imap_trouble_is_not_a_wrong_password,
                 imap_passwords_in_clear_are_refused, imap_proofs_that_are_none,
                 imap_input_that_is_refused, imap_literals_up_to_the_limit,
                 imap_a_password_at_its_ceiling, login_has_a_time_in_all,
                 imap_three_bad_commands_and_out, imap_every_prefix, imap_every_cut, NULL});
    add_case(s, "imap and TLS", setup_imap_tls,
             (const TTest *const[]){imap_tls_from_the_first_byte, imap_starttls_forgets_and_proxies,
                                    imap_injection_behind_starttls,
                                    imap_a_cut_client_ends_the_proxy, NULL});
    add_case(s, "pop3", setup_pop3,
             (const TTest *const[]){pop3_states_and_words, pop3_input_that_is_refused, NULL});
    add_case(s, "pop3 and TLS", setup_pop3_tls, (const TTest *const[]){pop3_stls, NULL});
    return s;
}
