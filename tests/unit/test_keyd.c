/* keyd: which keys it takes, what it signs, and what it refuses. */
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
    ck_assert_msg(keyd_keys_add(&keyd.keys, key_fd, chain_fd, &e) == 0, "%s", e.text);
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
    ck_assert_int_eq(keyd_keys_add(&keyd.keys, key1, chain2, &e), -1);
    ck_str(str_z(e.text), "key 0: the certificate does not belong to the private key");
    ck_assert_uint_eq(keyd.keys.n, 0);
    ck_assert_int_eq(keyd_keys_add(&keyd.keys, key2, chain2, &e), 0);
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
        ck_assert_int_eq(keyd_keys_add(&keyd.keys, fd, chain, &e), -1);
        ck_assert_int_eq(keyd_keys_add(&keyd.keys, key, fd, &e), -1);
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

/* Catalogue E9: what a peer says wrong costs that peer its channel, and nothing else. */
START_TEST(garbage_closes_one_peer_only)
{
    struct keyring k;
    struct err e = {0};
    struct msg m = {0};
    keyring_start(&k, R_TLSD, (const char *const[]){"ec.example", NULL});
    int good = start_channel(&k.start, R_KEYD, NULL, &e),
        bad = start_channel(&k.start, R_KEYD, NULL, &e);
    ck_assert(good >= 0 && bad >= 0);
    ck_assert_int_eq(ask_chain(bad, 0, &e), 0);
    ck_assert_int_eq(ask_chain(bad, 1, &e), -1);
    ck_assert_int_eq(e.class, ERR_PERMANENT);
    ck_assert_int_eq(ask_chain(bad, 0, &e), 0);
    ck_assert_int_eq(write(bad, "garbage", 7), 7);
    ck_assert_int_eq(chan_recv(bad, &m, R_KEYD, R_TLSD, 5000, &e), 0);
    close(bad);
    bad = start_channel(&k.start, R_KEYD, NULL, &e);
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
    tcase_add_test(t, garbage_closes_one_peer_only);
    suite_add_tcase(s, t);
    return s;
}
