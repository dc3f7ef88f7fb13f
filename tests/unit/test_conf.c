/* conf: whole, cut anywhere, at its ceilings; all errors at once, each at its place. */
#include "lib/conf/conf.h"
#include "lib/conf/words.h"
#include "lib/ipc/table.h"
#include "tests/unit/temp.h"
#include "tests/unit/unit.h"
#include <sys/mman.h>

static struct conf conf;
static struct conf_errors errors;

static const char whole[] =
    "# the whole of it\nversion 1\nhostname MX.example.org; domain example.org \"second.example\"\n"
    "domain third.example\npostmaster boss\naliases /etc/aliases\nlog /var/log/x\nlog-debug yes\n"
    "certificate /a/chain.pem key /a/key.pem\n"
    "certificate /b/chain.pem key /b/key.pem for submitd imapd\nresolver 127.0.0.1 port "
    "5353\nresolver ::1\n"
    "message-size 10M\nrecipients 500 \\\n# continued\n\nhops 20\nusers-prefix x-\n"
    "directories { run /r\nqueue /q; state /s; mail /m\nprograms /p }\n"
    "accounts {\n user-ids 5000 to 6000\n delimiter -\n}\n"
    "queue {\n retry 1m\n retry-max 2h\n expire 3d\n user-messages 77\n user-size 3M\n "
    "local-deliveries 3\n relay-sessions 4\n"
    " destination-sessions 5\n}\n"
    "relay {\n via smart.example port 2525\n source 192.0.2.1\n tls no\n connect-time 5s\n"
    " command-time 6\n data-time 7\n}\n"
    "smtpd {\n listen * port 25\n listen ::1 port 26 tls\n sessions 7\n sessions-per-address 2\n"
    " idle 9\n session-time 10\n relayclient yes\n relay-from 192.0.2.0/24 ::1\n}\nsubmitd "
    "{\n}\npop3d { }\n";

static int
parse(const char *text)
{
    return conf_parse(&conf, STR("test.conf"), str_z(text), &errors);
}

static void
expect(size_t i, unsigned line, unsigned column, const char *text)
{
    ck_assert_uint_gt(errors.n, i);
    ck_assert_msg(strstr(errors.at[i].text, text) && errors.at[i].line == line &&
                      errors.at[i].column == column,
                  "error %zu: %u:%u: %s; wanted %u:%u: %s", i, errors.at[i].line,
                  errors.at[i].column, errors.at[i].text, line, column, text);
}

START_TEST(every_word_reaches_its_field)
{
    int ok = parse(whole);
    ck_assert_msg(ok == 0, "%u: %s", errors.at[0].line, errors.at[0].text);
    ck_str(conf.hostname, "mx.example.org");
    ck_assert_uint_eq(conf.ndomains, 3);
    ck_str(conf.domains[1], "second.example");
    ck_str(conf.postmaster, "boss@example.org");
    ck_assert(conf.log_debug);
    ck_str(conf.keys[0].key, "/a/key.pem");
    ck_assert_uint_eq(conf.keys[0].fronts, R_SMTPD | R_SUBMITD | R_POP3D | R_IMAPD);
    ck_str(conf.keys[1].chain, "/b/chain.pem");
    ck_assert_uint_eq(conf.keys[1].fronts, R_SUBMITD | R_IMAPD);
    ck_assert_uint_eq(conf_keys(&conf, R_SMTPD), 1);
    ck_assert_uint_eq(conf_keys(&conf, R_IMAPD), 2);
    ck_assert_uint_eq(conf.queue.user_messages_max, 77);
    ck_assert_uint_eq(conf.queue.user_size_max, 3u << 20);
    ck_assert_uint_eq(conf.resolvers[0].port, 5353);
    ck_assert_uint_eq(conf.resolvers[1].port, 53);
    ck_assert_uint_eq(conf.message_size_max, 10u << 20);
    ck_assert_uint_eq(conf.recipients_max, 500);
    ck_assert_uint_eq(conf.uid_last, 6000);
    ck_str(conf.delimiter, "-");
    ck_assert_uint_eq(conf.queue.retry_max_s, 7200);
    ck_assert_uint_eq(conf.queue.expire_s, 3 * 86400);
    ck_str(conf.relay.host, "smart.example");
    ck_assert_uint_eq(conf.relay.port, 2525);
    ck_assert(!conf.relay.tls && conf.relayclient);
    ck_assert_uint_eq(conf.nrelay_from, 2);
    ck_assert(conf_relays_for(&conf, STR("192.0.2.200")) && conf_relays_for(&conf, STR("::1")));
    ck_assert(!conf_relays_for(&conf, STR("192.0.3.1")) && !conf_relays_for(&conf, STR("")));
    ck_assert_uint_eq(conf.smtpd.nlisten, 2);
    ck_assert(conf.smtpd.listen[1].tls);
    ck_assert_uint_eq(conf.submitd.nlisten, 2);
    ck_assert_uint_eq(conf.submitd.listen[1].port, 465);
    ck_assert_uint_eq(conf.pop3d.listen[0].port, 110);
    ck_assert(!conf.imapd.present);
    ck_assert(conf_is_local(&conf, STR("THIRD.example")));
    conf_free(&conf);
}
END_TEST

START_TEST(every_prefix_is_read_or_refused)
{
    for (size_t n = 0; n < sizeof whole - 1; n++) {
        char *cut = malloc(n + 1); /* exact: reading past it is seen */
        memcpy(cut, whole, n);
        int ok = conf_parse(&conf, STR("cut"), str_of(cut, n), &errors);
        ck_assert((ok == 0) == (errors.n == 0));
        conf_free(&conf);
        free(cut);
    }
}
END_TEST

START_TEST(every_byte_changed_does_no_harm)
{
    char text[sizeof whole];
    static const char bytes[] = {'\0', '\n', '"', '{', '}', '\\', '\xff', ';'};
    for (size_t i = 0; i < sizeof whole - 1; i++)
        for (size_t k = 0; k < sizeof bytes; k++) {
            memcpy(text, whole, sizeof whole);
            text[i] = bytes[k];
            int ok = conf_parse(&conf, STR("x"), str_of(text, sizeof whole - 1), &errors);
            ck_assert((ok == 0) == (errors.n == 0));
            for (size_t e = 0; e < errors.n; e++)
                for (const char *z = errors.at[e].text; *z; z++)
                    ck_assert(ch_print(*z));
            conf_free(&conf);
        }
}
END_TEST

START_TEST(all_errors_at_once_with_their_place)
{
    ck_assert_int_eq(parse("version 1\nhostnam mx.example.org\ndomain example.org example.org\n"
                           "  hops 0\nsmptd {\n}\nsmtpd {\n  lisen * port 25\n  idle 2x\n"
                           "  listen nowhere port 70000\n}\nqueue {\n retry 1h; retry-max 1m\n"),
                     -1);
    expect(0, 2, 1, "unknown word \"hostnam\"; did you mean \"hostname\"?");
    expect(1, 3, 20, "named twice");
    expect(2, 4, 8, "out of range: from 1 to 1000");
    expect(3, 5, 1, "unknown block \"smptd\"; did you mean \"smtpd\"?");
    expect(4, 8, 3, "unknown word \"lisen\" in block smtpd; did you mean \"listen\"?");
    expect(5, 9, 8, "is not a number");
    expect(6, 10, 10, "neither an address nor *");
    expect(7, 10, 23, "out of range: from 1 to 65535");
    expect(errors.n - 3, 12, 1, "the block queue is not closed");
    expect(errors.n - 2, 1, 1, "hostname is missing");
    expect(errors.n - 1, 1, 1, "retry-max is less than retry");
    conf_free(&conf);
}
END_TEST

START_TEST(what_concerns_the_whole_is_said_at_its_line)
{
    ck_assert_int_eq(parse("version 1\nhostname a.example\ndomain example.org\nlog here\n"
                           "accounts { delimiter ++ }\nsmtpd { listen * port 0 }\n"
                           "submitd { listen ::1 port 25; listen ::1 port 25 }\n"),
                     -1);
    expect(0, 4, 5, "log wants");
    expect(1, 5, 22, "one character");
    expect(2, 6, 23, "out of range");
    expect(3, 7, 38, "::1 port 25 is listened at twice");
    ck_assert_uint_eq(errors.n, 4);
    conf_free(&conf);
}
END_TEST

static const struct {
    const char *text, *error;
} bad[] = {
    {"", "version 1"},
    {"hostname x\n", "version 1"},
    {"version 2\n", "version 1"},
    {"version 1 {\n", "version 1"},
    {"version 1\n}\n", "} without a block"},
    {"version 1\nhostname a }\n", "} without a block"},
    {"version 1\n{\n", "{ without a block's name"},
    {"version 1\nsmtpd {\n pop3d {\n}\n", "a block inside the block smtpd"},
    {"version 1\nhostname\n", "hostname wants a value"},
    {"version 1\nhostname a b\n", "unexpected \"b\""},
    {"version 1\nhostname a; hostname b\n", "already set in line 2"},
    {"version 1\nhostname \"a\n", "does not end on its line"},
    {"version 1\nhostname a\x01\n", "byte 0x01"},
    {"version 1\nhostname -..a\n", "is not a domain name"},
    {"version 1\naliases etc\n", "absolute path"},
    {"version 1\nlog-debug maybe\n", "neither yes nor no"},
    {"version 1\nlog somewhere\n", "log wants"},
    {"version 1\nmessage-size 1023\n", "out of range"},
    {"version 1\nmessage-size 99999999999999999999\n", "is not a number"},
    {"version 1\nmessage-size 18446744073709551615G\n", "is not a number"},
    {"version 1\ncertificate a\n", "certificate wants"},
    {"version 1\ncertificate /a key b\n", "\"b\" is not an absolute path"},
    {"version 1\nsmtpd\n{\n}\n", "the block smtpd wants its { on this line"},
    {"version 1\nsmtpd { listen * port 465 }\ncertificate /a key /b\nsubmitd { }\n",
     "* port 465 is listened at twice"},
    {"version 1\ndirectories { run "
     "/5678901234567890123456789012345678901234567890123456789012345678901234567890123456 }\n",
     "a path of more than 79 bytes"},
    {"version 1\nresolver 127.0.0.1 port 0\n", "out of range"},
    {"version 1\nsmtpd {\n relay-from 192.0.2.1/24\n}\n", "neither an address nor a network"},
    {"version 1\naccounts { user-ids 2000 to 1999\n}\n", "the range is empty"},
    {"version 1\naccounts { user-ids 999 to 1999\n}\n", "out of range"},
    {"version 1\naccounts { delimiter ab\n}\n", "one character"},
    {"version 1\naccounts { delimiter \"\"\n}\n", "one character"},
    {"version 1\nsmtpd { listen * port 25 tls\n}\n", "no certificate"},
    {"version 1\nsmtpd { listen *\n}\n", "listen wants"},
    {"version 1\nrelay { via a b\n}\n", "unexpected"},
    {"version 1\nrelay { source localhost\n}\n", "not an address"},
};

START_TEST(a_fault_is_named)
{
    ck_assert_int_eq(parse(bad[_i].text), -1);
    bool found = false;
    for (size_t i = 0; i < errors.n; i++)
        found |= strstr(errors.at[i].text, bad[_i].error) != NULL;
    ck_assert_msg(found, "%s: first of %zu: %s", bad[_i].text, errors.n, errors.at[0].text);
    conf_free(&conf);
}
END_TEST

static char *
with_domains(size_t n, bool one_line)
{
    struct buf b = buf_new(1 << 20);
    buf_addz(&b, "version 1\nhostname mx.example.org\ndomain first.example");
    for (size_t i = 1; i < n; i++)
        buf_addf(&b, "%sd%zu.example", one_line ? " " : "\ndomain ", i);
    char *z = strdup(buf_z(&b));
    buf_free(&b);
    return z;
}

START_TEST(domains_up_to_their_ceiling)
{
    for (int one_line = 0; one_line < 2; one_line++) {
        char *z = with_domains(CONF_LIST_MAX, one_line);
        ck_assert_int_eq(parse(z), 0);
        ck_assert_uint_eq(conf.ndomains, CONF_LIST_MAX);
        conf_free(&conf);
        free(z);
        z = with_domains(CONF_LIST_MAX + 1, one_line);
        ck_assert_int_eq(parse(z), -1);
        ck_assert_uint_eq(errors.n, 1);
        ck_assert_ptr_nonnull(strstr(errors.at[0].text, "more than 1000 domains"));
        ck_assert_uint_eq(errors.at[0].line, one_line ? 3u : 3u + CONF_LIST_MAX);
        conf_free(&conf);
        free(z);
    }
}
END_TEST

static const struct {
    const char *line;
    unsigned max;
} lists[] = {{"smtpd {\nlisten 127.0.0.1 port 25\n}\n", CONF_LISTEN_MAX},
             {"certificate /a key /b\n", CONF_KEYS_MAX},
             {"resolver 127.0.0.1\n", CONF_RESOLVERS_MAX},
             {"smtpd {\nrelay-from 192.0.2.0/24\n}\n", CONF_NETWORKS_MAX}};

START_TEST(lists_up_to_their_ceilings)
{
    struct buf b = buf_new(1 << 16);
    buf_addz(&b, "version 1\nhostname a\ndomain a\n");
    for (unsigned i = 0; i < lists[_i].max; i++)
        if (_i == 0) /* no two at one place */
            buf_addf(&b, "smtpd {\nlisten 127.0.0.1 port %u\n}\n", 26 + i);
        else
            buf_addz(&b, lists[_i].line);
    ck_assert_int_eq(parse(buf_z(&b)), 0);
    conf_free(&conf);
    buf_addz(&b, lists[_i].line);
    ck_assert_int_eq(parse(buf_z(&b)), -1);
    ck_assert_ptr_nonnull(strstr(errors.at[0].text, "more than"));
    conf_free(&conf);
    buf_free(&b);
}
END_TEST

START_TEST(errors_have_a_ceiling)
{
    struct buf b = buf_new(1 << 20);
    buf_addz(&b, "version 1\nhostname a\ndomain a\n");
    for (int i = 0; i < CONF_ERRORS_MAX + 7; i++)
        buf_addz(&b, "nonsense\n");
    ck_assert_int_eq(parse(buf_z(&b)), -1);
    ck_assert_uint_eq(errors.n, CONF_ERRORS_MAX);
    ck_assert_uint_eq(errors.suppressed, 7);
    conf_free(&conf);
    buf_free(&b);
}
END_TEST

static int
read_of_size(size_t size, char with)
{
    static const char head[] = "version 1\nhostname a\ndomain a\n#";
    int fd = memfd_create("conf", MFD_CLOEXEC);
    char *text = malloc(size);
    memset(text, with, size);
    memcpy(text, head, sizeof head - 1);
    ck_assert_int_eq(write(fd, text, size), (ssize_t)size);
    int ok = conf_read(&conf, STR("big"), fd, &errors);
    free(text);
    close(fd);
    return ok;
}

START_TEST(the_text_has_a_ceiling)
{
    ck_assert_int_eq(read_of_size(CONF_TEXT_MAX, 'x'), 0);
    conf_free(&conf);
    ck_assert_int_eq(read_of_size(CONF_TEXT_MAX + 1, 'x'), -1);
    ck_assert_ptr_nonnull(strstr(errors.at[0].text, "too large"));
    conf_free(&conf);
}
END_TEST

START_TEST(a_megabyte_of_words)
{
    struct buf b = buf_new(CONF_TEXT_MAX);
    buf_addz(&b, "version 1\nhostname a\ndomain a");
    while (buf_room(&b) > 2)
        buf_addz(&b, b.n % 2000 < 2 ? "\ndomain a" : " b");
    ck_assert_int_eq(parse(buf_z(&b)), -1);
    conf_free(&conf);
    buf_reset(&b);
    buf_addz(&b, "version 1\n");
    while (buf_room(&b) > 2)
        buf_addc(&b, '{');
    ck_assert_int_eq(conf_parse(&conf, STR("x"), buf_str(&b), &errors), -1);
    ck_assert_uint_gt(errors.suppressed, 0);
    conf_free(&conf);
    buf_free(&b);
}
END_TEST

START_TEST(no_descriptor_no_crash)
{
    ck_assert_int_eq(conf_read(&conf, STR("none"), -1, &errors), -1);
    ck_assert_ptr_nonnull(strstr(errors.at[0].text, "cannot read"));
    conf_free(&conf);
}
END_TEST

Suite *suite_conf(void);
Suite *
suite_conf(void)
{
    Suite *s = suite_create("conf");
    TCase *t = tcase_create("conf");
    tcase_set_timeout(t, 300);
    tcase_add_test(t, every_word_reaches_its_field);
    tcase_add_test(t, every_prefix_is_read_or_refused);
    tcase_add_test(t, every_byte_changed_does_no_harm);
    tcase_add_test(t, all_errors_at_once_with_their_place);
    tcase_add_test(t, what_concerns_the_whole_is_said_at_its_line);
    tcase_add_loop_test(t, a_fault_is_named, 0, sizeof bad / sizeof bad[0]);
    tcase_add_test(t, domains_up_to_their_ceiling);
    tcase_add_loop_test(t, lists_up_to_their_ceilings, 0, sizeof lists / sizeof lists[0]);
    tcase_add_test(t, errors_have_a_ceiling);
    tcase_add_test(t, the_text_has_a_ceiling);
    tcase_add_test(t, a_megabyte_of_words);
    tcase_add_test(t, no_descriptor_no_crash);
    suite_add_tcase(s, t);
    return s;
}
