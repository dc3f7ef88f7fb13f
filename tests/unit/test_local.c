/* local: where aliases lead, and whose answer a cell's is. */
#include "lib/ipc/channel.h"
#include "local/local.h"
#include "tests/unit/temp.h"
#include "tests/unit/unit.h"
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static struct conf conf;
static struct local local;
static struct arena arena;
static struct str *to;
static size_t n;
static struct err e;

static void
report(size_t line, const char *what)
{
    (void)line;
    (void)what;
}

static void
with(const char *aliases)
{
    static struct conf_errors errors;
    temp_quiet();
    arena_free(&arena);
    conf_free(&conf);
    arena = arena_new(8 << 20);
    ck_assert_int_eq(conf_parse(&conf, STR("c"),
                                STR("version 1\nhostname mx.example.org\n"
                                    "domain example.org second.example\npostmaster root\n"),
                                &errors),
                     0);
    local.conf = &conf;
    aliases_free(&local.aliases);
    ck_assert_int_eq(aliases_parse(&local.aliases, str_z(aliases), STR("example.org"),
                                   STR("mx.example.org"), report, &e),
                     0);
}

static int
expand(const char *address)
{
    arena_reset(&arena);
    return expand_address(&local, &arena, str_z(address), &to, &n, &e);
}

static bool
leads_to(const char *address)
{
    for (size_t i = 0; i < n; i++)
        if (str_eq(to[i], str_z(address)))
            return true;
    return false;
}

START_TEST(chains_and_ends)
{
    with("root: admin, far@other.example\nadmin: alice, bob\nbob: bob, bob+copy\n"
         "x@second.example: root\n");
    ck_assert_int_eq(expand("x@second.example"), 0);
    ck_assert_uint_eq(n, 3);
    ck_assert(leads_to("\\alice@example.org") && leads_to("\\bob@example.org") &&
              leads_to("far@other.example"));
    ck_assert_int_eq(expand("ROOT+tag@mx.example.org"), 0);
    ck_assert_uint_eq(n, 3);
    ck_assert_int_eq(expand("alice@example.org"), 0);
    ck_assert_uint_eq(n, 0);
    ck_assert_int_eq(expand("root@second.example"), 0);
    ck_assert_uint_eq(n, 0);
    ck_assert_int_eq(expand("alice"), 0);
    ck_assert_int_eq(expand(""), 0);
    ck_assert_int_eq(expand("@"), 0);
}
END_TEST

START_TEST(the_postmaster_is_somebody)
{
    with("root: alice\n");
    ck_assert_int_eq(expand("PostMaster@second.example"), 0);
    ck_assert_uint_eq(n, 1);
    ck_str(to[0], "\\alice@example.org");
    ck_assert_int_eq(expand("postmaster@other.example"), 0);
    ck_assert_uint_eq(n, 0);
}
END_TEST

START_TEST(circles_end)
{
    with("a: b\nb: a\nself: self\nc: d, alice\nd: c\n");
    ck_assert_int_eq(expand("a@example.org"), -1);
    ck_assert_int_eq(e.class, ERR_PERMANENT);
    ck_assert_int_eq(expand("self@example.org"), 0);
    ck_assert_uint_eq(n, 1);
    ck_str(to[0], "\\self@example.org");
    ck_assert_int_eq(expand("c@example.org"), 0);
    ck_assert_uint_eq(n, 1);
    ck_str(to[0], "\\alice@example.org");
}
END_TEST

/* A copy to himself, who is called by the host's own name, and once. */
START_TEST(a_name_that_leads_to_itself)
{
    static const char *const lines[] = {"bob: Bob@mx.example.org, far@other.example\n",
                                        "bob: Bob@mx.example.org, far@other.example, bob\n"};
    for (size_t i = 0; i < 2; i++) {
        with(lines[i]);
        ck_assert_int_eq(expand("bob@example.org"), 0);
        ck_assert_uint_eq(n, 2);
        ck_assert(leads_to("\\bob@example.org") && leads_to("far@other.example"));
        ck_assert_int_eq(expand("bob+x@mx.example.org"), 0);
        ck_assert_uint_eq(n, 2);
    }
}
END_TEST

/* The host's own name is the primary domain, on both sides; a quoted '@' is none. */
START_TEST(the_hosts_own_name)
{
    with("sales@MX.example.org: bob, bob@mx.example.org, \"a@b\"@mx.example.org\n");
    ck_assert_int_eq(expand("sales@example.org"), 0);
    ck_assert_uint_eq(n, 2);
    ck_assert(leads_to("\\bob@example.org") && leads_to("\\\"a@b\"@example.org"));
    ck_assert_int_eq(expand("sales@mx.example.org"), 0);
    ck_assert_uint_eq(n, 2);
}
END_TEST

/* Five lists of a thousand are the most; one more address is too many. */
START_TEST(expansion_at_its_ceiling)
{
    for (int over = 0; over < 2; over++) {
        struct buf b = buf_new(1 << 20);
        buf_addz(&b, "all: l0,l1,l2,l3,l4");
        for (int i = 0; i < 5; i++) {
            buf_addf(&b, "\nl%d: x", i);
            for (int k = 0; k < 999; k++)
                buf_addf(&b, "%cu%d@other.example", k ? ',' : ',', i * 999 + k);
        }
        if (over)
            buf_addz(&b, "\nmore: all,y1,y2,y3,y4,y5");
        buf_addc(&b, '\n');
        with(buf_z(&b));
        ck_assert_int_eq(expand("all@example.org"), 0);
        ck_assert_uint_eq(n, 5 * 999 + 1);
        if (over) {
            ck_assert_int_eq(expand("more@example.org"), -1);
            ck_assert_int_eq(e.class, ERR_PERMANENT);
        }
        buf_free(&b);
    }
}
END_TEST

START_TEST(a_deep_chain)
{
    struct buf b = buf_new(1 << 20);
    for (int i = 0; i < EXPAND_MAX; i++)
        buf_addf(&b, "a%d: a%d\n", i, i + 1);
    with(buf_z(&b));
    ck_assert_int_eq(expand("a0@example.org"), 0);
    ck_assert_uint_eq(n, 1);
    ck_str(to[0], "\\a5000@example.org");
    buf_addf(&b, "a%d: end\n", EXPAND_MAX);
    with(buf_z(&b));
    ck_assert_int_eq(expand("a0@example.org"), -1);
    buf_free(&b);
}
END_TEST

/* authd and the cells it starts, of an account that has room for "second" only. */
static void
answer_as_authd(int authd)
{
    struct msg m = {0};
    struct err why;
    while (chan_recv(authd, &m, R_LOCAL, R_AUTHD, 1000, &why) == 1) {
        int cell = msg_take_fd(&m, 0);
        struct str account = msg_get_str(&m);
        struct msg granted = {0};
        msg_begin(&granted, M_GRANTED);
        msg_put_str(&granted, account);
        ck_assert_int_eq(msg_send(authd, &granted), 0);
        msg_free(&granted);
        while (chan_recv(cell, &m, R_LOCAL, R_CELL, 1000, &why) == 1) {
            char id[20] = {0};
            struct str s = msg_get_str(&m);
            memcpy(id, s.p, s.n);
            if (strcmp(id, "second") == 0) {
                msg_begin(&m, M_CELL_DELIVERED);
                msg_put_str(&m, str_z(id));
                ck_assert_int_eq(msg_send(cell, &m), 0);
            } else {
                err_set(&why, ERR_LIMIT, "no room for %s", id);
                ck_assert_int_eq(chan_fail(cell, &why), 0);
            }
        }
        close(cell);
    }
    msg_free(&m);
    _exit(0);
}

/* A cell that was kept goes when it has been asked for the first of three: each has its own answer,
 * of the next cell. */
START_TEST(a_cell_that_goes_between_questions)
{
    static const char *const ids[] = {"first", "second", "third"};
    static struct local_session s;
    static struct delivery d[3];
    int kept[2], authd[2], status;
    with("");
    s.local = &local;
    for (size_t i = 0; i < CELLS_KEPT; i++)
        s.cells[i].fd = -1;
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, authd), 0);
    pid_t pid = fork();
    if (pid == 0) {
        close(authd[0]);
        answer_as_authd(authd[1]);
    }
    close(authd[1]);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, kept), 0);
    remote_init(&s.authd, NULL, R_LOCAL, R_AUTHD);
    s.authd.fd = authd[0];
    s.cells[0] = (struct cell){.fd = kept[0], .account = "bob", .used = 1, .started = 1};
    s.clock = 1;
    for (int i = 0; i < 3; i++) {
        d[i] = (struct delivery){.id = str_z(ids[i]),
                                 .sender = STR("s@example.com"),
                                 .address = STR("bob@example.org"),
                                 .account = "bob",
                                 .fd = open("/dev/null", O_RDONLY | O_CLOEXEC)};
        ck_assert_int_eq(deliver_begin(&s, &d[i]), 0);
        if (i == _i)
            close(kept[1]);
    }
    for (int i = 0; i < 3; i++) {
        deliver_end(&s, &d[i]);
        ck_assert_int_eq(d[i].result.outcome, i == 1 ? OUTCOME_DONE : OUTCOME_LATER);
        ck_assert_msg(strstr(d[i].result.text, ids[i]), "%s", d[i].result.text);
        close(d[i].fd);
    }
    deliver_close_cells(&s);
    remote_close(&s.authd);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
}
END_TEST

Suite *suite_local(void);
Suite *
suite_local(void)
{
    Suite *s = suite_create("local");
    TCase *t = tcase_create("local");
    tcase_add_test(t, chains_and_ends);
    tcase_add_test(t, the_postmaster_is_somebody);
    tcase_add_test(t, circles_end);
    tcase_add_test(t, a_name_that_leads_to_itself);
    tcase_add_test(t, the_hosts_own_name);
    tcase_add_test(t, expansion_at_its_ceiling);
    tcase_add_test(t, a_deep_chain);
    tcase_add_loop_test(t, a_cell_that_goes_between_questions, 0, 3);
    suite_add_tcase(s, t);
    return s;
}
