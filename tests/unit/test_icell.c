/* icell, pcell: whole sessions in this process, their input split at each offset, and the parsers
 * of arguments at their ceilings. */
#include "imapd/cell/args.h"
#include "imapd/cell/fetch.h"
#include "imapd/cell/search.h"
#include "imapd/cell/seqset.h"
#include "pop3d/cell/pcell.h"
#include "tests/unit/maildir.h"
#include "tests/unit/unit.h"
#include <sys/socket.h>
#include <sys/stat.h>

/* Say all of input, the first `early` bytes through the front, and collect the answers. */
static void
converse(bool pop, struct str input, size_t early, struct buf *out)
{
    static struct icell ic;
    static struct pcell pc;
    int pair[2], size = 1 << 20;
    char room[4096];
    ssize_t n;
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    struct str late = str_from(input, early);
    ck_assert(write(pair[0], late.p, late.n) == (ssize_t)late.n);
    shutdown(pair[0], SHUT_WR);
    if (pop) {
        pcell_run(&pc, pair[1], root, str_sub(input, 0, early));
        pcell_free(&pc);
    } else {
        ic.message_size_max = 256 << 20;
        icell_run(&ic, pair[1], root, STR("t"), str_sub(input, 0, early));
        icell_free(&ic);
    }
    close(pair[1]);
    while ((n = read(pair[0], room, sizeof room)) > 0)
        buf_add(out, str_of(room, (size_t)n));
    close(pair[0]);
}

static const char script[] =
    "a EXAMINE INBOX\r\nb FETCH 1 (FLAGS BODY.PEEK[HEADER.FIELDS ({7}\r\nSubject \"X\")]<0.4>)\r\n"
    "c SEARCH {3}\r\nALL\r\nd SEARCH OR SUBJECT {2+}\r\nhi (NOT SEEN 1)\r\ne STATUS \"INBOX\" "
    "(UNSEEN)\r\n"
    "f UID FETCH 1:* (ENVELOPE BODYSTRUCTURE)\r\ng NONSENSE\r\n\r\nh IDLE\r\nDONE\r\n"
    "i LIST \"\" %\r\nj LOGOUT\r\n";

START_TEST(input_split_at_each_offset)
{
    struct buf whole = buf_new(1 << 20), part = buf_new(1 << 20);
    plant("new/1.a.h", "Subject: hi\nTo: g:a@b;\n\nx\n");
    converse(false, STR(script), 0, &whole); /* gives UIDs: the next sees what all later see */
    buf_reset(&whole);
    converse(false, STR(script), 0, &whole);
    ck_assert(str_find(buf_str(&whole), STR("<0> {4}\r\nSubj)")) > 0);
    ck_assert(str_find(buf_str(&whole), STR("d OK")) > 0);
    ck_assert(str_find(buf_str(&whole), STR("h OK")) > 0);
    ck_assert(str_find(buf_str(&whole), STR("j OK")) > 0);
    for (size_t k = 0; k < sizeof script; k++) {
        buf_reset(&part);
        converse(false, STR(script), k, &part);
        ck_assert_msg(str_eq(buf_str(&whole), buf_str(&part)), "at %zu:\n%s\nnot\n%s", k,
                      buf_z(&part), buf_z(&whole));
    }
    buf_free(&whole);
    buf_free(&part);
}
END_TEST

START_TEST(input_that_ends_at_each_offset)
{
    struct buf out = buf_new(1 << 20);
    plant("new/1.a.h", "Subject: hi\n\nx\n");
    for (size_t k = 0; k < sizeof script; k++) {
        buf_reset(&out);
        converse(false, str_sub(STR(script), 0, k), k / 2, &out);
        ck_assert(str_starts(buf_str(&out), STR("t OK [CAPABILITY ")));
    }
    buf_free(&out);
}
END_TEST

START_TEST(changing_session_frees_all)
{
    static const char changes[] =
        "a SELECT INBOX\r\nb CREATE Sub\r\nc COPY 1 Sub\r\nd STORE 1 +FLAGS (\\Deleted $k)\r\n"
        "e APPEND INBOX (\\Seen) {14+}\r\nSubject: z\r\n\r\n\r\nf FETCH 1:* BODY[]\r\ng CLOSE\r\n"
        "h APPEND Sub {5+}\r\nabc\r\n\r\ni STATUS Sub (MESSAGES)\r\nj SELECT Sub\r\nk SEARCH BODY "
        "x\r\n"
        "l RENAME Sub B\r\nm DELETE B\r\nn SUBSCRIBE q\r\no LSUB \"\" *\r\np APPEND x "
        "{5+}\r\nabcdeq NOOP\r\n";
    struct buf out = buf_new(1 << 20);
    plant("new/1.a.h", "Subject: hi\n\nx\n");
    converse(false, STR(changes), 0, &out);
    ck_assert(str_find(buf_str(&out), STR("c OK [COPYUID ")) > 0);
    ck_assert(str_find(buf_str(&out), STR("e OK [APPENDUID ")) > 0);
    ck_assert(str_find(buf_str(&out), STR("* STATUS Sub (MESSAGES 2)")) > 0);
    /* The selected folder has gone, under its second name: the session cannot go on. */
    ck_assert(str_find(buf_str(&out), STR("* BYE ")) > 0);
    ck_assert(str_find(buf_str(&out), STR("m OK")) > 0);
    ck_assert(str_find(buf_str(&out), STR("n OK")) < 0);
    buf_free(&out);
}
END_TEST

START_TEST(pop3_split_at_each_offset)
{
    static const char pop[] =
        "STAT\r\nLIST\r\nUIDL 1\r\nTOP 1 1\r\nRETR 1\r\nDELE 1\r\nRSET\r\nX\r\nQUIT\r\n";
    struct buf whole = buf_new(1 << 20), part = buf_new(1 << 20);
    plant("new/1.a.h", "Subject: hi\n\n.x\ny\n");
    converse(true, STR(pop), 0, &whole);
    ck_assert(str_find(buf_str(&whole), STR("\r\n\r\n..x\r\ny\r\n.\r\n")) > 0);
    for (size_t k = 0; k < sizeof pop; k++) {
        buf_reset(&part);
        converse(true, STR(pop), k, &part);
        ck_assert(str_eq(buf_str(&whole), buf_str(&part)));
        buf_reset(&part);
        converse(true, str_sub(STR(pop), 0, k), 0, &part);
    }
    buf_free(&whole);
    buf_free(&part);
}
END_TEST

/* ---- arguments ---- */

START_TEST(strings_and_atoms)
{
    struct arena arena = arena_new(65536);
    static const struct {
        const char *text, *want; /* NULL: refused */
    } cases[] = {{"abc d", "abc"},
                 {"\"a \\\"b\\\\\"", "a \"b\\"},
                 {"{3}\r\na\nb", "a\nb"},
                 {"{3+}\r\nabcd", "abc"},
                 {"{4}\r\nabc", NULL},
                 {"{3}abc", NULL},
                 {"\"abc", NULL},
                 {"\"a\\b\"", NULL},
                 {"", NULL},
                 {"(", NULL},
                 {"{70000}\r\n", NULL},
                 {"{}\r\n", NULL},
                 {"\"a\r\"", NULL},
                 {"a]b", "a]b"},
                 {"\"\"", ""}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct cursor c = cursor_of(str_z(cases[i].text));
        struct str s;
        int got = icell_arg_astring(&c, &arena, &s);
        ck_assert_msg((got == 0) == (cases[i].want != NULL), "%s", cases[i].text);
        if (got == 0)
            ck_str(s, cases[i].want);
    }
    arena_free(&arena);
}
END_TEST

START_TEST(output_strings)
{
    struct buf b = buf_new(4096);
    icell_put_nstring(&b, STR("a\"b\\"));
    icell_put_nstring(&b, str_of(NULL, 0));
    icell_put_nstring(&b, STR("\xc3\xbc"));
    icell_put_nstring(&b, STR("a\r\nb"));
    icell_put_astring(&b, STR("nil"));
    icell_put_astring(&b, STR("a b"));
    icell_put_astring(&b, STR("A.B"));
    ck_str(buf_str(&b), "\"a\\\"b\\\\\"NIL{2}\r\n\xc3\xbc{4}\r\na\r\nb\"nil\"\"a b\"A.B");
    buf_free(&b);
}
END_TEST

/* A session over n messages with UIDs 2, 4, 6, ... and nothing on disk. */
static void
fake(struct icell *ic, struct mailbox_message *msgs, size_t n)
{
    *ic = (struct icell){.arena = arena_new(8 << 20), .cmd = {.answer = buf_new(4096)}};
    for (size_t i = 0; i < n; i++)
        msgs[i] = (struct mailbox_message){.uid = (uint32_t)(2 * i + 2)};
    ic->mb.msgs = msgs;
    ic->mb.n = n;
}

static void
fake_end(struct icell *ic)
{
    arena_free(&ic->arena);
    buf_free(&ic->cmd.answer);
}

START_TEST(sequence_sets)
{
    static const struct {
        const char *text;
        bool uid;
        const char *want; /* NULL: refused */
    } cases[] = {{"1", false, "0"},
                 {"1:3", false, "0:2"},
                 {"3:1,2", false, "0:2"},
                 {"*", false, "9"},
                 {"8:*", false, "7:9"},
                 {"*:8", false, "7:9"},
                 {"11", false, NULL},
                 {"1:11", false, NULL},
                 {"2,4:6", true, "0:2"},
                 {"3", true, ""},
                 {"100:*", true, "9"},
                 {"4294967295:1", true, "0:9"},
                 {"19:4294967294", true, "9"},
                 {"0", false, NULL},
                 {"1:", false, NULL},
                 {"4294967296", true, NULL},
                 {"2,2,2,1:2", false, "0:1"}};
    static struct icell ic;
    struct mailbox_message msgs[10];
    fake(&ic, msgs, 10);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct cursor c = cursor_of(str_z(cases[i].text));
        struct icell_seqset set;
        size_t *at, n;
        bool good = icell_seqset_parse(&c, &ic.arena, &set) == 0 && cur_end(&c) &&
                    icell_seqset_resolve(&ic, &set, cases[i].uid, &ic.arena, &at, &n) == 0;
        ck_assert_msg(good == (cases[i].want != NULL), "%s", cases[i].text);
        if (!good)
            continue;
        uint32_t numbers[10];
        struct buf out = buf_new(200);
        for (size_t k = 0; k < n; k++)
            numbers[k] = (uint32_t)at[k];
        icell_seqset_add(&out, numbers, n);
        ck_str(buf_str(&out), cases[i].want);
        buf_free(&out);
    }
    fake_end(&ic);
}
END_TEST

static int
try_set(size_t ranges)
{
    struct buf b = buf_new(1 << 20);
    struct arena arena = arena_new(8 << 20);
    struct icell_seqset set;
    for (size_t i = 0; i < ranges; i++)
        buf_addz(&b, i ? ",1" : "1");
    struct cursor c = cursor_of(buf_str(&b));
    int result = icell_seqset_parse(&c, &arena, &set);
    arena_free(&arena);
    buf_free(&b);
    return result;
}

static int
try_fetch(const char *before, size_t n, const char *each, const char *after)
{
    static struct icell ic;
    struct buf b = buf_new(1 << 20);
    struct icell_fetch f;
    fake(&ic, NULL, 0);
    buf_addz(&b, before);
    for (size_t i = 0; i < n; i++)
        buf_addf(&b, "%s%s", i ? " " : "", each);
    buf_addz(&b, after);
    struct cursor c = cursor_of(buf_str(&b));
    int result = icell_fetch_parse(&ic, &c, &f);
    fake_end(&ic);
    buf_free(&b);
    return result;
}

static int
try_search(size_t depth)
{
    static struct icell ic;
    struct mailbox_message msgs[1];
    struct buf b = buf_new(1 << 20);
    struct icell_search s;
    fake(&ic, msgs, 1);
    buf_addc(&b, ' ');
    for (size_t i = 0; i < depth; i++)
        buf_addz(&b, i % 2 ? "(" : "OR ALL ");
    buf_addz(&b, "ALL");
    for (size_t i = 0; i < depth / 2; i++)
        buf_addc(&b, ')');
    struct cursor c = cursor_of(buf_str(&b));
    int result = icell_search_parse(&ic, &c, &s);
    if (result == 0)
        ck_assert(icell_search_match(&ic, &s, 0));
    icell_search_free(&s);
    fake_end(&ic);
    buf_free(&b);
    return result;
}

START_TEST(ceilings_of_arguments)
{
    ck_assert_int_eq(try_set(ICELL_SEQSET_MAX), 0);
    ck_assert_int_eq(try_set(ICELL_SEQSET_MAX + 1), -1);
    ck_assert_int_eq(try_fetch(" (", ICELL_FETCH_MAX, "FLAGS", ")"), 0);
    ck_assert_int_eq(try_fetch(" (", ICELL_FETCH_MAX + 1, "FLAGS", ")"), -1);
    ck_assert_int_eq(try_fetch(" BODY[HEADER.FIELDS (", ICELL_FIELDS_MAX, "x", ")]"), 0);
    ck_assert_int_eq(try_fetch(" BODY[HEADER.FIELDS (", ICELL_FIELDS_MAX + 1, "x", ")]"), -1);
    ck_assert_int_eq(try_search(ICELL_NESTING_MAX), 0);
    ck_assert_int_eq(try_search(ICELL_NESTING_MAX + 1), -1);
    struct buf path = buf_new(65536);
    for (int over = 0; over < 2; over++) {
        buf_reset(&path);
        buf_addz(&path, " BODY[");
        for (int i = 0; i < ICELL_SECTION_MAX + over; i++)
            buf_addz(&path, i ? ".1" : "1");
        ck_assert_int_eq(try_fetch(buf_z(&path), 0, "", "]"), over ? -1 : 0);
    }
    buf_free(&path);
}
END_TEST

/* What FETCH, SEARCH, SORT's search and QUOTA's names take: every beginning and every change of one
 * byte is parsed or refused, within the text. */
static void
try_any(struct str text)
{
    static struct icell ic;
    struct mailbox_message msgs[4];
    struct icell_fetch f;
    struct icell_search s;
    fake(&ic, msgs, 4);
    struct cursor c = cursor_of(text);
    if (icell_fetch_parse(&ic, &c, &f) == 0)
        ck_assert(cur_end(&c) && f.n <= ICELL_FETCH_MAX);
    for (int charset = 0; charset < 2; charset++) {
        c = cursor_of(text);
        if ((charset ? icell_search_parse_charset : icell_search_parse)(&ic, &c, &s) == 0)
            ck_assert(cur_end(&c) && s.n > 0);
        icell_search_free(&s);
    }
    fake_end(&ic);
}

START_TEST(arguments_changed)
{
    static const char *const good[] = {
        " (FLAGS PREVIEW (LAZY) BINARY.PEEK[1.2]<0.10> BINARY.SIZE[3] BODY[1.MIME])",
        " PREVIEW (CHANGEDSINCE 5)", " BINARY[]",
        " UTF-8 OR NOT SEEN (SUBJECT {2}\r\nab MODSEQ 4) UID 1:3,* HEADER a \"b\\\"\"",
        " CHARSET UTF-8 SENTSINCE 1-Jan-2020 YOUNGER 5"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct str s = str_z(good[i]);
        char copy[128];
        for (size_t n = 0; n <= s.n; n++)
            try_any(str_sub(s, 0, n));
        for (size_t at = 0; at < s.n; at++)
            for (int b = 0; b < 256; b++) {
                memcpy(copy, s.p, s.n);
                copy[at] = (char)b;
                try_any(str_of(copy, s.n));
            }
    }
}
END_TEST

static void
preview_of(struct str message, struct buf *out)
{
    struct arena arena = arena_new(8 << 20);
    struct mime m;
    const struct mailfile f = {.text = message, .whole = true, .size = message.n};
    ck_assert_int_eq(mime_parse(message, &arena, &m), 0);
    icell_preview(out, &m, &f);
    ck_assert(buf_ok(out) && str_utf8(buf_str(out)));
    mime_free(&m);
    arena_free(&arena);
}

START_TEST(previews_changed)
{
    static const char *const good[] = {
        "Content-Type: text/html; charset=utf-8\r\n\r\n<p a=\"x>\">a&amp;b<!-- c "
        "--><style>d</style>"
        "\xc3\xbc\xe2\x82\xac\xf0\x9f\x98\x80</p>\r\n",
        "Content-Transfer-Encoding: base64\r\n\r\nw7zigqzwn5iA\r\n",
        "Content-Transfer-Encoding: quoted-printable\r\n\r\n=C3=BC=\r\n=E2=82=AC\r\n"};
    struct buf out = buf_new(65536);
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct str s = str_z(good[i]);
        char copy[256];
        for (size_t n = 0; n <= s.n; n++) {
            buf_reset(&out);
            preview_of(str_sub(s, 0, n), &out);
        }
        for (size_t at = 0; at < s.n; at++)
            for (int b = 1; b < 256; b++) {
                memcpy(copy, s.p, s.n);
                copy[at] = (char)b;
                buf_reset(&out);
                preview_of(str_of(copy, s.n), &out);
            }
    }
    buf_free(&out);
}
END_TEST

/* A compressed session of which one byte differs, or the end is missing: it ends, in order. */
START_TEST(compressed_input_changed)
{
    static const unsigned char z[] = {/* raw deflate of "a NOOP\r\nb LOGOUT\r\n" */
                                      0x4b, 0x54, 0xf0, 0xf3, 0xf7, 0x0f, 0xe0, 0xe5, 0x4a, 0x52,
                                      0xf0, 0xf1, 0x77, 0xf7, 0x0f, 0x0d, 0xe1, 0xe5, 0x02, 0x00};
    static const char begin[] = "x COMPRESS DEFLATE\r\n";
    char input[sizeof begin - 1 + sizeof z];
    struct buf out = buf_new(1 << 20);
    memcpy(input, begin, sizeof begin - 1);
    for (size_t n = 0; n <= sizeof z; n++) {
        memcpy(input + sizeof begin - 1, z, sizeof z);
        buf_reset(&out);
        converse(false, str_of(input, sizeof begin - 1 + n), n % 2 ? 0 : sizeof begin - 1 + n / 2,
                 &out);
        ck_assert(str_find(buf_str(&out), STR("x OK DEFLATE active\r\n")) > 0);
    }
    for (size_t at = 0; at < sizeof z; at++)
        for (int bit = 0; bit < 8; bit++) {
            memcpy(input + sizeof begin - 1, z, sizeof z);
            input[sizeof begin - 1 + at] ^= (char)(1 << bit);
            buf_reset(&out);
            converse(false, str_of(input, sizeof input), at % 3 ? 0 : sizeof begin - 1, &out);
        }
    buf_free(&out);
}
END_TEST

START_TEST(flags_in_lists)
{
    struct icell_flags f;
    static const char *const good[] = {"()", "(\\Seen)", "\\Seen \\Deleted x", "($a b)",
                                       "(\\Recent)"};
    static const char *const bad[] = {"(",    "(\\Nope)", "(\\Seen", "( \\Seen)",
                                      "(\\)", "",         "(a  b)"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct cursor c = cursor_of(str_z(good[i]));
        ck_assert_msg(icell_arg_flags(&c, false, &f) == 0 && cur_end(&c), "%s", good[i]);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct cursor c = cursor_of(str_z(bad[i]));
        ck_assert_msg(icell_arg_flags(&c, false, &f) < 0, "%s", bad[i]);
    }
}
END_TEST

Suite *suite_icell(void);
Suite *
suite_icell(void)
{
    Suite *s = suite_create("icell");
    TCase *t = tcase_create("icell");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 300);
    tcase_add_test(t, input_split_at_each_offset);
    tcase_add_test(t, input_that_ends_at_each_offset);
    tcase_add_test(t, changing_session_frees_all);
    tcase_add_test(t, pop3_split_at_each_offset);
    tcase_add_test(t, strings_and_atoms);
    tcase_add_test(t, output_strings);
    tcase_add_test(t, sequence_sets);
    tcase_add_test(t, ceilings_of_arguments);
    tcase_add_test(t, flags_in_lists);
    tcase_add_test(t, arguments_changed);
    tcase_add_test(t, previews_changed);
    tcase_add_test(t, compressed_input_changed);
    suite_add_tcase(s, t);
    return s;
}
