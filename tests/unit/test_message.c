/* message: frames whole and broken in every way; descriptors never leak. */
#include "lib/ipc/channel.h"
#include "lib/ipc/message.h"
#include "tests/unit/temp.h"
#include "tests/unit/unit.h"
#include <errno.h>
#include <sys/socket.h>

struct raw {
    uint32_t magic;
    uint8_t version, nfds;
    uint16_t type;
    uint32_t length;
};
enum { MAGIC = 0x48424b4c };
static int pair[2];

static void
setup(void)
{
    temp_quiet();
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
}

static void
send_raw(const void *p, size_t n, int fds)
{
    struct iovec iov = {(void *)p, n};
    char room[CMSG_SPACE(sizeof(int) * 64)] = {0};
    struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1};
    if (fds) {
        mh.msg_control = room;
        mh.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)fds);
        struct cmsghdr *c = CMSG_FIRSTHDR(&mh);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)fds);
        for (int i = 0; i < fds; i++) {
            int fd = 2;
            memcpy(CMSG_DATA(c) + (size_t)i * sizeof fd, &fd, sizeof fd);
        }
    }
    ck_assert_int_eq(sendmsg(pair[0], &mh, 0), (ssize_t)n);
}

static int
receive(struct msg *m)
{
    return msg_recv(pair[1], m, R_SMTPD, R_AUTHD);
}

START_TEST(fields_come_as_they_went)
{
    struct msg m = {0};
    msg_begin(&m, M_ADDRESS);
    msg_put_u32(&m, UINT32_MAX);
    msg_put_u64(&m, UINT64_MAX);
    msg_put_bool(&m, true);
    msg_put_str(&m, STR(""));
    msg_put_str(&m, str_of("a\0b", 3));
    ck_assert_int_eq(msg_send(pair[0], &m), 0);
    ck_assert_int_eq(receive(&m), 1);
    ck_assert_int_eq(m.type, M_ADDRESS);
    ck_assert_uint_eq(msg_get_u32(&m), UINT32_MAX);
    ck_assert(msg_get_u64(&m) == UINT64_MAX);
    ck_assert(msg_get_bool(&m));
    ck_assert_uint_eq(msg_get_str(&m).n, 0);
    ck_assert(!msg_end(&m));
    ck_assert(str_eq(msg_get_str(&m), str_of("a\0b", 3)));
    ck_assert(msg_end(&m));
    ck_assert_uint_eq(msg_get_u32(&m), 0);
    ck_assert(!msg_end(&m));
    msg_free(&m);
}
END_TEST

/* In the caller's room while they fit, elsewhere when they do not, and wiped from both. */
START_TEST(fields_in_a_lent_room)
{
    char room[128], text[400];
    memset(text, 'x', sizeof text);
    for (size_t n = 0; n <= sizeof text; n++) {
        struct msg m = msg_on(room, sizeof room);
        msg_begin(&m, M_ADDRESS);
        msg_put_str(&m, str_of(text, n));
        ck_assert_int_eq(msg_send(pair[0], &m), 0);
        ck_assert_int_eq(receive(&m), 1);
        struct str got = msg_get_str(&m);
        ck_assert_uint_eq(got.n, n);
        ck_assert(str_eq(got, str_of(text, n)));
        ck_assert_int_eq(m.fields.p == room, n + 5 < sizeof room);
        ck_assert(msg_end(&m));
        msg_free(&m);
        ck_assert_ptr_null(memchr(room, 'x', sizeof room));
    }
}
END_TEST

START_TEST(payload_up_to_its_ceiling)
{
    struct msg m = {0};
    char *big = calloc(1, MSG_PAYLOAD_MAX + 1);
    msg_begin(&m, M_ADDRESS);
    msg_put_str(&m, str_of(big, MSG_PAYLOAD_MAX - 5));
    ck_assert_int_eq(msg_send(pair[0], &m), 0);
    ck_assert_int_eq(receive(&m), 1);
    ck_assert_uint_eq(msg_get_str(&m).n, MSG_PAYLOAD_MAX - 5);
    ck_assert(msg_end(&m));
    for (size_t over = 4; over < 6; over++) { /* one above: in the frame, and in the text */
        msg_begin(&m, M_ADDRESS);
        msg_put_str(&m, str_of(big, MSG_PAYLOAD_MAX + over - 8));
        ck_assert_int_eq(msg_send(pair[0], &m), -1);
        ck_assert_int_eq(errno, EMSGSIZE);
    }
    msg_begin(&m, M_ADDRESS);
    msg_put_str(&m, str_of(big, MSG_PAYLOAD_MAX + 1));
    ck_assert_int_eq(msg_send(pair[0], &m), -1);
    msg_free(&m);
    free(big);
}
END_TEST

/* A good ADDRESS frame with one text. */
static size_t
good_frame(char room[64])
{
    struct raw head = {MAGIC, 1, 0, M_ADDRESS, 10};
    memcpy(room, &head, sizeof head);
    memcpy(room + 12, "\3\5\0\0\0alice", 10);
    return 22;
}

START_TEST(every_prefix_is_refused)
{
    char frame[64];
    struct msg m = {0};
    size_t whole = good_frame(frame);
    for (size_t n = 0; n <= whole; n++) {
        send_raw(frame, n, 0);
        int got = receive(&m);
        if (n == whole)
            ck_assert_int_eq(got, 1);
        else
            ck_assert_int_eq(got, n ? -1 : 0);
        if (n && n < whole)
            ck_assert_int_eq(errno, EPROTO);
    }
    ck_str(msg_get_str(&m), "alice");
    ck_assert_int_eq(receive(&m), -1); /* all taken, the empty one too */
    ck_assert_int_eq(errno, EAGAIN);
    msg_free(&m);
}
END_TEST

START_TEST(every_bit_of_the_head_counts)
{
    char frame[64];
    struct msg m = {0};
    size_t whole = good_frame(frame);
    for (size_t bit = 0; bit < sizeof(struct raw) * 8; bit++) {
        frame[bit / 8] = (char)(frame[bit / 8] ^ 1 << bit % 8);
        send_raw(frame, whole, 0);
        int got = receive(&m);
        /* Another type may be one that is legal between these two, with no descriptor. */
        if (got == 1)
            ck_assert(bit / 8 == offsetof(struct raw, type) && m.type != M_ADDRESS &&
                      msg_row(m.type)->from & R_SMTPD && msg_row(m.type)->to & R_AUTHD);
        frame[bit / 8] = (char)(frame[bit / 8] ^ 1 << bit % 8);
    }
    msg_free(&m);
}
END_TEST

START_TEST(every_byte_of_the_fields_changed)
{
    char frame[64];
    struct msg m = {0};
    size_t whole = good_frame(frame);
    for (size_t i = sizeof(struct raw); i < whole; i++)
        for (int v = 0; v < 256; v++) {
            char old = frame[i];
            frame[i] = (char)v;
            send_raw(frame, whole, 0);
            ck_assert_int_eq(receive(&m), 1);
            struct str s = msg_get_str(&m);
            ck_assert_uint_le(s.n, 5);
            if (i < 17 && old != (char)v)
                ck_assert(!msg_end(&m));
            frame[i] = old;
        }
    msg_free(&m);
}
END_TEST

START_TEST(wrong_roles_are_refused)
{
    char frame[64];
    struct msg m = {0};
    size_t whole = good_frame(frame);
    send_raw(frame, whole, 0);
    ck_assert_int_eq(msg_recv(pair[1], &m, R_IMAPD, R_AUTHD), -1);
    send_raw(frame, whole, 0);
    ck_assert_int_eq(msg_recv(pair[1], &m, R_SMTPD, R_QMGR), -1);
    send_raw(frame, whole, 0);
    ck_assert_int_eq(msg_recv(pair[1], &m, R_NONE, R_NONE), -1);
    msg_free(&m);
}
END_TEST

START_TEST(a_frame_that_is_too_large)
{
    struct msg m = {0};
    char *big = calloc(1, 65536 * 2);
    static const size_t sizes[] = {65536, 65537, 131072};
    for (size_t i = 0; i < 3; i++) {
        struct raw head = {MAGIC, 1, 0, M_ADDRESS, (uint32_t)(sizes[i] - 12)};
        memcpy(big, &head, sizeof head);
        send_raw(big, sizes[i], 0);
        ck_assert_int_eq(receive(&m), i == 0 ? 1 : -1);
    }
    msg_free(&m);
    free(big);
}
END_TEST

/* None, one where none belongs, the wrong count in the head, too many for the place. */
START_TEST(no_descriptor_leaks)
{
    char frame[64];
    struct msg m = {0};
    size_t whole = good_frame(frame), before = temp_fds();
    static const int counts[] = {1, 2, 3, 4, 5, 17, 64};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        for (int claimed = 0; claimed < 5; claimed++)
            for (size_t n = 0; n <= whole; n += n ? whole - 1 : 1) {
                frame[5] = (char)claimed;
                send_raw(frame, n, counts[i]);
                ck_assert_int_le(receive(&m), 0);
                ck_assert_uint_eq(temp_fds(), before);
            }
    msg_free(&m);
}
END_TEST

START_TEST(descriptors_belong_to_the_message)
{
    struct msg m = {0};
    size_t before = temp_fds();
    for (int taken = 0; taken < 2; taken++) {
        msg_begin(&m, M_DOOR_OPEN);
        msg_add_fd(&m, pair[0]);
        ck_assert_int_eq(msg_send(pair[0], &m), 0);
        ck_assert_int_eq(receive(&m), 1);
        ck_assert_uint_eq(temp_fds(), before + 1);
        ck_assert_int_eq(msg_take_fd(&m, 1), -1);
        if (taken) {
            int fd = msg_take_fd(&m, 0);
            ck_assert_int_ge(fd, 3);
            ck_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC);
            ck_assert_int_eq(msg_take_fd(&m, 0), -1);
            close(fd);
        }
        msg_free(&m);
        ck_assert_uint_eq(temp_fds(), before);
    }
    msg_begin(&m, M_DOOR_OPEN);
    for (int i = 0; i <= MSG_FDS_MAX; i++)
        msg_add_fd(&m, 2);
    ck_assert_int_eq(msg_send(pair[0], &m), -1);
    msg_free(&m);
    ck_assert_uint_eq(temp_fds(), before);
}
END_TEST

START_TEST(a_full_socket_never_blocks)
{
    struct msg m = {0};
    int sent = 0;
    msg_begin(&m, M_ADDRESS);
    msg_put_str(&m, STR("x"));
    while (msg_send(pair[0], &m) == 0)
        ck_assert_int_lt(++sent, 100000);
    ck_assert_int_eq(errno, EAGAIN);
    close(pair[1]);
    ck_assert_int_eq(msg_send(pair[0], &m), -1); /* and no SIGPIPE */
    msg_free(&m);
}
END_TEST

static int
ask(struct err *e)
{
    struct msg m = {0};
    msg_begin(&m, M_ADDRESS);
    msg_put_str(&m, STR("a@b"));
    int ok = chan_ask(pair[1], &m, M_ADDRESS_IS, R_SMTPD, R_AUTHD, 50, e);
    msg_free(&m);
    return ok;
}

START_TEST(an_answer_is_checked)
{
    struct err e;
    struct msg m = {0};
    ck_assert_int_eq(ask(&e), -1);
    ck_assert_int_eq(e.class, ERR_TIMEOUT);
    msg_begin(&m, M_FAILED);
    msg_put_u32(&m, ERR_LIMIT);
    msg_put_str(&m, STR("full\n"));
    msg_send(pair[0], &m);
    ck_assert_int_eq(ask(&e), -1);
    ck_assert_int_eq(e.class, ERR_LIMIT);
    ck_assert_str_eq(e.text, "full?");
    msg_begin(&m, M_FAILED);
    msg_put_u32(&m, 99);
    msg_put_str(&m, STR("x"));
    msg_send(pair[0], &m);
    ck_assert_int_eq(ask(&e), -1);
    ck_assert_int_eq(e.class, ERR_PROTOCOL);
    msg_begin(&m, M_ACCOUNT_OK); /* not to smtpd */
    msg_send(pair[0], &m);
    ck_assert_int_eq(ask(&e), -1);
    ck_assert_int_eq(e.class, ERR_PROTOCOL);
    msg_begin(&m, M_ADDRESS_IS);
    msg_send(pair[0], &m);
    ck_assert_int_eq(ask(&e), 0);
    close(pair[0]);
    ck_assert_int_eq(ask(&e), -1);
    ck_assert_int_eq(e.class, ERR_CLOSED);
    msg_free(&m);
}
END_TEST

Suite *suite_message(void);
Suite *
suite_message(void)
{
    Suite *s = suite_create("message");
    TCase *t = tcase_create("message");
    tcase_add_checked_fixture(t, setup, NULL);
    tcase_add_test(t, fields_come_as_they_went);
    tcase_add_test(t, fields_in_a_lent_room);
    tcase_add_test(t, payload_up_to_its_ceiling);
    tcase_add_test(t, every_prefix_is_refused);
    tcase_add_test(t, every_bit_of_the_head_counts);
    tcase_add_test(t, every_byte_of_the_fields_changed);
    tcase_add_test(t, wrong_roles_are_refused);
    tcase_add_test(t, a_frame_that_is_too_large);
    tcase_add_test(t, no_descriptor_leaks);
    tcase_add_test(t, descriptors_belong_to_the_message);
    tcase_add_test(t, a_full_socket_never_blocks);
    tcase_add_test(t, an_answer_is_checked);
    suite_add_tcase(s, t);
    return s;
}
