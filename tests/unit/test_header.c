/* header, date: whole, cut at each byte, and at their ceilings. */
#include "lib/mail/date.h"
#include "lib/mail/header.h"
#include "tests/unit/unit.h"
#include <stdlib.h>

static const char sample[] =
    "Received: by x;\r\n\tMon, 1 Jan 2001\r\nSubject : a\r\n b\r\nnot a field\r\n"
    "To:\r\n\r\nbody\r\n";

START_TEST(fields_are_found_with_their_offsets)
{
    struct header h = header_of(STR(sample));
    struct header_field f;
    ck_assert(header_next(&h, &f));
    ck_str(f.name, "Received");
    ck_str(f.value, " by x;\r\n\tMon, 1 Jan 2001");
    ck_assert(header_next(&h, &f));
    ck_str(f.name, "Subject");
    ck_str(f.whole, "Subject : a\r\n b\r\n");
    struct buf b = buf_new(100);
    header_unfold(&b, f.value);
    ck_str(buf_str(&b), "a b");
    buf_free(&b);
    ck_assert(header_next(&h, &f));
    ck_str(f.name, "To");
    ck_assert_uint_eq(f.value.n, 0);
    ck_assert(!header_next(&h, &f));
    ck_str(str_from(STR(sample), header_body(STR(sample))), "body\r\n");
}
END_TEST

START_TEST(lf_alone_ends_lines_too)
{
    ck_str(str_from(STR("A: b\n\nx"), header_body(STR("A: b\n\nx"))), "x");
    ck_assert_uint_eq(header_body(STR("\nx")), 1);
    ck_assert_uint_eq(header_body(STR("")), 0);
    ck_assert_uint_eq(header_body(STR("A: b")), 4);
}
END_TEST

START_TEST(every_prefix_of_a_header_is_walked)
{
    for (size_t n = 0; n <= sizeof sample - 1; n++) {
        char *exact = malloc(n ? n : 1); /* so that ASan sees a step too far */
        memcpy(exact, sample, n);
        struct header h = header_of(str_of(exact, n));
        struct header_field f;
        size_t count = 0;
        while (header_next(&h, &f))
            count++;
        ck_assert_uint_le(count, 3);
        ck_assert_uint_le(header_body(str_of(exact, n)), n);
        free(exact);
    }
}
END_TEST

static size_t
count_fields(struct str text, bool *over_r)
{
    struct header h = header_of(text);
    struct header_field f;
    size_t n = 0;
    while (header_next(&h, &f))
        n++;
    *over_r = h.over;
    return n;
}

START_TEST(ceilings_of_a_header)
{
    struct buf b = buf_new(1 << 20);
    bool over;
    for (int i = 0; i < HEADER_FIELDS_MAX; i++)
        buf_addz(&b, "A: b\r\n");
    ck_assert_uint_eq(count_fields(buf_str(&b), &over), HEADER_FIELDS_MAX);
    ck_assert(!over);
    buf_addz(&b, "A: b\r\n\r\nbody");
    ck_assert_uint_eq(count_fields(buf_str(&b), &over), HEADER_FIELDS_MAX);
    ck_assert(over);
    ck_str(str_from(buf_str(&b), header_body(buf_str(&b))), "body");

    buf_reset(&b);
    buf_addz(&b, "A:");
    while (b.n < HEADER_FIELD_MAX)
        buf_addc(&b, 'x');
    buf_addz(&b, "\r\nB: c\r\n");
    struct header_field f;
    ck_assert(header_find(buf_str(&b), STR("a"), &f));
    ck_assert_uint_eq(f.value.n, HEADER_FIELD_MAX - 2);
    ck_assert(header_find(buf_str(&b), STR("b"), &f));

    buf_reset(&b);
    while (b.n < HEADER_BLOCK_MAX) {
        buf_addz(&b, "Long: ");
        for (int i = 0; i < 1000; i++)
            buf_addc(&b, 'y');
        buf_addz(&b, "\r\n");
    }
    buf_addz(&b, "Late: z\r\n");
    ck_assert(!header_find(buf_str(&b), STR("Late"), &f));
    buf_free(&b);
}
END_TEST

START_TEST(dates_as_they_are_written)
{
    static const struct {
        const char *text;
        int64_t utc_s;
    } good[] = {
        {"Fri, 21 Nov 1997 09:55:06 -0600", 880127706},
        {"21 Nov 97 09:55:06 CST", 880127706},
        {"Thu, 13 Feb 1969 23:32 -0330 (Newfoundland Time)", -27723480},
        {"Thu,\r\n 13\r\n Feb (a (b\\)) c) 1969 23:32:00 -0330", -27723480},
        {"1 Jan 2000 00:00:00 Z", 946684800},
        {"29 Feb 2000 12:00:00 +0000", 951825600},
        {"1 Jan 100 00:00:00 GMT", 946684800},
        {"31 Dec 9999 23:59:60 +0000", 253402300800},
        {"1 Jan 0001 00:00:00 +0000", -62135596800},
        {"Mon, 1 Mar 2100 00:00:00 +0000", 4107542400},
    };
    static const char *const bad[] = {"",
                                      "Mon",
                                      "30 Feb 2000 1:1:1 +0000",
                                      "29 Feb 2100 1:1 GMT",
                                      "1 Jan 2000",
                                      "1 Foo 2000 1:1:1 Z",
                                      "1 Jan 2000 24:00:00 Z",
                                      "1 Jan 2000 1:60 Z",
                                      "1 Jan 2000 1:1:1 +99",
                                      "32 Jan 2000 1:1 Z",
                                      "(",
                                      "1 Jan 20000 1:1 Z"};
    struct date d;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        ck_assert_msg(date_parse(str_z(good[i].text), &d) == 0, "%s", good[i].text);
        ck_assert_msg(d.utc_s == good[i].utc_s, "%s: %lld", good[i].text, (long long)d.utc_s);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        ck_assert_msg(date_parse(str_z(bad[i]), &d) < 0, "%s", bad[i]);
}
END_TEST

START_TEST(dates_go_out_and_come_back)
{
    for (int64_t s = -62135596800 + 86400; s < 253402300799; s += 86400LL * 9973 + 12345) {
        struct buf a = buf_new(64), b = buf_new(64);
        struct date d;
        date_format(&a, s, -330);
        ck_assert_msg(date_parse(buf_str(&a), &d) == 0, "%s", buf_z(&a));
        ck_assert(d.utc_s == s && d.zone_min == -330);
        date_format_imap(&b, s, 90);
        ck_assert_msg(date_parse_imap(buf_str(&b), &d) == 0, "%s", buf_z(&b));
        ck_assert(d.utc_s == s);
        buf_free(&a);
        buf_free(&b);
    }
    struct buf out = buf_new(64);
    date_format(&out, 1795293180, 0);
    ck_str(buf_str(&out), "Sat, 21 Nov 2026 20:33:00 +0000");
    buf_free(&out);
    int64_t day;
    ck_assert_int_eq(date_parse_day(STR("1-Feb-1994"), &day), 0);
    ck_assert(day == 8797);
    ck_assert_int_eq(date_parse_day(STR("1-Feb-19941"), &day), -1);
}
END_TEST

START_TEST(every_prefix_of_a_date_is_refused_or_read)
{
    static const char text[] = "Fri, 21 Nov 1997 09:55:06 -0600 (a \\";
    struct date d;
    for (size_t n = 0; n < sizeof text; n++) {
        char *exact = malloc(n ? n : 1);
        memcpy(exact, text, n);
        if (n < 24)
            ck_assert(date_parse(str_of(exact, n), &d) < 0 || n >= 21);
        else
            (void)date_parse(str_of(exact, n), &d);
        free(exact);
    }
}
END_TEST

Suite *suite_header(void);
Suite *
suite_header(void)
{
    Suite *s = suite_create("header");
    TCase *t = tcase_create("header");
    tcase_add_test(t, fields_are_found_with_their_offsets);
    tcase_add_test(t, lf_alone_ends_lines_too);
    tcase_add_test(t, every_prefix_of_a_header_is_walked);
    tcase_add_test(t, ceilings_of_a_header);
    tcase_add_test(t, dates_as_they_are_written);
    tcase_add_test(t, dates_go_out_and_come_back);
    tcase_add_test(t, every_prefix_of_a_date_is_refused_or_read);
    suite_add_tcase(s, t);
    return s;
}
