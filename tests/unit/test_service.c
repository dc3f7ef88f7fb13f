/* service: doors and paths in an event loop, and peers that break the rules. */
#include "lib/ipc/channel.h"
#include "lib/ipc/service.h"
#include "tests/unit/temp.h"
#include "tests/unit/unit.h"
#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>

enum { CLIENTS = 8 };
static struct loop l;
static struct service service;
static struct start st;
static int door; /* the clients' end */
static size_t messages, gone;

static void
on_message(struct client *c, struct msg *m)
{
    struct msg out = {0};
    (void)msg_get_str(m);
    messages++;
    if (!msg_end(m)) {
        service_close(c);
        return;
    }
    msg_begin(&out, M_ADDRESS_IS);
    msg_put_u32(&out, 0);
    msg_put_str(&out, STR(""));
    service_send(c, &out);
    msg_free(&out);
}

static void
on_gone(struct client *c)
{
    (void)c;
    gone++;
}

static void
stop(struct loop_timer *t)
{
    (void)t;
    l.stop = true;
}

static void
turn(void)
{
    struct loop_timer end = {.fire = stop};
    l.stop = false;
    loop_timer_set(&l, &end, now_ms() + 10);
    loop_run(&l);
}

static void
setup(void)
{
    int pair[2];
    temp_quiet();
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    door = pair[0];
    st.role = R_AUTHD;
    start_add_fd(&st, pair[1], "from.smtpd");
    start_add_fd(&st, door, "to.authd");
    service = (struct service){.clients_max = CLIENTS, .message = on_message, .gone = on_gone};
    ck_assert_int_eq(loop_init(&l, NULL), 0);
    ck_assert_int_eq(service_init(&service, &l, &st), 0);
}

static int
ask(int fd)
{
    struct msg m = {0};
    struct err e;
    msg_begin(&m, M_ADDRESS);
    msg_put_str(&m, STR("a@b"));
    ck_assert_int_eq(msg_send(fd, &m), 0);
    turn();
    int n = chan_recv(fd, &m, R_AUTHD, R_SMTPD, 0, &e);
    msg_free(&m);
    return n;
}

static int
channel(void)
{
    struct err e;
    int fd = start_channel(&st, R_AUTHD, NULL, &e);
    ck_assert_int_ge(fd, 0);
    turn();
    return fd;
}

START_TEST(a_channel_through_the_door)
{
    size_t before = temp_fds();
    int fd = channel();
    ck_assert_int_eq(ask(fd), 1);
    ck_assert_int_eq(ask(fd), 1);
    close(fd);
    turn();
    ck_assert_uint_eq(gone, 1);
    ck_assert_uint_eq(service.nclients, 0);
    ck_assert_uint_eq(temp_fds(), before);
}
END_TEST

/* An empty frame, garbage, another type, a descriptor that is no channel. */
START_TEST(garbage_at_the_door)
{
    struct msg m = {0};
    size_t before = temp_fds();
    for (int i = 0; i < 50; i++) {
        ck_assert_int_eq(send(door, "", 0, 0), 0);
        ck_assert_int_eq(send(door, "garbage of some length", 22, 0), 22);
    }
    msg_begin(&m, M_ADDRESS);
    msg_put_str(&m, STR("x"));
    ck_assert_int_eq(msg_send(door, &m), 0);
    msg_begin(&m, M_DOOR_OPEN);
    msg_add_fd(&m, 2);
    ck_assert_int_eq(msg_send(door, &m), 0);
    turn();
    turn();
    char c;
    ck_assert_int_eq(recv(st.fds[0].fd, &c, 1, MSG_DONTWAIT), -1); /* all taken */
    ck_assert_int_eq(errno, EAGAIN);
    ck_assert_uint_eq(messages, 0);
    ck_assert_uint_eq(service.nclients, 0);
    ck_assert_uint_eq(temp_fds(), before);
    int fd = channel();
    ck_assert_int_eq(ask(fd), 1);
    msg_free(&m);
}
END_TEST

START_TEST(garbage_closes_that_channel_alone)
{
    int good = channel();
    for (int i = 0; i < 4; i++) {
        int fd = channel();
        ck_assert_int_eq(i == 0   ? send(fd, "", 0, 0)
                         : i == 1 ? send(fd, "xx", 2, 0)
                                  : send(fd, "LKBH\1\0\50\0\1\0\0\0\1", 13, 0),
                         i == 0   ? 0
                         : i == 1 ? 2
                                  : 13);
        turn();
        char c;
        ck_assert_int_eq(recv(fd, &c, 1, MSG_DONTWAIT), 0);
        close(fd);
    }
    turn();
    ck_assert_uint_eq(gone, 4);
    ck_assert_int_eq(ask(good), 1);
}
END_TEST

/* A process that holds a channel is no door: with one it could take up all places, or come in the
 * name of a lane that qmgr opened. */
START_TEST(a_channel_is_no_door)
{
    struct msg m = {0};
    struct err e;
    int fd = channel();
    int inner = chan_open(fd, NULL, &e);
    ck_assert_int_ge(inner, 0);
    turn();
    turn();
    ck_assert_uint_eq(service.nclients, 0);
    ck_assert_int_eq(recv(fd, &m, 1, MSG_DONTWAIT), 0);
    ck_assert_int_eq(recv(inner, &m, 1, MSG_DONTWAIT), 0);
}
END_TEST

START_TEST(one_role_cannot_take_all_places)
{
    int fds[CLIENTS];
    for (int i = 0; i < CLIENTS; i++)
        fds[i] = channel();
    ck_assert_uint_eq(service.nclients, CLIENTS - CLIENTS / 4);
    int pair[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    ck_assert_ptr_nonnull(service_adopt(&service, pair[1], R_LOCAL, NULL));
    for (int i = 0; i < CLIENTS; i++)
        close(fds[i]);
    turn();
    ck_assert_uint_eq(service.nclients, 1);
    ck_assert_uint_eq(service.by_role[4], 0);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
        ck_assert_ptr_nonnull(service_adopt(&service, pair[1], R_LOCAL, NULL));
    }
    ck_assert_int_eq(ask(channel()), 1);
}
END_TEST

/* A service that another one takes the place of: doors serve until nobody holds them. */
START_TEST(leaving)
{
    int fd = channel();
    service_leave(&service);
    turn();
    ck_assert_int_eq(ask(fd), 1);
    int later = channel();
    ck_assert_int_eq(ask(later), 1);
    close(fd);
    close(later);
    turn();
    ck_assert(!service_deserted(&service));
    close(door);
    turn();
    ck_assert(service_deserted(&service));
}
END_TEST

START_TEST(who_does_not_read_is_closed)
{
    struct msg m = {0};
    int fd = channel();
    msg_begin(&m, M_ADDRESS);
    msg_put_str(&m, STR("x"));
    for (int i = 0; i < 3000 && gone == 0; i++) {
        if (msg_send(fd, &m) < 0)
            turn();
        if (errno == EPIPE)
            break;
    }
    turn();
    turn();
    ck_assert_uint_eq(gone, 1);
    msg_free(&m);
    ck_assert_int_eq(ask(channel()), 1);
}
END_TEST

START_TEST(a_path_is_a_door_too)
{
    char path[80];
    char *dir = temp_dir();
    struct err e = {0};
    snprintf(path, sizeof path, "%s/authd.smtpd", dir);
    struct start by_path = {.role = R_AUTHD};
    int listening = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    struct {
        uint16_t family;
        char path[108];
    } sun = {AF_UNIX, ""};
    snprintf(sun.path, sizeof sun.path, "%s", path);
    ck_assert_int_eq(bind(listening, (void *)&sun, sizeof sun), 0);
    ck_assert_int_eq(listen(listening, 5), 0);
    start_add_fd(&by_path, listening, "path.smtpd");
    service.nways = 0;
    ck_assert_int_eq(service_init(&service, &l, &by_path), 0);
    int outer = chan_connect(path, &e);
    ck_assert_msg(outer >= 0, "%s", e.text);
    turn();
    ck_assert_int_eq(ask(outer), 1);
    int inner = chan_open(outer, NULL, &e);
    turn();
    ck_assert_int_eq(ask(inner), 1);
    ck_assert_int_ge(chan_open(inner, NULL, &e), 0); /* but a channel through it is none */
    turn();
    ck_assert_uint_eq(service.nclients, 1);
    service_leave(&service); /* another one listens there from now on */
    ck_assert_int_ge(chan_connect(path, &e), 0);
    turn();
    ck_assert_uint_eq(service.nclients, 1);
    temp_remove(dir);
}
END_TEST

Suite *suite_service(void);
Suite *
suite_service(void)
{
    Suite *s = suite_create("service");
    TCase *t = tcase_create("service");
    tcase_add_checked_fixture(t, setup, NULL);
    tcase_add_test(t, a_channel_through_the_door);
    tcase_add_test(t, garbage_at_the_door);
    tcase_add_test(t, garbage_closes_that_channel_alone);
    tcase_add_test(t, a_channel_is_no_door);
    tcase_add_test(t, one_role_cannot_take_all_places);
    tcase_add_test(t, leaving);
    tcase_add_test(t, who_does_not_read_is_closed);
    tcase_add_test(t, a_path_is_a_door_too);
    suite_add_tcase(s, t);
    return s;
}
