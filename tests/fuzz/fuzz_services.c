/* Files of our own that may be damaged, texts of the operator, and what comes from a resolver or
 * another program. */
#include "common/authd/authd.h"
#include "common/dnsd/answer.h"
#include "lib/base/siphash.h"
#include "lib/conf/conf.h"
#include "lib/ipc/message.h"
#include "lib/queue/qfile.h"
#include "qmgr/journal.h"
#include "tests/fuzz/fuzz.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- the queue ---- */

static const char id[] = "3oc23rf4urypz2gimhkw";

/* With the checks and the length made right (qfile.h: a head of 64 bytes, the length of the
 * envelope at 16, its check at 40). */
static void
mend_qfile(struct buf *b)
{
    static const struct sipkey key = {"bulkhead-qfile1"};
    uint64_t envelope, check;
    if (b->n < QFILE_HEAD)
        return;
    memcpy(&envelope, b->p + 16, sizeof envelope);
    if (envelope > b->n - QFILE_HEAD)
        envelope = b->n - QFILE_HEAD;
    struct str message = str_from(buf_str(b), QFILE_HEAD + envelope);
    memcpy(b->p + 16, &envelope, sizeof envelope);
    check = siphash(&key, str_of(b->p + QFILE_HEAD, envelope));
    memcpy(b->p + 40, &check, sizeof check);
    qfile_seal(b->p, str_z(id), false, message.n, qfile_check(message));
}

void
fuzz_queue_file(struct str in)
{
    struct arena arena = arena_new((size_t)2 * QFILE_ENVELOPE_MAX);
    struct buf b = buf_new(1 << 20), again = buf_new(1 << 20);
    struct envelope env;
    struct err e;
    buf_add(&b, in);
    if (in.n % 4)
        mend_qfile(&b);
    int fd = fuzz_file(buf_str(&b));
    if (qfile_read(fd, str_z(id), &arena, &env, &e) == 0) {
        FUZZ_CHECK(env.nrcpt >= 1 && env.nrcpt <= QFILE_RCPT_MAX);
        FUZZ_CHECK(env.message_offset + env.message_size == b.n);
        FUZZ_CHECK(in.n % 4 == 0 || qfile_check_message(fd, &env, &e) == 0);
        /* What was believed can be written. */
        FUZZ_CHECK(qfile_write(&again, &env, &e) == 0);
    }
    close(fd);
    buf_free(&b);
    buf_free(&again);
    arena_free(&arena);
}

/* A queue with one message, made once. */
static void
queue(void)
{
    static struct conf conf;
    static struct conf_errors errors;
    static struct qfile_rcpt rcpts[] = {{.address = {"a@example.org", 13}},
                                        {.address = {"b@example.net", 13}},
                                        {.address = {"c@example.com", 13}}};
    const struct envelope env = {.sender = STR("s@example.com"),
                                 .origin = STR("smtp"),
                                 .client = STR("[192.0.2.1]"),
                                 .helo = STR("x"),
                                 .arrived_us = 1,
                                 .rcpts = rcpts,
                                 .nrcpt = 3};
    struct buf b = buf_new(10000);
    struct err e;
    if (qmgr.conf)
        return;
    FUZZ_CHECK(conf_parse(&conf, STR("c"),
                          STR("version 1\nhostname mx.example.org\ndomain example.org\n"),
                          &errors) == 0);
    qmgr.conf = &conf;
    FUZZ_CHECK(store_open(fuzz_dir(), &e) == 0 &&
               qfile_whole(&b, str_z(id), &env, STR(""), &e) == 0);
    fuzz_write("new/3oc23rf4urypz2gimhkw.s", buf_str(&b));
    buf_free(&b);
    int sub = store_subdir(qmgr.journal, id, true);
    FUZZ_CHECK(sub >= 0);
    close(sub);
}

/* Records {type, length, bytes} with their checks, and a tail as it is. */
void
fuzz_journal(struct str in)
{
    static const struct sipkey key = {"bulkhead-journal"};
    struct buf b = buf_new(1 << 20);
    struct entry entry = {.origin = 's', .place = PLACE_NEW};
    struct err e;
    queue();
    memcpy(entry.id, id, ID_LEN);
    while (in.n > 2) {
        struct {
            uint32_t n, type;
            uint64_t check;
        } h;
        struct str bytes = str_sub(in, 2, (unsigned char)in.p[1]);
        h.n = (uint32_t)bytes.n;
        h.type = (unsigned char)in.p[0] & 15;
        h.check = siphash(&key, bytes) ^ (uint64_t)h.type * 0x9e3779b97f4a7c15u;
        buf_add(&b, str_of((const char *)&h, sizeof h));
        buf_add(&b, bytes);
        in = str_from(in, 2 + bytes.n);
    }
    buf_add(&b, in);
    fuzz_write("journal/kw/3oc23rf4urypz2gimhkw", buf_str(&b));
    struct message *m = message_load(&entry, &e);
    FUZZ_CHECK(m && m->nrcpt >= 3);
    for (size_t i = 0; i < m->nrcpt; i++)
        FUZZ_CHECK(m->rcpts[i]->state <= RCPT_BOUNCED && m->rcpts[i]->address.n);
    FUZZ_CHECK(m->owed <= m->nrcpt);
    message_free(m);
    buf_free(&b);
}

/* ---- texts of the operator ---- */

void
fuzz_conf(struct str in)
{
    static struct conf_errors errors;
    struct conf conf;
    int result = conf_parse(&conf, STR("bulkhead.conf"), in, &errors);
    FUZZ_CHECK((result == 0) == (errors.n == 0) && errors.n <= CONF_ERRORS_MAX);
    if (result == 0) {
        FUZZ_CHECK(conf.hostname.n);
        (void)conf_relays_for(&conf, STR("192.0.2.1"));
        (void)conf_is_local(&conf, STR("example.org"));
    }
    conf_free(&conf);
}

void
fuzz_accounts(struct str in)
{
    struct accounts a = {0};
    struct err e = {0};
    fuzz_write("accounts", in);
    int fd = open(fuzz_dir(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (accounts_load(&a, fd, &e) == 0)
        for (size_t i = 0; i < a.n; i++) {
            FUZZ_CHECK(accounts_find(&a, a.list[i]->name) == a.list[i]);
            FUZZ_CHECK(accounts_name_ok(a.list[i]->name) && a.list[i]->uid &&
                       a.list[i]->directory.n);
            FUZZ_CHECK(accounts_after(&a, a.list[i]->name) == i + 1);
        }
    accounts_free(&a);
    close(fd);
}

static void
ignore(size_t line, const char *what)
{
    FUZZ_CHECK(line && what);
}

void
fuzz_aliases(struct str in)
{
    struct aliases a = {0};
    struct err e;
    if (aliases_parse(&a, in, STR("example.org"), STR("mx.example.org"), ignore, &e) == 0) {
        const struct alias *root = aliases_find(&a, STR("root@example.org"));
        FUZZ_CHECK(!root || root->ntargets <= ALIASES_TARGETS_MAX);
        (void)aliases_for(&a, STR("root+x"), STR("example.org"), '+');
    }
    aliases_free(&a);
}

/* ---- from outside ---- */

void
fuzz_dns(struct str in)
{
    static const enum dns_type types[] = {DNS_T_A, DNS_T_AAAA, DNS_T_MX, DNS_T_PTR};
    static struct dns_answer a;
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        dns_answer_read(in, STR("example.com"), types[i], &a);
        FUZZ_CHECK(a.n <= DNS_RECORDS_MAX && a.ttl_s >= DNS_TTL_MIN_S && a.ttl_s <= DNS_TTL_MAX_S);
        for (size_t k = 0; k < a.n; k++) {
            struct str data = str_of(a.at[k].data, a.at[k].n);
            FUZZ_CHECK(types[i] == DNS_T_A      ? data.n == 4
                       : types[i] == DNS_T_AAAA ? data.n == 16
                                                : dns_host_ok(data) || str_eq(data, STR(".")));
        }
    }
}

/* A frame between two programs; a byte says which. The fields are read as kinds that another byte
 * gives. */
void
fuzz_ipc(struct str in)
{
    static int pair[2] = {-1, -1};
    struct msg m = {0};
    if (pair[0] < 0)
        FUZZ_CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
    if (in.n < 3)
        return;
    enum role from = 1u << (unsigned char)in.p[0] % 16, to = 1u << (unsigned char)in.p[1] % 16;
    unsigned kinds = (unsigned char)in.p[2];
    if (send(pair[0], in.p + 3, in.n - 3, MSG_DONTWAIT) < 0)
        return;
    int got = msg_recv(pair[1], &m, from, to);
    FUZZ_CHECK(got >= 0 || errno == EPROTO);
    for (size_t i = 0; got == 1 && i < 40 && !m.bad; i++) {
        struct str s;
        switch (kinds >> (i % 4 * 2) & 3) {
        case 0:
            (void)msg_get_u32(&m);
            break;
        case 1:
            (void)msg_get_u64(&m);
            break;
        case 2:
            s = msg_get_str(&m);
            FUZZ_CHECK(s.n <= m.fields.n);
            break;
        default:
            (void)msg_get_bool(&m);
        }
    }
    (void)msg_end(&m);
    msg_free(&m);
}
