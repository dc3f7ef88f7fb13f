#include "lib/mailbox/uidfile.h"
#include "lib/base/clock.h"
#include "lib/base/cursor.h"
#include "lib/base/siphash.h"
#include "lib/mailbox/durable.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static const char file_name[] = "bulkhead-uid";
static const char validity_name[] = "bulkhead-uidvalidity";
enum { BYTE_CHANGE, BYTE_HOLD, BYTE_CLAIM, BYTE_VALIDITY, BYTE_QUOTA, BYTE_ROOM };
enum { LINE_MAX_ = 192, WAIT_STEP_MS = 10, BOOT_SLACK_S = 5 };

/* One try, without waiting. */
static int
lock_byte(int fd, short type, off_t at)
{
    struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = at, .l_len = 1};
    return fcntl(fd, F_OFD_SETLK, &l);
}

static int
wait_for(int fd, short type, off_t at, struct err *e)
{
    int64_t deadline = now_ms() + UIDFILE_LOCK_MS;
    while (lock_byte(fd, type, at) < 0) {
        if (errno != EAGAIN && errno != EACCES && errno != EINTR)
            return err_errno(e, "lock the folder");
        if (ms_left(deadline) == 0)
            return err_set(e, ERR_TEMPORARY, "the folder is locked by another process");
        poll(NULL, 0, WAIT_STEP_MS);
    }
    return 0;
}

static int
lock_wait(int fd, off_t at, struct err *e)
{
    return wait_for(fd, F_WRLCK, at, e);
}

int
uidfile_lock_room(int lock_fd, bool alone, struct err *e)
{
    return wait_for(lock_fd, alone ? F_WRLCK : F_RDLCK, BYTE_ROOM, e);
}

void
uidfile_unlock_quota(int lock_fd)
{
    lock_byte(lock_fd, F_UNLCK, BYTE_QUOTA);
}

int
uidfile_lock_quota(int lock_fd, struct err *e)
{
    return lock_wait(lock_fd, BYTE_QUOTA, e);
}

int
uidfile_lock(int lock_fd, struct err *e)
{
    return lock_wait(lock_fd, BYTE_CHANGE, e);
}

void
uidfile_unlock(int lock_fd)
{
    lock_byte(lock_fd, F_UNLCK, BYTE_CHANGE);
}

int
uidfile_claim(int lock_fd, struct err *e)
{
    if (lock_byte(lock_fd, F_WRLCK, BYTE_CLAIM) == 0)
        return 0;
    if (errno == EAGAIN || errno == EACCES)
        return err_set(e, ERR_LIMIT, "the mailbox is in use by another session");
    return err_errno(e, "claim the folder");
}

/* Not secret: it tells a torn or foreign line, not a forged one. */
static uint64_t
checksum(struct str s)
{
    static const struct sipkey key = {"bulkhead-uid/2"};
    return siphash(&key, s);
}

static void
format(const struct uidfile *u, struct buf *line)
{
    buf_addf(line, "bulkhead-uid 2 %010u %010u %010u %020llu %020llu", u->validity, u->next,
             u->mark, (unsigned long long)u->modseq_mark, (unsigned long long)u->boot_s);
    uint64_t sum = checksum(buf_str(line));
    buf_addf(line, " %016llx\n", (unsigned long long)sum);
}

static int
parse(struct str text, struct uidfile *u)
{
    struct uidfile got = {0};
    struct cursor c = cursor_of(text);
    if (!cur_take_str(&c, STR("bulkhead-uid 2 ")) ||
        str_u32(cur_take_n(&c, 10), UINT32_MAX, &got.validity) < 0 || !cur_take(&c, ' ') ||
        str_u32(cur_take_n(&c, 10), UINT32_MAX, &got.next) < 0 || !cur_take(&c, ' ') ||
        str_u32(cur_take_n(&c, 10), UINT32_MAX, &got.mark) < 0 || !cur_take(&c, ' ') ||
        str_u64(cur_take_n(&c, 20), INT64_MAX, &got.modseq_mark) < 0 || !cur_take(&c, ' ') ||
        str_u64(cur_take_n(&c, 20), INT64_MAX, &got.boot_s) < 0)
        return -1;
    char sum[24];
    snprintf(sum, sizeof sum, " %016llx\n", (unsigned long long)checksum(str_sub(text, 0, c.at)));
    if (!str_eq(cur_rest(&c), str_z(sum)) || !got.validity || !got.next || got.mark < got.next)
        return -1;
    u->validity = got.validity;
    u->next = got.next;
    u->mark = got.mark;
    u->modseq_mark = got.modseq_mark;
    u->boot_s = got.boot_s;
    return 0;
}

int
uidfile_read(struct uidfile *u, int dir_fd, struct err *e)
{
    struct buf text = buf_new(LINE_MAX_);
    bool there;
    int result = durable_read(dir_fd, file_name, &text, &there, e);
    if (result == 0 && (!there || parse(buf_str(&text), u) < 0))
        *u = (struct uidfile){.holding = u->holding};
    buf_free(&text);
    return result;
}

/* Replace the line where it lies: within one sector. Torn it would fail its checksum. */
static int
write_line(const struct uidfile *u, int dir_fd, bool sync, struct err *e)
{
    struct buf line = buf_new(LINE_MAX_);
    format(u, &line);
    int fd = openat(dir_fd, file_name, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    int result = 0;
    if (fd < 0 || pwrite(fd, line.p, line.n, 0) != (ssize_t)line.n || (sync && fdatasync(fd) < 0))
        result = err_errno(e, "write %s", file_name);
    if (fd >= 0)
        close(fd);
    buf_free(&line);
    return result;
}

int
uidfile_new_validity(int root_fd, uint32_t above, uint32_t *validity_r, struct err *e)
{
    struct buf text = buf_new(LINE_MAX_);
    bool there;
    uint32_t last = 0;
    int lock_fd = openat(root_fd, "bulkhead-lock",
                         O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
    int result = -1;
    if (lock_fd < 0)
        return err_errno(e, "open bulkhead-lock");
    if (lock_wait(lock_fd, BYTE_VALIDITY, e) < 0 ||
        durable_read(root_fd, validity_name, &text, &there, e) < 0)
        goto out;
    if (there && str_u32(str_trim(buf_str(&text)), UINT32_MAX, &last) < 0)
        last = 0;
    if (above > last)
        last = above;
    int64_t now = wall_s();
    /* The clock may be wrong; what was given before counts more. */
    if (now > last && now < UINT32_MAX)
        last = (uint32_t)now;
    else if (last < UINT32_MAX)
        last++;
    buf_reset(&text);
    buf_addf(&text, "%u\n", last);
    result = durable_replace(root_fd, validity_name, buf_str(&text), e);
    *validity_r = last;
out:
    close(lock_fd);
    buf_free(&text);
    return result;
}

/* Hold byte 1 from now on; when nobody else does, "next" is not to be trusted. */
static int
hold(struct uidfile *u, int lock_fd, struct err *e)
{
    if (u->holding)
        return 0;
    if (lock_byte(lock_fd, F_WRLCK, BYTE_HOLD) == 0)
        u->next = u->mark;
    if (lock_byte(lock_fd, F_RDLCK, BYTE_HOLD) < 0)
        return err_errno(e, "lock the folder's UIDs");
    u->holding = true;
    return 0;
}

/* When this system started. It tells whether what was written without a sync can have been lost. */
static uint64_t
boot_time(void)
{
    struct timespec up;
    clock_gettime(CLOCK_BOOTTIME, &up);
    return (uint64_t)(wall_s() - up.tv_sec);
}

/* A new file takes the place of any that was there; u only follows it. */
static int
put_in_place(struct uidfile *u, const struct uidfile *made, int dir_fd, struct err *e)
{
    struct buf line = buf_new(LINE_MAX_);
    format(made, &line);
    int result = durable_replace(dir_fd, file_name, buf_str(&line), e);
    buf_free(&line);
    if (result == 0)
        *u = *made;
    return result;
}

int
uidfile_make(struct uidfile *u, int dir_fd, int root_fd, int lock_fd,
             const struct uid_evidence *seen, size_t n, struct err *e)
{
    /* Before the mark runs ahead: from here on nobody thinks that we have died. */
    if (hold(u, lock_fd, e) < 0)
        return -1;
    struct uidfile made = {.holding = true, .fresh = true};
    if (seen->validity && seen->highest < UINT32_MAX - 2 * UIDFILE_JUMP) {
        made.validity = seen->validity;
        made.next = seen->highest + UIDFILE_JUMP;
    } else {
        if (uidfile_new_validity(root_fd, seen->validity, &made.validity, e) < 0)
            return -1;
        made.next = 1;
    }
    made.mark = made.next;
    if (n < UIDFILE_JUMP)
        made.mark += (uint32_t)n + UIDFILE_BLOCK;
    /* What was given before is not known: no count of changes can have come as far as the clock. */
    uint64_t base = seen->validity ? (uint64_t)wall_us() : 0;
    made.modseq_mark = base + UIDFILE_MODSEQ_BLOCK;
    made.boot_s = boot_time();
    return put_in_place(u, &made, dir_fd, e);
}

int
uidfile_import(struct uidfile *u, int dir_fd, int root_fd, uint32_t validity, uint32_t next,
               struct err *e)
{
    struct uidfile made = {.validity = validity, .next = next ? next : 1};
    uint32_t beyond;
    made.mark = made.next;
    made.modseq_mark = (uint64_t)wall_us();
    /* What this account gives from now on is greater. */
    if (uidfile_new_validity(root_fd, validity, &beyond, e) < 0)
        return -1;
    return put_in_place(u, &made, dir_fd, e);
}

int
uidfile_give(struct uidfile *u, int dir_fd, int lock_fd, uint32_t highest, uint32_t n,
             uint32_t *first_r, struct err *e)
{
    if (hold(u, lock_fd, e) < 0)
        return -1;
    struct uidfile after = *u;
    uint64_t first = u->next > highest ? u->next : (uint64_t)highest + 1;
    if (first + n + UIDFILE_BLOCK >= UINT32_MAX)
        return err_set(e, ERR_LIMIT, "the folder's UIDs are used up");
    after.next = (uint32_t)(first + n);
    bool ahead = after.next > u->mark;
    if (ahead)
        after.mark = after.next + UIDFILE_BLOCK;
    if (write_line(&after, dir_fd, ahead, e) < 0)
        return -1;
    *u = after;
    *first_r = (uint32_t)first;
    return 0;
}

int
uidfile_modseq(struct uidfile *u, int dir_fd, uint64_t highest, uint64_t *base_r, bool *lost_r,
               struct err *e)
{
    struct uidfile after = *u;
    uint64_t boot = boot_time(), base = highest;
    *lost_r = boot + BOOT_SLACK_S < u->boot_s || boot > u->boot_s + BOOT_SLACK_S;
    if (u->fresh)
        base = u->modseq_mark - UIDFILE_MODSEQ_BLOCK;
    else if ((*lost_r || highest == 0) && u->modseq_mark > base)
        base = u->modseq_mark;
    after.fresh = false;
    if (*lost_r)
        after.boot_s = boot;
    bool ahead = base + 1 > u->modseq_mark;
    if (ahead)
        after.modseq_mark = base + UIDFILE_MODSEQ_BLOCK;
    *base_r = base;
    u->fresh = false;
    if ((ahead || *lost_r) && write_line(&after, dir_fd, ahead, e) < 0)
        return -1;
    *u = after;
    return 0;
}

void
uidfile_close(struct uidfile *u, int lock_fd, int dir_fd)
{
    struct uidfile now = *u;
    /* Under the change lock nobody gives UIDs, and alone on byte 1 nobody has given any that the
     * file does not tell. Whatever goes wrong here costs a block of numbers at most. */
    if (u->holding && lock_byte(lock_fd, F_WRLCK, BYTE_CHANGE) == 0) {
        if (lock_byte(lock_fd, F_WRLCK, BYTE_HOLD) == 0 && uidfile_read(&now, dir_fd, NULL) == 0 &&
            now.validity == u->validity && now.mark > now.next) {
            now.mark = now.next;
            (void)write_line(&now, dir_fd, true, NULL);
        }
        /* In this order: whoever has the change lock must find byte 1 free or shared. */
        lock_byte(lock_fd, F_UNLCK, BYTE_HOLD);
        lock_byte(lock_fd, F_UNLCK, BYTE_CHANGE);
    }
    u->holding = false;
}
