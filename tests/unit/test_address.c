/* Addresses: what is one, its normal form, the ceilings (catalogue H1, H2, C1, C13, D1, G15). */
#include "lib/mail/address.h"
#include "tests/unit/unit.h"
#include <stdlib.h>

START_TEST(good_ones_and_their_normal_form)
{
    static const char *const pairs[][2] = {
        {"a@b", "a@b"},
        {"Joe.Doe@Example.ORG", "Joe.Doe@example.org"},
        {"\"joe.doe\"@example.org", "joe.doe@example.org"},
        {"\"j\\oe\"@example.org", "joe@example.org"},
        {"\"joe doe\"@example.org", "\"joe doe\"@example.org"},
        {"\"a\\\"b\"@x.y", "\"a\\\"b\"@x.y"},
        {"\"a\\\\b\"@x.y", "\"a\\\\b\"@x.y"},
        {"\"a.\"@x.y", "\"a.\"@x.y"},
        {"!#$%&'*+-/=?^_`{|}~@x.y", "!#$%&'*+-/=?^_`{|}~@x.y"},
        {"a@[192.0.2.1]", "a@[192.0.2.1]"},
        {"a@[IPv6:2001:DB8::1]", "a@[ipv6:2001:db8::1]"},
        {"a@x-1.y2.3com", "a@x-1.y2.3com"},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        struct address a, again;
        struct err e = {0};
        ck_assert_msg(address_parse(str_z(pairs[i][0]), &a, &e) == 0, "%s: %s", pairs[i][0],
                      e.text);
        ck_str(address_str(&a), pairs[i][1]);
        ck_assert_str_eq(a.text, pairs[i][1]);
        ck_assert_int_eq(address_parse(address_str(&a), &again, &e), 0);
        ck_assert(str_eq(address_str(&a), address_str(&again)));
    }
}
END_TEST

START_TEST(bad_ones)
{
    static const char *const bad[] = {
        "",
        "@",
        ".",
        "!",
        "a",
        "a@",
        "@b",
        "a@@b",
        "a@b@c",
        ".a@b",
        "a.@b",
        "a..b@d",
        ".!@x.",
        "a!b!c",
        "a b@c",
        "a@b c",
        "a@-b",
        "a@b-",
        "a@b..c",
        "a@.b",
        "a@b.",
        "a@b_c",
        "a@[",
        "a@[]",
        "a@[1.2.3]",
        "a@[1.2.3.4",
        "a@[1.2.3.4]x",
        "a@[256.1.1.1]",
        "a@[IPv6:1.2.3.4]",
        "a@[IPv6:zz]",
        "a@[tag:x]",
        "\"a@b",
        "\"a\"b@c",
        "a\"b\"@c",
        "\"\"@d",
        "\"a\\\"@d",
        "\"\x01\"@d",
        "\"a\rb\"@d",
        "\"a\nb\"@d",
        "a\x7f@d",
        "\xc3\xbc@d",
        "a@\xc3\xbc.d",
        "@ours:user@other",
        "@a,@b:c@d",
        ";sleep 9;",
        "$(id)",
        "`id`@",
        "a@b>",
        "<a@b>",
        "a@b,c@d",
        "(x)a@b",
        "a@b(x)",
        "a@ b",
        " a@b",
        "a@b ",
        "<><><>",
        "((((",
        "a:b@c",
        "a;b@c",
        "a\\b@c",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct address a;
        ck_assert_msg(address_parse(str_z(bad[i]), &a, NULL) < 0, "%s", bad[i]);
    }
    struct address a;
    ck_assert_int_lt(address_parse(str_of("a\0b@c", 5), &a, NULL), 0);
    ck_assert_int_lt(address_parse(str_of("a@b\0c", 5), &a, NULL), 0);
    ck_assert_int_lt(address_parse(str_of("\"a\0\"@c", 6), &a, NULL), 0);
}
END_TEST

START_TEST(the_grammar_accepts_shell_text_but_changes_nothing)
{
    struct address a;
    char value[ADDRESS_LOCAL_MAX];
    ck_assert_int_eq(address_parse(STR("\"a$(touch${IFS}/tmp/p)\"@d"), &a, NULL), 0);
    ck_str(address_local_value(&a, value), "a$(touch${IFS}/tmp/p)");
    ck_assert_int_eq(address_parse(STR("\"() { :;}; x\"@d"), &a, NULL), 0);
    ck_str(address_str(&a), "\"() { :;}; x\"@d");
}
END_TEST

START_TEST(routes_are_seen)
{
    static const char *const routed[] = {"user%other@ours", "\"user@other\"@ours",
                                         "other!user@ours", "a/b@ours", "a|b@ours"};
    struct address a;
    for (size_t i = 0; i < sizeof routed / sizeof routed[0]; i++) {
        ck_assert_int_eq(address_parse(str_z(routed[i]), &a, NULL), 0);
        ck_assert_msg(address_is_routed(&a), "%s", routed[i]);
    }
    ck_assert_int_eq(address_parse(STR("user+tag@ours"), &a, NULL), 0);
    ck_assert(!address_is_routed(&a));
}
END_TEST

/* n times c, then behind. */
static struct str
filled(char *room, size_t n, char c, const char *behind)
{
    memset(room, c, n);
    memcpy(room + n, behind, strlen(behind) + 1);
    return str_of(room, n + strlen(behind));
}

START_TEST(ceilings_at_the_limit_and_one_above)
{
    char room[20000];
    struct address a;
    struct err e;
    ck_assert_int_eq(address_parse(filled(room, 64, 'a', "@d"), &a, &e), 0);
    ck_assert_int_eq(address_parse(filled(room, 65, 'a', "@d"), &a, &e), -1);
    ck_assert_int_eq(e.class, ERR_LIMIT);
    /* 254 in all: local part 10, and labels of 60. */
    filled(room, 10, 'a', "@");
    for (size_t i = 11; i < 254; i++)
        room[i] = i % 61 == 10 && i < 253 ? '.' : 'x';
    room[11] = 'x';
    ck_assert_int_eq(address_parse(str_of(room, 254), &a, &e), 0);
    ck_assert_uint_eq(a.n, 254);
    room[254] = 'y';
    ck_assert_int_eq(address_parse(str_of(room, 255), &a, &e), -1);
    ck_assert_int_eq(e.class, ERR_LIMIT);
    /* Labels. */
    memcpy(room, "a@", 2);
    filled(room + 2, 63, 'b', ".c");
    ck_assert_int_eq(address_parse(str_of(room, 67), &a, &e), 0);
    filled(room + 2, 64, 'b', ".c");
    ck_assert_int_eq(address_parse(str_of(room, 68), &a, &e), -1);
    /* Catalogue C13, C1. */
    memcpy(room, "u+", 2);
    filled(room + 2, 10000, 'a', "@d");
    ck_assert_int_eq(address_parse(str_z(room), &a, &e), -1);
    ck_assert_int_eq(address_parse(filled(room, 10000, '(', ""), &a, &e), -1);
    ck_assert_int_eq(address_parse(filled(room, 10000, '"', ""), &a, &e), -1);
    ck_assert_int_eq(address_parse(filled(room, 10000, '\\', ""), &a, &e), -1);
    /* A quoted string that is within the limit only without its quotes. */
    filled(room + 1, 64, 'q', "\"@d");
    room[0] = '"';
    ck_assert_int_eq(address_parse(str_z(room), &a, &e), -1);
}
END_TEST

START_TEST(every_prefix_is_refused_or_an_address)
{
    static const char *const whole[] = {"\"a\\\"b c\"@x.example", "a.b+c@[IPv6:2001:db8::1]",
                                        "joe@mail.example.org"};
    for (size_t i = 0; i < sizeof whole / sizeof whole[0]; i++)
        for (size_t n = 0; n < strlen(whole[i]); n++) {
            /* A copy of exactly this size, for the sanitizers. */
            char *copy = malloc(n ? n : 1);
            struct address a;
            memcpy(copy, whole[i], n);
            if (address_parse(str_of(copy, n), &a, NULL) == 0)
                ck_assert_int_eq(a.text[a.local_n], '@');
            free(copy);
        }
}
END_TEST

START_TEST(made_from_its_parts)
{
    struct address a;
    ck_assert_int_eq(address_make(STR("joe doe"), STR("D.example"), &a, NULL), 0);
    ck_str(address_str(&a), "\"joe doe\"@d.example");
    ck_str(address_domain(&a), "d.example");
    ck_assert_int_eq(address_make(STR("a\"b"), STR("d"), &a, NULL), 0);
    ck_str(address_str(&a), "\"a\\\"b\"@d");
    ck_assert_int_lt(address_make(STR(""), STR("d"), &a, NULL), 0);
    ck_assert_int_lt(address_make(STR("a\n"), STR("d"), &a, NULL), 0);
    ck_assert_int_lt(address_make(STR("a"), STR("d e"), &a, NULL), 0);
    char room[65];
    memset(room, '"', sizeof room); /* each needs a backslash */
    ck_assert_int_lt(address_make(str_of(room, 60), STR("d"), &a, NULL), 0);
}
END_TEST

START_TEST(subaddresses)
{
    struct str user, detail;
    address_split(STR("joe+a+b"), STR("+"), &user, &detail);
    ck_str(user, "joe");
    ck_str(detail, "a+b");
    address_split(STR("+joe"), STR("+"), &user, &detail);
    ck_str(user, "+joe");
    ck_str(detail, "");
    address_split(STR("joe+"), STR("+"), &user, &detail);
    ck_str(user, "joe");
    ck_str(detail, "");
    address_split(STR("joe+x"), STR(""), &user, &detail);
    ck_str(user, "joe+x");
    address_split(STR(""), STR("+"), &user, &detail);
    ck_str(user, "");
}
END_TEST

Suite *suite_address(void);
Suite *
suite_address(void)
{
    Suite *s = suite_create("address");
    TCase *t = tcase_create("address");
    tcase_add_test(t, good_ones_and_their_normal_form);
    tcase_add_test(t, bad_ones);
    tcase_add_test(t, the_grammar_accepts_shell_text_but_changes_nothing);
    tcase_add_test(t, routes_are_seen);
    tcase_add_test(t, ceilings_at_the_limit_and_one_above);
    tcase_add_test(t, every_prefix_is_refused_or_an_address);
    tcase_add_test(t, made_from_its_parts);
    tcase_add_test(t, subaddresses);
    suite_add_tcase(s, t);
    return s;
}
