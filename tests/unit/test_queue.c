/* qmgr: store, journal, entries, bounces, holding, and the time. */
#include "lib/mail/dsn.h"
#include "tests/unit/fault_calls.h"
#include "tests/unit/queue_world.h"
#include <sys/un.h>

START_TEST(ids_sort_and_are_checked)
{
    char id[ID_LEN + 1], next[ID_LEN + 1];
    store_new_id(id);
    usleep(2000);
    store_new_id(next);
    ck_assert(strcmp(id, next) < 0);
    ck_assert(store_id_ok(str_z(id)));
    ck_assert(!store_id_ok(STR("../../../etc/passwd0")));
    ck_assert(!store_id_ok(str_sub(str_z(id), 0, ID_LEN - 1)));
    id[3] = '1';
    ck_assert(!store_id_ok(str_z(id)));
    id[3] = '\0';
    ck_assert(!store_id_ok(str_of(id, ID_LEN)));
}
END_TEST

/* In any order in, in order out, found while others come and go. */
START_TEST(entries_lie_in_order)
{
    enum { N = 20000 };
    static char ids[N][ID_LEN + 1];
    for (int i = 0; i < N; i++) {
        store_new_id(ids[i]);
        if (i % 3 == 0)
            memcpy(ids[i], "2345", 4); /* among older ones */
        ck_assert_ptr_nonnull(entry_add(ids[i], 's', PLACE_NEW, 0));
    }
    ck_assert_uint_eq(index_count(), N);
    ck_assert_ptr_null(index_find(STR("")));
    for (int i = 0; i < N; i += 2) {
        struct entry *entry = index_find(str_z(ids[i]));
        ck_assert(entry && memcmp(entry->id, ids[i], ID_LEN) == 0);
        entry_drop(entry);
        ck_assert_ptr_null(index_find(str_z(ids[i])));
    }
    struct index_at at = index_after(STR(""));
    const struct entry *last = NULL, *entry;
    size_t seen = 0;
    for (; (entry = index_next(&at)); last = entry, seen++) {
        struct index_at same = index_after(str_of(entry->id, ID_LEN)), next = at;
        ck_assert(!last || memcmp(last->id, entry->id, ID_LEN) < 0);
        ck_assert_ptr_eq(index_next(&same), index_next(&next));
    }
    ck_assert_uint_eq(seen, N / 2);
    while (index_count()) {
        at = index_after(STR(""));
        entry_drop(index_next(&at));
    }
    at = index_after(STR(""));
    ck_assert_ptr_null(index_next(&at));
}
END_TEST

START_TEST(new_to_cur_to_nothing)
{
    struct entry *entry = accept_message("s@example.com", alice, 1);
    size_t before = temp_fds();
    entry->due_s = clock_steady_s() + 100;
    ck_assert_int_eq(place_defer(entry), 0);
    ck_assert_int_eq(place_defer(entry), 0);
    place_settle();
    ck_assert_uint_eq(files("new"), 0);
    ck_assert_uint_eq(files("cur"), 1);
    struct message *m = load(entry);
    struct buf b = buf_new(1000);
    struct err e;
    journal_put_attempt(&b, 7, 60);
    ck_assert_int_eq(journal_append(m, &b, true, &e), 0);
    message_free(m);
    entry->attempts = 0;
    m = load(entry);
    ck_assert_uint_eq(entry->attempts, 7);
    store_remove(entry, m->journaled);
    message_free(m);
    ck_assert_ptr_null(message_load(entry, &e));
    ck_assert_int_eq(e.class, ERR_CLOSED);
    ck_assert_uint_eq(temp_fds(), before);
    buf_free(&b);
}
END_TEST

static void
journal_path(const struct entry *entry, char path[160])
{
    snprintf(path, 160, "%s/journal/%.2s/%.*s", dir, entry->id + ID_LEN - 2, ID_LEN, entry->id);
}

static struct buf
records(struct message *m)
{
    struct buf b = buf_new(1 << 16);
    ck_assert_int_eq(message_add_rcpt(m, STR("carol@example.net")), 0);
    ck_assert_int_eq(message_add_rcpt(m, STR("BOB@example.org")), 0); /* known */
    ck_assert_int_eq(message_add_rcpt(m, STR("")), -1);
    journal_put_expanded(&b, 0, 0, m->rcpts + 2, m->nrcpt - 2);
    journal_put_rcpt(&b, 1, RCPT_DONE);
    journal_put_deferred(&b, 2, STR("busy"));
    journal_put_attempt(&b, 3, 60);
    return b;
}

START_TEST(a_journal_is_replayed)
{
    struct entry *entry = accept_message("s@example.com", both, 2);
    struct err e;
    struct message *m = load(entry);
    struct buf b = records(m);
    ck_assert_int_eq(journal_append(m, &b, true, &e), 0);
    message_free(m);
    m = load(entry);
    ck_assert_uint_eq(m->nrcpt, 3);
    ck_assert_int_eq(m->rcpts[0]->state, RCPT_DONE);
    ck_assert_int_eq(m->rcpts[1]->state, RCPT_DONE);
    ck_assert_int_eq(m->rcpts[2]->state, RCPT_TODO);
    ck_str(m->rcpts[2]->address, "carol@example.net");
    ck_str(m->rcpts[2]->text, "busy");
    ck_assert_uint_eq(entry->attempts, 3);
    message_free(m);
    buf_free(&b);
}
END_TEST

/* Flipped anywhere or cut anywhere: what stands before it counts, what is appended later too. */
START_TEST(a_damaged_journal_is_cut)
{
    struct entry *entry = accept_message("s@example.com", both, 2);
    struct err e;
    char path[160];
    struct message *m = load(entry);
    struct buf b = records(m), after = buf_new(100);
    ck_assert_int_eq(journal_append(m, &b, true, &e), 0);
    message_free(m);
    journal_path(entry, path);
    journal_put_attempt(&after, 99, 60);
    for (size_t i = 0; i < 2 * b.n; i++) {
        int fd = open(path, O_WRONLY | O_TRUNC);
        ck_assert_int_eq(write(fd, b.p, i < b.n ? b.n : i - b.n),
                         (ssize_t)(i < b.n ? b.n : i - b.n));
        char flipped = (char)(b.p[i % b.n] ^ 0x41);
        if (i < b.n)
            ck_assert_int_eq(pwrite(fd, &flipped, 1, (off_t)i), 1);
        close(fd);
        m = load(entry);
        ck_assert_uint_le(m->nrcpt, 3);
        ck_assert_int_eq(journal_append(m, &after, true, &e), 0);
        message_free(m);
        m = load(entry);
        ck_assert_uint_eq(entry->attempts, 99);
        message_free(m);
    }
    buf_free(&b);
    buf_free(&after);
}
END_TEST

/* A journal up to its ceiling takes the next reason, a longer one takes none; what matters is on
 * record in either. */
START_TEST(reasons_at_their_ceiling)
{
    enum { RECORD = 16 + 4 };
    static char text[REASON_MAX];
    struct entry *entry = accept_message("s@example.com", both, 2);
    struct message *m = load(entry);
    struct buf b = buf_new(JOURNAL_REASONS_MAX);
    struct err e;
    memset(text, 't', sizeof text);
    while (b.n < JOURNAL_REASONS_MAX - RECORD - sizeof text)
        journal_put_deferred(&b, 1, STR("old"));
    journal_put_deferred(&b, 1, str_of(text, JOURNAL_REASONS_MAX - RECORD - b.n));
    ck_assert_uint_eq(b.n, JOURNAL_REASONS_MAX);
    ck_assert_int_eq(journal_append(m, &b, true, &e), 0);
    message_free(m);
    for (int i = 0; i < 2; i++) {
        m = load(entry);
        entry->state = ENTRY_ACTIVE;
        m->open = 2;
        message_outcome(m, m->rcpts[0], OUTCOME_LATER, STR("4.4.1"),
                        i ? STR("beyond it") : STR("at it"), STR("none"));
        if (i)
            message_outcome(m, m->rcpts[1], OUTCOME_DONE, STR("2.0.0"), STR("ok"), STR("none"));
        else
            message_outcome(m, m->rcpts[1], OUTCOME_LATER, STR("4.4.1"), STR("beyond it"),
                            STR("none"));
        message_settle(m);
        m = load(entry);
        ck_assert_uint_eq(entry->attempts, (unsigned)i + 1);
        ck_assert(str_find(m->rcpts[0]->text, STR("at it")) >= 0);
        ck_assert(str_starts(m->rcpts[1]->text, STR("ttt")));
        ck_assert_int_eq(m->rcpts[1]->state == RCPT_DONE, i);
        message_free(m);
    }
    buf_free(&b);
}
END_TEST

START_TEST(expansion_at_its_ceiling)
{
    struct entry *entry = accept_message("s@example.com", alice, 1);
    struct message *m = load(entry);
    char z[64];
    for (int i = 1; i < EXPANDED_MAX; i++) {
        snprintf(z, sizeof z, "u%d@example.net", i);
        ck_assert_int_eq(message_add_rcpt(m, str_z(z)), 0);
    }
    ck_assert_int_eq(message_add_rcpt(m, STR("one@too.many")), -1);
    ck_assert_int_eq(message_add_rcpt(m, STR("u1@example.net")), 0);
    message_free(m);
}
END_TEST

static struct buf
only_file_in(const char *sub)
{
    char path[600];
    struct buf b = buf_new(2 << 20);
    snprintf(path, sizeof path, "%s/%s", dir, sub);
    DIR *d = opendir(path);
    for (struct dirent *x; (x = readdir(d));)
        if (x->d_name[0] != '.') {
            snprintf(path, sizeof path, "%s/%s/%s", dir, sub, x->d_name);
            int fd = open(path, O_RDONLY);
            char *to = buf_reserve(&b, 1 << 20);
            ssize_t n = read(fd, to, 1 << 20);
            ck_assert_int_gt(n, 0);
            buf_commit(&b, (size_t)n);
            close(fd);
        }
    closedir(d);
    return b;
}

START_TEST(a_bounce_tells_what_failed)
{
    struct entry *entry = accept_message("s@example.com", both, 2);
    struct err e = {0};
    struct message *m = load(entry);
    entry->due_s = clock_steady_s();
    ck_assert_int_eq(place_defer(entry), 0);
    place_settle();
    m->open = 2;
    message_outcome(m, m->rcpts[0], OUTCOME_DONE, STR("2.0.0"), STR("ok"), STR("local"));
    message_outcome(m, m->rcpts[1], OUTCOME_NEVER, STR("5.1.1"),
                    STR("no\r\nFinal-Recipient: x\xff"), STR("local"));
    ck_assert_uint_eq(m->open, 0);
    ck_assert_msg(bounce_send(m, BOUNCE_FAILED, &e) == 0, "%s", e.text);
    struct buf b = only_file_in("new");
    struct str text = buf_str(&b);
    static const char *const wanted[] = {
        "To: <s@example.com>\r\n",
        "Content-Type: multipart/report; report-type=delivery-status;",
        "Reporting-MTA: dns; mx.example.org\r\n",
        "Final-Recipient: rfc822; bob@example.org\r\nAction: failed\r\nStatus: 5.1.1\r\n",
        "Diagnostic-Code: x-bulkhead; no\\x0D\\x0AFinal-Recipient: x\\xFF\r\n",
        "Auto-Submitted: auto-replied\r\n",
        "Content-Type: text/rfc822-headers\r\n\r\nSubject: hello\r\nX-Odd: ?\r\n",
    };
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++)
        ck_assert_msg(str_find(text, str_z(wanted[i])) >= 0, "%s not in %.*s", wanted[i],
                      (int)text.n, text.p);
    ck_assert_int_lt(str_find(text, STR("alice")), 0);
    ck_assert_int_lt(str_find(text, STR("body\r\n")), 0);
    buf_free(&b);
    message_free(m);
    ck_assert_uint_eq(index_count(), 2);
}
END_TEST

START_TEST(the_null_sender_gets_none)
{
    struct entry *entry = accept_message("", alice, 1);
    struct message *m = load(entry);
    m->open = 1;
    message_outcome(m, m->rcpts[0], OUTCOME_NEVER, STR("5.1.1"), STR("no"), STR("local"));
    message_settle(m);
    ck_assert_uint_eq(index_count(), 0);
    ck_assert_uint_eq(files("new") + files("cur"), 0);
}
END_TEST

START_TEST(damage_is_put_aside)
{
    struct entry *entry = accept_message("s@example.com", alice, 1);
    struct entry *deferred = accept_message("s@example.com", alice, 1);
    place_defer(deferred);
    place_settle();
    int fd = openat(qmgr.new, ".", O_RDONLY | O_DIRECTORY);
    char name[ID_LEN + 3];
    snprintf(name, sizeof name, "%.*s.s", ID_LEN, entry->id);
    int file = openat(fd, name, O_WRONLY);
    ck_assert_int_eq(pwrite(file, "X", 1, 0), 1);
    close(file);
    close(fd);
    message_start(entry, 0);
    ck_assert_uint_eq(files("corrupt"), 1);
    ck_assert_uint_eq(files("new"), 0);
    place_quarantine(deferred, "for the test");
    ck_assert_uint_eq(files("corrupt"), 2);
}
END_TEST

/* There is no room for its second name: it is not forgotten. */
START_TEST(damage_that_cannot_be_put_aside)
{
    struct entry *entry = accept_message("s@example.com", alice, 1);
    char path[700];
    snprintf(path, sizeof path, "%s/new/%.*s.s", dir, ID_LEN, entry->id);
    ck_assert_int_eq(truncate(path, 10), 0);
    fault_arm(FAULT_ONCE, 1);
    message_start(entry, 0);
    fault_arm(FAULT_NONE, 0);
    ck_assert_uint_eq(files("corrupt"), 0);
    ck_assert_uint_eq(files("new"), 1);
    ck_assert_int_eq(entry->state, ENTRY_WAITS);
    entry_detach(entry);
    message_start(entry, 0);
    ck_assert_uint_eq(files("corrupt"), 1);
    ck_assert_uint_eq(files("new"), 0);
    ck_assert_uint_eq(index_count(), 0);
}
END_TEST

/* What is no file was never a message: it is not tried for days. */
START_TEST(a_link_or_a_socket)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct entry *entry = accept_message("s@example.com", alice, 1);
    snprintf(address.sun_path, sizeof address.sun_path, "%s/new/%s", dir, store_name(entry));
    ck_assert_int_eq(unlink(address.sun_path), 0);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(_i ? symlink("/dev/null", address.sun_path)
                        : bind(fd, (struct sockaddr *)&address, sizeof address),
                     0);
    close(fd);
    message_start(entry, 0);
    ck_assert_uint_eq(index_count(), 0);
    ck_assert_uint_eq(files("corrupt"), 1);
    ck_assert_uint_eq(files("new"), 0);
}
END_TEST

/* Catalogue E13. What a message is counted for is counted back when it goes. */
START_TEST(a_user_has_a_limit)
{
    struct err e = {0};
    struct entry *entries[3];
    conf.queue.user_messages_max = 3;
    conf.queue.user_size_max = 100 << 10;
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(users_room(1000, 1, 20, &e), 0);
        entries[i] = accept_message("a@example.org", (const char *const[]){"b@example.com"}, 1);
        entry_own(entries[i], 1000, 20);
    }
    ck_assert_int_eq(users_room(1000, 1, 1, &e), -1);
    ck_assert_int_eq(e.class, ERR_LIMIT);
    ck_str(str_z(e.text), "user 1000 has 3 messages in the queue: not more at once");
    ck_assert_int_eq(users_room(1000, 0, 40, &e), 0);
    ck_assert_int_eq(users_room(1000, 0, 41, &e), -1);
    ck_str(str_z(e.text), "user 1000 has 60 KiB in the queue: not more than 100 at once");
    ck_assert_int_eq(users_room(1256, 1, 100, &e), 0); /* the same bucket */
    ck_assert_int_eq(users_room(1256, 1, 101, &e), -1);
    ck_assert_int_eq(users_room(0, 1, UINT32_MAX, &e), 0); /* root, and those who are nobody here */
    for (int i = 0; i < 3; i++) {
        users_drop(1256, 1, 1); /* has nothing */
        entry_drop(entries[i]);
    }
    ck_assert_int_eq(users_room(1000, 3, 100, &e), 0);
    ck_assert_int_eq(users_room(0, UINT32_MAX, 1, &e), 0);
    ck_assert_uint_eq(users_kib(0), 1);
    ck_assert_uint_eq(users_kib(UINT64_MAX), UINT32_MAX);
}
END_TEST

/* In one bucket, and with sessions whose messages have no size yet. */
START_TEST(users_beside_each_other)
{
    struct err e = {0};
    conf.queue.user_messages_max = 2;
    conf.queue.user_size_max = 100 << 10;
    users_add(1000, 1, 10);
    users_add(1256, 1, 0);
    users_add(1512, 1, 10);
    users_drop(1000, 1, 10);
    ck_assert_int_eq(users_room(1000, 2, 100, &e), 0);
    ck_assert_int_eq(users_room(1256, 2, 1, &e), -1);
    ck_assert_int_eq(users_room(1512, 2, 1, &e), -1);
    users_add(1256, 1, 90);
    users_drop(1256, 1, 90);
    ck_assert_int_eq(users_room(1256, 2, 1, &e), -1);
    ck_assert_int_eq(users_room(1256, 1, 100, &e), 0);
    ck_assert_int_eq(users_room(1256, UINT32_MAX, 1, &e), -1);
}
END_TEST

/* Held on disk, and as a successor finds it; released into new/. */
START_TEST(held_and_released)
{
    struct entry *entry = accept_message("s@example.com", alice, 1);
    entry->due_s = clock_steady_s() + 100;
    ck_assert_int_eq(place_defer(entry), 0);
    ck_assert_int_eq(place_hold(entry), 0);
    place_sync();
    ck_assert_uint_eq(leaves("cur"), 0);
    ck_assert_uint_eq(files("hold"), 1);
    message_free(load(entry));
    ck_assert_int_eq(place_release(entry), 0);
    place_sync();
    ck_assert_uint_eq(files("hold"), 0);
    ck_assert_uint_eq(files("new"), 1);
    ck_assert_int_eq(place_hold(entry), 0);
    store_remove(entry, false);
    ck_assert_uint_eq(files("hold"), 0);
}
END_TEST

static void
defer(struct message *m)
{
    m->open = m->nrcpt;
    for (size_t i = 0; i < m->nrcpt; i++)
        if (m->rcpts[i]->state == RCPT_TODO)
            message_outcome(m, m->rcpts[i], OUTCOME_LATER, STR("4.4.1"), STR("nobody there"),
                            STR("none"));
}

/* Ten years, either way, while it waits and while qmgr is down: its age goes on as time passes. */
START_TEST(clocks_that_jump)
{
    const int64_t ten_years = 10 * 365 * 86400ll;
    struct entry *entry = accept_message("s@example.com", both, 2);
    struct message *m = load(entry);
    ck_assert_int_le(message_age_s(m), 1);
    clock_shift.wall_s = _i ? ten_years : -ten_years;
    ck_assert_int_le(message_age_s(m), 1);
    clock_shift.steady_s = 30;
    ck_assert(message_age_s(m) >= 30 && message_age_s(m) <= 31);
    defer(m);
    m->flow = NULL;
    message_settle(m);
    ck_assert(entry->due_s - clock_steady_s() >= 9 && entry->due_s - clock_steady_s() <= 12);
    /* A process that knows nothing but the files, with the clock set back or forth once more. */
    clock_shift.wall_s = _i ? -ten_years : ten_years;
    entry->flags = 0;
    entry->born_s = 0;
    m = load(entry);
    int64_t most = _i ? 31 : 31 + JOURNAL_DOWN_MAX_S;
    ck_assert(message_age_s(m) >= 30 && message_age_s(m) <= most);
    message_free(m);
    /* And one that was never tried. */
    entry = accept_message("s@example.com", alice, 1);
    entry->flags = 0;
    clock_shift.wall_s = -clock_shift.wall_s;
    message_free(load(entry));
    ck_assert_int_le(clock_steady_s() - entry->born_s, JOURNAL_DOWN_MAX_S);
    ck_assert_int_ge(clock_steady_s() - entry->born_s, 0);
}
END_TEST

/* Twice as long each time, up to retry-max, and a tenth at random. */
START_TEST(back_off_has_a_maximum)
{
    struct entry *entry = accept_message("s@example.com", alice, 1);
    for (int i = 0; i < 70; i++) {
        int64_t least = i ? 20 : 10; /* retry 10s, retry-max 20s */
        entry->flags = 0;
        clock_shift.wall_s = 0;
        struct message *m = load(entry);
        defer(m);
        message_settle(m);
        int64_t wait_s = entry->due_s - clock_steady_s();
        ck_assert_msg(wait_s >= least - 1 && wait_s <= least * 11 / 10 + 1, "attempt %d: %lld", i,
                      (long long)wait_s);
        entry_detach(entry);
    }
}
END_TEST

START_TEST(each_class_has_its_time)
{
    static const char *const senders[] = {"s@example.com", "s@example.com", ""};
    const uint32_t times[] = {3000, 2000, 1000};
    conf.queue.expire_s = times[0];
    conf.queue.list_expire_s = times[1];
    conf.queue.bounce_expire_s = times[2];
    for (size_t i = 0; i < 3; i++) {
        struct qfile_rcpt to = {.address = STR("alice@example.org")};
        struct envelope env = {
            .sender = str_z(senders[i]), .rcpts = &to, .nrcpt = 1, .bulk = i == 1};
        struct message *m = load(accept_envelope(&env, 's', "\r\n"));
        ck_assert_int_eq(message_expire_s(m), times[i]);
        message_free(m);
    }
}
END_TEST

/* By its header, by its sender, or by its number of recipients. */
START_TEST(what_is_bulk_mail)
{
    enum { BULK = 50 };
    char names[BULK][20];
    const char *to[BULK];
    for (size_t i = 0; i < BULK; i++) {
        snprintf(names[i], sizeof names[i], "u%zu@example.org", i);
        to[i] = names[i];
    }
    for (size_t n = BULK - 1; n <= BULK; n++) {
        struct message *m = load(accept_message("s@example.com", to, n));
        ck_assert_int_eq(m->bulk, n == BULK);
        message_free(m);
    }
    struct message *m = load(accept_message("", to, 1));
    ck_assert(m->bulk);
    message_free(m);
}
END_TEST

/* With the backslash of a name that aliases led to it is one byte longer, and here to stay. */
START_TEST(what_aliases_led_to)
{
    static char longest[QFILE_ADDR_MAX + 2];
    struct message *m = load(accept_message("s@example.com", alice, 1));
    memset(longest, 'x', sizeof longest);
    memcpy(longest, "\\x@", 3);
    ck_assert_int_eq(message_add_rcpt(m, str_of(longest, sizeof longest)), -1);
    ck_assert_int_eq(message_add_rcpt(m, str_of(longest, sizeof longest - 1)), 0);
    ck_assert_uint_eq(m->nrcpt, 2);
    ck_assert(message_is_local(STR("\\x@far.example")));
    ck_assert(!message_is_local(STR("x@far.example")));
    message_free(m);
}
END_TEST

/* Whatever it asked for (RFC 3461 5.2). */
START_TEST(the_null_sender_is_told_nothing)
{
    struct qfile_rcpt to = {.address = STR("alice@example.org"),
                            .notify = DSN_SUCCESS | DSN_FAILURE | DSN_DELAY};
    struct envelope env = {.rcpts = &to, .nrcpt = 1};
    struct message *m = load(accept_envelope(&env, 's', "\r\n"));
    m->rcpts[0]->state = RCPT_LATER;
    ck_assert(!bounce_wanted(m, BOUNCE_DELAYED));
    m->rcpts[0]->state = RCPT_NEVER;
    ck_assert(!bounce_wanted(m, BOUNCE_FAILED));
    message_free(m);
}
END_TEST

/* What a stranger called himself, and his recipients, add no line to a notice. */
START_TEST(names_in_a_notice_are_clean)
{
    struct err e = {0};
    struct message *m = load(accept_message("s@example.com", alice, 1));
    m->env.client = STR("[192.0.2.1]");
    m->env.helo = STR("evil\r\nX-Helo: \xff");
    ck_assert_int_eq(message_add_rcpt(m, STR("x\r\nX-Rcpt: \xff@example.net")), 0);
    m->open = 2;
    for (size_t i = 0; i < 2; i++)
        message_outcome(m, m->rcpts[i], OUTCOME_NEVER, STR("5.1.1"), STR("no"), STR("local"));
    struct entry *entry = m->entry;
    entry->due_s = clock_steady_s();
    ck_assert_int_eq(place_defer(entry), 0);
    place_settle();
    ck_assert_int_eq(bounce_send(m, BOUNCE_FAILED, &e), 0);
    struct buf b = only_file_in("new");
    ck_assert_int_ge(str_find(buf_str(&b), STR("evil??X-Helo: ? ([192.0.2.1])")), 0);
    ck_assert_int_ge(str_find(buf_str(&b), STR("rfc822; x??X-Rcpt: ?@example.net\r\n")), 0);
    ck_assert_int_lt(str_find(buf_str(&b), STR("\nX-Helo")), 0);
    ck_assert_int_lt(str_find(buf_str(&b), STR("\nX-Rcpt")), 0);
    buf_free(&b);
    message_free(m);
}
END_TEST

/* An alias may lead to five thousand. */
START_TEST(so_many_are_told_of)
{
    struct err e = {0};
    char z[64];
    struct message *m = load(accept_message("s@example.com", alice, 1));
    for (int i = 1; i < 1201; i++) {
        snprintf(z, sizeof z, "u%d@example.net", i);
        ck_assert_int_eq(message_add_rcpt(m, str_z(z)), 0);
    }
    for (size_t i = 0; i < m->nrcpt; i++)
        m->rcpts[i]->state = RCPT_NEVER;
    m->entry->due_s = clock_steady_s();
    ck_assert_int_eq(place_defer(m->entry), 0);
    ck_assert_int_eq(bounce_send(m, BOUNCE_FAILED, &e), 0);
    struct buf b = only_file_in("new");
    ck_assert_int_ge(str_find(buf_str(&b), STR("\r\nAnd 201 more.\r\n")), 0);
    size_t fields = 0;
    struct str rest = buf_str(&b);
    for (ptrdiff_t at; (at = str_find(rest, STR("\r\nFinal-Recipient: "))) >= 0; fields++)
        rest = str_from(rest, (size_t)at + 2);
    ck_assert_uint_eq(fields, 1000);
    buf_free(&b);
    message_free(m);
}
END_TEST

/* Those that wait, and are meant; a dry run changes nothing, whatever the order is. */
START_TEST(tried_at_once)
{
    static const char *const far[] = {"x@far.example"};
    struct entry *meant = accept_message("s@example.com", far, 1);
    struct entry *other = accept_message("s@example.com", alice, 1);
    struct entry *held = accept_message("s@example.com", far, 1);
    struct qfilter far_ones = {.domain = STR("far.example")};
    uint32_t busy;
    ck_assert_int_eq(place_hold(held), 0);
    place_sync();
    entry_become(held, ENTRY_HELD);
    meant->due_s = other->due_s = clock_steady_s() + 19;
    entry_wait(meant);
    entry_wait(other);
    static const struct {
        enum queue_action action;
        uint32_t count;
    } dry[] = {{QUEUE_TRY, 1}, {QUEUE_HOLD, 1}, {QUEUE_RELEASE, 1}, {QUEUE_DROP, 2}};
    for (size_t i = 0; i < sizeof dry / sizeof dry[0]; i++) {
        ck_assert_uint_eq(order(dry[i].action, true, &far_ones, &busy), dry[i].count);
        ck_assert_int_eq(meant->state, ENTRY_WAITS);
        ck_assert_int_eq(held->state, ENTRY_HELD);
        ck_assert_uint_eq(index_count(), 3);
    }
    ck_assert_uint_eq(select_messages(QUEUE_TRY, &far_ones, &busy), 1);
    ck_assert_int_eq(meant->state, ENTRY_ACTIVE);
    ck_assert_int_eq(other->state, ENTRY_WAITS);
    ck_assert_int_eq(held->state, ENTRY_HELD);
}
END_TEST

/* So many are said, sent, and found; one more the command does not take, and qmgr does nothing for
 * who sends it nevertheless. */
START_TEST(ids_at_their_ceiling)
{
    static char ids[QFILTER_IDS_MAX + 1][ID_LEN + 1];
    static struct qfilter f;
    struct entry *entry = accept_message("s@example.com", alice, 1);
    struct err e = {0};
    struct msg m = {0};
    uint32_t busy;
    int pair[2];
    entry->due_s = clock_steady_s() + 19;
    entry_wait(entry);
    for (size_t i = 0; i < QFILTER_IDS_MAX; i++) {
        store_new_id(ids[i]);
        if (i == QFILTER_IDS_MAX / 2)
            memcpy(ids[i], entry->id, ID_LEN);
        ck_assert_int_eq(qfilter_word(&f, NULL, ids[i], &e), 1);
    }
    ck_assert_uint_eq(order(QUEUE_DROP, true, &f, &busy), 1);
    ck_assert_int_eq(qfilter_word(&f, NULL, ids[0], &e), -1);
    ck_assert_int_eq(e.class, ERR_LIMIT);
    ck_assert_str_eq(e.text, "more than 1000 IDs");
    ck_assert_uint_eq(f.nids, QFILTER_IDS_MAX);
    msg_begin(&m, M_QUEUE_SELECT);
    msg_put_str(&m, STR(""));
    msg_put_u32(&m, QUEUE_DROP);
    msg_put_bool(&m, false);
    struct qfilter none = {0};
    qfilter_put(&m, &none);
    buf_truncate(&m.fields, m.fields.n - 5); /* the number of IDs: a type, and a u32 */
    msg_put_u32(&m, QFILTER_IDS_MAX + 1);
    for (size_t i = 0; i <= QFILTER_IDS_MAX; i++)
        msg_put_str(&m, str_of(entry->id, ID_LEN));
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    ck_assert_ptr_nonnull(service_adopt(&qmgr.service, pair[0], R_CTL, NULL));
    ck_assert_int_eq(msg_send(pair[1], &m), 0);
    turn();
    ck_assert_int_eq(chan_recv(pair[1], &m, R_QMGR, R_CTL, 1000, &e), 0);
    ck_assert_uint_eq(index_count(), 1);
    ck_assert_uint_eq(order(QUEUE_DROP, false, &f, &busy), 1);
    ck_assert_uint_eq(index_count(), 0);
    close(pair[1]);
    msg_free(&m);
}
END_TEST

START_TEST(found_by_age)
{
    struct qfilter older = {.older_s = 3600}, newer = {.newer_s = 3600}, all = {.all = true};
    uint32_t busy;
    clock_shift.wall_s = -7200;
    struct entry *old = accept_message("s@example.com", alice, 1);
    accept_message("s@example.com", alice, 1);
    clock_shift.wall_s = 0;
    struct entry *young = accept_message("s@example.com", alice, 1);
    struct qfilter named = {.ids = {str_of(young->id, ID_LEN), str_of(old->id, ID_LEN)}, .nids = 2};
    ck_assert_uint_eq(select_messages(QUEUE_FIND, &named, &busy), 2);
    named.older_s = 3600; /* of those named, and no others */
    ck_assert_uint_eq(select_messages(QUEUE_FIND, &named, &busy), 1);
    named.newer_s = 3600;
    ck_assert_uint_eq(select_messages(QUEUE_FIND, &named, &busy), 0);
    named.older_s = 0;
    ck_assert_uint_eq(select_messages(QUEUE_FIND, &named, &busy), 1);
    ck_assert_uint_eq(select_messages(QUEUE_FIND, &older, &busy), 2);
    ck_assert_uint_eq(select_messages(QUEUE_FIND, &newer, &busy), 1);
    newer.all = true;
    ck_assert_uint_eq(select_messages(QUEUE_HOLD, &newer, &busy), 1);
    ck_assert_uint_eq(select_messages(QUEUE_DROP, &older, &busy), 2);
    ck_assert_uint_eq(select_messages(QUEUE_FIND, &all, &busy), 1);
    ck_assert_uint_eq(files("hold"), 1);
}
END_TEST

/* Held in the middle of a delivery, and released before its end: it is not held. */
START_TEST(held_and_released_while_active)
{
    struct qfilter all = {.all = true};
    uint32_t busy;
    struct entry *entry = accept_message("s@example.com", alice, 1);
    message_start(entry, 0);
    ck_assert_uint_eq(select_messages(QUEUE_HOLD, &all, &busy) + busy, 1);
    ck_assert(entry->flags & ENTRY_HOLD);
    (void)select_messages(QUEUE_RELEASE, &all, &busy);
    ck_assert(!(entry->flags & ENTRY_HOLD));
}
END_TEST

START_TEST(a_wait_beyond_the_longest)
{
    struct entry *entry = accept_message("s@example.com", alice, 1);
    entry->due_s = clock_steady_s() + 10 * 365 * 86400ll;
    entry_wait(entry);
    ck_assert_int_eq(entry->state, ENTRY_WAITS);
    ck_assert_int_le(entry->due_s, clock_steady_s() + 20);
}
END_TEST

/* One notice, and on record; then, tried often enough, the end: each with its own last reason. */
START_TEST(warned_once_then_expired)
{
    struct entry *entry = accept_message("s@example.com", both, 2);
    for (int i = 0; i < 3; i++) {
        clock_shift.steady_s += 20; /* warn-after is 15s */
        entry->flags = 0;
        struct message *m = load(entry);
        m->open = 2;
        message_outcome(m, m->rcpts[0], OUTCOME_LATER, STR("4.2.1"), STR("full"), STR("none"));
        message_outcome(m, m->rcpts[1], OUTCOME_LATER, STR("4.4.1"), STR("nobody there"),
                        STR("none"));
        message_settle(m);
        entry_detach(entry);
        ck_assert_uint_eq(index_count(), 2);
    }
    struct buf b = only_file_in("new");
    ck_assert_int_ge(str_find(buf_str(&b), STR("Subject: Delayed mail")), 0);
    ck_assert_int_ge(str_find(buf_str(&b), STR("Action: delayed\r\nStatus: 4.2.1\r\n")), 0);
    ck_assert_int_ge(str_find(buf_str(&b), STR("Will-Retry-Until: ")), 0);
    buf_free(&b);
    struct message *m = load(entry);
    ck_assert(m->warned && entry->attempts == 3);
    ck_str(m->rcpts[0]->text, "full");
    ck_str(m->rcpts[1]->text, "nobody there");
    message_free(m);
    clock_shift.steady_s += 60;
    message_start(entry, 0);
    ck_assert_uint_eq(index_count(), 2); /* two notices: the message itself is gone */
    ck_assert_uint_eq(leaves("cur") + leaves("journal"), 0);
}
END_TEST

/* Nobody has tried it while this host was down, or its clock was set: it is tried, however old. */
START_TEST(old_and_never_tried)
{
    conf.queue.retry_max_s = 60; /* so that no number of tries is wanted */
    struct entry *entry = accept_message("s@example.com", alice, 1);
    clock_shift.steady_s += 1000; /* expire is 60s */
    message_start(entry, 0);
    ck_assert_ptr_nonnull(entry_message(entry));
    ck_assert_int_gt(message_age_s(entry_message(entry)), 999);
    ck_assert_uint_eq(index_count(), 1);
}
END_TEST

/* Half as often as its time allows, or the clock was set meanwhile: it is tried on. */
START_TEST(old_and_tried_too_little)
{
    conf.queue.expire_s = 400; /* retry-max is 20s */
    struct entry *few = accept_message("s@example.com", alice, 1);
    struct entry *enough = accept_message("s@example.com", alice, 1);
    clock_shift.steady_s += 1000;
    few->attempts = 9;
    message_start(few, 0);
    ck_assert_ptr_nonnull(entry_message(few));
    ck_assert_uint_eq(index_count(), 2);
    char id[ID_LEN + 1];
    snprintf(id, sizeof id, "%.*s", ID_LEN, enough->id);
    enough->attempts = 10;
    message_start(enough, 0);
    ck_assert_ptr_null(index_find(str_z(id)));
}
END_TEST

/* A crash between two removals; one whose message is there, or was put aside, is none. */
START_TEST(orphaned_journals_are_removed)
{
    struct entry *entry = accept_message("s@example.com", alice, 1);
    struct message *m = load(entry);
    struct buf b = buf_new(1000);
    struct err e;
    char id[ID_LEN + 1];
    snprintf(id, sizeof id, "%.*s", ID_LEN, entry->id);
    journal_put_attempt(&b, 7, 60);
    ck_assert_int_eq(journal_append(m, &b, true, &e), 0);
    message_free(m);
    ck_assert(!store_drop_orphan(id));
    ck_assert_int_eq(place_hold(entry), 0);
    ck_assert(!store_drop_orphan(id));
    ck_assert_uint_eq(leaves("journal"), 1);
    store_remove(entry, false);
    ck_assert(store_drop_orphan(id));
    ck_assert_uint_eq(leaves("journal"), 0);
    buf_free(&b);
}
END_TEST

START_TEST(a_domain_that_is_too_long)
{
    char address[400];
    const char *to = address;
    memset(address, 'd', sizeof address);
    memcpy(address, "x@", 2);
    address[2 + 256] = '\0';
    message_start(accept_message("", &to, 1), 0);
    turn();
    ck_assert_uint_eq(index_count(), 0);
}
END_TEST

Suite *suite_queue(void);
Suite *
suite_queue(void)
{
    Suite *s = suite_create("queue");
    TCase *t = tcase_create("queue");
    tcase_set_timeout(t, 300);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, ids_sort_and_are_checked);
    tcase_add_test(t, entries_lie_in_order);
    tcase_add_test(t, new_to_cur_to_nothing);
    tcase_add_test(t, a_journal_is_replayed);
    tcase_add_test(t, a_damaged_journal_is_cut);
    tcase_add_test(t, reasons_at_their_ceiling);
    tcase_add_test(t, expansion_at_its_ceiling);
    tcase_add_test(t, a_bounce_tells_what_failed);
    tcase_add_test(t, the_null_sender_gets_none);
    tcase_add_test(t, damage_is_put_aside);
    tcase_add_test(t, damage_that_cannot_be_put_aside);
    tcase_add_loop_test(t, a_link_or_a_socket, 0, 2);
    tcase_add_test(t, a_user_has_a_limit);
    tcase_add_test(t, users_beside_each_other);
    tcase_add_test(t, held_and_released);
    tcase_add_loop_test(t, clocks_that_jump, 0, 2);
    tcase_add_test(t, a_wait_beyond_the_longest);
    tcase_add_test(t, warned_once_then_expired);
    tcase_add_test(t, old_and_never_tried);
    tcase_add_test(t, old_and_tried_too_little);
    tcase_add_test(t, back_off_has_a_maximum);
    tcase_add_test(t, each_class_has_its_time);
    tcase_add_test(t, what_is_bulk_mail);
    tcase_add_test(t, what_aliases_led_to);
    tcase_add_test(t, the_null_sender_is_told_nothing);
    tcase_add_test(t, names_in_a_notice_are_clean);
    tcase_add_test(t, so_many_are_told_of);
    tcase_add_test(t, tried_at_once);
    tcase_add_test(t, ids_at_their_ceiling);
    tcase_add_test(t, found_by_age);
    tcase_add_test(t, held_and_released_while_active);
    tcase_add_test(t, orphaned_journals_are_removed);
    tcase_add_test(t, a_domain_that_is_too_long);
    suite_add_tcase(s, t);
    return s;
}
