/* keyd: which keys it takes, what it signs, and what it refuses. */
#include "keyd/expiry.h"
#include "keyd/sign.h"
#include "lib/ipc/channel.h"
#include "tests/unit/keyring.h"
#include "tests/unit/unit.h"
#include <openssl/rsa.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

static struct keyd keyd;

static void
load(const char *name)
{
    int key_fd, chain_fd;
    struct err e = {0};
    ck_assert_int_eq(keyd_keys_prepare(&e), 0);
    keyring_pair(name, &key_fd, &chain_fd);
    ck_assert_msg(keyd_keys_add(&keyd.keys, key_fd, chain_fd, R_ANY, &e) == 0, "%s", e.text);
    close(key_fd);
    close(chain_fd);
}

static int
file_of(const char *text)
{
    int fd = memfd_create("text", MFD_CLOEXEC);
    ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    return fd;
}

START_TEST(foreign_certificate_is_refused)
{
    int key1, chain1, key2, chain2;
    struct err e = {0};
    ck_assert_int_eq(keyd_keys_prepare(&e), 0);
    keyring_pair("ec.one.example", &key1, &chain1);
    keyring_pair("ec.two.example", &key2, &chain2);
    ck_assert_int_eq(keyd_keys_add(&keyd.keys, key1, chain2, R_ANY, &e), -1);
    ck_str(str_z(e.text), "key 0: the certificate does not belong to the private key");
    ck_assert_uint_eq(keyd.keys.n, 0);
    ck_assert_int_eq(keyd_keys_add(&keyd.keys, key2, chain2, R_ANY, &e), 0);
    keyd_keys_free(&keyd.keys);
}
END_TEST

START_TEST(what_is_no_key_is_refused)
{
    static const char *const bad[] = {
        "", "\n", "-----BEGIN PRIVATE KEY-----\n",
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIGj\n-----END ENCRYPTED PRIVATE KEY-----\n"};
    int key, chain;
    struct err e = {0};
    ck_assert_int_eq(keyd_keys_prepare(&e), 0);
    keyring_pair("ec.one.example", &key, &chain);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        int fd = file_of(bad[i]);
        ck_assert_int_eq(keyd_keys_add(&keyd.keys, fd, chain, R_ANY, &e), -1);
        ck_assert_int_eq(keyd_keys_add(&keyd.keys, key, fd, R_ANY, &e), -1);
        close(fd);
    }
    ck_assert_uint_eq(keyd.keys.n, 0);
}
END_TEST

static int
sign(enum key_how how, const char *data, size_t n)
{
    struct buf out = buf_new(2048);
    struct err e = {0};
    int r = keyd_sign(&keyd.keys.at[0], how, str_of(data, n), &out, &e);
    ck_assert(r < 0 ? e.class == ERR_PERMANENT : out.n > 0);
    buf_free(&out);
    return r;
}

START_TEST(rsa_signs_only_what_tls_needs)
{
    static const char sha256[] =
        "\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20";
    char data[300] = {0};
    load("rsa.example");
    memcpy(data, sha256, 19);
    ck_assert_int_eq(sign(KEY_RSA_PKCS1, data, 51), 0);
    ck_assert_int_eq(sign(KEY_RSA_PKCS1, data, 50), -1);
    ck_assert_int_eq(sign(KEY_RSA_PKCS1, data, 52), -1);
    ck_assert_int_eq(sign(KEY_RSA_PKCS1, data, 0), -1);
    data[3] ^= 1;
    ck_assert_int_eq(sign(KEY_RSA_PKCS1, data, 51), -1);
    memset(data, 0x55, sizeof data);
    data[255] = (char)0xbc;
    ck_assert_int_eq(sign(KEY_RSA_RAW, data, 256), 0);
    ck_assert_int_eq(sign(KEY_RSA_RAW, data, 255), -1);
    ck_assert_int_eq(sign(KEY_RSA_RAW, data, 257), -1);
    data[0] = (char)0x80;
    ck_assert_int_eq(sign(KEY_RSA_RAW, data, 256), -1);
    data[0] = 0;
    data[255] = 1;
    ck_assert_int_eq(sign(KEY_RSA_RAW, data, 256), -1);
    ck_assert_int_eq(sign(KEY_ECDSA, data, 32), -1);
    ck_assert_int_eq(sign((enum key_how)77, data, 32), -1);
    keyd_keys_free(&keyd.keys);
}
END_TEST

START_TEST(ecdsa_signs_only_digests)
{
    char data[80] = {1};
    load("ec.example");
    ck_assert_int_eq(sign(KEY_ECDSA, data, 32), 0);
    ck_assert_int_eq(sign(KEY_ECDSA, data, 48), 0);
    ck_assert_int_eq(sign(KEY_ECDSA, data, 64), 0);
    ck_assert_int_eq(sign(KEY_ECDSA, data, 0), -1);
    ck_assert_int_eq(sign(KEY_ECDSA, data, 31), -1);
    ck_assert_int_eq(sign(KEY_ECDSA, data, 65), -1);
    ck_assert_int_eq(sign(KEY_RSA_PKCS1, data, 51), -1);
    ck_assert_int_eq(sign(KEY_RSA_RAW, data, 64), -1);
    keyd_keys_free(&keyd.keys);
}
END_TEST

START_TEST(signatures_are_rationed)
{
    for (int i = 0; i < KEYD_BURST; i++)
        ck_assert(keyd_allow(&keyd, 1000));
    ck_assert(!keyd_allow(&keyd, 1000));
    ck_assert(keyd_allow(&keyd, 1001));
    ck_assert(keyd_allow(&keyd, 1001));
    ck_assert(!keyd_allow(&keyd, 1001));
    for (int i = 0; i < KEYD_BURST; i++)
        ck_assert(keyd_allow(&keyd, 100000000));
    ck_assert(!keyd_allow(&keyd, 100000000));
}
END_TEST

static int
ask_chain(int fd, uint32_t index, struct err *e)
{
    struct msg m = {0};
    msg_begin(&m, M_KEY_CHAIN);
    msg_put_u32(&m, index);
    int r = chan_ask(fd, &m, M_KEY_CHAIN_IS, R_TLSD, R_KEYD, 5000, e);
    if (r == 0)
        ck_assert_uint_eq(msg_get_u32(&m), 1);
    msg_free(&m);
    return r;
}

static int
ask_of(enum role front, enum msg_type type, uint32_t index, char *name_r)
{
    struct msg m = {0}, reply = {0};
    struct err e = {0};
    char digest[32] = "what a client wants signed";
    msg_begin(&m, type);
    msg_put_u32(&m, index);
    if (type == M_KEY_SIGN) {
        msg_put_u32(&m, KEY_ECDSA);
        msg_put_str(&m, str_of(digest, sizeof digest));
    }
    int r = keyd_answer(&keyd, R_TLSD, front, &m, &reply, &e);
    ck_assert(r == 0 || e.class == ERR_PERMANENT);
    uint32_t keys;
    const struct keyd_key *k = keyd_keys_of(&keyd.keys, front, index, &keys);
    ck_assert((r == 0) == (k != NULL));
    snprintf(name_r, 80, "%s", k ? k->name : "");
    msg_free(&m);
    msg_free(&reply);
    return r;
}

/* A front has its own keys, numbered from 0; those of others are not there, whatever is asked. */
START_TEST(keys_are_for_their_fronts)
{
    static const unsigned fronts[] = {R_SMTPD | R_IMAPD, R_IMAPD, R_SUBMITD};
    static const char *const names[] = {"ec.one.example", "ec.two.example", "ec.three.example"};
    static const enum msg_type types[] = {M_KEY_CHAIN, M_KEY_SIGN};
    char name[80];
    for (size_t i = 0; i < 3; i++) {
        load(names[i]);
        keyd.keys.at[i].fronts = fronts[i];
    }
    for (size_t i = 0; i < 2; i++) {
        ck_assert_int_eq(ask_of(R_SMTPD, types[i], 0, name), 0);
        ck_str(str_z(name), "ec.one.example");
        ck_assert_int_eq(ask_of(R_IMAPD, types[i], 1, name), 0);
        ck_str(str_z(name), "ec.two.example");
        ck_assert_int_eq(ask_of(R_SUBMITD, types[i], 0, name), 0);
        ck_str(str_z(name), "ec.three.example");
        for (uint32_t index = 1; index < 20; index++)
            ck_assert_int_eq(ask_of(R_SMTPD, types[i], index, name), -1);
        ck_assert_int_eq(ask_of(R_SMTPD, types[i], UINT32_MAX, name), -1);
        ck_assert_int_eq(ask_of(R_IMAPD, types[i], 2, name), -1);
        ck_assert_int_eq(ask_of(R_POP3D, types[i], 0, name), -1);
        ck_assert_int_eq(ask_of(R_NONE, types[i], 0, name), -1);
    }
    keyd_keys_free(&keyd.keys);
}
END_TEST

/* Catalogue E9: what a peer says wrong costs that peer its channel, and nothing else. */
START_TEST(expiry_is_told_in_time)
{
    enum { DAY = 86400 };
    load("ec.one.example");
    struct keyd_key *k = &keyd.keys.at[0];
    ck_str(str_z(k->name), "ec.one.example");
    int64_t end = k->end_s;
    ck_assert_int_eq(expiry_days(k, end), 0);
    ck_assert_int_eq(expiry_days(k, end - DAY + 1), 0);
    ck_assert_int_eq(expiry_days(k, end - DAY), 1);
    ck_assert_int_eq(expiry_days(k, end + 1), -1);
    ck_assert_int_eq(expiry_days(k, end + DAY + 1), -2);
    unsigned told[40] = {0};
    for (int left = 39; left >= 0; left--)
        told[left] = expiry_tell(&keyd.keys, end - (int64_t)left * DAY);
    for (int left = 0; left < 40; left++)
        ck_assert_uint_eq(told[left], left == 30 || left == 14 || left == 7 || left == 1);
    for (int i = 0; i < 3; i++) /* over: every day */
        ck_assert_uint_eq(expiry_tell(&keyd.keys, end + 1 + (int64_t)i * DAY), 1);
    k->told = 0; /* started anew in between */
    ck_assert_uint_eq(expiry_tell(&keyd.keys, end - 10 * DAY), 1);
    keyd_keys_free(&keyd.keys);
}
END_TEST

START_TEST(names_and_dates_are_told)
{
    struct msg m = {0}, reply = {0};
    struct err e = {0};
    load("rsa.one.example");
    load("ec.two.example");
    msg_begin(&m, M_KEY_DATES);
    ck_assert_int_eq(keyd_answer(&keyd, R_CTL, R_NONE, &m, &reply, &e), 0);
    ck_assert_uint_eq(msg_get_u32(&reply), 2);
    ck_str(msg_get_str(&reply), "rsa.one.example");
    ck_assert(msg_get_u64(&reply) == (uint64_t)keyd.keys.at[0].end_s);
    ck_str(msg_get_str(&reply), "ec.two.example");
    (void)msg_get_u64(&reply);
    ck_assert(msg_end(&reply));
    msg_free(&m);
    msg_free(&reply);
    keyd_keys_free(&keyd.keys);
}
END_TEST

START_TEST(garbage_closes_one_peer_only)
{
    struct keyring k;
    struct err e = {0};
    struct msg m = {0};
    keyring_start(&k, R_TLSD, (const char *const[]){"ec.example", NULL});
    int good = chan_open(start_door_for(&k.start, R_KEYD, R_SMTPD), NULL, &e),
        bad = chan_open(start_door_for(&k.start, R_KEYD, R_SMTPD), NULL, &e);
    ck_assert(good >= 0 && bad >= 0);
    ck_assert_int_eq(ask_chain(bad, 0, &e), 0);
    ck_assert_int_eq(ask_chain(bad, 1, &e), -1);
    ck_assert_int_eq(e.class, ERR_PERMANENT);
    ck_assert_int_eq(ask_chain(bad, 0, &e), 0);
    ck_assert_int_eq(write(bad, "garbage", 7), 7);
    ck_assert_int_eq(chan_recv(bad, &m, R_KEYD, R_TLSD, 5000, &e), 0);
    close(bad);
    bad = chan_open(start_door_for(&k.start, R_KEYD, R_SMTPD), NULL, &e);
    msg_begin(&m, M_KEY_SIGN); /* fields missing */
    ck_assert_int_eq(chan_send(bad, &m, 1000, &e), 0);
    ck_assert_int_eq(chan_recv(bad, &m, R_KEYD, R_TLSD, 5000, &e), 0);
    msg_free(&m);
    ck_assert_int_eq(ask_chain(good, 0, &e), 0);
    keyring_stop(&k);
}
END_TEST

Suite *suite_keyd(void);
Suite *
suite_keyd(void)
{
    Suite *s = suite_create("keyd");
    TCase *t = tcase_create("keyd");
    tcase_set_timeout(t, 300);
    tcase_add_test(t, foreign_certificate_is_refused);
    tcase_add_test(t, what_is_no_key_is_refused);
    tcase_add_test(t, rsa_signs_only_what_tls_needs);
    tcase_add_test(t, ecdsa_signs_only_digests);
    tcase_add_test(t, signatures_are_rationed);
    tcase_add_test(t, expiry_is_told_in_time);
    tcase_add_test(t, names_and_dates_are_told);
    tcase_add_test(t, keys_are_for_their_fronts);
    tcase_add_test(t, garbage_closes_one_peer_only);
    suite_add_tcase(s, t);
    return s;
}
