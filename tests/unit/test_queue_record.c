/* qmgr: what goes on record of a message, when it is durable, and what a successor reads. */
#include "lib/base/siphash.h"
#include "lib/mail/dsn.h"
#include "tests/unit/fault_calls.h"
#include "tests/unit/queue_three.h"
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

enum {
    RECORD_HEAD = 16,
    ATTEMPT_ONLY = RECORD_HEAD + 16, /* bytes of a record that says no more than that */
    FATAL_STATUS = 71
};

/* ---- durable ---- */

/* How each of the calls of an append ends it when it fails; what comes back is how many there are.
 */
static unsigned
calls_of_append(struct message *m, bool sync, int ends_r[10])
{
    struct buf b = buf_new(100);
    journal_put_rcpt(&b, 0, RCPT_DONE);
    for (unsigned n = 1; n < 10; n++) {
        int status;
        pid_t pid = fork();
        if (pid == 0) {
            struct err e;
            fault_arm(FAULT_FAIL, n);
            _exit(journal_append(m, &b, sync, &e) == 0 ? 0 : 1);
        }
        ck_assert_int_eq(waitpid(pid, &status, 0), pid);
        ck_assert(WIFEXITED(status));
        ends_r[n - 1] = WEXITSTATUS(status);
        if (WEXITSTATUS(status) == 0) {
            buf_free(&b);
            return n - 1;
        }
    }
    ck_abort_msg("it never works");
}

/* Its bytes, its name, and the name of its directory; the names once. A sync that fails has no
 * second try. */
START_TEST(a_record_is_durable_when_it_counts)
{
    struct message *m = load(accept_three());
    struct buf b = buf_new(100);
    int ends[10];
    journal_put_rcpt(&b, 0, RCPT_DONE);
    ck_assert_uint_eq(calls_of_append(m, true, ends), 5); /* open, write, three syncs */
    for (int i = 0; i < 5; i++)
        ck_assert_int_eq(ends[i], i < 2 ? 1 : FATAL_STATUS);
    ck_assert_uint_eq(calls_of_append(m, false, ends), 2);
    m->unsynced = true;
    write_record(m, &b);
    ck_assert(!m->unsynced);
    ck_assert_uint_eq(calls_of_append(m, true, ends), 3);
    ck_assert_int_eq(ends[2], FATAL_STATUS);
    struct entry *entry = m->entry;
    message_free(m);
    m = successor(entry); /* who cannot know whether it is */
    ck_assert_uint_eq(calls_of_append(m, true, ends), 5);
    message_free(m);
    buf_free(&b);
}
END_TEST

/* Whether this syncs what it appends, after so many other calls. */
static bool
synced_after(unsigned calls, void (*what)(struct message *), struct message *m)
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        fault_arm(FAULT_FAIL, calls + 3); /* after its open and its write */
        what(m);
        _exit(0);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert(WIFEXITED(status));
    return WEXITSTATUS(status) == FATAL_STATUS;
}

static bool
synced(void (*what)(struct message *), struct message *m)
{
    return synced_after(0, what, m);
}

static void
expand_the_first(struct message *m)
{
    static const struct str to = {"x@far.example", 13};
    (void)!message_expand(m, m->rcpts[0], &to, 1);
}

/* What was done, and that a notice was sent, must not be forgotten; the rest may be. */
START_TEST(what_is_synced)
{
    struct entry *entry = accept_three();
    struct message *m = load(entry);
    struct buf b = buf_new(1000);
    close(store_subdir(qmgr.cur, entry->id, true)); /* whose syncs are others */
    answer(m, 1, OUTCOME_LATER, "busy");
    answer(m, 2, OUTCOME_LATER, "busy");
    switch (_i) {
    case 0: /* nothing is final */
        m->rcpts[0]->state = RCPT_LATER;
        ck_assert(!synced(message_settle, m));
        break;
    case 1:
        m->rcpts[0]->state = RCPT_DONE;
        ck_assert(synced(message_settle, m));
        break;
    case 2:
        m->rcpts[0]->state = RCPT_BOUNCED;
        ck_assert(synced(message_settle, m));
        break;
    case 3: /* written at once, and durable when it is put off */
        m->rcpts[0]->state = RCPT_DONE;
        m->open = 1;
        ck_assert(!synced(message_mark, m));
        message_mark(m);
        m->open = 0;
        ck_assert(synced(message_settle, m));
        break;
    case 4: /* it could not be written at once */
        m->rcpts[0]->state = RCPT_DONE;
        m->open = 1;
        fault_arm(FAULT_FAIL, 1);
        message_mark(m);
        fault_arm(FAULT_NONE, 0);
        ck_assert_uint_eq(journal_size(entry), 0);
        m->open = 0;
        ck_assert(synced(message_settle, m));
        break;
    case 5: /* a predecessor did it */
        journal_put_rcpt(&b, 0, RCPT_BOUNCED);
        journal_put_expanded(&b, 1, 0, NULL, 0);
        m->rcpts[2]->report = REPORT_RELAYED;
        journal_put_owed(&b, m->rcpts[2]);
        write_record(m, &b);
        message_free(m);
        m = successor(entry);
        ck_assert_int_eq(m->rcpts[0]->state, RCPT_BOUNCED);
        ck_assert_int_eq(m->rcpts[1]->state, RCPT_DONE);
        ck_assert_int_eq(m->rcpts[2]->state, RCPT_DONE);
        m->owed = 0;
        ck_assert_int_eq(message_add_rcpt(m, STR("d@far.example")), 0);
        answer(m, 3, OUTCOME_LATER, "busy");
        ck_assert(!synced(message_settle, m));
        break;
    case 6: /* the sender was told of the delay */
        m->rcpts[0]->state = RCPT_LATER;
        m->warned = true;
        ck_assert(!synced(message_settle, m));
        m->warned = false;
        entry->born_s -= 20;
        ck_assert(synced_after(6, message_settle, m)); /* of the notice, and the log */
        message_settle(m);
        m = successor(entry);
        ck_assert(m->warned);
        break;
    case 7:
        ck_assert(synced(expand_the_first, m));
        break;
    }
    message_free(m);
    buf_free(&b);
}
END_TEST

/* All of it or nothing, however much room there is. */
START_TEST(half_a_record_is_taken_back)
{
    struct entry *entry = accept_three();
    struct message *m = load(entry);
    struct buf b = buf_new(1000);
    struct rlimit none, full;
    struct err e = {0};
    journal_put_attempt(&b, 7, 60);
    write_record(m, &b);
    size_t before = journal_size(entry);
    ck_assert_uint_eq(m->journal_size, before);
    signal(SIGXFSZ, SIG_IGN);
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &full), 0);
    for (size_t room = 0; room < b.n; room++) {
        none = (struct rlimit){before + room, full.rlim_max};
        int set = setrlimit(RLIMIT_FSIZE, &none);
        int ok = journal_append(m, &b, true, &e);
        ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &full), 0); /* an assertion writes, too */
        ck_assert(set == 0 && ok == -1);
        ck_assert_uint_eq(journal_size(entry), before);
        if (room)
            ck_assert_ptr_nonnull(strstr(e.text, strerror(ENOSPC)));
    }
    ck_assert_uint_eq(m->journal_size, before);
    b.n = 0;
    journal_put_attempt(&b, 8, 60);
    write_record(m, &b);
    ck_assert_uint_eq(m->journal_size, journal_size(entry));
    message_free(m);
    m = successor(entry);
    ck_assert_uint_eq(entry->attempts, 8);
    ck_assert_uint_eq(m->journal_size, journal_size(entry));
    message_free(m);
    buf_free(&b);
}
END_TEST

/* Nothing may come behind it: qmgr leaves, and its successor cuts the journal. */
START_TEST(half_a_record_that_stays)
{
    struct entry *entry = accept_three();
    struct message *m = load(entry);
    struct buf b = buf_new(1000);
    int status;
    journal_put_attempt(&b, 7, 60);
    write_record(m, &b);
    size_t before = journal_size(entry);
    pid_t pid = fork();
    if (pid == 0) {
        struct err e;
        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &(struct rlimit){before + 5, RLIM_INFINITY});
        fault_arm(FAULT_ONCE, 3); /* after its open and its write */
        (void)journal_append(m, &b, true, &e);
        _exit(0);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert(WIFEXITED(status));
    ck_assert_int_eq(WEXITSTATUS(status), FATAL_STATUS);
    ck_assert_uint_eq(journal_size(entry), before + 5);
    message_free(m);
    m = successor(entry);
    ck_assert_uint_eq(entry->attempts, 7);
    ck_assert_uint_eq(journal_size(entry), before);
    message_free(m);
    buf_free(&b);
}
END_TEST

START_TEST(a_record_that_overflowed)
{
    struct entry *entry = accept_three();
    struct message *m = load(entry);
    struct buf b = buf_new(40);
    struct err e = {0};
    journal_put_rcpt(&b, 0, RCPT_DONE);
    journal_put_rcpt(&b, 1, RCPT_DONE);
    ck_assert_int_eq(journal_append(m, &b, true, &e), -1);
    ck_assert_uint_eq(journal_size(entry), 0);
    message_free(m);
    buf_free(&b);
}
END_TEST

/* ---- once ---- */

/* A reason is written when it is new, by whoever writes it. */
START_TEST(a_reason_is_written_once)
{
    struct entry *entry = accept_three();
    for (int i = 0; i < 6; i++) {
        size_t before = journal_size(entry);
        struct message *m = successor(entry);
        for (size_t r = 0; r < 3; r++)
            answer(m, r, OUTCOME_LATER, r == 2 && i >= 3 ? "full" : "busy");
        m->warned = true;
        message_settle(m);
        size_t reasons = i == 0 ? 3 : i == 3 ? 1 : 0;
        ck_assert_uint_eq(journal_size(entry) - before,
                          ATTEMPT_ONLY + reasons * (RECORD_HEAD + 4 + 4));
        m = successor(entry);
        ck_str(m->rcpts[2]->text, i >= 3 ? "full" : "busy");
        ck_assert_uint_eq(entry->attempts, (unsigned)i + 1);
        message_free(m);
    }
}
END_TEST

/* Nobody asks why it was delivered. */
START_TEST(no_reason_for_what_is_done)
{
    struct entry *entry = accept_three();
    struct message *m = load(entry);
    answer(m, 0, OUTCOME_DONE, "ok");
    answer(m, 1, OUTCOME_LATER, "busy");
    answer(m, 2, OUTCOME_DONE, "ok");
    message_settle(m);
    ck_assert_uint_eq(journal_size(entry),
                      ATTEMPT_ONLY + 2 * (RECORD_HEAD + 8) + RECORD_HEAD + 4 + 4);
}
END_TEST

/* A journal that has grown long takes no more of them, within one record either. */
START_TEST(reasons_in_a_long_journal)
{
    enum { ONE = RECORD_HEAD + 4 + 4 };
    struct entry *entry = accept_three();
    struct message *m = load(entry);
    for (size_t r = 0; r < 3; r++)
        answer(m, r, OUTCOME_LATER, "busy");
    m->journal_size = JOURNAL_REASONS_MAX - ONE;
    message_settle(m);
    ck_assert_uint_eq(journal_size(entry), ATTEMPT_ONLY + 2 * ONE);
    struct buf b = buf_new(8 << 20);
    char text[REASON_MAX];
    memset(text, 'x', sizeof text);
    while (b.n <= JOURNAL_REASONS_MAX)
        journal_put_deferred(&b, 2, str_of(text, sizeof text));
    m = successor(entry);
    write_record(m, &b);
    message_free(m);
    size_t before = journal_size(entry);
    m = successor(entry);
    for (size_t r = 0; r < 3; r++)
        answer(m, r, OUTCOME_LATER, "again");
    message_settle(m);
    ck_assert_uint_eq(journal_size(entry), before + ATTEMPT_ONLY);
    buf_free(&b);
}
END_TEST

/* What is marked while others are open is not written again at each answer; nor is anything when no
 * other is. */
START_TEST(a_mark_is_written_once)
{
    enum { ONE = RECORD_HEAD + 8 };
    struct entry *entry = accept_three();
    struct message *m = load(entry);
    answer(m, 0, OUTCOME_DONE, "ok");
    m->open = 2;
    message_mark(m);
    ck_assert_uint_eq(journal_size(entry), ONE);
    message_mark(m);
    ck_assert_uint_eq(journal_size(entry), ONE);
    answer(m, 1, OUTCOME_DONE, "ok");
    m->open = 1;
    message_mark(m);
    ck_assert_uint_eq(journal_size(entry), 2 * ONE);
    answer(m, 2, OUTCOME_DONE, "ok");
    message_mark(m);
    ck_assert_uint_eq(journal_size(entry), 2 * ONE);
    message_settle(m);
    ck_assert_uint_eq(index_count(), 0);
    ck_assert_uint_eq(leaves("journal"), 0);
}
END_TEST

/* ---- what cannot be written, or read ---- */

/* What is on record may say that all is done: without it nothing is tried, and nothing is lost of
 * it. */
START_TEST(a_journal_that_cannot_be_read)
{
    enum { TOO_LONG = 17 << 20 };
    struct entry *entry = accept_three();
    char path[700];
    struct stat seen;
    struct message *m = load(entry);
    struct buf b = buf_new(100);
    journal_path(entry, path);
    journal_put_rcpt(&b, 0, RCPT_DONE);
    write_record(m, &b);
    message_free(m);
    if (_i == 0) {
        ck_assert_int_eq(truncate(path, TOO_LONG), 0);
    } else {
        ck_assert_int_eq(unlink(path), 0);
        ck_assert_int_eq(_i == 1 ? mkdir(path, 0700) : symlink("/dev/null", path), 0);
    }
    if (_i == 3) { /* damaged, and cannot be cut */
        ck_assert_int_eq(unlink(path), 0);
        int fd = open(path, O_WRONLY | O_CREAT, 0600);
        ck_assert_int_eq(write(fd, "x", 1), 1);
        close(fd);
        fault_arm(FAULT_FAIL, 1);
    }
    message_start(entry, 0);
    fault_arm(FAULT_NONE, 0);
    ck_assert_int_eq(entry->state, ENTRY_WAITS);
    ck_assert_int_ge(entry->due_s, clock_steady_s() + 9);
    ck_assert_uint_eq(files("new"), 1);
    ck_assert_uint_eq(files("corrupt"), 0);
    ck_assert_int_eq(lstat(path, &seen), 0);
    if (_i == 0)
        ck_assert_int_eq(seen.st_size, TOO_LONG);
    buf_free(&b);
}
END_TEST

/* Only what is damaged is cut off. */
START_TEST(what_stands_before_damage_stays)
{
    struct entry *entry = accept_three();
    struct message *m = load(entry);
    struct buf b = buf_new(1000);
    char path[700];
    answer(m, 0, OUTCOME_RELAYED, "250 ok");
    m->rcpts[0]->report = REPORT_RELAYED;
    memcpy(m->rcpts[0]->dsn, "2.1.5", 6);
    journal_put_owed(&b, m->rcpts[0]);
    journal_put_rcpt(&b, 1, RCPT_BOUNCED);
    write_record(m, &b);
    message_free(m);
    journal_path(entry, path);
    ck_assert_int_eq(truncate(path, (off_t)b.n + 1), 0);
    size_t fds = temp_fds();
    for (int i = 0; i < 2; i++) {
        m = successor(entry);
        ck_assert_uint_eq(journal_size(entry), b.n);
        ck_assert_int_eq(m->rcpts[0]->state, RCPT_DONE);
        ck_str(str_z(m->rcpts[0]->dsn), "2.1.5");
        ck_assert_int_eq(m->rcpts[1]->state, RCPT_BOUNCED);
        ck_assert_int_eq(m->rcpts[2]->state, RCPT_TODO);
        message_free(m);
    }
    ck_assert_uint_eq(temp_fds(), fds);
    buf_free(&b);
}
END_TEST

START_TEST(reading_makes_nothing)
{
    message_free(load(accept_message("s@example.com", three, 3)));
    ck_assert_uint_eq(files("journal"), 0);
}
END_TEST

/* A record whose check is right. */
static void
craft(struct buf *out, uint32_t type, const void *p, size_t n)
{
    static const struct sipkey key = {"bulkhead-journal"};
    struct str bytes = str_of(p, n);
    uint32_t head[2] = {(uint32_t)n, type};
    uint64_t check = siphash(&key, bytes) ^ (uint64_t)type * 0x9e3779b97f4a7c15u;
    buf_add(out, str_of((const char *)head, sizeof head));
    buf_add(out, str_of((const char *)&check, sizeof check));
    buf_add(out, bytes);
}

/* Written by another version, or by nobody who knows better: no more of it counts than makes sense,
 * and what follows does. */
START_TEST(records_that_make_no_sense)
{
    const uint32_t states[] = {RCPT_TODO, RCPT_SENT, RCPT_LATER, RCPT_NEVER, 99};
    struct {
        uint32_t index, report;
        char dsn[12];
    } owed = {3, REPORT_RELAYED, "123456789012"};
    struct entry *entry = accept_three();
    struct message *m = load(entry);
    struct buf b = buf_new(1000);
    const uint32_t behind[] = {3, RCPT_DONE}, any[5] = {0};
    for (uint32_t i = 0; i < 5; i++)
        craft(&b, J_RCPT, (uint32_t[]){0, states[i]}, 8);
    craft(&b, J_RCPT, behind, 8);
    craft(&b, J_RCPT, any, 4);
    craft(&b, J_RCPT, any, 3);
    craft(&b, J_DEFERRED, behind, 8);
    craft(&b, 2, any, 8);
    craft(&b, J_ATTEMPT, any, 15);
    craft(&b, J_ATTEMPT, any, 17);
    craft(&b, J_OWED, &owed, sizeof owed);
    owed.index = 0;
    craft(&b, J_OWED, &owed, sizeof owed - 1);
    owed.report = REPORT_END;
    craft(&b, J_OWED, &owed, sizeof owed);
    craft(&b, J_EXPANDED, (uint32_t[]){0, DSN_NOTIFY_END}, 8);
    craft(&b, J_EXPANDED, (uint32_t[]){0, DSN_NEVER | DSN_DELAY}, 8);
    craft(&b, J_EXPANDED, (uint32_t[]){0, 0, 5, 0x40404040}, 16); /* an address of 5, cut */
    owed.index = 1;
    owed.report = REPORT_RELAYED;
    craft(&b, J_OWED, &owed, sizeof owed);
    journal_put_rcpt(&b, 2, RCPT_DONE);
    write_record(m, &b);
    message_free(m);
    entry->attempts = 5;
    m = load(entry);
    ck_assert_uint_eq(entry->attempts, 5);
    ck_assert_uint_eq(m->nrcpt, 3);
    ck_assert_int_eq(m->rcpts[0]->state, RCPT_TODO);
    ck_assert(!m->rcpts[0]->marked);
    ck_assert_int_eq(m->rcpts[1]->state, RCPT_DONE);
    ck_str(str_z(m->rcpts[1]->dsn), "12345678901");
    ck_assert_int_eq(m->rcpts[2]->state, RCPT_DONE);
    ck_assert_uint_eq(m->owed, 1);
    ck_assert_uint_eq(journal_size(entry), b.n); /* nothing was damaged */
    message_free(m);
    buf_free(&b);
}
END_TEST

/* ---- expansion ---- */

/* Too many, too long, or no room: it is as if it had not been tried. */
START_TEST(an_expansion_that_fails)
{
    enum { LONG = QFILE_ADDR_MAX + 2 };
    static struct str to[EXPANDED_MAX];
    static char names[EXPANDED_MAX][LONG];
    struct qfile_rcpt rcpt = {.address = STR("a@example.org"), .notify = DSN_SUCCESS};
    struct envelope env = {
        .sender = STR("s@example.com"), .origin = STR("smtp"), .rcpts = &rcpt, .nrcpt = 1};
    struct entry *entry = accept_envelope(&env, 's', "\r\n");
    struct message *m = load(entry);
    int journal = qmgr.journal;
    for (size_t i = 0; i < EXPANDED_MAX; i++) {
        memset(names[i], 'x', sizeof names[i]);
        snprintf(names[i], 8, "%07zu", i);
        names[i][7] = '@';
        to[i] = str_of(names[i], _i == 1 && i == 2 ? LONG : LONG - 1);
    }
    m->open = 1;
    if (_i == 2)
        qmgr.journal = -1;
    ck_assert_int_eq(message_expand(m, m->rcpts[0], to, _i ? 3 : EXPANDED_MAX), _i == 2 ? -1 : -2);
    qmgr.journal = journal;
    ck_assert_uint_eq(m->nrcpt, 1);
    ck_assert_uint_eq(m->owed, 0);
    ck_assert_uint_eq(m->open, 1);
    ck_assert_int_eq(m->rcpts[0]->report, REPORT_NONE);
    ck_assert(!m->rcpts[0]->marked);
    ck_assert_uint_eq(journal_size(entry), 0);
    answer(m, 0, OUTCOME_LATER, "the expansion could not be recorded");
    message_settle(m);
    ck_assert_uint_eq(notices(), 0);
    m = successor(entry);
    ck_assert_uint_eq(m->nrcpt, 1);
    ck_assert_int_eq(m->rcpts[0]->state, RCPT_TODO);
    message_free(m);
}
END_TEST

/* As many as there may be, each as long as it may be. Whoever reads that, with however little
 * memory, knows of all of them, or says that it cannot read it now. */
START_TEST(the_largest_expansion)
{
    enum { MANY = EXPANDED_MAX - 1, LONG = QFILE_ADDR_MAX + 1, STEP = 192 * 1024, STEPS = 50 };
    static struct str to[MANY];
    static char names[MANY][LONG];
    static const char *const alias[] = {"a@example.org"};
    struct entry *entry = accept_message("s@example.com", alias, 1);
    struct message *m = load(entry);
    int failed = 0, whole = 0;
    for (size_t i = 0; i < MANY; i++) {
        memset(names[i], 'x', LONG);
        snprintf(names[i], 8, "%07zu", i);
        names[i][7] = '@';
        to[i] = str_of(names[i], LONG);
    }
    m->open = 1;
    ck_assert_int_eq(message_expand(m, m->rcpts[0], to, MANY), 0);
    message_free(m);
    for (int i = 0; i < STEPS; i++) {
        int status;
        pid_t pid = fork();
        if (pid == 0) {
            struct err e = {0};
            unsigned long pages = 0;
            FILE *f = fopen("/proc/self/statm", "r");
            if (fscanf(f, "%lu", &pages) != 1)
                _exit(9);
            (void)fclose(f);
            rlim_t room = pages * 4096 + (rlim_t)i * STEP;
#ifndef BH_SANITIZE /* which would have no memory for itself */
            setrlimit(RLIMIT_AS, &(struct rlimit){room, room});
#else
            (void)room;
#endif
            m = message_load(entry, &e);
            _exit(!m ? (e.class == ERR_TEMPORARY ? 1 : 2) : m->nrcpt == EXPANDED_MAX ? 0 : 3);
        }
        ck_assert_int_eq(waitpid(pid, &status, 0), pid);
        ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) < 2, "step %d: %x", i, status);
        *(WEXITSTATUS(status) ? &failed : &whole) += 1;
    }
#ifndef BH_SANITIZE
    ck_assert_int_gt(failed, 5);
    ck_assert_int_gt(whole, 5);
#endif
}
END_TEST

/* Some of whom an alias leads to may be known: they get it once. */
START_TEST(an_expansion_to_known_ones)
{
    static const struct str to[] = {
        {"b@example.org", 13}, {"x@far.example", 13}, {"X@far.example", 13}};
    struct entry *entry = accept_three();
    struct message *m = load(entry);
    m->open = 3;
    ck_assert_int_eq(message_expand(m, m->rcpts[0], to, 3), 0);
    ck_assert_uint_eq(m->nrcpt, 4);
    ck_assert_uint_eq(m->open, 4);
    size_t before = journal_size(entry);
    ck_assert_uint_eq(before, RECORD_HEAD + 8u + 4 + 13);
    m->open = 1;
    message_outcome(m, m->rcpts[0], OUTCOME_EXPANDED, STR("2.0.0"), STR("alias"), STR("local"));
    m->open = 3;
    message_mark(m);
    ck_assert_uint_eq(journal_size(entry), before); /* it says that the alias is done */
    message_free(m);
}
END_TEST

/* ---- age ---- */

/* As old as on record, and what has passed since. */
START_TEST(time_that_nobody_watched)
{
    struct entry *entry = accept_three();
    struct message *m = load(entry);
    struct buf b = buf_new(100);
    journal_put_attempt(&b, 3, 600);
    write_record(m, &b);
    message_free(m);
    clock_shift.steady_s += 3600;
    m = successor(entry);
    ck_assert(message_age_s(m) >= 4200 && message_age_s(m) <= 4202);
    ck_assert(entry->flags & ENTRY_AGED);
    message_free(m);
    b.n = 0;
    const struct {
        uint32_t attempts, age_s;
        int64_t wall_s;
    } absurd = {4, 600, INT64_MIN};
    craft(&b, J_ATTEMPT, &absurd, sizeof absurd);
    m = load(entry);
    write_record(m, &b);
    message_free(m);
    m = successor(entry);
    ck_assert_int_eq(message_age_s(m), 600 + JOURNAL_DOWN_MAX_S);
    message_free(m);
    buf_free(&b);
}
END_TEST

/* The clock is set while it waits, before its first attempt or between two. */
START_TEST(what_this_process_knows_better)
{
    struct entry *entry = accept_three();
    struct message *m = load(entry);
    if (_i) {
        struct buf b = buf_new(100);
        journal_put_attempt(&b, 1, 0);
        write_record(m, &b);
        buf_free(&b);
    }
    message_free(m);
    entry->attempts = (unsigned)_i * 3; /* two could not be written: the disk was full */
    clock_shift.wall_s += 40000;
    m = load(entry);
    ck_assert_uint_eq(entry->attempts, (unsigned)_i * 3);
    ck_assert_int_le(message_age_s(m), 1);
    message_free(m);
}
END_TEST

Suite *suite_queue_record(void);
Suite *
suite_queue_record(void)
{
    Suite *s = suite_create("queue_record");
    TCase *t = tcase_create("record");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, a_record_is_durable_when_it_counts);
    tcase_add_loop_test(t, what_is_synced, 0, 8);
    tcase_add_test(t, half_a_record_is_taken_back);
    tcase_add_test(t, half_a_record_that_stays);
    tcase_add_test(t, a_record_that_overflowed);
    tcase_add_test(t, a_reason_is_written_once);
    tcase_add_test(t, no_reason_for_what_is_done);
    tcase_add_test(t, reasons_in_a_long_journal);
    tcase_add_test(t, a_mark_is_written_once);
    tcase_add_loop_test(t, a_journal_that_cannot_be_read, 0, 4);
    tcase_add_test(t, what_stands_before_damage_stays);
    tcase_add_test(t, reading_makes_nothing);
    tcase_add_test(t, records_that_make_no_sense);
    tcase_add_loop_test(t, an_expansion_that_fails, 0, 3);
    tcase_add_test(t, the_largest_expansion);
    tcase_add_test(t, an_expansion_to_known_ones);
    tcase_add_test(t, time_that_nobody_watched);
    tcase_add_loop_test(t, what_this_process_knows_better, 0, 2);
    suite_add_tcase(s, t);
    return s;
}
