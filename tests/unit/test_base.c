/* str, buf, arena, cursor, encode, siphash: at their edges. */
#include "lib/base/network.h"
#include "lib/base/arena.h"
#include "lib/base/buf.h"
#include "lib/base/cursor.h"
#include "lib/base/encode.h"
#include "lib/base/format.h"
#include "lib/base/sha256.h"
#include "lib/base/siphash.h"
#include "tests/unit/unit.h"
#include <limits.h>
#include <stdio.h>

START_TEST(buf_stops_at_its_maximum)
{
    struct buf b = buf_new(10);
    buf_addz(&b, "0123456789");
    ck_assert(buf_ok(&b));
    ck_assert_str_eq(buf_z(&b), "0123456789");
    buf_addc(&b, 'x');
    ck_assert(!buf_ok(&b));
    buf_addf(&b, "%d", 7);
    ck_str(buf_str(&b), "0123456789");
    buf_reset(&b);
    buf_addu(&b, 4294967296u);
    ck_str(buf_str(&b), "4294967296");
    buf_free(&b);
}
END_TEST

/* Both with the same arguments, at every size from 0 to past the whole. */
#define SAME(...)                                                                                  \
    do {                                                                                           \
        char ours[80], theirs[80];                                                                 \
        for (size_t size = 0; size <= sizeof ours; size++) {                                       \
            memset(ours, '#', sizeof ours);                                                        \
            memset(theirs, '#', sizeof theirs);                                                    \
            int n = format(ours, size, __VA_ARGS__);                                               \
            ck_assert_int_eq(n, snprintf(theirs, size, __VA_ARGS__));                              \
            ck_assert_mem_eq(ours, theirs, sizeof ours);                                           \
        }                                                                                          \
    } while (0)

START_TEST(format_says_what_printf_says)
{
    static const char four[4] = {'f', 'o', 'u', 'r'}; /* no NUL */
    SAME("plain%%%c.", 'x');
    SAME("<%s><%s>", "", "text");
    SAME("%.*s|%.*s|%.*s|%.3s|%.0s|%.s", 4, four, 0, "x", -1, "all of it", "text", "none", "none");
    SAME("%d %d %d %d", 0, -1, INT_MAX, INT_MIN);
    SAME("%u %u %x %x", 0u, UINT_MAX, 0u, UINT_MAX);
    SAME("%ld %lu %lx", LONG_MIN, ULONG_MAX, ULONG_MAX);
    SAME("%lld %llu %llx", LLONG_MIN, ULLONG_MAX, 255ull);
    SAME("%zu %zd", SIZE_MAX, (ssize_t)-5);
    SAME("%02d %03d %04d %2d %2d", 7, -7, 12345, 7, -77);
    SAME("%016llx %02x %010u %8u %06lld", 0xabcull, 5u, 42u, 42u, -42ll);
    SAME("%s then %-6s| %5s %.2f %*d", "ours", "left", "right", 1.5, 4, 9);
    SAME("%d%s%u%s%zu", 1, "2", 3u, "4", (size_t)5);
}
END_TEST

START_TEST(numbers_do_not_wrap)
{
    uint64_t v;
    uint32_t w;
    ck_assert_int_eq(str_u64(STR("18446744073709551615"), UINT64_MAX, &v), 0);
    ck_assert_uint_eq(v, UINT64_MAX);
    ck_assert_int_eq(str_u64(STR("18446744073709551616"), UINT64_MAX, &v), -1);
    ck_assert_int_eq(str_u32(STR("4294967296"), UINT32_MAX, &w), -1);
    ck_assert_int_eq(str_u32(STR(""), 10, &w), -1);
    ck_assert_int_eq(str_u32(STR("-1"), 10, &w), -1);
    ck_assert_int_eq(str_u32(STR("11"), 10, &w), -1);
}
END_TEST

START_TEST(utf8_is_strict)
{
    ck_assert(str_utf8(STR("gr\xc3\xbc\xc3\x9f")));
    ck_assert(!str_utf8(STR("\xc0\xaf")));
    ck_assert(!str_utf8(STR("\xed\xa0\x80")));
    ck_assert(!str_utf8(STR("\xf4\x90\x80\x80")));
    ck_assert(!str_utf8(STR("\xc3")));
    ck_assert(!str_utf8(str_of("a\0b", 3)));
}
END_TEST

START_TEST(components_cannot_climb)
{
    ck_assert(str_component(STR("example.org")));
    ck_assert(!str_component(STR("..")));
    ck_assert(!str_component(STR(".hidden")));
    ck_assert(!str_component(STR("a/b")));
    ck_assert(!str_component(str_of("a\0b", 3)));
    ck_assert(!str_component(STR("")));
}
END_TEST

START_TEST(base64_round_trip_and_strictness)
{
    struct buf a = buf_new(4096), b = buf_new(4096);
    for (size_t n = 0; n < 70; n++) {
        char raw[70];
        for (size_t i = 0; i < n; i++)
            raw[i] = (char)(i * 37 + n);
        buf_reset(&a);
        buf_reset(&b);
        base64_encode(&a, str_of(raw, n));
        ck_assert_int_eq(base64_decode(&b, buf_str(&a)), 0);
        ck_assert(str_eq(buf_str(&b), str_of(raw, n)));
    }
    static const char *const bad[] = {"A",    "AA",   "AAA",  "====", "A===",    "AA=A",
                                      "AB==", "AAB=", "AA= ", "A A=", "AA==AAAA"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        buf_reset(&b);
        ck_assert_msg(base64_decode(&b, str_z(bad[i])) < 0, "%s", bad[i]);
    }
    buf_free(&a);
    buf_free(&b);
}
END_TEST

START_TEST(xtext_refuses_control_characters)
{
    struct buf b = buf_new(64);
    ck_assert_int_eq(xtext_decode(&b, STR("a+2Bb")), 0);
    ck_str(buf_str(&b), "a+b");
    ck_assert_int_eq(xtext_decode(&b, STR("a+00b")), -1);
    ck_assert_int_eq(xtext_decode(&b, STR("+0D+0A")), -1);
    ck_assert_int_eq(xtext_decode(&b, STR("+G1")), -1);
    ck_assert_int_eq(xtext_decode(&b, STR("+1")), -1);
    buf_free(&b);
}
END_TEST

START_TEST(arena_begins_in_a_lent_room)
{
    _Alignas(max_align_t) char room[256];
    struct arena a = arena_on(room, sizeof room, 65536);
    for (int transaction = 0; transaction < 3; transaction++) {
        char *first = arena_alloc(&a, 100);
        ck_assert(first > room && first + 100 <= room + sizeof room);
        ck_assert_uint_eq((uintptr_t)first % _Alignof(max_align_t), 0);
        memset(first, 'x', 100);
        char *elsewhere = arena_alloc(&a, 9000);
        ck_assert_ptr_nonnull(elsewhere);
        ck_assert(elsewhere < room || elsewhere >= room + sizeof room);
        ck_assert_ptr_null(arena_alloc(&a, 60000));
        arena_reset(&a);
        for (size_t i = 0; i < 100; i++)
            ck_assert_int_eq(first[i], 0);
    }
    arena_free(&a);
    ck_assert_ptr_null(a.blocks);
}
END_TEST

START_TEST(arena_has_a_ceiling)
{
    struct arena a = arena_new(65536);
    ck_assert_ptr_nonnull(arena_alloc(&a, 60000));
    ck_assert_ptr_null(arena_alloc(&a, 6000));
    ck_assert_ptr_null(arena_array(&a, SIZE_MAX / 2, 3));
    arena_reset(&a);
    ck_str(arena_lower(&a, STR("MiXed")), "mixed");
    arena_free(&a);
}
END_TEST

START_TEST(siphash_reference_vector)
{
    struct sipkey key;
    char in[15];
    for (size_t i = 0; i < 16; i++)
        key.b[i] = (unsigned char)i;
    for (size_t i = 0; i < 15; i++)
        in[i] = (char)i;
    ck_assert(siphash(&key, str_of(in, 15)) == 0xa129ca6149be45e5u);
}
END_TEST

START_TEST(distance_finds_the_nearest_word)
{
    ck_assert_uint_eq(str_distance(STR("lisen"), STR("listen")), 1);
    ck_assert_uint_eq(str_distance(STR(""), STR("abc")), 3);
    ck_assert_uint_eq(str_distance(STR("same"), STR("SAME")), 0);
}
END_TEST

START_TEST(networks_have_their_addresses)
{
    static const struct {
        const char *network, *address;
        bool has;
    } rows[] = {
        {"192.0.2.0/24", "192.0.2.255", true},
        {"192.0.2.0/24", "192.0.3.0", false},
        {"192.0.2.0/24", "::ffff:192.0.2.9", true},
        {"192.0.2.128/25", "192.0.2.127", false},
        {"192.0.2.128/25", "192.0.2.128", true},
        {"192.0.2.7", "192.0.2.7", true},
        {"192.0.2.7", "192.0.2.6", false},
        {"0.0.0.0/0", "203.0.113.1", true},
        {"0.0.0.0/0", "2001:db8::1", false},
        {"::/0", "2001:db8::1", true},
        {"2001:db8::/33", "2001:db8:8000::", false},
        {"2001:db8::/33", "2001:db8:7fff::", true},
        {"192.0.2.0/24", "", false},
        {"192.0.2.0/24", "192.0.2.1 ", false},
    };
    static const char *const bad[] = {
        "",       "/24",    "192.0.2.1/24", "192.0.2.0/33", "192.0.2.0/",      "192.0.2.0/-1",
        "::1/64", "::/129", "192.0.2",      "a/8",          "192.0.2.0/24/24", "192.0.2.0/024x"};
    struct network n;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        ck_assert(network_parse(&n, str_z(rows[i].network)));
        ck_assert_msg(network_has(&n, str_z(rows[i].address)) == rows[i].has, "%s %s",
                      rows[i].network, rows[i].address);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        ck_assert_msg(!network_parse(&n, str_z(bad[i])), "%s", bad[i]);
}
END_TEST

START_TEST(sha256_of_known_texts)
{
    static const struct {
        const char *text, *hex;
        size_t times;
    } cases[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", 1},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", 1},
        {"a", "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0", 1000000}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct sha256 h;
        unsigned char digest[SHA256_BYTES];
        struct buf hex = buf_new(100);
        sha256_begin(&h);
        for (size_t k = 0; k < cases[i].times; k++)
            sha256_add(&h, str_z(cases[i].text));
        sha256_end(&h, digest);
        for (size_t k = 0; k < sizeof digest; k++)
            buf_addf(&hex, "%02x", digest[k]);
        ck_str(buf_str(&hex), cases[i].hex);
        buf_free(&hex);
    }
}
END_TEST

Suite *suite_base(void);
Suite *
suite_base(void)
{
    Suite *s = suite_create("base");
    TCase *t = tcase_create("base");
    tcase_add_test(t, buf_stops_at_its_maximum);
    tcase_add_test(t, format_says_what_printf_says);
    tcase_add_test(t, numbers_do_not_wrap);
    tcase_add_test(t, utf8_is_strict);
    tcase_add_test(t, components_cannot_climb);
    tcase_add_test(t, base64_round_trip_and_strictness);
    tcase_add_test(t, xtext_refuses_control_characters);
    tcase_add_test(t, arena_has_a_ceiling);
    tcase_add_test(t, arena_begins_in_a_lent_room);
    tcase_add_test(t, siphash_reference_vector);
    tcase_add_test(t, sha256_of_known_texts);
    tcase_add_test(t, distance_finds_the_nearest_word);
    tcase_add_test(t, networks_have_their_addresses);
    suite_add_tcase(s, t);
    return s;
}
