/* qmgr: the directories that a message's name is in, from one to the next. */
#include "tests/unit/fault_calls.h"
#include "tests/unit/queue_world.h"
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>

enum { LATER_MS = 5500 }; /* when all is synced that was not */

static struct entry *
put_off(void)
{
    struct entry *entry = accept_message("s@example.com", alice, 1);
    entry->due_s = clock_steady_s() + 100;
    ck_assert_int_eq(place_defer(entry), 0);
    return entry;
}

/* So many names are in new/, in all cur/XX, in hold/ and corrupt/. */
static void
expect(size_t in_new, size_t in_cur, size_t in_hold, size_t in_corrupt)
{
    ck_assert_uint_eq(files("new"), in_new);
    ck_assert_uint_eq(leaves("cur"), in_cur);
    ck_assert_uint_eq(files("hold"), in_hold);
    ck_assert_uint_eq(files("corrupt"), in_corrupt);
}

/* Another whose ID ends alike. */
static struct entry *
put_off_beside(const struct entry *other)
{
    char name[ID_LEN + 3];
    struct entry *entry = accept_message("s@example.com", alice, 1);
    struct entry *beside = NULL;
    char id[ID_LEN + 1];
    memcpy(id, entry->id, ID_LEN);
    memcpy(id + ID_LEN - 2, other->id + ID_LEN - 2, 3);
    id[ID_LEN] = '\0';
    snprintf(name, sizeof name, "%s.s", id);
    ck_assert_int_eq(renameat(qmgr.new, store_name(entry), qmgr.new, name), 0);
    entry_drop(entry);
    beside = entry_add(id, 's', PLACE_NEW, clock_steady_s() + 100);
    ck_assert_int_eq(place_defer(beside), 0);
    return beside;
}

START_TEST(two_names_until_the_second_is_durable)
{
    struct entry *entry = put_off();
    expect(1, 1, 0, 0);
    ck_assert_int_eq(entry->place, PLACE_CUR);
    message_free(load(entry));
    ck_assert_int_eq(place_defer(entry), 0); /* again, meanwhile */
    expect(1, 1, 0, 0);
    place_settle();
    expect(0, 1, 0, 0);
    place_settle();
    message_free(load(entry));
    ck_assert_int_eq(store_remove(entry, false), 0);
    expect(0, 0, 0, 0);
}
END_TEST

/* While it has two names, something else becomes of it. */
START_TEST(what_comes_before_the_second_is_durable)
{
    struct entry *first = put_off(), *entry = put_off_beside(first);
    (void)put_off_beside(entry);
    expect(3, 3, 0, 0);
    switch (_i) {
    case 0:
        ck_assert_int_eq(store_remove(entry, false), 0);
        expect(0, 2, 0, 0);
        break;
    case 1:
        ck_assert_int_eq(place_hold(entry), 0);
        expect(0, 3, 1, 0);
        place_sync();
        expect(0, 2, 1, 0);
        break;
    case 2:
        ck_assert_int_eq(place_hold(entry), 0);
        place_sync();
        ck_assert_int_eq(place_release(entry), 0);
        expect(1, 2, 1, 0);
        place_sync();
        expect(1, 2, 0, 0);
        ck_assert_int_eq(place_defer(entry), 0);
        expect(1, 3, 0, 0);
        place_settle();
        expect(0, 3, 0, 0);
        break;
    case 3: /* a crash came between the two names once before */
        ck_assert_int_eq(linkat(qmgr.new, store_name(entry), qmgr.corrupt, store_name(entry), 0),
                         0);
        place_quarantine(entry, "for the test");
        expect(0, 2, 0, 1);
        break;
    case 4: /* held and released at once, without a sync between */
        ck_assert_int_eq(place_hold(entry), 0);
        ck_assert_int_eq(place_release(entry), 0);
        expect(1, 2, 1, 0);
        ck_assert_int_eq(store_remove(entry, false), 0);
        expect(0, 2, 0, 0);
        break;
    case 5: /* a part of an order that holds many, and one of them goes */
        ck_assert_int_eq(place_hold(entry), 0);
        ck_assert_int_eq(store_remove(entry, false), 0);
        expect(0, 2, 0, 0);
        break;
    }
    place_settle();
    ck_assert_uint_eq(files("new") + leaves("cur") + files("hold") + files("corrupt"),
                      2u + (_i == 1 || _i == 2 || _i == 3));
}
END_TEST

/* The first name cannot be removed now: it is not forgotten, and nothing else is done meanwhile. */
START_TEST(a_first_name_that_stays)
{
    struct entry *entry = put_off(), *other = put_off();
    while (memcmp(entry->id + ID_LEN - 2, other->id + ID_LEN - 2, 2) == 0) {
        (void)store_remove(other, false); /* which syncs the directory of both */
        (void)store_remove(entry, false);
        entry = put_off(), other = put_off();
    }
    int new = qmgr.new;
    qmgr.new = open("/dev/null", O_RDONLY | O_CLOEXEC);
    place_settle();
    ck_assert_int_eq(place_hold(entry), -1);
    ck_assert_int_eq(store_remove(entry, false), -1);
    place_quarantine(entry, "for the test");
    close(qmgr.new);
    qmgr.new = new;
    expect(2, 2, 0, 0);
    ck_assert_int_eq(store_remove(entry, false), 0);
    expect(1, 1, 0, 0);
    turn_ms(LATER_MS);
    expect(0, 1, 0, 0);
    ck_assert_int_eq(store_remove(other, false), 0);
    expect(0, 0, 0, 0);
}
END_TEST

/* Without a descriptor for the directory nothing is lost, and it goes on when there is one. */
START_TEST(no_descriptor)
{
    struct rlimit full, none;
    struct entry *entry = put_off();
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &full), 0);
    none = full;
    none.rlim_cur = 3;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
    place_settle();
    ck_assert_int_eq(place_defer(entry), -1);
    ck_assert_int_eq(place_hold(entry), -1);
    ck_assert_int_eq(store_remove(entry, false), -1);
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &full), 0);
    expect(1, 1, 0, 0);
    turn_ms(LATER_MS);
    expect(0, 1, 0, 0);
    ck_assert_int_eq(place_defer(entry), 0);
}
END_TEST

/* A name that an earlier, half made move left behind is no reason to lose either. */
START_TEST(the_place_is_taken)
{
    struct entry *entry = accept_message("s@example.com", alice, 1);
    entry->due_s = clock_steady_s() + 100;
    int sub = store_subdir(qmgr.cur, entry->id, true);
    ck_assert_int_eq(linkat(qmgr.new, store_name(entry), sub, store_name(entry), 0), 0);
    close(sub);
    ck_assert_int_eq(place_defer(entry), -1);
    ck_assert_int_eq(entry->place, PLACE_NEW);
    message_free(load(entry));
    struct stat seen;
    ck_assert_int_eq(fstatat(qmgr.new, store_name(entry), &seen, 0), 0);
    ck_assert(!place_drop_twins(entry, seen.st_ino + 1));
    expect(1, 1, 0, 0);
    ck_assert(place_drop_twins(entry, seen.st_ino));
    expect(1, 0, 0, 0);
    ck_assert_int_eq(place_defer(entry), 0);
    place_settle();
    expect(0, 1, 0, 0);
}
END_TEST

START_TEST(a_file_system_without_links)
{
    struct err e = {0};
    fault_arm(FAULT_FAIL, 2);
    ck_assert_int_eq(store_open(dir, &e), -1);
    ck_assert_ptr_nonnull(strstr(e.text, "the queue's file system must have hard links"));
    fault_arm(FAULT_NONE, 0);
    ck_assert_int_eq(store_open(dir, &e), 0);
    expect(0, 0, 0, 0);
    ck_assert_uint_eq(files("tmp"), 0);
}
END_TEST

/* Killed at each call, it has a name, and the first one goes last. */
START_TEST(killed_at_each_call)
{
    struct entry *entry = accept_message("s@example.com", alice, 1);
    entry->due_s = clock_steady_s() + 100;
    bool died = true;
    for (unsigned n = 1; died; n++) {
        int status;
        pid_t pid = fork();
        if (pid == 0) {
            fault_arm(FAULT_DIE, n);
            (void)!place_defer(entry);
            place_settle();
            (void)!place_hold(entry);
            place_sync();
            (void)!place_release(entry);
            place_sync();
            _exit(0);
        }
        ck_assert_int_eq(waitpid(pid, &status, 0), pid);
        died = WIFEXITED(status) && WEXITSTATUS(status) == FAULT_STATUS;
        ck_assert(died || (WIFEXITED(status) && WEXITSTATUS(status) == 0 && n > 8));
        size_t names = files("new") + leaves("cur") + files("hold");
        ck_assert(names == 1 || (died && names == 2));
        /* As a successor finds it, in this order. */
        static const char *const dirs[] = {"hold", "new"};
        struct entry found = *entry;
        found.place = files(dirs[0]) ? PLACE_HOLD : files(dirs[1]) ? PLACE_NEW : PLACE_CUR;
        struct stat seen;
        int at = place_open(&found);
        ck_assert_int_eq(fstatat(at, store_name(&found), &seen, 0), 0);
        ck_assert_uint_eq(seen.st_nlink, names);
        ck_assert_int_eq(place_drop_twins(&found, seen.st_ino), names == 2);
        if (found.place != PLACE_NEW)
            ck_assert_int_eq(renameat(at, store_name(&found), qmgr.new, store_name(&found)), 0);
        place_close(&found, at);
        expect(1, 0, 0, 0);
    }
}
END_TEST

static void
first_life(void (*live)(struct entry *entry))
{
    int status;
    struct entry *entry = accept_message("s@example.com", alice, 1);
    pid_t pid = fork();
    if (pid == 0) {
        entry->due_s = clock_steady_s() + 15;
        live(entry);
        _exit(0);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
    entry_drop(entry);
    ck_assert_uint_eq(index_count(), 0);
}

static void
live_put_off(struct entry *entry)
{
    ck_assert_int_eq(place_defer(entry), 0);
}

static void
live_held(struct entry *entry)
{
    ck_assert_int_eq(place_hold(entry), 0);
}

static void
live_released(struct entry *entry)
{
    ck_assert_int_eq(place_hold(entry), 0);
    place_sync();
    ck_assert_int_eq(place_release(entry), 0);
}

/* A start after a kill between the two names: one goes, and neither its time nor that it is held is
 * forgotten. */
START_TEST(started_between_two_names)
{
    static void (*const lives[])(struct entry *) = {live_put_off, live_held, live_released};
    first_life(lives[_i]);
    ck_assert_uint_eq(files("new") + leaves("cur") + files("hold"), 2);
    scan_start();
    for (int i = 0; i < 200 && index_count() == 0; i++)
        turn();
    struct index_at at = index_after(STR(""));
    struct entry *entry = index_next(&at);
    ck_assert_ptr_nonnull(entry);
    ck_assert_int_eq(entry->state, _i == 0 ? ENTRY_WAITS : ENTRY_HELD);
    if (_i == 0)
        ck_assert_int_ge(entry->due_s, clock_steady_s() + 10);
    ck_assert_uint_eq(files("new") + leaves("cur") + files("hold"), 1);
    message_free(load(entry));
    ck_assert_int_eq(store_remove(entry, false), 0);
    expect(0, 0, 0, 0);
}
END_TEST

Suite *suite_queue_place(void);
Suite *
suite_queue_place(void)
{
    Suite *s = suite_create("queue_place");
    TCase *t = tcase_create("place");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, two_names_until_the_second_is_durable);
    tcase_add_loop_test(t, what_comes_before_the_second_is_durable, 0, 6);
    tcase_add_test(t, a_first_name_that_stays);
    tcase_add_test(t, no_descriptor);
    tcase_add_test(t, the_place_is_taken);
    tcase_add_test(t, a_file_system_without_links);
    tcase_add_test(t, killed_at_each_call);
    tcase_add_loop_test(t, started_between_two_names, 0, 3);
    suite_add_tcase(s, t);
    return s;
}
