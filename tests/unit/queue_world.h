/* A queue manager in a directory of its own, for the tests of qmgr. */
#pragma once
#include "lib/ipc/channel.h"
#include "lib/role/sockets.h"
#include "qmgr/journal.h"
#include "qmgr/qmgr.h"
#include "tests/unit/temp.h"
#include "tests/unit/unit.h"
#include <errno.h>
#include <sys/socket.h>
#include <sys/stat.h>

enum { JOURNAL_TEST_MAX = 100 };
static struct conf conf;
static struct start st;
static char *dir;
static int door, relay_door; /* local's side, and relay's */

static inline void
on_message(struct client *c, struct msg *m)
{
    if (c->role == R_LOCAL || c->role == R_RELAY)
        route_message(c, m);
    else if (m->type == M_QUEUE_NEW || m->type == M_QUEUE_COMMIT || m->type == M_QUEUE_ABORT)
        intake_message(c, m);
    else
        operate_message(c, m);
}

static inline void
on_gone(struct client *c)
{
    if (c->role == R_LOCAL || c->role == R_RELAY)
        route_gone(c);
    else
        intake_gone(c);
}

static inline void
setup(void)
{
    static struct conf_errors errors;
    struct err e = {0};
    int pair[2];
    temp_quiet();
    dir = temp_dir();
    ck_assert_int_eq(conf_parse(&conf, STR("c"),
                                STR("version 1\nhostname mx.example.org\ndomain example.org\n"
                                    "queue {\n local-deliveries 20\n retry 10s\n retry-max 20s\n "
                                    "expire 60s\n warn-after 15s\n}\n"),
                                &errors),
                     0);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    st.role = R_QMGR;
    start_add_fd(&st, pair[0], "to.local");
    door = pair[1];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    start_add_fd(&st, pair[0], "to.relay");
    relay_door = pair[1];
    qmgr.conf = &conf;
    qmgr.start = &st;
    ck_assert_msg(store_open(dir, &e) == 0, "%s", e.text);
    ck_assert_int_eq(loop_init(&qmgr.loop, NULL), 0);
    qmgr.service = (struct service){.clients_max = 50, .message = on_message, .gone = on_gone};
    ck_assert_int_eq(service_init(&qmgr.service, &qmgr.loop, &st), 0);
    clock_shift = (struct clock_shift){0};
    route_start();
}

static inline void
teardown(void)
{
    temp_remove(dir);
}

static inline void
stop(struct loop_timer *t)
{
    (void)t;
    qmgr.loop.stop = true;
}

static inline void
turn_ms(int ms)
{
    struct loop_timer end = {.fire = stop};
    qmgr.loop.stop = false;
    loop_timer_set(&qmgr.loop, &end, now_ms() + ms);
    loop_run(&qmgr.loop);
}

static inline void
turn(void)
{
    turn_ms(12);
    turn_ms(3); /* what a slow disk left for after the end */
}

/* As the operator's command does: m is sent, and becomes the answer. */
static inline void
ask_qmgr(struct msg *m, enum msg_type answer)
{
    struct err e = {0};
    int pair[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    struct client *c = service_adopt(&qmgr.service, pair[0], R_CTL, NULL);
    ck_assert_ptr_nonnull(c);
    ck_assert_int_eq(msg_send(pair[1], m), 0);
    turn_ms(1);
    ck_assert_int_eq(chan_recv(pair[1], m, R_QMGR, R_CTL, 1000, &e), 1);
    ck_assert_int_eq(m->type, answer);
    close(pair[1]);
    turn_ms(1);
}

/* How many it is done to, or would be. */
static inline uint32_t
order(enum queue_action action, bool dry, const struct qfilter *f, uint32_t *busy_r)
{
    struct msg m = {0};
    msg_begin(&m, M_QUEUE_SELECT);
    msg_put_str(&m, STR(""));
    msg_put_u32(&m, action);
    msg_put_bool(&m, dry);
    qfilter_put(&m, f);
    ask_qmgr(&m, action == QUEUE_FIND ? M_QUEUE_FOUND : M_QUEUE_DID);
    turn();
    (void)msg_get_bool(&m), (void)msg_get_str(&m);
    uint32_t count = msg_get_u32(&m);
    *busy_r = action == QUEUE_FIND ? 0 : msg_get_u32(&m);
    msg_free(&m);
    turn();
    return count;
}

static inline uint32_t
select_messages(enum queue_action action, const struct qfilter *f, uint32_t *busy_r)
{
    return order(action, false, f, busy_r);
}

static inline size_t
files(const char *sub)
{
    char path[700];
    snprintf(path, sizeof path, "%s/%s", dir, sub);
    return temp_count(path);
}

/* Those in the directories below. */
static inline size_t
leaves(const char *sub)
{
    char path[600];
    size_t n = 0;
    snprintf(path, sizeof path, "%s/%s", dir, sub);
    DIR *d = opendir(path);
    for (struct dirent *x; (x = readdir(d));)
        if (x->d_name[0] != '.') {
            snprintf(path, sizeof path, "%s/%s", sub, x->d_name);
            n += files(path);
        }
    closedir(d);
    return n;
}

/* A message in new/, and its entry. origin: as in its name. */
static inline struct entry *
accept_envelope(struct envelope *env, char origin, const char *text)
{
    char id[ID_LEN + 1];
    struct err e;
    struct buf b = buf_new(1 << 20);
    env->arrived_us = wall_us();
    store_new_id(id);
    int fd = store_create(id, &e);
    ck_assert_int_eq(qfile_whole(&b, env, str_z(text), &e), 0);
    ck_assert_int_eq(write(fd, b.p, b.n), (ssize_t)b.n);
    close(fd);
    buf_free(&b);
    ck_assert_int_eq(store_commit_name(id, origin, 0), 0);
    return entry_add(id, origin, PLACE_NEW, clock_steady_s());
}

static inline struct entry *
accept_message(const char *sender, const char *const *rcpts, size_t n)
{
    struct qfile_rcpt to[300];
    struct envelope env = {.sender = str_z(sender), .origin = STR("smtp"), .rcpts = to, .nrcpt = n};
    for (size_t i = 0; i < n; i++)
        to[i] = (struct qfile_rcpt){.address = str_z(rcpts[i])};
    return accept_envelope(&env, 's', "Subject: hello\r\nX-Odd: \xff\r\n\r\nbody\r\n");
}

static inline struct message *
load(struct entry *entry)
{
    struct err e = {0};
    struct message *m = message_load(entry, &e);
    ck_assert_msg(m != NULL, "%s", e.text);
    return m;
}

static const char *const alice[] = {"alice@example.org"};
static const char *const both[] = {"alice@example.org", "bob@example.org"};
