/* qmgr: what senders are told (RFC 3461, RFC 3464): who asks for what, once, and never in circles.
 */
#include "lib/mail/date.h"
#include "lib/mail/dsn.h"
#include "tests/unit/fault_calls.h"
#include "tests/unit/queue_notice.h"
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

static const char letter[] = "Received: x\r\nBcc: hidden@example.org,\r\n\tmore@example.org\r\n"
                             "BCCX: shown\r\nSubject: hello\r\n\r\nbody \xc3\xbc\r\n";

/* A message from s@example.com to some of a, b, c@example.org, with what each asks for. */
static struct entry *
accept_wishes(const uint8_t *notify, size_t n, uint8_t ret)
{
    static const char *const names[] = {"a@example.org", "b@example.org", "c@other.example"};
    struct qfile_rcpt to[3];
    struct envelope env = {.sender = STR("s@example.com"),
                           .origin = STR("smtp"),
                           .client = STR("[192.0.2.1]"),
                           .helo = STR("client.example"),
                           .envid = STR("QQ+2B1"),
                           .ret = ret,
                           .rcpts = to,
                           .nrcpt = n};
    for (size_t i = 0; i < n; i++)
        to[i] = (struct qfile_rcpt){.address = str_z(names[i]), .notify = notify[i]};
    to[0].orcpt = STR("rfc822;First+2BOne@example.org");
    return accept_envelope(&env, 's', letter);
}

static void
answer(struct message *m, size_t i, enum outcome outcome, const char *text)
{
    m->open = 1;
    message_outcome(m, m->rcpts[i], outcome,
                    outcome == OUTCOME_NEVER   ? STR("5.1.1")
                    : outcome == OUTCOME_LATER ? STR("4.2.1")
                                               : STR("2.0.0"),
                    str_z(text), STR("mx.other.example[192.0.2.9]:25"));
    ck_assert_uint_eq(m->open, 0);
}

/* Every set of wishes with every outcome: what is said, of whom. */
START_TEST(every_wish_with_every_outcome)
{
    static const struct {
        enum outcome outcome;
        const char *action;
        uint8_t wanted; /* by any of these, or by nothing asked */
        bool by_default;
    } rows[] = {{OUTCOME_DONE, "Action: delivered", DSN_SUCCESS, false},
                {OUTCOME_NEVER, "Action: failed", DSN_FAILURE, true},
                {OUTCOME_LATER, "Action: delayed", DSN_DELAY, true}};
    uint8_t notify = (uint8_t)_i;
    if (!dsn_notify_ok(notify))
        return;
    for (size_t i = 0; i < 3; i++) {
        struct entry *entry = accept_wishes(&notify, 1, 0);
        struct message *m = load(entry);
        entry->born_s -= 20; /* warn-after is 15s */
        answer(m, 0, rows[i].outcome, "some text");
        message_settle(m);
        struct buf b = notice();
        bool wanted = notify ? (notify & rows[i].wanted) != 0 : rows[i].by_default;
        ck_assert_msg((b.n > 0) == wanted, "notify %d outcome %zu", notify, i);
        if (wanted) {
            ck_assert(has(&b, rows[i].action));
            ck_assert(has(&b, "\r\nOriginal-Envelope-Id: QQ+1\r\n"));
            ck_assert(has(&b, "\r\nReporting-MTA: dns; mx.example.org\r\n"
                              "Received-From-MTA: dns; client.example ([192.0.2.1])\r\n"
                              "Arrival-Date: "));
            ck_assert(has(&b, "\r\n\r\nOriginal-Recipient: rfc822; First+One@example.org\r\n"
                              "Final-Recipient: rfc822; a@example.org\r\nAction: "));
            ck_assert(has(&b, "Will-Retry-Until: ") == (rows[i].outcome == OUTCOME_LATER));
            ck_assert(has(&b, "Last-Attempt-Date: ") == (rows[i].outcome != OUTCOME_DONE));
            ck_assert(has(&b, "Content-Type: text/rfc822-headers\r\n\r\nReceived: x\r\n"
                              "BCCX: shown\r\nSubject: hello\r\n\r\n--"));
            ck_assert(!has(&b, "hidden") && !has(&b, "more@"));
        }
        buf_free(&b);
        while (index_count()) {
            struct index_at at = index_after(STR(""));
            struct entry *left = index_next(&at);
            entry_detach(left);
            store_remove(left, true);
            entry_drop(left);
        }
    }
}
END_TEST

/* One notice of each kind, with those in it whom it concerns. */
START_TEST(each_notice_has_its_own)
{
    static const uint8_t notify[] = {DSN_SUCCESS, DSN_NEVER, DSN_SUCCESS | DSN_FAILURE};
    struct message *m = load(accept_wishes(notify, 3, 0));
    answer(m, 0, OUTCOME_NEVER, "gone");
    answer(m, 1, OUTCOME_NEVER, "gone");
    answer(m, 2, OUTCOME_RELAYED, "250 2.0.0 taken");
    message_settle(m);
    struct buf b = notice();
    ck_assert(has(&b, "Subject: Successful mail delivery report"));
    ck_assert(has(&b, "Final-Recipient: rfc822; c@other.example\r\nAction: relayed\r\n"
                      "Status: 2.0.0\r\nRemote-MTA: dns; mx.other.example\r\n"
                      "Diagnostic-Code: smtp; 250 2.0.0 taken\r\n"));
    ck_assert(!has(&b, "a@example.org") && !has(&b, "b@example.org") && !has(&b, "failed"));
    ck_assert_uint_eq(index_count(), 1); /* the message is gone */
    buf_free(&b);
}
END_TEST

START_TEST(what_a_host_said)
{
    static const struct {
        const char *text, *fields;
    } rows[] = {
        {"host mx.a.example[192.0.2.9]:25 said: 550 5.1.1 no (in reply to RCPT TO)",
         "Status: 5.1.1\r\nRemote-MTA: dns; mx.a.example\r\nDiagnostic-Code: smtp; 550 5.1.1 "
         "no\r\n"},
        {"host 192.0.2.9[192.0.2.9]:25 said: 550 x", "Remote-MTA: dns; [192.0.2.9]\r\n"},
        {EXPIRED_TEXT "host mx.a.example[::1]:25 said: 450 full (in reply to RCPT TO)",
         "Remote-MTA: dns; mx.a.example\r\nDiagnostic-Code: smtp; 450 full\r\n\r\n--"},
        {"host mx is not there", "Status: 5.1.1\r\nDiagnostic-Code: x-bulkhead; host mx is not"},
        {"no such user", "Status: 5.1.1\r\nDiagnostic-Code: x-bulkhead; no such user\r\n"},
        {"", "Diagnostic-Code: x-bulkhead; \r\n"}};
    uint8_t notify = 0;
    struct message *m = load(accept_wishes(&notify, 1, 0));
    answer(m, 0, OUTCOME_NEVER, rows[_i].text);
    message_settle(m);
    struct buf b = notice();
    ck_assert_msg(has(&b, rows[_i].fields), "%s", buf_z(&b));
    buf_free(&b);
}
END_TEST

/* RFC 3461 6.2: the whole message when it is asked for, in a notice of failure, up to a size. */
START_TEST(the_message_comes_back)
{
    static const uint8_t notify = DSN_SUCCESS | DSN_FAILURE;
    for (int failed = 0; failed < 2; failed++)
        for (uint8_t ret = 0; ret <= DSN_RET_HDRS; ret++) {
            struct message *m = load(accept_wishes(&notify, 1, ret));
            answer(m, 0, failed ? OUTCOME_NEVER : OUTCOME_DONE, "x");
            message_settle(m);
            struct buf b = notice();
            bool full = failed && ret == DSN_RET_FULL;
            ck_assert(has(&b, "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n"
                              "\r\nReceived: x\r\nBcc: hidden") == full);
            ck_assert(has(&b, "body \xc3\xbc\r\n\r\n--bulkhead-") == full);
            ck_assert(has(&b, "MIME-Version: 1.0\r\nContent-Transfer-Encoding: 8bit\r\n") == full);
            buf_free(&b);
            struct index_at at = index_after(STR(""));
            struct entry *left = index_next(&at);
            m = load(left);
            ck_assert_int_eq(m->env.eight_bit, full);
            ck_assert_uint_eq(m->env.sender.n, 0);
            message_free(m);
            entry_detach(left);
            store_remove(left, false);
            entry_drop(left);
        }
}
END_TEST

START_TEST(a_message_too_large_to_come_back)
{
    enum { FULL_MAX = 65536 };
    static char text[FULL_MAX + 2];
    struct qfile_rcpt to = {.address = STR("a@example.org")};
    struct envelope env = {.sender = STR("s@example.com"),
                           .origin = STR("smtp"),
                           .ret = DSN_RET_FULL,
                           .rcpts = &to,
                           .nrcpt = 1};
    memset(text, 'x', sizeof text - 1);
    memcpy(text, "Subject: y\r\n\r\n", 14);
    text[FULL_MAX + 1 - _i] = '\0';
    struct message *m = load(accept_envelope(&env, 's', text));
    answer(m, 0, OUTCOME_NEVER, "x");
    message_settle(m);
    struct buf b = notice();
    ck_assert_int_eq(has(&b, "message/rfc822\r\n"), _i);
    ck_assert_int_ne(has(&b, "too large to be returned"), _i);
    buf_free(&b);
}
END_TEST

/* A header of as many bytes as are returned comes back whole; of a longer one the lines that fit.
 */
START_TEST(a_header_too_large_to_come_back)
{
    enum { HEADER_MAX = 50000 };
    static char text[HEADER_MAX + 20];
    struct qfile_rcpt to = {.address = STR("a@example.org")};
    struct envelope env = {
        .sender = STR("s@example.com"), .origin = STR("smtp"), .rcpts = &to, .nrcpt = 1};
    size_t n = HEADER_MAX + (_i ? 1 : 0); /* without the empty line */
    for (size_t i = 0; i < n; i++)
        text[i] = "X-Line: 01234567\r\n"[i % 18];
    memcpy(text + n - 15, "X-Last: abcde\r\n", 15);
    memcpy(text + n - 17, "\r\n", 2);
    snprintf(text + n, sizeof text - n, "\r\nbody\r\n");
    struct message *m = load(accept_envelope(&env, 's', text));
    answer(m, 0, OUTCOME_NEVER, "x");
    message_settle(m);
    struct buf b = notice();
    size_t lines = 0;
    for (struct str left = buf_str(&b); left.n;)
        lines += str_eq(str_cut(&left, '\n'), STR("X-Line: 01234567\r"));
    ck_assert_uint_eq(lines, (n - 15) / 18);
    ck_assert_int_ne(has(&b, "X-Last: abcde\r\n"), _i);
    ck_assert(!has(&b, "X-Last: abcd\r\n") && has(&b, "text/rfc822-headers"));
    ck_assert(!has(&b, "body"));
    buf_free(&b);
}
END_TEST

/* It tells of those that wait, and only people, or who asks for it. */
START_TEST(whom_a_delay_is_told_of)
{
    static const uint8_t notify[] = {0, 0, DSN_DELAY};
    for (int bulk = 0; bulk < 2; bulk++)
        for (size_t n = 2; n <= 3; n++) {
            struct entry *entry = accept_wishes(notify, n, 0);
            struct message *m = load(entry);
            m->bulk = bulk;
            entry->born_s -= 20;
            answer(m, 0, OUTCOME_DONE, "ok");
            for (size_t i = 1; i < n; i++)
                answer(m, i, OUTCOME_LATER, "busy");
            message_settle(m);
            struct buf b = notice();
            ck_assert(!has(&b, "a@example.org"));
            ck_assert_int_eq(has(&b, "<b@example.org>"), !bulk);
            ck_assert_int_eq(has(&b, "<c@other.example>"), n == 3);
            buf_free(&b);
            while (index_count()) {
                struct index_at at = index_after(STR(""));
                entry = index_next(&at);
                ck_assert_int_ne(entry->state, ENTRY_NONE); /* each has its time */
                entry_detach(entry);
                place_settle();
                store_remove(entry, true);
                entry_drop(entry);
            }
        }
}
END_TEST

/* Tried too little to be given up, and older than that. */
START_TEST(a_delay_of_what_should_be_gone)
{
    static const uint8_t notify = 0;
    char before[60], after[60];
    struct entry *entry = accept_wishes(&notify, 1, 0);
    struct message *m = load(entry);
    struct buf now = buf_new(100);
    entry->born_s -= 86400ll * 30;
    answer(m, 0, OUTCOME_LATER, "busy");
    m->rcpts[0]->dsn[0] = '\0';
    date_format(&now, clock_wall_s(), 0);
    snprintf(before, sizeof before, "Will-Retry-Until: %.17s", buf_z(&now)); /* to the hour */
    message_settle(m);
    buf_truncate(&now, 0);
    date_format(&now, clock_wall_s(), 0);
    snprintf(after, sizeof after, "Will-Retry-Until: %.17s", buf_z(&now));
    struct buf b = notice();
    ck_assert_msg(has(&b, before) || has(&b, after), "%s", buf_z(&b));
    ck_assert(has(&b, "Status: 4.0.0\r\n"));
    buf_free(&b);
    buf_free(&now);
}
END_TEST

/* A notice is written, synced and named as a session's message is: each call failing, with or
 * without those behind it, none is left, and it is not said to be there. */
START_TEST(a_notice_is_durable)
{
    enum { FATAL_STATUS = 71, CALLS = 5 };
    static const uint8_t notify = 0;
    struct message *m = load(accept_wishes(&notify, 1, 0));
    answer(m, 0, OUTCOME_NEVER, "no");
    for (unsigned n = 1; n <= CALLS + 1; n++) {
        int status;
        pid_t pid = fork();
        if (pid == 0) {
            struct err e;
            size_t fds = temp_fds();
            fault_arm(_i ? FAULT_ONCE : FAULT_FAIL, n);
            int ok = bounce_send(m, BOUNCE_FAILED, &e);
            _exit(temp_fds() != fds ? 2 : ok < 0);
        }
        ck_assert_int_eq(waitpid(pid, &status, 0), pid);
        ck_assert(WIFEXITED(status));
        /* Of the last two, its sync may fail alone; that of the directory ends the process. */
        bool fatal = n == CALLS;
        ck_assert_int_eq(WEXITSTATUS(status), fatal ? FATAL_STATUS : n < CALLS);
        ck_assert_uint_eq(files("tmp"), 0);
        ck_assert_uint_eq(files("new"), n > CALLS ? 2 : 1);
    }
    message_free(m);
}
END_TEST

/* A disk that is full in the middle of it, and syncs well what there is. */
START_TEST(half_a_notice)
{
    static const uint8_t notify = 0;
    struct err e = {0};
    struct rlimit full, some;
    struct message *m = load(accept_wishes(&notify, 1, 0));
    answer(m, 0, OUTCOME_NEVER, "no");
    signal(SIGXFSZ, SIG_IGN);
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &full), 0);
    for (rlim_t size = 0; size < 1000; size += 50) {
        some = (struct rlimit){size, full.rlim_max};
        int set = setrlimit(RLIMIT_FSIZE, &some);
        int ok = bounce_send(m, BOUNCE_FAILED, &e);
        ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &full), 0); /* an assertion writes, too */
        ck_assert(set == 0 && ok == -1);
        ck_assert_uint_eq(files("tmp") + files("new"), 1);
    }
    ck_assert_int_eq(bounce_send(m, BOUNCE_FAILED, &e), 0);
    message_free(m);
}
END_TEST

/* Its file is damaged in the header or behind it: the sender is told, and nothing that was in the
 * file. What cannot be read to its end waits: the next load says what is wrong. */
START_TEST(nothing_to_return)
{
    static const uint8_t notify = DSN_SUCCESS | DSN_FAILURE | DSN_DELAY;
    struct err e = {0};
    struct entry *entry = accept_wishes(&notify, 1, _i % 2 ? DSN_RET_FULL : DSN_RET_HDRS);
    struct message *m = load(entry);
    off_t end = (off_t)(m->env.message_offset + m->env.message_size);
    char path[700];
    snprintf(path, sizeof path, "%s/new/%s", dir, store_name(entry));
    answer(m, 0, OUTCOME_NEVER, "no");
    int fd = open(path, O_RDWR);
    if (_i / 2 == 0) /* "Received" */
        ck_assert_int_eq(pwrite(fd, "SECRET", 6, (off_t)m->env.message_offset), 6);
    else if (_i / 2 == 1)
        ck_assert_int_eq(pwrite(fd, "X", 1, end - 1), 1);
    else if (_i / 2 == 2)
        ck_assert_int_eq(ftruncate(fd, end - 1), 0);
    else
        ck_assert_int_eq(unlink(path), 0);
    close(fd);
    ck_assert_int_eq(bounce_send(m, BOUNCE_FAILED, &e), _i / 2 < 2 ? 0 : -1);
    ck_assert_uint_eq(index_count(), _i / 2 < 2 ? 2 : 1);
    if (_i / 2 >= 2) {
        message_free(m);
        return;
    }
    struct buf b = notice();
    ck_assert(has(&b, "Nothing of your message can be returned.") && !has(&b, "too large"));
    ck_assert(has(&b, "Action: failed\r\nStatus: 5.1.1\r\n"));
    ck_assert(!has(&b, "SECRET") && !has(&b, "Received: x") && !has(&b, "rfc822-headers"));
    ck_assert(!has(&b, "message/rfc822"));
    ck_assert(str_ends(buf_str(&b), STR("--\r\n")));
    buf_free(&b);
    message_free(m);
}
END_TEST

/* So much of it, in whole lines, and without the blind ones. */
START_TEST(a_long_header_comes_back)
{
    enum { HEADER_MAX = 50000 };
    static char text[HEADER_MAX + 10000];
    struct qfile_rcpt to = {.address = STR("a@example.org")};
    struct envelope env = {
        .sender = STR("s@example.com"), .origin = STR("smtp"), .rcpts = &to, .nrcpt = 1};
    size_t n = 0;
    n += (size_t)snprintf(text, sizeof text, "Resent-Bcc: hidden@example.org\r\n");
    while (n < sizeof text - 50)
        n += (size_t)snprintf(text + n, sizeof text - n, "X-Line: %06zu of a long header\r\n", n);
    struct message *m = load(accept_envelope(&env, 's', text));
    answer(m, 0, OUTCOME_NEVER, "x");
    message_settle(m);
    struct buf b = notice();
    ck_assert(!has(&b, "hidden"));
    ck_assert(has(&b, "\r\n\r\nX-Line: 000032 of"));
    ck_assert(has(&b, " of a long header\r\n\r\n--"));
    ck_assert(!has(&b, "X-Line: 0500"));
    ck_assert(has(&b, "X-Line: 0499"));
    buf_free(&b);
}
END_TEST

/* What was delivered is on record before its report is sent, and the report before that is: a
 * successor sends it, and does not deliver again; when it is on record it is not sent again. */
START_TEST(a_report_that_is_owed)
{
    static const uint8_t notify[] = {DSN_SUCCESS, 0, DSN_SUCCESS};
    struct entry *entry = accept_wishes(notify, 3, 0);
    struct message *m = load(entry);
    answer(m, 0, OUTCOME_DONE, "delivered to maildir as x");
    answer(m, 2, OUTCOME_RELAYED, "250 taken");
    m->open = 1;
    message_mark(m);
    message_free(m); /* as if it were killed here */
    m = load(entry);
    ck_assert_uint_eq(m->owed, 2);
    ck_assert(m->rcpts[0]->state == RCPT_DONE && m->rcpts[0]->report == REPORT_DELIVERED);
    ck_assert(m->rcpts[2]->state == RCPT_DONE && m->rcpts[2]->report == REPORT_RELAYED);
    answer(m, 1, OUTCOME_LATER, "busy");
    message_settle(m);
    struct buf b = notice();
    ck_assert(has(&b, "Final-Recipient: rfc822; a@example.org\r\nAction: delivered\r\n"
                      "Status: 2.0.0\r\n\r\nFinal-Recipient: rfc822; c@other.example\r\n"
                      "Action: relayed\r\nStatus: 2.0.0\r\nRemote-MTA: dns; mx.other.example\r\n"
                      "Diagnostic-Code: smtp; 250 taken\r\n"));
    ck_assert(!has(&b, "maildir as")); /* nobody's business */
    buf_free(&b);
    m = load(entry);
    ck_assert_uint_eq(m->owed, 0);
    ck_assert(m->rcpts[0]->state == RCPT_DONE && m->rcpts[2]->state == RCPT_DONE);
    answer(m, 1, OUTCOME_DONE, "ok");
    message_settle(m);
    ck_assert_uint_eq(index_count(), 1); /* the report of before, and nothing else */
}
END_TEST

/* What is owed, then told, in a journal that is cut or damaged anywhere: it is delivered again and
 * told, or only told, or neither; never delivered and forgotten before it was told. */
START_TEST(owed_and_told_in_a_damaged_journal)
{
    static const uint8_t notify = DSN_SUCCESS;
    struct entry *entry = accept_wishes(&notify, 1, 0);
    struct message *m = load(entry);
    struct buf b = buf_new(1000);
    char path[700];
    struct err e;
    answer(m, 0, OUTCOME_DONE, "ok");
    journal_put_owed(&b, m->rcpts[0]);
    size_t told_at = b.n;
    journal_put_rcpt(&b, 0, RCPT_DONE);
    ck_assert_int_eq(journal_append(m, &b, true, &e), 0);
    message_free(m);
    snprintf(path, sizeof path, "%s/journal/%.2s/%.*s", dir, entry->id + ID_LEN - 2, ID_LEN,
             entry->id);
    for (size_t i = 0; i <= 2 * b.n; i++) {
        size_t good = i <= b.n ? i : i - b.n - 1; /* cut there, or a byte flipped there */
        int fd = open(path, O_WRONLY | O_TRUNC);
        ck_assert_int_eq(write(fd, b.p, i <= b.n ? i : b.n), (ssize_t)(i <= b.n ? i : b.n));
        char flipped = (char)(b.p[good % b.n] ^ 0x41);
        if (i > b.n)
            ck_assert_int_eq(pwrite(fd, &flipped, 1, (off_t)good), 1);
        close(fd);
        m = load(entry);
        const struct rcpt *r = m->rcpts[0];
        ck_assert_int_eq(r->state, good < told_at ? RCPT_TODO : RCPT_DONE);
        ck_assert_int_eq(r->report, good >= told_at && good < b.n ? REPORT_DELIVERED : REPORT_NONE);
        ck_assert_uint_eq(m->owed, r->report != REPORT_NONE);
        message_free(m);
    }
    buf_free(&b);
}
END_TEST

/* It cannot be written now: the message stays until it can. */
START_TEST(a_report_that_must_wait)
{
    static const uint8_t notify = DSN_SUCCESS;
    struct entry *entry = accept_wishes(&notify, 1, 0);
    struct message *m = load(entry);
    answer(m, 0, OUTCOME_DONE, "x");
    int tmp = qmgr.tmp;
    qmgr.tmp = -1;
    message_settle(m);
    ck_assert_uint_eq(index_count(), 1);
    ck_assert_uint_eq(entry->attempts, 1);
    m = load(entry);
    ck_assert_uint_eq(m->owed, 1);
    message_free(m);
    entry_detach(entry);
    message_start(entry, 0); /* nothing to deliver, and still no room */
    ck_assert_uint_eq(entry->attempts, 2);
    qmgr.tmp = tmp;
    entry_detach(entry);
    message_start(entry, 0);
    struct buf b = notice();
    ck_assert(has(&b, "Action: delivered"));
    ck_assert_uint_eq(index_count(), 1);
    ck_assert_uint_eq(leaves("cur") + leaves("journal"), 0);
    buf_free(&b);
}
END_TEST

/* RFC 3461 5.2.7.2, 5.2.7.3 (c), also by a successor. */
START_TEST(aliases_hand_on_what_was_asked)
{
    static const struct str to[] = {{"x@far.example", 13}, {"\\y@example.org", 14}};
    static const uint8_t notify = DSN_SUCCESS | DSN_DELAY;
    size_t n = (size_t)_i + 1;
    struct entry *entry = accept_wishes(&notify, 1, 0);
    struct message *m = load(entry);
    ck_assert_int_eq(message_expand(m, m->rcpts[0], to, n), 0);
    m->open = 1;
    message_outcome(m, m->rcpts[0], OUTCOME_EXPANDED, STR("2.0.0"), STR("alias"), STR("local"));
    for (int successor = 0; successor < 2; successor++) {
        ck_assert_uint_eq(m->nrcpt, 1 + n);
        ck_assert_int_eq(m->rcpts[0]->report, n > 1 ? REPORT_EXPANDED : REPORT_NONE);
        ck_assert_uint_eq(m->owed, n > 1);
        for (size_t i = 1; i <= n; i++) {
            ck_assert_uint_eq(m->rcpts[i]->notify, n > 1 ? DSN_DELAY : notify);
            ck_str(m->rcpts[i]->orcpt, "rfc822;First+2BOne@example.org");
        }
        if (!successor) {
            message_free(m);
            m = load(entry);
        }
    }
    for (size_t i = 1; i <= n; i++)
        answer(m, i, i > 1 ? OUTCOME_DONE : OUTCOME_RELAYED, "250 ok");
    message_settle(m);
    struct buf b = notice();
    ck_assert_int_eq(has(&b, "Original-Recipient: rfc822; First+One@example.org\r\n"
                             "Final-Recipient: rfc822; a@example.org\r\nAction: expanded\r\n"
                             "Status: 2.0.0\r\n"),
                     n > 1);
    ck_assert_int_eq(has(&b, "Final-Recipient: rfc822; x@far.example\r\nAction: relayed"), n == 1);
    ck_assert(!has(&b, "y@example.org"));
    buf_free(&b);
}
END_TEST

/* Asked for success only: those that an alias led to may not say more than was asked. */
START_TEST(nothing_more_than_was_asked)
{
    static const struct str to[] = {{"x@far.example", 13}, {"y@far.example", 13}};
    static const uint8_t notify = DSN_SUCCESS;
    struct message *m = load(accept_wishes(&notify, 1, 0));
    ck_assert_int_eq(message_expand(m, m->rcpts[0], to, 2), 0);
    ck_assert_uint_eq(m->rcpts[1]->notify, DSN_NEVER);
    m->open = 1;
    message_outcome(m, m->rcpts[0], OUTCOME_EXPANDED, STR("2.0.0"), STR("alias"), STR("local"));
    answer(m, 1, OUTCOME_NEVER, "no");
    answer(m, 2, OUTCOME_NEVER, "no");
    message_settle(m);
    struct buf b = notice();
    ck_assert(has(&b, "Action: expanded") && !has(&b, "Action: failed"));
    buf_free(&b);
}
END_TEST

/* A host that was asked to report does it, and nobody a second time; nor is <> told of success. */
START_TEST(nobody_reports_twice)
{
    static const uint8_t notify[] = {0, 0, DSN_SUCCESS};
    struct message *m = load(accept_wishes(notify, 3, 0));
    for (size_t i = 0; i < 3; i++)
        answer(m, i, OUTCOME_DONE, "ok");
    ck_assert_uint_eq(m->owed, 0);
    message_settle(m);
    ck_assert_uint_eq(index_count(), 0);
    struct qfile_rcpt to = {.address = STR("a@example.org"), .notify = DSN_SUCCESS};
    struct envelope env = {.origin = STR("smtp"), .rcpts = &to, .nrcpt = 1};
    m = load(accept_envelope(&env, 's', letter));
    answer(m, 0, OUTCOME_DONE, "ok");
    ck_assert_uint_eq(m->owed, 0);
    message_settle(m);
    ck_assert_uint_eq(index_count(), 0);
    ck_assert_uint_eq(qmgr.dropped, 0);
}
END_TEST

/* Too old to wait any longer for room: it goes, and nobody is told of the success. */
START_TEST(a_report_that_waited_too_long)
{
    static const uint8_t notify = DSN_SUCCESS;
    struct entry *entry = accept_wishes(&notify, 1, 0);
    struct message *m = load(entry);
    answer(m, 0, OUTCOME_DONE, "x");
    entry->born_s -= 3600; /* expire is 60s */
    entry->attempts = 9;
    qmgr.tmp = -1;
    message_settle(m);
    ck_assert_uint_eq(index_count(), 0);
    ck_assert_uint_eq(files("new") + leaves("journal"), 0);
}
END_TEST

static struct message *
from_nobody(const char *origin)
{
    struct qfile_rcpt to = {.address = STR("gone@example.com"), .notify = DSN_SUCCESS};
    struct envelope env = {.origin = str_z(origin), .rcpts = &to, .nrcpt = 1};
    return load(accept_envelope(&env, 'b', letter));
}

/* A bounce that fails goes to the postmaster, with all of it; that, and other notices, to nobody.
 */
START_TEST(double_bounces)
{
    static const char *const silent[] = {ORIGIN_DOUBLE, ORIGIN_NOTICE, "smtp", ""};
    struct message *m;
    for (size_t i = 0; i < 4; i++) {
        m = from_nobody(silent[i]);
        answer(m, 0, i % 2 ? OUTCOME_NEVER : OUTCOME_DONE, "no");
        if (i % 2 == 0) { /* not even of success */
            m->rcpts[0]->state = RCPT_NEVER;
            ck_assert_uint_eq(m->owed, 0);
        }
        message_settle(m);
        ck_assert_uint_eq(index_count(), 0);
        ck_assert_uint_eq(qmgr.dropped, i + 1);
    }
    /* A session may write what it likes into its envelope. */
    struct qfile_rcpt to = {.address = STR("gone@example.com")};
    struct envelope env = {.origin = STR(ORIGIN_BOUNCE), .rcpts = &to, .nrcpt = 1};
    m = load(accept_envelope(&env, 's', letter));
    answer(m, 0, OUTCOME_NEVER, "no");
    message_settle(m);
    ck_assert_uint_eq(index_count(), 0);
    ck_assert_uint_eq(qmgr.dropped, 5);
    m = from_nobody(ORIGIN_BOUNCE);
    ck_assert_int_eq(message_add_rcpt(m, STR("there@example.com")), 0); /* as an alias does */
    answer(m, 1, OUTCOME_DONE, "ok");
    answer(m, 0, OUTCOME_NEVER, "host mx.a.example[192.0.2.9]:25 said: 550 no");
    message_settle(m);
    ck_assert_uint_eq(index_count(), 1);
    struct buf b = notice();
    ck_assert(has(&b, "\r\nTo: <postmaster@example.org>\r\nSubject: Undeliverable bounce\r\n"));
    ck_assert(has(&b, "Final-Recipient: rfc822; gone@example.com\r\nAction: failed\r\n"));
    ck_assert(has(&b, "Content-Type: message/rfc822\r\n") && has(&b, "body \xc3\xbc\r\n"));
    ck_assert(!has(&b, "there@example.com"));
    buf_free(&b);
    struct index_at at = index_after(STR(""));
    struct entry *entry = index_next(&at);
    m = load(entry);
    ck_str(m->env.origin, ORIGIN_DOUBLE);
    ck_assert_uint_eq(m->env.sender.n, 0);
    entry_detach(entry);
    answer(m, 0, OUTCOME_NEVER, "no");
    message_settle(m);
    ck_assert_uint_eq(index_count(), 0);
    ck_assert_uint_eq(qmgr.dropped, 6);
}
END_TEST

/* A flood of them ends at its ceiling, and begins again an hour later. */
START_TEST(double_bounces_at_their_ceiling)
{
    enum { DOUBLES_MAX = 100 };
    for (size_t i = 0; i < DOUBLES_MAX + 1; i++) {
        struct message *m = from_nobody(ORIGIN_BOUNCE);
        answer(m, 0, OUTCOME_NEVER, "no");
        message_settle(m);
    }
    ck_assert_uint_eq(index_count(), DOUBLES_MAX);
    ck_assert_uint_eq(qmgr.dropped, 1);
    clock_shift.steady_s += 3600;
    struct message *m = from_nobody(ORIGIN_BOUNCE);
    answer(m, 0, OUTCOME_NEVER, "no");
    message_settle(m);
    ck_assert_uint_eq(index_count(), DOUBLES_MAX + 1);
}
END_TEST

/* As many as there can be, each as long as it can be, of bytes that grow when they are shown: one
 * notice, in lines that mail allows. */
START_TEST(the_largest_notice)
{
    struct qfile_rcpt *to = calloc(QFILE_RCPT_MAX, sizeof *to);
    char(*names)[QFILE_ADDR_MAX] = calloc(QFILE_RCPT_MAX, sizeof *names);
    char orcpt[DSN_ORCPT_MAX], text[REASON_MAX + 1], helo[QFILE_FIELD_MAX];
    memset(orcpt, 'o', sizeof orcpt);
    memcpy(orcpt, "rfc822;", 7);
    memset(text, '\xff', sizeof text);
    memset(helo, '\xff', sizeof helo);
    text[REASON_MAX] = '\0';
    for (size_t i = 0; i < QFILE_RCPT_MAX; i++) {
        memset(names[i], '\xff', sizeof names[i]);
        snprintf(names[i], 6, "%05zu", i);
        names[i][5] = 'x';
        memcpy(names[i] + QFILE_ADDR_MAX - 4, "@x.y", 4);
        to[i] = (struct qfile_rcpt){.address = str_of(names[i], QFILE_ADDR_MAX),
                                    .orcpt = str_of(orcpt, sizeof orcpt)};
    }
    struct envelope env = {.sender = STR("s@example.com"),
                           .origin = STR("smtp"),
                           .client = STR("[192.0.2.1]"),
                           .helo = str_of(helo, sizeof helo),
                           .ret = DSN_RET_FULL,
                           .rcpts = to,
                           .nrcpt = QFILE_RCPT_MAX};
    struct message *m = load(accept_envelope(&env, 's', letter));
    struct rcpt **rcpts = m->rcpts;
    struct err e = {0};
    for (size_t i = 0; i < QFILE_RCPT_MAX; i++) {
        rcpts[i]->state = RCPT_NEVER;
        rcpts[i]->text = str_of(text, REASON_MAX);
        rcpts[i]->marked = false;
    }
    ck_assert_msg(bounce_send(m, BOUNCE_FAILED, &e) == 0, "%s", e.text);
    message_free(m);
    ck_assert_uint_eq(index_count(), 2);
    char path[600];
    struct buf b = buf_new(8 << 20);
    snprintf(path, sizeof path, "%s/new", dir);
    DIR *d = opendir(path);
    for (struct dirent *x; (x = readdir(d));)
        if (str_ends(str_z(x->d_name), STR(".b"))) {
            int fd = openat(dirfd(d), x->d_name, O_RDONLY);
            char *at = buf_reserve(&b, 8 << 20);
            ssize_t n = read(fd, at, 8 << 20);
            ck_assert_int_gt(n, QFILE_RCPT_MAX * 1000);
            buf_commit(&b, (size_t)n);
            close(fd);
        }
    closedir(d);
    struct str left = str_from(buf_str(&b), (size_t)str_find(buf_str(&b), STR("Date: ")));
    size_t told = 0;
    while (left.n) {
        struct str line = str_cut(&left, '\n');
        ck_assert_uint_le(line.n, 999); /* with its CR */
        told += str_starts(line, STR("Final-Recipient: "));
    }
    ck_assert_uint_eq(told, QFILE_RCPT_MAX);
    buf_free(&b);
    free(to);
    free(names);
}
END_TEST

Suite *suite_queue_dsn(void);
Suite *
suite_queue_dsn(void)
{
    Suite *s = suite_create("queue_dsn");
    TCase *t = tcase_create("queue_dsn");
    tcase_set_timeout(t, 300);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_loop_test(t, every_wish_with_every_outcome, 0, DSN_NOTIFY_END);
    tcase_add_test(t, each_notice_has_its_own);
    tcase_add_loop_test(t, what_a_host_said, 0, 6);
    tcase_add_test(t, the_message_comes_back);
    tcase_add_loop_test(t, a_message_too_large_to_come_back, 0, 2);
    tcase_add_loop_test(t, a_header_too_large_to_come_back, 0, 2);
    tcase_add_test(t, whom_a_delay_is_told_of);
    tcase_add_test(t, a_delay_of_what_should_be_gone);
    tcase_add_loop_test(t, a_notice_is_durable, 0, 2);
    tcase_add_test(t, half_a_notice);
    tcase_add_loop_test(t, nothing_to_return, 0, 8);
    tcase_add_test(t, a_long_header_comes_back);
    tcase_add_test(t, a_report_that_is_owed);
    tcase_add_test(t, owed_and_told_in_a_damaged_journal);
    tcase_add_test(t, a_report_that_must_wait);
    tcase_add_loop_test(t, aliases_hand_on_what_was_asked, 0, 2);
    tcase_add_test(t, nothing_more_than_was_asked);
    tcase_add_test(t, nobody_reports_twice);
    tcase_add_test(t, a_report_that_waited_too_long);
    tcase_add_test(t, double_bounces);
    tcase_add_test(t, double_bounces_at_their_ceiling);
    tcase_add_test(t, the_largest_notice);
    suite_add_tcase(s, t);
    return s;
}
