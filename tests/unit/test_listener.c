/* listener: as many sessions as may be, and one more; who leaves for whom, and where that ends. */
#include "lib/guard/guard.h"
#include "lib/loop/giveway.h"
#include "lib/loop/listener.h"
#include "lib/role/sockets.h"
#include "tests/unit/temp.h"
#include "tests/unit/unit.h"
#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

enum { LEAVING_MAX = 256, CROWD = LEAVING_MAX + 5 * GIVEWAY_CROWD };
static const char busy[] = "421 busy\r\n";

static struct {
    pid_t pid;
    uint16_t port;
    bool obedient; /* sessions that are told to leave do */
    char *dir;     /* of a socket for local users, too */
} the;

static void
go_on(int signo)
{
    (void)signo;
}

/* It greets, and stays until its client leaves, whoever tells it to go. */
static void
session(const struct peer *peer, void *arg)
{
    char c = 0;
    (void)arg;
    (void)!write(peer->fd_out, "h", 1);
    while (read(peer->fd_in, &c, 1) > 0 || errno == EINTR)
        if (c == 's' || c == 'u') {
            (c == 's' ? listener_settled : listener_unsettled)();
            c = 0;
            (void)!write(peer->fd_out, "!", 1);
        }
}

static void
serve(unsigned sessions_max, unsigned per_ip_max, bool give_way)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof in;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    in.sin_addr.s_addr = INADDR_ANY;
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&in, sizeof in), 0);
    ck_assert_int_eq(listen(fd, 1000), 0);
    ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&in, &n), 0);
    the.port = ntohs(in.sin_port);
    the.pid = fork();
    if (the.pid == 0) {
        static struct start st = {.role = R_SMTPD};
        struct listener l = {.start = &st,
                             .sessions_max = sessions_max,
                             .sessions_per_ip_max = per_ip_max,
                             .busy_line = busy,
                             .give_way = give_way,
                             .session = session};
        start_add_fd(&st, fd, "listen.smtp.0");
        if (the.dir)
            start_add_fd(&st, sockets_unix(the.dir, "submit", SOCK_STREAM, 0666, NULL), "submit");
        /* Of sessions: the listener itself reads its signals. The test library's handler would end
         * the tests. */
        signal(SIGTERM, the.obedient ? SIG_DFL : go_on);
        guard_enter(&(struct guard){.role = R_SMTPD, .root_fd = -1});
        listener_serve(&l);
        _exit(0);
    }
    close(fd);
}

static void
setup(void)
{
    temp_quiet();
    the.obedient = false;
    the.dir = NULL;
}

static void
teardown(void)
{
    int status;
    kill(the.pid, SIGTERM);
    ck_assert_int_eq(waitpid(the.pid, &status, 0), the.pid);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "listener: status %d", status);
}

/* From 127.A.B.C: what is greeted with is 'h', or the busy line and the end. */
static int
call(uint32_t from, bool *taken_r)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(from)};
    char said[sizeof busy + 1] = "";
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&in, sizeof in), 0);
    in = (struct sockaddr_in){.sin_family = AF_INET,
                              .sin_port = htons(the.port),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&in, sizeof in), 0);
    ck_assert_int_eq(recv(fd, said, 1, 0), 1);
    *taken_r = said[0] == 'h';
    if (*taken_r)
        return fd;
    ck_assert_int_eq(recv(fd, said + 1, sizeof busy - 2, MSG_WAITALL), sizeof busy - 2);
    ck_assert_str_eq(said, busy);
    ck_assert_int_eq(recv(fd, said, 1, 0), 0);
    close(fd);
    return -1;
}

static uint32_t
address(unsigned network, unsigned host)
{
    return 127u << 24 | network << 8 | host;
}

static int
taken(unsigned network, unsigned host)
{
    bool yes;
    int fd = call(address(network, host), &yes);
    ck_assert_msg(yes, "%u.%u was refused", network, host);
    return fd;
}

static bool
refused(unsigned network, unsigned host)
{
    bool yes;
    int fd = call(address(network, host), &yes);
    if (yes)
        close(fd);
    return !yes;
}

/* The place of one that has left is there again, when its process has ended. */
static int
taken_soon(unsigned network, unsigned host)
{
    bool yes = false;
    int fd = -1;
    for (int i = 0; !yes && i < 6000; i++) {
        fd = call(address(network, host), &yes);
        if (!yes)
            usleep(10000);
    }
    ck_assert(yes);
    return fd;
}

START_TEST(sessions_at_their_ceiling)
{
    enum { MAX = 30 };
    int fds[MAX];
    char c;
    serve(MAX, MAX, false);
    for (unsigned i = 0; i < MAX; i++)
        fds[i] = taken(i, 1);
    ck_assert(refused(100, 1));
    ck_assert(refused(0, 1));
    for (unsigned i = 0; i < MAX; i++) /* the others notice nothing */
        ck_assert(recv(fds[i], &c, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN);
    close(fds[7]);
    fds[7] = taken_soon(100, 1);
    ck_assert(refused(101, 1));
}
END_TEST

START_TEST(sessions_of_an_address_at_their_ceiling)
{
    enum { MAX = 5 };
    int fds[MAX];
    serve(30, MAX, false);
    for (unsigned i = 0; i < MAX; i++)
        fds[i] = taken(1, 1);
    ck_assert(refused(1, 1));
    close(taken(1, 2)); /* its neighbour is somebody else */
    close(fds[0]);
    close(taken_soon(1, 1));
}
END_TEST

/* So many that were told to leave may stay for a while; with more of them nobody else is let in,
 * until some have gone. */
START_TEST(leaving_at_its_ceiling)
{
    static int crowd[CROWD], fds[LEAVING_MAX];
    serve(CROWD, CROWD, true);
    for (unsigned i = 0; i < CROWD; i++)
        crowd[i] = taken(0, 1 + i % 250);
    /* Networks that share a counter with another (giveway.c) are few, and may be refused. */
    unsigned n = 0, network = 1;
    for (; n < LEAVING_MAX && network < LEAVING_MAX + 20; network++) {
        bool yes;
        int fd = call(address(network, 1), &yes);
        if (yes)
            fds[n++] = fd;
    }
    ck_assert_uint_eq(n, LEAVING_MAX);
    for (unsigned i = 0; i < 20; i++)
        ck_assert(refused(network + i, 1));
    for (unsigned i = 0; i < CROWD; i++)
        close(crowd[i]);
    (void)taken_soon(1000, 1);
    for (unsigned i = 0; i < LEAVING_MAX; i++) { /* those who were let in were not told */
        char c;
        ck_assert(recv(fds[i], &c, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN);
    }
}
END_TEST

static void
have_it_say(int fd, const char *what)
{
    char c;
    ck_assert_int_eq(send(fd, what, 1, 0), 1);
    ck_assert_int_eq(recv(fd, &c, 1, 0), 1);
}

/* Who has logged in stays, until it says that it is through. */
START_TEST(settled_and_no_longer)
{
    enum { MAX = 3 };
    int fds[MAX];
    char c;
    the.obedient = true;
    serve(MAX, MAX, true);
    for (unsigned i = 0; i < MAX; i++)
        have_it_say(fds[i] = taken(i, 1), "s");
    usleep((GIVEWAY_MS + 500) * 1000);
    ck_assert(refused(100, 1));
    have_it_say(fds[1], "u");
    close(taken_soon(101, 1));
    ck_assert_int_eq(recv(fds[1], &c, 1, 0), 0);
    ck_assert(recv(fds[0], &c, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN);
    ck_assert(recv(fds[2], &c, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN);
}
END_TEST

/* What a local user is greeted with; 0: nothing yet. */
static char
greeted_locally(void)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    char c = 0;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(sun.sun_path, sizeof sun.sun_path, "%s/submit", the.dir);
    for (int i = 0; connect(fd, (struct sockaddr *)&sun, sizeof sun) < 0 && i < 1000; i++)
        usleep(10000);
    ck_assert_int_eq(recv(fd, &c, 1, 0), 1);
    close(fd);
    return c;
}

/* Strangers who hold all places keep no local user from sending. */
START_TEST(strangers_leave_for_a_local_user)
{
    enum { MAX = 6 };
    the.obedient = true;
    the.dir = temp_dir();
    serve(MAX, MAX, true);
    ck_assert_int_eq(greeted_locally(), 'h');
    usleep(200000);
    for (unsigned i = 0; i < MAX; i++)
        (void)taken(1, 1 + i);
    ck_assert_int_eq(greeted_locally(), 'h');
    temp_remove(the.dir);
}
END_TEST

START_TEST(nobody_leaves_for_one_who_is_refused)
{
    enum { EACH = 5 };
    int neighbours[EACH];
    char c;
    the.obedient = true;
    serve(2 * EACH, EACH, true);
    for (unsigned i = 0; i < EACH; i++)
        neighbours[i] = taken(1, 2);
    for (unsigned i = 0; i < EACH; i++)
        (void)taken(1, 1);
    usleep((GIVEWAY_MS + 500) * 1000);
    ck_assert(refused(1, 1)); /* all places are taken, and it has all that it may have */
    ck_assert(refused(1, 1));
    usleep(100000);
    for (unsigned i = 0; i < EACH; i++)
        ck_assert(recv(neighbours[i], &c, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN);
    (void)taken(1, 3); /* who may have a place gets one */
}
END_TEST

Suite *suite_listener(void);
Suite *
suite_listener(void)
{
    Suite *s = suite_create("listener");
    TCase *t = tcase_create("listener");
    tcase_set_timeout(t, 300);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, sessions_at_their_ceiling);
    tcase_add_test(t, sessions_of_an_address_at_their_ceiling);
    tcase_add_test(t, leaving_at_its_ceiling);
    tcase_add_test(t, strangers_leave_for_a_local_user);
    tcase_add_test(t, settled_and_no_longer);
    tcase_add_test(t, nobody_leaves_for_one_who_is_refused);
    suite_add_tcase(s, t);
    return s;
}
