#include "lib/mailbox/quota.h"
#include "lib/mailbox/durable.h"
#include "lib/mailbox/folder.h"
#include "lib/mailbox/mailname.h"
#include "lib/mailbox/mailscan.h"
#include "lib/mailbox/mailview.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

static const char file_name[] = "maildirsize";
enum { READ_MAX = 1 << 20 };

/* "1000S,10C"; what is something else is passed over. */
static void
parse_limits(struct str line, struct quota *q)
{
    while (line.n) {
        struct str word = str_trim(str_cut(&line, ','));
        uint64_t n;
        if (word.n < 2 || str_u64(str_sub(word, 0, word.n - 1), INT64_MAX, &n) < 0)
            continue;
        if (word.p[word.n - 1] == 'S')
            q->bytes_max = n;
        else if (word.p[word.n - 1] == 'C')
            q->count_max = n;
    }
}

static int64_t
number(struct str word)
{
    uint64_t n;
    bool minus = str_starts(word, STR("-"));
    if (str_u64(str_from(word, minus), INT64_MAX / 2, &n) < 0)
        return 0;
    return minus ? -(int64_t)n : (int64_t)n;
}

static void
parse(struct str text, struct quota *q)
{
    parse_limits(str_cut(&text, '\n'), q);
    while (text.n) {
        struct str line = str_trim(str_cut(&text, '\n'));
        struct str bytes = str_cut(&line, ' ');
        int64_t b = number(bytes), c = number(str_trim(line));
        if (__builtin_add_overflow(q->bytes, b, &q->bytes))
            q->bytes = INT64_MAX;
        if (__builtin_add_overflow(q->count, c, &q->count))
            q->count = INT64_MAX;
    }
}

static int
read_file(int root_fd, struct quota *q_r, size_t *size_r, struct err *e)
{
    struct buf text = buf_new(READ_MAX);
    *q_r = (struct quota){0};
    int result = durable_read(root_fd, file_name, &text, &q_r->there, e);
    if (result == 0 && q_r->there)
        parse(buf_str(&text), q_r);
    *size_r = text.n;
    buf_free(&text);
    return result;
}

int
quota_read(int root_fd, struct quota *q_r, struct err *e)
{
    size_t size;
    return read_file(root_fd, q_r, &size, e);
}

/* What lies in one of a folder's directories. */
static void
add_dir(int folder_fd, const char *sub, struct quota *q)
{
    struct mailscan s = {0};
    struct stat st;
    int fd = openat(folder_fd, sub, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0 && mailview_list_dir(&s, folder_fd, sub) == 0)
        for (size_t i = 0; i < s.n; i++) {
            uint64_t size = s.at[i].size;
            if (size == UINT64_MAX)
                size = fstatat(fd, mailscan_name(&s, &s.at[i]), &st, AT_SYMLINK_NOFOLLOW) == 0
                           ? (uint64_t)st.st_size
                           : 0;
            q->bytes += (int64_t)(size < INT64_MAX / 4 ? size : 0);
            q->count++;
        }
    if (fd >= 0)
        close(fd);
    mailscan_free(&s);
}

/* Count all there is while nothing comes or goes, and write the file anew. */
static int
count(int root_fd, int lock_fd, struct quota *q, struct err *e)
{
    if (uidfile_lock_room(lock_fd, true, e) < 0)
        return -1;
    struct arena arena = arena_new(32 << 20);
    struct folder_list list;
    struct buf text = buf_new(200);
    int result = folder_list(root_fd, &arena, &list, e);
    q->bytes = q->count = 0;
    for (size_t i = 0; result == 0 && i < list.n; i++) {
        char path[FOLDER_NAME_MAX + 8];
        if (!list.at[i].exists || folder_path(list.at[i].name, path) < 0)
            continue;
        int fd = openat(root_fd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
            continue;
        add_dir(fd, "new", q);
        add_dir(fd, "cur", q);
        close(fd);
    }
    if (q->bytes_max)
        buf_addf(&text, "%lluS", (unsigned long long)q->bytes_max);
    if (q->count_max)
        buf_addf(&text, "%s%lluC", q->bytes_max ? "," : "", (unsigned long long)q->count_max);
    buf_addf(&text, "\n%lld %lld\n", (long long)q->bytes, (long long)q->count);
    if (result == 0)
        result = durable_replace(root_fd, file_name, buf_str(&text), e);
    buf_free(&text);
    arena_free(&arena);
    return result;
}

static bool
is_there(int root_fd)
{
    struct stat st;
    return fstatat(root_fd, file_name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

static int
append(int root_fd, int64_t bytes, int64_t n)
{
    char line[64];
    struct stat st;
    int size = snprintf(line, sizeof line, "%lld %lld\n", (long long)bytes, (long long)n);
    int fd = durable_open_rw(root_fd, file_name, &st);
    if (fd < 0)
        return -1;
    int result = lseek(fd, 0, SEEK_END) < 0 ? -1 : durable_write(fd, str_of(line, (size_t)size));
    close(fd);
    return result;
}

static bool
is_over(const struct quota *q, uint64_t bytes, uint64_t n)
{
    return (q->bytes_max && (bytes > q->bytes_max || q->bytes > (int64_t)(q->bytes_max - bytes))) ||
           (q->count_max && (n > q->count_max || q->count > (int64_t)(q->count_max - n)));
}

int
quota_take(int root_fd, uint64_t bytes, uint64_t n, struct quota_room *r, struct err *e)
{
    struct quota q;
    size_t size;
    *r = (struct quota_room){.root_fd = root_fd, .bytes = bytes, .count = n};
    if (!is_there(root_fd))
        return 0;
    r->lock_fd = mailview_open_lock(root_fd, e);
    if (r->lock_fd < 0)
        return -1;
    int result = uidfile_lock_quota(r->lock_fd, e);
    if (result == 0)
        result = read_file(root_fd, &q, &size, e);
    if (result == 0 && q.there && (size > QUOTA_FILE_MAX || is_over(&q, bytes, n)))
        result = count(root_fd, r->lock_fd, &q, e);
    if (result == 0 && q.there) {
        if (is_over(&q, bytes, n))
            result = err_set(e, ERR_LIMIT, "over quota");
        else if (append(root_fd, (int64_t)bytes, (int64_t)n) < 0)
            result = err_errno(e, "write %s", file_name);
    }
    if (result == 0)
        result = uidfile_lock_room(r->lock_fd, false, e);
    r->held = result == 0 && q.there;
    if (r->held)
        uidfile_unlock_quota(r->lock_fd);
    else
        close(r->lock_fd);
    return result;
}

void
quota_end(struct quota_room *r, bool used)
{
    if (r->held && !used && r->count)
        (void)append(r->root_fd, -(int64_t)r->bytes, -(int64_t)r->count);
    if (r->held)
        close(r->lock_fd);
    *r = (struct quota_room){0};
}

void
quota_hold(int root_fd, struct quota_room *r)
{
    *r = (struct quota_room){.asked = true, .root_fd = root_fd};
    if (!is_there(root_fd))
        return;
    r->lock_fd = mailview_open_lock(root_fd, NULL);
    r->held = r->lock_fd >= 0;
    /* Not had in time: the next counting finds what this makes wrong. */
    if (r->held)
        (void)uidfile_lock_room(r->lock_fd, false, NULL);
}

static bool
has_limits(const struct quota *q, uint64_t bytes_max, uint64_t count_max)
{
    return q->there && q->bytes_max == bytes_max && q->count_max == count_max;
}

void
quota_configure(int root_fd, struct str text)
{
    struct quota q = {0};
    uint64_t bytes_max, count_max;
    struct str bytes = str_cut(&text, ' ');
    if (str_u64(bytes, INT64_MAX, &bytes_max) < 0 || str_u64(text, INT64_MAX, &count_max) < 0 ||
        (!bytes_max && !count_max) || quota_read(root_fd, &q, NULL) < 0 ||
        has_limits(&q, bytes_max, count_max))
        return;
    int lock_fd = mailview_open_lock(root_fd, NULL);
    if (lock_fd < 0)
        return;
    if (uidfile_lock_quota(lock_fd, NULL) == 0 && quota_read(root_fd, &q, NULL) == 0 &&
        !has_limits(&q, bytes_max, count_max)) {
        q.bytes_max = bytes_max;
        q.count_max = count_max;
        (void)count(root_fd, lock_fd, &q, NULL);
    }
    close(lock_fd);
}

void
quota_recount(int root_fd)
{
    struct quota q;
    int lock_fd = is_there(root_fd) ? mailview_open_lock(root_fd, NULL) : -1;
    if (lock_fd < 0)
        return;
    if (uidfile_lock_quota(lock_fd, NULL) == 0 && quota_read(root_fd, &q, NULL) == 0 && q.there)
        (void)count(root_fd, lock_fd, &q, NULL);
    close(lock_fd);
}
