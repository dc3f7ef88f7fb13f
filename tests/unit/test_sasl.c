/* SASL PLAIN (catalogue F1, F8, C4). */
#include "lib/base/encode.h"
#include "lib/sasl/plain.h"
#include "tests/unit/unit.h"
#include <stdlib.h>

static int
decode(const char *raw, size_t n, struct sasl_plain *r, struct err *e)
{
    struct buf b = buf_new(65536);
    base64_encode(&b, str_of(raw, n));
    int got = sasl_plain_decode(buf_str(&b), r, e);
    buf_free(&b);
    return got;
}
#define DECODE(lit) decode(lit, sizeof(lit) - 1, &r, &e)

START_TEST(user_and_password)
{
    struct sasl_plain r;
    struct err e = {0};
    ck_assert_int_eq(DECODE("\0bob\0secret"), 0);
    ck_str(r.user, "bob");
    ck_str(r.password, "secret");
    sasl_plain_wipe(&r);
    ck_assert_int_eq(DECODE("bob\0bob\0secret"), 0);
    sasl_plain_wipe(&r);
    ck_assert_int_eq(DECODE("\0gr\xc3\xbcn\0p\xc3\xa4ss"), 0);
    sasl_plain_wipe(&r);
}
END_TEST

START_TEST(another_identity_is_refused)
{
    struct sasl_plain r;
    struct err e = {0};
    ck_assert_int_eq(DECODE("admin\0bob\0right"), -1);
    ck_assert_int_eq(e.class, ERR_PERMANENT);
    ck_assert_int_eq(DECODE("Bob\0bob\0right"), -1);
    ck_assert_int_eq(e.class, ERR_PERMANENT);
}
END_TEST

START_TEST(malformed)
{
    struct sasl_plain r;
    struct err e = {0};
    ck_assert_int_eq(DECODE(""), -1);
    ck_assert_int_eq(DECODE("\0"), -1);
    ck_assert_int_eq(DECODE("\0\0"), -1);
    ck_assert_int_eq(DECODE("\0bob\0"), -1);
    ck_assert_int_eq(DECODE("\0\0secret"), -1);
    ck_assert_int_eq(DECODE("bob\0secret"), -1);
    ck_assert_int_eq(DECODE("\0bob\0sec\0ret"), -1);
    ck_assert_int_eq(DECODE("\0bob\0secret\0"), -1);
    ck_assert_int_eq(DECODE("\0\xff\xfe\0secret"), -1);
    ck_assert_int_eq(DECODE("\0\xc0\xaf\0secret"), -1);
    ck_assert_int_eq(DECODE("\0\xed\xa0\x80\0secret"), -1);
    ck_assert_int_eq(e.class, ERR_PROTOCOL);
    static const char *const bad[] = {"=",
                                      "====",
                                      "AGJvYgBzZWNyZXQ",
                                      "AGJvYgBzZWNyZXQ=x",
                                      " AGJvYgBzZWNyZXQ=",
                                      "AGJv\r\nYgBzZWNyZXQ=",
                                      "A",
                                      "AA",
                                      "AAA",
                                      "*"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        ck_assert_msg(sasl_plain_decode(str_z(bad[i]), &r, &e) < 0, "%s", bad[i]);
}
END_TEST

START_TEST(ceilings)
{
    static char raw[13000];
    struct sasl_plain r;
    struct err e = {0};
    memset(raw, 'u', sizeof raw);
    raw[0] = raw[1 + SASL_USER_MAX] = '\0';
    size_t n = 2 + SASL_USER_MAX + SASL_PASSWORD_MAX;
    ck_assert_int_eq(decode(raw, n, &r, &e), 0);
    sasl_plain_wipe(&r);
    ck_assert_int_eq(decode(raw, n + 1, &r, &e), -1);
    ck_assert_int_eq(e.class, ERR_LIMIT);
    ck_assert_int_eq(decode(raw, 12288, &r, &e), -1);
    raw[1 + SASL_USER_MAX] = 'u';
    raw[2 + SASL_USER_MAX] = '\0';
    ck_assert_int_eq(decode(raw, 400, &r, &e), -1);
    ck_assert_int_eq(e.class, ERR_LIMIT);
}
END_TEST

START_TEST(every_prefix)
{
    static const char whole[] = "AGJvYgBzZWNyZXQ=";
    for (size_t n = 0; n < sizeof whole - 1; n++) {
        struct sasl_plain r;
        char *copy = malloc(n ? n : 1);
        memcpy(copy, whole, n);
        if (sasl_plain_decode(str_of(copy, n), &r, NULL) == 0)
            sasl_plain_wipe(&r);
        free(copy);
    }
}
END_TEST

Suite *suite_sasl(void);
Suite *
suite_sasl(void)
{
    Suite *s = suite_create("sasl");
    TCase *t = tcase_create("sasl");
    tcase_add_test(t, user_and_password);
    tcase_add_test(t, another_identity_is_refused);
    tcase_add_test(t, malformed);
    tcase_add_test(t, ceilings);
    tcase_add_test(t, every_prefix);
    suite_add_tcase(s, t);
    return s;
}
