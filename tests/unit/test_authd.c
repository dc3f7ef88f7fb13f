/* authd: the accounts file good and bad, who an address is, and the throttle. */
#include "common/authd/authd.h"
#include "lib/ipc/channel.h"
#include "tests/unit/temp.h"
#include "tests/unit/later.h"
#include "tests/unit/unit.h"
#include <errno.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

static struct conf conf;
static char *dir;
static int fd;
static struct err e;

static void
setup(void)
{
    static struct conf_errors errors;
    temp_quiet();
    dir = temp_dir();
    fd = open(dir, O_RDONLY | O_DIRECTORY);
    ck_assert_int_eq(conf_parse(&conf, STR("c"),
                                STR("version 1\nhostname mx.example.org\n"
                                    "domain example.org second.example\npostmaster alice\n"),
                                &errors),
                     0);
    authd.conf = &conf;
}

static void
teardown(void)
{
    temp_remove(dir);
}

static void
put_file(const char *text, size_t n)
{
    int f = openat(fd, "accounts", O_WRONLY | O_CREAT | O_TRUNC, 0600);
    ck_assert_int_eq(write(f, text, n), (ssize_t)n);
    close(f);
}

/* NULL: the file as it is. */
static size_t
load(const char *text)
{
    if (text)
        put_file(text, strlen(text));
    accounts_free(&authd.accounts);
    ck_assert_int_eq(accounts_load(&authd.accounts, fd, &e), 0);
    return authd.accounts.bad_lines;
}

static const char good[] = "version 1\n# comment\nalice:2001:2001:/mail/alice:$y$hash\n"
                           "bob@second.example:2002:2002:/mail/bob:$y$hash\n\n"
                           "a+b@second.example:2003:2003:/m/x:h\n";

static enum address_kind
kind_of(const char *address)
{
    enum address_kind kind;
    struct account *account;
    return resolve_address(str_z(address), &kind, &account, &e) < 0 ? (enum address_kind)99 : kind;
}

START_TEST(good_lines_serve)
{
    ck_assert_uint_eq(
        load("version 1\nalice:2001:2001:/mail/alice:h\nbob@second.example:2002:2002:/b:h\n"), 0);
    ck_assert_uint_eq(authd.accounts.n, 2);
    ck_assert_int_eq(kind_of("ALICE@EXAMPLE.org"), ADDRESS_ACCOUNT);
    ck_assert_int_eq(kind_of("alice+tag@mx.example.org"), ADDRESS_ACCOUNT);
    ck_assert_int_eq(kind_of("alice@second.example"), ADDRESS_UNKNOWN);
    ck_assert_int_eq(kind_of("bob@second.example"), ADDRESS_ACCOUNT);
    ck_assert_int_eq(kind_of("bob@example.org"), ADDRESS_UNKNOWN);
    ck_assert_int_eq(kind_of("alice@other.example"), ADDRESS_FOREIGN);
    ck_assert_int_eq(kind_of("postmaster@second.example"), ADDRESS_ALIAS);
    ck_assert_int_eq(kind_of(""), ADDRESS_UNKNOWN);
    ck_assert_int_eq(kind_of("@"), ADDRESS_FOREIGN);
    ck_assert_int_eq(kind_of("+@example.org"), ADDRESS_UNKNOWN);
    ck_assert_int_eq(kind_of("../alice@example.org"), ADDRESS_UNKNOWN);
    ck_assert_ptr_nonnull(resolve_login(STR("Alice")));
    ck_assert_ptr_nonnull(resolve_login(STR("alice@example.org")));
    ck_assert_ptr_null(resolve_login(STR("alice@second.example")));
    ck_assert_ptr_null(resolve_login(STR("bob")));
    ck_assert_ptr_null(resolve_login(STR("@")));
    ck_assert_ptr_nonnull(accounts_by_uid(&authd.accounts, 2002));
    ck_assert_ptr_null(accounts_by_uid(&authd.accounts, 0));
}
END_TEST

static void
no_fault(size_t line, const char *what)
{
    ck_abort_msg("aliases:%zu: %s", line, what);
}

/* Who alone gets an alias's mail may send as it, by whichever of our names it leads to him. */
START_TEST(an_alias_of_one_account)
{
    static const struct {
        const char *targets, *account;
    } rows[] = {{"bob", "bob"},
                {"bob@mx.example.org", "bob"},
                {"bob+x@MX.example.org", "bob"},
                {"other@mx.example.org", NULL}, /* an alias itself */
                {"bob@other.example", NULL},
                {"bob, bob@mx.example.org", NULL}};
    load("version 1\nbob:2002:2002:/m/b:h\nother:2003:2003:/m/o:h\n");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char text[200];
        enum address_kind kind;
        struct account *account;
        snprintf(text, sizeof text, "other: bob\nsales: %s\n", rows[i].targets);
        ck_assert_int_eq(aliases_parse(&authd.aliases, str_z(text), STR("example.org"),
                                       STR("mx.example.org"), no_fault, &e),
                         0);
        ck_assert_int_eq(resolve_address(STR("sales@example.org"), &kind, &account, &e), 0);
        ck_assert_int_eq(kind, ADDRESS_ALIAS);
        ck_assert_msg(!account == !rows[i].account, "%s", rows[i].targets);
        if (account)
            ck_str(account->name, rows[i].account);
        aliases_free(&authd.aliases);
    }
}
END_TEST

static const char *const bad[] = {
    "alice",
    "alice:1:2:3",
    "alice:2001:2001:/m/a:h:more",
    ":2001:2001:/m/a:h",
    "Alice:2001:2001:/m/a:h",
    "a/b:2001:2001:/m/a:h",
    "..:2001:2001:/m/a:h",
    "a@..x:2001:2001:/m/a:h",
    "a@b@c:2001:2001:/m/a:h",
    "-a:2001:2001:/m/a:h",
    "alice:0:2001:/m/a:h",
    "alice:499:2001:/m/a:h",
    "alice:2001:499:/m/a:h",
    "alice:-1:2001:/m/a:h",
    "alice:4294967296:2001:/m/a:h",
    "alice:2147483648:2001:/m/a:h",
    "alice:x:2001:/m/a:h",
    "alice:2001:2001:m/a:h",
    "alice:2001:2001:/:h",
    "alice:2001:2001:/m/../etc:h",
    "alice:2001:2001://m:h",
    "alice:2001:2001:/m/:h",
    "alice:2001:2001:/m/a:",
    "alice:2001:2001:/m/a\x01:h",
    "alice:2001:2001:/m/a:\xff",
    "bob:2002:2002:/m/b:h", /* the second time */
};

START_TEST(a_bad_line_makes_nobody_unknown)
{
    char text[512];
    snprintf(text, sizeof text, "version 1\n%s\nbob:2002:2002:/m/b:h\n%s", bad[_i],
             bad[_i][0] == 'b' ? "" : "carol:2003:2003:/m/c:h\n");
    ck_assert_msg(load(text) == 1, "%s", bad[_i]);
    ck_assert_int_eq(kind_of("bob@example.org"), ADDRESS_ACCOUNT);
    ck_assert_ptr_nonnull(resolve_login(STR("bob")));
    ck_assert_int_eq(kind_of("nobody@example.org"), 99);
    ck_assert_int_eq(e.class, ERR_TEMPORARY);
    struct account x = {STR("dave"), STR("h"), STR("/m/d"), 2004, 2004, NULL};
    ck_assert_int_eq(accounts_add(&authd.accounts, &x, &e), -1);
    ck_assert_ptr_nonnull(strstr(e.text, "mend it first"));
    ck_assert_ptr_null(accounts_find(&authd.accounts, STR("dave")));
    ck_assert_int_eq(accounts_remove(&authd.accounts, STR("bob"), &e), -1);
    ck_assert_ptr_nonnull(accounts_find(&authd.accounts, STR("bob")));
    ck_assert_int_eq(accounts_set_hash(&authd.accounts, STR("bob"), STR("new"), &e), -1);
    ck_str(accounts_find(&authd.accounts, STR("bob"))->hash, "h");
}
END_TEST

START_TEST(every_prefix_and_every_byte)
{
    char text[sizeof good];
    static const char bytes[] = {'\0', '\n', ':', '@', '\xff', '/', '9'};
    for (size_t n = 0; n < sizeof good; n++) {
        put_file(good, n);
        accounts_free(&authd.accounts);
        ck_assert_int_eq(accounts_load(&authd.accounts, fd, &e), 0);
        bool whole = n == 9 || (n && good[n - 1] == '\n');
        ck_assert(whole || authd.accounts.bad_lines);
    }
    for (size_t i = 0; i < sizeof good - 1; i++)
        for (size_t k = 0; k < sizeof bytes; k++) {
            memcpy(text, good, sizeof good);
            text[i] = bytes[k];
            put_file(text, sizeof good - 1);
            accounts_free(&authd.accounts);
            ck_assert_int_eq(accounts_load(&authd.accounts, fd, &e), 0);
            for (size_t j = 0; j < authd.accounts.n; j++)
                ck_assert(accounts_name_ok(authd.accounts.list[j]->name) &&
                          authd.accounts.list[j]->uid >= 500);
        }
}
END_TEST

START_TEST(names_at_their_ceiling)
{
    char name[ACCOUNT_NAME_MAX + 2];
    memset(name, 'a', sizeof name);
    ck_assert(accounts_name_ok(str_of(name, 64))); /* RFC 5321 4.5.3.1.1 */
    ck_assert(!accounts_name_ok(str_of(name, 65)));
    name[65] = '@';
    ck_assert(!accounts_name_ok(str_of(name, 70)));
    name[65] = 'a';
    name[64] = '@';
    ck_assert(accounts_name_ok(str_of(name, ACCOUNT_NAME_MAX)));
    ck_assert(!accounts_name_ok(str_of(name, ACCOUNT_NAME_MAX + 1)));
    ck_assert(!accounts_name_ok(STR("")));
    ck_assert(!accounts_name_ok(STR("a@")));
    ck_assert(!accounts_name_ok(STR("a..b")));
    ck_assert(!accounts_name_ok(STR("a b")));
}
END_TEST

START_TEST(changes_are_kept)
{
    ck_assert_int_eq(accounts_load(&authd.accounts, fd, &e), 0); /* no file */
    char name[32], directory[32];
    for (int i = 0; i < 300; i++) {
        snprintf(name, sizeof name, "user%d", (i * 7919) % 300);
        snprintf(directory, sizeof directory, "/m/%d", i);
        struct account x = {.name = str_z(name), .hash = STR("h"), .directory = str_z(directory)};
        x.uid = x.gid = accounts_give_uid(&authd.accounts, 2000, 2299);
        ck_assert_uint_eq(x.uid, 2000 + (unsigned)i);
        ck_assert_msg(accounts_add(&authd.accounts, &x, &e) == 0, "%s", e.text);
        ck_assert_int_eq(accounts_add(&authd.accounts, &x, &e), -1);
    }
    ck_assert_uint_eq(accounts_give_uid(&authd.accounts, 2000, 2299), 0);
    ck_assert_int_eq(accounts_remove(&authd.accounts, STR("user7"), &e), 0);
    ck_assert_int_eq(accounts_remove(&authd.accounts, STR("user7"), &e), -1);
    ck_assert_int_eq(accounts_set_hash(&authd.accounts, STR("user8"), STR("new"), &e), 0);
    accounts_free(&authd.accounts);
    ck_assert_int_eq(accounts_load(&authd.accounts, fd, &e), 0);
    ck_assert_uint_eq(authd.accounts.n, 299);
    ck_assert_uint_eq(authd.accounts.bad_lines, 0);
    ck_str(accounts_find(&authd.accounts, STR("user8"))->hash, "new");
    for (size_t i = 1; i < 299; i++)
        ck_assert_uint_eq(accounts_after(&authd.accounts, authd.accounts.list[i - 1]->name), i);
    struct stat st;
    ck_assert_int_eq(fstatat(fd, "accounts", &st, 0), 0);
    ck_assert_uint_eq(st.st_mode & 07777, 0600);
}
END_TEST

static uint32_t
give(const char *name)
{
    char directory[32];
    snprintf(directory, sizeof directory, "/m/%s", name);
    struct account x = {.name = str_z(name), .hash = STR("h"), .directory = str_z(directory)};
    x.uid = x.gid = accounts_give_uid(&authd.accounts, 2000, 2003);
    return x.uid && accounts_add(&authd.accounts, &x, &e) == 0 ? x.uid : 0;
}

static int
take_away(const char *name)
{
    accounts_retire_uid(&authd.accounts, accounts_find(&authd.accounts, str_z(name))->uid, 2000,
                        2003);
    return accounts_remove(&authd.accounts, str_z(name), &e);
}

START_TEST(an_id_is_not_given_twice)
{
    ck_assert_uint_eq(load("version 1\nz:5000:5000:/m/z:h\n"), 0);
    ck_assert_uint_eq(give("a"), 2000);
    ck_assert_uint_eq(give("b"), 2001);
    ck_assert_int_eq(take_away("b"), 0);
    ck_assert_int_eq(take_away("z"), 0); /* not of the range */
    ck_assert_uint_eq(load(NULL), 0);    /* also after a restart */
    ck_assert_uint_eq(authd.accounts.given, 2001);
    ck_assert_uint_eq(give("c"), 2002);
    ck_assert_uint_eq(give("d"), 2003);
    ck_assert_uint_eq(give("e"), 2001); /* the range was given once */
    ck_assert_uint_eq(give("f"), 0);
    ck_assert_int_eq(take_away("a"), 0);
    ck_assert_uint_eq(give("g"), 2000);
    /* written by hand, without a "given" */
    ck_assert_uint_eq(load("version 1\nx:2001:2001:/m/x:h\n"), 0);
    ck_assert_int_eq(take_away("x"), 0);
    ck_assert_uint_eq(give("y"), 2002);
    /* of a range that is no more */
    ck_assert_uint_eq(load("version 1\ngiven 9000\n"), 0);
    ck_assert_uint_eq(give("x"), 2000);
    ck_assert_uint_eq(give("y"), 2001);
    ck_assert_uint_eq(load("version 1\ngiven x\n"), 1);
    ck_assert_uint_eq(load("version 1\ngiven 2147483648\n"), 1);
}
END_TEST

START_TEST(an_edited_file_is_not_written_over)
{
    struct account x = {STR("dave"), STR("h"), STR("/m/d"), 2004, 2004, NULL};
    ck_assert_uint_eq(load("version 1\nbob:2002:2002:/m/b:h\n"), 0);
    put_file("version 1\nbob:2002:2002:/m/b:edited\n", 36);
    ck_assert_int_eq(accounts_add(&authd.accounts, &x, &e), -1);
    ck_assert_ptr_nonnull(strstr(e.text, "bulkhead reload"));
    authd_read_accounts();
    ck_str(accounts_find(&authd.accounts, STR("bob"))->hash, "edited");
    ck_assert_int_eq(accounts_add(&authd.accounts, &x, &e), 0);
    ck_assert_int_eq(accounts_remove(&authd.accounts, STR("bob"), &e), 0);
}
END_TEST

START_TEST(a_file_that_is_gone_makes_nobody_unknown)
{
    struct account x = {STR("dave"), STR("h"), STR("/m/d"), 2004, 2004, NULL};
    ck_assert_uint_eq(load("version 1\nbob:2002:2002:/m/b:h\n"), 0);
    ck_assert_int_eq(renameat(fd, "accounts", fd, "kept"), 0);
    authd_read_accounts();
    ck_assert_int_eq(kind_of("bob@example.org"), ADDRESS_ACCOUNT);
    ck_assert_int_eq(accounts_add(&authd.accounts, &x, &e), -1);
    ck_assert_int_eq(renameat(fd, "kept", fd, "accounts"), 0);
    authd_read_accounts();
    ck_assert_int_eq(kind_of("bob@example.org"), ADDRESS_ACCOUNT);
    ck_assert_int_eq(accounts_add(&authd.accounts, &x, &e), 0);
}
END_TEST

START_TEST(no_link_is_followed)
{
    ck_assert_int_eq(symlinkat("/etc/passwd", fd, "accounts"), 0);
    ck_assert_int_eq(accounts_load(&authd.accounts, fd, &e), -1);
    ck_assert_int_eq(e.class, ERR_TEMPORARY);
}
END_TEST

START_TEST(failures_are_throttled)
{
    char z[32];
    int n = 0;
    while (throttle_allows(STR("192.0.2.1"), STR("victim")) && n < 1000) {
        throttle_failed(STR("192.0.2.1"), STR("victim"));
        n++;
    }
    ck_assert_int_eq(n, 20);
    ck_assert(throttle_allows(STR("192.0.2.2"), STR("victim")));
    ck_assert(!throttle_allows(STR("192.0.2.1"), STR("other")));
    for (n = 0; throttle_allows(STR("::1"), STR("x")) && n < 1000; n++) {
        snprintf(z, sizeof z, "2001:db8::%d", n);
        throttle_failed(str_z(z), STR("nobody"));
        if (!throttle_allows(STR("2001:db8::ffff"), STR("someone")))
            break;
    }
    ck_assert_int_lt(n, 25); /* the /64 */
    for (n = 0; throttle_allows(STR("198.51.100.1"), STR("Shared")) && n < 1000; n++) {
        snprintf(z, sizeof z, "10.0.0.%d", n);
        throttle_failed(str_z(z), STR("shared"));
    }
    ck_assert_int_eq(n, 30);
    for (n = 0; n < 100000; n++) { /* the table is of fixed size */
        snprintf(z, sizeof z, "10.%d.%d.%d", n >> 16, n >> 8 & 255, n & 255);
        throttle_failed(str_z(z), STR("shared"));
    }
    ck_assert(!throttle_allows(STR("198.51.100.1"), STR("shared")));
}
END_TEST

START_TEST(a_stranger_locks_nobody_out)
{
    char z[32];
    throttle_succeeded(STR("192.0.2.7"), STR("owner"));
    throttle_succeeded(STR("2001:db8:7::1"), STR("Owner"));
    for (int n = 0; n < 200; n++) {
        snprintf(z, sizeof z, "10.1.0.%d", n);
        throttle_failed(str_z(z), STR("owner"));
    }
    ck_assert(!throttle_allows(STR("192.0.2.8"), STR("owner")));
    ck_assert(throttle_allows(STR("192.0.2.7"), STR("owner")));
    ck_assert(throttle_allows(STR("2001:db8:7::2"), STR("owner"))); /* of the same /64 */
    ck_assert(!throttle_allows(STR("2001:db8:8::1"), STR("owner")));
    ck_assert(throttle_allows(STR("192.0.2.7"), STR("other")));
    for (int n = 0; n < 30; n++) /* who guesses there is still counted there */
        throttle_failed(STR("192.0.2.7"), STR("owner"));
    ck_assert(!throttle_allows(STR("192.0.2.7"), STR("owner")));
    for (int n = 0; n < 100000; n++) { /* a table of fixed size: the oldest go */
        snprintf(z, sizeof z, "10.%d.%d.%d", n >> 16, n >> 8 & 255, n & 255);
        throttle_succeeded(str_z(z), STR("many"));
    }
    ck_assert(!throttle_allows(STR("2001:db8:7::2"), STR("owner")));
}
END_TEST

START_TEST(a_failure_is_forgotten_at_its_time)
{
    struct str ip = STR("192.0.2.1"), user = STR("victim");
    while (throttle_allows(ip, user))
        throttle_failed(ip, user);
    later_ms = 5000; /* a second for a slow machine */
    ck_assert(!throttle_allows(ip, user));
    later_ms = 6000;
    ck_assert(throttle_allows(ip, user));
    throttle_failed(ip, user); /* one was forgotten, and no more */
    later_ms = 11000;
    ck_assert(!throttle_allows(ip, user));
}
END_TEST

static void
strangers_fail(const char *user)
{
    char z[32];
    for (int n = 0; n < 200; n++) {
        snprintf(z, sizeof z, "10.1.0.%d", n);
        throttle_failed(str_z(z), str_z(user));
    }
    ck_assert(!throttle_allows(STR("192.0.2.8"), str_z(user)));
}

START_TEST(a_network_is_known_for_its_time)
{
    const int64_t days_ms = 30LL * 86400 * 1000;
    throttle_succeeded(STR("192.0.2.7"), STR("owner"));
    later_ms = days_ms - 10000; /* for a slow machine */
    strangers_fail("owner");
    ck_assert(throttle_allows(STR("192.0.2.7"), STR("owner")));
    later_ms = days_ms;
    strangers_fail("owner");
    ck_assert(!throttle_allows(STR("192.0.2.7"), STR("owner")));
}
END_TEST

START_TEST(a_hash_is_made)
{
    char hash[HASH_MAX], big[PASSWORD_MAX + 1];
    memset(big, 'p', sizeof big);
    ck_assert_int_eq(login_hash(STR("x"), hash, sizeof hash), 0);
    ck_assert(strncmp(hash, "$y$", 3) == 0);
    ck_assert_int_eq(login_hash(str_of(big, PASSWORD_MAX + 1), hash, sizeof hash), -1);
    ck_assert_int_eq(login_hash(str_of("a\0b", 3), hash, sizeof hash), -1);
    ck_assert_int_eq(login_hash(STR("x"), hash, 10), -1);
}
END_TEST

enum { WORKERS_MAX = 8, WAITING_MAX = 512, NETWORK_LOGINS_MAX = 24 };

/* A client with a channel of its own: its other end. */
static int
client(struct client **c_r)
{
    static bool begun;
    int pair[2];
    if (!begun) {
        ck_assert_int_eq(loop_init(&authd.loop, NULL), 0);
        authd.service = (struct service){.loop = &authd.loop, .me = R_AUTHD, .clients_max = 1000};
        snprintf(authd.dummy_hash, sizeof authd.dummy_hash, "none");
        begun = true;
    }
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    *c_r = service_adopt(&authd.service, pair[0], R_IMAPD, NULL);
    ck_assert_ptr_nonnull(*c_r);
    return pair[1];
}

/* From the n-th of so many networks. Its worker is not let through the guard, which nobody has
 * prepared here: that is a no, too. */
static void
login_from(struct client *c, int n)
{
    static int names;
    char remote[40], name[40];
    snprintf(remote, sizeof remote, "10.%d.%d.1", n >> 8, n & 255);
    snprintf(name, sizeof name, "nobody%d", names++);
    login_start(c, str_z(name), STR("wrong"), str_z(remote), -1, -1);
}

/* The class of what it was told; -1: nothing yet. */
static int
told(int answers, const char *text)
{
    struct msg m = {0};
    struct err got = {0};
    if (chan_recv(answers, &m, R_AUTHD, R_IMAPD, 0, &got) != 1)
        return -1;
    ck_assert_int_eq(m.type, M_FAILED);
    int class = (int)msg_get_u32(&m);
    ck_str(msg_get_str(&m), text);
    msg_free(&m);
    return class;
}

static void
reap_all(void)
{
    int status;
    for (pid_t pid; authd.nrunning && (pid = wait(&status)) > 0;)
        login_reap(pid, status);
}

/* So many are tried at once, so many wait, and the next one is told to try again; all that were
 * taken are answered, each once, and then there is room. */
START_TEST(logins_at_their_ceiling)
{
    struct client *first, *last, *beyond;
    int f = client(&first), l = client(&last), b = client(&beyond);
    login_from(first, 0);
    for (int i = 1; i < WORKERS_MAX + WAITING_MAX - 1; i++)
        login_from(NULL, i);
    ck_assert_uint_eq(authd.nrunning, WORKERS_MAX);
    ck_assert_uint_eq(authd.nwaiting, WAITING_MAX - 1);
    login_from(last, 1000);
    ck_assert_uint_eq(authd.nwaiting, WAITING_MAX);
    login_from(beyond, 1001);
    ck_assert_int_eq(told(b, "too many logins at once"), ERR_TEMPORARY);
    ck_assert_uint_eq(authd.nwaiting, WAITING_MAX);
    ck_assert_int_eq(told(f, ""), -1);
    reap_all();
    ck_assert_uint_eq(authd.nrunning + authd.nwaiting, 0);
    ck_assert_int_eq(told(f, "wrong user name or password"), ERR_PERMANENT);
    ck_assert_int_eq(told(l, "wrong user name or password"), ERR_PERMANENT);
    login_from(beyond, 1001);
    reap_all();
    ck_assert_int_eq(told(b, "wrong user name or password"), ERR_PERMANENT);
    ck_assert_int_eq(told(f, ""), -1);
    ck_assert_int_eq(told(l, ""), -1);
}
END_TEST

/* One network's are refused beyond its share; another's are taken. */
START_TEST(with_a_bad_line_nobody_is_told_no)
{
    struct client *c;
    struct msg m = {0};
    int fd_c = client(&c);
    ck_assert_uint_eq(load("version 1\nalice:x:2001:/m/a:h\nbob:2002:2002:/m/b:h\n"), 1);
    for (int i = 0; i < 100; i++) { /* nor locked out */
        login_start(c, STR("alice"), STR("secret"), STR("192.0.2.200"), -1, -1);
        reap_all();
        ck_assert_int_eq(told(fd_c, ACCOUNTS_INCOMPLETE), ERR_TEMPORARY);
    }
    login_start(c, STR("bob"), STR("wrong"), STR("192.0.2.200"), -1, -1);
    reap_all();
    ck_assert_int_eq(told(fd_c, "wrong user name or password"), ERR_PERMANENT);
    /* Who has no account may send as anybody here: that must be known. */
    msg_begin(&m, M_UID_ACCOUNT);
    msg_put_u32(&m, 2001);
    msg_put_str(&m, STR(""));
    serve_message(c, &m);
    ck_assert_int_eq(told(fd_c, ACCOUNTS_INCOMPLETE), ERR_TEMPORARY);
    msg_free(&m);
    load("version 1\n");
}
END_TEST

/* alice and bob share a user ID; carol has her own. */
START_TEST(who_a_user_id_is)
{
    static const struct {
        uint32_t uid;
        struct str sender;
        const char *account;
    } rows[] = {{2001, STR(""), "alice"},
                {2001, STR("alice@example.org"), "alice"},
                {2001, STR("bob+x@example.org"), "bob"},
                {2001, STR("carol@example.org"), "alice"},
                {2001, STR("nobody@example.org"), "alice"},
                {2001, STR("bob@other.example"), "alice"},
                {2003, STR("bob@example.org"), "carol"},
                {2009, STR("bob@example.org"), ""}};
    struct client *c;
    struct msg m = {0};
    struct err why = {0};
    int their_fd = client(&c);
    ck_assert_uint_eq(load("version 1\nalice:2001:2001:/m/a:h\nbob:2001:2001:/m/b:h\n"
                           "carol:2003:2003:/m/c:h\n"),
                      0);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        msg_begin(&m, M_UID_ACCOUNT);
        msg_put_u32(&m, rows[i].uid);
        msg_put_str(&m, rows[i].sender);
        serve_message(c, &m);
        ck_assert_int_eq(chan_answer(their_fd, &m, M_ADDRESS_IS, R_SUBMITD, R_AUTHD, 1000, &why),
                         0);
        ck_assert_uint_eq(msg_get_u32(&m), rows[i].account[0] ? ADDRESS_ACCOUNT : ADDRESS_UNKNOWN);
        ck_str(msg_get_str(&m), rows[i].account);
    }
    msg_free(&m);
    load("version 1\n");
}
END_TEST

START_TEST(logins_of_a_network_at_their_ceiling)
{
    struct client *one, *other;
    int o = client(&one), x = client(&other);
    for (int i = 0; i < NETWORK_LOGINS_MAX; i++)
        login_from(NULL, 7);
    ck_assert_uint_eq(authd.nrunning + authd.nwaiting, NETWORK_LOGINS_MAX);
    login_from(one, 7);
    ck_assert_int_eq(told(o, "too many logins at once"), ERR_TEMPORARY);
    ck_assert_uint_eq(authd.nrunning + authd.nwaiting, NETWORK_LOGINS_MAX);
    login_from(other, 8);
    ck_assert_uint_eq(authd.nrunning + authd.nwaiting, NETWORK_LOGINS_MAX + 1);
    reap_all();
    ck_assert_int_eq(told(x, "wrong user name or password"), ERR_PERMANENT);
    ck_assert_int_eq(told(o, ""), -1);
    ck_assert_uint_eq(authd.nrunning + authd.nwaiting, 0);
}
END_TEST

Suite *suite_authd(void);
Suite *
suite_authd(void)
{
    Suite *s = suite_create("authd");
    TCase *t = tcase_create("authd");
    tcase_set_timeout(t, 300);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, good_lines_serve);
    tcase_add_test(t, an_alias_of_one_account);
    tcase_add_loop_test(t, a_bad_line_makes_nobody_unknown, 0, sizeof bad / sizeof bad[0]);
    tcase_add_test(t, every_prefix_and_every_byte);
    tcase_add_test(t, names_at_their_ceiling);
    tcase_add_test(t, changes_are_kept);
    tcase_add_test(t, an_id_is_not_given_twice);
    tcase_add_test(t, an_edited_file_is_not_written_over);
    tcase_add_test(t, a_file_that_is_gone_makes_nobody_unknown);
    tcase_add_test(t, no_link_is_followed);
    tcase_add_test(t, failures_are_throttled);
    tcase_add_test(t, a_stranger_locks_nobody_out);
    tcase_add_test(t, a_failure_is_forgotten_at_its_time);
    tcase_add_test(t, a_network_is_known_for_its_time);
    tcase_add_test(t, a_hash_is_made);
    tcase_add_test(t, logins_at_their_ceiling);
    tcase_add_test(t, logins_of_a_network_at_their_ceiling);
    tcase_add_test(t, with_a_bad_line_nobody_is_told_no);
    tcase_add_test(t, who_a_user_id_is);
    suite_add_tcase(s, t);
    return s;
}
