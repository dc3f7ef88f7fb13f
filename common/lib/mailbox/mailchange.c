/* Changing messages: flags, expunge, copy; and opening one, which has to find it first. */
#include "lib/mailbox/durable.h"
#include "lib/mailbox/mailfile.h"
#include "lib/mailbox/mailname.h"
#include "lib/mailbox/mailscan.h"
#include "lib/mailbox/mailview.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

enum { FIND_TRIES = 5 };

static int
dir_of(const struct mailbox *mb, const struct mailbox_message *m)
{
    return m->in_new ? mb->new_fd : mb->cur_fd;
}

int
mailview_reserve(struct mailbox *mb, uint32_t n, uint32_t *first_r, struct err *e)
{
    uint32_t highest = mb->n ? mb->msgs[mb->n - 1].uid : 0, validity = mb->uids.validity;
    if (mailview_lock(mb, e) < 0)
        return -1;
    if (uidfile_read(&mb->uids, mb->dir_fd, e) < 0)
        goto fail;
    if (!mb->uids.validity) { /* lost: the listing makes it again */
        mb->uids.validity = validity;
        if (mailview_relist(mb, e) < 0)
            goto fail;
    }
    if (mb->uids.validity != validity) {
        err_set(e, ERR_PERMANENT, "UIDVALIDITY has changed");
        goto fail;
    }
    if (uidfile_give(&mb->uids, mb->dir_fd, mb->lock_fd, highest, n, first_r, e) == 0)
        return 0;
fail:
    mailview_unlock(mb);
    return -1;
}

int
mailbox_open_message(struct mailbox *mb, size_t i, struct err *e)
{
    for (int tries = 0; tries < FIND_TRIES; tries++) {
        struct stat st;
        if (mb->msgs[i].gone)
            return err_set(e, ERR_PERMANENT, "the message has been expunged");
        int fd = durable_open(dir_of(mb, &mb->msgs[i]), mb->msgs[i].name, &st);
        if (fd >= 0) {
            mb->msgs[i].size = (uint64_t)st.st_size;
            mb->msgs[i].date_s = st.st_mtim.tv_sec;
            return fd;
        }
        if (errno != ENOENT)
            return err_errno(e, "open a message");
        /* Renamed by somebody: its UID finds it. */
        if (mailview_lock(mb, e) < 0)
            return -1;
        int listed = mailview_relist(mb, e);
        mailview_unlock(mb);
        if (listed < 0)
            return -1;
    }
    return err_set(e, ERR_TEMPORARY, "the message is renamed all the time");
}

int64_t
mailbox_date(struct mailbox *mb, size_t i)
{
    struct stat st;
    struct mailname name;
    struct mailbox_message *m = &mb->msgs[i];
    if (m->date_s)
        return m->date_s;
    if (fstatat(dir_of(mb, m), m->name, &st, AT_SYMLINK_NOFOLLOW) == 0)
        m->date_s = st.st_mtim.tv_sec;
    else if (mailname_parse(str_z(m->name), &name) == 0)
        m->date_s = name.time_s;
    return m->date_s;
}

/* The message's name with these flags, and with the sizes we know. */
static void
new_name(const struct mailbox *mb, const struct mailbox_message *m, uint8_t flags,
         uint32_t keywords, bool info, struct buf *name)
{
    struct mailname old;
    buf_reset(name);
    if (mailname_parse(str_z(m->name), &old) < 0)
        return;
    mailname_build(name, &old,
                   &(struct mailname_new){.size = m->size,
                                          .vsize = m->vsize,
                                          .uid = m->uid,
                                          .validity = mb->uids.validity,
                                          .flags = flags,
                                          .keywords = keywords,
                                          .info = info});
}

/* Rename message i to name. 0 done; 1 it is not there under its name any more; -1 with e. */
static int
rename_to(struct mailbox *mb, struct mailbox_message *m, const char *name, bool to_new,
          struct err *e)
{
    if (mailscan_rename(dir_of(mb, m), m->name, to_new ? mb->new_fd : mb->cur_fd, name) < 0)
        return errno == ENOENT ? 1 : err_errno(e, "rename a message");
    char *copy = strdup(name);
    if (!copy)
        return err_set(e, ERR_TEMPORARY, "out of memory");
    free(m->name);
    m->name = copy;
    m->in_new = to_new;
    return 0;
}

int
mailbox_keyword(struct mailbox *mb, struct str name, int *number_r, struct err *e)
{
    *number_r = keywords_find(&mb->keywords, name);
    if (*number_r >= 0)
        return 0;
    if (mailview_lock(mb, e) < 0)
        return -1;
    int result = keywords_add(&mb->keywords, mb->dir_fd, name, number_r, e);
    mailview_unlock(mb);
    return result;
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
    struct buf name = buf_new(MAILNAME_MAX + 200);
    int result = 0;
    new_name(mb, m, f, k, true, &name);
    if (!str_eq(buf_str(&name), str_z(m->name)) || m->in_new)
        result = rename_to(mb, m, buf_z(&name), false, e);
    if (result == 0) {
        m->flags = f;
        m->keywords = k;
    }
    buf_free(&name);
    return result;
}

int
mailbox_store(struct mailbox *mb, size_t i, enum mailbox_store_op op, uint8_t flags,
              uint32_t keywords, struct err *e)
{
    if (mailview_lock(mb, e) < 0)
        return -1;
    int result = 1;
    for (int tries = 0; result == 1 && tries < FIND_TRIES; tries++) {
        if (mb->msgs[i].gone) {
            result = 0;
            break;
        }
        result = store_once(mb, i, op, flags, keywords, e);
        if (result == 1 && mailview_relist(mb, e) < 0)
            result = -1;
    }
    mailview_unlock(mb);
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
    /* Tell the name, so that nobody has to read the file for this again; if that cannot be, no
     * harm. */
    if (!mb->read_only && mailview_lock(mb, NULL) == 0) {
        struct buf name = buf_new(MAILNAME_MAX + 200);
        struct mailbox_message *m = &mb->msgs[i];
        new_name(mb, m, m->flags, m->keywords, !m->in_new, &name);
        if (name.n)
            (void)rename_to(mb, m, buf_z(&name), m->in_new, NULL);
        mailview_unlock(mb);
        buf_free(&name);
    }
    return 0;
}

static int
remove_message(struct mailbox *mb, size_t i, bool only_deleted, struct err *e)
{
    if (mailview_lock(mb, e) < 0)
        return -1;
    int result = 1;
    for (int tries = 0; result == 1 && tries < FIND_TRIES; tries++) {
        struct mailbox_message *m = &mb->msgs[i];
        if (m->gone || (only_deleted && !(m->flags & MAILBOX_DELETED)))
            result = 0;
        else if (unlinkat(dir_of(mb, m), m->name, 0) == 0) {
            m->gone = true;
            result = 0;
        } else if (errno != ENOENT)
            result = err_errno(e, "remove a message");
        else if (mailview_relist(mb, e) < 0)
            result = -1;
    }
    mailview_unlock(mb);
    return result == 1 ? err_set(e, ERR_TEMPORARY, "the message is renamed all the time") : result;
}

int
mailbox_expunge(struct mailbox *mb, size_t i, struct err *e)
{
    return remove_message(mb, i, true, e);
}

int
mailbox_unlink(struct mailbox *mb, size_t i, struct err *e)
{
    return remove_message(mb, i, false, e);
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

/* Under to's lock: so it must not take from's. 1: the file is not under its name any more. */
static int
copy_one(struct mailbox *from, size_t i, struct mailbox *to, uint32_t uid, char **name_r,
         struct err *e)
{
    struct buf base = buf_new(100), name = buf_new(MAILNAME_MAX + 200);
    struct stat st;
    const struct mailbox_message *m = &from->msgs[i];
    int result = -1, fd = durable_open(dir_of(from, m), m->name, &st);
    if (fd < 0)
        return errno == ENOENT ? 1 : err_errno(e, "open a message");
    struct mailname fresh = {.size = UINT64_MAX, .vsize = UINT64_MAX};
    mailname_fresh(&base, 0);
    fresh.base = buf_str(&base);
    fresh.fields = fresh.info = str_of("", 0);
    mailname_build(&name, &fresh,
                   &(struct mailname_new){.size = (uint64_t)st.st_size,
                                          .vsize = m->vsize,
                                          .uid = uid,
                                          .validity = to->uids.validity,
                                          .flags = m->flags,
                                          .keywords = map_keywords(from, m->keywords, to),
                                          .info = true});
    *name_r = strdup(buf_z(&name));
    if (!*name_r)
        err_set(e, ERR_TEMPORARY, "out of memory");
    else if (linkat(dir_of(from, m), m->name, to->cur_fd, *name_r, 0) == 0)
        result = 0;
    else if (errno == ENOSPC || errno == EDQUOT)
        err_errno(e, "link a message");
    else
        result = errno == ENOENT ? 1 : copy_file(fd, to->cur_fd, *name_r, e);
    close(fd);
    buf_free(&base);
    buf_free(&name);
    return result;
}

/* All, or none: 0; 1 when a file was renamed meanwhile; -1. The lock is held all the while: who
 * lists the folder sees UIDs and files together. */
static int
copy_all(struct mailbox *from, const size_t *indices, size_t n, struct mailbox *to,
         uint32_t *first_uid_r, struct err *e)
{
    size_t done = 0;
    int result = 0;
    char **names = calloc(n, sizeof *names);
    if (!names)
        return err_set(e, ERR_TEMPORARY, "out of memory");
    if (mailview_reserve(to, (uint32_t)n, first_uid_r, e) < 0) {
        free(names);
        return -1;
    }
    for (; result == 0 && done < n; done++)
        result = copy_one(from, indices[done], to, *first_uid_r + (uint32_t)done, &names[done], e);
    if (result == 0 && fsync(to->cur_fd) < 0)
        result = err_errno(e, "sync the folder");
    for (size_t k = 0; k < done; k++) {
        if (result != 0 && names[k])
            unlinkat(to->cur_fd, names[k], 0);
        free(names[k]);
    }
    mailview_unlock(to);
    free(names);
    return result;
}

int
mailbox_copy(struct mailbox *from, const size_t *indices, size_t n, struct mailbox *to,
             uint32_t *first_uid_r, struct err *e)
{
    if (n == 0 || n > MAILBOX_MESSAGES_MAX)
        return err_set(e, ERR_PERMANENT, "nothing to copy");
    for (int tries = 0; tries < FIND_TRIES; tries++) {
        for (size_t k = 0; k < n; k++)
            if (from->msgs[indices[k]].gone)
                return err_set(e, ERR_PERMANENT, "a message has been expunged");
        int result = copy_all(from, indices, n, to, first_uid_r, e);
        if (result <= 0)
            return result;
        if (mailview_lock(from, e) < 0)
            return -1;
        result = mailview_relist(from, e);
        mailview_unlock(from);
        if (result < 0)
            return -1;
    }
    return err_set(e, ERR_TEMPORARY, "the messages are renamed all the time");
}
