/* relay: whole sessions, with qmgr played by the test and servers and resolver by children. */
#include "lib/ipc/channel.h"
#include "lib/ipc/service.h"
#include "lib/log/log.h"
#include "lib/mail/dsn.h"
#include "lib/queue/qfile.h"
#include "relay/session.h"
#include "tests/unit/keyring.h"
#include "tlsd/server.h"
#include "tests/unit/unit.h"
#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* A server: what it says to what. NULL: the usual. "!": it closes. A text without line end gets
 * one. */
struct script {
    const char *banner, *ehlo, *ehlo_reply, *mail, *data, *end, *starttls, *rset;
    bool tls;        /* does what STARTTLS promises */
    bool clear_only; /* the second connection is as if it had never heard of STARTTLS */
    bool flood;      /* the banner never ends */
    bool cuts;       /* it closes behind what it says to DATA */
    int messages;    /* after so many it closes without a word */
};

enum { LOG_SIZE = 1 << 20, SERVERS_MAX = 3 };
struct heard { /* by a server, in shared memory */
    size_t n;
    int connections;
    char p[LOG_SIZE];
};

static struct {
    struct heard *heard[SERVERS_MAX];
    pid_t pids[SERVERS_MAX + 2];
    size_t npids;
    int qmgr; /* our end of the session's channel */
    pid_t session;
    uint16_t port;
    struct conf conf;
    struct start start;
    struct keyring ring;
    struct tls_server *tls;
} the;

static void
hear(struct heard *h, struct str s)
{
    size_t n = s.n < LOG_SIZE - h->n ? s.n : LOG_SIZE - h->n;
    memcpy(h->p + h->n, s.p, n);
    h->n += n;
}

/* false: hang up. */
static bool
say(struct stream *io, const char *given, const char *usual)
{
    const char *text = given ? given : usual;
    if (strcmp(text, "!") == 0)
        return false;
    stream_putz(io, text);
    if (!str_ends(str_z(text), STR("\n")))
        stream_putz(io, "\r\n");
    return true;
}

static bool
hear_message(struct stream *io, struct heard *h)
{
    struct str line;
    struct err e;
    bool bare;
    for (;;) {
        if (stream_line(io, 1 << 16, &line, &bare, &e) < 0)
            return false;
        hear(h, line);
        hear(h, bare ? STR("<BARE>\n") : STR("\r\n"));
        if (str_eq(line, STR(".")))
            return true;
    }
}

static bool
answer(struct stream *io, const struct script *s, struct heard *h, struct str line, int *messages)
{
    struct str start = str_sub(line, 0, 4);
    if (str_eq(start, STR("EHLO"))) {
        const char *list = io->under.read ? "250-me\r\n250 8BITMIME" : s->ehlo;
        return say(io, s->ehlo_reply, list ? list : "250-me\r\n250-PIPELINING\r\n250 SIZE 100000");
    }
    if (str_eq(start, STR("MAIL")))
        return say(io, s->mail, "250 2.1.0 sender fine");
    if (str_eq(start, STR("RCPT")))
        return str_find(line, STR("gone")) >= 0     ? say(io, NULL, "550 5.1.1 nobody here")
               : str_find(line, STR("busy")) >= 0   ? say(io, NULL, "450 4.2.1 mailbox busy")
               : str_find(line, STR("full")) >= 0   ? say(io, NULL, "552 too many recipients")
               : str_find(line, STR("closes")) >= 0 ? say(io, "421 4.3.2 going down", "")
               : str_find(line, STR("drops")) >= 0  ? false
                                                    : say(io, NULL, "250 2.1.5 recipient fine");
    if (str_eq(start, STR("DATA"))) {
        if (!say(io, s->data, "354 go on"))
            return false;
        if (s->cuts)
            return false;
        if (s->data && !str_starts(str_z(s->data), STR("354")))
            return true;
        if (!hear_message(io, h))
            return false;
        ++*messages;
        return say(io, s->end, "250 2.0.0 taken") && (!s->messages || *messages < s->messages);
    }
    if (str_eq(start, STR("STAR")))
        return say(io, s->starttls, "220 go");
    if (str_eq(start, STR("RSET")))
        return say(io, s->rset, "250 forgotten");
    if (str_eq(start, STR("QUIT"))) {
        say(io, NULL, "221 bye");
        return false;
    }
    return say(io, NULL, "250 fine");
}

static void
flood(struct stream *io)
{
    for (int i = 0; i < 100000 && !io->broken; i++)
        stream_putz(io,
                    "220-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
                    "\r\n");
}

static void
converse(int fd, const struct script *given, struct heard *h)
{
    struct script script = *given;
    struct stream io;
    struct str line;
    struct err e;
    bool bare;
    int messages = 0;
    if (script.clear_only && h->connections > 1)
        script.ehlo = "250-me\r\n250 SIZE";
    stream_init(&io, fd, fd, 1 << 17, 10000);
    if (script.flood)
        flood(&io);
    if (!say(&io, script.banner, "220 me ESMTP"))
        goto end;
    while (stream_line(&io, 4096, &line, &bare, &e) == 0) {
        struct tls *tls;
        bool starttls = str_eq(line, STR("STARTTLS"));
        hear(h, line);
        hear(h, STR("\r\n"));
        if (!answer(&io, &script, h, line, &messages))
            break;
        if (starttls && script.tls &&
            (stream_flush(&io, &e) < 0 || tls_server_accept(the.tls, &io, &tls, &e) < 0))
            break;
        if (starttls && script.tls)
            hear(h, STR("<TLS>\r\n"));
    }
end:
    (void)stream_flush(&io, &e);
    stream_free(&io);
    close(fd);
}

static void
serve(int listener, const struct script *s, struct heard *h)
{
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        if (fd < 0)
            _exit(1);
        h->connections++;
        converse(fd, s, h);
    }
}

/* Server i listens on 127.0.0.(2+i), all on one port. */
static int
listen_on(size_t i, uint16_t *port)
{
    struct sockaddr_in in = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + (uint32_t)i),
                             .sin_port = htons(*port)};
    socklen_t n = sizeof in;
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&in, sizeof in), 0);
    ck_assert_int_eq(listen(fd, 10), 0);
    getsockname(fd, (struct sockaddr *)&in, &n);
    *port = ntohs(in.sin_port);
    return fd;
}

/* As long as a host's name may be. */
static struct str
long_host(void)
{
    static char name[253];
    memset(name, 'a', sizeof name);
    memcpy(name, "mx0", 3);
    for (size_t i = 63; i < sizeof name; i += 64)
        name[i] = '.';
    return str_of(name, sizeof name);
}

/* dnsd: MX of example.org are the servers, mx0 first. */
static void
on_question(struct client *c, struct msg *m)
{
    struct msg r = {0};
    struct str name = msg_get_str(m);
    bool mx = m->type == M_DNS_MX;
    enum dns_status status = str_starts(name, STR("nobody"))             ? DNS_NO_DOMAIN
                             : str_starts(name, STR("later"))            ? DNS_TRY_AGAIN
                             : mx && str_starts(name, STR("mx"))         ? DNS_NO_DATA
                             : !mx && str_starts(name, STR("noaddress")) ? DNS_NO_DATA
                                                                         : DNS_FOUND;
    msg_begin(&r, mx ? M_DNS_MX_IS : M_DNS_ADDR_IS);
    msg_put_u32(&r, status);
    if (status != DNS_FOUND) {
        msg_put_u32(&r, 0);
    } else if (!mx) {
        char address[4] = {127, 0, 0, (char)(name.p[2] - '0' + 2)};
        msg_put_u32(&r, 1);
        msg_put_str(&r, str_of(address, 4));
    } else if (str_starts(name, STR("null"))) {
        msg_put_u32(&r, 1);
        msg_put_u32(&r, 0);
        msg_put_str(&r, STR("."));
    } else if (str_starts(name, STR("long"))) {
        msg_put_u32(&r, 1);
        msg_put_u32(&r, 10);
        msg_put_str(&r, long_host());
    } else if (str_starts(name, STR("loops"))) {
        msg_put_u32(&r, 2);
        msg_put_u32(&r, 20);
        msg_put_str(&r, STR("mx1.example"));
        msg_put_u32(&r, 10);
        msg_put_str(&r, STR("Relay.example"));
    } else if (str_starts(name, STR("backup"))) {
        msg_put_u32(&r, 3);
        msg_put_u32(&r, 20);
        msg_put_str(&r, STR("relay.example"));
        msg_put_u32(&r, 30);
        msg_put_str(&r, STR("mx0.example"));
        msg_put_u32(&r, 10);
        msg_put_str(&r, STR("mx1.example"));
    } else if (str_starts(name, STR("noaddress"))) {
        msg_put_u32(&r, 1);
        msg_put_u32(&r, 10);
        msg_put_str(&r, STR("noaddress.example"));
    } else {
        msg_put_u32(&r, 2);
        msg_put_u32(&r, 20);
        msg_put_str(&r, STR("mx1.example"));
        msg_put_u32(&r, 10);
        msg_put_str(&r, STR("mx0.example"));
    }
    service_send(c, &r);
    msg_free(&r);
}

static void
play_dnsd(const struct start *st)
{
    struct loop loop = {0};
    struct service s = {.clients_max = 100, .message = on_question};
    if (loop_init(&loop, NULL) < 0 || service_init(&s, &loop, st) < 0)
        _exit(1);
    loop_run(&loop);
}

static void
setup(void)
{
    log_open(open("/dev/null", O_WRONLY | O_CLOEXEC), "test");
    the.npids = 0;
    the.tls = NULL;
    the.start = (struct start){.role = R_RELAY};
    the.conf = (struct conf){.hostname = STR("relay.example"),
                             .relay = {.connect_s = 2, .command_s = 2, .data_s = 4, .tls = true}};
    struct start dnsd = {.role = R_DNSD};
    keyring_door(&the.start, &dnsd, R_RELAY, R_DNSD);
    pid_t pid = fork();
    if (pid == 0)
        play_dnsd(&dnsd);
    the.pids[the.npids++] = pid;
    close(dnsd.fds[0].fd);
}

static void
play(const struct script *scripts, size_t n)
{
    static struct relay relay;
    struct err e = {0};
    int pair[2];
    the.port = 0;
    for (size_t i = 0; i < n; i++) {
        int fd = listen_on(i, &the.port);
        the.heard[i] = mmap(NULL, sizeof *the.heard[i], PROT_READ | PROT_WRITE,
                            MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        pid_t pid = fork();
        if (pid == 0)
            serve(fd, &scripts[i], the.heard[i]);
        the.pids[the.npids++] = pid;
        close(fd);
    }
    the.conf.relay.port = the.port;
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    the.qmgr = pair[0];
    relay = (struct relay){&the.start, &the.conf, tls_client_new(&e)};
    the.session = fork();
    if (the.session == 0) {
        struct peer peer = {.fd_in = pair[1], .fd_out = pair[1], .service = "from.qmgr"};
        close(pair[0]);
        relay_session(&peer, &relay);
        tls_client_free(relay.tls);
        exit(0); /* so that a leak checker has its say */
    }
    close(pair[1]);
    tls_client_free(relay.tls);
}

/* The session must come to its end by itself. */
static void
finish(void)
{
    int status;
    close(the.qmgr);
    ck_assert_int_eq(waitpid(the.session, &status, 0), the.session);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "session: status %d", status);
}

static void
teardown(void)
{
    for (size_t i = 0; i < the.npids; i++) {
        kill(the.pids[i], SIGKILL);
        waitpid(the.pids[i], NULL, 0);
    }
    close(the.start.fds[0].fd);
}

static void
restart(void)
{
    teardown();
    setup();
}

static void
send_route(const char *domain)
{
    struct msg m = {0};
    struct err e;
    msg_begin(&m, M_ROUTE);
    msg_put_str(&m, str_z(domain));
    ck_assert_int_eq(chan_send(the.qmgr, &m, 1000, &e), 0);
    msg_free(&m);
}

static void
send_message(const char *const *rcpts, uint32_t n, struct str text, uint32_t eight_bit)
{
    struct msg m = {0};
    struct err e;
    int fd = memfd_create("message", MFD_CLOEXEC);
    ck_assert_int_eq(write(fd, "HEAD.", 5), 5);
    ck_assert_int_eq(write(fd, text.p, text.n), (ssize_t)text.n);
    msg_begin(&m, M_DELIVER);
    msg_put_str(&m, STR("ID1"));
    msg_put_str(&m, STR("sender@relay.example"));
    msg_put_u64(&m, 0);
    msg_put_u64(&m, 5);
    msg_put_u64(&m, text.n);
    msg_put_u64(&m, qfile_check(text));
    msg_put_bool(&m, false);
    msg_put_u32(&m, eight_bit);
    msg_put_u32(&m, n);
    for (uint32_t i = 0; i < n; i++) {
        msg_put_u32(&m, i + 100);
        msg_put_str(&m, str_z(rcpts[i]));
    }
    msg_add_fd(&m, fd);
    ck_assert_int_eq(chan_send(the.qmgr, &m, 1000, &e), 0);
    msg_free(&m);
    close(fd);
}

/* The same with wishes: RET and ENVID, and each recipient's NOTIFY and ORCPT. */
static void
send_wishes(const char *const *rcpts, uint32_t n, uint32_t ret, const char *envid,
            const uint32_t *notify, const char *const *orcpt)
{
    struct msg m = {0};
    struct err e;
    int fd = memfd_create("message", MFD_CLOEXEC);
    ck_assert_int_eq(write(fd, "HEAD.x\r\n", 8), 8);
    msg_begin(&m, M_DELIVER);
    msg_put_str(&m, STR("ID1"));
    msg_put_str(&m, STR("sender@relay.example"));
    msg_put_u64(&m, 0);
    msg_put_u64(&m, 5);
    msg_put_u64(&m, 3);
    msg_put_u64(&m, qfile_check(STR("x\r\n")));
    msg_put_bool(&m, false);
    msg_put_u32(&m, DELIVER_DSN);
    msg_put_u32(&m, n);
    for (uint32_t i = 0; i < n; i++) {
        msg_put_u32(&m, i + 100);
        msg_put_str(&m, str_z(rcpts[i]));
    }
    msg_put_u32(&m, ret);
    msg_put_str(&m, str_z(envid));
    for (uint32_t i = 0; i < n; i++) {
        msg_put_u32(&m, notify[i]);
        msg_put_str(&m, str_z(orcpt[i]));
    }
    msg_add_fd(&m, fd);
    ck_assert_int_eq(chan_send(the.qmgr, &m, 1000, &e), 0);
    msg_free(&m);
    close(fd);
}

struct outcome_is {
    uint32_t index;
    enum outcome outcome;
    char dsn[12], text[2048], relay[400];
};

static struct outcome_is
outcome(void)
{
    struct outcome_is o = {0};
    struct msg m = {0};
    struct err e;
    ck_assert_int_eq(chan_recv(the.qmgr, &m, R_RELAY, R_QMGR, 20000, &e), 1);
    ck_assert_int_eq(m.type, M_OUTCOME);
    o.index = msg_get_u32(&m);
    o.outcome = (enum outcome)msg_get_u32(&m);
    struct str dsn = msg_get_str(&m), text = msg_get_str(&m), relay = msg_get_str(&m);
    ck_assert(msg_end(&m));
    snprintf(o.dsn, sizeof o.dsn, "%.*s", STR_ARG(dsn));
    snprintf(o.text, sizeof o.text, "%.*s", STR_ARG(text));
    snprintf(o.relay, sizeof o.relay, "%.*s", STR_ARG(relay));
    ck_assert_uint_le(text.n, RELAY_TEXT_MAX);
    for (size_t i = 0; i < text.n; i++)
        ck_assert(ch_print(text.p[i]));
    msg_free(&m);
    return o;
}

/* The outcomes of n recipients, by index. */
static void
outcomes(struct outcome_is *o, uint32_t n)
{
    memset(o, 0xff, n * sizeof *o);
    for (uint32_t i = 0; i < n; i++) {
        struct outcome_is got = outcome();
        ck_assert(got.index >= 100 && got.index < 100 + n);
        ck_assert_msg(o[got.index - 100].index == UINT32_MAX, "a second outcome");
        o[got.index - 100] = got;
    }
}

static bool
heard(size_t server, const char *text)
{
    return str_find(str_of(the.heard[server]->p, the.heard[server]->n), str_z(text)) >= 0;
}

static const char *const one[] = {"user@example.org"};
static const struct str hello = {"Subject: x\r\n\r\n.hello\r\n", 22};

/* One message to one recipient of a domain. */
static struct outcome_is
deliver_to(const char *domain)
{
    char address[300];
    snprintf(address, sizeof address, "user@%s", domain);
    send_route(domain);
    send_message((const char *const[]){address}, 1, hello, 0);
    struct outcome_is o = outcome();
    finish();
    return o;
}

START_TEST(a_message_arrives)
{
    play((const struct script[]){{0}, {0}}, 2);
    struct outcome_is o = deliver_to("example.org");
    ck_assert_int_eq(o.outcome, OUTCOME_RELAYED);
    ck_str(str_z(o.dsn), "2.0.0");
    ck_str(str_z(o.text), "250 2.0.0 taken");
    ck_assert(str_starts(str_z(o.relay), STR("mx0.example[127.0.0.2]:")));
    ck_assert(heard(0, "EHLO relay.example\r\nMAIL FROM:<sender@relay.example> SIZE=22\r\n"
                       "RCPT TO:<user@example.org>\r\nDATA\r\n"
                       "Subject: x\r\n\r\n..hello\r\n.\r\nQUIT\r\n"));
    ck_assert_int_eq(the.heard[1]->connections, 0);
}
END_TEST

/* It is in reports as Remote-MTA. */
START_TEST(the_whole_name_of_a_host_is_told)
{
    char want[400];
    play((const struct script[]){{0}}, 1);
    send_route("long.example");
    send_message((const char *const[]){"gone@long.example"}, 1, hello, 0);
    struct outcome_is o = outcome();
    finish();
    snprintf(want, sizeof want,
             "host %.*s[127.0.0.2]:%u said: 550 5.1.1 nobody here (in reply to RCPT TO)",
             STR_ARG(long_host()), the.port);
    ck_str(str_z(o.text), want);
}
END_TEST

START_TEST(four_and_five_are_told_apart)
{
    static const char *const rcpts[] = {"a@example.org",    "gone@example.org",
                                        "busy@example.org", "full@example.org",
                                        "b@example.org",    "bad address@example.org"};
    static const struct script scripts[] = {{0}, {.ehlo = "250 me"}};
    for (size_t i = 0; i < 2; i++) { /* with pipelining, and without */
        struct outcome_is o[6];
        restart();
        play(&scripts[i], 1);
        send_route("example.org");
        send_message(rcpts, 6, hello, 0);
        outcomes(o, 6);
        finish();
        ck_assert_int_eq(o[0].outcome, OUTCOME_RELAYED);
        ck_assert_int_eq(o[1].outcome, OUTCOME_NEVER);
        ck_str(str_z(o[1].dsn), "5.1.1");
        ck_assert(
            str_ends(str_z(o[1].text), STR("said: 550 5.1.1 nobody here (in reply to RCPT TO)")));
        ck_assert_int_eq(o[2].outcome, OUTCOME_LATER);
        ck_str(str_z(o[2].dsn), "4.2.1");
        ck_assert_int_eq(o[3].outcome, OUTCOME_LATER);
        ck_str(str_z(o[3].dsn), "4.0.0");
        ck_assert_int_eq(o[4].outcome, OUTCOME_RELAYED);
        ck_assert_int_eq(o[5].outcome, OUTCOME_NEVER);
        ck_str(str_z(o[5].dsn), "5.1.3");
        ck_assert(!heard(0, "bad address"));
    }
}
END_TEST

/* RFC 3461 5.2.1: all of it, and no more, to a host that offers DSN; 5.2.2: nothing to others,
 * whose success is reported as such. */
START_TEST(wishes_are_passed_on)
{
    static const char *const rcpts[] = {"a@example.org", "b@example.org", "c@example.org"};
    static const char *const orcpt[] = {"rfc822;A+2Bx@Y.example", "", ""};
    static const uint32_t notify[] = {DSN_SUCCESS | DSN_DELAY, DSN_NEVER, 0};
    static const struct script scripts[] = {{.ehlo = "250-me\r\n250-PIPELINING\r\n250 dsn"},
                                            {.ehlo = "250-me\r\n250 DSN"},
                                            {.ehlo = "250-me\r\n250 DSNX"}};
    for (size_t i = 0; i < 3; i++) {
        struct outcome_is o[3];
        restart();
        play(&scripts[i], 1);
        send_route("example.org");
        send_wishes(rcpts, 3, DSN_RET_HDRS, "QQ+2B1", notify, orcpt);
        outcomes(o, 3);
        send_message(one, 1, hello, 0);
        ck_assert_int_eq(outcome().outcome, i < 2 ? OUTCOME_DONE : OUTCOME_RELAYED);
        finish();
        for (size_t k = 0; k < 3; k++)
            ck_assert_int_eq(o[k].outcome, i < 2 ? OUTCOME_DONE : OUTCOME_RELAYED);
        ck_assert(heard(0, i < 2 ? "MAIL FROM:<sender@relay.example> RET=HDRS ENVID=QQ+2B1\r\n"
                                   "RCPT TO:<a@example.org> NOTIFY=SUCCESS,DELAY "
                                   "ORCPT=rfc822;A+2Bx@Y.example\r\n"
                                   "RCPT TO:<b@example.org> NOTIFY=NEVER\r\n"
                                   "RCPT TO:<c@example.org>\r\n"
                                 : "MAIL FROM:<sender@relay.example>\r\n"
                                   "RCPT TO:<a@example.org>\r\nRCPT TO:<b@example.org>\r\n"
                                   "RCPT TO:<c@example.org>\r\n"));
        ck_assert(heard(0, "MAIL FROM:<sender@relay.example>\r\nRCPT TO:<user@example.org>\r\n"));
    }
}
END_TEST

/* They go into command lines: what qmgr could not have accepted ends the session. */
START_TEST(wishes_that_cannot_be)
{
    static const struct {
        uint32_t ret, notify;
        const char *envid, *orcpt;
    } bad[] = {{3, 0, "", ""},          {0, DSN_NEVER | DSN_DELAY, "", ""}, {0, 16, "", ""},
               {0, 0, "a\r\nRSET", ""}, {0, 0, "", "rfc822;a b"},           {0, 0, "", "\r\n"}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct msg m = {0};
        struct err e;
        restart();
        play((const struct script[]){{.ehlo = "250-me\r\n250 DSN"}}, 1);
        send_route("example.org");
        send_wishes(one, 1, bad[i].ret, bad[i].envid, &bad[i].notify, &bad[i].orcpt);
        ck_assert_int_eq(chan_recv(the.qmgr, &m, R_RELAY, R_QMGR, 5000, &e), 0);
        msg_free(&m);
        finish();
        ck_assert_int_eq(the.heard[0]->connections, 0);
    }
}
END_TEST

START_TEST(nobody_accepted_means_no_message)
{
    static const char *const rcpts[] = {"gone1@example.org", "gone2@example.org"};
    static const struct script scripts[] = {{0}, {.ehlo = "250 me"}};
    for (size_t i = 0; i < 2; i++) {
        struct outcome_is o[2];
        restart();
        play(&scripts[i], 1);
        send_route("example.org");
        send_message(rcpts, 2, hello, 0);
        outcomes(o, 2);
        ck_assert_int_eq(o[0].outcome, OUTCOME_NEVER);
        ck_assert_int_eq(o[1].outcome, OUTCOME_NEVER);
        send_message(one, 1, hello, 0); /* and the connection is still good */
        ck_assert_int_eq(outcome().outcome, OUTCOME_RELAYED);
        finish();
        ck_assert_int_eq(the.heard[0]->connections, 1);
    }
}
END_TEST

START_TEST(the_next_host_is_tried)
{
    static const struct script bad[] = {
        {.banner = "!"},
        {.banner = "421 4.3.2 not now"},
        {.banner = "554 5.7.1 never"},
        {.ehlo_reply = "451 4.3.0 not now"},
        {.ehlo_reply = "!"},
        {.mail = "451 4.3.0 not now"},
        {.mail = "421 4.3.0 going down"},
        {.mail = "!"},
        {.banner = "hello"},
        {.banner = "999 hello"},
        {.banner = "220-hello\r\n250 hello"},
        {.flood = true},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        restart();
        play((const struct script[]){bad[i], {0}}, 2);
        struct outcome_is o = deliver_to("example.org");
        ck_assert_msg(o.outcome == OUTCOME_RELAYED, "%zu: %s", i, o.text);
        ck_assert(str_starts(str_z(o.relay), STR("mx1.example[127.0.0.3]:")));
        ck_assert(!heard(0, "Subject"));
    }
}
END_TEST

START_TEST(five_at_mail_is_final)
{
    play((const struct script[]){{.mail = "550 5.7.1 not from you"}, {0}}, 2);
    struct outcome_is o = deliver_to("example.org");
    ck_assert_int_eq(o.outcome, OUTCOME_NEVER);
    ck_str(str_z(o.dsn), "5.7.1");
    ck_assert_int_eq(the.heard[1]->connections, 0);
}
END_TEST

START_TEST(everything_unclear_is_tried_again)
{
    static const struct script bad[] = {
        {.data = "451 4.3.0 not now"},
        {.data = "!"},
        {.data = "250 what"},
        {.end = "!"},
        {.end = "451 4.3.0 disk full"},
        {.end = "421 4.3.0 going down"},
        {.end = "nonsense"},
        {.end = "2"},
        {.end = "354 more"},
        {.end = "250-1\r\n251 2"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        restart();
        play((const struct script[]){bad[i], {0}}, 2);
        struct outcome_is o = deliver_to("example.org");
        ck_assert_msg(o.outcome == OUTCOME_LATER, "%zu: %s", i, o.text);
        ck_assert_int_eq(o.dsn[0], '4');
        /* It may have been taken: nobody else gets it now. */
        ck_assert_int_eq(the.heard[1]->connections, 0);
    }
}
END_TEST

START_TEST(five_at_data_and_at_the_end_are_final)
{
    static const struct script bad[] = {{.data = "554 5.6.0 no"},
                                        {.end = "554 5.6.0 spam"},
                                        {.end = "554-5.6.0 spam\r\n554 5.6.0 really"}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        restart();
        play(&bad[i], 1);
        struct outcome_is o = deliver_to("example.org");
        ck_assert_int_eq(o.outcome, OUTCOME_NEVER);
        ck_str(str_z(o.dsn), "5.6.0");
    }
}
END_TEST

START_TEST(a_connection_lost_among_recipients)
{
    static const char *const rcpts[2][3] = {
        {"a@example.org", "closes@example.org", "b@example.org"},
        {"a@example.org", "drops@example.org", "b@example.org"}};
    for (size_t i = 0; i < 2; i++) {
        struct outcome_is o[3];
        restart();
        play((const struct script[]){{0}}, 1);
        send_route("example.org");
        send_message(rcpts[i], 3, hello, 0);
        outcomes(o, 3);
        finish();
        for (size_t k = 0; k < 3; k++) {
            ck_assert_int_eq(o[k].outcome, OUTCOME_LATER);
            ck_assert_int_eq(o[k].dsn[0], '4');
        }
        ck_assert(!heard(0, "Subject"));
    }
}
END_TEST

static const char *
hostile_text(void)
{
    static char text[1200000];
    struct buf b = buf_new(sizeof text - 1);
    for (int i = 0; i < 12000; i++)
        buf_addf(&b, "550-%090d\r\n", i);
    buf_addz(&b, "550 end\r\n");
    memcpy(text, b.p, b.n);
    buf_free(&b);
    return text;
}

/* Catalogue H18 and the ceilings: endless replies and lines, and odd bytes. */
START_TEST(hostile_replies_are_harmless)
{
    static char line[100001];
    memset(line, 'x', sizeof line - 1);
    memcpy(line, "250 ", 4);
    const struct script bad[] = {
        {.end = hostile_text()},
        {.end = line},
        {.end = "550 5.7.1 \x1b[2J\xff\xfe\x01 bad\tbytes"},
        {.mail = hostile_text()},
        {.ehlo_reply = hostile_text()},
    };
    static const enum outcome want[] = {OUTCOME_LATER, OUTCOME_LATER, OUTCOME_NEVER, OUTCOME_LATER,
                                        OUTCOME_LATER};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        restart();
        play(&bad[i], 1);
        struct outcome_is o = deliver_to("example.org");
        ck_assert_msg(o.outcome == want[i], "%zu: %d %s", i, o.outcome, o.text);
    }
}
END_TEST

/* Catalogue B3. */
START_TEST(injection_behind_starttls_ends_it)
{
    play((const struct script[]){{.ehlo = "250-me\r\n250 STARTTLS",
                                  .starttls = "220 go\r\n250-evil\r\n250 SIZE\r\n"}},
         1);
    struct outcome_is o = deliver_to("example.org");
    ck_assert_int_eq(o.outcome, OUTCOME_LATER);
    ck_assert(!heard(0, "MAIL"));
    ck_assert_int_eq(the.heard[0]->connections, 1);
}
END_TEST

START_TEST(broken_tls_falls_back_to_clear)
{
    play((const struct script[]){{.ehlo = "250-me\r\n250 STARTTLS", .clear_only = true}}, 1);
    struct outcome_is o = deliver_to("example.org");
    ck_assert_msg(o.outcome == OUTCOME_RELAYED, "%s", o.text);
    ck_assert_int_eq(the.heard[0]->connections, 2);
}
END_TEST

/* It wants TLS, offers it and cannot do it today: what it says of clear text is not final. */
START_TEST(tls_that_is_wanted_and_not_had)
{
    static const char must[] = "530 5.7.0 Must issue a STARTTLS command first";
    static const struct script scripts[] = {
        {.ehlo = "250-me\r\n250 STARTTLS", .clear_only = true, .mail = must},
        {.ehlo = "250-me\r\n250 STARTTLS", .clear_only = true, .data = must},
        {.ehlo = "250-me\r\n250 STARTTLS", .starttls = "454 4.7.0 not now", .mail = must},
        {.ehlo = "250-me\r\n250 STARTTLS", .clear_only = true, .mail = "550 5.7.1 no"},
        {.ehlo = "250 me", .mail = must},
    };
    for (size_t i = 0; i < sizeof scripts / sizeof scripts[0]; i++) {
        restart();
        play(&scripts[i], 1);
        struct outcome_is o = deliver_to("example.org");
        ck_assert_msg(o.outcome == (i < 3 ? OUTCOME_LATER : OUTCOME_NEVER), "%zu: %s", i, o.text);
        ck_assert_int_eq(o.dsn[0], i < 3 ? '4' : '5');
    }
}
END_TEST

START_TEST(tls_is_used_when_offered)
{
    struct err e = {0};
    keyring_start(&the.ring, R_TLSD, (const char *const[]){"ec.mx0.example", NULL});
    the.tls = tls_server_new(&the.ring.start, R_SMTPD, &e);
    ck_assert_msg(the.tls != NULL, "%s", e.text);
    play((const struct script[]){{.ehlo = "250-me\r\n250-SIZE 1\r\n250 STARTTLS", .tls = true}}, 1);
    send_route("example.org");
    send_message(one, 1, hello, 1);
    struct outcome_is o = outcome();
    finish();
    ck_assert_msg(o.outcome == OUTCOME_RELAYED, "%s", o.text);
    /* What was said in clear, a limit of one byte, is forgotten. */
    ck_assert(heard(0, "STARTTLS\r\n<TLS>\r\nEHLO relay.example\r\n"
                       "MAIL FROM:<sender@relay.example> BODY=8BITMIME\r\n"));
    tls_server_free(the.tls);
    keyring_stop(&the.ring);
}
END_TEST

START_TEST(many_messages_over_one_connection)
{
    play((const struct script[]){{0}}, 1);
    send_route("example.org");
    for (int i = 0; i < 20; i++) {
        send_message(one, 1, hello, 0);
        ck_assert_int_eq(outcome().outcome, OUTCOME_RELAYED);
    }
    finish();
    ck_assert_int_eq(the.heard[0]->connections, 1);
    ck_assert(heard(0, "QUIT"));
}
END_TEST

START_TEST(a_connection_that_died_while_idle_is_no_failure)
{
    play((const struct script[]){{.messages = 1}}, 1);
    send_route("example.org");
    for (int i = 0; i < 3; i++) {
        send_message(one, 1, hello, 0);
        struct outcome_is o = outcome();
        ck_assert_msg(o.outcome == OUTCOME_RELAYED, "%s", o.text);
    }
    finish();
    ck_assert_int_eq(the.heard[0]->connections, 3);
}
END_TEST

START_TEST(domains_that_lead_nowhere)
{
    static const struct {
        const char *domain;
        enum outcome outcome;
        const char *dsn;
    } rows[] = {
        {"nobody.example", OUTCOME_NEVER, "5.1.2"},    {"null.example", OUTCOME_NEVER, "5.1.10"},
        {"later.example", OUTCOME_LATER, "4.4.3"},     {"loops.example", OUTCOME_NEVER, "5.4.6"},
        {"noaddress.example", OUTCOME_NEVER, "5.4.4"}, {"[1.2.3]", OUTCOME_NEVER, "5.1.2"},
        {"[127.0.0.99]", OUTCOME_LATER, "4.4.1"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        restart();
        play((const struct script[]){{0}, {0}}, 2);
        struct outcome_is o = deliver_to(rows[i].domain);
        ck_assert_msg(o.outcome == rows[i].outcome, "%s: %s", rows[i].domain, o.text);
        ck_str(str_z(o.dsn), rows[i].dsn);
        ck_assert_int_eq(the.heard[0]->connections + the.heard[1]->connections, 0);
    }
}
END_TEST

START_TEST(domains_that_lead_somewhere)
{
    static const struct {
        const char *domain;
        size_t server;
    } rows[] = {{"mx1.example", 1}, {"backup.example", 1}, {"[127.0.0.2]", 0}, {"EXAMPLE.org", 0}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        restart();
        play((const struct script[]){{0}, {0}}, 2);
        struct outcome_is o = deliver_to(rows[i].domain);
        ck_assert_msg(o.outcome == OUTCOME_RELAYED, "%s: %s", rows[i].domain, o.text);
        ck_assert_int_eq(the.heard[rows[i].server]->connections, 1);
    }
    restart();
    the.conf.relay.host = STR("mx1.example"); /* a smarthost: no MX is asked for */
    play((const struct script[]){{0}, {0}}, 2);
    ck_assert_int_eq(deliver_to("nobody.example").outcome, OUTCOME_RELAYED);
    ck_assert_int_eq(the.heard[1]->connections, 1);
}
END_TEST

/* Misspelt, or its zone is broken for a while: nobody's mail bounces for it. */
START_TEST(a_smarthost_that_is_not_there)
{
    static const char *const hosts[] = {"nobody.example", "noaddress.example", "later.example"};
    for (size_t i = 0; i < 3; i++) {
        restart();
        the.conf.relay.host = str_z(hosts[i]);
        play((const struct script[]){{0}}, 1);
        struct outcome_is o = deliver_to("example.org");
        ck_assert_int_eq(o.outcome, OUTCOME_LATER);
        ck_str(str_z(o.dsn), i < 2 ? "4.3.5" : "4.4.3");
    }
}
END_TEST

/* A host that closes while it is sent a message, with a word or without one. */
START_TEST(refused_in_the_middle)
{
    static const struct {
        const char *data;
        enum outcome outcome;
        const char *dsn;
    } rows[] = {{"354 go on\r\n552 5.3.4 too large", OUTCOME_NEVER, "5.3.4"},
                {"354 go on\r\n452 4.3.1 too much", OUTCOME_LATER, "4.3.1"},
                {"354 go on\r\n250 2.0.0 taken", OUTCOME_LATER, "4.4.2"},
                {"354 go on", OUTCOME_LATER, "4.4.2"}};
    size_t size = (size_t)16 << 20; /* more than lies between the two */
    char *text = malloc(size);
    memset(text, 'x', size);
    for (size_t i = 0; i < 4; i++) {
        restart();
        play(&(struct script){.ehlo = "250 me", .data = rows[i].data, .cuts = true}, 1);
        send_route("example.org");
        send_message(one, 1, str_of(text, size), 0);
        struct outcome_is o = outcome();
        finish();
        ck_assert_msg(o.outcome == rows[i].outcome, "%zu: %s", i, o.text);
        ck_str(str_z(o.dsn), rows[i].dsn);
    }
    free(text);
}
END_TEST

/* Another name for this very host: RFC 5321 5.1 says it is not to be used. */
START_TEST(a_host_with_our_name)
{
    static const char *const replies[] = {"250-Relay.Example at your service\r\n250 SIZE",
                                          "250 relay.example", "250 relay.example.org",
                                          "250 relay.example"};
    for (size_t i = 0; i < 4; i++) {
        restart();
        if (i == 3) /* it is a smarthost */
            the.conf.relay.host = STR("mx0.example");
        play((const struct script[]){{.ehlo = replies[i]}}, 1);
        struct outcome_is o = deliver_to("mx0.example");
        ck_assert_int_eq(o.outcome, i < 2 ? OUTCOME_LATER : OUTCOME_RELAYED);
        ck_str(str_z(o.dsn), i < 2 ? "4.4.6" : "2.0.0");
        ck_assert_int_eq(heard(0, "MAIL FROM"), i >= 2);
    }
}
END_TEST

/* There was a smarthost when qmgr made the route, and is none any more: its name is nobody's
 * domain, and says nothing of those who were to go that way. */
START_TEST(a_route_of_an_earlier_configuration)
{
    static const char *const rcpts[] = {"a@nobody.example", "b@example.org", "c@EXAMPLE.org"};
    struct outcome_is o[3];
    restart();
    play((const struct script[]){{0}, {0}}, 2);
    send_route("nobody.example");
    send_message(rcpts + 1, 1, hello, 0);
    outcomes(o, 1);
    finish();
    ck_assert_int_eq(o[0].outcome, OUTCOME_LATER);
    ck_str(str_z(o[0].dsn), "4.3.5");
    restart();
    play((const struct script[]){{0}, {0}}, 2);
    send_route("example.org");
    send_message(rcpts, 3, hello, 0);
    outcomes(o, 3);
    finish();
    for (size_t i = 0; i < 3; i++)
        ck_assert_int_eq(o[i].outcome, i ? OUTCOME_RELAYED : OUTCOME_LATER);
    ck_assert(!heard(0, "nobody"));
}
END_TEST

/* The next one goes over a new connection, and the old one has been taken leave of. */
START_TEST(messages_over_one_connection_at_their_ceiling)
{
    play((const struct script[]){{0}}, 1);
    send_route("example.org");
    for (int i = 0; i <= RELAY_MESSAGES_MAX; i++) {
        ck_assert_int_eq(the.heard[0]->connections, i > 0);
        ck_assert(!heard(0, "QUIT"));
        send_message(one, 1, hello, 0);
        struct outcome_is o = outcome();
        ck_assert_msg(o.outcome == OUTCOME_RELAYED, "%d: %s", i, o.text);
    }
    ck_assert_int_eq(the.heard[0]->connections, 2);
    ck_assert(heard(0, "QUIT\r\nEHLO"));
    finish();
}
END_TEST

START_TEST(what_is_too_large_is_not_sent)
{
    play((const struct script[]){{.ehlo = "250-me\r\n250 SIZE 21"}}, 1);
    struct outcome_is o = deliver_to("example.org");
    ck_assert_int_eq(o.outcome, OUTCOME_NEVER);
    ck_str(str_z(o.dsn), "5.3.4");
    ck_assert(!heard(0, "MAIL"));
}
END_TEST

/* Catalogue A8, A5: dots at the edges of our buffer, and stray line ends. */
START_TEST(content_survives_every_edge)
{
    static char text[3 * 32768];
    struct buf want = buf_new(4 * 32768);
    size_t n = sizeof text - 10;
    memset(text, 'a', sizeof text);
    for (size_t at = 32760; at < 32775; at += 3)
        memcpy(text + at, "\r\n.", 3);
    memcpy(text + 65533, "\r\n.\r\n", 5);
    text[1000] = '\n';
    text[2000] = '\r';
    play((const struct script[]){{0}}, 1);
    send_route("example.org");
    send_message(one, 1, str_of(text, n), 0);
    ck_assert_int_eq(outcome().outcome, OUTCOME_RELAYED);
    finish();
    text[1000] = text[2000] = ' ';
    for (size_t i = 0; i < n; i++) {
        if (text[i] == '.' && text[i - 1] == '\n')
            buf_addc(&want, '.');
        buf_addc(&want, text[i]);
    }
    buf_addz(&want, "\r\n.\r\n");
    ck_assert(str_find(str_of(the.heard[0]->p, the.heard[0]->n), buf_str(&want)) >= 0);
    ck_assert(!heard(0, "<BARE>"));
    buf_free(&want);
}
END_TEST

START_TEST(more_recipients_than_a_window)
{
    static char names[120][32];
    static const char *rcpts[120];
    static struct outcome_is o[120];
    for (size_t i = 0; i < 120; i++) {
        snprintf(names[i], sizeof names[i], "%s%zu@example.org", i % 7 ? "u" : "gone", i);
        rcpts[i] = names[i];
    }
    play((const struct script[]){{0}}, 1);
    send_route("example.org");
    send_message(rcpts, 120, hello, 0);
    outcomes(o, 120);
    finish();
    for (size_t i = 0; i < 120; i++)
        ck_assert_int_eq(o[i].outcome, i % 7 ? OUTCOME_RELAYED : OUTCOME_NEVER);
}
END_TEST

/* A file of this content, told to have so many bytes and this check. What the other side sees is
 * not a whole message. */
static void
send_broken(const char *content, uint64_t size, uint64_t check, enum outcome want)
{
    struct msg m = {0};
    struct err e;
    int fd = memfd_create("message", MFD_CLOEXEC);
    play((const struct script[]){{0}}, 1);
    send_route("example.org");
    ck_assert_int_eq(write(fd, "HEAD.", 5), 5);
    ck_assert_int_eq(write(fd, content, strlen(content)), (ssize_t)strlen(content));
    msg_begin(&m, M_DELIVER);
    msg_put_str(&m, STR("ID1"));
    msg_put_str(&m, STR(""));
    msg_put_u64(&m, 0);
    msg_put_u64(&m, 5);
    msg_put_u64(&m, size);
    msg_put_u64(&m, check);
    msg_put_bool(&m, true);
    msg_put_u32(&m, 0);
    msg_put_u32(&m, 1);
    msg_put_u32(&m, 100);
    msg_put_str(&m, STR("user@example.org"));
    msg_add_fd(&m, fd);
    ck_assert_int_eq(chan_send(the.qmgr, &m, 1000, &e), 0);
    msg_free(&m);
    close(fd);
    ck_assert_int_eq(outcome().outcome, want);
    finish();
    ck_assert(!heard(0, "\r\n.\r\n"));
    ck_assert(!heard(0, "QUIT"));
}

START_TEST(a_message_cut_short_is_not_sent_as_whole)
{
    send_broken("abc\r\n", 5000, 0, OUTCOME_LATER);
}
END_TEST

START_TEST(a_message_that_does_not_fit_its_check_is_not_sent_as_whole)
{
    send_broken("abc\r\n", 5, qfile_check(STR("abd\r\n")), OUTCOME_DAMAGED);
}
END_TEST

START_TEST(a_qmgr_that_speaks_out_of_turn_is_left)
{
    struct msg m = {0};
    struct err e;
    play((const struct script[]){{0}}, 1);
    send_message(one, 1, hello, 0); /* no route before it */
    ck_assert_int_eq(chan_recv(the.qmgr, &m, R_RELAY, R_QMGR, 5000, &e), 0);
    msg_free(&m);
    finish();
    ck_assert_int_eq(the.heard[0]->connections, 0);
}
END_TEST

Suite *suite_relay(void);
Suite *
suite_relay(void)
{
    Suite *s = suite_create("relay");
    TCase *t = tcase_create("relay");
    tcase_set_timeout(t, 300);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, a_message_arrives);
    tcase_add_test(t, the_whole_name_of_a_host_is_told);
    tcase_add_test(t, four_and_five_are_told_apart);
    tcase_add_test(t, wishes_are_passed_on);
    tcase_add_test(t, wishes_that_cannot_be);
    tcase_add_test(t, nobody_accepted_means_no_message);
    tcase_add_test(t, the_next_host_is_tried);
    tcase_add_test(t, five_at_mail_is_final);
    tcase_add_test(t, everything_unclear_is_tried_again);
    tcase_add_test(t, five_at_data_and_at_the_end_are_final);
    tcase_add_test(t, a_connection_lost_among_recipients);
    tcase_add_test(t, hostile_replies_are_harmless);
    tcase_add_test(t, injection_behind_starttls_ends_it);
    tcase_add_test(t, broken_tls_falls_back_to_clear);
    tcase_add_test(t, tls_that_is_wanted_and_not_had);
    tcase_add_test(t, tls_is_used_when_offered);
    tcase_add_test(t, many_messages_over_one_connection);
    tcase_add_test(t, a_connection_that_died_while_idle_is_no_failure);
    tcase_add_test(t, domains_that_lead_nowhere);
    tcase_add_test(t, domains_that_lead_somewhere);
    tcase_add_test(t, a_smarthost_that_is_not_there);
    tcase_add_test(t, refused_in_the_middle);
    tcase_add_test(t, a_host_with_our_name);
    tcase_add_test(t, a_route_of_an_earlier_configuration);
    tcase_add_test(t, messages_over_one_connection_at_their_ceiling);
    tcase_add_test(t, what_is_too_large_is_not_sent);
    tcase_add_test(t, content_survives_every_edge);
    tcase_add_test(t, more_recipients_than_a_window);
    tcase_add_test(t, a_message_cut_short_is_not_sent_as_whole);
    tcase_add_test(t, a_message_that_does_not_fit_its_check_is_not_sent_as_whole);
    tcase_add_test(t, a_qmgr_that_speaks_out_of_turn_is_left);
    suite_add_tcase(s, t);
    return s;
}
