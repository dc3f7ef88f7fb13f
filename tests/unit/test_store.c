/* The store: what the index may and may not do to a folder, and what is left when a process dies,
 * or the disk is full, at any call of an operation. */
#include "lib/mailbox/durable.h"
#include "lib/mailbox/mailbox.h"
#include "lib/mailbox/mailfile.h"
#include "lib/mailbox/mailindexfile.h"
#include "lib/mailbox/mailname.h"
#include "lib/mailbox/quota.h"
#include "tests/unit/fault_calls.h"
#include "tests/unit/maildir.h"
#include "tests/unit/unit.h"
#include <poll.h>
#include <sys/wait.h>

static void
open_box(struct mailbox *mb, bool read_only)
{
    struct err e = {0};
    ck_assert_msg(mailbox_open(mb, root, STR("INBOX"), read_only, &e) == 0, "%s", e.text);
}

static int
append(struct mailbox *mb, const char *text, uint8_t flags, uint32_t *uid_r)
{
    struct mailbox_writer w;
    struct err e = {0};
    if (mailbox_write_begin(&w, mb->tmp_fd, &e) == 0 && mailbox_write(&w, str_z(text), &e) == 0 &&
        mailbox_write_commit(&w, mb, flags, 0, 0, uid_r, &e) == 0)
        return 0;
    mailbox_write_abort(&w);
    return -1;
}

/* Four messages, UIDs 1 to 4, one of them flagged; nothing in new/. */
static void
four(void)
{
    struct mailbox mb;
    plant("new/1.a.h", "Subject: a\r\n\r\na\r\n");
    plant("new/2.b.h", "Subject: b\r\n\r\nb\r\n");
    plant("new/3.c.h", "Subject: c\r\n\r\nc\r\n");
    plant("cur/4.d.h:2,F", "Subject: d\r\n\r\nd\r\n");
    open_box(&mb, false);
    ck_assert_uint_eq(mb.n, 4);
    mailbox_close(&mb);
}

static void
refresh(struct mailbox *mb)
{
    struct err e = {0};
    ck_assert_msg(mailbox_refresh(mb, &e) == 0, "%s", e.text);
}

/* ---- the index ---- */

/* What root's other processes leave of the inotify descriptors a user may have (128) is chance: be
 * somebody who has none. */
static void
be_nobody(void)
{
    const uid_t uid = 1000000 + (uid_t)getpid();
    const char *const mine[] = {".", "new", "cur", "tmp"};
    if (geteuid() != 0)
        return;
    for (size_t i = 0; i < sizeof mine / sizeof mine[0]; i++)
        ck_assert_int_eq(chown(mine[i], uid, (gid_t)-1), 0);
    ck_assert_int_eq(seteuid(uid), 0);
}

static unsigned readings; /* of directories */

static bool
count_reading(const char *dir, const char *name)
{
    (void)dir;
    readings += !name;
    return false;
}

START_TEST(an_unchanged_folder_is_not_listed)
{
    struct mailbox mb;
    be_nobody();
    four();
    fault_readdir(count_reading);
    open_box(&mb, false);
    ck_assert(mailguard_cur_same(&mb) && mailguard_new_same(&mb));
    ck_assert_uint_eq(mb.n, 4);
    ck_assert_int_eq(mailbox_store(&mb, 0, MAILBOX_ADD, MAILBOX_SEEN, 0, NULL), 0);
    ck_assert_int_eq(mailbox_unlink(&mb, 1, NULL), 0);
    /* Our own changes leave it so. */
    ck_assert(mailguard_cur_same(&mb) && mailguard_new_same(&mb));
    mailbox_close(&mb);
    open_box(&mb, true);
    ck_assert(mailguard_cur_same(&mb) && mailguard_new_same(&mb));
    ck_assert_uint_eq(mb.n, 3);
    ck_assert_uint_eq(mb.msgs[0].flags, MAILBOX_SEEN);
    mailbox_close(&mb);
    ck_assert_uint_eq(readings, 0);
    if (getuid() == 0)
        ck_assert_int_eq(seteuid(0), 0);
}
END_TEST

START_TEST(a_foreign_change_at_the_same_moment_is_seen)
{
    struct mailbox mb;
    four();
    open_box(&mb, false);
    for (int i = 0; i < 20; i++) {
        char path[64];
        ck_assert_int_eq(mailbox_changes_begin(&mb, NULL), 0);
        ck_assert_int_eq(
            mailbox_store(&mb, 0, i % 2 ? MAILBOX_ADD : MAILBOX_REMOVE, MAILBOX_SEEN, 0, NULL), 0);
        snprintf(path, sizeof path, "cur/%d.x.h:2,S", 1000 + i);
        plant(path, "x\n");
        mailbox_changes_end(&mb);
        refresh(&mb);
        ck_assert_uint_eq(mb.n, 5 + (unsigned)i);
    }
    mailbox_close(&mb);
}
END_TEST

START_TEST(sessions_tell_each_other_through_the_log)
{
    struct mailbox a, b;
    uint32_t uid;
    four();
    open_box(&a, false);
    open_box(&b, false);
    ck_assert_int_eq(mailbox_store(&a, 0, MAILBOX_ADD, MAILBOX_SEEN, 0, NULL), 0);
    ck_assert_int_eq(mailbox_unlink(&a, 2, NULL), 0);
    ck_assert_int_eq(append(&a, "x\r\n", MAILBOX_DRAFT, &uid), 0);
    refresh(&b);
    ck_assert_uint_eq(b.n, 5);
    ck_assert(b.msgs[0].changed && b.msgs[0].flags == MAILBOX_SEEN);
    ck_assert(b.msgs[2].gone && !b.msgs[1].changed);
    ck_assert_uint_eq(b.msgs[4].uid, uid);
    ck_assert_uint_gt(b.msgs[0].modseq, b.msgs[1].modseq);
    ck_assert_uint_eq(b.ix.ngone, 1);
    ck_assert_uint_eq(b.ix.gone[0].from, 3);
    ck_assert_uint_gt(b.ix.gone[0].modseq, b.msgs[0].modseq);
    /* What one of them renames the other finds. */
    int fd = mailbox_open_message(&b, 0, NULL);
    ck_assert_int_ge(fd, 0);
    close(fd);
    mailbox_close(&a);
    mailbox_close(&b);
}
END_TEST

START_TEST(what_was_expunged_does_not_come_back_with_its_uid)
{
    struct mailbox mb;
    struct buf name = buf_new(255);
    char kept[300];
    four();
    open_box(&mb, false);
    ck_assert_int_eq(mailbox_name(&mb, 1, &name), 0);
    snprintf(kept, sizeof kept, "cur/%s", buf_z(&name));
    ck_assert_int_eq(linkat(root, kept, root, "saved", 0), 0);
    ck_assert_int_eq(mailbox_unlink(&mb, 1, NULL), 0);
    refresh(&mb);
    ck_assert_int_eq(linkat(root, "saved", root, kept, 0), 0); /* a backup put back */
    refresh(&mb);
    ck_assert(mb.msgs[1].gone);
    ck_assert_uint_eq(mb.n, 5);
    ck_assert_uint_ge(mb.msgs[4].uid, 5);
    mailbox_close(&mb);
    buf_free(&name);
}
END_TEST

/* All that a client knows of a folder. */
struct known {
    uint32_t validity, n, next;
    uint32_t uid[16];
    uint8_t flags[16];
    uint64_t modseq;
};

static struct known
look(void)
{
    struct mailbox mb;
    open_box(&mb, true);
    struct known k = {.validity = mb.validity,
                      .n = (uint32_t)mb.n,
                      .next = mb.ix.state.next_uid,
                      .modseq = mb.ix.state.modseq};
    ck_assert_uint_le(mb.n, 16);
    for (size_t i = 0; i < mb.n; i++) {
        k.uid[i] = mb.msgs[i].uid;
        k.flags[i] = mb.msgs[i].flags;
        int fd = mailbox_open_message(&mb, i, NULL);
        ck_assert_int_ge(fd, 0);
        close(fd);
    }
    mailbox_close(&mb);
    return k;
}

static void
same_messages(const struct known *a, const struct known *b)
{
    ck_assert_uint_eq(a->validity, b->validity);
    ck_assert_uint_eq(a->n, b->n);
    for (size_t i = 0; i < a->n; i++) {
        ck_assert_uint_eq(a->uid[i], b->uid[i]);
        ck_assert_uint_eq(a->flags[i], b->flags[i]);
    }
}

START_TEST(a_lost_index_changes_nothing)
{
    four();
    struct known before = look();
    ck_assert_int_eq(unlinkat(root, "bulkhead.index", 0), 0);
    struct known after = look();
    same_messages(&before, &after);
    ck_assert_uint_gt(after.modseq, before.modseq);
}
END_TEST

static bool
is_batch_end(struct str file, size_t at, size_t n)
{
    struct mailindex_batch b;
    while (at < n && at + sizeof b <= file.n) {
        memcpy(&b, file.p + at, sizeof b);
        at += sizeof b + b.n;
    }
    return at == n;
}

START_TEST(an_index_cut_or_damaged_anywhere_changes_nothing)
{
    struct mailbox mb;
    struct buf whole = buf_new(1 << 20);
    bool there;
    four();
    open_box(&mb, false);
    ck_assert_int_eq(mailbox_store(&mb, 0, MAILBOX_ADD, MAILBOX_SEEN, 0, NULL), 0);
    ck_assert_int_eq(mailbox_unlink(&mb, 1, NULL), 0);
    size_t log_at = (size_t)mb.ix.log_at;
    mailbox_close(&mb);
    struct known before = look();
    ck_assert_int_eq(durable_read(root, "bulkhead.index", &whole, &there, NULL), 0);
    for (size_t n = 0; n <= whole.n; n++)
        for (int flip = 0; flip < 2; flip++) {
            struct buf bad = buf_new(1 << 20);
            buf_add(&bad, flip ? buf_str(&whole) : str_sub(buf_str(&whole), 0, n));
            if (flip && n < whole.n)
                bad.p[n] = (char)(bad.p[n] ^ 0x10);
            unlinkat(root, "bulkhead.index", 0);
            int fd = openat(root, "bulkhead.index", O_WRONLY | O_CREAT, 0600);
            ck_assert_int_eq(durable_write(fd, buf_str(&bad)), 0);
            close(fd);
            struct known after = look();
            same_messages(&before, &after);
            /* What it lost it counts anew, never back; only a log that ends just where a batch
             * does is not known to have been longer. */
            if (flip || !is_batch_end(buf_str(&whole), log_at, n))
                ck_assert_uint_ge(after.modseq, before.modseq);
            buf_free(&bad);
        }
    buf_free(&whole);
}
END_TEST

START_TEST(an_old_index_is_brought_up)
{
    struct mailbox mb;
    struct buf old = buf_new(1 << 20);
    bool there;
    uint32_t uid;
    four();
    ck_assert_int_eq(durable_read(root, "bulkhead.index", &old, &there, NULL), 0);
    open_box(&mb, false);
    ck_assert_int_eq(mailbox_store(&mb, 0, MAILBOX_ADD, MAILBOX_SEEN, 0, NULL), 0);
    ck_assert_int_eq(mailbox_unlink(&mb, 1, NULL), 0);
    ck_assert_int_eq(append(&mb, "x\r\n", MAILBOX_SEEN, &uid), 0);
    mailbox_close(&mb);
    struct known before = look();
    /* A power cut: the directories are on disk, the index is not. */
    ck_assert_int_eq(durable_replace(root, "bulkhead.index", buf_str(&old), NULL), 0);
    struct known after = look();
    same_messages(&before, &after);
    buf_free(&old);
}
END_TEST

START_TEST(a_new_start_of_the_system_counts_on)
{
    struct mailbox mb;
    struct uidfile u = {0};
    uint64_t base;
    bool lost;
    four();
    struct known before = look();
    /* As if the index's last writes had been lost with the power: boot_s is another. */
    ck_assert_int_eq(uidfile_read(&u, root, NULL), 0);
    ck_assert_int_eq(uidfile_modseq(&u, root, before.modseq, &base, &lost, NULL), 0);
    ck_assert(!lost && base == before.modseq);
    u.boot_s -= 1000;
    ck_assert_int_eq(uidfile_modseq(&u, root, u.modseq_mark, &base, &lost, NULL), 0);
    ck_assert(lost);
    struct buf text = buf_new(300);
    bool there;
    ck_assert_int_eq(durable_read(root, "bulkhead-uid", &text, &there, NULL), 0);
    ck_assert(there);
    buf_free(&text);
    open_box(&mb, false);
    ck_assert_int_eq(mailbox_store(&mb, 0, MAILBOX_ADD, MAILBOX_SEEN, 0, NULL), 0);
    ck_assert_uint_gt(mb.msgs[0].modseq, before.modseq);
    mailbox_close(&mb);
}
END_TEST

START_TEST(many_gone_are_remembered_as_far_as_they_fit)
{
    struct mailindex ix;
    mailindex_init(&ix);
    for (uint32_t i = 0; i < 3 * MAILINDEX_GONE_MAX; i++)
        mailindex_add_gone(&ix, 2 * i + 1, i + 1);
    ck_assert_uint_le(ix.ngone, MAILINDEX_GONE_MAX);
    ck_assert_uint_eq(ix.gone[0].modseq, ix.gone_floor + 1);
    ck_assert_uint_eq(ix.gone[ix.ngone - 1].modseq, 3 * MAILINDEX_GONE_MAX);
    mailindex_free(&ix);
    mailindex_init(&ix);
    for (uint32_t i = 1; i <= 3 * MAILINDEX_GONE_MAX; i++)
        mailindex_add_gone(&ix, i, 7);
    ck_assert_uint_eq(ix.ngone, 1);
    ck_assert_uint_eq(ix.gone_floor, 0);
    mailindex_free(&ix);
}
END_TEST

/* A log of the greatest length is taken, and read by the next session; what would make it longer is
 * not appended, and then a new index is made: no change is lost for that. */
START_TEST(a_log_at_its_ceiling)
{
    const size_t tail = sizeof(struct mailindex_entry) + sizeof(struct mailindex_tail);
    struct mailbox a, b;
    struct stat st;
    four();
    open_box(&a, false);
    uint64_t end = a.ix.read_to, most = a.ix.log_at + MAILINDEX_LOG_MAX;
    size_t room = (size_t)(most - end) - sizeof(struct mailindex_batch) - tail + 8 * (size_t)_i;
    while ((room - a.ix.batch.n) % mailindex_entry_size(MAILINDEX_CACHE))
        mailindex_put_facts(&a.ix, &a.msgs[1]);
    while (a.ix.batch.n < room)
        mailindex_put_cache(&a.ix, &a.msgs[0]);
    ck_assert_uint_eq(a.ix.batch.n, room);
    ck_assert_int_eq(mailindex_commit(&a.ix, &a.rows), -_i);
    ck_assert_uint_eq(a.ix.read_to, _i ? end : most);
    ck_assert_uint_eq(a.ix.batch.n, 0);
    ck_assert_int_eq(stat("bulkhead.index", &st), 0);
    ck_assert_uint_eq((uint64_t)st.st_size, _i ? end : most);
    open_box(&b, false);
    ck_assert_uint_eq(b.n, 4);
    ck_assert_int_eq(mailbox_store(&b, 0, MAILBOX_ADD, MAILBOX_SEEN, 0, NULL), 0);
    ck_assert_int_eq(mailbox_store(&a, 1, MAILBOX_ADD, MAILBOX_SEEN, 0, NULL), 0);
    mailbox_close(&a);
    mailbox_close(&b);
    open_box(&b, false);
    ck_assert_uint_eq(b.n, 4);
    ck_assert(b.msgs[0].flags == MAILBOX_SEEN && b.msgs[1].flags == MAILBOX_SEEN);
    mailbox_close(&b);
    ck_assert_int_eq(stat("bulkhead.index", &st), 0);
    ck_assert_int_lt(st.st_size, 1 << 20);
}
END_TEST

START_TEST(texts_are_kept_and_a_damaged_cache_is_not_believed)
{
    struct mailbox mb;
    struct str text;
    four();
    open_box(&mb, false);
    mailcache_put(&mb, 0, MAILCACHE_ENVELOPE, STR("one"));
    mailcache_put(&mb, 0, MAILCACHE_BODY, STR("two"));
    mailcache_put(&mb, 3, MAILCACHE_BODY, STR(""));
    mailbox_settle(&mb);
    mailcache_put(&mb, 0, MAILCACHE_STRUCTURE, STR("three"));
    mailbox_settle(&mb);
    mailbox_close(&mb);
    open_box(&mb, true);
    ck_assert_int_eq(mailcache_get(&mb, 0, MAILCACHE_ENVELOPE, &text), 0);
    ck_str(text, "one");
    ck_assert_int_eq(mailcache_get(&mb, 0, MAILCACHE_STRUCTURE, &text), 0);
    ck_str(text, "three");
    ck_assert_int_eq(mailcache_get(&mb, 3, MAILCACHE_BODY, &text), 0);
    ck_assert_uint_eq(text.n, 0);
    ck_assert_int_lt(mailcache_get(&mb, 1, MAILCACHE_BODY, &text), 0);
    ck_assert_int_lt(mailcache_get(&mb, 3, MAILCACHE_ENVELOPE, &text), 0);
    mailbox_close(&mb);
    struct buf whole = buf_new(1 << 20);
    bool there;
    ck_assert_int_eq(durable_read(root, "bulkhead.cache", &whole, &there, NULL), 0);
    for (size_t n = 0; n < whole.n; n++) {
        whole.p[n] = (char)(whole.p[n] ^ 0x20);
        ck_assert_int_eq(durable_replace(root, "bulkhead.cache", buf_str(&whole), NULL), 0);
        open_box(&mb, true);
        for (size_t i = 0; i < mb.n; i++)
            for (uint32_t k = MAILCACHE_HEADER; k <= MAILCACHE_PREVIEW; k++)
                if (mailcache_get(&mb, i, k, &text) == 0)
                    ck_assert(str_eq(text, STR("one")) || str_eq(text, STR("two")) ||
                              str_eq(text, STR("three")) || text.n == 0);
        mailbox_close(&mb);
        whole.p[n] = (char)(whole.p[n] ^ 0x20);
    }
    buf_free(&whole);
}
END_TEST

/* What is written anew has all kinds in it. */
START_TEST(compaction_keeps_every_kind)
{
    struct mailbox mb;
    struct str text;
    four();
    open_box(&mb, false);
    for (uint32_t k = MAILCACHE_HEADER; k <= MAILCACHE_EMAILID; k++)
        mailcache_put(&mb, 0, k, STR("kept"));
    mailcache_flush(&mb);
    uint64_t first = mb.ix.state.cache_id;
    for (int i = 0; i < 3000 && mb.ix.state.cache_id == first; i++) {
        mailcache_put(&mb, 1, MAILCACHE_BODY, STR("again"));
        mailcache_flush(&mb);
    }
    ck_assert_uint_ne(mb.ix.state.cache_id, first);
    for (uint32_t k = MAILCACHE_HEADER; k <= MAILCACHE_EMAILID; k++) {
        ck_assert_int_eq(mailcache_get(&mb, 0, k, &text), 0);
        ck_str(text, "kept");
    }
    mailbox_close(&mb);
}
END_TEST

/* A text of the greatest length is kept, with one of each kind in one item; a longer one is made
 * anew each time. */
START_TEST(a_text_at_its_ceiling)
{
    enum { MOST = MAILCACHE_ITEM_MAX / 8 };
    struct mailbox mb;
    struct str text;
    char *big = malloc(MOST + 1);
    memset(big, 't', MOST + 1);
    four();
    open_box(&mb, false);
    for (uint32_t k = MAILCACHE_HEADER; k <= MAILCACHE_EMAILID; k++)
        mailcache_put(&mb, 0, k, str_of(big, MOST));
    mailcache_put(&mb, 1, MAILCACHE_BODY, str_of(big, MOST + 1));
    mailcache_put(&mb, 2, MAILCACHE_BODY, STR("another's"));
    mailbox_settle(&mb);
    mailbox_close(&mb);
    open_box(&mb, true);
    for (uint32_t k = MAILCACHE_HEADER; k <= MAILCACHE_EMAILID; k++) {
        ck_assert_int_eq(mailcache_get(&mb, 0, k, &text), 0);
        ck_assert(str_eq(text, str_of(big, MOST)));
    }
    ck_assert_int_lt(mailcache_get(&mb, 1, MAILCACHE_BODY, &text), 0);
    ck_assert_int_eq(mailcache_get(&mb, 2, MAILCACHE_BODY, &text), 0);
    ck_str(text, "another's");
    mailbox_close(&mb);
    free(big);
}
END_TEST

/* What waits is written when there is so much of it, and not lost for that. */
START_TEST(texts_that_wait_at_their_ceiling)
{
    enum { N = 40, SIZE = 65536 };
    static char big[SIZE];
    struct mailbox mb;
    struct str text;
    size_t most = 0;
    memset(big, 't', sizeof big);
    for (int i = 0; i < N; i++) {
        char path[64];
        snprintf(path, sizeof path, "cur/%d.x.h:2,", 100 + i);
        plant(path, "x\n");
    }
    open_box(&mb, false);
    for (size_t i = 0; i < N; i++) {
        big[0] = (char)('a' + i % 26);
        mailcache_put(&mb, i, MAILCACHE_BODY, str_of(big, sizeof big));
        most = mb.cache.waiting.n > most ? mb.cache.waiting.n : most;
    }
    ck_assert_uint_ge(most, MAILCACHE_WAIT_MAX);
    ck_assert_uint_lt(most, MAILCACHE_WAIT_MAX + 2 * SIZE);
    mailcache_flush(&mb);
    ck_assert_uint_eq(mb.cache.waiting.n, 0);
    for (size_t i = 0; i < N; i++) {
        ck_assert_int_eq(mailcache_get(&mb, i, MAILCACHE_BODY, &text), 0);
        ck_assert_uint_eq(text.n, SIZE);
        ck_assert_int_eq(text.p[0], 'a' + (int)i % 26);
    }
    mailbox_close(&mb);
}
END_TEST

/* Where the file has no room for all that may wait nothing is added, and what is there stays. */
START_TEST(a_cache_at_its_ceiling)
{
    struct mailbox mb;
    struct str text;
    struct stat st;
    four();
    open_box(&mb, false);
    mailcache_put(&mb, 0, MAILCACHE_BODY, STR("first"));
    mailcache_flush(&mb);
    for (int beyond = 0; beyond < 2; beyond++) {
        ck_assert_int_eq(
            truncate("bulkhead.cache", MAILCACHE_MAX - 4 * MAILCACHE_WAIT_MAX + beyond), 0);
        mailcache_put(&mb, 1 + (size_t)beyond, MAILCACHE_BODY, STR("next"));
        mailcache_flush(&mb);
        ck_assert_uint_eq(mb.cache.waiting.n, 0);
        ck_assert_int_eq(mailcache_get(&mb, 1 + (size_t)beyond, MAILCACHE_BODY, &text),
                         beyond ? -1 : 0);
        ck_assert_int_eq(mailcache_get(&mb, 0, MAILCACHE_BODY, &text), 0);
        ck_str(text, "first");
    }
    ck_assert_int_eq(stat("bulkhead.cache", &st), 0);
    ck_assert_int_eq(st.st_size, MAILCACHE_MAX - 4 * MAILCACHE_WAIT_MAX + 1);
    mailbox_close(&mb);
}
END_TEST

START_TEST(a_cache_half_dead_is_made_smaller)
{
    enum { N = 40, TIMES = 120 };
    struct mailbox mb;
    struct str text;
    for (int i = 0; i < N; i++) {
        char path[64];
        snprintf(path, sizeof path, "cur/%d.x.h:2,", 100 + i);
        plant(path, "x\n");
    }
    open_box(&mb, false);
    uint64_t first = 0;
    for (int t = 0; t < TIMES; t++) {
        for (size_t i = 0; i < N; i++)
            mailcache_put(&mb, i, MAILCACHE_ENVELOPE, STR("the same"));
        mailbox_settle(&mb);
        if (t == 0)
            first = mb.ix.state.cache_id;
    }
    ck_assert_uint_ne(mb.ix.state.cache_id, first);
    ck_assert_uint_lt(mb.ix.state.cached, (uint64_t)N * TIMES);
    mailbox_close(&mb);
    open_box(&mb, true);
    for (size_t i = 0; i < N; i++)
        ck_assert_int_eq(mailcache_get(&mb, i, MAILCACHE_ENVELOPE, &text), 0);
    mailbox_close(&mb);
}
END_TEST

START_TEST(quota_is_kept_as_maildirplusplus_has_it)
{
    struct mailbox mb;
    struct quota q;
    struct quota_room room;
    struct err e = {0};
    uint32_t uid;
    four(); /* 17 bytes each */
    open_box(&mb, false);
    ck_assert_int_eq(append(&mb, "12345678901234567890", 0, &uid), 0); /* no file, no limit */
    plant("maildirsize", "200S,7C\n68 4\n");
    /* By the file there is room for 132 bytes and three messages; in truth there are 88 and five.
     */
    ck_assert_int_eq(quota_take(root, 133, 1, &room, &e), -1);
    ck_assert_int_eq(e.class, ERR_LIMIT);
    ck_assert_int_eq(quota_read(root, &q, NULL), 0);
    ck_assert_int_eq(q.bytes, 4 * 17 + 20);
    ck_assert_int_eq(q.count, 5);
    ck_assert_int_eq(append(&mb, "x\r\n", 0, &uid), 0);
    ck_assert_int_eq(append(&mb, "x\r\n", 0, &uid), 0);
    ck_assert_int_lt(append(&mb, "x\r\n", 0, &uid), 0); /* the eighth */
    const size_t one = 0;
    ck_assert_int_lt(mailbox_copy(&mb, &one, 1, false, &mb, &uid, &e), 0);
    ck_assert_int_eq(e.class, ERR_LIMIT);
    ck_assert_int_eq(mailbox_unlink(&mb, 0, NULL), 0);
    ck_assert_int_eq(quota_read(root, &q, NULL), 0);
    ck_assert_int_eq(q.bytes, 3 * 17 + 20 + 6);
    ck_assert_int_eq(q.count, 6);
    ck_assert_int_eq(append(&mb, "x\r\n", 0, &uid), 0);
    mailbox_close(&mb);
    /* Nonsense in it is no limit, and no harm. */
    static const char *const bad[] = {"", "\n", "S,C\n", "-1S\n1\n", "99999999999999999999S\n"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        ck_assert_int_eq(durable_replace(root, "maildirsize", str_z(bad[i]), NULL), 0);
        ck_assert_int_eq(quota_take(root, 1000000, 1, &room, &e), 0);
        quota_end(&room, true);
    }
}
END_TEST

/* The last room is held by somebody whose message comes, or goes, a moment later: who counts anew
 * meanwhile must not find that room free, nor give it twice. */
START_TEST(room_that_is_held_is_not_counted_away)
{
    for (int goes = 0; goes < 2; goes++) {
        struct quota q;
        struct quota_room room = {0};
        struct err e = {0};
        int ready[2];
        char c;
        if (goes)
            plant("cur/1700000000.x:2,", "12345678901234567");
        plant("cur/1700000001.y:2,", "12345678901234567");
        plant("maildirsize", goes ? "2C\n34 2\n" : "2C\n17 1\n");
        ck_assert_int_eq(pipe(ready), 0);
        pid_t child = fork();
        if (child == 0) {
            if (goes)
                quota_hold(root, &room);
            else if (quota_take(root, 17, 1, &room, NULL) < 0)
                _exit(1);
            if (write(ready[1], "", 1) != 1)
                _exit(1);
            poll(NULL, 0, 200);
            if (goes)
                (void)!unlink("cur/1700000000.x:2,");
            else
                plant("cur/1700000000.x:2,", "12345678901234567");
            room.bytes = 17;
            room.count = 1;
            quota_end(&room, !goes);
            _exit(0);
        }
        ck_assert_int_eq(read(ready[0], &c, 1), 1);
        int result = quota_take(root, 17, 1, &room, &e); /* by the file all is taken: it counts */
        ck_assert_int_eq(result, goes ? 0 : -1);
        int status;
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        ck_assert_int_eq(status, 0);
        quota_end(&room, false);
        ck_assert_int_eq(quota_read(root, &q, NULL), 0);
        ck_assert_int_eq(q.count, goes ? 1 : 2);
        close(ready[0]);
        close(ready[1]);
    }
}
END_TEST

/* ---- dying, and a full disk, at each call ---- */

struct told { /* what the child was told before it ended */
    uint32_t uid;
};

static void
op_store(struct told *t)
{
    struct mailbox mb;
    (void)t;
    if (mailbox_open(&mb, root, STR("INBOX"), false, NULL) < 0)
        return;
    (void)mailbox_store(&mb, 0, MAILBOX_ADD, MAILBOX_SEEN, 0, NULL);
    (void)mailbox_store(&mb, 3, MAILBOX_REPLACE, MAILBOX_ANSWERED, 0, NULL);
    mailbox_close(&mb);
}

static void
op_expunge(struct told *t)
{
    struct mailbox mb;
    (void)t;
    if (mailbox_open(&mb, root, STR("INBOX"), false, NULL) < 0)
        return;
    (void)mailbox_unlink(&mb, 0, NULL);
    (void)mailbox_unlink(&mb, 2, NULL);
    mailbox_close(&mb);
}

static void
op_append(struct told *t)
{
    struct mailbox mb;
    uint32_t uid;
    if (mailbox_open_target(&mb, root, STR("INBOX"), NULL) < 0)
        return;
    if (append(&mb, "Subject: e\r\n\r\ne\r\n", 0, &uid) == 0)
        t->uid = uid;
    mailbox_close(&mb);
}

static void
op_copy(struct told *t)
{
    struct mailbox mb, to;
    const size_t two[] = {0, 3};
    uint32_t uid;
    if (mailbox_open(&mb, root, STR("INBOX"), false, NULL) < 0)
        return;
    if (mailbox_open_target(&to, root, STR("INBOX"), NULL) == 0) {
        if (mailbox_copy(&mb, two, 2, false, &to, &uid, NULL) == 0)
            t->uid = uid + 1;
        mailbox_close(&to);
    }
    mailbox_close(&mb);
}

static void
op_new_mail(struct told *t)
{
    struct mailbox mb;
    if (mailbox_open(&mb, root, STR("INBOX"), false, NULL) < 0)
        return;
    if (mb.n)
        t->uid = mb.msgs[mb.n - 1].uid;
    mailbox_close(&mb);
}

static void
op_keep(struct told *t)
{
    struct mailbox mb;
    (void)t;
    if (mailbox_open(&mb, root, STR("INBOX"), false, NULL) < 0)
        return;
    mailcache_put(&mb, 0, MAILCACHE_ENVELOPE, STR("one"));
    mailcache_put(&mb, 3, MAILCACHE_ENVELOPE, STR("one"));
    mailbox_settle(&mb);
    mailbox_close(&mb);
}

static const struct op {
    const char *name;
    void (*run)(struct told *t);
    bool mail;            /* two files lie in new/ before */
    uint32_t least, most; /* messages afterwards */
} ops[] = {
    {"store", op_store, false, 4, 4},      {"expunge", op_expunge, false, 2, 4},
    {"append", op_append, false, 4, 5},    {"copy", op_copy, false, 4, 6},
    {"new mail", op_new_mail, true, 6, 6}, {"keep", op_keep, false, 4, 4},
};

/* Run it in a child that ends, or finds the disk full, at call n. False: it came to its end without
 * reaching that call. */
static bool
run_faulty(const struct op *op, enum fault_how how, unsigned n, struct told *told_r)
{
    int ends[2], status;
    *told_r = (struct told){0};
    ck_assert_int_eq(pipe(ends), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct told t = {0};
        fault_arm(how, n);
        op->run(&t);
        fault_arm(FAULT_NONE, 0);
        _exit(write(ends[1], &t, sizeof t) == (ssize_t)sizeof t ? 0 : 1);
    }
    close(ends[1]);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert(WIFEXITED(status));
    (void)!read(ends[0], told_r, sizeof *told_r);
    close(ends[0]);
    ck_assert(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == FAULT_STATUS);
    return WEXITSTATUS(status) == FAULT_STATUS;
}

/* The old messages keep their UIDs, and have their flags or those that were asked for. */
static void
check_old(const struct known *after, unsigned n, const char *name)
{
    static const uint8_t allowed[4][2] = {
        {0, MAILBOX_SEEN}, {0, 0}, {0, 0}, {MAILBOX_FLAGGED, MAILBOX_ANSWERED}};
    for (size_t i = 0; i < after->n; i++) {
        if (i)
            ck_assert_msg(after->uid[i] > after->uid[i - 1], "%s at %u: UIDs", name, n);
        if (after->uid[i] <= 4) {
            uint8_t f = after->flags[i];
            const uint8_t *ok = allowed[after->uid[i] - 1];
            ck_assert_msg(f == ok[0] || f == ok[1], "%s at %u: flags %u", name, n, f);
        }
    }
}

static void
check_after(const struct op *op, const struct known *before, const struct told *told, unsigned n)
{
    struct known after = look();
    struct mailbox mb;
    uint32_t uid, highest = 4;
    ck_assert_uint_eq(after.validity, before->validity);
    ck_assert_msg(after.n >= op->least && after.n <= op->most, "%s at %u: %u messages", op->name, n,
                  after.n);
    ck_assert_uint_ge(after.modseq, before->modseq);
    check_old(&after, n, op->name);
    for (size_t i = 0; i < after.n; i++)
        highest = after.uid[i] > highest ? after.uid[i] : highest;
    ck_assert(!told->uid || told->uid <= highest);
    /* The next message is beyond all, and a folder without an index says the same. */
    open_box(&mb, false);
    ck_assert_int_eq(append(&mb, "z\r\n", MAILBOX_SEEN, &uid), 0);
    ck_assert_uint_gt(uid, highest);
    mailbox_close(&mb);
    struct known with = look();
    unlinkat(root, "bulkhead.index", 0);
    struct known without = look();
    same_messages(&with, &without);
    ck_assert_uint_gt(without.modseq, with.modseq);
}

static void
each_call(enum fault_how how)
{
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++) {
        bool more = true;
        for (unsigned n = 1; more && n < 200; n++) {
            struct told told;
            four();
            struct known before = look();
            if (ops[i].mail) {
                plant("new/8.n.h", "n\n");
                plant("new/9.m.h", "m\n");
            }
            more = run_faulty(&ops[i], how, n, &told);
            if (how == FAULT_FAIL)
                more = n < 30;
            check_after(&ops[i], &before, &told, n);
            teardown();
            setup();
        }
        ck_assert(!more);
    }
}

START_TEST(death_at_each_call)
{
    each_call(FAULT_DIE);
}
END_TEST

START_TEST(a_full_disk_from_each_call_on)
{
    each_call(FAULT_FAIL);
}
END_TEST

Suite *suite_store(void);
Suite *
suite_store(void)
{
    Suite *s = suite_create("store");
    TCase *t = tcase_create("store");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 300);
    tcase_add_test(t, an_unchanged_folder_is_not_listed);
    tcase_add_test(t, a_foreign_change_at_the_same_moment_is_seen);
    tcase_add_test(t, sessions_tell_each_other_through_the_log);
    tcase_add_test(t, what_was_expunged_does_not_come_back_with_its_uid);
    tcase_add_test(t, a_lost_index_changes_nothing);
    tcase_add_test(t, an_index_cut_or_damaged_anywhere_changes_nothing);
    tcase_add_test(t, an_old_index_is_brought_up);
    tcase_add_test(t, a_new_start_of_the_system_counts_on);
    tcase_add_test(t, many_gone_are_remembered_as_far_as_they_fit);
    tcase_add_loop_test(t, a_log_at_its_ceiling, 0, 2);
    tcase_add_test(t, texts_are_kept_and_a_damaged_cache_is_not_believed);
    tcase_add_test(t, compaction_keeps_every_kind);
    tcase_add_test(t, a_text_at_its_ceiling);
    tcase_add_test(t, texts_that_wait_at_their_ceiling);
    tcase_add_test(t, a_cache_at_its_ceiling);
    tcase_add_test(t, a_cache_half_dead_is_made_smaller);
    tcase_add_test(t, quota_is_kept_as_maildirplusplus_has_it);
    tcase_add_test(t, room_that_is_held_is_not_counted_away);
    tcase_add_test(t, death_at_each_call);
    tcase_add_test(t, a_full_disk_from_each_call_on);
    suite_add_tcase(s, t);
    return s;
}
