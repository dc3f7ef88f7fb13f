/* Changing messages: flags, expunge, copy; and opening one, which has to find it first. */
#include "lib/base/clock.h"
#include "lib/mailbox/durable.h"
#include "lib/mailbox/mailadopt.h"
#include "lib/mailbox/mailfile.h"
#include "lib/mailbox/mailname.h"
#include "lib/mailbox/mailscan.h"
#include "lib/mailbox/mailview.h"
#include "lib/mailbox/quota.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

enum { FIND_TRIES = 5, PAY_BATCH = 200 };

static int
dir_of(const struct mailbox *mb, const struct mailbox_message *m)
{
    return m->in_new ? mb->new_fd : mb->cur_fd;
}

int
mailview_reserve(struct mailbox *mb, uint32_t n, uint32_t *first_r, struct err *e)
{
    uint32_t highest = mb->n ? mb->msgs[mb->n - 1].uid : 0;
    if (mailview_begin(mb, e) < 0)
        return -1;
    /* Lost: the listing makes it again. */
    if (!mb->uids.validity && mailview_relist(mb, e) < 0)
        goto fail;
    if (mb->uids.validity != mb->validity) {
        err_set(e, ERR_PERMANENT, "UIDVALIDITY has changed");
        goto fail;
    }
    if (mb->ix.state.next_uid && mb->ix.state.next_uid - 1 > highest)
        highest = mb->ix.state.next_uid - 1;
    if (uidfile_give(&mb->uids, mb->dir_fd, mb->lock_fd, highest, n, first_r, e) == 0)
        return 0;
fail:
    mailview_end(mb);
    return -1;
}

static int
relist(struct mailbox *mb, struct err *e)
{
    if (mailview_begin(mb, e) < 0)
        return -1;
    mb->suspect = true;
    int result = mailview_relist(mb, e);
    mailview_end(mb);
    return result;
}

/* The name and what the file is; -1 with errno, ENOENT also when the name is not known. */
static int
open_by_name(struct mailbox *mb, size_t i, struct stat *st_r)
{
    struct buf name = buf_new(MAILNAME_MAX + 1);
    int fd = -1;
    errno = ENOENT;
    if (mailbox_name(mb, i, &name) == 0)
        fd = durable_open(dir_of(mb, &mb->msgs[i]), buf_z(&name), st_r);
    int why = errno;
    buf_free(&name);
    errno = why;
    return fd;
}

int
mailbox_open_message(struct mailbox *mb, size_t i, struct err *e)
{
    for (int tries = 0; tries < FIND_TRIES; tries++) {
        struct stat st;
        if (mb->msgs[i].gone)
            return err_set(e, ERR_PERMANENT, "the message has been expunged");
        int fd = open_by_name(mb, i, &st);
        if (fd >= 0) {
            mb->msgs[i].size = (uint64_t)st.st_size;
            mb->msgs[i].date_s = st.st_mtim.tv_sec;
            return fd;
        }
        if (errno != ENOENT)
            return err_errno(e, "open a message");
        /* Renamed by somebody: its UID finds it. */
        if ((tries ? relist(mb, e) : mailbox_refresh(mb, e)) < 0)
            return -1;
    }
    return err_set(e, ERR_TEMPORARY, "the message is renamed all the time");
}

int64_t
mailbox_date(struct mailbox *mb, size_t i)
{
    struct stat st;
    struct mailname parsed;
    struct buf name = buf_new(MAILNAME_MAX + 1);
    struct mailbox_message *m = &mb->msgs[i];
    if (!m->date_s && mailbox_name(mb, i, &name) == 0) {
        if (fstatat(dir_of(mb, m), buf_z(&name), &st, AT_SYMLINK_NOFOLLOW) == 0) {
            m->date_s = st.st_mtim.tv_sec;
            m->size = (uint64_t)st.st_size;
            mailview_learnt(mb, i);
        } else if (mailname_parse(buf_str(&name), &parsed) == 0) {
            m->date_s = parsed.time_s;
        }
    }
    buf_free(&name);
    return m->date_s;
}

/* The message's name with these flags, and with the sizes we know. old is the one it has. */
static void
new_name(const struct mailbox *mb, const struct mailbox_message *m, struct str old_name,
         uint8_t flags, uint32_t keywords, bool info, struct buf *name)
{
    struct mailname old;
    buf_reset(name);
    if (mailname_parse(old_name, &old) < 0)
        return;
    mailname_build(name, &old,
                   &(struct mailname_new){.size = m->size,
                                          .vsize = m->vsize,
                                          .uid = m->uid,
                                          .validity = mb->validity,
                                          .flags = flags,
                                          .keywords = keywords,
                                          .info = info});
}

int
mailbox_keyword(struct mailbox *mb, struct str name, int *number_r, struct err *e)
{
    *number_r = keywords_find(&mb->keywords, name);
    if (*number_r >= 0)
        return 0;
    if (mailview_begin(mb, e) < 0)
        return -1;
    int result = keywords_add(&mb->keywords, mb->dir_fd, name, number_r, e);
    mailview_end(mb);
    return result;
}

/* Rename message i to what its row says, and tell the index. The row has the old flags still. 0
 * done; 1 it is not there under its name any more; -1 with e. */
static int
rename_row(struct mailbox *mb, size_t i, uint8_t flags, uint32_t keywords, bool to_new,
           struct err *e)
{
    struct buf old = buf_new(MAILNAME_MAX + 1), name = buf_new(MAILNAME_MAX + 200);
    struct mailbox_message *m = &mb->msgs[i];
    int result = 1;
    if (mailbox_name(mb, i, &old) < 0)
        goto out;
    new_name(mb, m, buf_str(&old), flags, keywords, !to_new, &name);
    bool same = str_eq(buf_str(&name), buf_str(&old)) && m->in_new == to_new;
    result = 0;
    if (!same && mailview_rename(mb, dir_of(mb, m), buf_z(&old), to_new ? mb->new_fd : mb->cur_fd,
                                 buf_z(&name)) < 0)
        result = errno == ENOENT ? 1 : err_errno(e, "rename a message");
    if (result != 0 || (same && !m->owed))
        goto out;
    mb->direct++;
    bool told = m->flags != flags || m->keywords != keywords;
    bool was_odd = m->odd, was_new = m->in_new;
    mb->ix.recount |= m->bare || m->owed;
    m->bare = m->owed = false;
    m->flags = flags;
    m->keywords = keywords;
    m->in_new = to_new;
    mb->ix.recount |= told || was_new != to_new;
    if (told)
        m->modseq = mailview_modseq(mb);
    /* When only the flags differ, the name that is kept is still right. */
    size_t head = 0;
    while (head < old.n && head < name.n && old.p[head] == name.p[head] && old.p[head] != ':')
        head++;
    bool same_head =
        (head == old.n || old.p[head] == ':') && (head == name.n || name.p[head] == ':');
    if (mb->ix.fd < 0)
        (void)mailindex_set_name(&mb->ix, m, buf_str(&name));
    else if (same_head && !was_odd && !to_new && (!was_new || head == old.n))
        mailindex_put_flags(&mb->ix, m);
    else
        mailindex_put_record(&mb->ix, m, buf_str(&name));
out:
    buf_free(&old);
    buf_free(&name);
    return result;
}

bool
mailview_pay_names(struct mailbox *mb)
{
    int result = 0;
    if (mailview_begin(mb, NULL) < 0)
        return false;
    for (int n = 0; n < PAY_BATCH && mb->owed_from < mb->n && result == 0; mb->owed_from++) {
        const struct mailbox_message *m = &mb->msgs[mb->owed_from];
        if ((!m->bare && !m->owed) || m->gone)
            continue;
        result = rename_row(mb, mb->owed_from, m->flags, m->keywords, m->in_new, NULL);
        n++;
    }
    mailview_end(mb);
    if (mb->ix.fd < 0 || result != 0)
        return false;
    /* Under the lock, since nobody may adopt meanwhile. */
    if (!mb->ix.state.counts.owed && mailview_begin(mb, NULL) == 0) {
        if (!mb->ix.state.counts.owed)
            mailadopt_end(mb->dir_fd, mb->cur_fd);
        mailview_end(mb);
    }
    mb->owes &= mb->ix.state.counts.owed > 0;
    return mb->owed_from < mb->n && mb->ix.state.counts.owed;
}

/* Whether the rename can follow later: the index is known to describe the folder and will be told,
 * and the name that it makes from its record is the file's. */
static bool
may_owe(const struct mailbox *mb, const struct mailbox_message *m)
{
    return mb->direct >= MAILBOX_DIRECT && mb->guard.clean && mb->ix.fd >= 0 && mb->indexed &&
           !mb->ix.torn && !m->in_new && !m->odd;
}

/* Renames take the kernel longer than all the rest of a STORE. */
static void
owe_row(struct mailbox *mb, size_t i, uint8_t flags, uint32_t keywords)
{
    struct mailbox_message *m = &mb->msgs[i];
    const uint32_t is = mailview_pack(m->flags, m->keywords), to = mailview_pack(flags, keywords);
    if (is == to)
        return;
    if (!m->owed)
        m->named = is;
    m->owed = m->named != to;
    m->flags = flags;
    m->keywords = keywords;
    m->modseq = mailview_modseq(mb);
    mailindex_put_flags(&mb->ix, m);
    mb->owes = true;
    if (i < mb->owed_from)
        mb->owed_from = i;
}

static int
store_once(struct mailbox *mb, size_t i, enum mailbox_store_op op, uint8_t flags, uint32_t keywords,
           struct err *e)
{
    struct mailbox_message *m = &mb->msgs[i];
    uint8_t f = op == MAILBOX_ADD      ? m->flags | flags
                : op == MAILBOX_REMOVE ? m->flags & (uint8_t)~flags
                                       : flags;
    uint32_t k = op == MAILBOX_ADD      ? m->keywords | keywords
                 : op == MAILBOX_REMOVE ? m->keywords & ~keywords
                                        : keywords;
    if (may_owe(mb, m)) {
        owe_row(mb, i, f, k);
        return 0;
    }
    return rename_row(mb, i, f, k, false, e);
}

int
mailbox_store(struct mailbox *mb, size_t i, enum mailbox_store_op op, uint8_t flags,
              uint32_t keywords, struct err *e)
{
    if (mailview_begin(mb, e) < 0)
        return -1;
    int result = 1;
    for (int tries = 0; result == 1 && tries < FIND_TRIES; tries++) {
        if (mb->msgs[i].gone) {
            result = 0;
            break;
        }
        result = store_once(mb, i, op, flags, keywords, e);
        if (result == 1 && relist(mb, e) < 0)
            result = -1;
    }
    mailview_end(mb);
    return result == 1 ? err_set(e, ERR_TEMPORARY, "the message is renamed all the time") : result;
}

int
mailbox_vsize(struct mailbox *mb, size_t i, uint64_t *vsize_r, struct err *e)
{
    if (mb->msgs[i].vsize != MAILBOX_SIZE_UNKNOWN) {
        *vsize_r = mb->msgs[i].vsize;
        return 0;
    }
    int fd = mailbox_open_message(mb, i, e);
    if (fd < 0)
        return -1;
    int result = mailfile_measure(fd, &mb->msgs[i].size, vsize_r, e);
    close(fd);
    if (result < 0)
        return -1;
    mb->msgs[i].vsize = *vsize_r;
    mailview_learnt(mb, i);
    /* Tell the name, so that nobody has to read the file for this again; if that cannot be, no
     * harm. */
    if (!mb->read_only && mailview_begin(mb, NULL) == 0) {
        const struct mailbox_message *m = &mb->msgs[i];
        if (!m->gone)
            (void)rename_row(mb, i, m->flags, m->keywords, m->in_new, NULL);
        mailview_end(mb);
    }
    return 0;
}

void
mailbox_tell_vsize(struct mailbox *mb, size_t i, uint64_t vsize)
{
    if (mb->msgs[i].vsize == vsize)
        return;
    mb->msgs[i].vsize = vsize;
    mailview_learnt(mb, i);
}

static uint64_t
size_on_disk(const struct mailbox *mb, const struct mailbox_message *m, const char *name)
{
    struct stat st;
    if (m->size != MAILBOX_SIZE_UNKNOWN)
        return m->size;
    return fstatat(dir_of(mb, m), name, &st, AT_SYMLINK_NOFOLLOW) == 0 ? (uint64_t)st.st_size : 0;
}

enum removal { REMOVE_DELETED, REMOVE_ANY, REMOVE_MOVED };

static int
remove_once(struct mailbox *mb, size_t i, enum removal how, struct err *e)
{
    struct mailbox_message *m = &mb->msgs[i];
    struct buf name = buf_new(MAILNAME_MAX + 1);
    int result = 1;
    if (mailbox_name(mb, i, &name) == 0) {
        uint64_t size = size_on_disk(mb, m, buf_z(&name));
        if (!mb->freed.asked && how != REMOVE_MOVED)
            quota_hold(mb->root_fd, &mb->freed);
        if (unlinkat(dir_of(mb, m), buf_z(&name), 0) == 0) {
            mb->guard.expect++;
            if (how != REMOVE_MOVED) {
                mb->freed.bytes += size;
                mb->freed.count++;
            }
            m->gone = mb->news = true;
            mailindex_put_gone(&mb->ix, m->uid, mailview_modseq(mb));
            result = 0;
        } else if (errno != ENOENT) {
            result = err_errno(e, "remove a message");
        }
    }
    buf_free(&name);
    return result;
}

static int
remove_message(struct mailbox *mb, size_t i, enum removal how, struct err *e)
{
    if (mailview_begin(mb, e) < 0)
        return -1;
    int result = 1;
    for (int tries = 0; result == 1 && tries < FIND_TRIES; tries++) {
        struct mailbox_message *m = &mb->msgs[i];
        if (m->gone || (how == REMOVE_DELETED && !(m->flags & MAILBOX_DELETED)))
            result = 0;
        else
            result = remove_once(mb, i, how, e);
        if (result == 1 && relist(mb, e) < 0)
            result = -1;
    }
    mailview_end(mb);
    return result == 1 ? err_set(e, ERR_TEMPORARY, "the message is renamed all the time") : result;
}

int
mailbox_expunge(struct mailbox *mb, size_t i, struct err *e)
{
    return remove_message(mb, i, REMOVE_DELETED, e);
}

int
mailbox_unlink(struct mailbox *mb, size_t i, struct err *e)
{
    return remove_message(mb, i, REMOVE_ANY, e);
}

int
mailbox_unlink_moved(struct mailbox *mb, size_t i, struct err *e)
{
    return remove_message(mb, i, REMOVE_MOVED, e);
}

/* ---- copy ---- */

static uint32_t
map_keywords(const struct mailbox *from, uint32_t bits, struct mailbox *to)
{
    uint32_t mapped = 0;
    for (int k = 0; k < KEYWORDS_MAX; k++) {
        int number;
        if ((bits >> k & 1) && from->keywords.name[k][0] &&
            keywords_add(&to->keywords, to->dir_fd, str_z(from->keywords.name[k]), &number, NULL) ==
                0)
            mapped |= 1u << number;
    }
    return mapped;
}

/* The content of fd as a new file of dir_fd, when a link cannot be made. */
static int
copy_file(int from_fd, int dir_fd, const char *name, struct err *e)
{
    struct stat st;
    char piece[32768];
    int fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0 || fstat(from_fd, &st) < 0)
        goto fail;
    for (off_t at = 0;;) {
        ssize_t n = pread(from_fd, piece, sizeof piece, at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 || (n > 0 && durable_write(fd, str_of(piece, (size_t)n)) < 0))
            goto fail;
        if (n == 0)
            break;
        at += n;
    }
    if (futimens(fd, (struct timespec[2]){{.tv_nsec = UTIME_NOW}, st.st_mtim}) < 0 || fsync(fd) < 0)
        goto fail;
    close(fd);
    return 0;
fail:
    err_errno(e, "copy a message");
    if (fd >= 0) {
        unlinkat(dir_fd, name, 0);
        close(fd);
    }
    return -1;
}

/* The copy's row; its name and its place in the file's directory. */
struct copy {
    struct mailbox_message m;
    struct buf name;
};

static void
name_copy(struct mailbox *from, size_t i, struct mailbox *to, uint32_t uid, const struct stat *st,
          struct copy *c)
{
    struct buf base = buf_new(100);
    struct mailname fresh = {.size = UINT64_MAX, .vsize = UINT64_MAX};
    mailname_fresh(&base, 0);
    fresh.base = buf_str(&base);
    fresh.fields = fresh.info = str_of("", 0);
    c->m = (struct mailbox_message){.uid = uid,
                                    .size = (uint64_t)st->st_size,
                                    .vsize = from->msgs[i].vsize,
                                    .flags = from->msgs[i].flags,
                                    .keywords = map_keywords(from, from->msgs[i].keywords, to),
                                    .date_s = st->st_mtim.tv_sec,
                                    .saved_s = (uint32_t)wall_s()};
    mailname_build(&c->name, &fresh,
                   &(struct mailname_new){.size = c->m.size,
                                          .vsize = c->m.vsize,
                                          .uid = uid,
                                          .validity = to->uids.validity,
                                          .flags = c->m.flags,
                                          .keywords = c->m.keywords,
                                          .info = true});
    buf_free(&base);
}

/* Under to's lock: so it must not take from's. 1: the file is not under its name any more. */
static int
copy_one(struct mailbox *from, size_t i, struct mailbox *to, uint32_t uid, struct copy *c,
         struct err *e)
{
    struct stat st;
    struct buf old = buf_new(MAILNAME_MAX + 1);
    int result = 1, dir = dir_of(from, &from->msgs[i]), fd = open_by_name(from, i, &st);
    if (fd < 0)
        return errno == ENOENT ? 1 : err_errno(e, "open a message");
    name_copy(from, i, to, uid, &st, c);
    if (mailbox_name(from, i, &old) < 0)
        result = 1;
    else if (linkat(dir, buf_z(&old), to->cur_fd, buf_z(&c->name), 0) == 0)
        result = 0;
    else if (errno == ENOSPC || errno == EDQUOT)
        result = err_errno(e, "link a message");
    else
        result = errno == ENOENT ? 1 : copy_file(fd, to->cur_fd, buf_z(&c->name), e);
    to->guard.expect += result == 0;
    close(fd);
    buf_free(&old);
    return result;
}

static void
undo_copies(struct mailbox *to, struct copy *copies, size_t n)
{
    for (size_t k = 0; k < n; k++)
        if (unlinkat(to->cur_fd, buf_z(&copies[k].name), 0) == 0)
            to->guard.expect++;
}

/* All, or none: 0; 1 when a file was renamed meanwhile; -1. The lock is held all the while: who
 * lists the folder sees UIDs and files together. */
static int
copy_all(struct mailbox *from, const size_t *indices, size_t n, struct mailbox *to,
         uint32_t *first_uid_r, struct err *e)
{
    size_t done = 0;
    int result = 0;
    struct copy *copies = calloc(n, sizeof *copies);
    if (!copies)
        return err_set(e, ERR_TEMPORARY, "out of memory");
    if (mailview_reserve(to, (uint32_t)n, first_uid_r, e) < 0) {
        free(copies);
        return -1;
    }
    for (; result == 0 && done < n; done++) {
        copies[done].name = buf_new(MAILNAME_MAX + 200);
        result = copy_one(from, indices[done], to, *first_uid_r + (uint32_t)done, &copies[done], e);
    }
    if (result == 0 && fsync(to->cur_fd) < 0)
        result = err_errno(e, "sync the folder");
    if (result != 0)
        undo_copies(to, copies, done);
    for (size_t k = 0; k < done; k++) {
        if (result == 0)
            mailview_added(to, &copies[k].m, buf_str(&copies[k].name));
        buf_free(&copies[k].name);
    }
    mailview_end(to);
    free(copies);
    return result;
}

static uint64_t
size_of(struct mailbox *mb, const size_t *indices, size_t n)
{
    uint64_t bytes = 0;
    struct buf name = buf_new(MAILNAME_MAX + 1);
    for (size_t k = 0; k < n; k++)
        if (mb->msgs[indices[k]].size != MAILBOX_SIZE_UNKNOWN ||
            mailbox_name(mb, indices[k], &name) == 0)
            bytes += size_on_disk(mb, &mb->msgs[indices[k]], buf_z(&name));
    buf_free(&name);
    return bytes;
}

int
mailbox_copy(struct mailbox *from, const size_t *indices, size_t n, bool move, struct mailbox *to,
             uint32_t *first_uid_r, struct err *e)
{
    if (n == 0 || n > MAILBOX_MESSAGES_MAX)
        return err_set(e, ERR_PERMANENT, "nothing to copy");
    for (int tries = 0; tries < FIND_TRIES; tries++) {
        for (size_t k = 0; k < n; k++)
            if (from->msgs[indices[k]].gone)
                return err_set(e, ERR_PERMANENT, "a message has been expunged");
        struct quota_room room = {0};
        if (!move && quota_take(to->root_fd, size_of(from, indices, n), n, &room, e) < 0)
            return -1;
        int result = copy_all(from, indices, n, to, first_uid_r, e);
        quota_end(&room, result == 0);
        if (result <= 0)
            return result;
        if (relist(from, e) < 0)
            return -1;
    }
    return err_set(e, ERR_TEMPORARY, "the messages are renamed all the time");
}
