/* submitd's session, and sendmail(1) talking to it. */
#include "lib/base/encode.h"
#include "submitd/sendmail/sendmail.h"
#include "submitd/session.h"
#include "tests/unit/smtp_fakes.h"
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sysexits.h>
#include <unistd.h>

static struct fakes f;
static struct chat c;

static void
setup(void)
{
    fakes_start(&f, R_SUBMITD);
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
    struct submitd d = {.start = chat->fakes->start, .conf = chat->fakes->conf};
    d.conf.nkeys = 1;
    d.conf.keys[0].fronts = R_ANY;
    submitd_session(&chat->peer, &d);
}

static void
quit(void)
{
    chat_say(&c, "QUIT", "221");
    chat_expect_end(&c);
    chat_close(&c);
}

/* "AUTH PLAIN " and the response for raw, n bytes of it. */
static const char *
plain(const char *raw, size_t n)
{
    static struct buf line = {.max = 20000};
    buf_reset(&line);
    buf_addz(&line, "AUTH PLAIN ");
    base64_encode(&line, str_of(raw, n));
    return buf_z(&line);
}
#define PLAIN(lit) plain(lit, sizeof(lit) - 1)

static void
secure(void)
{
    chat_open(&c, &f, "submissions", session);
    chat_expect(&c, "220");
    chat_say(&c, "EHLO client", "250-");
    ck_assert_ptr_nonnull(strstr(c.reply, "AUTH PLAIN\r\n"));
    ck_assert_ptr_null(strstr(c.reply, "STARTTLS"));
}

static void
login(void)
{
    secure();
    chat_say(&c, PLAIN("\0user\0secret"), "235 2.7.0");
}

/* A message with this header and body from user, to a@example.com. */
static void
submit(const char *text, const char *answer)
{
    chat_say(&c, "MAIL FROM:<user@example.org>", "250");
    chat_say(&c, "RCPT TO:<a@example.com>", "250");
    chat_say(&c, "DATA", "354");
    chat_put(&c, text);
    chat_say(&c, ".", answer);
}

START_TEST(no_auth_without_tls)
{
    chat_open(&c, &f, "submission", session);
    chat_expect(&c, "220");
    chat_say(&c, "EHLO client", "250-");
    ck_assert_ptr_nonnull(strstr(c.reply, "STARTTLS"));
    ck_assert_ptr_null(strstr(c.reply, "AUTH"));
    chat_say(&c, PLAIN("\0user\0secret"), "538 5.7.11");
    ck_assert_uint_eq(f.nverify, 0);
    chat_say(&c, "MAIL FROM:<user@example.org>", "530 5.7.0");
    chat_say(&c, "STARTTLS", "220");
    chat_say(&c, "AUTH PLAIN", "503");
    chat_say(&c, "EHLO client", "250-");
    ck_assert_ptr_nonnull(strstr(c.reply, "AUTH PLAIN"));
    chat_say(&c, "MAIL FROM:<user@example.org>", "530 5.7.0");
    chat_say(&c, "XQUEUE", "502");
    quit();
}
END_TEST

START_TEST(both_forms_of_auth)
{
    login();
    chat_say(&c, PLAIN("\0user\0secret"), "503");
    submit("From: user@example.org\r\n\r\nx\r\n", "250");
    quit();
    secure();
    chat_say(&c, "AUTH plain", "334 ");
    chat_say(&c, "AHVzZXIAc2VjcmV0", "235");
    submit("Subject: x\r\n\r\nx\r\n", "250");
    quit();
    ck_assert_uint_eq(f.nmessages, 2);
    ck_assert_str_eq(f.messages[0].origin, "submission");
    ck_assert_str_eq(f.messages[0].login, "user");
    ck_assert_ptr_nonnull(strstr(f.messages[0].text, "with ESMTPSA (TLSv1.3 PRETEND)"));
}
END_TEST

START_TEST(auth_goes_wrong)
{
    char line[13000];
    secure();
    chat_say(&c, "AUTH", "504");
    chat_say(&c, "AUTH NTLM", "504 5.5.4");
    chat_say(&c, "AUTH LOGIN", "504");
    chat_say(&c, "AUTH PLAIN ====", "501 5.5.2");
    chat_say(&c, "AUTH PLAIN =", "501");
    chat_say(&c, "AUTH PLAIN", "334");
    chat_say(&c, "*", "501");
    chat_say(&c, "AUTH PLAIN", "334");
    chat_say(&c, "", "501");
    chat_say(&c, PLAIN("\0temp\0x"), "454 4.7.0");
    memset(line, 'A', sizeof line);
    memcpy(line, "AUTH PLAIN ", 11);
    memcpy(line + SMTP_AUTH_LINE_MAX, "\r\n", 3);
    chat_put(&c, line);
    chat_expect(&c, "501"); /* well within a line, and no PLAIN message */
    memcpy(line + SMTP_AUTH_LINE_MAX, "A\r\n", 4);
    chat_put(&c, line);
    chat_expect(&c, "500");
    chat_say(&c, "MAIL FROM:<user@example.org>", "530");
    quit();
    /* Catalogue F1, and three failures a connection. */
    secure();
    chat_say(&c, PLAIN("admin\0user\0secret"), "535 5.7.8");
    chat_say(&c, PLAIN("user\0user\0wrong"), "535 5.7.8");
    chat_say(&c, PLAIN("\0nobody\0secret"), "535 5.7.8");
    ck_assert_uint_eq(f.nverify, 3); /* with temp's: the first of these was not asked */
    chat_say(&c, PLAIN("\0user\0secret"), "421 4.7.0");
    chat_expect_end(&c);
    chat_close(&c);
    /* Neither is what nobody could try without end, nor what nobody would. */
    secure();
    for (int i = 0; i < SUBMITD_AUTH_FAILURES_MAX; i++)
        chat_say(&c, PLAIN("\0temp\0x"), "454 4.7.0");
    chat_say(&c, PLAIN("\0temp\0x"), "421 4.7.0");
    chat_expect_end(&c);
    chat_close(&c);
    chat_open(&c, &f, "submission", session);
    chat_expect(&c, "220");
    chat_say(&c, "EHLO client", "250-");
    for (int i = 0; i < SUBMITD_AUTH_FAILURES_MAX; i++)
        chat_say(&c, PLAIN("\0user\0secret"), "538 5.7.11");
    chat_say(&c, PLAIN("\0user\0secret"), "421 4.7.0");
    chat_expect_end(&c);
    chat_close(&c);
    /* Input behind AUTH is out of order. */
    secure();
    chat_put(&c, "AUTH PLAIN AHVzZXIAc2VjcmV0\r\nMAIL FROM:<user@example.org>\r\n");
    chat_expect(&c, "554 5.5.0");
    chat_expect_end(&c);
    chat_close(&c);
}
END_TEST

START_TEST(auth_cut_at_each_byte)
{
    static const char whole[] = "AUTH PLAIN\r\nAHVzZXIAc2VjcmV0\r\n";
    for (size_t n = 0; n < sizeof whole - 1; n++) {
        secure();
        chat_write(&c, whole, n < 12 ? n : 12);
        if (n >= 12) {
            chat_expect(&c, "334");
            chat_write(&c, whole + 12, n - 12);
        }
        chat_close(&c);
    }
    ck_assert_uint_eq(f.nverify, 0);
}
END_TEST

/* Catalogue F13. */
START_TEST(the_sender_is_the_login)
{
    login();
    chat_say(&c, "MAIL FROM:<other@example.org>", "553 5.7.1");
    chat_say(&c, "MAIL FROM:<x@example.com>", "553 5.7.1");
    chat_say(&c, "MAIL FROM:<alias@example.org>", "553 5.7.1");
    chat_say(&c, "MAIL FROM:<>", "553 5.7.1");
    chat_say(&c, "MAIL FROM:<temp@example.org>", "451");
    chat_say(&c, "MAIL FROM:<user>", "553");
    chat_say(&c, "RCPT TO:<a@example.com>", "503");
    chat_say(&c, "MAIL FROM:<user+tag@example.org> AUTH=user@example.org", "250");
    chat_say(&c, "RCPT TO:<nobody@example.org>", "550 5.1.1");
    chat_say(&c, "RCPT TO:<temp@example.org>", "451");
    chat_say(&c, "RCPT TO:<a@example.com>", "250");
    quit();
}
END_TEST

/* Catalogue H4, F13. */
START_TEST(the_author_is_the_login)
{
    static const struct {
        const char *header, *answer;
    } cases[] = {
        {"From: other@example.org\r\n\r\n", "550 5.7.1"},
        {"From: user@example.org\r\nFrom: other@example.org\r\n\r\n", "550 5.7.1"},
        {"From : user@example.org\r\nfrom\t: user@example.org\r\n\r\n", "550 5.7.1"},
        {"From: user@example.org, other@example.org\r\n\r\n", "550 5.7.1"},
        {"From: other@example.org,\r\n user@example.org\r\n\r\n", "550 5.7.1"},
        {"From: \"user@example.org\" <other@example.org>\r\n\r\n", "550 5.7.1"},
        {"From: (user@example.org)\r\n\r\n", "550 5.7.1"},
        {"From: user\r\n\r\n", "550 5.7.1"},
        {"From: [<other@example.org>] <user@example.org>\r\n\r\n", "550 5.7.1"},
        {"From: x@[ <other@example.org>, ] <user@example.org>\r\n\r\n", "550 5.7.1"},
        {"From:\r\n\r\n", "550 5.7.1"},
        {"From: ;\r\n\r\n", "550 5.7.1"},
        {"From: temp@example.org\r\n\r\n", "451"},
        {"FROM: Joe <user@EXAMPLE.org>\r\n\r\n", "250"},
        {"From: \"J, D\" (x)\r\n <user+tag@example.org>\r\n\r\n", "250"},
        {"Subject: none\r\n\r\n", "250"},
    };
    login();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        submit(cases[i].header, cases[i].answer);
    quit();
}
END_TEST

static size_t
count(const char *text, const char *what)
{
    size_t n = 0;
    for (const char *p = text; (p = strstr(p, what)); p++)
        n++;
    return n;
}

START_TEST(headers_are_made_whole)
{
    login();
    submit("Subject: x\r\nBcc: secret@example.com,\r\n more@example.com\r\nTo: a@example.com\r\n"
           "bcc : again@example.com\r\nReturn-Path: <x@y>\r\n\r\nBcc: in the body\r\n",
           "250");
    const char *text = f.messages[0].text;
    ck_assert_uint_eq(count(text, "\r\nFrom: user@example.org\r\n"), 1);
    ck_assert_uint_eq(count(text, "\r\nDate: "), 1);
    ck_assert_uint_eq(count(text, "\r\nMessage-ID: <ID1."), 1);
    ck_assert_uint_eq(count(text, "secret@"), 0);
    ck_assert_uint_eq(count(text, "more@"), 0);
    ck_assert_uint_eq(count(text, "again@"), 0);
    ck_assert_uint_eq(count(text, "Return-Path"), 0);
    ck_assert_uint_eq(count(text, "\r\n\r\nBcc: in the body\r\n"), 1);
    ck_assert_uint_eq(count(text, "\r\n\r\n"), 1);
    /* Whole already: nothing is added. */
    submit("date: d\r\nfrom: user@example.org\r\nmessage-id: m\r\n\r\nx\r\n", "250");
    ck_assert_ptr_nonnull(strstr(
        f.messages[1].text, "date: d\r\nfrom: user@example.org\r\nmessage-id: m\r\n\r\nx\r\n"));
    ck_assert_uint_eq(count(f.messages[1].text, "Date:"), 0);
    /* No header at all, and no empty line behind it. */
    submit("just text\r\n\r\nmore\r\n", "250");
    ck_assert_ptr_nonnull(strstr(f.messages[2].text, "\r\n\r\njust text\r\n\r\nmore\r\n"));
    submit("Subject: x\r\n", "250");
    ck_assert_ptr_nonnull(strstr(f.messages[3].text, "\r\nFrom: user@example.org\r\n"));
    ck_assert(str_ends(str_z(f.messages[3].text), STR("\r\n\r\n")));
    submit("", "250");
    /* Catalogue A2: never stored raw. */
    submit("Subject: x\r\n\r\na\nb\r\n", "550 5.5.2");
    chat_expect_end(&c);
    chat_close(&c);
    ck_assert_uint_eq(f.nmessages, 5);
}
END_TEST

START_TEST(a_header_has_a_ceiling)
{
    char line[1001];
    memset(line, 'x', sizeof line);
    memcpy(line, "A: ", 3);
    memcpy(line + 998, "\r\n", 3);
    login();
    chat_say(&c, "MAIL FROM:<user@example.org>", "250");
    chat_say(&c, "RCPT TO:<a@example.com>", "250");
    chat_say(&c, "DATA", "354");
    for (int i = 0; i < 300; i++)
        chat_put(&c, line);
    chat_say(&c, "\r\nx\r\n.", "552 5.3.4");
    /* A large body behind a small header is streamed. */
    chat_say(&c, "MAIL FROM:<user@example.org>", "250");
    chat_say(&c, "RCPT TO:<a@example.com>", "250");
    chat_say(&c, "DATA", "354");
    chat_put(&c, "Subject: x\r\n\r\n");
    for (int i = 0; i < 900; i++)
        chat_put(&c, line);
    chat_say(&c, ".", "250");
    quit();
    ck_assert_uint_gt(f.messages[0].n, 900000);
}
END_TEST

static void
local(uid_t uid)
{
    c.peer.uid = uid;
    chat_open(&c, &f, "submit", session);
    chat_expect(&c, "220");
    chat_say(&c, "EHLO localhost", "250-mail.example.org example.org\r\n");
    ck_assert_ptr_nonnull(strstr(c.reply, "XQUEUE"));
    ck_assert_ptr_null(strstr(c.reply, "AUTH"));
    ck_assert_ptr_null(strstr(c.reply, "STARTTLS"));
}

START_TEST(local_users)
{
    local(0);
    chat_say(&c, "MAIL FROM:<anybody@example.com>", "250");
    chat_say(&c, "RCPT TO:<user>", "250");
    chat_say(&c, "RCPT TO:<nobody>", "550 5.1.1");
    chat_say(&c, "DATA", "354");
    chat_say(&c, "From: cron\r\nBcc: x@y\r\n\r\nx\r\n.", "250");
    chat_say(&c, "AUTH PLAIN AHVzZXIAc2VjcmV0", "503");
    quit();
    ck_assert_str_eq(f.messages[0].rcpts, "user@example.org ");
    ck_assert_str_eq(f.messages[0].origin, "sendmail");
    ck_assert_str_eq(f.messages[0].client, "uid 0");
    ck_assert_ptr_nonnull(strstr(f.messages[0].text, "(Bulkhead, from userid 0)\r\n\tid ID1; "));
    ck_assert_ptr_null(strstr(f.messages[0].text, "Bcc"));
    local(1000); /* has an account */
    chat_say(&c, "MAIL FROM:<user>", "250");
    chat_say(&c, "RSET", "250");
    chat_say(&c, "MAIL FROM:<>", "250");
    chat_say(&c, "RSET", "250");
    chat_say(&c, "MAIL FROM:<other>", "553 5.7.1");
    chat_say(&c, "MAIL FROM:<root@mail.example.org>", "553 5.7.1");
    quit();
    local(1001); /* has two */
    for (int i = 0; i < 2; i++) {
        chat_say(&c, "MAIL FROM:<user>", "250");
        chat_say(&c, "RSET", "250");
        chat_say(&c, "MAIL FROM:<other>", "250");
        chat_say(&c, "RSET", "250");
        chat_say(&c, "MAIL FROM:<root@mail.example.org>", "553 5.7.1");
    }
    quit();
    local(33); /* has none */
    chat_say(&c, "MAIL FROM:<www-data>", "250");
    chat_say(&c, "RSET", "250");
    chat_say(&c, "MAIL FROM:<www-data@mail.example.org>", "250");
    chat_say(&c, "RSET", "250");
    chat_say(&c, "MAIL FROM:<ceo@example.com>", "553 5.7.1");
    quit();
    f.authd_fails = true; /* which account a user has must be known */
    local(1000);
    chat_say(&c, "MAIL FROM:<other>", "451");
    quit();
    local((uid_t)-1);
    chat_say(&c, "MAIL FROM:<user>", "451");
    quit();
}
END_TEST

/* sendmail -bs < file: words of a message are no commands, whatever became of DATA. */
START_TEST(a_file_whose_message_is_refused)
{
    static const char *const refused[] = {
        "MAIL FROM:<www-data>\r\nRCPT TO:<nobody>\r\nDATA\r\n",
        "MAIL FROM:<ceo@example.com>\r\nRCPT TO:<user>\r\nDATA\r\n",
        "MAIL FROM:<www-data>\r\nRCPT TO:<user>\r\nDATA x\r\n"};
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        local(33);
        chat_say(&c, "QUIT", "221");
        chat_close(&c);
        c.peer.uid = 33;
        chat_open(&c, &f, "submit", session);
        char all[1000];
        snprintf(all, sizeof all,
                 "EHLO x\r\n%sSubject: x\r\n\r\nRSET\r\nMAIL FROM:<www-data>\r\n"
                 "RCPT TO:<user>\r\nDATA\r\n\r\nevil\r\n.\r\n.\r\nQUIT\r\n",
                 refused[i]);
        chat_put(&c, all);
        do
            chat_expect(&c, "");
        while (strncmp(c.reply, "554 5.5.0", 9) != 0 && strncmp(c.reply, "221", 3) != 0);
        chat_close(&c);
        ck_assert_uint_eq(f.nmessages, 0);
    }
    /* One that waits for replies goes on. */
    local(33);
    chat_say(&c, "MAIL FROM:<www-data>", "250");
    chat_say(&c, "DATA", "554 5.5.1");
    chat_say(&c, "RCPT TO:<user>", "250");
    quit();
}
END_TEST

START_TEST(the_queue_is_listed)
{
    local(33);
    chat_say(&c, "XQUEUE x", "502");
    chat_say(&c, "XQUEUE", "250--Queue ID-");
    ck_assert_ptr_nonnull(strstr(c.reply, "\r\n250-AAA1        *     4096 "));
    ck_assert_ptr_nonnull(strstr(c.reply, "250-(host said: 450??250 no)\r\n"));
    ck_assert_ptr_nonnull(strstr(c.reply, " a@example.com\r\n"));
    ck_assert_ptr_nonnull(strstr(c.reply, "\r\n250-BBB2"));
    ck_assert_ptr_nonnull(strstr(c.reply, "\r\n250 -- 8 Kbytes in 2 Requests.\r\n"));
    quit();
}
END_TEST

/* sendmail(1) against the real session, over a real socket. */

struct listening {
    int fd;
    char path[64];
    pthread_t thread;
    uid_t uid;
};

static void *
accept_one(void *arg)
{
    struct listening *l = arg;
    struct submitd d = {.start = f.start, .conf = f.conf};
    int fd = accept(l->fd, NULL, NULL);
    struct peer peer = {.fd_in = fd, .fd_out = fd, .service = "submit", .uid = l->uid};
    submitd_session(&peer, &d);
    close(fd);
    return NULL;
}

/* Run sendmail with these arguments (a NULL behind the last) and input; its exit status. */
static int
run_sendmail(uid_t uid, const char *input, char **argv)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    struct listening l = {.uid = uid};
    int argc = 0, in = memfd_create("input", 0), null = open("/dev/null", O_RDWR);
    int keep[3] = {dup(0), dup(1), dup(2)};
    snprintf(l.path, sizeof l.path, "/tmp/bulkhead-test-%d", (int)getpid());
    snprintf(sun.sun_path, sizeof sun.sun_path, "%s", l.path);
    unlink(l.path);
    l.fd = socket(AF_UNIX, SOCK_STREAM, 0);
    ck_assert_int_eq(bind(l.fd, (struct sockaddr *)&sun, sizeof sun), 0);
    ck_assert_int_eq(listen(l.fd, 1), 0);
    ck_assert_int_eq(pthread_create(&l.thread, NULL, accept_one, &l), 0);
    setenv("BULKHEAD_SUBMIT", l.path, 1);
    ck_assert_int_eq(write(in, input, strlen(input)), (ssize_t)strlen(input));
    lseek(in, 0, SEEK_SET);
    while (argv[argc])
        argc++;
    fflush(stdout);
    dup2(in, 0);
    dup2(null, 1);
    dup2(null, 2);
    int status = sendmail_run(argc, argv);
    fflush(stdout);
    for (int i = 0; i < 3; i++) {
        dup2(keep[i], i);
        close(keep[i]);
    }
    shutdown(l.fd, SHUT_RDWR); /* when it never connected */
    pthread_join(l.thread, NULL);
    unlink(l.path);
    close(l.fd);
    close(in);
    close(null);
    return status;
}
#define SENDMAIL(uid, input, ...)                                                                  \
    run_sendmail(uid, input, (char *[]){(char *)"sendmail", __VA_ARGS__, NULL})
#define ARG(z) ((char *)(uintptr_t)(z))

START_TEST(sendmail_sends)
{
    const struct passwd *pw = getpwuid(getuid());
    ck_assert_ptr_nonnull(pw);
    ck_assert_int_eq(SENDMAIL(0, "Subject: x\n\n.dot\n..\nend\n.\nnot this\n", ARG("a@example.com"),
                              ARG("B <b@example.com>, user")),
                     0);
    ck_assert_uint_eq(f.nmessages, 1);
    ck_assert_str_eq(f.messages[0].rcpts, "a@example.com b@example.com user@example.org ");
    ck_assert_ptr_nonnull(strstr(f.messages[0].text, "\r\n\r\n.dot\r\n..\r\nend\r\n"));
    ck_assert_ptr_null(strstr(f.messages[0].text, "not this"));
    char want[300];
    snprintf(want, sizeof want, "<%s@example.org>\r\n", pw->pw_name);
    ck_assert_ptr_nonnull(strstr(f.messages[0].text, want));
    /* -i, -F, -f, CR LF input, no header. */
    ck_assert_int_eq(SENDMAIL(0, "text\r\n.\r\nend", ARG("-oi"), ARG("-FJ\xc3\xb6rg"),
                              ARG("-fjoe@example.com"), ARG("--"), ARG("a@example.com")),
                     0);
    ck_assert_str_eq(f.messages[1].sender, "joe@example.com");
    ck_assert_ptr_nonnull(
        strstr(f.messages[1].text, "From: =?UTF-8?B?SsO2cmc=?= <joe@example.com>"));
    ck_assert_ptr_nonnull(strstr(f.messages[1].text, "\r\n\r\ntext\r\n.\r\nend\r\n"));
    ck_assert_int_eq(SENDMAIL(0, "", ARG("-f"), ARG(""), ARG("a@example.com")), 0);
    ck_assert_str_eq(f.messages[2].sender, "");
    ck_assert_int_eq(
        SENDMAIL(0,
                 "To: a@example.com, C <c@example.com>\nCc: d@example.com\nBcc: e@example.com,\n"
                 " f@example.com\nFrom: me@here\nSubject: s\n\nbody\n",
                 ARG("-t"), ARG("-v")),
        0);
    ck_assert_str_eq(f.messages[3].rcpts, "a@example.com c@example.com d@example.com e@example.com "
                                          "f@example.com ");
    ck_assert_ptr_null(strstr(f.messages[3].text, "e@example.com"));
    ck_assert_ptr_null(strstr(f.messages[3].text, "f@example.com"));
}
END_TEST

START_TEST(sendmail_says_what_went_wrong)
{
    ck_assert_int_eq(SENDMAIL(0, "x\n", ARG("nobody")), EX_NOUSER);
    ck_assert_int_eq(SENDMAIL(0, "x\n", ARG("temp")), EX_TEMPFAIL);
    ck_assert_int_eq(SENDMAIL(33, "x\n", ARG("-fceo@example.com"), ARG("user")), EX_NOPERM);
    ck_assert_int_eq(SENDMAIL(0, "x\n", ARG("a@b\r\nRCPT TO:<x@y>")), EX_USAGE);
    ck_assert_int_eq(SENDMAIL(0, "x\n", ARG("a@b\x01")), EX_USAGE);
    ck_assert_int_eq(SENDMAIL(0, "x\n", ARG("<a@b")), EX_DATAERR);
    ck_assert_int_eq(SENDMAIL(0, "Subject: x\n\n", ARG("-t")), EX_USAGE);
    ck_assert_int_eq(SENDMAIL(0, "x\n", ARG("-i")), EX_USAGE);
    ck_assert_int_eq(SENDMAIL(0, "x\n", ARG("-bx")), EX_USAGE);
    ck_assert_int_eq(SENDMAIL(0, "x\n", ARG("-Z"), ARG("a@b")), EX_USAGE);
    ck_assert_int_eq(SENDMAIL(0, "x\n", ARG("-bd")), EX_UNAVAILABLE);
    ck_assert_int_eq(SENDMAIL(0, "x\n", ARG("-bi")), EX_OK);
    ck_assert_int_eq(SENDMAIL(0, "x\n", ARG("-bp")), EX_OK);
    ck_assert_int_eq(SENDMAIL(0, "x\n", ARG("-bv"), ARG("user")), EX_OK);
    ck_assert_int_eq(SENDMAIL(0, "x\n", ARG("-bv"), ARG("nobody")), EX_NOUSER);
    f.qmgr_full = true;
    ck_assert_int_eq(SENDMAIL(0, "x\n", ARG("user")), EX_TEMPFAIL);
    ck_assert_uint_eq(f.nmessages, 0);
    setenv("BULKHEAD_SUBMIT", "/nonexistent/submit", 1);
    int null = open("/dev/null", O_RDWR), keep = dup(2);
    char *argv[] = {ARG("mailq"), NULL};
    dup2(null, 2);
    int status = sendmail_run(1, argv);
    dup2(keep, 2);
    close(null);
    close(keep);
    ck_assert_int_eq(status, EX_TEMPFAIL);
}
END_TEST

START_TEST(sendmail_takes_postfix_options)
{
    struct sendmail_options o;
    char *argv[] = {ARG("sendmail"), ARG("-Am"), ARG("-B8BITMIME"), ARG("-G"),     ARG("-h5"),
                    ARG("-Lx"),      ARG("-m"),  ARG("-n"),         ARG("-N"),     ARG("never"),
                    ARG("-o7"),      ARG("-om"), ARG("-Ox=y"),      ARG("-Rhdrs"), ARG("-U"),
                    ARG("-V"),       ARG("id"),  ARG("-X"),         ARG("log"),    ARG("-bm"),
                    ARG("-oem"),     ARG("-v"),  ARG("-v"),         ARG("-r"),     ARG("s@x"),
                    ARG("-i"),       ARG("-t"),  ARG("a@b"),        NULL};
    int argc = sizeof argv / sizeof argv[0] - 1;
    ck_assert_int_eq(sendmail_options(argc, argv, &o), 0);
    ck_assert(o.from_header && o.ignore_dots && o.verbose && o.eight_bit);
    ck_assert_str_eq(o.sender, "s@x");
    ck_assert(o.notify == DSN_NEVER && o.ret == DSN_RET_HDRS);
    ck_assert_str_eq(o.envid, "id");
    ck_assert_uint_eq(o.nrcpts, 1);
    char *flush[] = {ARG("sendmail"), ARG("-q30m"), NULL};
    ck_assert_int_eq(sendmail_options(2, flush, &o), 0);
    ck_assert_int_eq(o.mode, SENDMAIL_DAEMON);
    char *aliases[] = {ARG("/usr/bin/newaliases"), NULL};
    ck_assert_int_eq(sendmail_options(1, aliases, &o), 0);
    ck_assert_int_eq(o.mode, SENDMAIL_ALIASES);
}
END_TEST

START_TEST(sendmail_asks_for_reports)
{
    static char long_id[DSN_ENVID_MAX + 2];
    memset(long_id, 'x', sizeof long_id - 1);
    ck_assert_int_eq(SENDMAIL(0, "Subject: x\n\nx\n", ARG("-N"), ARG("delay, success"),
                              ARG("-Rfull"), ARG("-V"), ARG("an id+1"), ARG("user"),
                              ARG("a+b@example.com")),
                     EX_OK);
    ck_assert_str_eq(f.messages[0].wishes,
                     "1 an+20id+2B1 10/rfc822;user@example.org 10/rfc822;a+2Bb@example.com");
    ck_assert_int_eq(SENDMAIL(0, "x\n", ARG("-N"), ARG("soon"), ARG("user")), EX_USAGE);
    ck_assert_int_eq(SENDMAIL(0, "x\n", ARG("-N"), ARG("never,delay"), ARG("user")), EX_USAGE);
    ck_assert_int_eq(SENDMAIL(0, "x\n", ARG("-R"), ARG("all"), ARG("user")), EX_USAGE);
    ck_assert_int_eq(SENDMAIL(0, "x\n", ARG("-V"), ARG("a\nb"), ARG("user")), EX_USAGE);
    ck_assert_int_eq(SENDMAIL(0, "x\n", ARG("-V"), ARG(""), ARG("user")), EX_USAGE);
    ck_assert_int_eq(SENDMAIL(0, "x\n", ARG("-V"), long_id, ARG("user")), EX_USAGE);
    long_id[DSN_ENVID_MAX] = '\0';
    ck_assert_int_eq(SENDMAIL(0, "x\n", ARG("-V"), long_id, ARG("user")), EX_OK);
    ck_assert_uint_eq(f.nmessages, 2);
}
END_TEST

/* The end of the input, with the dot rule, wherever reads are cut. */
START_TEST(sendmail_reads_up_to_a_dot)
{
    static const struct {
        const char *text, *want;
        bool dots;
    } cases[] = {{"a\n.\nb", "a\n", true},
                 {"a\n.\r\nb", "a\n", true},
                 {".\n", "", true},
                 {"a\n.", "a\n", true},
                 {"a\n..\n.b\n", "a\n..\n.b\n", true},
                 {"a.\n.\n", "a.\n", true},
                 {"a\n.\nb", "a\n.\nb", false},
                 {"", "", true}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (size_t cut = 0; cut <= strlen(cases[i].text); cut++) {
            static struct sendmail_input in;
            struct buf got = buf_new(1000);
            struct str piece;
            int pair[2];
            size_t rest = strlen(cases[i].text) - cut;
            /* Each write is one read. */
            ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
            in = (struct sendmail_input){.fd = pair[0], .dot_ends = cases[i].dots};
            ck_assert(!cut || write(pair[1], cases[i].text, cut) > 0);
            ck_assert(!rest || write(pair[1], cases[i].text + cut, rest) > 0);
            close(pair[1]);
            while (sendmail_read(&in, &piece) == 1)
                buf_add(&got, piece);
            ck_str(buf_str(&got), cases[i].want);
            buf_free(&got);
            close(pair[0]);
        }
}
END_TEST

/* Header and body, wherever reads are cut; an mbox's line in front of them is neither. */
START_TEST(sendmail_takes_letters_apart)
{
    static const struct {
        const char *text, *head, *body;
    } cases[] = {
        {"From root Sat Nov 21 10:00:00 2026\nTo: a\n b\n\nbody\n", "To: a\n b\n", "body\n"},
        {"From root Sat Nov 21 10:00:00 2026\r\nTo: a\r\n\r\nbody", "To: a\r\n", "body"},
        {"From root", "", ""},
        {"From: a\nFrom b\n", "From: a\n", "From b\n"},
        {"Fro: a\n\nFrom b\n", "Fro: a\n", "From b\n"},
        {"no field\nTo: a\n", "", "no field\nTo: a\n"},
        {"\nbody\n", "", "body\n"},
        {"To: a", "To: a\n", ""},
        {"", "", ""},
    };
    const struct sendmail_options o = {.ignore_dots = true};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (size_t cut = 0; cut <= strlen(cases[i].text); cut++) {
            static struct sendmail_letter l;
            struct buf body = buf_new(1000);
            struct str piece;
            int pair[2];
            size_t rest = strlen(cases[i].text) - cut;
            ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
            l = (struct sendmail_letter){.input.fd = pair[0]};
            ck_assert(!cut || write(pair[1], cases[i].text, cut) > 0);
            ck_assert(!rest || write(pair[1], cases[i].text + cut, rest) > 0);
            close(pair[1]);
            ck_assert_int_eq(sendmail_letter_open(&l, &o), 0);
            buf_add(&body, l.body);
            while (sendmail_read(&l.input, &piece) == 1)
                buf_add(&body, piece);
            ck_str(l.head, cases[i].head);
            ck_str(buf_str(&body), cases[i].body);
            buf_free(&l.raw);
            buf_free(&body);
            close(pair[0]);
        }
}
END_TEST

Suite *suite_submitd(void);
Suite *
suite_submitd(void)
{
    Suite *s = suite_create("submitd");
    TCase *t = tcase_create("submitd");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 300);
    tcase_add_test(t, no_auth_without_tls);
    tcase_add_test(t, both_forms_of_auth);
    tcase_add_test(t, auth_goes_wrong);
    tcase_add_test(t, auth_cut_at_each_byte);
    tcase_add_test(t, the_sender_is_the_login);
    tcase_add_test(t, the_author_is_the_login);
    tcase_add_test(t, headers_are_made_whole);
    tcase_add_test(t, a_header_has_a_ceiling);
    tcase_add_test(t, local_users);
    tcase_add_test(t, a_file_whose_message_is_refused);
    tcase_add_test(t, the_queue_is_listed);
    tcase_add_test(t, sendmail_sends);
    tcase_add_test(t, sendmail_says_what_went_wrong);
    tcase_add_test(t, sendmail_takes_postfix_options);
    tcase_add_test(t, sendmail_asks_for_reports);
    tcase_add_test(t, sendmail_reads_up_to_a_dot);
    tcase_add_test(t, sendmail_takes_letters_apart);
    suite_add_tcase(s, t);
    return s;
}
