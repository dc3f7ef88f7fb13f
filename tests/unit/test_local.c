/* local: where aliases lead. */
#include "local/local.h"
#include "tests/unit/temp.h"
#include "tests/unit/unit.h"

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
    ck_assert_int_eq(aliases_parse(&local.aliases, str_z(aliases), STR("example.org"), report, &e),
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

Suite *suite_local(void);
Suite *
suite_local(void)
{
    Suite *s = suite_create("local");
    TCase *t = tcase_create("local");
    tcase_add_test(t, chains_and_ends);
    tcase_add_test(t, the_postmaster_is_somebody);
    tcase_add_test(t, circles_end);
    tcase_add_test(t, expansion_at_its_ceiling);
    tcase_add_test(t, a_deep_chain);
    suite_add_tcase(s, t);
    return s;
}
