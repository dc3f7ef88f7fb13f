/* log: lines in one write or in many, cut, cleaned, counted when they are lost. */
#include "lib/log/log.h"
#include "tests/unit/unit.h"
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

static int fd;
static char text[100000];

static void
setup(void)
{
    fd = memfd_create("log", MFD_CLOEXEC);
    log_open(fd, "test");
}

/* All that was written by now. */
static const char *
written(void)
{
    ssize_t n = pread(fd, text, sizeof text - 1, 0);
    text[n < 0 ? 0 : n] = '\0';
    return text;
}

static size_t
lines(void)
{
    size_t n = 0;
    for (const char *p = written(); (p = strchr(p, '\n')); p++)
        n++;
    return n;
}

START_TEST(a_line_is_written_at_once_cut_and_cleaned)
{
    static char lengthy[3000];
    memset(lengthy, 'x', sizeof lengthy - 1);
    log_info("one %d\r\n%s", 7, "\xff\x1b");
    ck_assert_ptr_nonnull(strstr(written(), " bulkhead/test["));
    ck_assert_ptr_nonnull(strstr(text, "]: one 7??\?\?\n"));
    log_warn("%s", lengthy);
    ck_assert_uint_eq(lines(), 2);
    ck_assert_uint_eq(strlen(strchr(text, '\n') + 1), LOG_LINE_MAX + 1);
}
END_TEST

/* The text that fills a line is whole; one byte more and its last one is cut, and nothing of the
 * next line. */
START_TEST(a_line_at_its_ceiling)
{
    static char most[LOG_LINE_MAX];
    log_info("%s", "");
    size_t head = strlen(written()) - 1, n = LOG_LINE_MAX - head;
    memset(most, 'x', n + 1);
    most[n - 1] = 'y';
    log_info("%.*s", (int)n, most);
    log_info("%.*s", (int)n + 1, most);
    log_info("next");
    ck_assert_uint_eq(lines(), 4);
    const char *at = strchr(text, '\n') + 1;
    for (int i = 0; i < 2; i++, at += LOG_LINE_MAX + 1)
        ck_assert_int_eq(strncmp(at + LOG_LINE_MAX - 2, "xy\n", 3), 0);
    ck_assert_str_eq(at + head, "next\n");
}
END_TEST

START_TEST(gathered_lines_wait_until_they_are_flushed)
{
    log_gather();
    log_info("first");
    log_info("second");
    ck_assert_str_eq(written(), "");
    log_flush();
    ck_assert_uint_eq(lines(), 2);
    log_flush();
    ck_assert_uint_eq(lines(), 2);
    log_info("third");
    log_warn("fourth"); /* does not wait, nor what came before it */
    ck_assert_uint_eq(lines(), 4);
    ck_assert(strstr(text, "third") < strstr(text, "fourth"));
}
END_TEST

START_TEST(more_than_is_kept_goes_out_in_order)
{
    log_gather();
    for (int i = 0; i < 1000; i++)
        log_info("line %d.", i);
    log_flush();
    ck_assert_uint_eq(lines(), 1000);
    const char *p = text;
    for (int i = 0; i < 1000; i++) {
        char want[20];
        snprintf(want, sizeof want, "line %d.", i);
        p = strstr(p, want);
        ck_assert_ptr_nonnull(p);
    }
}
END_TEST

START_TEST(what_is_lost_is_counted)
{
    int nowhere = open("/dev/full", O_WRONLY | O_CLOEXEC), kept = dup(fd);
    log_move(nowhere);
    log_gather();
    log_info("a");
    log_info("b");
    log_flush();
    log_move(kept);
    fd = kept;
    log_info("c");
    log_flush();
    ck_assert_ptr_nonnull(strstr(written(), "warning: dropped 2 lines\n"));
    ck_assert_uint_eq(lines(), 2);
}
END_TEST

START_TEST(datagrams_do_not_wait)
{
    int pair[2];
    char got[100];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, pair), 0);
    log_open(pair[0], "test");
    log_gather();
    log_info("a");
    log_info("b");
    ck_assert_int_gt(recv(pair[1], got, sizeof got, 0), 0);
    ck_assert_int_eq(strncmp(got, "<22>", 4), 0); /* mail.info */
    ck_assert_int_gt(recv(pair[1], got, sizeof got, 0), 0);
}
END_TEST

Suite *suite_log(void);
Suite *
suite_log(void)
{
    Suite *s = suite_create("log");
    TCase *t = tcase_create("log");
    tcase_add_checked_fixture(t, setup, NULL);
    tcase_add_test(t, a_line_is_written_at_once_cut_and_cleaned);
    tcase_add_test(t, a_line_at_its_ceiling);
    tcase_add_test(t, gathered_lines_wait_until_they_are_flushed);
    tcase_add_test(t, more_than_is_kept_goes_out_in_order);
    tcase_add_test(t, what_is_lost_is_counted);
    tcase_add_test(t, datagrams_do_not_wait);
    suite_add_tcase(s, t);
    return s;
}
