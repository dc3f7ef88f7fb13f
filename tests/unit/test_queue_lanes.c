/* qmgr: lanes, with local played by the test. */
#include "lib/ipc/channel.h"
#include "qmgr/lane.h"
#include "tests/unit/queue_world.h"

/* Local, played. */
static int
take_lane(void)
{
    struct msg m = {0};
    struct err e;
    int n;
    for (int turns = 0; (n = chan_recv(door, &m, R_QMGR, R_LOCAL, 0, &e)) < 0 && turns < 100;
         turns++)
        turn_ms(5); /* on a busy machine one turn may not have been enough */
    ck_assert_int_eq(n, 1);
    ck_assert_int_eq(m.type, M_DOOR_OPEN);
    int lane = msg_take_fd(&m, 0);
    ck_assert_int_eq(chan_recv(lane, &m, R_QMGR, R_LOCAL, 0, &e), 1);
    ck_assert_int_eq(m.type, M_ROUTE);
    msg_free(&m);
    return lane;
}

/* A DELIVER: how many recipients, and their indexes. */
static uint32_t
take_job(int lane, uint32_t *index_r, bool *again_r)
{
    struct msg m = {0};
    struct err e = {0};
    int got;
    for (int turns = 0; (got = chan_recv(lane, &m, R_QMGR, R_LOCAL, 0, &e)) < 0 && turns < 100;
         turns++)
        turn_ms(5);
    ck_assert_msg(got == 1, "%s", e.text);
    ck_assert_int_eq(m.type, M_DELIVER);
    (void)msg_get_str(&m), (void)msg_get_str(&m);
    for (int i = 0; i < 4; i++) /* times, sizes, check */
        (void)msg_get_u64(&m);
    *again_r = msg_get_bool(&m);
    (void)msg_get_u32(&m);
    uint32_t n = msg_get_u32(&m);
    for (uint32_t i = 0; i < n; i++) {
        index_r[i] = msg_get_u32(&m);
        (void)msg_get_str(&m);
    }
    ck_assert(msg_end(&m));
    msg_free(&m);
    return n;
}

static void
outcome_status(int lane, uint32_t index, enum outcome what, const char *dsn)
{
    struct msg m = {0};
    msg_begin(&m, M_OUTCOME);
    msg_put_u32(&m, index);
    msg_put_u32(&m, what);
    msg_put_str(&m, str_z(dsn));
    msg_put_str(&m, STR("text"));
    msg_put_str(&m, STR(""));
    ck_assert_int_eq(msg_send(lane, &m), 0);
    msg_free(&m);
}

static void
outcome(int lane, uint32_t index, enum outcome what)
{
    outcome_status(lane, index, what, "2.0.0");
}

static void
expand(int lane, uint32_t index, const char *const *to, uint32_t n)
{
    struct msg m = {0};
    msg_begin(&m, M_EXPAND);
    msg_put_u32(&m, index);
    msg_put_u32(&m, n);
    for (uint32_t i = 0; i < n; i++)
        msg_put_str(&m, str_z(to[i]));
    ck_assert_int_eq(msg_send(lane, &m), 0);
    msg_free(&m);
}

static bool
closed(int lane)
{
    char c;
    turn();
    return recv(lane, &c, 1, MSG_DONTWAIT) == 0;
}

START_TEST(delivered_and_gone)
{
    uint32_t index[JOURNAL_TEST_MAX];
    bool again;
    message_start(accept_message("s@example.com", both, 2), 0);
    turn();
    for (uint32_t i = 0; i < 2; i++) { /* one recipient each: an account cannot hold up another */
        int lane = take_lane();
        ck_assert_uint_eq(take_job(lane, index, &again), 1);
        ck_assert_uint_eq(index[0], i);
        outcome(lane, i, OUTCOME_DONE);
    }
    turn();
    ck_assert_uint_eq(index_count(), 0);
    ck_assert_uint_eq(qmgr.nactive, 0);
    ck_assert_uint_eq(files("new") + files("cur") + files("journal"), 0);
}
END_TEST

/* The last byte of the message, in its file in new/; what it was. */
static char
flip(const struct entry *entry, char to)
{
    char path[700], was;
    snprintf(path, sizeof path, "%s/new/%.*s.s", dir, ID_LEN, entry->id);
    int fd = open(path, O_RDWR);
    off_t at = lseek(fd, -1, SEEK_END);
    ck_assert_int_eq(pread(fd, &was, 1, at), 1);
    ck_assert_int_eq(pwrite(fd, &to, 1, at), 1);
    close(fd);
    return was;
}

/* Both recipients are said to be damaged; it is not true, or it is: _i. */
START_TEST(called_damaged)
{
    uint32_t index[JOURNAL_TEST_MAX];
    bool again;
    struct entry *entry = accept_message("s@example.com", both, 2);
    message_start(entry, 0);
    turn();
    if (_i)
        flip(entry, 'X');
    for (uint32_t i = 0; i < 2; i++) {
        int lane = take_lane();
        ck_assert_uint_eq(take_job(lane, index, &again), 1);
        outcome(lane, i, OUTCOME_DAMAGED);
    }
    turn();
    ck_assert_uint_eq(qmgr.nactive, 0);
    ck_assert_uint_eq(files("new"), 1 - (size_t)_i); /* in cur/ as well: it is put off */
    ck_assert_uint_eq(files("corrupt"), (size_t)_i);
    ck_assert_uint_eq(index_count(), 1 - (size_t)_i);
    ck_assert_uint_eq(leaves("cur"), 1 - (size_t)_i);
}
END_TEST

/* Put back from corrupt/, and as it was: who has it does not get it again. */
START_TEST(damaged_after_the_first)
{
    uint32_t index[JOURNAL_TEST_MAX];
    bool again;
    char from[700], to[700], id[ID_LEN + 1] = {0};
    struct entry *entry = accept_message("s@example.com", both, 2);
    memcpy(id, entry->id, ID_LEN);
    message_start(entry, 0);
    turn();
    int lane = take_lane();
    ck_assert_uint_eq(take_job(lane, index, &again), 1);
    outcome(lane, 0, OUTCOME_DONE);
    turn();
    lane = take_lane();
    ck_assert_uint_eq(take_job(lane, index, &again), 1);
    char was = flip(entry, 'X');
    outcome(lane, 1, OUTCOME_DAMAGED);
    turn();
    ck_assert_uint_eq(files("corrupt"), 1);
    snprintf(from, sizeof from, "%s/corrupt/%s.s", dir, id);
    snprintf(to, sizeof to, "%s/new/%s.s", dir, id);
    ck_assert_int_eq(rename(from, to), 0);
    entry = entry_add(id, 's', PLACE_NEW, 0);
    flip(entry, was);
    struct message *m = load(entry);
    ck_assert_int_eq(m->rcpts[0]->state, RCPT_DONE);
    ck_assert_int_eq(m->rcpts[1]->state, RCPT_TODO);
    message_free(m);
}
END_TEST

/* The operator has it removed meanwhile: then it goes, damaged or not. */
START_TEST(damaged_and_removed)
{
    uint32_t index[JOURNAL_TEST_MAX], busy;
    bool again;
    struct qfilter f = {.all = true};
    struct entry *entry = accept_message("s@example.com", alice, 1);
    message_start(entry, 0);
    turn();
    int lane = take_lane();
    ck_assert_uint_eq(take_job(lane, index, &again), 1);
    (void)select_messages(QUEUE_DROP, &f, &busy);
    ck_assert_uint_eq(busy, 1);
    flip(entry, 'X');
    outcome(lane, 0, OUTCOME_DAMAGED);
    turn();
    ck_assert_uint_eq(files("new") + files("corrupt"), 0);
    ck_assert_uint_eq(index_count(), 0);
}
END_TEST

/* Local looks through a whole mailbox for what may be there already: not for what only had to wait
 * for its first attempt. */
START_TEST(what_had_to_wait_is_not_tried_again)
{
    uint32_t index[JOURNAL_TEST_MAX];
    bool again;
    struct arena arena = arena_new(1 << 20);
    struct entry *entry = accept_message("s@example.com", alice, 1);
    struct message *m = load(entry);
    struct envelope env = m->env;
    qmgr.nactive = ACTIVE_MAX; /* no place in memory */
    int fd = -1;
    message_adopt(entry, &arena, &env, &fd);
    m->entry = NULL;
    message_free(m);
    qmgr.nactive = 0;
    turn();
    int lane = take_lane();
    ck_assert_uint_eq(take_job(lane, index, &again), 1);
    ck_assert(!again);
    outcome(lane, 0, OUTCOME_LATER);
    turn();
    entry_detach(entry);
    message_start(entry, 0);
    turn();
    ck_assert_uint_eq(take_job(lane, index, &again), 1);
    ck_assert(again);
    outcome(lane, 0, OUTCOME_DONE);
    turn();
    ck_assert_uint_eq(index_count(), 0);
}
END_TEST

static void
adopt(struct entry *entry)
{
    struct err e = {0};
    struct arena arena = arena_new(2 * QFILE_ENVELOPE_MAX);
    struct envelope env;
    int fd = store_read_fd(entry);
    ck_assert_int_eq(qfile_read(fd, str_of(entry->id, ID_LEN), &arena, &env, &e), 0);
    message_adopt(entry, &arena, &env, &fd);
    arena_free(&arena);
    if (fd >= 0)
        close(fd);
}

/* The last place in memory is used; what comes then waits for one, is not lost, and takes no
 * attempt for it. */
START_TEST(active_at_its_ceiling)
{
    uint32_t index[JOURNAL_TEST_MAX];
    bool again;
    struct entry *last = accept_message("s@example.com", alice, 1);
    struct entry *beyond = accept_message("s@example.com", both + 1, 1);
    qmgr.nactive = ACTIVE_MAX - 1;
    adopt(last);
    ck_assert_int_eq(last->state, ENTRY_ACTIVE);
    adopt(beyond);
    ck_assert_int_ne(beyond->state, ENTRY_ACTIVE);
    ck_assert_ptr_null(entry_message(beyond));
    ck_assert_uint_eq(qmgr.nactive, ACTIVE_MAX);
    turn();
    int lane = take_lane();
    ck_assert_uint_eq(take_job(lane, index, &again), 1);
    outcome(lane, 0, OUTCOME_DONE);
    turn();
    ck_assert_int_ne(beyond->state, ENTRY_ACTIVE); /* the last quarter is for what comes new */
    ck_assert_uint_eq(qmgr.nactive, ACTIVE_MAX - 1);
    qmgr.nactive = 0;
    ready_wake();
    turn();
    ck_assert_int_eq(beyond->state, ENTRY_ACTIVE);
    ck_assert_uint_eq(beyond->attempts, 0);
    ck_assert_uint_eq(take_job(lane, index, &again), 1);
    ck_assert(!again);
    outcome(lane, 0, OUTCOME_DONE);
    turn();
    ck_assert_uint_eq(index_count(), 0);
    ck_assert_uint_eq(qmgr.nactive, 0);
}
END_TEST

START_TEST(one_done_one_later)
{
    uint32_t index[JOURNAL_TEST_MAX];
    bool again;
    struct entry *entry = accept_message("s@example.com", both, 2);
    message_start(entry, 0);
    turn();
    int first = take_lane(), lane = take_lane();
    ck_assert_uint_eq(take_job(first, index, &again), 1);
    ck_assert_uint_eq(take_job(lane, index, &again), 1);
    outcome(first, 0, OUTCOME_DONE);
    turn(); /* so that the other lane is the one that rested last, and is used first */
    outcome(lane, 1, OUTCOME_LATER);
    turn();
    ck_assert_uint_eq(files("cur"), 1);
    ck_assert_uint_eq(entry->attempts, 1);
    ck_assert(entry->due_s >= clock_steady_s() + 9 && entry->due_s <= clock_steady_s() + 12);
    entry_detach(entry);
    message_start(entry, 0);
    turn();
    ck_assert_uint_eq(take_job(lane, index, &again), 1);
    ck_assert_uint_eq(index[0], 1);
    ck_assert(again);
    outcome(lane, 1, OUTCOME_DONE);
    turn();
    ck_assert_uint_eq(index_count(), 0);
}
END_TEST

START_TEST(an_alias_is_recorded_first)
{
    static const char *const to[] = {"\\alice@example.org", "carol@example.org"};
    uint32_t index[JOURNAL_TEST_MAX];
    bool again;
    struct entry *entry = accept_message("s@example.com", alice, 1);
    message_start(entry, 0);
    turn();
    int lane = take_lane();
    take_job(lane, index, &again);
    expand(lane, 0, to, 1);
    expand(lane, 0, to + 1, 1);
    outcome(lane, 0, OUTCOME_EXPANDED);
    turn();
    ck_assert_uint_eq(files("journal"), 1);
    struct message *copy = load(entry); /* as a successor would find it */
    ck_assert_uint_eq(copy->nrcpt, 3);
    ck_assert_int_eq(copy->rcpts[0]->state, RCPT_DONE);
    copy->entry = NULL;
    message_free(copy);
    ck_assert_uint_eq(take_job(lane, index, &again), 1);
    int other = take_lane();
    outcome(lane, index[0], OUTCOME_DONE);
    ck_assert_uint_eq(take_job(other, index, &again), 1);
    outcome(other, index[0], OUTCOME_DONE);
    turn();
    ck_assert_uint_eq(index_count(), 0);
}
END_TEST

/* With the message's other recipients they are too many: its sender is told so now. */
START_TEST(an_alias_of_too_many)
{
    enum { PART = 1000 };
    static char names[EXPANDED_MAX][16];
    const char *to[PART];
    uint32_t index[JOURNAL_TEST_MAX];
    bool again;
    message_start(accept_message("s@example.com", alice, 1), 0);
    turn();
    int lane = take_lane();
    take_job(lane, index, &again);
    for (int i = 0; i < EXPANDED_MAX; i++) {
        snprintf(names[i], sizeof names[i], "u%d@far", i);
        to[i % PART] = names[i];
        if (i % PART == PART - 1) {
            expand(lane, 0, to, PART);
            turn();
        }
    }
    outcome(lane, 0, OUTCOME_EXPANDED);
    turn_ms(100); /* each of them was compared with all before it */
    ck_assert_uint_eq(files("journal"), 0);
    struct index_at at = index_after(STR(""));
    const struct entry *notice = index_next(&at);
    ck_assert_uint_eq(index_count(), 1);
    ck_assert_int_eq(notice->origin, 'b');
}
END_TEST

/* Each closes that lane, and the job goes to another; after three the message waits. */
static void
misbehave(int lane, int how)
{
    static const char *const to[] = {"x@example.org"};
    struct err e;
    switch (how) {
    case 0:
        outcome(lane, 77, OUTCOME_DONE);
        break;
    case 1:
        outcome(lane, 0, 4);
        break;
    case 2:
        outcome(lane, 0, OUTCOME_EXPANDED);
        break;
    case 3:
        expand(lane, 9, to, 1);
        break;
    case 4:
        ck_assert_int_ge(chan_open(lane, NULL, &e), 0);
        break;
    case 5:
        ck_assert_int_eq(send(lane, "", 0, 0), 0);
        break;
    case 6:
        ck_assert_int_eq(send(lane, "junk", 4, 0), 4);
        break;
    case 7: /* a line in the report to the sender */
        outcome_status(lane, 0, OUTCOME_NEVER, "5.1\r\nX: y");
        break;
    default:
        shutdown(lane, SHUT_RDWR);
    }
}

START_TEST(a_lane_that_breaks_the_rules)
{
    uint32_t index[JOURNAL_TEST_MAX];
    bool again;
    struct entry *entry = accept_message("s@example.com", alice, 1);
    message_start(entry, 0);
    turn();
    for (int i = 0; i < 3; i++) {
        int lane = take_lane();
        take_job(lane, index, &again);
        ck_assert(again == true);
        misbehave(lane, _i);
        ck_assert(closed(lane));
        close(lane);
        turn_ms(130);
    }
    ck_assert_ptr_null(entry_message(entry));
    ck_assert_uint_eq(entry->attempts, 1);
    ck_assert_uint_eq(qmgr.service.nclients, 0);
}
END_TEST

/* The process at the other end of an idle lane has just gone: that is nobody's failure. */
START_TEST(a_lane_that_has_just_gone)
{
    uint32_t index[JOURNAL_TEST_MAX];
    bool again;
    message_start(accept_message("s@example.com", alice, 1), 0);
    turn();
    int lane = take_lane();
    take_job(lane, index, &again);
    outcome(lane, 0, OUTCOME_DONE);
    turn();
    close(lane);
    struct entry *entry = accept_message("s@example.com", alice, 1);
    message_start(entry, 0);
    turn_ms(150);
    lane = take_lane();
    ck_assert_uint_eq(take_job(lane, index, &again), 1);
    ck_assert_uint_eq(entry->attempts, 0);
    outcome(lane, 0, OUTCOME_DONE);
    turn();
    ck_assert_uint_eq(index_count(), 0);
    turn_ms(2100); /* idle: closed by us, and a job in that very turn finds another */
    ck_assert(closed(lane));
}
END_TEST

START_TEST(many_recipients_go_one_by_one)
{
    static char names[120][32];
    const char *to[120];
    uint32_t index[JOURNAL_TEST_MAX];
    bool again;
    int lanes[20];
    size_t got = 0;
    for (int i = 0; i < 120; i++) {
        snprintf(names[i], sizeof names[i], "u%d@example.org", i);
        to[i] = names[i];
    }
    message_start(accept_message("s@example.com", to, 120), 0);
    turn();
    for (int i = 0; i < 20; i++)
        lanes[i] = take_lane();
    for (int round = 0; round < 6; round++) {
        for (int i = 0; i < 20; i++, got++) {
            ck_assert_uint_eq(take_job(lanes[i], index, &again), 1);
            outcome(lanes[i], index[0], OUTCOME_DONE);
        }
        turn();
    }
    ck_assert_uint_eq(got, 120);
    ck_assert_uint_eq(index_count(), 0);
}
END_TEST

/* Whoever stops his own cell holds a quarter of the lanes, and others are delivered to. */
START_TEST(one_account_holds_few_lanes)
{
    static const char *const forms[] = {"alice@example.org", "ALICE@example.org",
                                        "alice+x@example.org", "alice+y@EXAMPLE.org"};
    uint32_t index[JOURNAL_TEST_MAX];
    bool again;
    for (int i = 0; i < 100; i++)
        message_start(accept_message("s@example.com", &forms[i % 4], 1), 0);
    const char *bob = "bob@example.org";
    message_start(accept_message("s@example.com", &bob, 1), 0);
    turn();
    for (int i = 0; i < 5; i++)
        take_job(take_lane(), index, &again);
    int lane = take_lane();
    take_job(lane, index, &again);
    outcome(lane, index[0], OUTCOME_DONE);
    turn();
    ck_assert_uint_eq(index_count(), 100);
    ck_assert_uint_eq(sched_running(POOL_LOCAL), 5);
}
END_TEST

/* So that each process on the way wakes up for several. */
START_TEST(one_lane_is_handed_some_at_once)
{
    uint32_t index[JOURNAL_TEST_MAX];
    bool again;
    struct entry *entries[6];
    for (int i = 0; i < 6; i++) {
        entries[i] = accept_message("s@example.com", alice, 1);
        message_start(entries[i], 0);
    }
    turn();
    int first = take_lane(), second = take_lane();
    ck_assert_uint_eq(sched_running(POOL_LOCAL), 2);
    for (int i = 0; i < 4; i++)
        ck_assert_uint_eq(take_job(first, index, &again), 1);
    for (int i = 0; i < 2; i++)
        ck_assert_uint_eq(take_job(second, index, &again), 1);
    outcome(second, 0, OUTCOME_DONE);
    outcome(second, 0, OUTCOME_LATER);
    turn();
    ck_assert_uint_eq(index_count(), 5);
    ck_assert_uint_eq(sched_running(POOL_LOCAL), 1);
    for (int i = 0; i < 4; i++) {
        outcome(first, 0, OUTCOME_DONE);
        turn();
        ck_assert_uint_eq(index_count(), 4u - (unsigned)i);
        ck_assert_uint_eq(sched_running(POOL_LOCAL), i < 3);
    }
    place_settle();
    ck_assert_uint_eq(files("new"), 0);
    ck_assert_uint_eq(qmgr.nactive, 0);
}
END_TEST

/* What it had not answered for is tried again, each alone: the one it dies of is found so. */
START_TEST(a_lane_that_dies_with_some)
{
    uint32_t index[JOURNAL_TEST_MAX];
    bool again;
    for (int i = 0; i < 4; i++)
        message_start(accept_message("s@example.com", alice, 1), 0);
    turn();
    int lane = take_lane();
    for (int i = 0; i < 4; i++)
        take_job(lane, index, &again);
    outcome(lane, 0, OUTCOME_DONE);
    turn();
    close(lane);
    turn_ms(130);
    ck_assert_uint_eq(index_count(), 3);
    ck_assert_uint_eq(sched_running(POOL_LOCAL), 3);
    for (int i = 0; i < 3; i++) {
        struct msg m = {0};
        struct err e;
        lane = take_lane();
        ck_assert_uint_eq(take_job(lane, index, &again), 1);
        ck_assert(again);
        ck_assert_int_lt(chan_recv(lane, &m, R_QMGR, R_LOCAL, 0, &e), 0);
        outcome(lane, 0, OUTCOME_DONE);
    }
    turn();
    ck_assert_uint_eq(index_count(), 0);
}
END_TEST

START_TEST(a_large_message_has_no_company)
{
    uint32_t index[JOURNAL_TEST_MAX];
    bool again;
    struct msg m = {0};
    struct err e;
    for (int i = 0; i < 4; i++) {
        struct entry *entry = accept_message("s@example.com", alice, 1);
        message_start(entry, 0);
        if (i == 1 && entry_message(entry))
            entry_message(entry)->env.message_size = 1 << 20;
    }
    turn();
    for (int i = 0; i < 3; i++) {
        int lane = take_lane();
        take_job(lane, index, &again);
        if (i == 2)
            take_job(lane, index, &again);
        ck_assert_int_lt(chan_recv(lane, &m, R_QMGR, R_LOCAL, 0, &e), 0);
    }
    ck_assert_uint_eq(sched_running(POOL_LOCAL), 3);
}
END_TEST

START_TEST(the_file_goes_while_it_waits)
{
    struct entry *entry = accept_message("s@example.com", alice, 1);
    message_start(entry, 0);
    store_remove(entry, false);
    turn();
    ck_assert_ptr_null(entry_message(entry));
    ck_assert_uint_eq(qmgr.nactive, 0);
    message_start(entry, 0);
    ck_assert_uint_eq(index_count(), 0);
}
END_TEST

/* Relay, played. */
static int
relay_lane(void)
{
    struct msg m = {0};
    struct err e;
    int n;
    for (int turns = 0; (n = chan_recv(relay_door, &m, R_QMGR, R_RELAY, 0, &e)) < 0 && turns < 100;
         turns++)
        turn_ms(5);
    ck_assert_int_eq(n, 1);
    int lane = msg_take_fd(&m, 0);
    ck_assert_int_eq(chan_recv(lane, &m, R_QMGR, R_RELAY, 1000, &e), 1);
    ck_assert_int_eq(m.type, M_ROUTE);
    msg_free(&m);
    return lane;
}

/* It answers so for the only recipient of a job, if it has one. */
static bool
relay_answers(int lane, enum outcome what, const char *dsn, const char *text, const char *host)
{
    struct msg m = {0};
    struct err e;
    if (chan_recv(lane, &m, R_QMGR, R_RELAY, 0, &e) < 0)
        return false;
    ck_assert_int_eq(m.type, M_DELIVER);
    msg_begin(&m, M_OUTCOME);
    msg_put_u32(&m, 0);
    msg_put_u32(&m, what);
    msg_put_str(&m, str_z(dsn));
    msg_put_str(&m, str_z(text));
    msg_put_str(&m, str_z(host));
    ck_assert_int_eq(msg_send(lane, &m), 0);
    turn();
    msg_free(&m);
    return true;
}

/* It takes one job, on a lane that then goes. */
static void
relay_once(enum outcome what, const char *dsn, const char *text, const char *host)
{
    int lane = relay_lane();
    ck_assert(relay_answers(lane, what, dsn, text, host));
    close(lane);
    turn();
}

/* A connection has the next message before it has answered for the one before it, and no more. */
START_TEST(a_lane_to_relay_is_handed_two)
{
    static const char *const far[] = {"x@far.example"};
    const char *host = "mx.example[192.0.2.1]:25";
    struct msg m = {0};
    struct err e;
    char c;
    conf.queue.destination_max = 1;
    route_configure();
    message_start(accept_message("s@example.com", far, 1), 0);
    int lane = relay_lane();
    ck_assert(relay_answers(lane, OUTCOME_DONE, "2.0.0", "ok", host));
    for (int i = 0; i < LANE_RELAY_JOBS + 1; i++)
        message_start(accept_message("s@example.com", far, 1), 0);
    turn();
    ck_assert_int_eq(chan_recv(lane, &m, R_QMGR, R_RELAY, 0, &e), 1);
    ck_assert_int_eq(chan_recv(lane, &m, R_QMGR, R_RELAY, 0, &e), 1);
    ck_assert_int_lt(chan_recv(lane, &m, R_QMGR, R_RELAY, 0, &e), 0);
    msg_free(&m);
    outcome(lane, 0, OUTCOME_DONE);
    turn();
    ck_assert_uint_eq(index_count(), 2);
    ck_assert(relay_answers(lane, OUTCOME_DONE, "2.0.0", "ok", host)); /* for the second */
    outcome(lane, 0, OUTCOME_DONE);
    turn();
    ck_assert_uint_eq(index_count(), 0);
    ck_assert_uint_eq(sched_running(POOL_RELAY), 0);
    ck_assert_int_lt(recv(relay_door, &c, 1, MSG_PEEK | MSG_DONTWAIT), 0); /* no other lane */
}
END_TEST

/* What counts as a host that was not reached: two domains that lead to it, five at once. */
START_TEST(a_host_behind_two_domains)
{
    static const struct {
        const char *dsn, *text;
        bool dead;
    } rows[] = {{"4.4.1", "connect: timed out", true},
                {"4.3.2", "host mx said: 421 too busy (in reply to MAIL FROM)", true},
                {"4.2.1", "host mx said: 450 mailbox busy (in reply to RCPT TO)", false}};
    static const char *const to[] = {"x@one.example", "x@two.example"};
    const char *host = "MX.hoster.example[192.0.2.1]:25";
    for (size_t i = 0; i < 2; i++) {
        message_start(accept_message("s@example.com", to + i, 1), 0);
        relay_once(OUTCOME_DONE, "2.0.0", "ok", host);
    }
    struct sched_route *one = sched_route(POOL_RELAY, STR("one.example"));
    struct sched_route *two = sched_route(POOL_RELAY, STR("two.example"));
    ck_assert_ptr_eq(one->site, two->site);
    ck_assert_str_eq(sched_site_name(one->site), "mx.hoster.example");
    for (int i = 0; i < 20; i++) {
        if (sched_is_dead(two->site, now_ms()))
            break;
        message_start(accept_message("s@example.com", to, 1), 0);
        relay_once(OUTCOME_LATER, rows[_i].dsn, rows[_i].text, host);
    }
    ck_assert(sched_is_dead(two->site, now_ms()) == rows[_i].dead);
    /* The operator says that it is well again. */
    struct qfilter all = {.all = true};
    uint32_t busy;
    (void)order(QUEUE_TRY, true, &all, &busy);
    ck_assert(sched_is_dead(two->site, now_ms()) == rows[_i].dead);
    (void)order(QUEUE_TRY, false, &all, &busy);
    ck_assert(!sched_is_dead(two->site, now_ms()));
}
END_TEST

static struct entry *
accept_from(const char *client, const char *const *to, size_t n)
{
    struct qfile_rcpt rcpts[2];
    struct envelope env = {
        .sender = STR("s@example.com"), .client = str_z(client), .rcpts = rcpts, .nrcpt = n};
    for (size_t i = 0; i < n; i++)
        rcpts[i] = (struct qfile_rcpt){.address = str_z(to[i])};
    struct entry *entry = accept_envelope(&env, 's', "\r\nbody\r\n");
    message_start(entry, 0);
    return entry;
}

/* There is one place, and two destinations: a connection is used for some jobs in a row, not for
 * all of them. */
START_TEST(a_connection_gives_way)
{
    static const char *const to[] = {"x@one.example", "x@two.example"};
    unsigned n = 0;
    char c;
    conf.queue.relay_max = 1;
    route_configure();
    for (int i = 0; i < 30; i++)
        message_start(accept_message("s@example.com", to, 1), 0);
    int lane = relay_lane();
    accept_from("[192.0.2.9]", to + 1, 1);
    while (recv(relay_door, &c, 1, MSG_PEEK | MSG_DONTWAIT) != 1 && n < 30)
        n += relay_answers(lane, OUTCOME_DONE, "2.0.0", "ok", "mx.example[192.0.2.1]:25");
    ck_assert_uint_ge(n, SCHED_BURST);
    ck_assert_uint_le(n, SCHED_BURST + 2);
}
END_TEST

/* On a lane that waits or a new one: delivered. */
static void
deliver(int lane)
{
    uint32_t index[JOURNAL_TEST_MAX];
    bool again;
    ck_assert_uint_eq(take_job(lane, index, &again), 1);
    outcome(lane, index[0], OUTCOME_DONE);
    turn();
}

/* With so many in memory a route and a flow are full with few. */
enum { MANY = ACTIVE_MAX - 40, LANES = 60 };
static const char *const bob[] = {"bob@example.org"}, *const carol[] = {"carol@example.org"};

static void
take_lanes(int lanes[LANES], int *n)
{
    char c;
    turn();
    while (recv(door, &c, 1, MSG_PEEK | MSG_DONTWAIT) == 1)
        lanes[(*n)++] = take_lane();
}

static void
fill(const char *client, const char *const *to, int lanes[LANES], int *n)
{
    for (int i = 0; i < 10; i++)
        accept_from(client, to, 1);
    take_lanes(lanes, n);
}

/* Until the queue is empty: what was parked comes back, too. */
static void
deliver_all(int *lanes, int n)
{
    uint32_t index[JOURNAL_TEST_MAX];
    bool again;
    char c;
    for (int rounds = 0; index_count() && rounds < 100; rounds++) {
        take_lanes(lanes, &n);
        for (int i = 0; i < n; i++) {
            if (recv(lanes[i], &c, 1, MSG_PEEK | MSG_DONTWAIT) == 1) {
                take_job(lanes[i], index, &again);
                outcome(lanes[i], index[0], OUTCOME_DONE);
            }
            turn();
        }
    }
    ck_assert_uint_eq(index_count(), 0);
}

/* Parked with a destination that is full; its sender's other mail has gone meanwhile. */
START_TEST(parked_with_a_route_it_keeps_its_flow)
{
    int lanes[LANES], n = 0;
    fill("[192.0.2.1]", alice, lanes, &n);
    qmgr.nactive += MANY;
    struct entry *parked = accept_from("[192.0.2.2]", alice, 1);
    ck_assert_int_eq(parked->state, ENTRY_QUEUED);
    ck_assert_ptr_eq(parked->heap, &parked->route->parked);
    parked->flow->weight = 7; /* to be known by */
    accept_from("[192.0.2.2]", bob, 1);
    take_lanes(lanes, &n);
    deliver(lanes[n - 1]);
    ck_assert_uint_eq(sched_flow(STR("[192.0.2.2]"), false)->weight, 7);
    qmgr.nactive -= MANY;
    deliver_all(lanes, n);
}
END_TEST

/* Parked with a sender who has too much; somebody else's mail for the same mailbox has gone. */
START_TEST(parked_with_a_flow_it_keeps_its_route)
{
    int lanes[LANES], n = 0;
    fill("[192.0.2.1]", alice, lanes, &n);
    fill("[192.0.2.1]", bob, lanes, &n);
    qmgr.nactive += MANY - 10;
    struct entry *parked = accept_from("[192.0.2.1]", carol, 1);
    ck_assert_int_eq(parked->state, ENTRY_QUEUED);
    ck_assert_ptr_eq(parked->heap, &parked->flow->parked);
    parked->route->idle_since_ms = 4711; /* to be known by */
    accept_from("[192.0.2.2]", carol, 1);
    take_lanes(lanes, &n);
    deliver(lanes[n - 1]);
    struct sched_route *route = sched_route(POOL_LOCAL, str_z(carol[0]));
    ck_assert_int_eq(route->idle_since_ms, 4711);
    qmgr.nactive -= MANY - 10;
    deliver_all(lanes, n);
}
END_TEST

/* The same, and both of its recipients are one mailbox that nobody else writes to. */
START_TEST(parked_with_two_names_of_one_mailbox)
{
    static const char *const names[] = {"carol@example.org", "carol+x@example.org"};
    int lanes[LANES], n = 0;
    fill("[192.0.2.1]", alice, lanes, &n);
    fill("[192.0.2.1]", bob, lanes, &n);
    qmgr.nactive += MANY - 10;
    struct entry *parked = accept_from("[192.0.2.1]", names, 2);
    ck_assert_ptr_eq(parked->heap, &parked->flow->parked);
    struct sched_route *route = sched_route(POOL_LOCAL, str_z(carol[0]));
    ck_assert_ptr_eq(parked->route, route);
    ck_assert_uint_eq(route->pins, 1);
    qmgr.nactive -= MANY - 10;
    deliver_all(lanes, n);
}
END_TEST

/* With a queue full of mail whose time has come, a quarter of the places is for what comes new; and
 * what was never tried and what was share the others. */
START_TEST(places_for_what_comes_new)
{
    struct entry *fresh[10], *retried[10];
    size_t active[2] = {0};
    qmgr.nactive = ACTIVE_MAX / 4 * 3 - 4;
    for (size_t i = 0; i < 10; i++) {
        fresh[i] = accept_message("s@example.com", alice, 1);
        retried[i] = accept_message("s@example.com", bob, 1);
        retried[i]->due_s = clock_steady_s();
        ck_assert_int_eq(place_defer(retried[i]), 0);
    }
    for (size_t i = 0; i < 10; i++) {
        entry_wait(fresh[i]);
        entry_wait(retried[i]);
    }
    turn();
    for (size_t i = 0; i < 10; i++) {
        active[0] += fresh[i]->state == ENTRY_ACTIVE;
        active[1] += retried[i]->state == ENTRY_ACTIVE;
    }
    ck_assert_uint_eq(active[0], 2);
    ck_assert_uint_eq(active[1], 2);
    ck_assert_int_eq(accept_from("[192.0.2.1]", carol, 1)->state, ENTRY_ACTIVE);
    qmgr.nactive = 5;
    ready_wake();
    turn();
    ck_assert_uint_eq(qmgr.nactive, 21);
}
END_TEST

/* The one whose turn it was is removed: the next ones do not wait for its end. */
START_TEST(removed_while_it_is_unparked)
{
    int lanes[LANES], n = 0;
    struct entry *parked[2];
    fill("[192.0.2.1]", alice, lanes, &n);
    qmgr.nactive += MANY;
    for (int i = 0; i < 2; i++)
        parked[i] = accept_from("[192.0.2.2]", alice, 1);
    struct sched_route *route = parked[0]->route;
    struct sched_flow *flow = parked[0]->flow;
    route->njobs = 9;
    route->pins++, flow->pins++;
    ready_unpin(route, flow);
    ck_assert_ptr_ne(parked[0]->heap, &route->parked);
    ck_assert_ptr_eq(parked[1]->heap, &route->parked);
    entry_detach(parked[0]);
    ck_assert_ptr_ne(parked[1]->heap, &route->parked);
    route->njobs++;
    entry_drop(parked[0]);
    qmgr.nactive -= MANY;
    deliver_all(lanes, n);
}
END_TEST

Suite *suite_queue_lanes(void);
Suite *
suite_queue_lanes(void)
{
    Suite *s = suite_create("queue_lanes");
    TCase *t = tcase_create("queue_lanes");
    tcase_set_timeout(t, 300);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, delivered_and_gone);
    tcase_add_loop_test(t, called_damaged, 0, 2);
    tcase_add_test(t, damaged_after_the_first);
    tcase_add_test(t, damaged_and_removed);
    tcase_add_test(t, what_had_to_wait_is_not_tried_again);
    tcase_add_test(t, active_at_its_ceiling);
    tcase_add_test(t, one_done_one_later);
    tcase_add_test(t, an_alias_is_recorded_first);
    tcase_add_test(t, an_alias_of_too_many);
    tcase_add_loop_test(t, a_lane_that_breaks_the_rules, 0, 9);
    tcase_add_test(t, a_lane_that_has_just_gone);
    tcase_add_test(t, many_recipients_go_one_by_one);
    tcase_add_test(t, one_account_holds_few_lanes);
    tcase_add_test(t, one_lane_is_handed_some_at_once);
    tcase_add_test(t, a_lane_that_dies_with_some);
    tcase_add_test(t, a_large_message_has_no_company);
    tcase_add_test(t, the_file_goes_while_it_waits);
    tcase_add_test(t, a_lane_to_relay_is_handed_two);
    tcase_add_test(t, a_connection_gives_way);
    tcase_add_loop_test(t, a_host_behind_two_domains, 0, 3);
    tcase_add_test(t, parked_with_a_route_it_keeps_its_flow);
    tcase_add_test(t, parked_with_a_flow_it_keeps_its_route);
    tcase_add_test(t, parked_with_two_names_of_one_mailbox);
    tcase_add_test(t, places_for_what_comes_new);
    tcase_add_test(t, removed_while_it_is_unparked);
    suite_add_tcase(s, t);
    return s;
}
