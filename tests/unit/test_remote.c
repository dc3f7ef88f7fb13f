/* remote: a question with a descriptor, asked again when the service was restarted in between. */
#include "lib/ipc/remote.h"
#include "tests/unit/unit.h"
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* Take a channel from the door. */
static int
accept_channel(int door)
{
    struct msg m = {0};
    struct err e;
    ck_assert_int_eq(chan_recv(door, &m, R_LOCAL, R_AUTHD, 5000, &e), 1);
    int fd = msg_take_fd(&m, 0);
    msg_free(&m);
    return fd;
}

/* In a child: take a channel, and answer one CELL on it if it brings its descriptor. */
static pid_t
serve_one(int door)
{
    pid_t pid = fork();
    if (pid)
        return pid;
    struct msg m = {0};
    struct err e;
    int fd = accept_channel(door);
    int ok = chan_recv(fd, &m, R_LOCAL, R_AUTHD, 5000, &e);
    if (ok == 1 && m.type == M_CELL && m.nfds == 1) {
        msg_begin(&m, M_GRANTED);
        msg_put_str(&m, STR("bob"));
        msg_send(fd, &m);
    }
    _exit(0);
}

START_TEST(a_descriptor_is_sent_again)
{
    static struct start st = {.role = R_LOCAL};
    struct remote r;
    struct msg m = {0};
    struct err e = {0};
    int door[2], status;
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, door), 0);
    start_add_fd(&st, door[0], "to.authd");
    remote_init(&r, &st, R_LOCAL, R_AUTHD);
    r.fd = start_channel(&st, R_AUTHD, NULL, &e);
    close(accept_channel(door[1])); /* and that service has gone */
    pid_t pid = serve_one(door[1]);
    msg_begin(&m, M_CELL);
    msg_put_str(&m, STR("bob"));
    msg_add_fd(&m, 0);
    ck_assert_msg(remote_ask(&r, &m, M_GRANTED, 5000, &e) == 0, "%s", e.text);
    waitpid(pid, &status, 0);
    msg_free(&m);
    ck_assert_int_ge(fcntl(0, F_GETFD), 0); /* lent: still ours */
    remote_close(&r);
    close(door[0]);
    close(door[1]);
}
END_TEST

Suite *suite_remote(void);
Suite *
suite_remote(void)
{
    Suite *s = suite_create("remote");
    TCase *c = tcase_create("restart");
    tcase_add_test(c, a_descriptor_is_sent_again);
    suite_add_tcase(s, c);
    return s;
}
