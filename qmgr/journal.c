#include "qmgr/journal.h"
#include "lib/base/siphash.h"
#include "lib/log/log.h"
#include "lib/mail/dsn.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { JOURNAL_MAX = 16 << 20, RECORD_MAX = 2 << 20, READ_BLOCK = 8192 };

struct head {
    uint32_t length, type;
    uint64_t check;
};
struct attempt {
    uint32_t attempts, age_s;
    int64_t wall_s;
};
struct owed {
    uint32_t index, report;
    char dsn[12];
};
static const struct sipkey check_key = {"bulkhead-journal"};

static uint64_t
check_of(uint32_t type, struct str bytes)
{
    return siphash(&check_key, bytes) ^ (uint64_t)type * 0x9e3779b97f4a7c15u;
}

static void
put(struct buf *out, enum journal_type type, struct str bytes)
{
    struct head h = {(uint32_t)bytes.n, (uint32_t)type, check_of((uint32_t)type, bytes)};
    buf_add(out, str_of((const char *)&h, sizeof h));
    buf_add(out, bytes);
}

static void
put_two(struct buf *out, enum journal_type type, uint32_t a, uint32_t b)
{
    uint32_t values[2] = {a, b};
    put(out, type, str_of((const char *)values, sizeof values));
}

void
journal_put_rcpt(struct buf *out, uint32_t index, enum rcpt_state state)
{
    put_two(out, J_RCPT, index, (uint32_t)state);
}

void
journal_put_attempt(struct buf *out, uint32_t attempts, int64_t age_s)
{
    struct attempt a = {attempts, age_s > 0 ? (uint32_t)age_s : 0, clock_wall_s()};
    put(out, J_ATTEMPT, str_of((const char *)&a, sizeof a));
}

void
journal_put_warned(struct buf *out)
{
    put(out, J_WARNED, STR(""));
}

void
journal_put_deferred(struct buf *out, uint32_t index, struct str text)
{
    struct buf b = buf_new(REASON_MAX + sizeof index);
    buf_add(&b, str_of((const char *)&index, sizeof index));
    buf_add(&b, str_sub(text, 0, REASON_MAX));
    put(out, J_DEFERRED, buf_str(&b));
    buf_free(&b);
}

void
journal_put_owed(struct buf *out, const struct rcpt *r)
{
    struct owed owed = {.index = r->index, .report = r->report};
    struct buf b = buf_new(sizeof owed + REASON_MAX);
    memcpy(owed.dsn, r->dsn, sizeof owed.dsn);
    buf_add(&b, str_of((const char *)&owed, sizeof owed));
    buf_add(&b, str_sub(r->text, 0, REASON_MAX));
    put(out, J_OWED, buf_str(&b));
    buf_free(&b);
}

void
journal_put_expanded(struct buf *out, uint32_t index, uint32_t notify, struct rcpt *const *added,
                     size_t n)
{
    struct buf b = buf_new(RECORD_MAX);
    buf_add(&b, str_of((const char *)&index, sizeof index));
    buf_add(&b, str_of((const char *)&notify, sizeof notify));
    for (size_t i = 0; i < n; i++) {
        uint32_t length = (uint32_t)added[i]->address.n;
        buf_add(&b, str_of((const char *)&length, sizeof length));
        buf_add(&b, added[i]->address);
    }
    if (buf_ok(&b))
        put(out, J_EXPANDED, buf_str(&b));
    else
        out->overflow = true;
    buf_free(&b);
}

static int
open_journal(const struct message *m, int flags, int *dir_r)
{
    char name[ID_LEN + 1];
    memcpy(name, m->entry->id, ID_LEN);
    name[ID_LEN] = '\0';
    *dir_r = store_subdir(qmgr.journal, m->entry->id, flags & O_CREAT);
    return *dir_r < 0 ? -1 : openat(*dir_r, name, flags | O_NOFOLLOW | O_CLOEXEC, 0600);
}

/* All of it or nothing: what is appended behind half a record would never be read. */
static int
append(int fd, const struct buf *records)
{
    off_t before = lseek(fd, 0, SEEK_END);
    ssize_t n;
    do
        n = before < 0 ? -1 : write(fd, records->p, records->n);
    while (before >= 0 && n < 0 && errno == EINTR);
    if (n == (ssize_t)records->n)
        return 0;
    int saved = n < 0 ? errno : ENOSPC;
    if (n > 0 && ftruncate(fd, before) < 0) /* the next start cuts it there */
        log_fatal("leaving with half a record in a journal: %s", strerror(errno));
    errno = saved;
    return -1;
}

/* The name, too, becomes durable, with the directories above it. */
static void
make_durable(struct message *m, int fd, int dir)
{
    /* Never a second try, and no going on either: the record may be there for the next reader, or
     * not, and later ones count the recipients that it adds. The next start sees what is there. */
    if (fsync(fd) < 0 || (!m->named && (fsync(dir) < 0 || fsync(qmgr.journal) < 0)))
        log_fatal("leaving after a failed sync of the journal of %.*s: %s", ID_LEN, m->entry->id,
                  strerror(errno));
    m->named = true;
    m->unsynced = false;
}

int
journal_append(struct message *m, const struct buf *records, bool sync, struct err *e)
{
    int dir = -1, ok = -1;
    if (!buf_ok(records))
        return err_set(e, ERR_LIMIT, "journal record too large");
    int fd = open_journal(m, O_WRONLY | O_CREAT | O_APPEND, &dir);
    if (fd >= 0 && append(fd, records) == 0) {
        m->journaled = true;
        m->journal_size += records->n;
        if (sync)
            make_durable(m, fd, dir);
        ok = 0;
    }
    if (ok < 0)
        err_errno(e, "journal of %.*s", ID_LEN, m->entry->id);
    if (fd >= 0)
        close(fd);
    if (dir >= 0)
        close(dir);
    return ok;
}

static int
read_all(int fd, struct buf *text)
{
    ssize_t n;
    do {
        char *to = buf_reserve(text, READ_BLOCK);
        n = to ? read(fd, to, READ_BLOCK) : -1;
        if (n > 0)
            buf_commit(text, (size_t)n);
    } while (n > 0);
    return n < 0 ? -1 : 0;
}

static uint32_t
take_u32(struct str *bytes)
{
    uint32_t v = UINT32_MAX;
    if (bytes->n >= sizeof v)
        memcpy(&v, bytes->p, sizeof v);
    *bytes = str_from(*bytes, sizeof v);
    return v;
}

/* -1: out of memory. */
static int
apply_expanded(struct message *m, struct rcpt *r, struct str bytes)
{
    uint32_t notify = take_u32(&bytes);
    if (!dsn_notify_ok(notify))
        return 0;
    while (bytes.n >= sizeof(uint32_t)) {
        uint32_t length = take_u32(&bytes);
        if (length > bytes.n)
            return 0;
        struct str address = str_sub(bytes, 0, length);
        if (message_add_expanded(m, r, notify, address) < 0 && message_has_room(m, address)) {
            errno = ENOMEM;
            return -1;
        }
        bytes = str_from(bytes, length);
    }
    r->state = RCPT_DONE;
    r->marked = true;
    return 0;
}

static void
set_report(struct message *m, struct rcpt *r, uint32_t report)
{
    m->owed += (report != REPORT_NONE) - (size_t)(r->report != REPORT_NONE);
    r->report = (uint8_t)report;
}

static void
apply_owed(struct message *m, struct str bytes)
{
    struct owed owed;
    if (bytes.n < sizeof owed)
        return;
    memcpy(&owed, bytes.p, sizeof owed);
    if (owed.index >= m->nrcpt || owed.report >= REPORT_END)
        return;
    struct rcpt *r = m->rcpts[owed.index];
    r->state = RCPT_DONE;
    r->marked = true;
    set_report(m, r, owed.report);
    memcpy(r->dsn, owed.dsn, sizeof r->dsn);
    r->dsn[sizeof r->dsn - 1] = '\0';
    r->text = arena_str(&m->arena, str_sub(bytes, sizeof owed, REASON_MAX));
}

/* Its age as it was counted then, and what has passed since by the wall clock, which may have been
 * set meanwhile. What this process knows better it keeps. */
static void
apply_attempt(struct entry *entry, struct str bytes)
{
    struct attempt a;
    if (bytes.n != sizeof a)
        return;
    memcpy(&a, bytes.p, sizeof a);
    if (a.attempts > entry->attempts)
        entry->attempts = a.attempts;
    if (entry->flags & ENTRY_AGED)
        return;
    int64_t since_s;
    if (__builtin_sub_overflow(clock_wall_s(), a.wall_s, &since_s))
        since_s = JOURNAL_DOWN_MAX_S;
    since_s = since_s < 0 ? 0 : since_s > JOURNAL_DOWN_MAX_S ? JOURNAL_DOWN_MAX_S : since_s;
    entry->born_s = clock_steady_s() - (int64_t)a.age_s - since_s;
}

static int
apply(struct message *m, uint32_t type, struct str bytes)
{
    if (type == J_ATTEMPT || type == J_WARNED) {
        if (type == J_WARNED)
            m->warned = true;
        else
            apply_attempt(m->entry, bytes);
        return 0;
    }
    if (type == J_OWED) {
        apply_owed(m, bytes);
        return 0;
    }
    uint32_t index = take_u32(&bytes);
    if (index >= m->nrcpt)
        return 0;
    struct rcpt *r = m->rcpts[index];
    if (type == J_EXPANDED) {
        return apply_expanded(m, r, bytes);
    } else if (type == J_RCPT) {
        uint32_t state = take_u32(&bytes);
        if (state == RCPT_DONE || state == RCPT_BOUNCED) {
            r->state = (enum rcpt_state)state;
            r->marked = true;
            set_report(m, r, REPORT_NONE);
        }
    } else if (type == J_DEFERRED) {
        r->text = r->recorded = arena_str(&m->arena, str_sub(bytes, 0, REASON_MAX));
    }
    return 0;
}

/* What is appended after damage would never be read: a recipient marked there would get the message
 * again at each attempt. */
static int
cut(const struct message *m, size_t good, size_t size)
{
    int dir = -1;
    log_warn("%.*s: the journal is damaged after %zu of %zu bytes; what was lost is tried again",
             ID_LEN, m->entry->id, good, size);
    int fd = open_journal(m, O_WRONLY, &dir);
    int ok = fd < 0 ? -1 : ftruncate(fd, (off_t)good);
    if (fd >= 0)
        close(fd);
    if (dir >= 0)
        close(dir);
    return ok;
}

int
journal_replay(struct message *m, struct err *e)
{
    struct buf text = buf_new(JOURNAL_MAX + READ_BLOCK);
    int dir = -1;
    int fd = open_journal(m, O_RDONLY, &dir);
    if (dir >= 0)
        close(dir);
    if (fd < 0)
        return errno == ENOENT ? 0 : err_errno(e, "journal of %.*s", ID_LEN, m->entry->id);
    m->journaled = true;
    int ok = read_all(fd, &text);
    close(fd);
    m->journal_size = text.n;
    struct str left = buf_str(&text);
    while (ok == 0 && left.n >= sizeof(struct head)) {
        struct head h;
        memcpy(&h, left.p, sizeof h);
        struct str bytes = str_sub(left, sizeof h, h.length);
        if (h.length > RECORD_MAX || bytes.n != h.length || check_of(h.type, bytes) != h.check)
            break;
        ok = apply(m, h.type, bytes);
        left = str_from(left, sizeof h + h.length);
    }
    if (ok == 0 && left.n)
        ok = cut(m, text.n - left.n, text.n);
    buf_free(&text);
    return ok < 0 ? err_errno(e, "journal of %.*s", ID_LEN, m->entry->id) : 0;
}
