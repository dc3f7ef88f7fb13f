#include "tests/unit/smtp_fakes.h"
#include "lib/ipc/channel.h"
#include "lib/log/log.h"
#include "lib/queue/qfile.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHANNELS = 16 };

struct service_loop {
    struct fakes *f;
    enum role me;
    int door;
    int channels[CHANNELS];
    int files[CHANNELS]; /* of qmgr: the message in work on this channel, to read */
    char ids[CHANNELS][32];
    size_t n;
    struct msg m;
};

static void
fail_with(struct service_loop *l, int fd, enum err_class class)
{
    struct err e = {0};
    (void)l;
    err_set(&e, class, "as the test asked");
    chan_fail(fd, &e);
}

static void
address_is(struct service_loop *l, int fd, enum address_kind kind, const char *account)
{
    msg_begin(&l->m, M_ADDRESS_IS);
    msg_put_u32(&l->m, kind);
    msg_put_str(&l->m, str_z(account));
    ck_assert_int_eq(msg_send(fd, &l->m), 0);
}

static void
answer_address(struct service_loop *l, int fd, struct str address)
{
    static const struct {
        const char *address;
        enum address_kind kind;
        const char *account;
    } known[] = {{"user@example.org", ADDRESS_ACCOUNT, "user"},
                 {"user+tag@example.org", ADDRESS_ACCOUNT, "user"},
                 {"other@example.org", ADDRESS_ACCOUNT, "other"},
                 {"alias@example.org", ADDRESS_ALIAS, ""},
                 {"postmaster@example.org", ADDRESS_ALIAS, ""}};
    enum address_kind kind =
        str_ends(address, STR("@example.org")) ? ADDRESS_UNKNOWN : ADDRESS_FOREIGN;
    const char *account = "";
    if (l->f->authd_fails || str_eq(address, STR("temp@example.org"))) {
        fail_with(l, fd, ERR_TEMPORARY);
        return;
    }
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (str_eq(address, str_z(known[i].address))) {
            kind = known[i].kind;
            account = known[i].account;
        }
    /* "many" are there for tests of ceilings. */
    if (str_starts(address, STR("many")) && kind == ADDRESS_UNKNOWN)
        kind = ADDRESS_ACCOUNT;
    address_is(l, fd, kind, account);
}

static void
grant(struct service_loop *l, int fd, const char *account)
{
    msg_begin(&l->m, M_GRANTED);
    msg_put_str(&l->m, str_z(account));
    ck_assert_int_eq(msg_send(fd, &l->m), 0);
}

static void
authd(struct service_loop *l, size_t i)
{
    int fd = l->channels[i];
    if (l->m.type == M_ADDRESS) {
        char address[512];
        struct str a = msg_get_str(&l->m);
        snprintf(address, sizeof address, "%.*s", STR_ARG(a));
        answer_address(l, fd, str_z(address));
    } else if (l->m.type == M_VERIFY) {
        struct str user = msg_get_str(&l->m), password = msg_get_str(&l->m);
        (void)msg_get_str(&l->m);
        ck_assert(msg_end(&l->m));
        l->f->nverify++;
        if (str_eq(user, STR("temp")))
            fail_with(l, fd, ERR_TEMPORARY);
        else if (str_eq(user, STR("user")) && str_eq(password, STR("secret")))
            grant(l, fd, "user");
        else
            fail_with(l, fd, ERR_PERMANENT);
    } else if (l->m.type == M_UID_ACCOUNT) {
        uint32_t uid = msg_get_u32(&l->m);
        bool known = uid == 1000 || uid == 1001; /* 1001 has two */
        bool second = uid == 1001 && str_eq(msg_get_str(&l->m), STR("other@example.org"));
        if (l->f->authd_fails)
            fail_with(l, fd, ERR_TEMPORARY);
        else
            address_is(l, fd, known ? ADDRESS_ACCOUNT : ADDRESS_UNKNOWN,
                       second  ? "other"
                       : known ? "user"
                               : "");
    }
}

static void
keep(struct fakes *f, int file, const char *id)
{
    struct arena arena = arena_new(2 << 20);
    struct envelope env;
    struct err e = {0};
    ck_assert_msg(qfile_read(file, str_z(id), &arena, &env, &e) == 0, "%s", e.text);
    ck_assert_msg(qfile_check_message(file, &env, &e) == 0, "%s", e.text);
    ck_assert_uint_lt(f->nmessages, FAKE_MESSAGES_MAX);
    struct fake_message *m = &f->messages[f->nmessages];
    snprintf(m->sender, sizeof m->sender, "%.*s", STR_ARG(env.sender));
    snprintf(m->origin, sizeof m->origin, "%.*s", STR_ARG(env.origin));
    snprintf(m->client, sizeof m->client, "%.*s", STR_ARG(env.client));
    snprintf(m->login, sizeof m->login, "%.*s", STR_ARG(env.login));
    size_t at = 0;
    for (size_t i = 0; i < env.nrcpt && at + 400 < sizeof m->rcpts; i++)
        at += (size_t)snprintf(m->rcpts + at, sizeof m->rcpts - at, "%.*s ",
                               STR_ARG(env.rcpts[i].address));
    at = (size_t)snprintf(m->wishes, sizeof m->wishes, "%d %.*s", env.ret, STR_ARG(env.envid));
    for (size_t i = 0; i < env.nrcpt && at + 600 < sizeof m->wishes; i++)
        at += (size_t)snprintf(m->wishes + at, sizeof m->wishes - at, " %d/%.*s",
                               env.rcpts[i].notify, STR_ARG(env.rcpts[i].orcpt));
    m->n = env.message_size;
    m->bulk = env.bulk;
    m->text = calloc(1, m->n + 1);
    ck_assert_int_eq(pread(file, m->text, m->n, (off_t)env.message_offset), (ssize_t)m->n);
    f->nmessages++;
    arena_free(&arena);
}

static void
send_row(struct service_loop *l, int fd, bool first)
{
    msg_begin(&l->m, M_QUEUE_ROWS);
    msg_put_bool(&l->m, first);
    msg_put_u32(&l->m, 1);
    msg_put_str(&l->m, first ? STR("AAA1") : STR("BBB2"));
    msg_put_u64(&l->m, 4096);
    msg_put_u64(&l->m, 1700000000);
    msg_put_u64(&l->m, 1700000100);
    msg_put_u32(&l->m, 1);
    msg_put_str(&l->m, STR("user@example.org"));
    msg_put_str(&l->m, STR("active"));
    msg_put_str(&l->m, STR("host said: 450\r\n250 no"));
    msg_put_u32(&l->m, 1);
    msg_put_str(&l->m, STR("a@example.com"));
    ck_assert_int_eq(msg_send(fd, &l->m), 0);
}

static void
give_file(struct service_loop *l, size_t i)
{
    char path[] = "/tmp/bh-message-XXXXXX";
    int file = mkostemp(path, O_CLOEXEC);
    if (l->files[i] >= 0)
        close(l->files[i]);
    l->files[i] = open(path, O_RDONLY | O_CLOEXEC);
    unlink(path);
    snprintf(l->ids[i], sizeof l->ids[i], "ID%zu", ++l->f->nnew);
    msg_begin(&l->m, M_QUEUE_FILE);
    msg_put_str(&l->m, str_z(l->ids[i]));
    msg_add_fd(&l->m, file);
    msg_add_fd(&l->m, l->files[i]);
    (void)msg_send(l->channels[i], &l->m); /* a session that asked ahead may have gone */
    close(file);
}

static void
qmgr(struct service_loop *l, size_t i)
{
    int fd = l->channels[i];
    bool in_work = l->m.type == M_QUEUE_NEW;
    pthread_mutex_lock(&l->f->lock);
    if (l->m.type == M_QUEUE_NEW && (l->f->qmgr_fails || l->f->qmgr_full)) {
        fail_with(l, fd, l->f->qmgr_full ? ERR_LIMIT : ERR_TEMPORARY);
    } else if (l->m.type == M_QUEUE_NEW) {
        give_file(l, i);
    } else if (l->m.type == M_QUEUE_COMMIT && l->f->commit_fails) {
        fail_with(l, fd, ERR_TEMPORARY);
    } else if (l->m.type == M_QUEUE_COMMIT) {
        ck_assert_int_ge(l->files[i], 0);
        /* Nobody has it open for writing any more. */
        ck_assert(fcntl(l->files[i], F_SETLEASE, F_RDLCK) == 0 || errno != EAGAIN);
        in_work = true;
    } else if (l->m.type == M_QUEUE_SYNCED && l->files[i] >= 0) {
        keep(l->f, l->files[i], l->ids[i]);
        msg_begin(&l->m, M_QUEUE_DONE);
        ck_assert_int_eq(msg_send(fd, &l->m), 0);
    } else if (l->m.type == M_QUEUE_ABORT) {
        l->f->naborted++;
    } else if (l->m.type == M_QUEUE_LIST) {
        send_row(l, fd, msg_get_str(&l->m).n == 0);
    }
    if (!in_work && l->files[i] >= 0) {
        close(l->files[i]);
        l->files[i] = -1;
    }
    pthread_mutex_unlock(&l->f->lock);
}

static void
tlsd(struct service_loop *l, size_t i)
{
    int client = msg_take_fd(&l->m, 0);
    pthread_mutex_lock(&l->f->lock);
    l->f->ntls++;
    pthread_mutex_unlock(&l->f->lock);
    msg_begin(&l->m, M_TLS_STARTED);
    msg_put_str(&l->m, STR("TLSv1.3"));
    msg_put_str(&l->m, STR("PRETEND"));
    msg_add_fd(&l->m, client);
    ck_assert_int_eq(msg_send(l->channels[i], &l->m), 0);
    close(client);
}

static void
drop(struct service_loop *l, size_t i)
{
    close(l->channels[i]);
    if (l->files[i] >= 0)
        close(l->files[i]);
    l->channels[i] = l->channels[--l->n];
    l->files[i] = l->files[l->n];
    memcpy(l->ids[i], l->ids[l->n], sizeof l->ids[i]);
}

static void *
serve(void *arg)
{
    struct service_loop *l = arg;
    for (;;) {
        struct pollfd p[CHANNELS + 1] = {{.fd = l->door, .events = POLLIN}};
        for (size_t i = 0; i < l->n; i++)
            p[i + 1] = (struct pollfd){.fd = l->channels[i], .events = POLLIN};
        size_t n = l->n;
        if (poll(p, n + 1, -1) < 0)
            continue;
        for (size_t i = n; i-- > 0;) {
            if (!p[i + 1].revents)
                continue;
            if (msg_recv(l->channels[i], &l->m, l->f->role, l->me) != 1 ||
                (l->me == R_QMGR && l->f->qmgr_drops)) {
                l->f->qmgr_drops = false;
                drop(l, i);
            } else if (l->me == R_AUTHD) {
                authd(l, i);
            } else if (l->me == R_TLSD) {
                tlsd(l, i);
            } else {
                qmgr(l, i);
            }
        }
        if (p[0].revents) {
            if (msg_recv(l->door, &l->m, l->f->role, l->me) != 1)
                break;
            ck_assert_uint_lt(l->n, CHANNELS);
            l->files[l->n] = -1;
            l->channels[l->n++] = msg_take_fd(&l->m, 0);
        }
    }
    while (l->n)
        drop(l, 0);
    msg_free(&l->m);
    close(l->door);
    free(l);
    return NULL;
}

void
fakes_start(struct fakes *f, enum role role)
{
    static const enum role services[FAKE_SERVICES] = {R_AUTHD, R_QMGR, R_TLSD};
    *f = (struct fakes){.role = role, .start = {.role = role}};
    log_open(open("/dev/null", O_WRONLY | O_CLOEXEC), "test");
    pthread_mutex_init(&f->lock, NULL);
    f->conf.hostname = STR("mail.example.org");
    f->conf.domains[0] = STR("example.org");
    f->conf.ndomains = 1;
    f->conf.message_size_max = 1 << 20;
    f->conf.recipients_max = 1000;
    f->conf.hops_max = 50;
    f->conf.delimiter = STR("+");
    f->conf.smtpd.idle_s = f->conf.submitd.idle_s = 10;
    f->conf.smtpd.session_s = f->conf.submitd.session_s = 60;
    for (int i = 0; i < FAKE_SERVICES; i++) {
        int pair[2];
        char name[32];
        ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
        snprintf(name, sizeof name, "to.%s", role_name(services[i]));
        start_add_fd(&f->start, pair[0], name);
        struct service_loop *l = calloc(1, sizeof *l);
        *l = (struct service_loop){.f = f, .me = services[i], .door = pair[1]};
        ck_assert_int_eq(pthread_create(&f->threads[i], NULL, serve, l), 0);
    }
}

size_t
fakes_aborted(struct fakes *f)
{
    pthread_mutex_lock(&f->lock);
    size_t n = f->naborted;
    pthread_mutex_unlock(&f->lock);
    return n;
}

void
fakes_stop(struct fakes *f)
{
    for (int i = 0; i < FAKE_SERVICES; i++)
        close(f->start.fds[i].fd);
    for (int i = 0; i < FAKE_SERVICES; i++)
        pthread_join(f->threads[i], NULL);
    for (size_t i = 0; i < f->nmessages; i++)
        free(f->messages[i].text);
}

static void *
run_session(void *arg)
{
    struct chat *c = arg;
    size_t before = c->fakes->ntls;
    c->session(c);
    if (c->fakes->ntls == before) /* else it has closed its client itself */
        close(c->peer.fd_in);
    return NULL;
}

void
chat_open_early(struct chat *c, struct fakes *f, const char *service,
                void (*session)(struct chat *), const char *early)
{
    int pair[2];
    struct peer peer = c->peer;
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    *c = (struct chat){.fd = pair[0], .fakes = f, .session = session};
    c->peer = (struct peer){.fd_in = pair[1],
                            .fd_out = pair[1],
                            .service = service,
                            .uid = peer.uid,
                            .relayclient = peer.relayclient};
    if (strcmp(service, "submit") != 0)
        snprintf(c->peer.ip, sizeof c->peer.ip, "192.0.2.1");
    chat_put(c, early);
    ck_assert_int_eq(pthread_create(&c->thread, NULL, run_session, c), 0);
}

void
chat_open(struct chat *c, struct fakes *f, const char *service, void (*session)(struct chat *))
{
    chat_open_early(c, f, service, session, "");
}

void
chat_write(struct chat *c, const char *p, size_t n)
{
    while (n) {
        ssize_t sent = send(c->fd, p, n, MSG_NOSIGNAL);
        if (sent <= 0)
            return; /* the server has hung up: what it said is read next */
        p += sent;
        n -= (size_t)sent;
    }
}

void
chat_put(struct chat *c, const char *text)
{
    chat_write(c, text, strlen(text));
}

/* The length of the whole reply at the start of in, or 0. */
static size_t
whole_reply(const struct chat *c)
{
    for (size_t at = 0; at < c->n;) {
        const char *line = c->in + at;
        const char *lf = memchr(line, '\n', c->n - at);
        if (!lf)
            return 0;
        at = (size_t)(lf - c->in) + 1;
        ck_assert_msg(lf > line && lf[-1] == '\r' && lf - line <= 511, "bad reply line");
        if (lf - line >= 4 && line[3] != '-')
            return at;
    }
    return 0;
}

void
chat_expect(struct chat *c, const char *start)
{
    size_t n;
    struct pollfd p = {.fd = c->fd, .events = POLLIN};
    while ((n = whole_reply(c)) == 0) {
        ck_assert_msg(poll(&p, 1, 5000) == 1, "no reply, wanted %s", start);
        ssize_t got = read(c->fd, c->in + c->n, sizeof c->in - c->n);
        ck_assert_msg(got > 0, "closed, wanted %s", start);
        c->n += (size_t)got;
    }
    ck_assert_uint_lt(n, sizeof c->reply);
    memcpy(c->reply, c->in, n);
    c->reply[n] = '\0';
    c->n -= n;
    memmove(c->in, c->in + n, c->n);
    ck_assert_msg(strncmp(c->reply, start, strlen(start)) == 0, "wanted %s, got %s", start,
                  c->reply);
}

void
chat_say(struct chat *c, const char *line, const char *start)
{
    chat_put(c, line);
    chat_put(c, "\r\n");
    chat_expect(c, start);
}

void
chat_expect_end(struct chat *c)
{
    char byte;
    struct pollfd p = {.fd = c->fd, .events = POLLIN};
    ck_assert_uint_eq(c->n, 0);
    ck_assert_msg(poll(&p, 1, 5000) == 1, "the server did not close");
    ck_assert_int_le(read(c->fd, &byte, 1), 0);
}

void
chat_close(struct chat *c)
{
    close(c->fd);
    pthread_join(c->thread, NULL);
}
