#include "lib/mailbox/mailscan.h"
#include "lib/mailbox/mailadopt.h"
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

enum { NAMES_GUESS_MAX = 64 << 20 };

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
    char *to = buf_reserve(&s->names, name.n + 1);
    if (!to)
        return -1;
    memcpy(to, name.p, name.n);
    to[name.n] = '\0';
    uint32_t time_s = parsed.time_s > UINT32_MAX ? UINT32_MAX : (uint32_t)parsed.time_s;
    s->at[s->n++] = (struct mailscan_entry){.name_at = (uint32_t)s->names.n,
                                            .size = parsed.size,
                                            .vsize = parsed.vsize,
                                            .time_s = time_s,
                                            .uid = parsed.uid,
                                            .validity = parsed.validity,
                                            .keywords = parsed.keywords,
                                            .flags = parsed.flags,
                                            .base_n = (uint8_t)parsed.base.n,
                                            .in_new = in_new,
                                            .recent = in_new};
    buf_commit(&s->names, name.n + 1);
    return 0;
}

const char *
mailscan_name(const struct mailscan *s, const struct mailscan_entry *x)
{
    return s->names.p + x->name_at;
}

static struct str
base_of(const struct mailscan *s, const struct mailscan_entry *x)
{
    return str_of(mailscan_name(s, x), x->base_n);
}

static bool
is_regular(int dir_fd, const struct dirent *d)
{
    struct stat st;
    if (d->d_type != DT_UNKNOWN)
        return d->d_type == DT_REG;
    return fstatat(dir_fd, d->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode);
}

/* For the names, at once as far as the directory's size tells: to grow is to copy. */
static int
make_room(struct mailscan *s, int fd)
{
    struct stat st;
    size_t guess = fstat(fd, &st) == 0 && st.st_size > 0 ? 4 * (size_t)st.st_size : 0;
    if (s->names.max == 0)
        s->names = buf_new(UINT32_MAX);
    return buf_reserve(&s->names, guess < NAMES_GUESS_MAX ? guess : NAMES_GUESS_MAX) ? 0 : -1;
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
    int result = make_room(s, fd) < 0 ? err_set(e, ERR_TEMPORARY, "out of memory") : 0;
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
mailscan_read(struct mailscan *s, const struct mailbox *mb, bool whole, struct err *e)
{
    if (read_dir(s, mb->dir_fd, "new", true, e) == 0 &&
        (!whole || read_dir(s, mb->dir_fd, "cur", false, e) == 0))
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
    free(s->at);
    buf_free(&s->names);
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

struct named {
    const char *name;
    size_t base_n;
    struct sort_pair key;
};

/* Those of one base together. */
static int
by_name(const void *a, const void *b)
{
    const struct named *x = a, *y = b;
    int c = memcmp(x->name, y->name, x->base_n < y->base_n ? x->base_n : y->base_n);
    if (c || x->base_n != y->base_n)
        return c ? c : x->base_n < y->base_n ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* Those of one second by their names. */
static int
sort_ties(const struct mailscan *s, struct sort_pair *keys, size_t n)
{
    struct named *ties = NULL;
    for (size_t from = 0, to = 0; from < n; from = to) {
        while (to < n && keys[to].key == keys[from].key)
            to++;
        if (to - from < 2)
            continue;
        if (!ties && !(ties = calloc(n, sizeof *ties)))
            return -1;
        for (size_t k = from; k < to; k++) {
            const struct mailscan_entry *x = &s->at[keys[k].value];
            ties[k] = (struct named){mailscan_name(s, x), x->base_n, keys[k]};
        }
        sort_array(ties + from, to - from, sizeof *ties, by_name);
        for (size_t k = from; k < to; k++)
            keys[k] = ties[k].key;
    }
    free(ties);
    return 0;
}

/* The entries that keys tell, in their order, the others behind: each is moved once. */
static void
arrange(struct mailscan *s, const struct sort_pair *keys, size_t n, struct sort_pair *room)
{
    /* room[i].value: where entry i belongs. */
    for (size_t i = 0; i < s->n; i++)
        room[i].value = UINT64_MAX;
    for (size_t k = 0; k < n; k++)
        room[keys[k].value].value = k;
    for (size_t i = 0, rest = n; i < s->n; i++)
        if (room[i].value == UINT64_MAX)
            room[i].value = rest++;
    for (size_t i = 0; i < s->n; i++)
        while (room[i].value != i) {
            size_t to = (size_t)room[i].value;
            struct mailscan_entry hold = s->at[to];
            s->at[to] = s->at[i];
            s->at[i] = hold;
            room[i].value = room[to].value;
            room[to].value = to;
        }
    s->n = n;
}

/* By UID, those without one behind, by time. Keys are sorted, not entries. */
static int
sort_entries(struct mailscan *s)
{
    struct sort_pair *keys = calloc(s->n + 1, sizeof *keys);
    struct sort_pair *room = calloc(s->n + 1, sizeof *room);
    size_t n = 0, m = 0;
    int result = keys && room ? 0 : -1;
    for (size_t i = 0; result == 0 && i < s->n; i++)
        if (!s->at[i].lost && s->at[i].uid)
            /* Of two sights of one file that in new/ is the later one in the order. */
            keys[n++] = (struct sort_pair){s->at[i].uid, i};
    for (size_t i = 0; result == 0 && i < s->n; i++)
        if (!s->at[i].lost && !s->at[i].uid)
            keys[n + m++] = (struct sort_pair){s->at[i].time_s, i};
    if (result == 0) {
        sort_pairs(keys, room, n);
        sort_pairs(keys + n, room, m);
        result = sort_ties(s, keys + n, m);
    }
    if (result == 0)
        arrange(s, keys, n + m, room);
    free(keys);
    free(room);
    return result;
}

static bool
same_base(const struct mailscan *s, const struct mailscan_entry *a, const struct mailscan_entry *b)
{
    return str_eq(base_of(s, a), base_of(s, b));
}

static bool
is_there(const struct mailscan *s, const struct mailbox *mb, const struct mailscan_entry *x)
{
    struct stat st;
    return fstatat(x->in_new ? mb->new_fd : mb->cur_fd, mailscan_name(s, x), &st,
                   AT_SYMLINK_NOFOLLOW) == 0;
}

/* A rename of which a power cut has left both names, as file systems without a journal may: one of
 * them goes. Two files of one base, even if they are the same to the last bit, are never touched.
 */
static bool
is_torn_rename(const struct mailscan *s, const struct mailbox *mb, const struct mailscan_entry *a,
               const struct mailscan_entry *b)
{
    struct stat x, y;
    int fd_a = a->in_new ? mb->new_fd : mb->cur_fd, fd_b = b->in_new ? mb->new_fd : mb->cur_fd;
    return !mb->read_only && fstatat(fd_a, mailscan_name(s, a), &x, AT_SYMLINK_NOFOLLOW) == 0 &&
           fstatat(fd_b, mailscan_name(s, b), &y, AT_SYMLINK_NOFOLLOW) == 0 &&
           x.st_dev == y.st_dev && x.st_ino == y.st_ino && x.st_nlink > 1 &&
           unlinkat(fd_b, mailscan_name(s, b), 0) == 0;
}

/* Two names with one UID: one file seen twice while it moved, or a copy made by somebody. */
static bool
resolve_doubles(struct mailscan *s, const struct mailbox *mb)
{
    bool any = false;
    for (size_t i = 1, last = 0; i < s->n; i++) {
        struct mailscan_entry *a = &s->at[last], *b = &s->at[i];
        if (!a->uid || a->uid != b->uid) {
            last = i;
            continue;
        }
        any = true;
        bool same = same_base(s, a, b);
        if (same && !is_there(s, mb, b)) {
            b->lost = true;
        } else if (same && !is_there(s, mb, a)) {
            a->lost = true;
            last = i;
        } else if (same && is_torn_rename(s, mb, a, b)) {
            b->lost = true;
        } else {
            b->uid = 0; /* a copy: it gets its own */
            b->bare = false;
        }
    }
    return any;
}

/* Rename to the name that says uid, into cur/ unless we only look. */
static int
place(struct mailscan *s, struct mailscan_entry *x, struct mailbox *mb, uint32_t uid, struct err *e)
{
    struct mailname old;
    struct buf name = buf_new(MAILNAME_MAX + 200);
    const char *from = mailscan_name(s, x);
    bool to_new = x->in_new && mb->read_only;
    if (mailname_parse(str_z(from), &old) < 0)
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
    if (mailview_rename(mb, x->in_new ? mb->new_fd : mb->cur_fd, from,
                        to_new ? mb->new_fd : mb->cur_fd, to) == 0) {
        x->name_at = (uint32_t)s->names.n;
        x->base_n = (uint8_t)mailname_base(buf_str(&name)).n;
        buf_add(&s->names, buf_str(&name));
        buf_addc(&s->names, '\0');
        x->uid = uid;
        x->bare = false;
        x->in_new = to_new;
        if (!buf_ok(&s->names))
            result = err_set(e, ERR_TEMPORARY, "out of memory");
    } else if (errno == ENOENT || errno == EEXIST) {
        x->lost = true;
        s->vanished |= errno == ENOENT;
    } else {
        result = err_errno(e, "rename a message");
    }
    buf_free(&name);
    return result;
}

int
mailscan_take_adopted(struct mailscan *s, const struct mailbox *mb, struct err *e)
{
    struct mailadopt list;
    if (mailadopt_load(&list, mb->dir_fd, e) < 0)
        return -1;
    bool owed = false;
    for (size_t i = 0; list.validity && i < s->n; i++) {
        struct mailscan_entry *x = &s->at[i];
        if (x->in_new || (x->uid && x->validity == list.validity))
            continue;
        uint32_t uid = mailadopt_find(&list, base_of(s, x));
        if (uid) {
            x->uid = uid;
            x->validity = list.validity;
            owed = x->bare = true;
        }
    }
    if (list.validity && !owed)
        mailadopt_end(mb->dir_fd, mb->cur_fd);
    mailadopt_free(&list);
    return 0;
}

/* Those that may be renamed later get their UIDs in the list: uid and following are for the entries
 * from first on, of which those of one base lie together. What cannot be done so is left to be
 * renamed now. */
static void
adopt(struct mailscan *s, const struct mailbox *mb, size_t first, uint32_t uid)
{
    struct mailadopt list = {0};
    size_t n = 0;
    bool old = false;
    for (size_t i = 0; i < first; i++)
        old |= s->at[i].bare;
    for (size_t i = first; i < s->n; i++)
        n += !s->at[i].in_new && !s->at[i].lost;
    if (n < MAILSCAN_ADOPT_MIN || mailadopt_begin(&list, mb->uids.validity, s->n + 1, old) < 0)
        return;
    for (size_t i = 0; i < s->n; i++) {
        struct mailscan_entry *x = &s->at[i];
        if (i >= first)
            x->bare = !x->in_new && !x->lost && !(i > first && same_base(s, x - 1, x)) &&
                      mailadopt_add(&list, base_of(s, x), uid + (uint32_t)(i - first)) == 0;
        else if (x->bare)
            (void)mailadopt_add(&list, base_of(s, x), x->uid);
    }
    bool done = mailadopt_write(&list, mb->dir_fd, NULL) == 0;
    for (size_t i = first; i < s->n; i++) {
        s->at[i].bare &= done;
        if (s->at[i].bare) {
            s->at[i].uid = uid + (uint32_t)(i - first);
            s->at[i].validity = mb->uids.validity;
        }
    }
    mailadopt_free(&list);
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
    if (mb->n && mb->msgs[mb->n - 1].uid > highest)
        highest = mb->msgs[mb->n - 1].uid;
    if (mb->ix.state.next_uid && mb->ix.state.next_uid - 1 > highest)
        highest = mb->ix.state.next_uid - 1;
    if (uidfile_give(&mb->uids, mb->dir_fd, mb->lock_fd, highest, (uint32_t)(s->n - first), &uid,
                     e) < 0)
        return -1;
    adopt(s, mb, first, uid);
    for (size_t i = first; i < s->n; i++, uid++)
        if (!s->at[i].bare && place(s, &s->at[i], mb, uid, e) < 0)
            return -1;
    return 0;
}

/* A UID that counts: of this folder, and if the index has accounted for it, of a message that is
 * still there. What was expunged and is put back by a foreign program is a new message (RFC 3501
 * 2.3.1.1). */
static bool
uid_counts(const struct mailscan_entry *x, const struct mailbox *mb)
{
    if (x->validity != mb->uids.validity)
        return false;
    if (!mb->indexed || x->uid >= mb->ix.state.next_uid)
        return true;
    size_t i = mailindex_find(&mb->rows, x->uid);
    return i < mb->n && mb->msgs[i].uid == x->uid && !mb->msgs[i].gone;
}

int
mailscan_settle(struct mailscan *s, struct mailbox *mb, struct err *e)
{
    for (size_t i = 0; i < s->n; i++)
        if (!uid_counts(&s->at[i], mb)) {
            s->at[i].uid = 0;
            s->at[i].bare = false;
        }
    if (sort_entries(s) < 0 || (resolve_doubles(s, mb) && sort_entries(s) < 0))
        return err_set(e, ERR_TEMPORARY, "out of memory");
    if (give_uids(s, mb, e) < 0)
        return -1;
    bool lost = false;
    for (size_t i = 0; i < s->n; i++) {
        if (!mb->read_only && !s->at[i].lost && s->at[i].in_new &&
            place(s, &s->at[i], mb, s->at[i].uid, e) < 0)
            return -1;
        lost |= s->at[i].lost;
    }
    /* UIDs were given in order: only holes are to be closed. */
    return lost && sort_entries(s) < 0 ? err_set(e, ERR_TEMPORARY, "out of memory") : 0;
}
