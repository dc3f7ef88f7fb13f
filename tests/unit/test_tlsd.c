/* tlsd's sessions and the fronts' way to them: requests that are none, handshakes that fail, and
 * bytes that must arrive before the end does. */
#include "lib/ipc/channel.h"
#include "lib/role/starttls.h"
#include "lib/tls/tls.h"
#include "tests/unit/keyring.h"
#include "tests/unit/unit.h"
#include "tlsd/heap.h"
#include "tlsd/proxy.h"
#include "tlsd/session.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static struct keyring ring;
static struct start front;
static struct conf conf;
static pid_t tlsd;

static void
setup(void)
{
    front = (struct start){.role = R_SMTPD};
    conf = (struct conf){.nkeys = 1, .keys = {{.fronts = R_ANY}}};
    keyring_start(&ring, R_TLSD, (const char *const[]){"ec.mail.example", NULL});
    tlsd = keyring_tlsd(&ring, &front);
}

static void
teardown(void)
{
    int status;
    close(start_door(&front, R_TLSD));
    ck_assert_int_eq(waitpid(tlsd, &status, 0), tlsd);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "tlsd: status %d", status);
    keyring_stop(&ring);
}

static unsigned late_s; /* before the client reads */

/* A client over TLS says something, reads until the end, and exits with 0 when it was want. */
static pid_t
client(int fd, const char *say, const char *want, bool cut)
{
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    struct err e = {0};
    struct tls_client *c = tls_client_new(&e);
    struct tls *tls = NULL;
    struct stream io;
    static char all[1 << 21];
    size_t n = 0;
    struct str data;
    close(start_door(&front, R_TLSD));
    stream_init(&io, fd, fd, 1 << 17, 60000);
    if (tls_connect(c, &io, "ec.mail.example", &tls, &e) < 0)
        _exit(1);
    stream_putz(&io, say);
    if (stream_flush(&io, &e) < 0)
        _exit(2);
    if (cut)
        _exit(0);
    sleep(late_s);
    while (stream_peek(&io, &data, &e) == 0) {
        if (n + data.n < sizeof all)
            memcpy(all + n, data.p, data.n);
        n += data.n;
        stream_take(&io, data.n);
    }
    all[n < sizeof all ? n : 0] = '\0';
    if (strcmp(e.text, "connection closed by peer") != 0) /* that is by close_notify */
        _exit(3);
    _exit(strcmp(all, want) == 0 ? 0 : 4);
}

static void
content(pid_t pid)
{
    int status;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "client: status %d", status);
}

static void
begin(int *client_fd, struct stream *io)
{
    int pair[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    *client_fd = pair[0];
    stream_init(io, pair[1], pair[1], 1 << 17, 60000);
}

/* The front reads what the client says, answers with so many bytes and closes at once: all of it
 * arrives. */
static void
serve_and_close(char *big, size_t n)
{
    struct stream io;
    struct err e = {0};
    struct str line;
    char text[STARTTLS_TEXT_MAX];
    bool bare;
    int fd;
    memset(big, 'x', n);
    big[n] = '\0';
    begin(&fd, &io);
    pid_t pid = client(fd, "hello\r\n", big, false);
    close(fd);
    ck_assert_msg(starttls(&front, &io, text, &e) == 0, "%s", e.text);
    ck_assert_int_eq(strncmp(text, "TLSv1.3 TLS_", 12), 0);
    ck_assert_int_eq(stream_line(&io, 100, &line, &bare, &e), 0);
    ck_str(line, "hello");
    stream_put(&io, str_of(big, n));
    ck_assert_int_eq(stream_flush(&io, &e), 0);
    close(io.fd_in);
    content(pid);
    stream_free(&io);
}

START_TEST(a_front_gets_the_bytes_in_clear)
{
    static char big[1000001];
    ck_assert(starttls_possible(&front, &conf));
    serve_and_close(big, sizeof big - 1);
}
END_TEST

/* It has read nothing yet when the server has ended, and its socket does not hold all. */
START_TEST(a_client_that_takes_its_time)
{
    static char big[400001];
    late_s = TLSD_LAST_MS / 1000 + 1;
    serve_and_close(big, sizeof big - 1);
}
END_TEST

/* A client that has heard all and goes on talking: how much of it was taken, up to want. */
static size_t
talked_on(size_t want)
{
    static char junk[65536];
    struct stream io;
    struct err e = {0};
    struct str line;
    char text[STARTTLS_TEXT_MAX], c;
    bool bare;
    int fd;
    size_t sent = 0;
    ssize_t n = 1;
    begin(&fd, &io);
    pid_t pid = client(fd, "hello\r\n", "bye\r\n", false);
    ck_assert_int_eq(starttls(&front, &io, text, &e), 0);
    ck_assert_int_eq(stream_line(&io, 100, &line, &bare, &e), 0);
    stream_putz(&io, "bye\r\n");
    ck_assert_int_eq(stream_flush(&io, &e), 0);
    close(io.fd_in);
    stream_free(&io);
    content(pid); /* this end of its socket is still open */
    ck_assert_int_eq(fcntl(fd, F_SETFL, 0), 0);
    while (n > 0 && sent < want) {
        n = send(fd, junk, want - sent < sizeof junk ? want - sent : sizeof junk, MSG_NOSIGNAL);
        sent += n > 0 ? (size_t)n : 0;
    }
    shutdown(fd, SHUT_WR);
    ck_assert_int_le(recv(fd, &c, 1, 0), 0);
    close(fd);
    return sent;
}

/* So much is read and dropped, that the last words to it arrive; then it is cut off. */
START_TEST(last_words_at_their_ceiling)
{
    int tries = 5; /* there is a limit in time, too, which a slow machine may meet first */
    while (talked_on(TLSD_LAST_MAX) < TLSD_LAST_MAX)
        ck_assert_int_gt(--tries, 0);
    ck_assert_uint_lt(talked_on((size_t)8 * TLSD_LAST_MAX), (size_t)8 * TLSD_LAST_MAX);
}
END_TEST

START_TEST(a_cut_client_is_an_end)
{
    struct stream io;
    struct err e = {0};
    struct str line;
    char text[STARTTLS_TEXT_MAX];
    bool bare;
    int fd;
    begin(&fd, &io);
    pid_t pid = client(fd, "hello\r\nhalf", "", true);
    close(fd);
    ck_assert_int_eq(starttls(&front, &io, text, &e), 0);
    ck_assert_int_eq(stream_line(&io, 100, &line, &bare, &e), 0);
    ck_assert_int_eq(stream_line(&io, 100, &line, &bare, &e), -1);
    ck_assert_int_eq(e.class, ERR_CLOSED);
    close(io.fd_in);
    content(pid);
    stream_free(&io);
}
END_TEST

START_TEST(a_handshake_that_fails_says_why)
{
    struct stream io;
    struct err e = {0};
    char text[STARTTLS_TEXT_MAX];
    int fd;
    begin(&fd, &io);
    ck_assert_int_eq(write(fd, "GET / HTTP/1.0\r\n\r\n", 18), 18);
    ck_assert_int_eq(starttls(&front, &io, text, &e), -1);
    ck_assert_msg(strstr(e.text, "TLS handshake: ") != NULL, "%s", e.text);
    ck_assert(io.broken);
    ck_assert_int_eq(io.fd_in, -1);
    close(fd);
    stream_free(&io);
}
END_TEST

/* Catalogue B1, B3. */
START_TEST(what_was_said_in_clear_ends_it)
{
    struct stream io;
    struct err e = {0};
    struct str line;
    char text[STARTTLS_TEXT_MAX];
    bool bare;
    int fd;
    begin(&fd, &io);
    ck_assert_int_eq(write(fd, "STARTTLS\r\nRSET\r\n", 16), 16);
    ck_assert_int_eq(stream_line(&io, 100, &line, &bare, &e), 0);
    ck_assert_int_eq(starttls(&front, &io, text, &e), -1);
    ck_assert_int_eq(e.class, ERR_PROTOCOL);
    close(fd);
    stream_free(&io);
}
END_TEST

START_TEST(without_tlsd_or_keys_there_is_no_tls)
{
    struct start none = {.role = R_SMTPD};
    struct conf bare_conf = {0};
    struct stream io;
    struct err e = {0};
    char text[STARTTLS_TEXT_MAX];
    int fd;
    ck_assert(!starttls_possible(&none, &conf));
    ck_assert(!starttls_possible(&front, &bare_conf));
    begin(&fd, &io);
    ck_assert_int_eq(starttls(&none, &io, text, &e), -1);
    ck_assert_int_eq(e.class, ERR_TEMPORARY);
    close(fd);
    stream_free(&io);
}
END_TEST

/* Catalogue E9: a channel that says something else is closed, and the next is served. */
START_TEST(requests_that_are_none_close_their_channel)
{
    struct err e = {0};
    struct msg m = {0};
    for (int i = 0; i < 3; i++) {
        int channel = start_channel(&front, R_TLSD, NULL, &e);
        ck_assert_msg(channel >= 0, "%d: %s", i, e.text);
        if (i == 0) {
            ck_assert_int_eq(send(channel, "garbage", 7, 0), 7);
        } else if (i == 1) {
            msg_begin(&m, M_TLS_START); /* with one descriptor too few */
            msg_add_fd(&m, channel);
            (void)msg_send(channel, &m);
        } else {
            msg_begin(&m, M_TLS_START);
            msg_put_u32(&m, 1);
            msg_add_fd(&m, channel);
            msg_add_fd(&m, channel);
            (void)msg_send(channel, &m);
        }
        shutdown(channel, SHUT_WR);
        ck_assert_int_eq(chan_recv(channel, &m, R_TLSD, R_SMTPD, 10000, &e), 0);
        close(channel);
    }
    msg_free(&m);
}
END_TEST

START_TEST(a_front_has_as_many_sessions_here_as_it_has_itself)
{
    struct tlsd d = {.conf.smtpd.sessions_max = 7, .conf.imapd.sessions_max = 9};
    ck_assert_uint_eq(tlsd_door_max(&d, R_SMTPD), 7);
    ck_assert_uint_eq(tlsd_door_max(&d, R_IMAPD), 9);
    ck_assert_uint_eq(tlsd_door_max(&d, R_RELAY), 0);
}
END_TEST

static ssize_t
takes_nothing(void *self, const char *from, size_t n, short *wait_r)
{
    (void)self, (void)from, (void)n;
    *wait_r = POLLOUT;
    errno = EAGAIN;
    return -1;
}

static ssize_t
says_nothing(void *self, char *to, size_t n, short *wait_r)
{
    (void)self, (void)to, (void)n;
    *wait_r = POLLIN;
    errno = EAGAIN;
    return -1;
}

/* The server has ended, or ends while we wait; a client that takes nothing does not stay for it. */
START_TEST(a_client_that_takes_nothing)
{
    char junk[4096] = "";
    int client[2], clear[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, client), 0);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, clear), 0);
    while (send(client[0], junk, sizeof junk, MSG_DONTWAIT) > 0)
        ;
    ck_assert_int_eq(send(clear[1], "bye", 3, 0), 3);
    if (_i == 0) {
        close(clear[1]);
    } else if (fork() == 0) {
        close(clear[0]);
        usleep(500000);
        _exit(0);
    }
    if (_i)
        close(clear[1]);
    struct stream io = {.fd_in = client[0],
                        .fd_out = client[0],
                        .under = {.read = says_nothing, .write = takes_nothing}};
    int64_t began = now_ms();
    ck_assert(!proxy_run(&io, clear[0], 60000, 200));
    ck_assert_int_lt(now_ms() - began, 30000);
    ck_assert_int_ge(now_ms() - began, _i ? 600 : 200);
    close(clear[0]);
    close(client[0]);
    close(client[1]);
    if (_i)
        wait(NULL);
}
END_TEST

/* Blocks of every size are whole, aligned, and used again. */
START_TEST(blocks_of_all_sizes)
{
    heap_prepare();
    for (size_t n = 1; n <= HEAP_BLOCK_MAX + 1; n += n < 2000 ? 1 : 509) {
        char *p = heap_take(n, "x.c", 1), *q = heap_take(n, "x.c", 1);
        ck_assert(p && q && (uintptr_t)p % 16 == 0 && (uintptr_t)q % 16 == 0);
        memset(p, 'p', n);
        memset(q, 'q', n);
        ck_assert(p[0] == 'p' && p[n - 1] == 'p');
        heap_give(p, "x.c", 1);
        if (n <= HEAP_BLOCK_MAX)
            ck_assert_ptr_eq(heap_take(n, "x.c", 1), p);
        char *longer = heap_resize(q, 2 * n, "x.c", 1);
        ck_assert(longer && longer[0] == 'q' && longer[n - 1] == 'q');
        heap_give(longer, "x.c", 1);
    }
    ck_assert_ptr_null(heap_take(0, "x.c", 1));
    heap_give(NULL, "x.c", 1);
    ck_assert_ptr_null(heap_resize(heap_resize(NULL, 10, "x.c", 1), 0, "x.c", 1));
}
END_TEST

/* A session takes nothing that the listener has or has freed, and leaves it as it is. */
START_TEST(a_session_has_memory_of_its_own)
{
    heap_prepare();
    char *old = heap_take(500, "x.c", 1), *freed = heap_take(500, "x.c", 1);
    char *lock = heap_take(56, "crypto/threads_pthread.c", 1);
    memset(old, 'o', 500);
    heap_give(freed, "x.c", 1);
    heap_session();
    char *first = heap_take(500, "x.c", 1);
    ck_assert_ptr_ne(first, freed);
    ck_assert(first > lock && lock > old);
    for (size_t i = 0; i < 500; i++)
        ck_assert_int_eq(first[i], 0);
    heap_give(old, "x.c", 1);
    ck_assert(old[0] == 'o' && old[499] == 'o');
    char *large = heap_take(40000, "x.c", 1);
    memset(large, 'l', 40000);
    heap_give(large, "x.c", 1);
    heap_rest();
    ck_assert_ptr_eq(heap_take(40000, "x.c", 1), large);
    ck_assert_int_eq(large[20000], 0);
    /* And when its part is full, there is malloc(). */
    static void *taken[2 * HEAP_NEW / HEAP_BLOCK_MAX];
    for (size_t i = 0; i < sizeof taken / sizeof taken[0]; i++) {
        taken[i] = heap_take(HEAP_BLOCK_MAX, "x.c", 1);
        ck_assert_ptr_nonnull(taken[i]);
    }
    for (size_t i = 0; i < sizeof taken / sizeof taken[0]; i++)
        heap_give(taken[i], "x.c", 1);
}
END_TEST

Suite *suite_tlsd(void);
Suite *
suite_tlsd(void)
{
    Suite *s = suite_create("tlsd");
    TCase *t = tcase_create("tlsd");
    tcase_set_timeout(t, 300);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, a_front_gets_the_bytes_in_clear);
    tcase_add_test(t, a_client_that_takes_its_time);
    tcase_add_test(t, last_words_at_their_ceiling);
    tcase_add_test(t, a_cut_client_is_an_end);
    tcase_add_test(t, a_handshake_that_fails_says_why);
    tcase_add_test(t, what_was_said_in_clear_ends_it);
    tcase_add_test(t, without_tlsd_or_keys_there_is_no_tls);
    tcase_add_test(t, requests_that_are_none_close_their_channel);
    tcase_add_test(t, a_front_has_as_many_sessions_here_as_it_has_itself);
    suite_add_tcase(s, t);
    TCase *p = tcase_create("proxy");
    tcase_set_timeout(p, 100);
    tcase_add_loop_test(p, a_client_that_takes_nothing, 0, 2);
    suite_add_tcase(s, p);
    TCase *h = tcase_create("heap");
    tcase_add_test(h, blocks_of_all_sizes);
    tcase_add_test(h, a_session_has_memory_of_its_own);
    suite_add_tcase(s, h);
    return s;
}
