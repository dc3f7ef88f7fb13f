#include "imapd/cell/park.h"
#include "imapd/idled/idled.h"
#include "lib/base/hmac.h"
#include "lib/ipc/channel.h"
#include "lib/log/log.h"
#include <errno.h>
#include <stdio.h>
#include <fcntl.h>
#include <sys/inotify.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    VERSION = 1,
    TAG_MAX = 200,
    PARK_MS = 10000,
};
enum flag {
    SELECTED = 1,
    READ_ONLY = 2,
    CONDSTORE = 4,
    QRESYNC = 8,
    REV2 = 16,
    UTF8 = 32,
    CHARSET_FREE = 64,
};

struct state { /* then tag, folder and told flags; then the seal */
    uint32_t version, flags;
    uint64_t cookie; /* of the client's socket */
    uint64_t chance;
    uint64_t modseq; /* all up to it has been told */
    uint32_t validity, next_uid, told_exists;
    uint32_t recent_from; /* all from this UID on are recent to this session, and none before */
    uint64_t message_size_max, park_ms, bytes_in, bytes_out;
    int64_t end_ms;
    uint16_t tag_n, folder_n, flags_n;
};

/* ---- the seal ---- */

static const char key_name[] = "bulkhead-park";

static int
read_key(int root_fd, unsigned char key_r[HMAC_KEY])
{
    struct stat st;
    int fd = openat(root_fd, key_name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t n = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? read(fd, key_r, HMAC_KEY) : -1;
    close(fd);
    if (n != HMAC_KEY)
        errno = EIO;
    return n == HMAC_KEY ? 0 : -1;
}

/* Made by the first who needs it; two at once agree by the name. */
static int
make_key(int root_fd, unsigned char key_r[HMAC_KEY])
{
    char fresh[64];
    uint64_t chance;
    if (read_key(root_fd, key_r) == 0)
        return 0;
    if (errno != ENOENT || getrandom(key_r, HMAC_KEY, 0) != HMAC_KEY ||
        getrandom(&chance, sizeof chance, 0) != (ssize_t)sizeof chance)
        return -1;
    snprintf(fresh, sizeof fresh, "%s.%016llx", key_name, (unsigned long long)chance);
    int fd = openat(root_fd, fresh, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return -1;
    bool good = write(fd, key_r, HMAC_KEY) == HMAC_KEY;
    close(fd);
    if (good)
        good =
            renameat2(root_fd, fresh, root_fd, key_name, RENAME_NOREPLACE) == 0 || errno == EEXIST;
    unlinkat(root_fd, fresh, 0);
    return good ? read_key(root_fd, key_r) : -1;
}

static int
cookie_of(int fd, uint64_t *cookie_r)
{
    socklen_t n = sizeof *cookie_r;
    return getsockopt(fd, SOL_SOCKET, SO_COOKIE, cookie_r, &n);
}

/* ---- writing ---- */

/* The recent ones of a session are those that came last, unless another session took some. */
static bool
find_recent(const struct icell *ic, uint32_t *from_r)
{
    const struct mailbox *mb = &ic->mb;
    size_t i = mb->n;
    while (i > 0 && mb->msgs[i - 1].recent)
        i--;
    *from_r = i < mb->n ? mb->msgs[i].uid : UINT32_MAX;
    while (i > 0 && !mb->msgs[i - 1].recent)
        i--;
    return i == 0;
}

bool
icell_can_park(const struct icell *ic, int watch_fd)
{
    uint32_t recent;
    if (ic->deflate || stream_buffered(&ic->s) || ic->s.out.n || ic->s.broken || ic->nsaved ||
        ic->cmd.tag.n > TAG_MAX || ic->state == ICELL_LOGOUT)
        return false;
    if (!ic->mb_open)
        return true;
    const struct mailbox_counts counts = mailbox_count(&ic->mb);
    return watch_fd >= 0 && !ic->mb.news && counts.messages == ic->told_exists &&
           (ic->mb.lazy ? counts.recent == 0 : find_recent(ic, &recent));
}

int
icell_park_write(struct icell *ic, int64_t end_ms, struct buf *out)
{
    unsigned char key[HMAC_KEY], seal[HMAC_BYTES];
    const struct mailbox *mb = &ic->mb;
    struct str folder = STR("");
    struct state s = {.version = VERSION,
                      .flags = (ic->condstore ? CONDSTORE : 0u) | (ic->qresync ? QRESYNC : 0u) |
                               (ic->rev2 ? REV2 : 0u) | (ic->utf8 ? UTF8 : 0u) |
                               (ic->charset_free ? CHARSET_FREE : 0u),
                      .message_size_max = ic->message_size_max,
                      .park_ms = ic->park.after_ms,
                      .bytes_in = ic->s.bytes_in,
                      .bytes_out = ic->s.bytes_out,
                      .end_ms = end_ms};
    if (ic->mb_open) {
        folder = strcmp(mb->path, ".") == 0 ? STR("INBOX") : str_z(mb->path + 1);
        s.flags |= SELECTED | (mb->read_only ? READ_ONLY : 0u);
        s.modseq = mb->ix.state.modseq;
        s.validity = mb->validity;
        s.next_uid = mailbox_uidnext(mb);
        s.told_exists = (uint32_t)ic->told_exists;
        if (!find_recent(ic, &s.recent_from))
            return -1;
    }
    s.tag_n = (uint16_t)ic->cmd.tag.n;
    s.folder_n = (uint16_t)folder.n;
    s.flags_n = (uint16_t)ic->told_flags.n;
    if (cookie_of(ic->s.fd_in, &s.cookie) < 0 || make_key(ic->root_fd, key) < 0 ||
        getrandom(&s.chance, sizeof s.chance, 0) != (ssize_t)sizeof s.chance)
        return -1;
    buf_add(out, str_of((const char *)&s, sizeof s));
    buf_add(out, ic->cmd.tag);
    buf_add(out, folder);
    buf_add(out, buf_str(&ic->told_flags));
    hmac_sha256(key, buf_str(out), seal);
    explicit_bzero(key, sizeof key);
    buf_add(out, str_of((const char *)seal, sizeof seal));
    return buf_ok(out) ? 0 : -1;
}

static void
send_away(struct icell *ic, int watch_fd, int64_t end_ms, struct str state)
{
    struct msg m = {0};
    struct err e = {0};
    msg_begin(&m, M_PARK);
    msg_put_str(&m, ic->park.token);
    msg_put_str(&m, state);
    msg_put_str(&m, ic->park.user);
    msg_put_u64(&m, (uint64_t)end_ms);
    msg_add_fd(&m, ic->s.fd_in);
    msg_add_fd(&m, watch_fd);
    int sent = chan_send(ic->park.fd, &m, PARK_MS, &e);
    int got = sent < 0 ? -1 : chan_recv(ic->park.fd, &m, R_IDLED, R_IMAPD, PARK_MS, &e);
    /* When nobody answers it may have been taken all the same: two may not serve it. */
    bool unsure = sent == 0 && got < 0 && e.class == ERR_TIMEOUT;
    if ((got == 1 && m.type == M_PARKED) || unsure) {
        ic->park.done = true;
        ic->bye = "Parked";
        ic->state = ICELL_LOGOUT;
    } else {
        log_warn("cannot be parked: %s", got == 0 ? "idled has gone" : e.text);
    }
    msg_free(&m);
}

void
icell_park(struct icell *ic, int watch_fd, int64_t end_ms)
{
    struct buf state = buf_new(PARK_STATE_MAX);
    int none = -1;
    if (watch_fd < 0)
        none = watch_fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (watch_fd >= 0 && icell_park_write(ic, end_ms, &state) == 0)
        send_away(ic, watch_fd, end_ms, buf_str(&state));
    if (!ic->park.done) { /* once is enough */
        close(ic->park.fd);
        ic->park.fd = -1;
    }
    if (none >= 0)
        close(none);
    buf_free(&state);
}

/* ---- reading ---- */

/* What was in view and has gone since takes its place again, marked so, so that it can be told.
 * ERR_PERMANENT: the index does not know that far back. */
static int
restore_view(struct icell *ic, const struct state *s, struct err *e)
{
    struct mailbox *mb = &ic->mb;
    const struct mailindex *ix = &mb->ix;
    size_t gone = 0, old = 0;
    if (mb->validity != s->validity || ix->gone_floor > s->modseq || ix->state.modseq < s->modseq)
        return err_set(e, ERR_PERMANENT, "the mailbox has changed while the session was parked");
    for (size_t i = 0; i < ix->ngone; i++)
        if (ix->gone[i].modseq > s->modseq && ix->gone[i].from < s->next_uid)
            gone += (ix->gone[i].to < s->next_uid ? ix->gone[i].to : s->next_uid - 1) -
                    (size_t)ix->gone[i].from + 1;
    while (old < mb->n && mb->msgs[old].uid < s->next_uid)
        old++;
    if (old + gone != s->told_exists)
        return err_set(e, ERR_PERMANENT, "messages of a parked session cannot be told apart");
    if (mailindex_reserve(&mb->rows, mb->n + gone) < 0)
        return err_set(e, ERR_TEMPORARY, "out of memory");
    for (size_t i = 0; i < old; i++) {
        mb->msgs[i].recent = mb->msgs[i].uid >= s->recent_from;
        mb->msgs[i].changed = mb->msgs[i].modseq > s->modseq;
    }
    for (size_t i = 0; i < ix->ngone && gone; i++) {
        if (ix->gone[i].modseq <= s->modseq)
            continue;
        for (uint64_t uid = ix->gone[i].from; uid <= ix->gone[i].to && uid < s->next_uid; uid++) {
            size_t at = mailindex_find(&mb->rows, (uint32_t)uid);
            memmove(&mb->msgs[at + 1], &mb->msgs[at], (mb->n - at) * sizeof *mb->msgs);
            mb->msgs[at] = (struct mailbox_message){.uid = (uint32_t)uid, .gone = true};
            mb->n++;
        }
    }
    mb->news = true;
    ic->told_exists = s->told_exists;
    return 0;
}

static int
select_again(struct icell *ic, const struct state *s, struct str folder, struct err *e)
{
    if (!(s->flags & SELECTED))
        return 0;
    if (mailbox_open(&ic->mb, ic->root_fd, folder, s->flags & READ_ONLY, e) < 0)
        return -1;
    ic->mb_open = true;
    ic->state = ICELL_SELECTED;
    return restore_view(ic, s, e);
}

static bool
is_sealed(struct icell *ic, struct str state)
{
    unsigned char key[HMAC_KEY], seal[HMAC_BYTES];
    if (state.n < sizeof(struct state) + sizeof seal || state.n > PARK_STATE_MAX ||
        read_key(ic->root_fd, key) < 0)
        return false;
    size_t sealed = state.n - sizeof seal;
    hmac_sha256(key, str_sub(state, 0, sealed), seal);
    explicit_bzero(key, sizeof key);
    return hmac_same(seal, (const unsigned char *)state.p + sealed);
}

int
icell_park_read(struct icell *ic, struct str state, int64_t *end_ms_r)
{
    struct state s;
    struct err e = {0};
    uint64_t cookie;
    if (!is_sealed(ic, state))
        return -1;
    memcpy(&s, state.p, sizeof s);
    struct str rest = str_sub(state, sizeof s, state.n - sizeof s - HMAC_BYTES);
    if (s.version != VERSION || rest.n != (size_t)s.tag_n + s.folder_n + s.flags_n ||
        cookie_of(ic->s.fd_in, &cookie) < 0 || cookie != s.cookie)
        return -1;
    ic->message_size_max = s.message_size_max;
    ic->park.after_ms = s.park_ms;
    ic->s.bytes_in = s.bytes_in;
    ic->s.bytes_out = s.bytes_out;
    ic->condstore = s.flags & CONDSTORE;
    ic->qresync = s.flags & QRESYNC;
    ic->rev2 = s.flags & REV2;
    ic->utf8 = s.flags & UTF8;
    ic->charset_free = s.flags & CHARSET_FREE;
    buf_add(&ic->cmd.text, str_sub(rest, 0, s.tag_n));
    ic->cmd.tag = buf_str(&ic->cmd.text);
    buf_add(&ic->told_flags, str_from(rest, (size_t)s.tag_n + s.folder_n));
    *end_ms_r = s.end_ms;
    if (select_again(ic, &s, str_sub(rest, s.tag_n, s.folder_n), &e) < 0) {
        log_warn("%s", e.text);
        stream_putz(&ic->s, "* BYE The mailbox has changed, please reconnect.\r\n");
        ic->bye = "The mailbox has changed while it was parked";
        ic->state = ICELL_LOGOUT;
    }
    return 0;
}

int
icell_resume(struct icell *ic, int client_fd, int root_fd, struct str state)
{
    int64_t end_ms;
    icell_begin(ic, client_fd, root_fd);
    if (icell_park_read(ic, state, &end_ms) < 0)
        return -1;
    if (ic->state != ICELL_LOGOUT) {
        if (ic->mb_open)
            icell_tell(ic, true);
        icell_idle(ic, end_ms);
        icell_answer(ic);
    }
    icell_loop(ic);
    return 0;
}
