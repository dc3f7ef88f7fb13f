/* smtpd's session, with an authd and a qmgr that speak the real messages. */
#include "smtpd/session.h"
#include "tests/unit/fault_calls.h"
#include "tests/unit/smtp_fakes.h"
#include "tests/unit/temp.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static struct fakes f;
static struct chat c;

static void
setup(void)
{
    fakes_start(&f, R_SMTPD);
    c = (struct chat){0};
}

static void
teardown(void)
{
    fakes_stop(&f);
}

static void
session(struct chat *chat)
{
    struct smtpd d = {.start = chat->fakes->start, .conf = chat->fakes->conf};
    smtpd_session(&chat->peer, &d);
}

static void
session_tls(struct chat *chat)
{
    struct smtpd d = {.start = chat->fakes->start, .conf = chat->fakes->conf};
    d.conf.nkeys = 1;
    d.conf.keys[0].fronts = R_ANY;
    smtpd_session(&chat->peer, &d);
}

static void
hello(void (*run)(struct chat *))
{
    chat_open(&c, &f, "smtp", run);
    chat_expect(&c, "220 mail.example.org ESMTP");
    chat_say(&c, "EHLO client.example", "250-mail.example.org");
}

static void
envelope(void)
{
    chat_say(&c, "MAIL FROM:<a@example.com>", "250 2.1.0");
    chat_say(&c, "RCPT TO:<user@example.org>", "250 2.1.5");
}

static void
quit(void)
{
    chat_say(&c, "QUIT", "221 2.0.0");
    chat_expect_end(&c);
    chat_close(&c);
}

START_TEST(one_message)
{
    hello(session);
    ck_assert_ptr_nonnull(strstr(c.reply, "250-PIPELINING\r\n"));
    ck_assert_ptr_nonnull(strstr(c.reply, "250-SIZE 1048576\r\n"));
    ck_assert_ptr_nonnull(strstr(c.reply, "8BITMIME\r\n"));
    ck_assert_ptr_nonnull(strstr(c.reply, "ENHANCEDSTATUSCODES\r\n"));
    ck_assert_ptr_null(strstr(c.reply, "STARTTLS"));
    ck_assert_ptr_null(strstr(c.reply, "AUTH"));
    ck_assert_ptr_null(strstr(c.reply, "BINARYMIME"));
    ck_assert_ptr_null(strstr(c.reply, "CHUNKING"));
    envelope();
    chat_say(&c, "RCPT TO:<alias@EXAMPLE.ORG> ", "250 2.1.5");
    chat_say(&c, "RCPT TO:<user@example.org>", "250 2.1.5"); /* said twice, sent once */
    chat_say(&c, "RCPT TO:<USER@example.org>", "250 2.1.5");
    chat_say(&c, "DATA", "354");
    chat_say(&c, "Subject: x\r\n\r\n..dot\r\nend\r\n.", "250 2.0.0 Ok: queued as ID1");
    quit();
    ck_assert_uint_eq(f.nmessages, 1);
    ck_assert_str_eq(f.messages[0].sender, "a@example.com");
    ck_assert_str_eq(f.messages[0].rcpts, "user@example.org alias@example.org ");
    ck_assert_str_eq(f.messages[0].origin, "smtp");
    ck_assert_str_eq(f.messages[0].client, "[192.0.2.1]");
    static const char head[] = "Received: from client.example ([192.0.2.1])\r\n"
                               "\tby mail.example.org (Bulkhead) with ESMTP\r\n\tid ID1; ";
    ck_assert_int_eq(strncmp(f.messages[0].text, head, strlen(head)), 0);
    ck_assert_ptr_nonnull(strstr(f.messages[0].text, "\r\nSubject: x\r\n\r\n.dot\r\nend\r\n"));
}
END_TEST

START_TEST(bulk_mail_is_marked)
{
    static const struct {
        const char *text;
        bool bulk;
    } cases[] = {{"Subject: x\r\n\r\nList-Id: <l.example>\r\n", false},
                 {"Subject: x\r\nList-Id: <l.example>\r\n\r\nx\r\n", true},
                 {"precedence: Bulk\r\n", true},
                 {"Subject: x\r\n List-Id: <l.example>\r\n\r\nx\r\n", false},
                 {"", false}};
    hello(session);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        envelope();
        chat_say(&c, "DATA", "354");
        chat_put(&c, cases[i].text);
        chat_say(&c, ".", "250");
        ck_assert_uint_eq(f.nmessages, i + 1);
        ck_assert_msg(f.messages[i].bulk == cases[i].bulk, "case %zu", i);
    }
    /* Larger than what is kept until it is whole. */
    envelope();
    chat_say(&c, "DATA", "354");
    chat_put(&c, "Precedence: list\r\n\r\n");
    for (int i = 0; i < 20000; i++)
        chat_put(&c, "twenty bytes of it\r\n");
    chat_say(&c, ".", "250");
    ck_assert(f.messages[f.nmessages - 1].bulk);
    quit();
}
END_TEST

START_TEST(pipelined_group_and_several_messages)
{
    hello(session);
    for (int i = 0; i < 3; i++) {
        chat_put(&c, "MAIL FROM:<>\r\nRCPT TO:<nobody@example.org>\r\n"
                     "RCPT TO:<postmaster>\r\nDATA\r\n");
        chat_expect(&c, "250 2.1.0");
        chat_expect(&c, "550 5.1.1 <nobody@example.org>:");
        chat_expect(&c, "250 2.1.5");
        chat_expect(&c, "354");
        chat_put(&c, "\r\nx\r\n.\r\nNOOP\r\n");
        chat_expect(&c, "250 2.0.0 Ok: queued");
        chat_expect(&c, "250 2.0.0");
    }
    quit();
    ck_assert_uint_eq(f.nmessages, 3);
    ck_assert_str_eq(f.messages[0].sender, "");
    ck_assert_str_eq(f.messages[2].rcpts, "postmaster@example.org ");
}
END_TEST

/* Catalogue H2: the classic probes of relay testers. */
START_TEST(never_an_open_relay)
{
    static const char *const probes[][2] = {
        {"spam@example.com", "relay@example.net"},
        {"spam", "relay@example.net"},
        {"", "relay@example.net"},
        {"spam@mail.example.org", "relay@example.net"},
        {"spam@[192.0.2.9]", "relay@example.net"},
        {"spam@example.org", "relay%example.net@mail.example.org"},
        {"spam@example.org", "relay%example.net@[192.0.2.9]"},
        {"spam@example.org", "relay%example.net@example.org"},
        {"spam@example.org", "\"relay@example.net\""},
        {"spam@example.org", "\"relay%example.net\""},
        {"spam@example.org", "relay@example.net@mail.example.org"},
        {"spam@example.org", "\"relay@example.net\"@mail.example.org"},
        {"spam@example.org", "\"relay@example.net\"@example.org"},
        {"spam@example.org", "relay@example.net@[192.0.2.9]"},
        {"spam@example.org", "@mail.example.org:relay@example.net"},
        {"spam@example.org", "@[192.0.2.9]:relay@example.net"},
        {"spam@example.org", "example.net!relay"},
        {"spam@example.org", "example.net!relay@mail.example.org"},
        {"spam@example.org", "example.net!relay@[192.0.2.9]"},
        {"spam@example.org", "relay%example.net"},
        {"spam@example.org", "user@example.org@example.net"},
        {"user@example.org", "example.net!relay@example.org"},
    };
    chat_open(&c, &f, "smtp", session);
    chat_expect(&c, "220");
    chat_say(&c, "EHLO x", "250-");
    for (size_t i = 0; i < sizeof probes / sizeof probes[0]; i++) {
        char line[200];
        snprintf(line, sizeof line, "MAIL FROM:<%s>\r\n", probes[i][0]);
        chat_put(&c, line);
        chat_expect(&c, "");
        if (c.reply[0] == '2') {
            snprintf(line, sizeof line, "RCPT TO:<%s>\r\n", probes[i][1]);
            chat_put(&c, line);
            chat_expect(&c, "55");
        }
        chat_say(&c, "RSET", "250");
    }
    quit();
    c.peer.relayclient = true;
    f.conf.relayclient = true;
    hello(session);
    chat_say(&c, "MAIL FROM:<a@example.org>", "250");
    chat_say(&c, "RCPT TO:<relay@example.net>", "250");
    chat_say(&c, "RCPT TO:<relay%example.net@example.org>", "550 5.7.1");
    quit();
}
END_TEST

START_TEST(a_network_may_be_relayed_for)
{
    f.conf.nrelay_from = 1; /* the client is 192.0.2.1 */
    for (int i = 0; i < 2; i++) {
        ck_assert(
            network_parse(&f.conf.relay_from[0], i ? STR("192.0.2.0/31") : STR("192.0.2.2/31")));
        hello(session);
        chat_say(&c, "MAIL FROM:<a@example.com>", "250");
        chat_say(&c, "RCPT TO:<far@example.net>", i ? "250" : "550 5.7.1");
        chat_say(&c, "RCPT TO:<nobody@example.org>", "550 5.1.1");
        quit();
    }
}
END_TEST

START_TEST(recipients_that_cannot_be_looked_up)
{
    hello(session);
    chat_say(&c, "MAIL FROM:<a@example.com>", "250");
    chat_say(&c, "RCPT TO:<temp@example.org>", "451 4.3.0");
    chat_say(&c, "DATA", "554 5.5.1");
    chat_say(&c, "RCPT TO:<user@example.org>", "250");
    f.authd_fails = true;
    chat_say(&c, "RCPT TO:<other@example.org>", "451 4.3.0");
    quit();
}
END_TEST

START_TEST(syntax_and_order)
{
    static const char *const first[][2] = {{"MAIL FROM:<a@b>", "503 5.5.1"},
                                           {"RCPT TO:<a@b>", "503"},
                                           {"DATA", "503"},
                                           {"STARTTLS", "503"},
                                           {"EHLO", "501 5.5.4"},
                                           {"EHLO a b", "501"},
                                           {"HELO x\x1b[2J", "501"},
                                           {"NOOP", "250"},
                                           {"NOOP junk", "250"},
                                           {"RSET", "250"},
                                           {"VRFY user@example.org", "252"},
                                           {"EXPN x", "502"},
                                           {"HELP", "214"},
                                           {"AUTH PLAIN AGEAYg==", "500"},
                                           {"BDAT 10", "500"},
                                           {"XQUEUE", "500"},
                                           {"", "500"}};
    static const char *const greeted[][2] = {{"RCPT TO:<user@example.org>", "503"},
                                             {"DATA", "503"},
                                             {"STARTTLS", "502"},
                                             {"MAIL FROM:<a@b> SIZE=99999999999999999999", "501"},
                                             {"MAIL FROM:<a@b> SIZE=1048577", "552 5.3.4"},
                                             {"MAIL FROM:<a@b> BODY=BINARYMIME", "501"},
                                             {"MAIL FROM:<a@b> FOO=1", "555 5.5.4"},
                                             {"MAIL FROM:<a@b> AUTH=<>", "555"},
                                             {"MAIL FROM:<;sleep 9;>", "553"},
                                             {"MAIL FROM:<@>", "553"},
                                             {"MAIL FROM:<\xc3\xbc@d>", "553"},
                                             {"MAIL FROM:a@b", "501"},
                                             {"MAIL FROM:<a@b> SIZE=1048576 BODY=8BITMIME", "250"},
                                             {"MAIL FROM:<a@b>", "503"},
                                             {"RCPT TO:<>", "553"}};
    chat_open(&c, &f, "smtp", session_tls);
    chat_expect(&c, "220");
    for (size_t i = 0; i < sizeof first / sizeof first[0]; i++)
        chat_say(&c, first[i][0], first[i][1]);
    chat_say(&c, "QUIT", "221");
    chat_close(&c);
    hello(session);
    for (size_t i = 0; i < sizeof greeted / sizeof greeted[0]; i++)
        chat_say(&c, greeted[i][0], greeted[i][1]);
    chat_say(&c, "RCPT TO:<user@example.org> FOO=1", "555 5.5.4");
    quit();
}
END_TEST

/* RFC 3461 4.5, 5.1: what is malformed or doubled is 501, and the transaction goes on. */
START_TEST(wishes_that_are_refused)
{
    static const char *const mail[] = {"RET=FULL RET=HDRS", "RET",   "RET=BODY",    "ENVID=",
                                       "ENVID=a ENVID=a",   "ENVID", "ENVID=a+00b", "ENVID=+G1"};
    static const char *const rcpt[] = {
        "NOTIFY",        "NOTIFY=",          "NOTIFY=NEVER,DELAY",
        "NOTIFY=SOON",   "NOTIFY=SUCCESS,",  "NOTIFY=NEVER NOTIFY=NEVER",
        "ORCPT",         "ORCPT=;",          "ORCPT=rfc822;a ORCPT=rfc822;a",
        "ORCPT=rfc822;", "ORCPT=rfc822;a=b", "ORCPT=rfc822;a+0D+0Ab"};
    char line[200];
    hello(session);
    for (size_t i = 0; i < sizeof mail / sizeof mail[0]; i++) {
        snprintf(line, sizeof line, "MAIL FROM:<a@example.com> %s", mail[i]);
        chat_say(&c, line, "501 5.5.4");
    }
    chat_say(&c, "MAIL FROM:<a@example.com> RET=hdrs ENVID=a+2Bb", "250");
    for (size_t i = 0; i < sizeof rcpt / sizeof rcpt[0] - 1; i++) {
        snprintf(line, sizeof line, "RCPT TO:<user@example.org> %s", rcpt[i]);
        chat_say(&c, line, "501 5.5.4");
    }
    chat_say(&c, "DATA", "554");
    quit();
    chat_open(&c, &f, "smtp", session);
    chat_expect(&c, "220");
    chat_say(&c, "HELO client.example", "250");
    chat_say(&c, "MAIL FROM:<a@example.com> RET=FULL", "555");
    chat_say(&c, "MAIL FROM:<a@example.com>", "250");
    chat_say(&c, "RCPT TO:<user@example.org> NOTIFY=NEVER", "555");
    quit();
    ck_assert_uint_eq(f.nmessages, 0);
}
END_TEST

/* The longest there are, kept as they came; and nothing of them in the next message. */
START_TEST(wishes_are_kept)
{
    char line[2000], id[101], to[501], want[2000];
    memset(id, 'i', sizeof id);
    memset(to, 't', sizeof to);
    memcpy(to, "rfc822;", 7);
    hello(session);
    ck_assert_ptr_nonnull(strstr(c.reply, "DSN\r\n"));
    snprintf(line, sizeof line, "MAIL FROM:<a@example.com> ENVID=%.101s", id);
    chat_say(&c, line, "501");
    snprintf(line, sizeof line, "MAIL FROM:<a@example.com> ENVID=%.100s SIZE=5 RET=FULL", id);
    chat_say(&c, line, "250");
    snprintf(line, sizeof line, "RCPT TO:<user@example.org> ORCPT=%.501s", to);
    chat_say(&c, line, "501");
    snprintf(line, sizeof line,
             "RCPT TO:<user@example.org> ORCPT=%.500s notify=Success,FAILURE,delay", to);
    chat_say(&c, line, "250");
    chat_say(&c, "RCPT TO:<user@example.org> NOTIFY=NEVER", "250"); /* again: the first counts */
    chat_say(&c, "RCPT TO:<other@example.org>", "250");
    chat_say(&c, "DATA", "354");
    chat_say(&c, "Subject: x\r\n\r\n.", "250 2.0.0");
    chat_say(&c, "MAIL FROM:<a@example.com>", "250");
    chat_say(&c, "RCPT TO:<user@example.org>", "250");
    chat_say(&c, "DATA", "354");
    chat_say(&c, "Subject: x\r\n\r\n.", "250 2.0.0");
    quit();
    snprintf(want, sizeof want, "1 %.100s 14/%.500s 0/", id, to);
    ck_assert_str_eq(f.messages[0].wishes, want);
    ck_assert_str_eq(f.messages[1].wishes, "0  0/");
}
END_TEST

START_TEST(twenty_errors_are_enough)
{
    hello(session);
    for (int i = 0; i < SMTP_ERRORS_MAX; i++)
        chat_say(&c, "", "500");
    chat_say(&c, "", "500");
    chat_expect(&c, "421 4.7.0");
    chat_expect_end(&c);
    chat_close(&c);
    hello(session);
    for (int i = 0; i < SMTP_JUNK_MAX + SMTP_ERRORS_MAX - 1; i++)
        chat_say(&c, "NOOP", "250"); /* EHLO was the first */
    chat_say(&c, "NOOP", "250");
    chat_expect(&c, "421 4.7.0");
    chat_close(&c);
}
END_TEST

static void
long_line(size_t n, const char *start, const char *behind)
{
    char *line = malloc(n + 3);
    memset(line, 'a', n);
    memcpy(line, start, strlen(start));
    memcpy(line + n, behind, strlen(behind));
    chat_write(&c, line, n + strlen(behind));
    free(line);
}

START_TEST(lines_have_a_limit)
{
    hello(session);
    long_line(SMTP_LINE_MAX, "NOOP ", "\r\n");
    chat_expect(&c, "250");
    long_line(SMTP_LINE_MAX + 1, "NOOP ", "\r\n");
    chat_expect(&c, "500 5.5.2");
    long_line(11000, "EHLO ", "\r\n");
    chat_expect(&c, "500 5.5.2");
    long_line(256 + 5, "EHLO ", "\r\n");
    chat_expect(&c, "501 5.5.4");
    chat_say(&c, "NOOP", "250");
    chat_put(&c, "NOOP\n"); /* bare LF */
    chat_expect(&c, "500 5.5.2");
    chat_write(&c, "NO\0OP\r\n", 7);
    chat_expect(&c, "500 5.5.2");
    chat_put(&c, "NO\rOP\r\n");
    chat_expect(&c, "500 5.5.2");
    long_line(60000, "NOOP ", "\r\n");
    chat_expect(&c, "500 5.5.2");
    long_line(400000, "NOOP ", "");
    chat_expect(&c, "500 5.5.2");
    chat_expect_end(&c);
    chat_close(&c);
}
END_TEST

/* Catalogue A9. */
START_TEST(talking_out_of_turn)
{
    chat_open_early(&c, &f, "smtp", session, "EHLO x\r\nMAIL FROM:<a@b>\r\n");
    chat_expect(&c, "554 5.5.0");
    chat_expect_end(&c);
    chat_close(&c);
    chat_open(&c, &f, "smtp", session);
    chat_expect(&c, "220");
    chat_put(&c, "EHLO x\r\nMAIL FROM:<a@b>\r\n");
    chat_expect(&c, "554 5.5.0");
    chat_expect_end(&c);
    chat_close(&c);
    hello(session);
    envelope();
    chat_put(&c, "DATA\r\nSubject: x\r\n\r\nx\r\n.\r\n");
    chat_expect(&c, "554 5.5.0");
    chat_expect_end(&c);
    chat_close(&c);
    chat_open(&c, &f, "smtp", session);
    chat_expect(&c, "220");
    chat_say(&c, "HELO x", "250");
    chat_put(&c, "MAIL FROM:<a@b>\r\nRCPT TO:<user@example.org>\r\n");
    chat_expect(&c, "250");
    chat_expect(&c, "554 5.5.0");
    chat_close(&c);
    ck_assert_uint_eq(f.nmessages, 0);
}
END_TEST

/* Catalogue A1, A2, A3: after EHLO and after HELO; never two messages. */
START_TEST(smuggling)
{
    static const struct {
        const char *p;
        size_t n;
    } seqs[] = {{"\n.\n", 3},       {"\r.\r", 3},       {"\r.\n", 3},       {"\n.\r", 3},
                {"\n.\r\n", 4},     {"\r\n.\n", 4},     {"\r.\r\n", 4},     {"\r\n.\r", 4},
                {"\r\n\0.\r\n", 6}, {"\r\n.\0\r\n", 6}, {"\r\n.\r\r\n", 6}, {"\r\r\n.\r\r\n", 7},
                {"\r\n..\n", 5},    {"a\rb\r\n", 5},    {"a\nb\r\n", 5}};
    for (size_t i = 0; i < 2 * sizeof seqs / sizeof seqs[0]; i++) {
        size_t k = i / 2, before = f.nmessages;
        bool nul = memchr(seqs[k].p, 0, seqs[k].n) != NULL;
        chat_open(&c, &f, "smtp", session);
        chat_expect(&c, "220");
        chat_say(&c, i % 2 ? "HELO x" : "EHLO x", "250");
        envelope();
        chat_say(&c, "DATA", "354");
        chat_put(&c, "Subject: x\r\n\r\nX");
        chat_write(&c, seqs[k].p, seqs[k].n);
        chat_put(&c, "MAIL FROM:<evil@x>\r\nRCPT TO:<user@example.org>\r\nDATA\r\n"
                     "Subject: evil\r\n\r\nevil\r\n.\r\n");
        chat_expect(&c, nul ? "250" : "550 5.5.2");
        if (nul)
            chat_say(&c, "QUIT", "221");
        chat_expect_end(&c);
        chat_close(&c);
        ck_assert_uint_eq(f.nmessages, before + nul);
    }
}
END_TEST

START_TEST(a_message_too_large_or_going_round)
{
    hello(session);
    envelope();
    chat_say(&c, "DATA", "354");
    for (int i = 0; i < 51; i++)
        chat_put(&c, "Received: x\r\n");
    chat_say(&c, "\r\nx\r\n.", "554 5.4.6");
    chat_say(&c, "RCPT TO:<user@example.org>", "503"); /* catalogue A13 */
    envelope();
    chat_say(&c, "DATA", "354");
    for (int i = 0; i < 50; i++)
        chat_put(&c, "Received: x\r\n");
    chat_say(&c, "\r\nx\r\n.", "250");
    char *line = malloc(1026);
    memset(line, 'x', 1024);
    memcpy(line + 1022, "\r\n", 3);
    for (int over = 0; over < 2; over++) {
        envelope();
        chat_say(&c, "DATA", "354");
        chat_put(&c, "\r\n");
        for (int i = 0; i < 1023; i++)
            chat_put(&c, line);
        chat_put(&c, line + 2 - over); /* 1048576 in all, or one more */
        chat_say(&c, ".", over ? "552 5.3.4" : "250");
    }
    chat_say(&c, "DATA", "503");
    free(line);
    quit();
    ck_assert_uint_eq(f.nmessages, 2);
    for (int i = 0; i < 1000 && fakes_aborted(&f) < 2; i++) /* qmgr hears of it behind the 552 */
        usleep(10000);
    ck_assert_uint_eq(fakes_aborted(&f), 2);
}
END_TEST

START_TEST(far_too_much_ends_the_connection)
{
    static char junk[65536];
    hello(session);
    envelope();
    chat_say(&c, "DATA", "354");
    for (size_t i = 0; i < sizeof junk; i++)
        junk[i] = i % 64 < 62 ? 'x' : i % 64 == 62 ? '\r' : '\n';
    for (int i = 0; i < 64; i++)
        chat_write(&c, junk, sizeof junk);
    chat_expect(&c, "552 5.3.4");
    chat_close(&c);
    ck_assert_uint_eq(f.nmessages, 0);
}
END_TEST

START_TEST(the_queue_says_no)
{
    hello(session);
    f.qmgr_full = true; /* a file is asked for at the first recipient */
    envelope();
    chat_say(&c, "DATA", "452 4.3.1");
    f.qmgr_full = false;
    f.qmgr_fails = true;
    chat_say(&c, "DATA", "503");
    envelope();
    chat_say(&c, "DATA", "451 4.3.0");
    f.qmgr_fails = false;
    f.commit_fails = true;
    envelope();
    chat_say(&c, "DATA", "354");
    chat_say(&c, "\r\nx\r\n.", "451 4.3.0");
    f.commit_fails = false;
    chat_say(&c, "DATA", "503");
    /* qmgr was restarted: the channel is dead, a fresh one works. */
    f.qmgr_drops = true;
    envelope();
    chat_say(&c, "DATA", "354");
    chat_say(&c, "\r\nx\r\n.", "250");
    /* It dies with the message in work: nothing was promised. */
    envelope();
    chat_say(&c, "DATA", "354");
    f.qmgr_drops = true;
    chat_say(&c, "\r\nx\r\n.", "451 4.3.0");
    quit();
    ck_assert_uint_eq(f.nmessages, 1);
}
END_TEST

START_TEST(recipients_max_is_a_temporary_refusal)
{
    f.conf.recipients_max = 5;
    hello(session);
    chat_say(&c, "MAIL FROM:<a@example.com>", "250");
    for (int i = 0; i < 6; i++) {
        char line[64];
        snprintf(line, sizeof line, "RCPT TO:<many%d@example.org>", i);
        chat_say(&c, line, i < 5 ? "250 2.1.5" : "452 4.5.3");
    }
    chat_say(&c, "RSET", "250");
    chat_say(&c, "MAIL FROM:<a@example.com>", "250");
    for (int i = 0; i < 6; i++)
        chat_say(&c, "RCPT TO:<nobody@example.org>", "550 5.1.1");
    chat_expect(&c, "421 4.7.0");
    chat_close(&c);
    f.authd_fails = true;
    hello(session);
    chat_say(&c, "MAIL FROM:<a@example.com>", "250");
    for (int i = 0; i < 6; i++)
        chat_say(&c, "RCPT TO:<nobody@example.org>", "451");
    chat_expect(&c, "421 4.7.0");
    chat_close(&c);
}
END_TEST

START_TEST(starttls_forgets_everything)
{
    hello(session_tls);
    ck_assert_ptr_nonnull(strstr(c.reply, "STARTTLS"));
    chat_say(&c, "STARTTLS x", "501");
    chat_put(&c, "starttls\r\nRSET\r\n"); /* catalogue B1, B2 */
    chat_expect(&c, "554 5.5.0");
    chat_expect_end(&c);
    chat_close(&c);
    hello(session_tls);
    chat_say(&c, "MAIL FROM:<a@b>", "250");
    chat_say(&c, "STARTTLS", "503");
    chat_say(&c, "RSET", "250");
    chat_say(&c, "STARTTLS ", "220");
    chat_say(&c, "MAIL FROM:<a@b>", "503");
    chat_say(&c, "EHLO again", "250-");
    ck_assert_ptr_null(strstr(c.reply, "STARTTLS"));
    chat_say(&c, "STARTTLS", "503");
    envelope();
    chat_say(&c, "DATA", "354");
    chat_say(&c, "\r\nx\r\n.", "250");
    chat_say(&c, "QUIT", "221");
    chat_close(&c);
    ck_assert_ptr_nonnull(strstr(f.messages[0].text, "with ESMTPS (TLSv1.3 PRETEND)"));
}
END_TEST

START_TEST(a_large_message_arrives_whole)
{
    struct buf text = buf_new(2 << 20);
    hello(session);
    envelope();
    buf_addz(&text, "A: b\r\n\r\n");
    for (unsigned i = 0; text.n < 1000000; i++)
        buf_addf(&text, "%u%s\r\n", i * 2654435761u, i % 7 ? " text" : "");
    chat_say(&c, "DATA", "354");
    chat_write(&c, text.p, text.n);
    chat_say(&c, ".", "250");
    quit();
    size_t received = f.messages[0].n - text.n;
    ck_assert_uint_lt(received, 300);
    ck_assert(memcmp(f.messages[0].text + received, text.p, text.n) == 0);
    buf_free(&text);
}
END_TEST

/* Around the size up to which a message is one write: 128 KiB with head, envelope and Received,
 * which have some 400 bytes here. The other side compares it with its check. */
START_TEST(messages_around_one_write)
{
    static char line[78];
    memset(line, 'x', 76);
    memcpy(line + 76, "\r\n", 2);
    hello(session);
    for (size_t i = 0; i < 8; i++) {
        struct buf text = buf_new(2 << 20);
        size_t size = 131072 - 600 + i * 100;
        envelope();
        buf_addz(&text, i % 2 ? "Precedence: bulk\r\n\r\n" : "A: b\r\n\r\n");
        while (text.n < size)
            buf_add(&text, str_of(line, sizeof line));
        chat_say(&c, "DATA", "354");
        chat_write(&c, text.p, text.n);
        chat_say(&c, ".", "250");
        ck_assert_uint_eq(f.nmessages, i + 1);
        size_t received = f.messages[i].n - text.n;
        ck_assert(memcmp(f.messages[i].text + received, text.p, text.n) == 0);
        buf_free(&text);
    }
    quit();
}
END_TEST

static int sync_error;

static int
a_file_fails(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? sync_error : 0;
}

/* Catalogue J8: it is not tried again, and the session trusts itself no more. _i: no room. */
START_TEST(a_sync_that_fails)
{
    sync_error = _i ? ENOSPC : EIO;
    hello(session);
    envelope();
    chat_say(&c, "DATA", "354");
    fault_sync(a_file_fails);
    chat_say(&c, "A: b\r\n\r\nx\r\n.", _i ? "452 4.3.1" : "451 4.3.0");
    fault_sync(NULL);
    chat_expect_end(&c);
    chat_close(&c);
    ck_assert_uint_eq(f.nmessages, 0);
}
END_TEST

/* When the fakes, in their threads, have closed what they close. */
static size_t
least_fds(void)
{
    size_t least = temp_fds();
    for (int i = 0; i < 40; i++, usleep(2500)) {
        size_t n = temp_fds();
        least = n < least ? n : least;
    }
    return least;
}

START_TEST(a_message_leaves_nothing_open)
{
    size_t before = 0;
    hello(session);
    for (int i = 0; i < 4; i++) {
        envelope();
        chat_say(&c, "DATA", "354");
        chat_say(&c, i == 2 ? "A: b\r\n\r\n\n\r\n." : "A: b\r\n\r\nx\r\n.", i == 2 ? "550" : "250");
        if (i == 2)
            break;
        if (i == 0)
            before = least_fds();
        else
            ck_assert_uint_eq(least_fds(), before);
    }
    chat_close(&c);
    ck_assert_uint_eq(f.nmessages, 2);
}
END_TEST

START_TEST(a_client_that_vanishes)
{
    static const char whole[] =
        "EHLO x\r\n|MAIL FROM:<a@b>\r\nRCPT TO:<user@example.org>\r\nDATA\r\n|"
        "A: b\r\n\r\nx\r\n.\r\n|";
    for (size_t n = 0; n < sizeof whole - 1; n++) {
        chat_open(&c, &f, "smtp", session);
        chat_expect(&c, "220");
        for (size_t i = 0; i < n; i++) {
            if (whole[i] == '|')
                chat_expect(&c, i < 10 ? "250-" : "250");
            else
                chat_write(&c, whole + i, 1);
            if (whole[i] == '|' && i > 10) {
                chat_expect(&c, "250");
                chat_expect(&c, "354");
            }
        }
        chat_close(&c);
    }
    ck_assert_uint_eq(f.nmessages, 1);
}
END_TEST

START_TEST(time_is_a_limit)
{
    f.conf.smtpd.idle_s = 1;
    chat_open(&c, &f, "smtp", session);
    chat_expect(&c, "220");
    chat_expect(&c, "421 4.4.2");
    chat_expect_end(&c);
    chat_close(&c);
    f.conf.smtpd.idle_s = 10;
    f.conf.smtpd.session_s = 1;
    hello(session);
    envelope();
    chat_say(&c, "DATA", "354");
    chat_put(&c, "x");
    chat_expect(&c, "421 4.4.2");
    chat_expect_end(&c);
    chat_close(&c);
    ck_assert_uint_eq(f.nmessages, 0);
}
END_TEST

Suite *suite_smtpd(void);
Suite *
suite_smtpd(void)
{
    Suite *s = suite_create("smtpd");
    TCase *t = tcase_create("smtpd");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 300);
    tcase_add_test(t, one_message);
    tcase_add_test(t, pipelined_group_and_several_messages);
    tcase_add_test(t, bulk_mail_is_marked);
    tcase_add_test(t, never_an_open_relay);
    tcase_add_test(t, a_network_may_be_relayed_for);
    tcase_add_test(t, recipients_that_cannot_be_looked_up);
    tcase_add_test(t, syntax_and_order);
    tcase_add_test(t, wishes_that_are_refused);
    tcase_add_test(t, wishes_are_kept);
    tcase_add_test(t, twenty_errors_are_enough);
    tcase_add_test(t, lines_have_a_limit);
    tcase_add_test(t, talking_out_of_turn);
    tcase_add_test(t, smuggling);
    tcase_add_test(t, a_message_too_large_or_going_round);
    tcase_add_test(t, far_too_much_ends_the_connection);
    tcase_add_test(t, the_queue_says_no);
    tcase_add_test(t, recipients_max_is_a_temporary_refusal);
    tcase_add_test(t, starttls_forgets_everything);
    tcase_add_test(t, a_large_message_arrives_whole);
    tcase_add_loop_test(t, a_sync_that_fails, 0, 2);
    tcase_add_test(t, a_message_leaves_nothing_open);
    tcase_add_test(t, messages_around_one_write);
    tcase_add_test(t, a_client_that_vanishes);
    tcase_add_test(t, time_is_a_limit);
    suite_add_tcase(s, t);
    return s;
}
