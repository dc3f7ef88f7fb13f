/* qfile: every byte flipped, every length cut, each field at its ceiling. */
#include "lib/queue/qfile.h"
#include "lib/base/siphash.h"
#include "lib/mail/dsn.h"
#include "tests/unit/temp.h"
#include "tests/unit/unit.h"
#include <sys/mman.h>

static struct arena arena;
static struct envelope env;
static struct err e;

static void
setup(void)
{
    temp_quiet();
    arena = arena_new((size_t)2 * QFILE_ENVELOPE_MAX);
}

static struct qfile_rcpt two[] = {{.address = {"a@example.org", 13}},
                                  {.address = {"b@example.net", 13},
                                   .orcpt = {"rfc822;B@example.net", 20},
                                   .notify = DSN_SUCCESS | DSN_DELAY}}; /* as a byte: a line feed */

static struct envelope
sample(void)
{
    return (struct envelope){.sender = STR("s@example.com"),
                             .origin = STR("smtp"),
                             .client = STR("[192.0.2.1]"),
                             .helo = STR("client"),
                             .arrived_us = 1234567890123456,
                             .eight_bit = true,
                             .ret = DSN_RET_FULL,
                             .envid = STR("QQ+2B1"),
                             .rcpts = two,
                             .nrcpt = 2};
}

static int
file_of(struct str text)
{
    int fd = memfd_create("q", MFD_CLOEXEC);
    ck_assert_int_eq(write(fd, text.p, text.n), (ssize_t)text.n);
    return fd;
}

static int
read_text(struct str text)
{
    int fd = file_of(text);
    arena_reset(&arena);
    int ok = qfile_read(fd, &arena, &env, &e);
    close(fd);
    return ok;
}

static struct buf
written(const char *message)
{
    struct buf b = buf_new(2 << 20);
    struct envelope in = sample();
    ck_assert_int_eq(qfile_whole(&b, &in, str_z(message), &e), 0);
    return b;
}

START_TEST(what_was_written_is_read)
{
    struct buf b = written("Subject: x\r\n\r\ny\r\n");
    ck_assert_int_eq(read_text(buf_str(&b)), 0);
    ck_str(env.sender, "s@example.com");
    ck_str(env.login, "");
    ck_str(env.helo, "client");
    ck_assert_uint_eq(env.nrcpt, 2);
    ck_str(env.rcpts[1].address, "b@example.net");
    ck_assert(env.eight_bit && env.arrived_us == 1234567890123456);
    ck_str(env.envid, "QQ+2B1");
    ck_assert_uint_eq(env.ret, DSN_RET_FULL);
    ck_assert(!env.rcpts[0].notify && !env.rcpts[0].orcpt.n);
    ck_assert_uint_eq(env.rcpts[1].notify, DSN_SUCCESS | DSN_DELAY);
    ck_str(env.rcpts[1].orcpt, "rfc822;B@example.net");
    ck_str(str_from(buf_str(&b), env.message_offset), "Subject: x\r\n\r\ny\r\n");
    buf_free(&b);
}
END_TEST

/* A session that died before the end, or wrote in pieces when the power went. */
START_TEST(without_its_seal_it_is_not_whole)
{
    struct buf b = buf_new(1 << 20);
    struct envelope in = sample();
    ck_assert_int_eq(qfile_write(&b, &in, &e), 0);
    buf_addz(&b, "12345");
    ck_assert_int_eq(read_text(buf_str(&b)), -1);
    ck_assert_int_eq(e.class, ERR_DAMAGED);
    qfile_seal(b.p, true, 5, qfile_check(STR("12345")));
    ck_assert_int_eq(read_text(buf_str(&b)), 0);
    ck_assert_uint_eq(env.message_size, 5);
    ck_assert(env.bulk);
    ck_assert_int_eq(qfile_read(-1, &arena, &env, &e), -1);
    ck_assert_int_eq(e.class, ERR_TEMPORARY);
    buf_free(&b);
}
END_TEST

/* Head and envelope by qfile_read(), the message by qfile_check_message(). */
START_TEST(every_byte_flipped)
{
    struct buf b = written("hello\r\n");
    for (size_t i = 0; i < b.n; i++)
        for (int bit = 0; bit < 8; bit++) {
            b.p[i] = (char)(b.p[i] ^ 1 << bit);
            int ok = read_text(buf_str(&b));
            ck_assert_msg((ok < 0) == (i < b.n - 7), "byte %zu bit %d", i, bit);
            int fd = file_of(buf_str(&b));
            if (ok == 0)
                ck_assert_int_eq(qfile_check_message(fd, &env, &e), -1);
            ck_assert_int_eq(e.class, ERR_DAMAGED);
            close(fd);
            b.p[i] = (char)(b.p[i] ^ 1 << bit);
        }
    buf_free(&b);
}
END_TEST

/* Around the size of a piece, and in pieces as a session writes it. */
START_TEST(messages_of_all_sizes_fit_their_check)
{
    static const size_t sizes[] = {0, 1, 7, 8, 9, 65535, 65536, 65537, 200000};
    static char text[200000];
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (char)(i * 31 + i / 256);
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
        struct buf b = buf_new(2 << 20);
        struct envelope in = sample();
        struct str message = str_of(text, sizes[k]);
        struct siphash check = qfile_check_begin();
        for (size_t at = 0, n = 1; at < message.n; at += n, n = n % 23 + 1)
            siphash_add(&check, str_sub(message, at, n));
        ck_assert_uint_eq(siphash_end(&check), qfile_check(message));
        ck_assert_int_eq(qfile_whole(&b, &in, message, &e), 0);
        ck_assert_int_eq(read_text(buf_str(&b)), 0);
        int fd = file_of(buf_str(&b));
        ck_assert_int_eq(qfile_check_message(fd, &env, &e), 0);
        ck_assert_int_eq(ftruncate(fd, (off_t)b.n - 1), 0);
        ck_assert_int_eq(qfile_check_message(fd, &env, &e), message.n ? -1 : 0);
        close(fd);
        buf_free(&b);
    }
}
END_TEST

START_TEST(every_length_but_the_right_one)
{
    struct buf b = written("hello\r\n");
    for (size_t n = 0; n < b.n; n++)
        ck_assert_int_eq(read_text(str_of(b.p, n)), -1);
    buf_addc(&b, 'x');
    ck_assert_int_eq(read_text(buf_str(&b)), -1);
    buf_free(&b);
}
END_TEST

START_TEST(no_regular_file)
{
    int pipes[2];
    ck_assert_int_eq(pipe(pipes), 0);
    ck_assert_int_eq(qfile_read(pipes[0], &arena, &env, &e), -1);
    ck_assert_int_eq(e.class, ERR_DAMAGED);
}
END_TEST

static int
write_one(struct envelope *in)
{
    struct buf b = buf_new(2 << 20);
    int ok = qfile_whole(&b, in, STR(""), &e);
    if (ok == 0)
        ck_assert_int_eq(read_text(buf_str(&b)), 0);
    buf_free(&b);
    return ok;
}

START_TEST(fields_at_their_ceilings)
{
    static char big[QFILE_FIELD_MAX + 1];
    memset(big, 'a', sizeof big);
    struct envelope in = sample();
    struct qfile_rcpt one = {.address = str_of(big, QFILE_ADDR_MAX)};
    in.rcpts = &one;
    in.nrcpt = 1;
    in.sender = str_of(big, QFILE_ADDR_MAX);
    in.helo = str_of(big, QFILE_FIELD_MAX);
    ck_assert_int_eq(write_one(&in), 0);
    ck_assert_uint_eq(env.helo.n, QFILE_FIELD_MAX);
    one.address.n++;
    ck_assert_int_eq(write_one(&in), -1);
    one.address.n--;
    in.sender.n++;
    ck_assert_int_eq(write_one(&in), -1);
    in.sender.n--;
    in.helo.n++;
    ck_assert_int_eq(write_one(&in), -1);
    in.helo.n--;
    one.address.n = 0;
    ck_assert_int_eq(write_one(&in), -1);
}
END_TEST

/* E7: what reads these fields writes lines. */
START_TEST(no_line_breaks)
{
    struct envelope in = sample();
    static const struct str bad[] = {{"a\n", 2}, {"a\r", 2}, {"\0", 1}, {"a\nRcpt: b@c", 11}};
    for (size_t i = 0; i < 4; i++) {
        in.sender = bad[i];
        ck_assert_int_eq(write_one(&in), -1);
        in = sample();
        in.helo = bad[i];
        ck_assert_int_eq(write_one(&in), -1);
        in = sample();
        two[1].address = bad[i];
        ck_assert_int_eq(write_one(&in), -1);
        two[1].address = STR("b@example.net");
    }
}
END_TEST

/* What asks for nothing costs nothing. */
START_TEST(wishes_cost_only_who_has_them)
{
    struct buf with = buf_new(1 << 16), without = buf_new(1 << 16);
    struct envelope in = sample();
    ck_assert_int_eq(qfile_write(&with, &in, &e), 0);
    struct qfile_rcpt plain[] = {two[0], {.address = two[1].address}};
    in.rcpts = plain;
    in.ret = 0;
    in.envid = STR("");
    ck_assert_int_eq(qfile_write(&without, &in, &e), 0);
    ck_assert_uint_eq(with.n - without.n, 4 + 6 + 4 + 1 + 20);
    buf_free(&with);
    buf_free(&without);
}
END_TEST

START_TEST(malformed_wishes_are_not_written)
{
    struct envelope in = sample();
    static const struct str bad[] = {{"a b", 3}, {"+0A", 3}, {"+G1", 3}, {"a\n", 2}};
    struct qfile_rcpt one = {.address = two[0].address};
    in.rcpts = &one;
    in.nrcpt = 1;
    for (size_t i = 0; i < 4; i++) {
        in.envid = bad[i];
        ck_assert_int_eq(write_one(&in), -1);
        in.envid = STR("");
        one.orcpt = bad[i];
        ck_assert_int_eq(write_one(&in), -1);
        one.orcpt = STR("");
    }
    one.notify = DSN_NEVER | DSN_DELAY;
    ck_assert_int_eq(write_one(&in), -1);
    one.notify = DSN_NOTIFY_END;
    ck_assert_int_eq(write_one(&in), -1);
    for (one.notify = 0; one.notify < DSN_NOTIFY_END; one.notify++)
        if (dsn_notify_ok(one.notify)) {
            ck_assert_int_eq(write_one(&in), 0);
            ck_assert_uint_eq(env.rcpts[0].notify, one.notify);
        }
}
END_TEST

/* Each with the longest address and ORCPT there is: they fit. */
START_TEST(recipients_at_their_ceiling)
{
    static struct qfile_rcpt many[QFILE_RCPT_MAX + 1];
    static char address[QFILE_ADDR_MAX], orcpt[DSN_ORCPT_MAX];
    struct envelope in = sample();
    memset(address, 'a', sizeof address);
    memset(orcpt, 'a', sizeof orcpt);
    memcpy(orcpt, "rfc822;", 7);
    for (size_t i = 0; i <= QFILE_RCPT_MAX; i++)
        many[i] = (struct qfile_rcpt){.address = str_of(address, sizeof address),
                                      .orcpt = str_of(orcpt, sizeof orcpt),
                                      .notify = DSN_NEVER};
    in.rcpts = many;
    in.nrcpt = QFILE_RCPT_MAX;
    ck_assert_int_eq(write_one(&in), 0);
    ck_assert_uint_eq(env.nrcpt, QFILE_RCPT_MAX);
    in.nrcpt++;
    ck_assert_int_eq(write_one(&in), -1);
    in.nrcpt = 0;
    ck_assert_int_eq(write_one(&in), -1);
}
END_TEST

/* What a session that knows the check could write: made good again after each change, the records
 * alone must do no harm (C15). */
static void
seal(struct buf *b)
{
    static const struct sipkey key = {"bulkhead-qfile1"};
    uint64_t size = b->n - QFILE_HEAD - 7;
    uint64_t check = siphash(&key, str_of(b->p + QFILE_HEAD, (size_t)size));
    memcpy(b->p + 16, &size, sizeof size);
    memcpy(b->p + 40, &check, sizeof check);
    qfile_seal(b->p, false, 7, qfile_check(STR("hello\r\n")));
}

START_TEST(every_byte_forged)
{
    struct buf b = written("hello\r\n");
    seal(&b);
    ck_assert_int_eq(read_text(buf_str(&b)), 0);
    static const unsigned char values[] = {0, 1, 2, 7, '\n', 0x7f, 0x80, 0xff};
    for (size_t i = 0; i < b.n - 7; i++)
        for (size_t k = 0; k < sizeof values; k++) {
            char old = b.p[i];
            b.p[i] = (char)values[k];
            seal(&b);
            if (read_text(buf_str(&b)) == 0) {
                ck_assert_uint_le(env.nrcpt, QFILE_RCPT_MAX);
                ck_assert_uint_gt(env.nrcpt, 0);
                ck_assert(env.ret <= DSN_RET_HDRS && (!env.envid.n || dsn_envid_ok(env.envid)));
                for (size_t r = 0; r < env.nrcpt; r++) {
                    const struct qfile_rcpt *one = &env.rcpts[r];
                    ck_assert(one->address.n && str_chr(one->address, '\n') < 0);
                    ck_assert(dsn_notify_ok(one->notify));
                    ck_assert(!one->orcpt.n || dsn_orcpt_ok(one->orcpt));
                }
            }
            b.p[i] = old;
        }
    buf_free(&b);
}
END_TEST

Suite *suite_qfile(void);
Suite *
suite_qfile(void)
{
    Suite *s = suite_create("qfile");
    TCase *t = tcase_create("qfile");
    tcase_add_checked_fixture(t, setup, NULL);
    tcase_add_test(t, what_was_written_is_read);
    tcase_add_test(t, without_its_seal_it_is_not_whole);
    tcase_add_test(t, messages_of_all_sizes_fit_their_check);
    tcase_add_test(t, every_byte_flipped);
    tcase_add_test(t, every_length_but_the_right_one);
    tcase_add_test(t, no_regular_file);
    tcase_add_test(t, fields_at_their_ceilings);
    tcase_add_test(t, no_line_breaks);
    tcase_add_test(t, wishes_cost_only_who_has_them);
    tcase_add_test(t, malformed_wishes_are_not_written);
    tcase_add_test(t, recipients_at_their_ceiling);
    tcase_add_test(t, every_byte_forged);
    suite_add_tcase(s, t);
    return s;
}
