/* hmac, authd's tokens, and what is kept of an IMAP session that is parked: forged, cut, for
 * another socket, and taken up again after changes of every kind. */
#include "common/authd/authd.h"
#include "imapd/cell/park.h"
#include "imapd/idled/idled.h"
#include "lib/base/hmac.h"
#include "tests/unit/maildir.h"
#include "tests/unit/unit.h"
#include <sys/socket.h>

START_TEST(hmac_by_example)
{
    /* RFC 4231 4.3 and 4.4, keys filled up with zeros. */
    static const struct {
        const char *key, *data, *mac;
    } cases[] = {
        {"Jefe", "what do ya want for nothing?",
         "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"},
        {"\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b",
         "Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        unsigned char key[HMAC_KEY] = {0}, mac[HMAC_BYTES];
        char hex[2 * HMAC_BYTES + 1];
        memcpy(key, cases[i].key, strlen(cases[i].key));
        hmac_sha256(key, str_z(cases[i].data), mac);
        for (size_t k = 0; k < sizeof mac; k++)
            snprintf(hex + 2 * k, 3, "%02x", mac[k]);
        ck_assert_str_eq(hex, cases[i].mac);
        ck_assert(hmac_same(mac, mac));
        unsigned char other[HMAC_BYTES];
        memcpy(other, mac, sizeof other);
        other[31] ^= 1;
        ck_assert(!hmac_same(mac, other));
    }
}
END_TEST

START_TEST(tokens_of_authd)
{
    struct err e = {0};
    struct buf token = buf_new(1000), again = buf_new(1000);
    const struct account joe = {.name = STR("joe"),
                                .hash = STR("$y$one"),
                                .directory = STR("/m/joe"),
                                .uid = 200005,
                                .gid = 200005};
    const struct account eve = {.name = STR("eve"),
                                .hash = STR("$y$two"),
                                .directory = STR("/m/eve"),
                                .uid = 200006,
                                .gid = 200006};
    temp_quiet();
    ck_assert_int_eq(accounts_load(&authd.accounts, root, &e), 0);
    ck_assert_int_eq(accounts_add(&authd.accounts, &joe, &e), 0);
    ck_assert_int_eq(accounts_add(&authd.accounts, &eve, &e), 0);
    token_open(root);
    token_put(&token, accounts_find(&authd.accounts, STR("joe")));
    ck_assert_uint_le(token.n, PARK_TOKEN_MAX);
    ck_str(token_account(buf_str(&token))->name, "joe");
    /* Each bit, each length, and another's name. */
    for (size_t i = 0; i < token.n * 8; i++) {
        token.p[i / 8] = (char)(token.p[i / 8] ^ 1 << i % 8);
        ck_assert_ptr_null(token_account(buf_str(&token)));
        token.p[i / 8] = (char)(token.p[i / 8] ^ 1 << i % 8);
    }
    for (size_t n = 0; n < token.n; n++)
        ck_assert_ptr_null(token_account(str_sub(buf_str(&token), 0, n)));
    buf_addz(&again, "eve");
    buf_add(&again, str_from(buf_str(&token), 3));
    ck_assert_ptr_null(token_account(buf_str(&again)));
    /* The next authd knows it; the next password does not. */
    token_open(root);
    ck_assert_ptr_nonnull(token_account(buf_str(&token)));
    ck_assert_int_eq(accounts_set_hash(&authd.accounts, STR("joe"), STR("$y$new"), &e), 0);
    ck_assert_ptr_null(token_account(buf_str(&token)));
    ck_assert_int_eq(unlinkat(root, "park-key", 0), 0);
    token_put(&token, accounts_find(&authd.accounts, STR("eve")));
    token_open(root);
    ck_assert_ptr_null(token_account(str_from(buf_str(&token), again.n)));
    accounts_free(&authd.accounts);
    buf_free(&token);
    buf_free(&again);
}
END_TEST

/* ---- sessions ---- */

static int pair[2];

/* A session that has selected the INBOX and said "x IDLE". */
static void
begin(struct icell *ic)
{
    struct err e;
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    icell_begin(ic, pair[1], root);
    ck_assert_int_eq(mailbox_open(&ic->mb, root, STR("INBOX"), false, &e), 0);
    ic->mb_open = true;
    ic->state = ICELL_SELECTED;
    ic->told_exists = ic->mb.n;
    icell_tell(ic, true);
    buf_addz(&ic->cmd.text, "x");
    ic->cmd.tag = buf_str(&ic->cmd.text);
}

/* What the client has been told, without its own copy of it being in the way. */
static void
told(struct icell *ic, struct buf *out)
{
    char room[65536];
    ck_assert_int_eq(stream_flush(&ic->s, NULL), 0);
    ssize_t n = recv(pair[0], room, sizeof room, MSG_DONTWAIT);
    buf_reset(out);
    if (n > 0)
        buf_add(out, str_of(room, (size_t)n));
}

static void
end(struct icell *ic)
{
    icell_free(ic);
    close(pair[0]);
    close(pair[1]);
}

/* The session's state, and another process's session made of it. */
static int
again(struct icell *ic, struct buf *state)
{
    int64_t end_ms;
    icell_free(ic);
    *ic = (struct icell){0};
    icell_begin(ic, pair[1], root);
    return icell_park_read(ic, buf_str(state), &end_ms);
}

static void
ten(void)
{
    char name[40];
    temp_quiet();
    for (int i = 0; i < 10; i++) {
        snprintf(name, sizeof name, "cur/%d.m%d.h:2,", 1000 + i, i);
        plant(name, "Subject: x\r\n\r\ny\r\n");
    }
}

START_TEST(what_changed_meanwhile_is_told)
{
    static struct icell ic, other;
    struct buf state = buf_new(PARK_STATE_MAX), out = buf_new(65536);
    struct err e;
    int idle[2];
    ten();
    begin(&ic);
    ic.condstore = ic.rev2 = true;
    told(&ic, &out);
    ck_assert(icell_can_park(&ic, 0));
    ck_assert_int_eq(icell_park_write(&ic, 1234, &state), 0);
    ck_assert_uint_lt(state.n, 400);
    memcpy(idle, pair, sizeof idle);
    /* Another session: flags, an expunge of two, and new mail, of which one goes again. */
    begin(&other);
    ck_assert_int_eq(mailbox_store(&other.mb, 0, MAILBOX_ADD, MAILBOX_SEEN, 0, &e), 0);
    ck_assert_int_eq(mailbox_unlink(&other.mb, 3, &e), 0);
    ck_assert_int_eq(mailbox_unlink(&other.mb, 9, &e), 0);
    plant("new/2000.new.h", "Subject: n\r\n\r\ny\r\n");
    plant("new/2001.gone.h", "Subject: g\r\n\r\ny\r\n");
    ck_assert_int_eq(mailbox_refresh(&other.mb, &e), 0);
    ck_assert_int_eq(mailbox_unlink(&other.mb, 11, &e), 0);
    end(&other);
    memcpy(pair, idle, sizeof idle);
    ck_assert_int_eq(again(&ic, &state), 0);
    ck_assert(ic.condstore && ic.rev2 && !ic.utf8 && ic.mb_open);
    ck_str(ic.cmd.tag, "x");
    icell_tell(&ic, true);
    told(&ic, &out);
    ck_assert_msg(str_starts(buf_str(&out), STR("* 10 EXPUNGE\r\n* 4 EXPUNGE\r\n* 9 EXISTS\r\n"
                                                "* 1 FETCH (UID 1 FLAGS (\\Seen) MODSEQ (")),
                  "%s", buf_z(&out));
    ck_assert(str_find(buf_str(&out), STR("FLAGS (\\Answered")) < 0); /* the list was told */
    ck_assert_uint_eq(ic.mb.n, 9);
    ck_assert_uint_eq(ic.mb.msgs[8].uid, 11);
    end(&ic);
    buf_free(&state);
    buf_free(&out);
}
END_TEST

START_TEST(nothing_changed_nothing_is_told)
{
    static struct icell ic;
    struct buf state = buf_new(PARK_STATE_MAX), out = buf_new(65536);
    ten();
    plant("new/3000.r.h", "Subject: r\r\n\r\ny\r\n");
    for (int turn = 0; turn < 3; turn++) {
        if (turn == 0) {
            begin(&ic);
        } else {
            ck_assert_int_eq(again(&ic, &state), 0);
            icell_tell(&ic, true);
        }
        told(&ic, &out);
        ck_assert_msg(turn == 0 || out.n == 0, "%s", buf_z(&out));
        ck_assert_uint_eq(mailbox_count(&ic.mb).recent, 1); /* also \Recent is as it was */
        ck_assert(ic.mb.msgs[10].recent);
        buf_reset(&state);
        ck_assert_int_eq(icell_park_write(&ic, 1, &state), 0);
    }
    end(&ic);
    buf_free(&state);
    buf_free(&out);
}
END_TEST

START_TEST(states_that_are_none)
{
    static struct icell ic;
    struct buf state = buf_new(PARK_STATE_MAX), out = buf_new(65536);
    int64_t end_ms;
    ten();
    begin(&ic);
    told(&ic, &out);
    ck_assert_int_eq(icell_park_write(&ic, 1, &state), 0);
    for (size_t i = 0; i < state.n; i++) {
        state.p[i] = (char)(state.p[i] ^ 4);
        ck_assert_int_lt(again(&ic, &state), 0);
        state.p[i] = (char)(state.p[i] ^ 4);
    }
    for (size_t n = 0; n < state.n; n++)
        ck_assert_int_lt(icell_park_read(&ic, str_sub(buf_str(&state), 0, n), &end_ms), 0);
    /* For another socket, though it leads to the same peer's program. */
    int mine[2] = {pair[0], pair[1]};
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    ck_assert_int_lt(again(&ic, &state), 0);
    close(pair[0]);
    close(pair[1]);
    pair[0] = mine[0];
    pair[1] = mine[1];
    /* Of another account: another key. */
    ck_assert_int_eq(renameat(root, "bulkhead-park", root, "kept"), 0);
    ck_assert_int_lt(again(&ic, &state), 0);
    plant("bulkhead-park", "01234567890123456789012345678901");
    ck_assert_int_lt(again(&ic, &state), 0);
    ck_assert_int_eq(renameat(root, "kept", root, "bulkhead-park"), 0);
    ck_assert_int_eq(again(&ic, &state), 0);
    /* One byte more than fits. */
    struct buf large = buf_new(2 * PARK_STATE_MAX);
    for (size_t i = 0; i <= PARK_STATE_MAX; i++)
        buf_addc(&large, 'x');
    ck_assert_int_lt(icell_park_read(&ic, buf_str(&large), &end_ms), 0);
    buf_free(&large);
    end(&ic);
    buf_free(&state);
    buf_free(&out);
}
END_TEST

START_TEST(a_folder_that_cannot_be_told_apart_any_more)
{
    static struct icell ic;
    struct buf state = buf_new(PARK_STATE_MAX), out = buf_new(65536);
    ten();
    begin(&ic);
    told(&ic, &out);
    ck_assert_int_eq(icell_park_write(&ic, 1, &state), 0);
    icell_unselect(&ic);
    /* What went is known to the index only, and that is lost. */
    ck_assert_int_eq(unlinkat(root, "bulkhead.index", 0), 0);
    struct buf name = buf_new(300);
    struct mailbox mb;
    struct err e;
    ck_assert_int_eq(mailbox_open(&mb, root, STR("INBOX"), false, &e), 0);
    ck_assert_int_eq(mailbox_name(&mb, 2, &name), 0);
    mailbox_close(&mb);
    ck_assert_int_eq(unlinkat(root, "bulkhead.index", 0), 0);
    char path[400];
    snprintf(path, sizeof path, "cur/%s", buf_z(&name));
    ck_assert_int_eq(unlinkat(root, path, 0), 0);
    ck_assert_int_eq(again(&ic, &state), 0);
    ck_assert_int_eq(ic.state, ICELL_LOGOUT);
    told(&ic, &out);
    ck_assert(str_starts(buf_str(&out), STR("* BYE ")));
    end(&ic);
    buf_free(&state);
    buf_free(&out);
    buf_free(&name);
}
END_TEST

START_TEST(sessions_that_are_not_parked)
{
    static struct icell ic;
    static uint32_t saved[1];
    struct buf out = buf_new(65536);
    ten();
    begin(&ic);
    told(&ic, &out);
    ck_assert(icell_can_park(&ic, 0));
    ck_assert(!icell_can_park(&ic, -1)); /* nobody would tell of new mail */
    ic.saved = saved;
    ic.nsaved = 1;
    ck_assert(!icell_can_park(&ic, 0));
    ic.saved = NULL;
    ic.nsaved = 0;
    stream_preload(&ic.s, STR("D"));
    ck_assert(!icell_can_park(&ic, 0));
    stream_take(&ic.s, 1);
    ic.mb.news = true;
    ck_assert(!icell_can_park(&ic, 0));
    ic.mb.news = false;
    ic.mb.msgs[3].recent = true; /* another session took those behind it */
    ck_assert(!icell_can_park(&ic, 0));
    ic.mb.msgs[3].recent = false;
    ck_assert(icell_can_park(&ic, 0));
    icell_unselect(&ic);
    ck_assert(icell_can_park(&ic, -1));
    end(&ic);
    buf_free(&out);
}
END_TEST

Suite *suite_imap_park(void);
Suite *
suite_imap_park(void)
{
    Suite *s = suite_create("imap_park");
    TCase *t = tcase_create("all");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, hmac_by_example);
    tcase_add_test(t, tokens_of_authd);
    tcase_add_test(t, what_changed_meanwhile_is_told);
    tcase_add_test(t, nothing_changed_nothing_is_told);
    tcase_add_test(t, states_that_are_none);
    tcase_add_test(t, a_folder_that_cannot_be_told_apart_any_more);
    tcase_add_test(t, sessions_that_are_not_parked);
    suite_add_tcase(s, t);
    return s;
}
