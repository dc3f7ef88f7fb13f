/* known: noted, found, forgotten; and not writable for who only reads. */
#include "lib/ipc/known.h"
#include "tests/unit/unit.h"
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

static struct known writer, reader;

static void
setup(void)
{
    struct start a = {.role = R_AUTHD}, s = {.role = R_SMTPD};
    char path[40];
    int fd = memfd_create("known", MFD_CLOEXEC);
    ck_assert_int_eq(ftruncate(fd, sizeof(struct known_page)), 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    start_add_fd(&a, fd, "map.known");
    start_add_fd(&s, open(path, O_RDONLY), "map.known");
    known_open(&writer, &a, true);
    known_open(&reader, &s, false);
    known_clear(&writer);
}

START_TEST(what_is_noted_is_found_until_all_is_forgotten)
{
    char name[600];
    for (int i = 0; i < 1000; i++) {
        snprintf(name, sizeof name, "user%d@example.org", i);
        ck_assert(!known_has(&reader, str_z(name)));
        known_note(&writer, str_z(name));
        ck_assert(known_has(&reader, str_z(name)));
    }
    ck_assert(known_has(&reader, STR("USER999@Example.ORG")));
    ck_assert(!known_has(&reader, STR("user999@example.or")));
    ck_assert(!known_has(&reader, STR("")));
    known_clear(&writer);
    for (int i = 0; i < 1000; i++) {
        snprintf(name, sizeof name, "user%d@example.org", i);
        ck_assert(!known_has(&reader, str_z(name)));
    }
    memset(name, 'x', sizeof name);
    known_note(&writer, str_of(name, 512));
    ck_assert(known_has(&reader, str_of(name, 512)));
    known_note(&writer, str_of(name, 513));
    ck_assert(!known_has(&reader, str_of(name, 513)));
}
END_TEST

START_TEST(an_epoch_ends_when_all_is_forgotten)
{
    struct sipkey first, same, next;
    ck_assert(known_epoch(&reader, &first));
    known_note(&writer, STR("user@example.org"));
    ck_assert(known_epoch(&reader, &same));
    ck_assert_int_eq(memcmp(&first, &same, sizeof same), 0);
    known_clear(&writer);
    ck_assert(known_epoch(&reader, &next));
    ck_assert_int_ne(memcmp(&first, &next, sizeof next), 0);
}
END_TEST

START_TEST(without_a_page_nothing_is_known)
{
    struct known none;
    struct start st = {.role = R_SMTPD};
    known_open(&none, &st, false);
    known_clear(&none);
    known_note(&none, STR("a@b"));
    ck_assert(!known_has(&none, STR("a@b")));
    struct sipkey epoch;
    ck_assert(!known_epoch(&none, &epoch));
}
END_TEST

START_TEST(readers_cannot_write)
{
    ck_assert_ptr_null(reader.page);
    ck_assert_int_eq(write(reader.fd, "x", 1), -1);
    ck_assert_ptr_eq(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, reader.fd, 0),
                     MAP_FAILED);
}
END_TEST

Suite *suite_known(void);
Suite *
suite_known(void)
{
    Suite *s = suite_create("known");
    TCase *t = tcase_create("known");
    tcase_add_checked_fixture(t, setup, NULL);
    tcase_add_test(t, what_is_noted_is_found_until_all_is_forgotten);
    tcase_add_test(t, an_epoch_ends_when_all_is_forgotten);
    tcase_add_test(t, without_a_page_nothing_is_known);
    tcase_add_test(t, readers_cannot_write);
    suite_add_tcase(s, t);
    return s;
}
