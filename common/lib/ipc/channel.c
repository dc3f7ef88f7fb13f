#include "lib/ipc/channel.h"
#include "lib/base/clock.h"
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { SEND_MS = 10000 };

int
chan_open(int door_fd, const struct msg *first, struct err *e)
{
    int pair[2];
    struct msg m = {0};
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return err_errno(e, "socketpair");
    int sent = first ? chan_send(pair[0], first, SEND_MS, e) : 0;
    msg_begin(&m, M_DOOR_OPEN);
    msg_add_fd(&m, pair[1]);
    if (sent == 0)
        sent = chan_send(door_fd, &m, SEND_MS, e);
    msg_free(&m);
    close(pair[1]);
    if (sent == 0)
        return pair[0];
    close(pair[0]);
    return -1;
}

int
chan_connect(const char *path, struct err *e)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof sun.sun_path)
        return err_set(e, ERR_PERMANENT, "socket path too long: %s", path);
    memcpy(sun.sun_path, path, strlen(path));
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_errno(e, "socket");
    if (connect(fd, (struct sockaddr *)&sun, sizeof sun) == 0)
        return fd;
    err_errno(e, "connect to %s", path);
    close(fd);
    return -1;
}

/* 0 when fd is ready for events before the deadline, else -1. */
static int
ready(int fd, short events, int64_t deadline, struct err *e)
{
    struct pollfd p = {.fd = fd, .events = events};
    for (;;) {
        int n = poll(&p, 1, ms_left(deadline));
        if (n > 0)
            return 0;
        if (n == 0)
            return err_set(e, ERR_TIMEOUT, "no answer in time");
        if (errno != EINTR)
            return err_errno(e, "poll");
    }
}

int
chan_send(int fd, const struct msg *m, int timeout_ms, struct err *e)
{
    int64_t deadline = now_ms() + timeout_ms;
    for (;;) {
        if (msg_send(fd, m) == 0)
            return 0;
        if (errno == EPIPE || errno == ECONNRESET)
            return err_set(e, ERR_CLOSED, "the service has gone");
        if (errno != EAGAIN)
            return err_errno(e, "send");
        if (ready(fd, POLLOUT, deadline, e) < 0)
            return -1;
    }
}

int
chan_recv(int fd, struct msg *m, enum role from, enum role me, int timeout_ms, struct err *e)
{
    int64_t deadline = now_ms() + timeout_ms;
    for (;;) {
        /* No failure here is a temporary one of this channel: an answer may still come, and must
         * not be taken for the next question's. */
        if (ready(fd, POLLIN, deadline, e) < 0) {
            if (e && e->class == ERR_TEMPORARY)
                e->class = ERR_CLOSED;
            return -1;
        }
        int n = msg_recv(fd, m, from, me);
        if (n >= 0)
            return n;
        if (errno == EPROTO)
            return err_set(e, ERR_PROTOCOL, "%s broke the message rules", role_name(from));
        if (errno == ECONNRESET) /* it closed with our words unread */
            return 0;
        if (errno != EAGAIN)
            return err_set(e, ERR_CLOSED, "receive: %s", strerror(errno));
    }
}

int
chan_ask(int fd, struct msg *m, enum msg_type want, enum role me, enum role service, int timeout_ms,
         struct err *e)
{
    if (chan_send(fd, m, timeout_ms, e) < 0)
        return -1;
    return chan_answer(fd, m, want, me, service, timeout_ms, e);
}

bool
chan_is_refusal(uint32_t class)
{
    return class == ERR_TEMPORARY || class == ERR_PERMANENT || class == ERR_LIMIT ||
           class == ERR_DAMAGED;
}

int
chan_answer(int fd, struct msg *m, enum msg_type want, enum role me, enum role service,
            int timeout_ms, struct err *e)
{
    int n = chan_recv(fd, m, service, me, timeout_ms, e);
    if (n < 0)
        return -1;
    if (n == 0)
        return err_set(e, ERR_CLOSED, "%s has gone", role_name(service));
    if (m->type == M_FAILED) {
        uint32_t class = msg_get_u32(m);
        struct str text = msg_get_str(m);
        if (!msg_end(m) || !chan_is_refusal(class))
            return err_set(e, ERR_PROTOCOL, "%s: bad refusal", role_name(service));
        return err_set(e, (enum err_class) class, "%.*s", STR_ARG(text));
    }
    if (m->type != want)
        return err_set(e, ERR_PROTOCOL, "%s: unexpected answer", role_name(service));
    return 0;
}

int
chan_fail(int fd, const struct err *e)
{
    struct msg m = {0};
    uint32_t class = chan_is_refusal(e->class) ? e->class : ERR_TEMPORARY;
    msg_begin(&m, M_FAILED);
    msg_put_u32(&m, class);
    msg_put_str(&m, str_z(e->text));
    int sent = msg_send(fd, &m);
    msg_free(&m);
    return sent;
}
