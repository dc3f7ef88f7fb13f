#include "lib/queue/qfile.h"
#include "lib/mail/dsn.h"
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    VERSION = 3,
    FLAG_EIGHT_BIT = 1,
    FLAG_BULK = 2,
    FLAG_RET_FULL = 4,
    FLAG_RET_HDRS = 8,
    FLAGS_ALL = 15,
    RECORD_HEAD = 4,
    CHECK_PIECE = 64 * 1024,
};
enum record {
    REC_END,
    REC_SENDER,
    REC_RCPT,
    REC_ORIGIN,
    REC_CLIENT,
    REC_LOGIN,
    REC_HELO,
    REC_ENVID,
    REC_NOTIFY, /* of the recipient before it: '@' + notify, then the ORCPT */
};

struct head {
    char magic[4]; /* "BHQ1" */
    uint32_t version;
    uint32_t flags;
    uint32_t nrcpt;
    uint64_t envelope_size; /* the records, without this head */
    uint64_t message_size;
    int64_t arrived_us;
    uint64_t envelope_check;
    uint64_t message_check;
    uint64_t seal; /* of all above, and the ID */
};
_Static_assert(sizeof(struct head) == QFILE_HEAD, "the head is 64 bytes");

static const struct sipkey check_key = {"bulkhead-qfile1"};

static uint64_t
seal_of(const struct head *h, struct str id)
{
    struct siphash sum = siphash_begin(&check_key);
    siphash_add(&sum, str_of((const char *)h, offsetof(struct head, seal)));
    siphash_add(&sum, id);
    return siphash_end(&sum);
}

static void
put_record(struct buf *out, enum record type, struct str bytes)
{
    unsigned char head[RECORD_HEAD] = {(unsigned char)type, (unsigned char)(bytes.n >> 16),
                                       (unsigned char)(bytes.n >> 8), (unsigned char)bytes.n};
    buf_add(out, str_of((const char *)head, sizeof head));
    buf_add(out, bytes);
}

static size_t
field_max(enum record type)
{
    return type == REC_SENDER || type == REC_RCPT ? QFILE_ADDR_MAX : QFILE_FIELD_MAX;
}

/* No record may hold a NUL or a line break: what reads them writes lines. */
static bool
field_ok(enum record type, struct str s)
{
    return s.n <= field_max(type) && str_chr(s, '\0') < 0 && str_chr(s, '\n') < 0 &&
           str_chr(s, '\r') < 0 && !(type == REC_RCPT && s.n == 0);
}

static uint32_t
flags_of(const struct envelope *env)
{
    return (env->eight_bit ? FLAG_EIGHT_BIT : 0) | (env->bulk ? FLAG_BULK : 0) |
           (env->ret == DSN_RET_FULL   ? FLAG_RET_FULL
            : env->ret == DSN_RET_HDRS ? FLAG_RET_HDRS
                                       : 0);
}

/* What was asked of reports about this recipient, if anything was. */
static int
put_notify(struct buf *out, const struct qfile_rcpt *r)
{
    char room[1 + DSN_ORCPT_MAX + 1];
    struct buf b = buf_on(room, sizeof room, sizeof room - 1);
    if (!r->notify && !r->orcpt.n)
        return 0;
    if (!dsn_notify_ok(r->notify) || (r->orcpt.n && !dsn_orcpt_ok(r->orcpt)))
        return -1;
    buf_addc(&b, (char)('@' + r->notify));
    buf_add(&b, r->orcpt);
    put_record(out, REC_NOTIFY, buf_str(&b));
    return 0;
}

static int
take_notify(struct qfile_rcpt *r, struct str bytes)
{
    struct str orcpt = str_from(bytes, 1);
    unsigned notify = bytes.n ? (unsigned char)bytes.p[0] - (unsigned)'@' : DSN_NOTIFY_END;
    if (r->notify || r->orcpt.n || !dsn_notify_ok(notify) || (!notify && !orcpt.n) ||
        (orcpt.n && !dsn_orcpt_ok(orcpt)))
        return -1;
    r->notify = (uint8_t)notify;
    r->orcpt = orcpt;
    return 0;
}

int
qfile_write(struct buf *out, const struct envelope *env, struct err *e)
{
    const struct {
        enum record type;
        struct str value;
    } single[] = {{REC_SENDER, env->sender},
                  {REC_ORIGIN, env->origin},
                  {REC_CLIENT, env->client},
                  {REC_LOGIN, env->login},
                  {REC_HELO, env->helo}};
    size_t start = out->n;
    if (env->nrcpt == 0 || env->nrcpt > QFILE_RCPT_MAX)
        return err_set(e, ERR_LIMIT, "%zu recipients", env->nrcpt);
    struct head head = {.magic = {'B', 'H', 'Q', '1'},
                        .version = VERSION,
                        .flags = flags_of(env),
                        .nrcpt = (uint32_t)env->nrcpt,
                        .arrived_us = env->arrived_us};
    buf_add(out, str_of((const char *)&head, sizeof head));
    for (size_t i = 0; i < sizeof single / sizeof single[0]; i++) {
        if (!field_ok(single[i].type, single[i].value))
            return err_set(e, ERR_PERMANENT, "envelope field %zu is malformed", i);
        put_record(out, single[i].type, single[i].value);
    }
    if (env->envid.n && !dsn_envid_ok(env->envid))
        return err_set(e, ERR_PERMANENT, "the envelope's ID is malformed");
    if (env->envid.n)
        put_record(out, REC_ENVID, env->envid);
    for (size_t i = 0; i < env->nrcpt; i++) {
        if (!field_ok(REC_RCPT, env->rcpts[i].address))
            return err_set(e, ERR_PERMANENT, "recipient %zu is malformed", i);
        put_record(out, REC_RCPT, env->rcpts[i].address);
        if (put_notify(out, &env->rcpts[i]) < 0)
            return err_set(e, ERR_PERMANENT, "the notices for recipient %zu are malformed", i);
    }
    put_record(out, REC_END, STR(""));
    if (!buf_ok(out))
        return err_set(e, ERR_LIMIT, "envelope too large");
    struct str records = str_from(buf_str(out), start + sizeof head);
    head.envelope_size = records.n;
    head.envelope_check = siphash(&check_key, records);
    memcpy(out->p + start, &head, sizeof head);
    return 0;
}

struct siphash
qfile_check_begin(void)
{
    return siphash_begin(&check_key);
}

uint64_t
qfile_check(struct str message)
{
    return siphash(&check_key, message);
}

int
qfile_check_end(struct siphash *check, uint64_t want, struct err *e)
{
    return siphash_end(check) == want
               ? 0
               : err_set(e, ERR_DAMAGED, "the queued message is not what was written");
}

void
qfile_seal(char *head, struct str id, bool bulk, uint64_t message_size, uint64_t message_check)
{
    struct head h;
    memcpy(&h, head, sizeof h);
    h.flags |= bulk ? FLAG_BULK : 0;
    h.message_size = message_size;
    h.message_check = message_check;
    h.seal = seal_of(&h, id);
    memcpy(head, &h, sizeof h);
}

int
qfile_whole(struct buf *out, struct str id, const struct envelope *env, struct str message,
            struct err *e)
{
    size_t start = out->n;
    if (qfile_write(out, env, e) < 0)
        return -1;
    buf_add(out, message);
    if (!buf_ok(out))
        return err_set(e, ERR_LIMIT, "message too large");
    qfile_seal(out->p + start, id, env->bulk, message.n, qfile_check(message));
    return 0;
}

static int
damaged(struct err *e, const char *what)
{
    return err_set(e, ERR_DAMAGED, "damaged queue file: %s", what);
}

/* All n bytes at offset, or -1. */
static int
read_at(int fd, void *to, size_t n, off_t offset)
{
    size_t done = 0;
    while (done < n) {
        ssize_t got = pread(fd, (char *)to + done, n - done, offset + (off_t)done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got == 0)
            errno = EIO; /* fstat() said that there is more */
        if (got <= 0)
            return -1;
        done += (size_t)got;
    }
    return 0;
}

static int
store_record(struct envelope *env, size_t rcpts_in_head, enum record type, struct str bytes)
{
    if (!field_ok(type, bytes))
        return -1;
    switch (type) {
    case REC_SENDER:
        env->sender = bytes;
        return 0;
    case REC_ORIGIN:
        env->origin = bytes;
        return 0;
    case REC_CLIENT:
        env->client = bytes;
        return 0;
    case REC_LOGIN:
        env->login = bytes;
        return 0;
    case REC_HELO:
        env->helo = bytes;
        return 0;
    case REC_ENVID:
        if (env->envid.n || !dsn_envid_ok(bytes))
            return -1;
        env->envid = bytes;
        return 0;
    case REC_NOTIFY:
        return env->nrcpt ? take_notify(&env->rcpts[env->nrcpt - 1], bytes) : -1;
    case REC_RCPT:
        if (env->nrcpt == rcpts_in_head)
            return -1;
        env->rcpts[env->nrcpt++].address = bytes;
        return 0;
    default:
        return -1;
    }
}

static int
read_records(struct str records, size_t nrcpt, struct envelope *env, struct err *e)
{
    while (records.n >= RECORD_HEAD) {
        const unsigned char *h = (const unsigned char *)records.p;
        size_t n = (size_t)h[1] << 16 | (size_t)h[2] << 8 | h[3];
        enum record type = h[0];
        if (type == REC_END && n == 0 && records.n == RECORD_HEAD && env->nrcpt == nrcpt)
            return 0;
        if (n > records.n - RECORD_HEAD)
            return damaged(e, "a record is longer than the envelope");
        if (store_record(env, nrcpt, type, str_sub(records, RECORD_HEAD, n)) < 0)
            return damaged(e, "a record is malformed");
        records = str_from(records, RECORD_HEAD + n);
    }
    return damaged(e, "the envelope does not end");
}

int
qfile_read(int fd, struct str id, struct arena *arena, struct envelope *env_r, struct err *e)
{
    struct head head;
    struct stat st;
    if (fstat(fd, &st) < 0)
        return err_errno(e, "cannot look at the queue file");
    if (!S_ISREG(st.st_mode))
        return damaged(e, "not a regular file");
    if (st.st_size < QFILE_HEAD)
        return damaged(e, "shorter than its head");
    if (read_at(fd, &head, sizeof head, 0) < 0)
        return err_errno(e, "cannot read the queue file");
    if (memcmp(head.magic, "BHQ1", 4) != 0 || head.version != VERSION)
        return damaged(e, "not a queue file of this version");
    if (head.seal != seal_of(&head, id))
        return damaged(e, "its head is not whole, or another's");
    if (head.envelope_size > QFILE_ENVELOPE_MAX || head.nrcpt == 0 || head.nrcpt > QFILE_RCPT_MAX ||
        (head.flags & ~(uint32_t)FLAGS_ALL) ||
        (head.flags & (FLAG_RET_FULL | FLAG_RET_HDRS)) == (FLAG_RET_FULL | FLAG_RET_HDRS))
        return damaged(e, "the head is malformed");
    uint64_t offset = QFILE_HEAD + head.envelope_size;
    if ((uint64_t)st.st_size < offset || (uint64_t)st.st_size - offset != head.message_size)
        return damaged(e, "its size is not what the head says");
    char *records = arena_alloc(arena, head.envelope_size);
    *env_r = (struct envelope){.arrived_us = head.arrived_us,
                               .message_size = head.message_size,
                               .message_offset = offset,
                               .message_check = head.message_check,
                               .eight_bit = head.flags & FLAG_EIGHT_BIT,
                               .bulk = head.flags & FLAG_BULK,
                               .ret = head.flags & FLAG_RET_FULL   ? DSN_RET_FULL
                                      : head.flags & FLAG_RET_HDRS ? DSN_RET_HDRS
                                                                   : DSN_RET_ANY,
                               .rcpts = arena_array(arena, head.nrcpt, sizeof *env_r->rcpts)};
    if (!records || !env_r->rcpts)
        return err_set(e, ERR_TEMPORARY, "out of memory for an envelope");
    if (read_at(fd, records, head.envelope_size, QFILE_HEAD) < 0)
        return err_errno(e, "cannot read the queue file");
    struct str all = str_of(records, head.envelope_size);
    if (siphash(&check_key, all) != head.envelope_check)
        return damaged(e, "its envelope is not what was written");
    return read_records(all, head.nrcpt, env_r, e);
}

int
qfile_check_message(int fd, const struct envelope *env, struct err *e)
{
    static char piece[CHECK_PIECE];
    struct siphash check = qfile_check_begin();
    for (uint64_t done = 0; done < env->message_size;) {
        uint64_t left = env->message_size - done;
        size_t n = left < sizeof piece ? (size_t)left : sizeof piece;
        if (read_at(fd, piece, n, (off_t)(env->message_offset + done)) < 0)
            return err_errno(e, "cannot read the queue file");
        siphash_add(&check, str_of(piece, n));
        done += n;
    }
    return qfile_check_end(&check, env->message_check, e) == 0
               ? 0
               : damaged(e, "its message is not what was written");
}
