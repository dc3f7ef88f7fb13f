/* qmgr: how an attempt ends: what is told, once, and what becomes of the message. */
#include "tests/unit/queue_notice.h"
#include "tests/unit/queue_three.h"

/* Whoever's answers come first: each failure is told once, and that is on record. */
START_TEST(a_failure_is_told_once)
{
    struct entry *entry = accept_three();
    struct message *m = load(entry);
    answer(m, 0, OUTCOME_NEVER, "no");
    answer(m, 1, OUTCOME_DONE, "ok");
    m->open = 1;
    message_mark(m);
    answer(m, 2, OUTCOME_LATER, "busy");
    message_settle(m);
    ck_assert_uint_eq(notices(), 1);
    m = successor(entry);
    ck_assert_int_eq(m->rcpts[0]->state, RCPT_BOUNCED);
    ck_assert_int_eq(m->rcpts[1]->state, RCPT_DONE);
    ck_assert_int_eq(m->rcpts[2]->state, RCPT_TODO);
    answer(m, 2, OUTCOME_DONE, "ok");
    message_settle(m);
    ck_assert_uint_eq(notices(), 1);
    ck_assert_uint_eq(index_count(), 1);
}
END_TEST

/* It cannot be told now: it is tried again, and those that did not fail are let alone. */
START_TEST(a_failure_that_cannot_be_told)
{
    struct entry *entry = accept_three();
    struct message *m = load(entry);
    answer(m, 0, OUTCOME_NEVER, "no");
    answer(m, 1, OUTCOME_DONE, "ok");
    answer(m, 2, OUTCOME_DONE, "ok");
    int tmp = qmgr.tmp;
    qmgr.tmp = -1;
    message_settle(m);
    qmgr.tmp = tmp;
    ck_assert_uint_eq(index_count(), 1);
    m = successor(entry);
    ck_assert_int_eq(m->rcpts[0]->state, RCPT_TODO);
    ck_assert_int_eq(m->rcpts[1]->state, RCPT_DONE);
    ck_assert_int_eq(m->rcpts[2]->state, RCPT_DONE);
    answer(m, 0, OUTCOME_NEVER, "no");
    message_settle(m);
    ck_assert_uint_eq(notices(), 1);
    ck_assert_uint_eq(index_count(), 1);
}
END_TEST

/* It stays in memory with all that it knows until there is room, or until the operator wants it
 * gone. */
START_TEST(no_room_for_a_record)
{
    struct entry *entries[] = {accept_three(), accept_three()};
    int journal = qmgr.journal;
    for (size_t i = 0; i < 2; i++) {
        struct message *m = load(entries[i]);
        answer(m, 0, OUTCOME_DONE, "ok");
        m->open = 2;
        qmgr.journal = -1;
        message_mark(m);
        answer(m, 1, OUTCOME_LATER, "busy");
        answer(m, 2, OUTCOME_LATER, "full");
        message_settle(m);
        ck_assert_int_ne(entries[i]->state, ENTRY_WAITS);
        qmgr.journal = journal;
    }
    ck_assert_uint_eq(leaves("cur"), 0);
    entries[1]->flags |= ENTRY_REMOVE;
    turn_ms(RECORD_AGAIN_MS + 300);
    ck_assert_uint_eq(index_count(), 1);
    ck_assert_int_eq(entries[0]->state, ENTRY_WAITS);
    ck_assert_uint_eq(leaves("cur"), 1);
    ck_assert_uint_eq(leaves("journal"), 1);
    struct message *m = successor(entries[0]);
    ck_assert_uint_eq(entries[0]->attempts, 1);
    ck_assert_int_eq(m->rcpts[0]->state, RCPT_DONE);
    ck_assert_int_eq(m->rcpts[1]->state, RCPT_TODO);
    ck_str(m->rcpts[1]->text, "busy");
    ck_str(m->rcpts[2]->text, "full");
    message_free(m);
}
END_TEST

/* Nothing is lost with what is not final: it does not wait for that. */
START_TEST(no_room_for_reasons)
{
    struct entry *entry = accept_three();
    struct message *m = load(entry);
    int journal = qmgr.journal;
    for (size_t r = 0; r < 3; r++)
        answer(m, r, OUTCOME_LATER, "busy");
    qmgr.journal = -1;
    message_settle(m);
    qmgr.journal = journal;
    ck_assert_int_eq(entry->state, ENTRY_WAITS);
    ck_assert_uint_eq(leaves("cur"), 1);
}
END_TEST

/* The disk does not take the notice: it is written at another attempt. */
START_TEST(a_notice_of_delay_that_cannot_be_written)
{
    struct entry *entry = accept_three();
    struct message *m = load(entry);
    int tmp = qmgr.tmp;
    for (int i = 0; i < 2; i++) {
        entry->born_s -= 20;
        for (size_t r = 0; r < 3; r++)
            answer(m, r, OUTCOME_LATER, "busy");
        qmgr.tmp = i ? tmp : -1;
        message_settle(m);
        ck_assert_uint_eq(notices(), (size_t)i);
        m = successor(entry);
        ck_assert_int_eq(m->warned, i);
    }
    message_free(m);
}
END_TEST

/* There was no room to write that the sender was told, and then what the operator removes stays: it
 * is written then, and the sender is not told again. */
START_TEST(told_of_the_delay_and_not_removed)
{
    struct entry *entry = accept_three();
    struct message *m = load(entry);
    int journal = qmgr.journal;
    entry->born_s -= 20;
    ck_assert_int_eq(place_defer(entry), 0); /* with its first name, which will not go */
    ck_assert_int_eq(unlinkat(qmgr.new, store_name(entry), 0), 0);
    ck_assert_int_eq(mkdirat(qmgr.new, store_name(entry), 0700), 0);
    for (size_t r = 0; r < 3; r++)
        answer(m, r, OUTCOME_LATER, "busy");
    qmgr.journal = -1;
    message_settle(m);
    ck_assert_uint_eq(notices(), 1);
    loop_timer_del(&qmgr.loop, &m->record_again);
    qmgr.journal = journal;
    entry->flags |= ENTRY_REMOVE;
    message_settle(m);
    ck_assert_int_eq(entry->state, ENTRY_WAITS);
    ck_assert_uint_eq(notices(), 1);
    m = successor(entry);
    ck_assert(m->warned);
    message_free(m);
}
END_TEST

/* As it came from a session, with its file: that is handed out once, and closed by who has it. */
START_TEST(the_file_that_was_open)
{
    struct entry *entry = accept_three();
    struct arena arena = arena_new(1 << 20);
    struct envelope env;
    struct err e = {0};
    int fd = store_read_fd(entry);
    ck_assert_int_eq(qfile_read(fd, str_of(entry->id, ID_LEN), &arena, &env, &e), 0);
    message_adopt(entry, &arena, &env, &fd);
    ck_assert_int_eq(fd, -1);
    struct message *m = entry_message(entry);
    ck_assert_ptr_nonnull(m);
    ck_assert(entry->flags & ENTRY_AGED);
    int first = message_file(m), second = message_file(m);
    ck_assert(first >= 0 && second >= 0 && first != second);
    size_t fds = temp_fds();
    m = load(accept_three());
    m->fd = store_read_fd(m->entry);
    message_free(m);
    ck_assert_uint_eq(temp_fds(), fds);
}
END_TEST

/* It is called damaged, and is not, or cannot be looked at now: it is put off. */
START_TEST(called_damaged_and_not_seen)
{
    struct entry *entry = accept_three();
    struct message *m = load(entry);
    int new = qmgr.new;
    size_t fds = temp_fds();
    answer(m, 0, OUTCOME_DAMAGED, "damaged");
    ck_assert_uint_eq(temp_fds(), fds);
    qmgr.new = -1;
    answer(m, 0, OUTCOME_DAMAGED, "damaged");
    qmgr.new = new;
    answer(m, 1, OUTCOME_DONE, "ok");
    answer(m, 2, OUTCOME_DONE, "ok");
    message_settle(m);
    ck_assert_uint_eq(files("corrupt"), 0);
    ck_assert_int_eq(entry->state, ENTRY_WAITS);
    m = successor(entry);
    ck_assert_int_eq(m->rcpts[0]->state, RCPT_TODO);
    ck_assert_int_eq(m->rcpts[1]->state, RCPT_DONE);
    message_free(m);
}
END_TEST

/* All is done, and its file stays: neither is forgotten. */
START_TEST(a_removal_that_fails)
{
    struct entry *entry = accept_three();
    struct message *m = load(entry);
    int new = qmgr.new;
    qmgr.new = open("/dev/null", O_RDONLY | O_CLOEXEC);
    for (size_t r = 0; r < 3; r++)
        answer(m, r, OUTCOME_DONE, "ok");
    message_settle(m);
    close(qmgr.new);
    qmgr.new = new;
    ck_assert_uint_eq(index_count(), 1);
    ck_assert_int_eq(entry->state, ENTRY_WAITS);
    ck_assert_uint_eq(files("new"), 1);
    entry_detach(entry);
    message_start(entry, 0); /* nothing is open */
    ck_assert_uint_eq(index_count(), 0);
    ck_assert_uint_eq(files("new") + leaves("cur") + leaves("journal"), 0);
}
END_TEST

/* An order that came in the middle of an attempt is done at its end, and once. */
START_TEST(held_or_removed_at_the_end)
{
    struct entry *entry = accept_three();
    struct message *m = load(entry);
    int hold = qmgr.hold;
    for (size_t r = 0; r < 3; r++)
        answer(m, r, r ? OUTCOME_LATER : OUTCOME_DONE, "busy");
    entry->flags |= _i == 2 ? ENTRY_REMOVE : ENTRY_HOLD;
    if (_i == 1) /* it cannot be held, and is tried on */
        qmgr.hold = -1;
    message_settle(m);
    qmgr.hold = hold;
    if (_i == 2) {
        ck_assert_uint_eq(index_count(), 0);
        ck_assert_uint_eq(files("new") + leaves("cur") + leaves("journal"), 0);
        return;
    }
    ck_assert(!(entry->flags & ENTRY_HOLD));
    ck_assert_int_eq(entry->state, _i ? ENTRY_WAITS : ENTRY_HELD);
    ck_assert_uint_eq(files("hold"), _i ? 0 : 1);
    ck_assert_uint_eq(files("new"), _i ? 1 : 0);
    ck_assert_uint_eq(leaves("cur"), 0);
    m = successor(entry);
    ck_assert_int_eq(m->rcpts[0]->state, RCPT_DONE);
    message_free(m);
}
END_TEST

/* Whom it was delivered to long ago is not told of. */
START_TEST(given_up_for_the_rest)
{
    struct entry *entry = accept_three();
    struct message *m = load(entry);
    struct buf b = buf_new(100);
    char path[700];
    journal_put_rcpt(&b, 0, RCPT_DONE);
    journal_put_attempt(&b, 9, 3600);
    write_record(m, &b);
    message_free(m);
    buf_free(&b);
    entry->flags = 0;
    message_start(entry, 0);
    ck_assert_uint_eq(index_count(), 1);
    struct index_at at = index_after(STR(""));
    m = load(index_next(&at));
    snprintf(path, sizeof path, "%s/new/%s", dir, store_name(m->entry));
    FILE *f = fopen(path, "r");
    ck_assert_ptr_nonnull(f);
    char text[8192];
    size_t n = fread(text, 1, sizeof text, f);
    fclose(f);
    ck_assert_int_ge(str_find(str_of(text, n), STR("b@example.org")), 0);
    ck_assert_int_ge(str_find(str_of(text, n), STR("c@far.example")), 0);
    ck_assert_int_lt(str_find(str_of(text, n), STR("a@example.org")), 0);
    message_free(m);
}
END_TEST

/* What failed together is not tried together, and not much later. */
START_TEST(no_two_wait_alike)
{
    int64_t least = INT64_MAX, most = 0;
    conf.queue.retry_min_s = 10000;
    conf.queue.retry_max_s = 20000;
    struct entry *entry = accept_three();
    for (int i = 0; i < 60; i++) {
        struct message *m = load(entry);
        entry->attempts = 0;
        for (size_t r = 0; r < 3; r++)
            answer(m, r, OUTCOME_LATER, "busy");
        m->warned = true;
        message_settle(m);
        int64_t wait_s = entry->due_s - clock_steady_s();
        least = wait_s < least ? wait_s : least;
        most = wait_s > most ? wait_s : most;
        entry_detach(entry);
    }
    ck_assert(least >= 9998 && least < 10500);
    ck_assert(most > 10500 && most <= 11000);
}
END_TEST

/* It was given up before, and the notice could not be written: the reason stays what it was. */
START_TEST(given_up_twice)
{
    static const char reason[] =
        EXPIRED_TEXT "host mx.a.example[::1]:25 said: 450 full (in reply to RCPT TO)";
    struct err e;
    struct buf records = buf_new(1000);
    struct entry *entry = accept_message("s@example.com", alice, 1);
    struct message *m = load(entry);
    journal_put_deferred(&records, 0, str_z(reason));
    journal_put_attempt(&records, 100, 1000);
    ck_assert_int_eq(journal_append(m, &records, true, &e), 0);
    message_free(m);
    entry->flags &= (uint8_t)~ENTRY_AGED;
    message_start(entry, 0);
    struct buf b = notice();
    ck_assert_msg(has(&b, "Remote-MTA: dns; mx.a.example\r\nDiagnostic-Code: smtp; 450 full\r\n"),
                  "%s", buf_z(&b));
    ck_assert(has(&b, "Status: 4.4.7\r\n") && has(&b, "    delivery time expired; the last"));
    buf_free(&b);
    buf_free(&records);
}
END_TEST

/* What is read to know that it is whole is bounded. */
START_TEST(a_message_too_large_to_be_checked)
{
    enum { CHECKED_MAX = 64 << 20 };
    struct err e = {0};
    struct qfile_rcpt to = {.address = STR("a@example.org")};
    struct envelope env = {
        .sender = STR("s@example.com"), .origin = STR("smtp"), .rcpts = &to, .nrcpt = 1};
    struct buf text = buf_new(CHECKED_MAX + 1), file = buf_new(CHECKED_MAX + 10000);
    char id[ID_LEN + 1];
    buf_addz(&text, "Subject: y\r\n\r\n");
    size_t n = CHECKED_MAX + (size_t)_i - text.n;
    memset(buf_reserve(&text, n), 'x', n);
    buf_commit(&text, n);
    store_new_id(id);
    ck_assert_int_eq(qfile_whole(&file, str_z(id), &env, buf_str(&text), &e), 0);
    int fd = store_create(id, NULL, &e);
    ck_assert_int_eq(write(fd, file.p, file.n), (ssize_t)file.n);
    close(fd);
    ck_assert_int_eq(store_commit_name(id, 's', 0), 0);
    struct message *m = load(entry_add(id, 's', PLACE_NEW, clock_steady_s()));
    m->open = 1;
    message_outcome(m, m->rcpts[0], OUTCOME_NEVER, STR("5.1.1"), STR("no"), STR("local"));
    message_settle(m);
    struct buf b = notice();
    ck_assert_int_ne(has(&b, "Subject: y\r\n"), _i);
    ck_assert_int_eq(has(&b, "Nothing of your message can be returned."), _i);
    buf_free(&b);
    buf_free(&text);
    buf_free(&file);
}
END_TEST

Suite *suite_queue_end(void);
Suite *
suite_queue_end(void)
{
    Suite *s = suite_create("queue_end");
    TCase *t = tcase_create("end");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, a_failure_is_told_once);
    tcase_add_test(t, a_failure_that_cannot_be_told);
    tcase_add_test(t, no_room_for_a_record);
    tcase_add_test(t, no_room_for_reasons);
    tcase_add_test(t, a_notice_of_delay_that_cannot_be_written);
    tcase_add_test(t, told_of_the_delay_and_not_removed);
    tcase_add_test(t, called_damaged_and_not_seen);
    tcase_add_test(t, the_file_that_was_open);
    tcase_add_test(t, a_removal_that_fails);
    tcase_add_loop_test(t, held_or_removed_at_the_end, 0, 3);
    tcase_add_test(t, given_up_for_the_rest);
    tcase_add_test(t, no_two_wait_alike);
    tcase_add_test(t, given_up_twice);
    tcase_add_loop_test(t, a_message_too_large_to_be_checked, 0, 2);
    suite_add_tcase(s, t);
    return s;
}
