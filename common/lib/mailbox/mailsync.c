/* The view, the index and the directories, kept in step: mailview_*(). */
#include "lib/base/clock.h"
#include "lib/mailbox/mailname.h"
#include "lib/mailbox/mailscan.h"
#include "lib/mailbox/mailview.h"
#include "lib/mailbox/quota.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* Bytes of the index's batch that may wait for an occasion. */
enum { LEARNT_MAX = 8 << 20 };
/* How long a folder in which a foreign program renames all the time is listed anew, and the longest
 * pause between: others wait for the lock. */
enum { LOOK_MS = 500, LOOK_PAUSE_MS = 20 };

int
mailview_open_lock(int dir_fd, struct err *e)
{
    struct stat st;
    int fd = openat(dir_fd, "bulkhead-lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC,
                    0600);
    if (fd < 0 && errno == ENOENT && fstat(dir_fd, &st) == 0 && st.st_nlink == 0)
        return err_set(e, ERR_PERMANENT, "the folder has been deleted");
    if (fd < 0)
        return err_errno(e, "open bulkhead-lock");
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
        return fd;
    close(fd);
    return err_set(e, ERR_TEMPORARY, "bulkhead-lock is not a file");
}

static int
lock(struct mailbox *mb, struct err *e)
{
    for (int tries = 0; tries < 3; tries++) {
        struct stat st;
        if (uidfile_lock(mb->lock_fd, e) < 0)
            return -1;
        if (fstat(mb->lock_fd, &st) == 0 && st.st_nlink > 0)
            return 0;
        /* Somebody removed the file under us: the lock is on nothing. */
        int fd = mailview_open_lock(mb->dir_fd, e);
        if (fd < 0)
            return -1;
        close(mb->lock_fd);
        mb->lock_fd = fd;
        mb->uids.holding = false;
    }
    return err_set(e, ERR_TEMPORARY, "the lock file keeps vanishing");
}

/* ---- what others told the index ---- */

/* Use no index until a new one is written; what it has told of UIDs and changes stays true. */
static void
detach(struct mailbox *mb)
{
    if (mb->ix.fd >= 0)
        close(mb->ix.fd);
    mb->ix.fd = -1;
    mb->tail_lost |= mb->ix.torn;
    mb->ix.torn = false;
    mb->broken = !mb->target;
    buf_reset(&mb->ix.heap);
    mailindex_drop_batch(&mb->ix);
    buf_reset(&mb->ix.window);
}

/* A row as another snapshot has it. */
static void
take_row(struct mailbox_message *m, const struct mailbox_message *r)
{
    bool recent = m->recent, changed = m->changed;
    bool differs = m->flags != r->flags || m->keywords != r->keywords;
    int64_t date_s = m->date_s;
    *m = *r;
    m->recent = recent;
    m->changed = changed || differs;
    if (!m->date_s)
        m->date_s = date_s;
}

static int
take_rows(struct mailbox *mb, const struct mailindex_rows *rows)
{
    size_t old = mb->n, i = 0;
    mb->news = true;
    uint32_t last = old ? mb->msgs[old - 1].uid : 0;
    for (size_t k = 0; k < rows->n; k++) {
        const struct mailbox_message *r = &rows->at[k];
        for (; i < old && mb->msgs[i].uid < r->uid; i++)
            mb->msgs[i].gone = true;
        if (i < old && mb->msgs[i].uid == r->uid) {
            if (!mb->msgs[i].gone)
                take_row(&mb->msgs[i], r);
            i++;
        } else if (r->uid > last && mb->n < MAILBOX_MESSAGES_MAX) {
            if (mailindex_reserve(&mb->rows, mb->n + 1) < 0)
                return -1;
            mb->msgs[mb->n++] = *r;
        }
    }
    for (; i < old; i++)
        mb->msgs[i].gone = true;
    return 0;
}

static void
reload(struct mailbox *mb)
{
    struct mailindex fresh;
    struct mailindex_rows rows = {0};
    mailindex_init(&fresh);
    if ((mb->target && mailindex_peek(&fresh, mb->dir_fd, mb->validity) == 0) ||
        (mailindex_load(&fresh, mb->dir_fd, mb->validity, mb->target ? NULL : &rows) == 0 &&
         (mb->target || take_rows(mb, &rows) == 0))) {
        mailindex_free(&mb->ix);
        mb->ix = fresh;
        mb->indexed = true;
    } else {
        mailindex_free(&fresh);
        detach(mb);
    }
    free(rows.at);
}

/* locked: nobody is writing just now. */
static void
catch_up(struct mailbox *mb, bool locked)
{
    if (mb->broken)
        return;
    enum mailindex_news news = mailindex_look(&mb->ix, mb->dir_fd);
    if (news == MAILINDEX_GREW &&
        mailindex_follow(&mb->ix, mb->target ? NULL : &mb->rows, locked) < 0)
        news = MAILINDEX_REPLACED;
    if (news == MAILINDEX_REPLACED)
        reload(mb);
}

/* ---- a time of changes ---- */

int
mailview_begin(struct mailbox *mb, struct err *e)
{
    if (mb->changing) {
        mb->changing++;
        return 0;
    }
    if (mailbox_load(mb, e) < 0)
        return -1;
    if (lock(mb, e) < 0)
        return -1;
    if (uidfile_read(&mb->uids, mb->dir_fd, e) < 0) {
        uidfile_unlock(mb->lock_fd);
        return -1;
    }
    mb->changing = 1;
    mb->now_modseq = 0;
    if (mb->validity)
        catch_up(mb, true);
    mailguard_begin(mb);
    return 0;
}

static bool
anything_to_say(const struct mailindex *ix)
{
    return ix->batch.n || memcmp(&ix->state, &ix->saved, sizeof ix->state) != 0;
}

/* What the index is to know, written; a file that cannot be written is not used any more, and a
 * listing makes it anew. */
static void
tell_index(struct mailbox *mb)
{
    if (mb->ix.fd < 0 || !mb->indexed)
        return;
    if (anything_to_say(&mb->ix) && mailindex_commit(&mb->ix, mb->target ? NULL : &mb->rows) < 0) {
        mb->suspect = true;
        detach(mb);
        return;
    }
    if (mb->target || (!mb->bump && !mailindex_is_long(&mb->ix, mb->n, !mb->settling)))
        return;
    if (mailindex_write(&mb->ix, mb->dir_fd, &mb->rows, mb->bump) == 0)
        mb->bump = false;
}

void
mailview_end(struct mailbox *mb)
{
    if (--mb->changing)
        return;
    mailguard_end(mb);
    tell_index(mb);
    mb->now_modseq = 0;
    uidfile_unlock(mb->lock_fd);
    quota_end(&mb->freed, false);
}

uint64_t
mailview_modseq(struct mailbox *mb)
{
    bool lost = false;
    uint64_t base = mb->ix.state.modseq;
    if (mb->now_modseq)
        return mb->now_modseq;
    /* Behind a torn tail there may have been numbers that somebody was told. */
    (void)uidfile_modseq(&mb->uids, mb->dir_fd, mb->tail_lost ? 0 : mb->ix.state.modseq, &base,
                         &lost, NULL);
    mb->tail_lost = false;
    if (base < mb->ix.state.modseq)
        base = mb->ix.state.modseq;
    if (lost && mb->indexed) {
        /* All of them are given a new one, so all must be there. */
        if (mb->target) {
            mb->target = false;
            reload(mb);
        }
        mb->bump = true;
    }
    mb->now_modseq = mb->ix.state.modseq = base + 1;
    return mb->now_modseq;
}

int
mailview_rename(struct mailbox *mb, int from_fd, const char *from, int to_fd, const char *to)
{
    if (mailscan_rename(from_fd, from, to_fd, to) < 0)
        return -1;
    const int ends[] = {from_fd, to_fd};
    for (size_t i = 0; i < 2; i++)
        mb->guard.expect += ends[i] == mb->new_fd || ends[i] == mb->cur_fd;
    return 0;
}

void
mailview_added(struct mailbox *mb, struct mailbox_message *m, struct str name)
{
    /* An index that is behind is brought up by a listing, in the order of UIDs. */
    if (!mb->guard.clean || mb->ix.fd < 0 || !mb->indexed)
        return;
    m->modseq = mailview_modseq(mb);
    mailindex_put_added(&mb->ix, m, name);
    if (mb->ix.state.next_uid <= m->uid)
        mb->ix.state.next_uid = m->uid + 1;
}

void
mailview_learnt(struct mailbox *mb, size_t i)
{
    if (mb->ix.fd < 0 || mb->ix.batch.n > LEARNT_MAX)
        return;
    mailindex_put_facts(&mb->ix, &mb->msgs[i]);
}

/* ---- listing ---- */

static uint32_t
saved_time(const struct mailscan_entry *x)
{
    return x->time_s > 0 && x->time_s < UINT32_MAX ? (uint32_t)x->time_s : 0;
}

static int
name_row(struct mailbox *mb, struct mailbox_message *m, const char *name, struct err *e)
{
    mb->ix.recount = true;
    if (mb->ix.fd >= 0)
        mailindex_put_record(&mb->ix, m, str_z(name));
    else if (mailindex_set_name(&mb->ix, m, str_z(name)) < 0)
        return err_set(e, ERR_TEMPORARY, "out of memory");
    return 0;
}

/* The flags of a name that somebody has changed. Where the name was not what we owe, what he
 * changed in it counts, and the rest of what we owe stays. */
static void
take_flags(struct mailbox *mb, struct mailbox_message *m, uint8_t flags, uint32_t keywords)
{
    const uint32_t seen = mailview_pack(flags, keywords), is = mailview_pack(m->flags, m->keywords);
    uint32_t touched = m->owed ? seen ^ m->named : seen ^ is;
    uint32_t now = (is & ~touched) | (seen & touched);
    m->owed = now != seen;
    m->named = m->owed ? seen : 0;
    if (now == is)
        return;
    m->flags = (uint8_t)(now >> KEYWORDS_MAX);
    m->keywords = now & ((1u << KEYWORDS_MAX) - 1);
    m->changed = true;
    m->modseq = mailview_modseq(mb);
}

/* A row that is there, as it was just seen. */
static int
take_entry(struct mailbox *mb, struct mailbox_message *m, const struct mailscan *s,
           const struct mailscan_entry *x, struct buf *room, struct err *e)
{
    const char *name = mailscan_name(s, x);
    if (mb->ix.fd >= 0 && m->in_new == x->in_new && mailindex_name(&mb->ix, m, room) == 0 &&
        str_eq(buf_str(room), str_z(name)))
        return 0;
    mb->news = true;
    m->recent |= m->in_new && x->recent;
    m->in_new = x->in_new;
    m->bare = x->bare;
    mb->owed_from = 0;
    if (x->size != UINT64_MAX)
        m->size = x->size;
    if (x->vsize != UINT64_MAX)
        m->vsize = x->vsize;
    take_flags(mb, m, x->flags, x->keywords);
    return name_row(mb, m, name, e);
}

static int
append_entry(struct mailbox *mb, const struct mailscan *s, const struct mailscan_entry *x,
             bool whole, struct err *e)
{
    struct stat st;
    if (mb->n >= MAILBOX_MESSAGES_MAX)
        return 0;
    if (mailindex_reserve(&mb->rows, mb->n + 1) < 0)
        return err_set(e, ERR_TEMPORARY, "out of memory");
    mb->news = true;
    mb->owed_from = 0;
    struct mailbox_message *m = &mb->msgs[mb->n++];
    *m = (struct mailbox_message){.size = x->size,
                                  .vsize = x->vsize,
                                  .uid = x->uid,
                                  .keywords = x->keywords,
                                  .flags = x->flags,
                                  .in_new = x->in_new,
                                  .bare = x->bare,
                                  .recent = x->recent,
                                  .saved_s = saved_time(x),
                                  .modseq = mailview_modseq(mb)};
    /* Of a few new ones the date is asked for now; of a whole folder when somebody wants it. */
    if (!whole && fstatat(x->in_new ? mb->new_fd : mb->cur_fd, mailscan_name(s, x), &st,
                          AT_SYMLINK_NOFOLLOW) == 0) {
        m->date_s = st.st_mtim.tv_sec;
        m->size = (uint64_t)st.st_size;
    }
    return name_row(mb, m, mailscan_name(s, x), e);
}

/* What a row is that was not seen. */
enum missing { MISSING_UNKNOWN, MISSING_TWICE, MISSING_GONE };

static void
miss_row(struct mailbox *mb, struct mailbox_message *m, bool whole, enum missing how, bool *any)
{
    if (m->gone || (!whole && !m->in_new))
        return;
    *any = true;
    if (how == MISSING_GONE || (how == MISSING_TWICE && m->missed)) {
        m->gone = mb->news = true;
        mailindex_put_gone(&mb->ix, m->uid, mailview_modseq(mb));
    }
    m->missed = true;
}

/* Bring the view up to what was listed. *any_r: rows were missing. */
static int
merge(struct mailbox *mb, struct mailscan *s, bool whole, enum missing how, bool *any_r,
      struct err *e)
{
    size_t old = mb->n, i = 0;
    uint32_t seen_next = mb->seen_next;
    struct buf room = buf_new(MAILNAME_MAX + 64);
    int result = 0;
    if (!old)
        (void)mailindex_reserve(&mb->rows, s->n);
    *any_r = false;
    for (size_t k = 0; k < s->n && result == 0; k++) {
        const struct mailscan_entry *x = &s->at[k];
        for (; i < old && mb->msgs[i].uid < x->uid; i++)
            miss_row(mb, &mb->msgs[i], whole, how, any_r);
        if (i < old && mb->msgs[i].uid == x->uid) {
            mb->msgs[i].missed = false;
            if (!mb->msgs[i].gone)
                result = take_entry(mb, &mb->msgs[i], s, x, &room, e);
            i++;
        } else if (x->uid >= seen_next && (!mb->n || x->uid > mb->msgs[mb->n - 1].uid)) {
            result = append_entry(mb, s, x, whole, e);
            mb->seen_next = x->uid + 1;
        }
    }
    for (; i < old && result == 0; i++)
        miss_row(mb, &mb->msgs[i], whole, how, any_r);
    buf_free(&room);
    return result;
}

static int
find_validity(struct mailbox *mb, const struct mailscan *s, struct err *e)
{
    struct uid_evidence seen;
    if (!mb->uids.validity &&
        (mailscan_evidence(s, &seen, e) < 0 ||
         uidfile_make(&mb->uids, mb->dir_fd, mb->root_fd, mb->lock_fd, &seen, s->n, e) < 0))
        return -1;
    if (mb->validity && mb->validity != mb->uids.validity)
        return err_set(e, ERR_PERMANENT, "UIDVALIDITY has changed");
    mb->validity = mb->uids.validity;
    return 0;
}

/* The numbers are used up (or a name claims the highest one): start over with a new UIDVALIDITY.
 * Only a session that has told its client nothing yet can go on. */
static int
start_over(struct mailbox *mb, struct mailscan *s, struct err *e)
{
    const struct uid_evidence none = {.validity = mb->uids.validity, .highest = UINT32_MAX};
    if (uidfile_make(&mb->uids, mb->dir_fd, mb->root_fd, mb->lock_fd, &none, s->n, e) < 0)
        return -1;
    if (mb->told)
        return err_set(e, ERR_PERMANENT, "UIDVALIDITY has changed");
    mb->seen_next = 0;
    mb->validity = mb->uids.validity;
    detach(mb);
    mb->indexed = false;
    mb->n = 0;
    mb->ix.ngone = 0;
    mb->ix.state = (struct mailindex_state){.modseq = mb->ix.state.modseq};
    return mailscan_settle(s, mb, e);
}

/* From here on a change of anybody else shows in the times. */
static void
mark_dirs(struct mailbox *mb, bool whole)
{
    mailguard_end(mb);
    mailguard_begin(mb);
    mailguard_mark(mb->new_fd, &mb->ix.state.new_);
    if (whole)
        mailguard_mark(mb->cur_fd, &mb->ix.state.cur);
    mb->guard.clean = mb->guard.watching;
}

static void
settle_state(struct mailbox *mb)
{
    struct mailindex_state *state = &mb->ix.state;
    uint32_t last = mb->n ? mb->msgs[mb->n - 1].uid : 0;
    state->validity = mb->validity;
    if (state->next_uid < mb->uids.next)
        state->next_uid = mb->uids.next;
    if (state->next_uid <= last)
        state->next_uid = last + 1;
    if (mb->seen_next < state->next_uid)
        mb->seen_next = state->next_uid;
    if (state->modseq == 0)
        (void)mailview_modseq(mb);
    if (!mb->indexed || mb->broken) /* what went before is not known */
        mb->ix.gone_floor = state->modseq;
    mb->indexed = true;
}

static bool
has_new(const struct mailbox *mb)
{
    for (size_t i = 0; i < mb->n; i++)
        if (mb->msgs[i].in_new && !mb->msgs[i].gone)
            return true;
    return false;
}

/* readdir() may pass over a file that a foreign program renames at this moment, though it is there
 * before and after. */
enum look { LOOK_MOVED, LOOK_STILL, LOOK_UNKNOWN };

static int
settle_scan(struct mailbox *mb, struct mailscan *s, bool whole, struct err *e)
{
    struct err why = {0};
    if ((whole && mailscan_take_adopted(s, mb, e) < 0) || find_validity(mb, s, e) < 0)
        return -1;
    if (mailscan_settle(s, mb, &why) == 0)
        return 0;
    if (e)
        *e = why;
    return why.class == ERR_LIMIT && whole ? start_over(mb, s, e) : -1;
}

/* List once. Of new/ only: what has just been moved out of it shows in cur/, and makes it whole. */
static int
look_once(struct mailbox *mb, struct mailscan *s, bool *whole, enum look *look_r, struct err *e)
{
    mark_dirs(mb, *whole);
    mailguard_reading(mb);
    if (mailscan_read(s, mb, *whole, e) < 0)
        return -1;
    *look_r = LOOK_STILL;
    if (!*whole && !mailguard_cur_same(mb)) {
        *look_r = LOOK_MOVED;
        *whole = true;
        return 0;
    }
    if (*whole && !mb->guard.watching && !mb->ix.state.cur.s)
        *look_r = LOOK_UNKNOWN;
    else if (*whole && !mailguard_was_still(mb))
        *look_r = LOOK_MOVED;
    if (settle_scan(mb, s, *whole, e) < 0)
        return -1;
    if (s->vanished)
        *look_r = LOOK_MOVED;
    return 0;
}

/* Until nothing moves meanwhile, as long as that can be waited for. */
static int
look(struct mailbox *mb, struct mailscan *s, bool *whole, enum look *look_r, struct err *e)
{
    const int64_t end_ms = now_ms() + LOOK_MS;
    for (int tries = 0;; tries++) {
        *s = (struct mailscan){0};
        bool part = !*whole;
        int result = look_once(mb, s, whole, look_r, e);
        bool settled = !part || !*whole;
        if (result == 0 && settled && (*look_r != LOOK_MOVED || now_ms() >= end_ms))
            return 0;
        mailscan_free(s);
        if (result < 0)
            return -1;
        if (settled)
            (void)poll(NULL, 0, tries < LOOK_PAUSE_MS ? tries : LOOK_PAUSE_MS);
    }
}

static int
list_once(struct mailbox *mb, bool *whole, enum missing how, enum look *look_r, bool *any_r,
          struct err *e)
{
    struct mailscan s;
    if (look(mb, &s, whole, look_r, e) < 0)
        return -1;
    if (mb->ix.fd < 0) {
        buf_reset(&mb->ix.heap);
        (void)buf_reserve(&mb->ix.heap, s.names.n);
    }
    if (*look_r == LOOK_STILL)
        how = MISSING_GONE;
    else if (*look_r == LOOK_MOVED)
        how = MISSING_UNKNOWN;
    int result = merge(mb, &s, *whole, how, any_r, e);
    mailscan_free(&s);
    return result;
}

static int
list(struct mailbox *mb, bool *whole, struct err *e)
{
    bool any;
    enum look look;
    if (list_once(mb, whole, MISSING_UNKNOWN, &look, &any, e) < 0 ||
        (any && look == LOOK_UNKNOWN && list_once(mb, whole, MISSING_TWICE, &look, &any, e) < 0))
        return -1;
    mb->suspect = look == LOOK_MOVED || (mb->suspect && !*whole);
    settle_state(mb);
    return 0;
}

int
mailview_relist(struct mailbox *mb, struct err *e)
{
    if (keywords_load(&mb->keywords, mb->dir_fd, e) < 0)
        return -1;
    if (mb->target) {
        mb->target = false;
        if (mb->validity)
            reload(mb);
    }
    for (int pass = 0; pass < 2; pass++) {
        if (mb->ix.torn)
            detach(mb);
        bool whole = mb->ix.fd < 0 || !mb->indexed || mb->suspect || !mailguard_cur_same(mb) ||
                     !mb->uids.validity;
        if (!whole && mailguard_new_same(mb) && (mb->read_only || !has_new(mb)))
            return 0;
        if (list(mb, &whole, e) < 0) {
            mailindex_drop_batch(&mb->ix);
            mb->suspect = true;
            if (!whole && pass == 0)
                continue;
            return -1;
        }
        /* Names are found through the index: it must have them now. */
        if (mb->ix.fd < 0) {
            (void)mailindex_write(&mb->ix, mb->dir_fd, &mb->rows, mb->bump);
            mb->bump &= mb->ix.fd < 0;
            mb->broken &= mb->ix.fd < 0;
            return 0;
        }
        if (mb->ix.batch.n == 0 || mailindex_commit(&mb->ix, &mb->rows) == 0)
            return 0;
        detach(mb);
    }
    return 0;
}

/* ---- opening and looking ---- */

static bool
same_times(const struct mailbox *mb)
{
    return mailguard_new_same(mb) && mailguard_cur_same(mb);
}

int
mailbox_load(struct mailbox *mb, struct err *e)
{
    if (!mb->lazy)
        return 0;
    const uint32_t told = mb->ix.state.counts.messages;
    mb->lazy = false;
    if (mailindex_load_rows(&mb->ix, &mb->rows) == 0) {
        for (size_t i = 0; i < mb->n; i++)
            mb->msgs[i].recent = mb->msgs[i].in_new;
        mb->news = false;
        return 0;
    }
    /* Damaged: the names say what there is. */
    mb->indexed = false;
    mb->seen_next = 0;
    if (mailview_begin(mb, e) < 0)
        return -1;
    int result = mailview_relist(mb, e);
    mailview_end(mb);
    mailbox_drop_gone(mb);
    mb->news = false;
    return result == 0 && mb->n != told
               ? err_set(e, ERR_PERMANENT, "the index was damaged, and the folder has changed")
               : result;
}

int
mailview_open(struct mailbox *mb, struct err *e)
{
    /* Without the lock: a line that is just being written does not parse, and then we take it. */
    if (uidfile_read(&mb->uids, mb->dir_fd, e) < 0)
        return -1;
    mb->validity = mb->uids.validity;
    if (mb->validity && mailindex_peek(&mb->ix, mb->dir_fd, mb->validity) == 0 &&
        (mb->read_only || mb->ix.state.counts.in_new == 0) && same_times(mb)) {
        mb->indexed = mb->lazy = mb->told = true;
        mb->seen_next = mb->ix.state.next_uid;
        return keywords_load(&mb->keywords, mb->dir_fd, e);
    }
    if (mb->validity && mailindex_load(&mb->ix, mb->dir_fd, mb->validity, &mb->rows) == 0) {
        mb->indexed = true;
        if (keywords_load(&mb->keywords, mb->dir_fd, e) < 0)
            return -1;
        mb->seen_next = mb->ix.state.next_uid;
        bool new_ = false;
        for (size_t i = 0; i < mb->n; i++)
            new_ |= mb->msgs[i].recent = mb->msgs[i].in_new;
        if ((mb->read_only || !new_) && same_times(mb)) {
            mb->told = true;
            return 0;
        }
    }
    if (mailview_begin(mb, e) < 0)
        return -1;
    int result = mailview_relist(mb, e);
    mailview_end(mb);
    mailbox_drop_gone(mb); /* nobody has been told of them */
    mb->told = true;
    return result < 0 ? -1 : 1;
}

int
mailbox_refresh(struct mailbox *mb, struct err *e)
{
    enum mailindex_news news = mailindex_look(&mb->ix, mb->dir_fd);
    if (mb->lazy && news == MAILINDEX_SAME && same_times(mb))
        return keywords_load(&mb->keywords, mb->dir_fd, e);
    if (mailbox_load(mb, e) < 0)
        return -1;
    if (news == MAILINDEX_GREW)
        catch_up(mb, false);
    /* What somebody appended without flags lies in new/ until a session is told of it. */
    const bool first = news == MAILINDEX_GREW && !mb->read_only && has_new(mb);
    if (!first && news != MAILINDEX_REPLACED && mb->ix.fd >= 0 && !mb->suspect && same_times(mb))
        return keywords_load(&mb->keywords, mb->dir_fd, e);
    if (mailview_begin(mb, e) < 0)
        return -1;
    int result = mailview_relist(mb, e);
    mailview_end(mb);
    return result;
}

int
mailbox_changes_begin(struct mailbox *mb, struct err *e)
{
    return mailview_begin(mb, e);
}

void
mailbox_changes_end(struct mailbox *mb)
{
    mailview_end(mb);
}

bool
mailbox_settle(struct mailbox *mb)
{
    mb->direct = 0;
    mailcache_flush(mb);
    if (mb->ix.fd >= 0 && !mb->read_only && mb->ix.state.counts.owed)
        return mailview_pay_names(mb);
    mb->settling = true;
    if (mb->ix.fd >= 0 &&
        (mb->ix.batch.n || (!mb->lazy && mailindex_is_long(&mb->ix, mb->n, false))) &&
        mailview_begin(mb, NULL) == 0)
        mailview_end(mb);
    mb->settling = false;
    return false;
}
