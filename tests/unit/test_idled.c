/* idled: as many sessions as may be parked, as many as may be woken at once, and one more. */
#include "imapd/idled/idled.h"
#include "lib/guard/guard.h"
#include "lib/ipc/channel.h"
#include "tests/unit/keyring.h"
#include "tests/unit/temp.h"
#include "tests/unit/unit.h"
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

enum { WAKING_MAX = 50 };
static struct start cell, idled, authd;
static pid_t pid;
static int watch[2]; /* of the mailboxes: nothing ever moves there */

static void
setup(void)
{
    struct rlimit files;
    temp_quiet();
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &files), 0);
    files.rlim_cur = files.rlim_max;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &files), 0);
    cell = (struct start){.role = R_IMAPD};
    idled = (struct start){.role = R_IDLED};
    authd = (struct start){.role = R_AUTHD};
    keyring_door(&cell, &idled, R_IMAPD, R_IDLED);
    keyring_door(&idled, &authd, R_IDLED, R_AUTHD);
    ck_assert_int_eq(pipe(watch), 0);
    pid = fork();
    if (pid == 0) {
        close(start_door(&cell, R_IDLED));
        close(authd.fds[0].fd);
        close(watch[1]);
        /* Its calls are not nested deeper for more sessions. */
        setrlimit(RLIMIT_STACK, &(struct rlimit){512 << 10, 512 << 10});
        guard_enter(
            &(struct guard){.role = R_IDLED, .root_fd = -1}); /* within its memory and files */
        idled_serve(&idled);
        _exit(0);
    }
}

static void
teardown(void)
{
    int status;
    kill(pid, SIGTERM);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "idled: status %d", status);
}

static int
channel(void)
{
    struct err e = {0};
    int fd = start_channel(&cell, R_IDLED, NULL, &e);
    ck_assert_msg(fd >= 0, "%s", e.text);
    return fd;
}

/* 1: parked; 0: the channel was closed. */
static int
park_whole(int fd, int client, int mailbox, struct str token)
{
    struct msg m = {0};
    struct err e = {0};
    msg_begin(&m, M_PARK);
    msg_put_str(&m, token);
    msg_put_str(&m, STR("state"));
    msg_put_str(&m, STR("user"));
    msg_put_u64(&m, (uint64_t)now_ms() + 3600000);
    msg_add_fd(&m, client);
    msg_add_fd(&m, mailbox);
    ck_assert_int_eq(chan_send(fd, &m, 10000, &e), 0);
    int got = chan_recv(fd, &m, R_IDLED, R_IMAPD, 60000, &e);
    ck_assert_msg(got == 0 || (got == 1 && m.type == M_PARKED), "%s", e.text);
    msg_free(&m);
    return got;
}

static int
park(int fd, int client, const char *token)
{
    return park_whole(fd, client, watch[0], str_z(token));
}

/* As soon as there is a place. */
static void
park_at_last(int client, struct str token)
{
    int fd = channel();
    for (int i = 0; park_whole(fd, client, watch[0], token) == 0; i++) {
        ck_assert_int_lt(i, 1000);
        usleep(10000);
        close(fd);
        fd = channel();
    }
    close(fd);
}

/* Of as many accounts as it takes. */
static int
park_nth(int fd, int client, int i)
{
    char token[40];
    snprintf(token, sizeof token, "%d", i / 100);
    return park(fd, client, token);
}

/* A client's connection: its own end. */
static int
client(int *server_r)
{
    int pair[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    *server_r = pair[1];
    return pair[0];
}

static bool
is_open(int fd)
{
    char c;
    return recv(fd, &c, 1, MSG_DONTWAIT) < 0;
}

/* The one beyond is not taken, its session stays where it was, and those parked notice nothing; in
 * the place of one that leaves there is room. */
START_TEST(parked_at_its_ceiling)
{
    int crowd, alone, beyond, ends[3], fd = channel();
    ends[0] = client(&crowd);
    ends[1] = client(&alone);
    ends[2] = client(&beyond);
    for (int i = 0; i < PARKED_MAX - 1; i++)
        ck_assert_int_eq(park_nth(fd, crowd, i), 1);
    ck_assert_int_eq(park(fd, alone, "token"), 1);
    ck_assert_int_eq(park(fd, beyond, "token"), 0);
    close(fd);
    close(alone);
    ck_assert(is_open(ends[0]) && is_open(ends[1]) && is_open(ends[2]));
    fd = channel();
    close(ends[1]); /* this client leaves */
    for (int i = 0; park(fd, beyond, "token") == 0; i++) {
        ck_assert_int_lt(i, 1000);
        usleep(10000);
        close(fd);
        fd = channel();
    }
    close(fd);
    close(beyond);
    ck_assert(is_open(ends[2]));
    fd = channel();
    ck_assert_int_eq(park(fd, crowd, "token"), 0);
    close(fd);
    close(crowd);
    shutdown(ends[0], SHUT_RDWR); /* all of the crowd leave */
    park_at_last(watch[1], STR("token"));
}
END_TEST

/* Whose mailbox cannot be watched stays where it was, and hears so at once. */
START_TEST(what_cannot_be_watched)
{
    int server, end = client(&server), file = memfd_create("mailbox", MFD_CLOEXEC), fd = channel();
    ck_assert_int_eq(park_whole(fd, server, file, STR("token")), 0);
    close(fd);
    fd = channel();
    ck_assert_int_eq(park(fd, file, "token"), 0);
    ck_assert(is_open(end));
}
END_TEST

/* authd ends while all wake: one after the other is told, however many they are. */
START_TEST(all_fail_to_wake)
{
    int crowd, end = client(&crowd), fd = channel();
    char said[200] = "";
    for (int i = 0; i < PARKED_MAX; i++)
        ck_assert_int_eq(park_nth(fd, crowd, i), 1);
    ck_assert_int_eq(write(end, "DONE\r\n", 6), 6);
    ck_assert_int_eq(park(fd, crowd, "one that is too many"), 0); /* all have been looked at */
    close(crowd);
    close(authd.fds[0].fd);
    ck_assert_int_gt(recv(end, said, sizeof said - 1, 0), 0);
    ck_assert_ptr_nonnull(strstr(said, "* BYE"));
}
END_TEST

/* One account does not take the places of others. */
START_TEST(parked_of_one_account)
{
    static const char one[] = "one\0seal", other[] = "other\0seal";
    int crowd, alone, ends[2], fd = channel();
    ends[0] = client(&crowd);
    ends[1] = client(&alone);
    for (int i = 0; i < PARKED_USER_MAX; i++)
        ck_assert_int_eq(park_whole(fd, i ? crowd : alone, watch[0], str_of(one, 8)), 1);
    ck_assert_int_eq(park_whole(fd, crowd, watch[0], str_of("one\0fresh", 9)), 0);
    close(fd);
    close(alone);
    ck_assert(is_open(ends[0]));
    fd = channel();
    ck_assert_int_eq(park_whole(fd, crowd, watch[0], str_of(other, 10)), 1);
    close(ends[1]); /* this client leaves */
    close(fd);
    park_at_last(crowd, str_of(one, 8));
}
END_TEST

/* What authd is asked next: the channel, and whose token it is; -1: nothing within so many ms. */
static int
question(int ms, char *token_r, size_t size)
{
    struct msg m = {0};
    struct err e = {0};
    if (chan_recv(authd.fds[0].fd, &m, R_IDLED, R_AUTHD, ms, &e) != 1)
        return -1;
    ck_assert_int_eq(m.type, M_DOOR_OPEN);
    int fd = msg_take_fd(&m, 0);
    ck_assert_int_eq(chan_recv(fd, &m, R_IDLED, R_AUTHD, 60000, &e), 1);
    ck_assert_int_eq(m.type, M_RESUME);
    struct str token = msg_get_str(&m);
    snprintf(token_r, size, "%.*s", STR_ARG(token));
    (void)msg_take_fd(&m, 0); /* the cell's channel, which stays open */
    msg_free(&m);
    return fd;
}

static void
say_no(int fd)
{
    struct msg m = {0};
    struct err e = {0};
    msg_begin(&m, M_FAILED);
    msg_put_u32(&m, ERR_PERMANENT);
    msg_put_str(&m, STR("no"));
    ck_assert_int_eq(chan_send(fd, &m, 10000, &e), 0);
    msg_free(&m);
}

/* All move at once: so many are asked for, each of them once, and the others in their order as
 * these end. */
START_TEST(waking_at_its_ceiling)
{
    enum { N = WAKING_MAX + 3 };
    int ends[N], asked[N], fd = channel();
    bool seen[N] = {false};
    char token[40];
    for (int i = 0; i < N; i++) {
        int server;
        ends[i] = client(&server);
        snprintf(token, sizeof token, "%d", i);
        ck_assert_int_eq(park(fd, server, token), 1);
        close(server);
    }
    for (int i = 0; i < N; i++)
        ck_assert_int_eq(write(ends[i], "DONE\r\n", 6), 6);
    for (int i = 0; i < N; i++) {
        if (i >= WAKING_MAX) {
            ck_assert_int_eq(question(100, token, sizeof token), -1);
            say_no(asked[i - WAKING_MAX]);
        }
        asked[i] = question(60000, token, sizeof token);
        ck_assert_int_ge(asked[i], 0);
        int whose = atoi(token);
        ck_assert(whose >= 0 && whose < N && !seen[whose]);
        seen[whose] = true;
    }
    for (int i = N - WAKING_MAX; i < N; i++)
        say_no(asked[i]);
    for (int i = 0; i < N; i++) { /* each was told that it is over */
        char said[200] = "";
        ck_assert_int_gt(recv(ends[i], said, sizeof said - 1, MSG_WAITALL), 0);
        ck_assert_ptr_nonnull(strstr(said, "* BYE"));
    }
}
END_TEST

Suite *suite_idled(void);
Suite *
suite_idled(void)
{
    Suite *s = suite_create("idled");
    TCase *t = tcase_create("idled");
    tcase_set_timeout(t, 300);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, parked_at_its_ceiling);
    tcase_add_test(t, what_cannot_be_watched);
    tcase_add_test(t, all_fail_to_wake);
    tcase_add_test(t, parked_of_one_account);
    tcase_add_test(t, waking_at_its_ceiling);
    suite_add_tcase(s, t);
    return s;
}
