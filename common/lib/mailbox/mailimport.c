#include "lib/mailbox/mailimport.h"
#include "lib/mailbox/durable.h"
#include "lib/mailbox/folder.h"
#include "lib/mailbox/mailname.h"
#include "lib/mailbox/mailscan.h"
#include "lib/mailbox/mailview.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* The bases of what lies there. A list of adopted files need not be asked: their bases are in
 * names. */
static int
take_bases(struct mailimport *im, size_t expected, struct err *e)
{
    struct mailscan s = {0};
    if (mailscan_read(&s, &im->to, true, e) < 0)
        return -1;
    int result = mailadopt_begin(&im->bases, 1, s.n + expected + 1, true);
    for (size_t i = 0; result == 0 && i < s.n; i++)
        (void)mailadopt_add(&im->bases, mailname_base(str_z(mailscan_name(&s, &s.at[i]))), 1);
    mailscan_free(&s);
    return result < 0 ? err_set(e, ERR_TEMPORARY, "out of memory") : 0;
}

/* The folder's UIDVALIDITY, if it may become the source's. */
static int
take_validity(struct mailimport *im, uint32_t validity, uint32_t next, struct err *e)
{
    struct mailbox *to = &im->to;
    struct mailscan s = {0};
    struct uid_evidence seen = {0};
    if (uidfile_read(&to->uids, to->dir_fd, e) < 0)
        return -1;
    if (to->uids.validity || !validity) {
        im->keep_uids = validity && to->uids.validity == validity;
        return 0;
    }
    if (mailscan_read(&s, to, true, e) < 0)
        return -1;
    int result = mailscan_evidence(&s, &seen, e);
    mailscan_free(&s);
    /* Names that say another one: its file was lost. It is made again when the folder is opened. */
    if (result < 0 || (seen.validity && seen.validity != validity))
        return result;
    if (next <= seen.highest)
        next = seen.highest + 1;
    im->keep_uids = true;
    return uidfile_import(&to->uids, to->dir_fd, to->root_fd, validity, next, e);
}

int
mailimport_begin(struct mailimport *im, int root_fd, struct str folder, uint32_t validity,
                 uint32_t next, size_t expected, struct err *e)
{
    im->n = 0;
    im->keep_uids = im->locked = false;
    im->bases = (struct mailadopt){0};
    im->items = calloc(MAILIMPORT_BATCH, sizeof *im->items);
    if (!im->items)
        return err_set(e, ERR_TEMPORARY, "out of memory");
    if (!folder_is_inbox(folder) && !folder_exists(root_fd, folder) &&
        folder_create(root_fd, folder, e) < 0)
        goto fail;
    if (mailview_open_dirs(&im->to, root_fd, folder, true, e) < 0)
        goto fail;
    if (uidfile_lock(im->to.lock_fd, e) == 0) {
        im->locked = true;
        if (take_validity(im, validity, next, e) == 0 && take_bases(im, expected, e) == 0 &&
            keywords_load(&im->to.keywords, im->to.dir_fd, e) == 0)
            return 0;
    }
    (void)mailimport_end(im, true, NULL);
    return -1;
fail:
    free(im->items);
    im->items = NULL;
    return -1;
}

bool
mailimport_has(struct mailimport *im, struct str base)
{
    bool has = mailadopt_find(&im->bases, base) != 0;
    im->already += has;
    return has;
}

int
mailimport_open(struct mailimport *im, struct mailbox_writer *w, struct err *e)
{
    return mailbox_write_begin(w, im->to.tmp_fd, e);
}

uint32_t
mailimport_keyword(struct mailimport *im, struct str name)
{
    int number;
    if (!keywords_valid(name) ||
        keywords_add(&im->to.keywords, im->to.dir_fd, name, &number, NULL) < 0)
        return 0;
    return 1u << number;
}

static int
place(struct mailimport *im, struct mailimport_item *x, struct err *e)
{
    struct buf name = buf_new(MAILNAME_MAX + 200);
    struct mailbox *to = &im->to;
    const struct mailname old = {.base = str_z(x->base),
                                 .fields = buf_str(&x->fields),
                                 .info = str_of("", 0),
                                 .size = UINT64_MAX,
                                 .vsize = UINT64_MAX};
    bool uid = im->keep_uids && x->uid;
    bool into_new = x->fresh && !x->flags && !x->keywords;
    mailname_build(&name, &old,
                   &(struct mailname_new){.size = x->size,
                                          .vsize = x->vsize,
                                          .uid = uid ? x->uid : 0,
                                          .validity = uid ? to->uids.validity : 0,
                                          .flags = x->flags,
                                          .keywords = x->keywords,
                                          .info = !into_new});
    int result =
        mailscan_rename(to->tmp_fd, x->tmp, into_new ? to->new_fd : to->cur_fd, buf_z(&name));
    if (result < 0)
        err_errno(e, "rename a message");
    else
        x->tmp[0] = '\0';
    im->added += result == 0;
    buf_free(&name);
    return result;
}

/* What was written becomes durable, then visible. */
static int
flush(struct mailimport *im, struct err *e)
{
    int result = 0;
    if (im->n && im->sync(im->arg) < 0)
        result = err_set(e, ERR_TEMPORARY, "the messages cannot be synced");
    for (size_t i = 0; i < im->n; i++) {
        if (result == 0)
            result = place(im, &im->items[i], e);
        if (im->items[i].tmp[0])
            unlinkat(im->to.tmp_fd, im->items[i].tmp, 0);
        buf_free(&im->items[i].fields);
    }
    im->n = 0;
    if (result == 0 && im->progress && !im->by_bytes)
        im->progress(im->arg, im->added + im->already);
    return result;
}

/* Fields but S and W, which are what we counted, and U. */
static void
keep_fields(struct buf *to, struct str fields)
{
    struct str rest = str_from(fields, 1);
    *to = buf_new(MAILNAME_MAX);
    while (rest.n) {
        struct str field = str_cut(&rest, ',');
        if (str_starts(field, STR("S=")) || str_starts(field, STR("W=")) ||
            str_starts(field, STR("U=")))
            continue;
        buf_addc(to, ',');
        buf_add(to, field);
    }
}

int
mailimport_put(struct mailimport *im, struct mailbox_writer *w, const struct mailimport_from *from,
               struct err *e)
{
    struct mailimport_item *x = &im->items[im->n];
    const struct timespec times[2] = {{.tv_nsec = UTIME_NOW}, {.tv_sec = from->date_s}};
    if (from->base.n >= sizeof x->base || mailadopt_add(&im->bases, from->base, 1) < 0 ||
        futimens(w->fd, times) < 0) {
        mailbox_write_abort(w);
        return err_set(e, ERR_TEMPORARY, "cannot take in a message");
    }
    *x = (struct mailimport_item){.uid = from->uid,
                                  .keywords = from->keywords,
                                  .flags = from->flags,
                                  .fresh = from->fresh,
                                  .size = w->size,
                                  .vsize = w->vsize};
    memcpy(x->tmp, w->tmp_name, sizeof x->tmp);
    memcpy(x->base, from->base.p, from->base.n);
    keep_fields(&x->fields, from->fields);
    close(w->fd);
    w->fd = -1;
    im->bytes += w->size;
    return ++im->n == MAILIMPORT_BATCH ? flush(im, e) : 0;
}

int
mailimport_end(struct mailimport *im, bool failed, struct err *e)
{
    int result = 0;
    if (failed)
        for (; im->n > 0; im->n--) {
            unlinkat(im->to.tmp_fd, im->items[im->n - 1].tmp, 0);
            buf_free(&im->items[im->n - 1].fields);
        }
    else
        result = flush(im, e);
    /* UIDs came that are below the next one: an index would call them expunged. */
    if (im->locked)
        unlinkat(im->to.dir_fd, "bulkhead.index", 0);
    if (result == 0 && !failed && im->sync(im->arg) < 0)
        result = err_set(e, ERR_TEMPORARY, "the folder cannot be synced");
    mailadopt_free(&im->bases);
    free(im->items);
    im->items = NULL;
    mailbox_close(&im->to);
    return result;
}
