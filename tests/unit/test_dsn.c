/* dsn: what a sender may ask for in the envelope (RFC 3461 4), byte by byte. */
#include "lib/mail/dsn.h"
#include "lib/base/encode.h"
#include "tests/unit/unit.h"
#include <stdio.h>

static int
notify_of(const char *text)
{
    uint8_t set = 0xee;
    return dsn_notify_parse(str_z(text), &set) < 0 ? -1 : set;
}

START_TEST(notify_in_every_combination)
{
    static const char *const words[] = {"NEVER", "SUCCESS", "FAILURE", "DELAY"};
    char text[100];
    for (int a = 0; a < 4; a++) {
        ck_assert_int_eq(notify_of(words[a]), 1 << a);
        for (int b = 0; b < 4; b++)
            for (int c = 0; c < 5; c++) {
                int set = 1 << a | 1 << b | (c < 4 ? 1 << c : 0);
                snprintf(text, sizeof text, "%s,%s%s%s", words[a], words[b], c < 4 ? "," : "",
                         c < 4 ? words[c] : "");
                bool fine = (!(set & DSN_NEVER) || set == DSN_NEVER) && strlen(text) <= 28;
                ck_assert_msg(notify_of(text) == (fine ? set : -1), "%s", text);
            }
    }
    /* No list has 28 bytes: the next shorter, and the next longer one. */
    ck_assert_int_eq(notify_of("SUCCESS,DELAY,SUCCESS,DELAY"), DSN_SUCCESS | DSN_DELAY);
    ck_assert_int_eq(notify_of("SUCCESS,DELAY,SUCCESS,SUCCESS"), -1);
    ck_assert_int_eq(notify_of("success,Failure,dELAY"), DSN_SUCCESS | DSN_FAILURE | DSN_DELAY);
}
END_TEST

START_TEST(notify_that_is_none)
{
    static const char *const bad[] = {"",
                                      ",",
                                      "SUCCESS,",
                                      ",SUCCESS",
                                      "SUCCES",
                                      "SUCCESSS",
                                      "SUCCESS,,DELAY",
                                      "NEVER,NEVERR",
                                      "SUCCESS ",
                                      "SUCCESS;DELAY",
                                      "ALWAYS",
                                      "0"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        ck_assert_msg(notify_of(bad[i]) == -1, "%s", bad[i]);
    uint8_t set;
    for (int c = 0; c < 256; c++) { /* a wrong byte at each place of a right one */
        char text[] = "SUCCESS,DELAY";
        for (size_t i = 0; i < sizeof text - 1; i++) {
            char old = text[i];
            text[i] = (char)c;
            bool same = ch_lower((char)c) == ch_lower(old);
            ck_assert((dsn_notify_parse(str_of(text, sizeof text - 1), &set) == 0) == same);
            text[i] = old;
        }
    }
    ck_assert(dsn_notify_ok(0) && dsn_notify_ok(14) && dsn_notify_ok(1));
    ck_assert(!dsn_notify_ok(3) && !dsn_notify_ok(16) && !dsn_notify_ok(0xffffffffu));
}
END_TEST

START_TEST(notify_written_is_read)
{
    for (unsigned set = 1; set < DSN_NOTIFY_END; set++) {
        struct buf b = buf_new(DSN_NOTIFY_MAX);
        dsn_notify_put(&b, set);
        if (dsn_notify_ok(set))
            ck_assert(buf_ok(&b) && notify_of(buf_z(&b)) == (int)set);
        buf_free(&b);
        ck_assert(dsn_notify_ok(dsn_notify_expanded(set)) || !dsn_notify_ok(set));
        ck_assert(!(dsn_notify_expanded(set) & DSN_SUCCESS));
        ck_assert_int_eq(dsn_wants_failure(set), (set & DSN_FAILURE) != 0);
        ck_assert_int_eq(dsn_wants_delay(set), (set & DSN_DELAY) != 0);
    }
    ck_assert(dsn_wants_failure(0) && dsn_wants_delay(0));
    ck_assert_uint_eq(dsn_notify_expanded(DSN_SUCCESS), DSN_NEVER);
    ck_assert_uint_eq(dsn_notify_expanded(0), 0);
}
END_TEST

START_TEST(ret_is_one_of_two)
{
    uint8_t ret = 0;
    ck_assert(dsn_ret_parse(STR("full"), &ret) == 0 && ret == DSN_RET_FULL);
    ck_assert_str_eq(dsn_ret_name(ret), "FULL");
    ck_assert(dsn_ret_parse(STR("HDRS"), &ret) == 0 && ret == DSN_RET_HDRS);
    ck_assert_str_eq(dsn_ret_name(ret), "HDRS");
    ck_assert(dsn_ret_parse(STR(""), &ret) < 0 && dsn_ret_parse(STR("FULLY"), &ret) < 0 &&
              dsn_ret_parse(STR("HDR"), &ret) < 0 && dsn_ret_parse(STR("FULL\0"), &ret) < 0);
}
END_TEST

/* Every byte, as it is and encoded: printable ASCII when decoded, and nothing else (H11). */
START_TEST(envid_byte_by_byte)
{
    for (int c = 0; c < 256; c++) {
        char raw[] = {'a', (char)c, 'b'}, encoded[8];
        bool graphic = c > 0x20 && c < 0x7f;
        ck_assert_msg(dsn_envid_ok(str_of(raw, 3)) == (graphic && c != '+' && c != '='), "%d", c);
        snprintf(encoded, sizeof encoded, "a+%02X", (unsigned)c);
        ck_assert_msg(dsn_envid_ok(str_z(encoded)) == (c >= 0x20 && c < 0x7f), "%s", encoded);
    }
    static const char *const bad[] = {"",    "+",   "+4",  "+G1", "a+00b", "a+0D+0Ab",
                                      "+4a", "a b", "+2b", "a=b", "+C3+BC"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        ck_assert_msg(!dsn_envid_ok(str_z(bad[i])), "%s", bad[i]);
}
END_TEST

START_TEST(envid_at_its_ceiling)
{
    char text[DSN_ENVID_MAX + 1];
    memset(text, 'e', sizeof text);
    ck_assert(dsn_envid_ok(str_of(text, DSN_ENVID_MAX)));
    ck_assert(!dsn_envid_ok(str_of(text, DSN_ENVID_MAX + 1)));
}
END_TEST

START_TEST(orcpt_is_a_type_and_an_address)
{
    static const char *const good[] = {"rfc822;a@b",    "RFC822;user+2Btag@example.org",
                                       "x400;/C+3Dde/", "utf-8;a;b@c",
                                       "rfc822;+20",    "x-y.z_1;a"};
    static const char *const bad[] = {"",
                                      ";",
                                      "rfc822",
                                      "rfc822;",
                                      ";a@b",
                                      "rfc 822;a",
                                      "rfc822;a b",
                                      "rfc822;a+0D+0Ab",
                                      "rfc822;+G1",
                                      "rfc822;a=b",
                                      "rfc@822;a",
                                      "rfc822;\xc3\xbc",
                                      "rfc822;+C3+BC",
                                      "rfc822:a@b",
                                      "(x);a"};
    for (size_t i = 0; i + 1 < sizeof good / sizeof good[0]; i++)
        ck_assert_msg(dsn_orcpt_ok(str_z(good[i])), "%s", good[i]);
    ck_assert(!dsn_orcpt_ok(str_z(good[5]))); /* a dot is no part of an atom */
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        ck_assert_msg(!dsn_orcpt_ok(str_z(bad[i])), "%s", bad[i]);
}
END_TEST

START_TEST(orcpt_at_its_ceiling)
{
    char text[DSN_ORCPT_MAX + 1];
    memset(text, 'a', sizeof text);
    memcpy(text, "rfc822;", 7);
    ck_assert(dsn_orcpt_ok(str_of(text, DSN_ORCPT_MAX)));
    ck_assert(!dsn_orcpt_ok(str_of(text, DSN_ORCPT_MAX + 1)));
}
END_TEST

START_TEST(decoded_for_a_report)
{
    struct buf b = buf_new(DSN_ORCPT_MAX + 1);
    dsn_envid_decode(&b, STR("QQ+2B314159+20x"));
    ck_str(buf_str(&b), "QQ+314159 x");
    buf_reset(&b);
    dsn_orcpt_decode(&b, STR("rfc822;user+2Btag@example.org"));
    ck_str(buf_str(&b), "rfc822; user+tag@example.org");
    buf_free(&b);
}
END_TEST

Suite *suite_dsn(void);
Suite *
suite_dsn(void)
{
    Suite *s = suite_create("dsn");
    TCase *t = tcase_create("dsn");
    tcase_add_test(t, notify_in_every_combination);
    tcase_add_test(t, notify_that_is_none);
    tcase_add_test(t, notify_written_is_read);
    tcase_add_test(t, ret_is_one_of_two);
    tcase_add_test(t, envid_byte_by_byte);
    tcase_add_test(t, envid_at_its_ceiling);
    tcase_add_test(t, orcpt_is_a_type_and_an_address);
    tcase_add_test(t, orcpt_at_its_ceiling);
    tcase_add_test(t, decoded_for_a_report);
    suite_add_tcase(s, t);
    return s;
}
