/* aliases: whole, cut at each byte, at its ceilings; what is wrong is reported by its line. */
#include "lib/base/buf.h"
#include "lib/mail/aliases.h"
#include "tests/unit/temp.h"
#include "tests/unit/unit.h"
#include <sys/mman.h>

static struct aliases a;
static struct err e;
static size_t reports, first_line;
static char said[128];

static void
report(size_t line, const char *what)
{
    if (reports++ == 0) {
        first_line = line;
        snprintf(said, sizeof said, "%s", what);
    }
}

static int
parse(const char *text)
{
    reports = 0;
    return aliases_parse(&a, str_z(text), STR("example.org"), STR("mx.example.org"), report, &e);
}

static const char whole[] = "# comment\n\nroot: admin, \"ops team\"@x.example\n"
                            "Admin:\n\talice@example.org\n  # not a target\n ,bob\n"
                            "\"quoted name\": x\nsales@second.example: a@b.example, \\sales\n";

START_TEST(names_and_targets)
{
    ck_assert_int_eq(parse("root: admin, Bob@X.example\nADMIN:\n\talice\n  # not a target\n ,bob\n"
                           "sales@second.example: \\sales, \"c,d\"@y.example\n"),
                     0);
    ck_assert_uint_eq(a.bad_lines, 0);
    const struct alias *x = aliases_find(&a, STR("ROOT@example.ORG"));
    ck_assert_ptr_nonnull(x);
    ck_assert_uint_eq(x->ntargets, 2);
    ck_str(x->targets[0], "admin@example.org");
    ck_str(x->targets[1], "Bob@X.example");
    x = aliases_find(&a, STR("admin@example.org"));
    ck_assert_uint_eq(x->ntargets, 2);
    ck_str(x->targets[1], "bob@example.org");
    x = aliases_find(&a, STR("sales@second.example"));
    ck_str(x->targets[0], "sales@example.org");
    ck_str(x->targets[1], "\"c,d\"@y.example");
    ck_assert_ptr_null(aliases_find(&a, STR("sales@example.org")));
    ck_assert_ptr_nonnull(aliases_for(&a, STR("root+tag"), STR("example.org"), '+'));
    ck_assert_ptr_null(aliases_for(&a, STR("+root"), STR("example.org"), '+'));
    ck_assert_ptr_null(aliases_for(&a, STR("root-tag"), STR("example.org"), '+'));
    aliases_free(&a);
    ck_assert_ptr_null(aliases_find(&a, STR("root@example.org")));
}
END_TEST

START_TEST(every_prefix_and_every_byte)
{
    char text[sizeof whole];
    for (size_t n = 0; n < sizeof whole; n++) {
        char *cut = malloc(n + 1);
        memcpy(cut, whole, n);
        ck_assert_int_eq(aliases_parse(&a, str_of(cut, n), STR("example.org"),
                                       STR("mx.example.org"), report, &e),
                         0);
        aliases_free(&a);
        free(cut);
    }
    static const char bytes[] = {'\0', '\n', '"', ':', ',', ' ', '\xff', '\\', '#'};
    for (size_t i = 0; i < sizeof whole - 1; i++)
        for (size_t k = 0; k < sizeof bytes; k++) {
            memcpy(text, whole, sizeof whole);
            text[i] = bytes[k];
            ck_assert_int_eq(aliases_parse(&a, str_of(text, sizeof text - 1), STR("example.org"),
                                           STR("mx.example.org"), report, &e),
                             0);
            aliases_free(&a);
        }
}
END_TEST

static const struct {
    const char *text, *what;
    size_t line;
} bad[] = {
    {"ok: x\nno colon\n", "a line wants", 2},
    {": x\n", "a line wants", 1},
    {"a b: x\n", "malformed", 1},
    {"a:\n", "missing", 1},
    {"a: |/bin/sh\n", "not served", 1},
    {"a: \"|/bin/sh -c x\"\n", "not served", 1},
    {"a: /etc/passwd\n", "not served", 1},
    {"a: :INCLUDE:/etc/list\n", "not served", 1},
    {"a: x y\n", "malformed", 1},
    {"a: <x>\n", "malformed", 1},
    {"a: x\x01y\n", "malformed", 1},
    {"a: ,\n", "missing", 1},
    {"a: \"\", \\\n", "missing", 1},
    {"a: x, y@\n", "malformed", 1},
    {"a: @x.example\n", "malformed", 1},
    {"a: x@@y.example\n", "malformed", 1},
    {"a: x, \"y,z\n", "malformed", 1},
    {"a: x@y..example\n", "malformed", 1},
    {"a: x\nA: y\n", "defined before", 2},
};

START_TEST(a_bad_line_is_reported)
{
    ck_assert_int_eq(parse(bad[_i].text), 0);
    /* Either no name came of it, or a name that is broken. */
    const struct alias *x = aliases_find(&a, STR("a@example.org"));
    ck_assert_uint_eq(a.bad_lines, !(x && x->broken));
    ck_assert(!x || !x->broken || x->ntargets == 0);
    ck_assert_uint_eq(first_line, bad[_i].line);
    ck_assert_msg(strstr(said, bad[_i].what), "%s", said);
    aliases_free(&a);
}
END_TEST

static size_t first_line;

static void
note_first(size_t line, const char *what)
{
    (void)what;
    first_line = first_line ? first_line : line;
}

/* Found by fuzzing: it was reported as of line 0. */
START_TEST(a_text_that_begins_with_a_continuation)
{
    struct aliases x = {0};
    ck_assert_int_eq(aliases_parse(&x, STR("\n  b@c\nroot: a\n"), STR("d"), STR("mx.example.org"),
                                   note_first, NULL),
                     0);
    ck_assert_uint_eq(first_line, 2);
    ck_assert_uint_eq(x.n, 1);
    aliases_free(&x);
}
END_TEST

START_TEST(long_names_and_targets)
{
    char text[800];
    for (int n = 60; n < 70; n++) { /* RFC 5321 4.5.3.1.1 */
        snprintf(text, sizeof text, "a: %0*d\n", n, 1);
        ck_assert_int_eq(parse(text), 0);
        ck_assert_uint_eq(a.bad_lines, 0);
        ck_assert(aliases_find(&a, STR("a@example.org"))->broken == (n > 64));
        aliases_free(&a);
    }
    for (int n = 306; n < 312; n++) { /* with "@example.org": 320 is the most */
        snprintf(text, sizeof text, "%0*d: a\n", n, 1);
        ck_assert_int_eq(parse(text), 0);
        ck_assert_uint_eq(a.bad_lines, n > 308);
        ck_assert_uint_eq(a.n, n <= 308);
        aliases_free(&a);
    }
}
END_TEST

START_TEST(targets_at_their_ceiling)
{
    struct buf b = buf_new(1 << 16);
    for (int over = 0; over < 2; over++) {
        buf_reset(&b);
        buf_addz(&b, "all: t0");
        for (int i = 1; i < ALIASES_TARGETS_MAX + over; i++)
            buf_addf(&b, ",t%d", i);
        ck_assert_int_eq(parse(buf_z(&b)), 0);
        ck_assert_uint_eq(a.bad_lines, 0);
        const struct alias *x = aliases_find(&a, STR("all@example.org"));
        ck_assert(x && x->broken == over && x->ntargets == (over ? 0 : ALIASES_TARGETS_MAX));
        aliases_free(&a);
    }
    buf_free(&b);
}
END_TEST

START_TEST(names_at_their_ceiling)
{
    struct buf b = buf_new(8 << 20);
    for (int i = 0; i <= ALIASES_MAX; i++)
        buf_addf(&b, "n%d: x\n", i);
    ck_assert_int_eq(
        aliases_parse(&a, buf_str(&b), STR("example.org"), STR("mx.example.org"), report, &e), 0);
    ck_assert_uint_eq(a.n, ALIASES_MAX);
    ck_assert_uint_eq(a.bad_lines, 1);
    aliases_free(&a);
    buf_free(&b);
}
END_TEST

START_TEST(a_long_entry)
{
    struct buf b = buf_new(2 << 20);
    buf_addz(&b, "a: x\nb: y\n");
    while (b.n < (1 << 20) + 5000)
        buf_addz(&b, "  ,aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n");
    buf_addz(&b, "c: z\n");
    ck_assert_int_eq(
        aliases_parse(&a, buf_str(&b), STR("example.org"), STR("mx.example.org"), report, &e), 0);
    ck_assert_uint_ge(a.bad_lines, 1);
    ck_assert_ptr_nonnull(aliases_find(&a, STR("a@example.org")));
    ck_assert_ptr_nonnull(aliases_find(&a, STR("c@example.org")));
    aliases_free(&a);
    buf_free(&b);
}
END_TEST

START_TEST(the_text_has_a_ceiling)
{
    for (int over = 0; over < 2; over++) {
        int fd = memfd_create("aliases", MFD_CLOEXEC);
        ck_assert_int_eq(ftruncate(fd, ALIASES_TEXT_MAX + over), 0);
        ck_assert_int_eq(pwrite(fd, "a: b\n#", 6, 0), 6);
        ck_assert_int_eq(pwrite(fd, "\n", 1, ALIASES_TEXT_MAX - 1), 1);
        int ok = aliases_read(&a, fd, STR("example.org"), STR("mx.example.org"), report, &e);
        ck_assert_int_eq(ok, over ? -1 : 0);
        if (over)
            ck_assert_int_eq(e.class, ERR_LIMIT);
        else
            ck_assert_ptr_nonnull(aliases_find(&a, STR("a@example.org")));
        aliases_free(&a);
        close(fd);
    }
}
END_TEST

START_TEST(a_missing_file_is_an_empty_table)
{
    int fd = open("/dev/null", O_RDONLY);
    ck_assert_int_eq(aliases_read(&a, fd, STR("example.org"), STR("mx.example.org"), report, &e),
                     0);
    ck_assert_uint_eq(a.n + a.bad_lines, 0);
    aliases_free(&a);
    ck_assert_int_eq(aliases_read(&a, -1, STR("example.org"), STR("mx.example.org"), report, &e),
                     -1);
}
END_TEST

Suite *suite_aliases(void);
Suite *
suite_aliases(void)
{
    Suite *s = suite_create("aliases");
    TCase *t = tcase_create("aliases");
    tcase_set_timeout(t, 300);
    tcase_add_test(t, names_and_targets);
    tcase_add_test(t, every_prefix_and_every_byte);
    tcase_add_test(t, a_text_that_begins_with_a_continuation);
    tcase_add_loop_test(t, a_bad_line_is_reported, 0, sizeof bad / sizeof bad[0]);
    tcase_add_test(t, long_names_and_targets);
    tcase_add_test(t, targets_at_their_ceiling);
    tcase_add_test(t, names_at_their_ceiling);
    tcase_add_test(t, a_long_entry);
    tcase_add_test(t, the_text_has_a_ceiling);
    tcase_add_test(t, a_missing_file_is_an_empty_table);
    suite_add_tcase(s, t);
    return s;
}
