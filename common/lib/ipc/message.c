#include "lib/ipc/message.h"
#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { MAGIC = 0x48424b4c, VERSION = 1 };
enum kind { KIND_U32 = 1, KIND_U64, KIND_STR, KIND_BOOL };

struct head {
    uint32_t magic;
    uint8_t version;
    uint8_t nfds;
    uint16_t type;
    uint32_t length;
};

static void
close_fds(struct msg *m)
{
    for (size_t i = 0; i < m->nfds; i++)
        if (!m->lent && m->fds[i] >= 0)
            close(m->fds[i]);
    m->nfds = 0;
    m->lent = false;
}

void
msg_begin(struct msg *m, enum msg_type type)
{
    close_fds(m);
    m->fields.max = MSG_PAYLOAD_MAX;
    buf_reset(&m->fields);
    m->type = type;
    m->at = 0;
    m->bad = false;
}

void
msg_free(struct msg *m)
{
    close_fds(m);
    buf_wipe(&m->fields);
    *m = (struct msg){0};
}

static void
put(struct msg *m, enum kind kind, const void *value, size_t n)
{
    buf_addc(&m->fields, (char)kind);
    buf_add(&m->fields, str_of(value, n));
}

void
msg_put_u32(struct msg *m, uint32_t v)
{
    put(m, KIND_U32, &v, sizeof v);
}

void
msg_put_u64(struct msg *m, uint64_t v)
{
    put(m, KIND_U64, &v, sizeof v);
}

void
msg_put_bool(struct msg *m, bool v)
{
    unsigned char byte = v;
    put(m, KIND_BOOL, &byte, 1);
}

void
msg_put_str(struct msg *m, struct str s)
{
    uint32_t n = (uint32_t)s.n;
    if (s.n > MSG_PAYLOAD_MAX) {
        m->fields.overflow = true;
        return;
    }
    put(m, KIND_STR, &n, sizeof n);
    buf_add(&m->fields, s);
}

void
msg_add_fd(struct msg *m, int fd)
{
    if (m->nfds == MSG_FDS_MAX || (m->nfds && !m->lent)) {
        m->fields.overflow = true;
        return;
    }
    m->lent = true;
    m->fds[m->nfds++] = fd;
}

size_t
msg_room(const struct msg *m)
{
    size_t room = buf_room(&m->fields);
    return room > 64 ? room - 64 : 0;
}

/* The bytes of the next field if it is of this kind and n bytes long. */
static const char *
get(struct msg *m, enum kind kind, size_t n)
{
    struct str left = str_from(buf_str(&m->fields), m->at);
    if (m->bad || left.n < 1 + n || left.p[0] != (char)kind) {
        m->bad = true;
        return NULL;
    }
    m->at += 1 + n;
    return left.p + 1;
}

uint32_t
msg_get_u32(struct msg *m)
{
    uint32_t v = 0;
    const char *p = get(m, KIND_U32, sizeof v);
    if (p)
        memcpy(&v, p, sizeof v);
    return v;
}

uint64_t
msg_get_u64(struct msg *m)
{
    uint64_t v = 0;
    const char *p = get(m, KIND_U64, sizeof v);
    if (p)
        memcpy(&v, p, sizeof v);
    return v;
}

bool
msg_get_bool(struct msg *m)
{
    const char *p = get(m, KIND_BOOL, 1);
    if (p && *p != 0 && *p != 1)
        m->bad = true;
    return p && *p == 1;
}

struct str
msg_get_str(struct msg *m)
{
    uint32_t n = 0;
    const char *p = get(m, KIND_STR, sizeof n);
    if (!p)
        return STR("");
    memcpy(&n, p, sizeof n);
    struct str left = str_from(buf_str(&m->fields), m->at);
    if (n > left.n) {
        m->bad = true;
        return STR("");
    }
    m->at += n;
    return str_sub(left, 0, n);
}

int
msg_take_fd(struct msg *m, size_t index)
{
    if (index >= m->nfds || m->lent)
        return -1;
    int fd = m->fds[index];
    m->fds[index] = -1;
    return fd;
}

bool
msg_end(struct msg *m)
{
    return !m->bad && m->at == m->fields.n;
}

int
msg_send(int fd, const struct msg *m)
{
    struct head head = {MAGIC, VERSION, (uint8_t)m->nfds, (uint16_t)m->type, (uint32_t)m->fields.n};
    struct iovec iov[2] = {{&head, sizeof head}, {m->fields.p, m->fields.n}};
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(sizeof(int) * MSG_FDS_MAX)];
    } control = {0};
    struct msghdr mh = {.msg_iov = iov, .msg_iovlen = m->fields.n ? 2 : 1};
    if (!buf_ok(&m->fields)) {
        errno = EMSGSIZE;
        return -1;
    }
    if (m->nfds) {
        mh.msg_control = control.room;
        mh.msg_controllen = CMSG_SPACE(sizeof(int) * m->nfds);
        struct cmsghdr *c = CMSG_FIRSTHDR(&mh);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * m->nfds);
        memcpy(CMSG_DATA(c), m->fds, sizeof(int) * m->nfds);
    }
    ssize_t n;
    do
        n = sendmsg(fd, &mh, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -1 : 0;
}

/* Whatever descriptors came are put into m, which then owns them. */
static bool
collect_fds(struct msg *m, struct msghdr *mh)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(mh); c; c = CMSG_NXTHDR(mh, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            if (m->nfds < MSG_FDS_MAX)
                m->fds[m->nfds++] = fd;
            else
                close(fd);
        }
    }
    return !(mh->msg_flags & (MSG_CTRUNC | MSG_TRUNC));
}

static bool
head_ok(const struct head *h, const struct msg *m, size_t got, enum role from, enum role to)
{
    const struct msg_row *row = msg_row(h->type);
    return got >= sizeof *h && h->magic == MAGIC && h->version == VERSION && row &&
           (row->from & (unsigned)from) && (row->to & (unsigned)to) &&
           h->length == got - sizeof *h && h->nfds == row->fds && m->nfds == row->fds;
}

/* Where a frame is read before its size is known. Nearly all fit on the stack, whose page is at
 * hand; what is longer goes on here, and only the pages that it fills are ever touched. */
enum { SHORT = 512 };
static char frame[MSG_PAYLOAD_MAX - SHORT];

void
msg_forget(struct msg *m)
{
    if (m->fields.n > SHORT)
        explicit_bzero(frame, m->fields.n - SHORT);
    if (m->fields.p)
        explicit_bzero(m->fields.p, m->fields.cap);
}

int
msg_recv(int fd, struct msg *m, enum role from, enum role to)
{
    struct head head = {0};
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(sizeof(int) * MSG_FDS_MAX)];
    } control;
    msg_begin(m, M_DOOR_OPEN);
    char start[SHORT];
    struct iovec iov[3] = {{&head, sizeof head}, {start, sizeof start}, {frame, sizeof frame}};
    struct msghdr mh = {.msg_iov = iov,
                        .msg_iovlen = 3,
                        .msg_control = control.room,
                        .msg_controllen = sizeof control.room};
    ssize_t n;
    do
        n = recvmsg(fd, &mh, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n <= 0) {
        if (n == 0)
            collect_fds(m, &mh);
        close_fds(m);
        return (int)n;
    }
    bool whole = collect_fds(m, &mh);
    if (!whole || !head_ok(&head, m, (size_t)n, from, to)) {
        close_fds(m);
        errno = EPROTO;
        return -1;
    }
    m->type = (enum msg_type)head.type;
    size_t in_start = head.length < SHORT ? head.length : SHORT;
    buf_add(&m->fields, str_of(start, in_start));
    if (head.length > SHORT)
        buf_add(&m->fields, str_of(frame, head.length - SHORT));
    explicit_bzero(start, in_start); /* it may be a password */
    return 1;
}
