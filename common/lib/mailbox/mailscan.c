#include "lib/mailbox/mailscan.h"
#include "lib/mailbox/mailname.h"
#include "lib/mailbox/mailview.h"
#include "lib/base/sort.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

int
mailscan_rename(int from_fd, const char *from, int to_fd, const char *to)
{
    if (renameat2(from_fd, from, to_fd, to, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != EINVAL && errno != ENOSYS)
        return -1;
    /* A file system without the flag (NFS): link() does not replace either. */
    if (linkat(from_fd, from, to_fd, to, 0) < 0)
        return -1;
    return unlinkat(from_fd, from, 0);
}

static int
add(struct mailscan *s, struct str name, bool in_new)
{
    struct mailname parsed;
    if (mailname_parse(name, &parsed) < 0 || s->n >= MAILBOX_MESSAGES_MAX)
        return 0;
    if (s->n == s->cap) {
        size_t cap = s->cap ? s->cap * 2 : 256;
        struct mailscan_entry *at = reallocarray(s->at, cap, sizeof *at);
        if (!at)
            return -1;
        s->at = at;
        s->cap = cap;
    }
    char *copy = strndup(name.p, name.n);
    if (!copy)
        return -1;
    s->at[s->n++] = (struct mailscan_entry){.name = copy,
                                            .size = parsed.size,
                                            .vsize = parsed.vsize,
                                            .time_s = parsed.time_s,
                                            .uid = parsed.uid,
                                            .validity = parsed.validity,
                                            .keywords = parsed.keywords,
                                            .flags = parsed.flags,
                                            .in_new = in_new,
                                            .recent = in_new};
    return 0;
}

static bool
is_regular(int dir_fd, const struct dirent *d)
{
    struct stat st;
    if (d->d_type != DT_UNKNOWN)
        return d->d_type == DT_REG;
    return fstatat(dir_fd, d->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode);
}

static int
read_dir(struct mailscan *s, int dir_fd, const char *sub, bool in_new, struct err *e)
{
    int fd = openat(dir_fd, sub, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir) {
        err_errno(e, "open %s", sub);
        if (fd >= 0)
            close(fd);
        return -1;
    }
    int result = 0;
    struct dirent *d;
    errno = 0;
    while (result == 0 && (d = readdir(dir))) {
        if (d->d_name[0] != '.' && is_regular(fd, d) && add(s, str_z(d->d_name), in_new) < 0)
            result = err_set(e, ERR_TEMPORARY, "out of memory");
        errno = 0;
    }
    if (result == 0 && errno)
        result = err_errno(e, "list %s", sub);
    closedir(dir);
    return result;
}

int
mailscan_read(struct mailscan *s, const struct mailbox *mb, struct err *e)
{
    if (read_dir(s, mb->dir_fd, "new", true, e) == 0 &&
        read_dir(s, mb->dir_fd, "cur", false, e) == 0)
        return 0;
    mailscan_free(s);
    return -1;
}

int
mailview_list_dir(struct mailscan *s, int dir_fd, const char *sub)
{
    return read_dir(s, dir_fd, sub, true, NULL);
}

void
mailscan_free(struct mailscan *s)
{
    for (size_t i = 0; i < s->n; i++)
        free(s->at[i].name);
    free(s->at);
    *s = (struct mailscan){0};
}

static int
by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

int
mailscan_evidence(const struct mailscan *s, struct uid_evidence *seen_r, struct err *e)
{
    uint32_t *all = calloc(s->n + 1, sizeof *all);
    size_t n = 0, best = 0;
    *seen_r = (struct uid_evidence){0};
    if (!all)
        return err_set(e, ERR_TEMPORARY, "out of memory");
    for (size_t i = 0; i < s->n; i++)
        if (s->at[i].validity)
            all[n++] = s->at[i].validity;
    sort_array(all, n, sizeof *all, by_value);
    for (size_t i = 0, from = 0; i < n; i++) {
        if (all[i] != all[from])
            from = i;
        /* Of equals the later one: UIDVALIDITY must not go back. */
        if (i - from + 1 >= best) {
            best = i - from + 1;
            seen_r->validity = all[i];
        }
    }
    free(all);
    for (size_t i = 0; i < s->n; i++)
        if (s->at[i].validity == seen_r->validity && s->at[i].uid > seen_r->highest)
            seen_r->highest = s->at[i].uid;
    return 0;
}

/* By UID; those without one behind, by the time in their names. */
static int
by_uid(const void *a, const void *b)
{
    const struct mailscan_entry *x = a, *y = b;
    if (x->uid != y->uid)
        return !x->uid ? 1 : !y->uid ? -1 : x->uid < y->uid ? -1 : 1;
    if (!x->uid && x->time_s != y->time_s)
        return x->time_s < y->time_s ? -1 : 1;
    if (x->in_new != y->in_new)
        return x->in_new ? 1 : -1; /* of two sights of one file, the later */
    return strcmp(x->name, y->name);
}

static bool
same_base(const char *a, const char *b)
{
    struct mailname x, y;
    return mailname_parse(str_z(a), &x) == 0 && mailname_parse(str_z(b), &y) == 0 &&
           str_eq(x.base, y.base);
}

static void
forget(struct mailscan_entry *x)
{
    free(x->name);
    x->name = NULL;
}

/* Two names with one UID: one file seen twice while it moved, or a copy made by somebody. */
static void
resolve_doubles(struct mailscan *s, const struct mailbox *mb)
{
    for (size_t i = 1, last = 0; i < s->n; i++) {
        struct mailscan_entry *a = &s->at[last], *b = &s->at[i];
        last = i;
        if (!a->name || !b->name || !a->uid || a->uid != b->uid)
            continue;
        if (!same_base(a->name, b->name)) {
            b->uid = 0; /* a copy: it gets its own */
            last = (size_t)(a - s->at);
            continue;
        }
        struct stat st;
        if (fstatat(b->in_new ? mb->new_fd : mb->cur_fd, b->name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
            forget(b);
            last = (size_t)(a - s->at);
        } else if (fstatat(a->in_new ? mb->new_fd : mb->cur_fd, a->name, &st, AT_SYMLINK_NOFOLLOW) <
                   0) {
            forget(a);
        } else {
            b->uid = 0;
            last = (size_t)(a - s->at);
        }
    }
}

static void
squeeze(struct mailscan *s)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n; i++)
        if (s->at[i].name)
            s->at[n++] = s->at[i];
    s->n = n;
}

/* Rename to the name that says uid, into cur/ unless we only look. */
static int
place(struct mailscan_entry *x, struct mailbox *mb, uint32_t uid, struct err *e)
{
    struct mailname old;
    struct buf name = buf_new(MAILNAME_MAX + 200);
    bool to_new = x->in_new && mb->read_only;
    if (mailname_parse(str_z(x->name), &old) < 0)
        return err_set(e, ERR_TEMPORARY, "bad name");
    mailname_build(&name, &old,
                   &(struct mailname_new){.size = x->size,
                                          .vsize = x->vsize,
                                          .uid = uid,
                                          .validity = mb->uids.validity,
                                          .keywords = x->keywords,
                                          .flags = x->flags,
                                          .info = !to_new});
    const char *to = buf_z(&name);
    int result = 0;
    if (mailscan_rename(x->in_new ? mb->new_fd : mb->cur_fd, x->name,
                        to_new ? mb->new_fd : mb->cur_fd, to) == 0) {
        char *copy = strdup(to);
        forget(x);
        x->name = copy;
        x->uid = uid;
        x->in_new = to_new;
    } else if (errno == ENOENT || errno == EEXIST) {
        forget(x);
    } else {
        result = err_errno(e, "rename a message");
    }
    buf_free(&name);
    return result;
}

static int
give_uids(struct mailscan *s, struct mailbox *mb, struct err *e)
{
    size_t first = 0;
    while (first < s->n && s->at[first].uid)
        first++;
    if (first == s->n)
        return 0;
    uint32_t uid, highest = first ? s->at[first - 1].uid : 0;
    if (uidfile_give(&mb->uids, mb->dir_fd, mb->lock_fd, highest, (uint32_t)(s->n - first), &uid,
                     e) < 0)
        return -1;
    for (size_t i = first; i < s->n; i++)
        if (place(&s->at[i], mb, uid++, e) < 0)
            return -1;
    return 0;
}

int
mailscan_settle(struct mailscan *s, struct mailbox *mb, struct err *e)
{
    for (size_t i = 0; i < s->n; i++)
        if (s->at[i].validity != mb->uids.validity)
            s->at[i].uid = 0;
    sort_array(s->at, s->n, sizeof *s->at, by_uid);
    resolve_doubles(s, mb);
    squeeze(s);
    sort_array(s->at, s->n, sizeof *s->at, by_uid);
    if (give_uids(s, mb, e) < 0)
        return -1;
    for (size_t i = 0; i < s->n && !mb->read_only; i++)
        if (s->at[i].name && s->at[i].in_new && place(&s->at[i], mb, s->at[i].uid, e) < 0)
            return -1;
    squeeze(s);
    return 0;
}
