/* utf8, nfc, utf7, rfc2231: each by example, and cut at each byte. */
#include "lib/base/utf8.h"
#include "lib/mail/mime.h"
#include "lib/mail/nfc.h"
#include "lib/mail/rfc2231.h"
#include "lib/mail/utf7.h"
#include "tests/unit/unit.h"

START_TEST(names_to_modified_utf7_and_back)
{
    static const struct {
        const char *utf8, *utf7;
    } cases[] = {
        {"", ""},
        {"INBOX", "INBOX"},
        {"a&b", "a&-b"},
        {"&", "&-"},
        {"~peter.mail.\xe5\x8f\xb0\xe5\x8c\x97.\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e",
         "~peter.mail.&U,BTFw-.&ZeVnLIqe-"},
        {"\xe5\x8f\xb0\xe5\x8c\x97\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e", "&U,BTF2XlZyyKng-"},
        {"\xe2\x98\xba!", "&Jjo-!"},
        {"Entw\xc3\xbcrfe", "Entw&APw-rfe"},
        {"\xf0\x9f\x93\xa7", "&2D3c5w-"},
        {"\xc3\xa4-", "&AOQ--"},
    };
    struct buf out = buf_new(1000);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ck_assert_int_eq(utf7_encode(&out, str_z(cases[i].utf8)), 0);
        ck_assert_str_eq(buf_z(&out), cases[i].utf7);
        buf_reset(&out);
        ck_assert_int_eq(utf7_decode(&out, str_z(cases[i].utf7)), 0);
        ck_assert_str_eq(buf_z(&out), cases[i].utf8);
        buf_reset(&out);
    }
    buf_free(&out);
}
END_TEST

START_TEST(modified_utf7_has_one_form)
{
    static const char *const bad[] = {
        "&",      "&Jjo",     "&Jjo!", "&U,BTFw-&ZeVnLIqe-",
        "&AGE-",  "&2D0-",    "&3Oc-", "&2D3YPQ-",
        "&AOR-",  "&AO-",     "&A-",   "&AOQA-",
        "&AAo-",  "\xc3\xa4", "a\x01", "&AOQ=-",
        "&AOQ-&", "&-&",      "a\x7f", "&ICg-",
    };
    static const char *const no_name[] = {"a\nb",     "\x7f",         "\xc2\x85", "\xe2\x80\xa8",
                                          "\xc0\x80", "\xed\xa0\x80", "\xff",     "\xc3"};
    struct buf out = buf_new(1000);
    buf_addz(&out, "kept");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        ck_assert_msg(utf7_decode(&out, str_z(bad[i])) < 0, "%s", bad[i]);
    ck_assert_str_eq(buf_z(&out), "kept");
    for (size_t i = 0; i < sizeof no_name / sizeof no_name[0]; i++)
        ck_assert_msg(utf7_encode(&out, str_z(no_name[i])) < 0, "%zu", i);
    buf_free(&out);
}
END_TEST

START_TEST(names_are_normalised)
{
    /* All of Unicode was compared with Python's unicodedata: tests/tools/make_nfc.py has its data.
     */
    static const struct {
        const char *text, *want;
    } cases[] = {
        {"plain", "plain"},
        {"Entwu\xcc\x88rfe", "Entw\xc3\xbcrfe"},
        {"\xe2\x84\xab", "\xc3\x85"},                             /* ANGSTROM SIGN */
        {"q\xcc\x87\xcc\xa3", "q\xcc\xa3\xcc\x87"},               /* ordered by class */
        {"\xe1\x84\x92\xe1\x85\xa1\xe1\x86\xab", "\xed\x95\x9c"}, /* Hangul */
        {"a\xcc\x95\xcc\x80", "\xc3\xa0\xcc\x95"},
        {"s\xcc\xa3\xcc\x87", "\xe1\xb9\xa9"},
        {"\xe0\xa5\x98", "\xe0\xa4\x95\xe0\xa4\xbc"}, /* never composed */
    };
    struct buf out = buf_new(NFC_MAX * 4);
    char longest[NFC_MAX + 1];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        buf_reset(&out);
        ck_assert_int_eq(nfc_normalise(&out, str_z(cases[i].text)), 0);
        ck_assert_str_eq(buf_z(&out), cases[i].want);
    }
    ck_assert_int_lt(nfc_normalise(&out, STR("\xc3")), 0);
    for (size_t i = 0; i < sizeof longest; i++)
        longest[i] = "\xcc\x80"[i % 2];
    ck_assert_int_eq(nfc_normalise(&out, str_of(longest, NFC_MAX)), 0);
    ck_assert_int_lt(nfc_normalise(&out, str_of(longest, NFC_MAX + 1)), 0);
    buf_free(&out);
}
END_TEST

START_TEST(characters_in_and_out)
{
    struct buf out = buf_new(16);
    for (uint32_t c = 1; c <= 0x10ffff; c += c < 0x1000 ? 1 : 251) {
        if (c >= 0xd800 && c <= 0xdfff)
            continue;
        buf_reset(&out);
        utf8_put(&out, c);
        struct cursor at = cursor_of(buf_str(&out));
        ck_assert(str_utf8(buf_str(&out)));
        ck_assert_int_eq(utf8_take(&at), (int32_t)c);
        ck_assert(cur_end(&at));
        at = cursor_of(str_sub(buf_str(&out), 0, out.n - 1));
        ck_assert_int_eq(utf8_take(&at), -1);
        ck_assert_uint_eq(at.at, 0);
    }
    buf_free(&out);
}
END_TEST

/* "name=value;..." as mime shows it. */
static void
params_of(const char *field, struct buf *out)
{
    struct arena arena = arena_new(1 << 20);
    struct str type, subtype;
    struct mime_param *p;
    size_t n;
    buf_reset(out);
    if (mime_parse_value(str_z(field), true, &arena, &type, &subtype, &p, &n) == 0)
        for (size_t i = 0; i < n; i++)
            buf_addf(out, "%.*s=%.*s;", STR_ARG(p[i].name), STR_ARG(p[i].value));
    arena_free(&arena);
}

START_TEST(parameters_in_sections)
{
    static const struct {
        const char *field, *want;
    } cases[] = {
        /* RFC 2231 3 and 4.1 */
        {"message/external-body; access-type=URL; URL*0=\"ftp://\"; URL*1=\"cs.utk.edu/pub\"",
         "access-type=URL;URL=ftp://cs.utk.edu/pub;"},
        {"application/x-stuff; title*=us-ascii'en-us'This%20is%20%2A%2A%2Afun%2A%2A%2A",
         "title*=us-ascii'en-us'This%20is%20%2A%2A%2Afun%2A%2A%2A;"},
        {"application/x-stuff; title*0*=us-ascii'en'This%20is%20even%20more%20; "
         "title*1*=%2A%2A%2Afun%2A%2A%2A%20; title*2=\"isn't it!\"",
         "title*=us-ascii'en'This%20is%20even%20more%20%2A%2A%2Afun%2A%2A%2A%20isn%27t%20it!;"},
        {"a/b; t*1=y; c=d; T*0=x", "c=d;T=xy;"},
        {"a/b; t*0=x; t*2=z", "t=x;t*2=z;"},
        {"a/b; t*1=y", "t*1=y;"},
        {"a/b; t*0=x; t*1*=%41", "t*=''x%41;"},
        {"a/b; t*00=x; t*01=y; *0=z; t**=q", "t*00=x;t*01=y;*0=z;t**=q;"},
        {"a/b; t*0=x; t*0=y; t*1=z", "t=xz;t=y;"},
        {"a/b; t*0=; t*99999999999=y", "t=;t*99999999999=y;"},
    };
    struct buf out = buf_new(100000), again = buf_new(100000);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        params_of(cases[i].field, &out);
        ck_assert_str_eq(buf_z(&out), cases[i].want);
        for (size_t k = 0; k < strlen(cases[i].field); k++) {
            buf_reset(&again);
            buf_add(&again, str_sub(str_z(cases[i].field), 0, k));
            params_of(buf_z(&again), &out);
        }
    }
    buf_reset(&again);
    buf_addz(&again, "a/b");
    for (int i = 0; i < MIME_PARAMS_MAX + 1; i++)
        buf_addf(&again, "; t*%d=%c", i, 'a' + i % 26);
    params_of(buf_z(&again), &out);
    ck_assert_uint_eq(out.n, MIME_PARAMS_MAX + 3);
    buf_free(&out);
    buf_free(&again);
}
END_TEST

START_TEST(encoded_values_in_utf8)
{
    static const struct {
        const char *name, *value, *want; /* NULL: left as it is */
    } cases[] = {
        {"title*", "us-ascii'en-us'This%20is%20%2A%2A%2Afun%2A%2A%2A", "This is ***fun***"},
        {"filename*", "UTF-8''na%C3%AFve%e2%82%ac.txt", "na\xc3\xafve\xe2\x82\xac.txt"},
        {"filename*", "iso-8859-1'fr'caf%E9", "caf\xc3\xa9"},
        {"filename*", "windows-1252''caf%E9", "caf\xc3\xa9"},
        {"filename*", "windows-1252''%80", "\xe2\x82\xac"},
        {"filename*", "ISO-8859-15''%A4", "\xe2\x82\xac"},
        {"filename*", "''x%41", "xA"},
        {"filename*", "utf-8''%", "%"},
        {"filename*", "utf-8''%4", "%4"},
        {"filename*", "utf-8''%4g%41", "%4gA"},
        {"filename*", "utf-8'''", "'"},
        {"filename*", "utf-8''", ""},
        {"filename*", "utf-8''%FF", NULL},
        {"filename*", "utf-8''a%00b", NULL},
        {"filename*", "koi8-r''%C1", NULL},
        {"filename*", "utf-8'x", NULL},
        {"filename*", "x", NULL},
        {"filename*", "", NULL},
        {"filename", "utf-8''x", NULL},
        {"", "utf-8''x", NULL},
    };
    struct buf out = buf_new(1000);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        buf_reset(&out);
        int result = rfc2231_utf8(str_z(cases[i].name), str_z(cases[i].value), &out);
        ck_assert_int_eq(result, cases[i].want ? 0 : -1);
        ck_assert_str_eq(buf_z(&out), cases[i].want ? cases[i].want : "");
    }
    buf_free(&out);
}
END_TEST

Suite *suite_imap_names(void);
Suite *
suite_imap_names(void)
{
    Suite *s = suite_create("imap_names");
    TCase *t = tcase_create("all");
    tcase_add_test(t, names_to_modified_utf7_and_back);
    tcase_add_test(t, modified_utf7_has_one_form);
    tcase_add_test(t, names_are_normalised);
    tcase_add_test(t, characters_in_and_out);
    tcase_add_test(t, parameters_in_sections);
    tcase_add_test(t, encoded_values_in_utf8);
    suite_add_tcase(s, t);
    return s;
}
