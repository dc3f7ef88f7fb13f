/* tls: handshakes with the key in another process, and what must never come out of one. */
#include "tlsd/server.h"
#include "tests/unit/keyring.h"
#include "tests/unit/unit.h"
#include <errno.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static struct keyring ring;

/* What the client, a child process, does; and what it must see, else it exits with 1. */
struct act {
    int version;
    const char *sni, *sigalgs, *alpn, *want_host;
    bool cut;     /* no close_notify */
    bool refused; /* the handshake is to fail */
    const char *say;
};

static SSL_CTX *
client_ctx(const struct act *a)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    if (a->version) {
        SSL_CTX_set_min_proto_version(ctx, a->version);
        SSL_CTX_set_max_proto_version(ctx, a->version);
    }
    if (a->sigalgs)
        SSL_CTX_set1_sigalgs_list(ctx, a->sigalgs);
    if (a->alpn)
        SSL_CTX_set_alpn_protos(ctx, (const unsigned char *)a->alpn, (unsigned)strlen(a->alpn));
    return ctx;
}

static int
act(int fd, const struct act *a)
{
    SSL *ssl = SSL_new(client_ctx(a));
    if (a->sni)
        SSL_set_tlsext_host_name(ssl, a->sni);
    SSL_set_fd(ssl, fd);
    if (SSL_connect(ssl) != 1)
        return a->refused ? 0 : 1;
    if (a->refused) {
        /* With TLS 1.3 a refusal may come behind the client's end of the handshake. */
        char byte;
        return SSL_read(ssl, &byte, 1) <= 0 ? 0 : 1;
    }
    if (a->want_host &&
        X509_check_host(SSL_get0_peer_certificate(ssl), a->want_host, 0, 0, NULL) != 1)
        return 1;
    if (a->say && SSL_write(ssl, a->say, (int)strlen(a->say)) <= 0)
        return 1;
    if (!a->cut)
        SSL_shutdown(ssl);
    return 0;
}

static pid_t
start_client(const struct act *a, int *fd_r)
{
    int pair[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    pid_t pid = fork();
    if (pid == 0) {
        signal(SIGPIPE, SIG_IGN);
        close(pair[0]);
        _exit(act(pair[1], a));
    }
    close(pair[1]);
    *fd_r = pair[0];
    return pid;
}

static void
client_was_content(pid_t pid)
{
    int status;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "client: status %d", status);
}

static struct tls_server *
server(enum role front)
{
    struct err e = {0};
    struct tls_server *s = tls_server_new(&ring.start, front, &e);
    ck_assert_msg(s != NULL, "%s", e.text);
    return s;
}

static void
start_ring(void)
{
    keyring_start(&ring, R_TLSD,
                  (const char *const[]){"rsa.first.example", "ec.second.example", NULL});
}

static void
meet(struct tls_server *s, const struct act *a)
{
    struct stream io;
    struct tls *tls = NULL;
    struct err e = {0};
    struct str line;
    bool bare;
    int fd;
    pid_t pid = start_client(a, &fd);
    stream_init(&io, fd, fd, 4096, 5000);
    int r = tls_server_accept(s, &io, &tls, &e);
    ck_assert_msg((r == 0) == !a->refused, "%s", r < 0 ? e.text : "accepted");
    if (r == 0 && a->say) {
        ck_assert_int_eq(stream_line(&io, 100, &line, &bare, &e), 0);
        ck_str(line, "hello");
        if (a->version)
            ck_assert_int_eq(
                strcmp(tls_version(tls), a->version == TLS1_2_VERSION ? "TLSv1.2" : "TLSv1.3"), 0);
        ck_assert_int_ge(tls_bits(tls), 128);
    }
    if (r == 0) {
        char byte;
        short wait = 0;
        ssize_t n;
        while ((n = io.under.read(io.under.self, &byte, 1, &wait)) < 0 && errno == EAGAIN)
            poll(&(struct pollfd){.fd = fd, .events = wait}, 1, 5000);
        if (a->cut) {
            ck_assert_int_eq(n, -1);
            ck_assert_int_eq(errno, ECONNABORTED);
        } else {
            ck_assert_int_eq(n, 0);
        }
    }
    tls_close(tls, &io);
    stream_free(&io);
    close(fd);
    client_was_content(pid);
}

START_TEST(keys_elsewhere_sign_in_every_way)
{
    static const struct act acts[] = {
        {.version = TLS1_3_VERSION, .say = "hello\r\n", .want_host = "rsa.first.example"},
        {.version = TLS1_2_VERSION, .say = "hello\r\n", .want_host = "rsa.first.example"},
        {.version = TLS1_2_VERSION,
         .say = "hello\r\n",
         .sigalgs = "RSA+SHA256",
         .want_host = "rsa.first.example"},
        {.version = TLS1_3_VERSION,
         .say = "hello\r\n",
         .sni = "ec.second.example",
         .want_host = "ec.second.example"},
        {.version = TLS1_2_VERSION,
         .say = "hello\r\n",
         .sni = "EC.Second.example",
         .want_host = "ec.second.example"},
        {.say = "hello\r\n", .sni = "unknown.example", .want_host = "rsa.first.example"},
    };
    start_ring();
    struct tls_server *s = server(R_SMTPD);
    for (size_t i = 0; i < sizeof acts / sizeof acts[0]; i++)
        meet(s, &acts[i]);
    tls_server_free(s);
    keyring_stop(&ring);
}
END_TEST

START_TEST(a_cut_is_not_an_end)
{
    start_ring();
    struct tls_server *s = server(R_SMTPD);
    meet(s, &(struct act){.say = "hello\r\n"});
    meet(s, &(struct act){.say = "hello\r\n", .cut = true});
    meet(s, &(struct act){.say = "hello\r\n", .cut = true, .version = TLS1_2_VERSION});
    tls_server_free(s);
    keyring_stop(&ring);
}
END_TEST

START_TEST(old_versions_and_foreign_protocols_are_refused)
{
    start_ring();
    struct tls_server *s = server(R_IMAPD);
    meet(s, &(struct act){.version = TLS1_1_VERSION, .refused = true});
    meet(s, &(struct act){.alpn = "\x08http/1.1", .refused = true});
    meet(s, &(struct act){.alpn = "\x08http/1.1\x04imap", .say = "hello\r\n"});
    tls_server_free(s);
    keyring_stop(&ring);
}
END_TEST

/* Catalogue B1, B3: what lies in the buffer was said in clear. */
START_TEST(buffered_input_ends_the_handshake)
{
    struct stream io;
    struct tls *tls = NULL;
    struct err e = {0};
    struct str line;
    bool bare;
    int pair[2];
    start_ring();
    struct tls_server *s = server(R_SMTPD);
    struct tls_client *c = tls_client_new(&e);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    ck_assert_int_eq(write(pair[1], "STARTTLS\r\nRSET\r\n", 16), 16);
    stream_init(&io, pair[0], pair[0], 4096, 1000);
    ck_assert_int_eq(stream_line(&io, 100, &line, &bare, &e), 0);
    ck_assert_int_eq(tls_server_accept(s, &io, &tls, &e), -1);
    ck_assert_int_eq(e.class, ERR_PROTOCOL);
    ck_assert_int_eq(tls_connect(c, &io, "x.example", &tls, &e), -1);
    ck_assert_int_eq(e.class, ERR_PROTOCOL);
    ck_assert_ptr_null(tls);
    stream_free(&io);
    tls_client_free(c);
    tls_server_free(s);
    keyring_stop(&ring);
}
END_TEST

/* Catalogue B6. */
START_TEST(a_silent_client_is_cut)
{
    struct stream io;
    struct tls *tls = NULL;
    struct err e = {0};
    int pair[2];
    start_ring();
    struct tls_server *s = server(R_SMTPD);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    ck_assert_int_eq(write(pair[1], "\x16\x03\x01", 3), 3);
    stream_init(&io, pair[0], pair[0], 4096, 60000);
    io.deadline_ms = now_ms() + 100;
    ck_assert_int_eq(tls_server_accept(s, &io, &tls, &e), -1);
    ck_assert_int_eq(e.class, ERR_TIMEOUT);
    stream_free(&io);
    tls_server_free(s);
    keyring_stop(&ring);
}
END_TEST

START_TEST(without_keyd_the_handshake_fails_and_says_why)
{
    struct stream io;
    struct tls *tls = NULL;
    struct err e = {0};
    int fd;
    start_ring();
    struct tls_server *s = server(R_SMTPD);
    kill(ring.pid, SIGKILL);
    waitpid(ring.pid, NULL, 0);
    pid_t pid = start_client(&(struct act){.refused = true}, &fd);
    stream_init(&io, fd, fd, 4096, 5000);
    ck_assert_int_eq(tls_server_accept(s, &io, &tls, &e), -1);
    ck_assert_msg(strstr(e.text, "keyd") != NULL, "%s", e.text);
    stream_free(&io);
    close(fd);
    client_was_content(pid);
    ck_assert_ptr_null(tls_server_new(&ring.start, R_SMTPD, &e));
    tls_server_free(s);
}
END_TEST

/* The first bytes of a real ClientHello, and then the end, for every length (catalogue B15). */
START_TEST(aborted_handshakes_leave_nothing)
{
    char hello[2048];
    int pair[2], first;
    struct err e = {0};
    start_ring();
    struct tls_server *s = server(R_SMTPD);
    pid_t pid = start_client(&(struct act){.refused = true}, &first);
    ssize_t n = 0;
    while (n < 5 || n < 5 + ((unsigned char)hello[3] << 8 | (unsigned char)hello[4])) {
        ssize_t got = read(first, hello + n, sizeof hello - (size_t)n);
        ck_assert_int_gt(got, 0);
        n += got;
    }
    close(first);
    client_was_content(pid);
    int before = dup(0);
    close(before);
    for (size_t k = 0; k <= (size_t)n; k++) {
        struct stream io;
        struct tls *tls = NULL;
        ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
        ck_assert_int_eq(write(pair[1], hello, k), (ssize_t)k);
        close(pair[1]);
        stream_init(&io, pair[0], pair[0], 4096, 1000);
        ck_assert_int_eq(tls_server_accept(s, &io, &tls, &e), -1);
        stream_free(&io);
        close(pair[0]);
    }
    int after = dup(0);
    ck_assert_int_eq(before, after);
    close(after);
    tls_server_free(s);
    keyring_stop(&ring);
}
END_TEST

struct resumption {
    SSL_SESSION *session;
};

static int
keep_session(SSL *ssl, SSL_SESSION *session)
{
    struct resumption *r = SSL_get_app_data(ssl);
    SSL_SESSION_free(r->session);
    r->session = session;
    return 1;
}

/* Two connections, the second with the first one's ticket: whether it was resumed. */
static int
resume_client(const int *fds)
{
    struct resumption r = {0};
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(ctx, keep_session);
    int resumed = 0;
    for (int i = 0; i < 2; i++) {
        char byte;
        SSL *ssl = SSL_new(ctx);
        SSL_set_app_data(ssl, &r);
        SSL_set_fd(ssl, fds[i]);
        if (r.session)
            SSL_set_session(ssl, r.session);
        if (SSL_connect(ssl) != 1 || SSL_read(ssl, &byte, 1) != 1)
            return 100;
        resumed = SSL_session_reused(ssl);
        SSL_shutdown(ssl);
    }
    return resumed;
}

static int64_t renew_at_ms;
static void (*before_resumption)(struct tls_server *s);

static void
renew_smtp(struct tls_server *s)
{
    tls_server_renew_tickets(s, renew_at_ms);
}

static int
try_to_resume(struct tls_server *a, struct tls_server *b)
{
    int one[2], two[2], status;
    struct err e = {0};
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, one), 0);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, two), 0);
    pid_t pid = fork();
    if (pid == 0)
        _exit(resume_client((const int[]){one[1], two[1]}));
    close(one[1]);
    close(two[1]);
    for (int i = 0; i < 2; i++) {
        struct stream io;
        struct tls *tls = NULL;
        int fd = i ? two[0] : one[0];
        if (i && before_resumption)
            before_resumption(b);
        stream_init(&io, fd, fd, 4096, 5000);
        ck_assert_msg(tls_server_accept(i ? b : a, &io, &tls, &e) == 0, "%s", e.text);
        stream_putz(&io, "x");
        ck_assert_int_eq(stream_flush(&io, &e), 0);
        tls_close(tls, &io);
        stream_free(&io);
        close(fd);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 100;
}

/* Catalogue B7. */
START_TEST(tickets_are_good_for_one_service_only)
{
    start_ring();
    struct tls_server *smtp = server(R_SMTPD), *imap = server(R_IMAPD);
    ck_assert_int_eq(try_to_resume(smtp, smtp), 1);
    ck_assert_int_eq(try_to_resume(smtp, imap), 0);
    tls_server_renew_tickets(smtp, 1000);
    ck_assert_int_eq(try_to_resume(smtp, smtp), 1);
    before_resumption = renew_smtp;
    renew_at_ms = 1000 + TICKET_KEYS_MS - 1;
    ck_assert_int_eq(try_to_resume(smtp, smtp), 1);
    renew_at_ms = 1000 + TICKET_KEYS_MS;
    ck_assert_int_eq(try_to_resume(smtp, smtp), 0);
    before_resumption = NULL;
    tls_server_free(smtp);
    tls_server_free(imap);
    keyring_stop(&ring);
}
END_TEST

START_TEST(our_client_talks_to_our_server)
{
    struct stream io;
    struct tls *tls = NULL;
    struct err e = {0};
    struct str line;
    bool bare;
    int pair[2];
    start_ring();
    struct tls_server *s = server(R_SMTPD);
    struct tls_client *c = tls_client_new(&e);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    pid_t pid = fork();
    stream_init(&io, pair[pid == 0], pair[pid == 0], 4096, 5000);
    close(pair[pid != 0]);
    if (pid == 0) {
        if (tls_connect(c, &io, "ec.second.example", &tls, &e) < 0)
            _exit(1);
        stream_putz(&io, "from the client\r\n");
        if (stream_line(&io, 100, &line, &bare, &e) < 0)
            _exit(2);
        tls_close(tls, &io);
        _exit(str_eq(line, STR("from the server")) ? 0 : 3);
    }
    ck_assert_msg(tls_server_accept(s, &io, &tls, &e) == 0, "%s", e.text);
    ck_assert_int_eq(stream_line(&io, 100, &line, &bare, &e), 0);
    ck_str(line, "from the client");
    stream_putz(&io, "from the server\r\n");
    ck_assert_int_eq(stream_flush(&io, &e), 0);
    client_was_content(pid);
    tls_close(tls, &io);
    stream_free(&io);
    close(pair[0]);
    tls_client_free(c);
    tls_server_free(s);
    keyring_stop(&ring);
}
END_TEST

Suite *suite_tls(void);
Suite *
suite_tls(void)
{
    Suite *s = suite_create("tls");
    TCase *t = tcase_create("tls");
    tcase_set_timeout(t, 300);
    tcase_add_test(t, keys_elsewhere_sign_in_every_way);
    tcase_add_test(t, a_cut_is_not_an_end);
    tcase_add_test(t, old_versions_and_foreign_protocols_are_refused);
    tcase_add_test(t, buffered_input_ends_the_handshake);
    tcase_add_test(t, a_silent_client_is_cut);
    tcase_add_test(t, without_keyd_the_handshake_fails_and_says_why);
    tcase_add_test(t, aborted_handshakes_leave_nothing);
    tcase_add_test(t, tickets_are_good_for_one_service_only);
    tcase_add_test(t, our_client_talks_to_our_server);
    suite_add_tcase(s, t);
    return s;
}
