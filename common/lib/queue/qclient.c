#include "lib/queue/qclient.h"
#include <errno.h>
#include <unistd.h>

enum { SEND_MS = 5000 };

void
qclient_init(struct qclient *q, const struct start *start, enum role me, char *room, size_t size)
{
    *q = (struct qclient){.file = -1,
                          .read_file = -1,
                          .waiting =
                              buf_on(room, size, QFILE_HEAD + QFILE_ENVELOPE_MAX + QCLIENT_BUFFER)};
    remote_init(&q->remote, start, me, R_QMGR);
}

/* The state of one message, forgotten on every way out. */
static void
forget(struct qclient *q)
{
    if (q->file >= 0)
        close(q->file);
    if (q->read_file >= 0)
        close(q->read_file);
    q->file = q->read_file = -1;
    q->env = NULL;
    q->message_size = 0;
    q->written = false;
    buf_reset(&q->waiting);
}

static int
tell(struct qclient *q, enum msg_type type, struct err *e)
{
    char room[64];
    struct msg m = msg_on(room, sizeof room);
    msg_begin(&m, type);
    int n = q->remote.fd < 0 ? err_set(e, ERR_CLOSED, "qmgr has gone")
                             : chan_send(q->remote.fd, &m, SEND_MS, e);
    msg_free(&m);
    return n;
}

void
qclient_close(struct qclient *q)
{
    qclient_abort(q);
    remote_close(&q->remote);
    buf_free(&q->waiting);
}

void
qclient_abort(struct qclient *q)
{
    if (q->ahead) /* its answer would be taken for another's */
        remote_close(&q->remote);
    q->ahead = false;
    if (q->read_file < 0)
        return;
    /* When this does not arrive, the closed channel says the same. */
    if (tell(q, M_QUEUE_ABORT, NULL) < 0)
        remote_close(&q->remote);
    forget(q);
}

void
qclient_ahead(struct qclient *q)
{
    struct msg m = {0};
    if (q->ahead || q->read_file >= 0)
        return;
    msg_begin(&m, M_QUEUE_NEW);
    msg_put_u32(&m, q->user);
    q->ahead = remote_send(&q->remote, &m, NULL) == 0;
    msg_free(&m);
}

/* The answer to what was asked ahead. -1 with ERR_CLOSED: ask again. */
static int
answer_ahead(struct qclient *q, struct msg *m, struct err *e)
{
    if (!q->ahead)
        return err_set(e, ERR_CLOSED, "nothing was asked");
    q->ahead = false;
    return remote_answer(&q->remote, m, M_QUEUE_FILE, QCLIENT_ASK_MS, e);
}

int
qclient_begin(struct qclient *q, struct err *e)
{
    char room[128];
    struct msg m = msg_on(room, sizeof room);
    int n = answer_ahead(q, &m, e);
    if (n < 0 && e->class == ERR_CLOSED) {
        qclient_abort(q);
        msg_begin(&m, M_QUEUE_NEW);
        msg_put_u32(&m, q->user);
        n = remote_ask(&q->remote, &m, M_QUEUE_FILE, QCLIENT_ASK_MS, e);
    }
    if (n == 0) {
        struct str id = msg_get_str(&m);
        q->file = msg_take_fd(&m, 0);
        q->read_file = msg_take_fd(&m, 1);
        if (!msg_end(&m) || !str_component(id) || id.n > QCLIENT_ID_MAX || q->file < 0 ||
            q->read_file < 0) {
            n = err_set(e, ERR_PROTOCOL, "qmgr: malformed answer");
            remote_close(&q->remote);
            forget(q);
        } else {
            memcpy(q->id, id.p, id.n);
            q->id[id.n] = '\0';
        }
    }
    msg_free(&m);
    return n;
}

static int
disk_error(const char *what, struct err *e)
{
    int why = errno;
    err_errno(e, "%s the queue file", what);
    if (e && (why == ENOSPC || why == EDQUOT || why == EFBIG))
        e->class = ERR_LIMIT;
    return -1;
}

static int
write_out(struct qclient *q, struct err *e)
{
    for (size_t done = 0; done < q->waiting.n;) {
        ssize_t n = write(q->file, q->waiting.p + done, q->waiting.n - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return disk_error("write", e);
        done += (size_t)n;
    }
    buf_reset(&q->waiting);
    q->written = true;
    return 0;
}

int
qclient_envelope(struct qclient *q, const struct envelope *env, struct err *e)
{
    q->env = env;
    buf_reset(&q->waiting);
    if (qfile_write(&q->waiting, env, e) < 0)
        return -1;
    memcpy(q->head, q->waiting.p, sizeof q->head);
    q->check = qfile_check_begin();
    return 0;
}

int
qclient_put(struct qclient *q, struct str content, struct err *e)
{
    while (content.n) {
        struct str part = str_sub(content, 0, QCLIENT_BUFFER);
        if (q->waiting.n && part.n > buf_room(&q->waiting) && write_out(q, e) < 0)
            return -1;
        buf_add(&q->waiting, part);
        if (!buf_ok(&q->waiting))
            return err_set(e, ERR_TEMPORARY, "out of memory");
        if (q->waiting.n >= QCLIENT_BUFFER && write_out(q, e) < 0)
            return -1;
        q->message_size += part.n;
        siphash_add(&q->check, part);
        content = str_from(content, part.n);
    }
    return 0;
}

/* The whole of it is in the file, whose head is written last, and sealed. */
static int
write_whole(struct qclient *q, struct err *e)
{
    bool large = q->written;
    qfile_seal(q->head, str_z(q->id), q->env->bulk, q->message_size, siphash_end(&q->check));
    if (!large)
        memcpy(q->waiting.p, q->head, sizeof q->head);
    if (write_out(q, e) < 0)
        return -1;
    if (large && pwrite(q->file, q->head, sizeof q->head, 0) != sizeof q->head)
        return disk_error("write", e);
    return 0;
}

/* qmgr takes over only what nobody can write to any more. */
static int
let_go(struct qclient *q, struct err *e)
{
    int fd = q->file;
    q->file = -1;
    return close(fd) < 0 && errno != EINTR ? disk_error("close", e) : 0;
}

static int
sync_file(struct qclient *q, struct err *e)
{
    if (fdatasync(q->read_file) == 0)
        return 0;
    /* The kernel has dropped the dirty pages and calls them clean: never sync again (catalogue J8).
     */
    q->dead = true;
    return disk_error("sync", e);
}

static int
hear_done(struct qclient *q, struct err *e)
{
    char room[512];
    struct msg m = msg_on(room, sizeof room);
    int n = chan_answer(q->remote.fd, &m, M_QUEUE_DONE, q->remote.me, R_QMGR, QCLIENT_COMMIT_MS, e);
    if (n == 0 && !msg_end(&m))
        n = err_set(e, ERR_PROTOCOL, "qmgr: malformed answer");
    msg_free(&m);
    return n;
}

int
qclient_commit(struct qclient *q, struct err *e)
{
    if (write_whole(q, e) < 0 || let_go(q, e) < 0) {
        qclient_abort(q);
        return -1;
    }
    /* qmgr gives it its name while the sync begins: a file system with a journal writes both at
     * once. */
    int n = tell(q, M_QUEUE_COMMIT, e) < 0 || sync_file(q, e) < 0 ||
                    tell(q, M_QUEUE_SYNCED, e) < 0 || hear_done(q, e) < 0
                ? -1
                : 0;
    /* Also after a refusal: the channel's state is not worth guessing, and closed it says ABORT. */
    if (n < 0)
        remote_close(&q->remote);
    forget(q);
    return n;
}
