/* lib/smtp: the dot codec, command lines, replies, EHLO keywords, headers, Received. */
#include "lib/smtp/command.h"
#include "lib/smtp/dot.h"
#include "lib/smtp/ehlo.h"
#include "lib/smtp/head.h"
#include "lib/smtp/received.h"
#include "tests/unit/unit.h"
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* Feed in, in pieces of step bytes (0: whole) with a cut at cut; what was decoded goes to out. */
static enum dot_step
decode(struct str in, size_t cut, size_t step, struct buf *out, size_t *used_r)
{
    struct dot_decoder d = {0};
    size_t from = 0;
    buf_reset(out);
    for (;;) {
        size_t to = step ? from + step : from < cut ? cut : in.n;
        struct str chunk = str_sub(in, from, to - from), piece;
        size_t at = 0;
        enum dot_step got;
        while ((got = dot_decode(&d, chunk, &at, &piece)) == DOT_PIECE) {
            ck_assert_uint_gt(piece.n, 0);
            buf_add(out, piece);
        }
        ck_assert_uint_le(at, chunk.n);
        *used_r = from + at;
        if (got != DOT_MORE || to >= in.n)
            return got;
        ck_assert_uint_eq(at, chunk.n);
        from = to;
    }
}

START_TEST(dot_decoder_at_each_split)
{
    static const char *const cases[][2] = {
        {".\r\n", ""},
        {"a\r\n.\r\n", "a\r\n"},
        {"..\r\n.\r\n", ".\r\n"},
        {".a\r\n..b\r\n...\r\n\r\n.\r\n", "a\r\n.b\r\n..\r\n\r\n"},
        {"a.b\r\n.c.\r\n.\r\n", "a.b\r\nc.\r\n"},
        {"a: b\r\n\r\nbody\r\n.\r\n", "a: b\r\n\r\nbody\r\n"},
    };
    struct buf out = buf_new(1000);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char with_more[200];
        size_t n = strlen(cases[i][0]), used;
        snprintf(with_more, sizeof with_more, "%sQUIT\r\n", cases[i][0]);
        struct str in = str_z(with_more);
        for (size_t cut = 0; cut <= in.n; cut++) {
            ck_assert_int_eq(decode(in, cut, 0, &out, &used), DOT_END);
            ck_str(buf_str(&out), cases[i][1]);
            ck_assert_uint_eq(used, n);
        }
        for (size_t step = 1; step < 4; step++)
            ck_assert_int_eq(decode(in, 0, step, &out, &used), DOT_END);
        ck_str(buf_str(&out), cases[i][1]);
        for (size_t prefix = 0; prefix < n; prefix++)
            ck_assert_int_eq(decode(str_of(with_more, prefix), 0, 0, &out, &used), DOT_MORE);
    }
    buf_free(&out);
}
END_TEST

/* Catalogue A1: nothing but CR LF . CR LF ends a message; a bare CR or LF condemns it. */
START_TEST(dot_decoder_is_not_smuggled_past)
{
    static const struct {
        const char *p;
        size_t n;
        bool bare;
    } seqs[] = {{"\n.\n", 3, true},        {"\r.\r", 3, true},       {"\r.\n", 3, true},
                {"\n.\r", 3, true},        {"\n.\r\n", 4, true},     {"\r\n.\n", 4, true},
                {"\r.\r\n", 4, true},      {"\r\n.\r", 4, true},     {"\r\n\0.\r\n", 6, false},
                {"\r\n.\0\r\n", 6, false}, {"\r\n.\r\r\n", 6, true}, {"\r\r\n.\r\r\n", 7, true},
                {"\r\n..\n", 5, true},     {"a\rb\r\n", 5, true},    {"a\nb\r\n", 5, true},
                {"\r\n\r.\r\n", 6, true},  {"\r\n.\n\r\n", 6, true}};
    struct buf out = buf_new(1000);
    for (size_t i = 0; i < sizeof seqs / sizeof seqs[0]; i++) {
        struct buf in = buf_new(1000);
        size_t used;
        buf_addz(&in, "A: b\r\n\r\nx");
        buf_add(&in, str_of(seqs[i].p, seqs[i].n));
        buf_addz(&in, "MAIL FROM:<evil@x>\r\n.\r\n");
        for (size_t cut = 0; cut <= in.n; cut++) {
            enum dot_step got = decode(buf_str(&in), cut, 0, &out, &used);
            ck_assert_msg(got == (seqs[i].bare ? DOT_BARE : DOT_END), "sequence %zu, cut %zu", i,
                          cut);
            ck_assert(seqs[i].bare || used == in.n);
        }
        buf_free(&in);
    }
    buf_free(&out);
}
END_TEST

static void
encode(struct str in, size_t cut, bool text, struct buf *out)
{
    struct dot_encoder d = {.text = text};
    buf_reset(out);
    dot_encode(&d, str_sub(in, 0, cut), out);
    dot_encode(&d, str_from(in, cut), out);
    dot_encode_end(&d, out);
    ck_assert(buf_ok(out));
}

START_TEST(dot_encoder_at_each_split)
{
    static const char *const cases[][3] = {
        /* input, stored message, text */
        {"", "\r\n.\r\n", "\r\n.\r\n"},
        {"a", "a\r\n.\r\n", "a\r\n.\r\n"},
        {"a\r\n", "a\r\n.\r\n", "a\r\n.\r\n"},
        {".\r\n.a\r\n", "..\r\n..a\r\n.\r\n", "..\r\n..a\r\n.\r\n"},
        {"a\nb\n", "a b \r\n.\r\n", "a\r\nb\r\n.\r\n"},
        {"a\n.\nb", "a . b\r\n.\r\n", "a\r\n..\r\nb\r\n.\r\n"},
        {"a\rb\r", "a b \r\n.\r\n", "a b \r\n.\r\n"},
        {"a\r\r\n.\r\n", "a \r\n..\r\n.\r\n", "a \r\n..\r\n.\r\n"},
        {"\r\n\r\n", "\r\n\r\n.\r\n", "\r\n\r\n.\r\n"},
        {"\r.\r\n", " .\r\n.\r\n", " .\r\n.\r\n"},
        {"\n.\r\n", " .\r\n.\r\n", "\r\n..\r\n.\r\n"},
    };
    struct buf out = buf_new(1000);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct str in = str_z(cases[i][0]);
        for (size_t cut = 0; cut <= in.n; cut++) {
            encode(in, cut, false, &out);
            ck_str(buf_str(&out), cases[i][1]);
            encode(in, cut, true, &out);
            ck_str(buf_str(&out), cases[i][2]);
        }
    }
    buf_free(&out);
}
END_TEST

/* Catalogue A5, A8: whatever goes in, no stray CR or LF comes out, and nothing ends it early. */
START_TEST(dot_encoder_output_is_canonical)
{
    static const char alphabet[] = {'a', '.', '\r', '\n', '\0'};
    struct buf out = buf_new(1000), back = buf_new(1000);
    for (unsigned word = 0; word < 5 * 5 * 5 * 5 * 5 * 5; word++) {
        char in[6];
        size_t used;
        for (unsigned i = 0, w = word; i < 6; i++, w /= 5)
            in[i] = alphabet[w % 5];
        for (int text = 0; text < 2; text++) {
            encode(str_of(in, 6), word % 7, text, &out);
            ck_assert_int_eq(decode(buf_str(&out), 0, 0, &back, &used), DOT_END);
            ck_assert_uint_eq(used, out.n);
        }
    }
    buf_free(&out);
    buf_free(&back);
}
END_TEST

START_TEST(dots_at_buffer_edges_survive)
{
    struct buf message = buf_new(1 << 20), wire = buf_new(1 << 20), back = buf_new(1 << 20);
    for (size_t edge = 4096; edge <= 16384; edge *= 2)
        for (size_t at = edge - 3; at <= edge + 2; at++) {
            size_t used;
            buf_reset(&message);
            while (message.n < at)
                buf_addc(&message, 'x');
            buf_addz(&message, "\r\n.\r\n..x\r\nend\r\n");
            encode(buf_str(&message), edge, false, &wire);
            ck_assert_int_eq(decode(buf_str(&wire), edge, 0, &back, &used), DOT_END);
            ck_assert(str_eq(buf_str(&back), buf_str(&message)));
            ck_assert_int_eq(decode(buf_str(&wire), 0, 4096, &back, &used), DOT_END);
            ck_assert(str_eq(buf_str(&back), buf_str(&message)));
        }
    buf_free(&message);
    buf_free(&wire);
    buf_free(&back);
}
END_TEST

START_TEST(command_lines)
{
    struct smtp_command c;
    smtp_command_parse(STR("mail FROM:<a@b>  "), &c);
    ck_str(c.verb, "mail");
    ck_str(c.argument, "FROM:<a@b>");
    smtp_command_parse(STR("STARTTLS "), &c);
    ck_str(c.verb, "STARTTLS");
    ck_str(c.argument, "");
    smtp_command_parse(STR(""), &c);
    ck_str(c.verb, "");
    smtp_command_parse(STR("DATA;x"), &c);
    ck_str(c.verb, "");
    smtp_command_parse(STR(" QUIT"), &c);
    ck_str(c.verb, "");
    smtp_command_parse(str_of("DATA\0", 5), &c);
    ck_str(c.verb, "");
}
END_TEST

static int
path(const char *argument, struct smtp_path *p, struct err *e)
{
    return smtp_path_parse(str_z(argument), STR("FROM"), p, e);
}

START_TEST(paths_and_parameters)
{
    struct smtp_path p;
    struct err e = {0};
    ck_assert_int_eq(path("FROM:<a@b> SIZE=100 body=8BITMIME X-y", &p, &e), 0);
    ck_str(address_str(&p.address), "a@b");
    ck_assert_uint_eq(p.nparams, 3);
    ck_str(p.params[0].value, "100");
    ck_str(p.params[1].key, "body");
    ck_assert(!p.params[2].has_value);
    ck_assert_int_eq(path("from: <>", &p, &e), 0);
    ck_assert_int_eq(p.kind, SMTP_PATH_NULL);
    ck_assert_int_eq(path("FROM:<root>", &p, &e), 0);
    ck_assert_int_eq(p.kind, SMTP_PATH_LOCAL);
    ck_assert_int_eq(path("FROM:<\"a>b\"@c>", &p, &e), 0);
    ck_str(address_str(&p.address), "\"a>b\"@c");
    static const char *const protocol[] = {"",
                                           "FROM",
                                           "FROM:",
                                           "FROM:a@b",
                                           "FROM:<a@b",
                                           "FROM:<a@b>x",
                                           "FROM:<a@b> =",
                                           "FROM:<a@b> =x",
                                           "FROM:<a@b> SIZE=",
                                           "FROM:<a@b> SIZE==1",
                                           "FROM:<a@b> AUTH=<>=",
                                           "FROM:<a@b> -x",
                                           "FROM:<a@b> a b c d e f g h i j k l m n o p q",
                                           "TO:<a@b>",
                                           "FROM:<\"a@b>"};
    for (size_t i = 0; i < sizeof protocol / sizeof protocol[0]; i++) {
        ck_assert_msg(path(protocol[i], &p, &e) < 0, "%s", protocol[i]);
        ck_assert_msg(e.class == ERR_PROTOCOL, "%s", protocol[i]);
    }
    static const char *const addresses[] = {"FROM:<@>",      "FROM:<.@x>",       "FROM:<;sleep 9;>",
                                            "FROM:<@a:b@c>", "FROM:<$(id)>x@y>", "FROM:<\"\"@d>"};
    for (size_t i = 0; i < sizeof addresses / sizeof addresses[0]; i++)
        ck_assert_msg(path(addresses[i], &p, &e) < 0, "%s", addresses[i]);
    ck_assert_int_eq(path("FROM:<a@b> a b c d e f g h i j k l m n o p", &p, &e), 0);
}
END_TEST

START_TEST(parameters_at_their_ceiling)
{
    struct smtp_path p;
    struct err e = {0};
    char line[SMTP_LINE_MAX];
    int n = snprintf(line, sizeof line, "FROM:<a@b>");
    for (int i = 0; i < SMTP_PARAMS_MAX; i++)
        n += snprintf(line + n, sizeof line - (size_t)n, " K%d=%d", i, i);
    ck_assert_int_eq(path(line, &p, &e), 0);
    ck_assert_uint_eq(p.nparams, SMTP_PARAMS_MAX);
    ck_str(p.params[SMTP_PARAMS_MAX - 1].key, "K15");
    ck_str(p.params[SMTP_PARAMS_MAX - 1].value, "15");
    snprintf(line + n, sizeof line - (size_t)n, " K=1");
    ck_assert_int_eq(path(line, &p, &e), -1);
    ck_assert_int_eq(e.class, ERR_PROTOCOL);
    ck_assert_str_eq(e.text, "more than 16 parameters");
}
END_TEST

START_TEST(every_prefix_of_a_command)
{
    static const char whole[] = "MAIL FROM:<\"a\\\"b\"@x.example> SIZE=100 BODY=8BITMIME";
    for (size_t n = 0; n < sizeof whole; n++) {
        struct smtp_command c;
        struct smtp_path p;
        char *copy = malloc(n ? n : 1);
        memcpy(copy, whole, n);
        smtp_command_parse(str_of(copy, n), &c);
        (void)smtp_path_parse(c.argument, STR("FROM"), &p, NULL);
        free(copy);
    }
}
END_TEST

START_TEST(names_after_helo)
{
    char room[300];
    memset(room, 'a', sizeof room);
    ck_assert(smtp_helo_ok(STR("mail.example.org")));
    ck_assert(smtp_helo_ok(STR("[IPv6:2001:db8::1]")));
    ck_assert(smtp_helo_ok(str_of(room, 255)));
    ck_assert(!smtp_helo_ok(str_of(room, 256)));
    ck_assert(!smtp_helo_ok(STR("")));
    ck_assert(!smtp_helo_ok(STR("x\x1b[2J")));
    ck_assert(!smtp_helo_ok(STR("a b")));
    ck_assert(!smtp_helo_ok(STR("a(b")));
    ck_assert(!smtp_helo_ok(str_of("a\0b", 3)));
}
END_TEST

START_TEST(replies)
{
    struct smtp_reply r = smtp_reply_new();
    struct err e = {0};
    struct buf flat = buf_new(1000);
    ck_assert_int_eq(smtp_reply_line(&r, STR("550-5.1.1 no such"), &e), 0);
    ck_assert_int_eq(smtp_reply_line(&r, STR("550-us\x1b[r\r\0"), &e), 0);
    ck_assert_int_eq(smtp_reply_line(&r, STR("550"), &e), 1);
    ck_assert_uint_eq(r.code, 550);
    ck_assert_str_eq(smtp_reply_status(&r), "5.1.1");
    smtp_reply_flat(&r, &flat);
    ck_str(buf_str(&flat), "550 5.1.1 no such us?[r?? ");
    smtp_reply_reset(&r);
    ck_assert_int_eq(smtp_reply_line(&r, STR("450 5.1.1 not of this class"), &e), 1);
    ck_assert_str_eq(smtp_reply_status(&r), "4.0.0");
    static const char *const bad[] = {"",     "2",     "25",     "25x",    "199 x",       "600 x",
                                      "250x", "-50 x", " 250 x", "2500 x", "\xff\xff\xff"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        smtp_reply_reset(&r);
        ck_assert_msg(smtp_reply_line(&r, str_z(bad[i]), &e) < 0, "%s", bad[i]);
    }
    smtp_reply_reset(&r);
    ck_assert_int_eq(smtp_reply_line(&r, STR("250-a"), &e), 0);
    ck_assert_int_eq(smtp_reply_line(&r, STR("251 b"), &e), -1);
    static const char *const statuses[] = {"5.", "5.7.", "5.7.2", "5.7.2x", "5.1234.1", "5"};
    for (size_t i = 0; i < sizeof statuses / sizeof statuses[0]; i++) {
        char line[32];
        snprintf(line, sizeof line, "550 %s", statuses[i]);
        smtp_reply_reset(&r);
        ck_assert_int_eq(smtp_reply_line(&r, str_z(line), &e), 1);
        ck_assert_str_eq(smtp_reply_status(&r), i == 2 ? "5.7.2" : "5.0.0");
    }
    buf_free(&flat);
    smtp_reply_free(&r);
}
END_TEST

START_TEST(reply_ceilings)
{
    static char line[SMTP_REPLY_LINE_MAX + 2];
    struct smtp_reply r = smtp_reply_new();
    struct err e = {0};
    memset(line, 'x', sizeof line);
    memcpy(line, "250-", 4);
    for (int i = 0; i < SMTP_REPLY_LINES_MAX; i++)
        ck_assert_int_eq(smtp_reply_line(&r, str_of(line, SMTP_REPLY_LINE_MAX), &e), 0);
    ck_assert_uint_le(r.text.n, SMTP_REPLY_TEXT_MAX);
    ck_assert_int_eq(smtp_reply_line(&r, STR("250 x"), &e), -1);
    ck_assert_int_eq(e.class, ERR_LIMIT);
    smtp_reply_reset(&r);
    ck_assert_int_eq(smtp_reply_line(&r, str_of(line, SMTP_REPLY_LINE_MAX + 1), &e), -1);
    smtp_reply_free(&r);
}
END_TEST

/* What smtp_reply_put() wrote, as smtp_reply_read() finds it. */
START_TEST(replies_over_a_stream)
{
    int pair[2];
    struct stream a, b;
    struct smtp_reply r = smtp_reply_new();
    struct err e = {0};
    char longline[700];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    stream_init(&a, pair[0], pair[0], 65536, 5000);
    stream_init(&b, pair[1], pair[1], 65536, 5000);
    memset(longline, 'y', sizeof longline);
    smtp_reply_put(&a, 550, "5.1.1", STR("one\ntwo\rthree\x1b"));
    smtp_reply_put(&a, 250, "", str_of(longline, sizeof longline));
    ck_assert_int_eq(stream_flush(&a, &e), 0);
    ck_assert_int_eq(smtp_reply_read(&b, &r, &e), 0);
    ck_assert_uint_eq(r.lines, 2);
    ck_str(buf_str(&r.text), "5.1.1 one\n5.1.1 two?three?");
    ck_assert_int_eq(smtp_reply_read(&b, &r, &e), 0);
    ck_assert_uint_le(r.text.n, 508);
    stream_putz(&a, "garbage\r\n");
    ck_assert_int_eq(stream_flush(&a, &e), 0);
    ck_assert_int_eq(smtp_reply_read(&b, &r, &e), -1);
    ck_assert_int_eq(e.class, ERR_PROTOCOL);
    smtp_reply_free(&r);
    stream_free(&a);
    stream_free(&b);
    close(pair[0]);
    close(pair[1]);
}
END_TEST

START_TEST(ehlo_keywords)
{
    struct smtp_reply r = smtp_reply_new();
    struct buf out = buf_new(1000);
    uint64_t size;
    smtp_reply_line(&r, STR("250-mx.example PIPELINING"), NULL);
    smtp_reply_line(&r, STR("250-size 1000"), NULL);
    smtp_reply_line(&r, STR("250-AUTH LOGIN plain"), NULL);
    smtp_reply_line(&r, STR("250 STARTTLS"), NULL);
    ck_assert_uint_eq(smtp_ehlo_parse(&r, &size), SMTP_SIZE | SMTP_AUTH_PLAIN | SMTP_STARTTLS);
    ck_assert_uint_eq(size, 1000);
    smtp_reply_reset(&r);
    smtp_reply_line(&r, STR("250-x"), NULL);
    smtp_reply_line(&r, STR("250-AUTH CRAM-MD5"), NULL);
    smtp_reply_line(&r, STR("250 SIZE 99999999999999999999999"), NULL);
    ck_assert_uint_eq(smtp_ehlo_parse(&r, &size), SMTP_SIZE);
    ck_assert_uint_eq(size, 0);
    smtp_ehlo_put(&out, SMTP_PIPELINING | SMTP_SIZE | SMTP_AUTH_PLAIN, 77);
    ck_str(buf_str(&out), "\nPIPELINING\nSIZE 77\nAUTH PLAIN");
    buf_free(&out);
    smtp_reply_free(&r);
}
END_TEST

START_TEST(hops_at_each_split)
{
    static const char text[] = "Received: a\r\n\tfolded\r\nreceived : no\r\nRECEIVED: b\r\n"
                               "X-Received: c\r\nReceived-SPF: d\r\nA: Received: e\r\n\r\n"
                               "Received: body\r\n";
    for (size_t cut = 0; cut <= sizeof text - 1; cut++) {
        struct smtp_hops h = {0};
        smtp_hops_feed(&h, str_of(text, cut));
        smtp_hops_feed(&h, str_of(text + cut, sizeof text - 1 - cut));
        ck_assert_uint_eq(h.count, 2);
        ck_assert_uint_eq(h.fields, 6);
        ck_assert(h.done && !h.too_large);
    }
}
END_TEST

START_TEST(header_ceilings)
{
    struct smtp_hops h = {0};
    for (int i = 0; i < SMTP_HEAD_FIELDS_MAX; i++)
        smtp_hops_feed(&h, STR("A: b\r\n"));
    ck_assert(!h.too_large);
    smtp_hops_feed(&h, STR("A: b\r\n"));
    ck_assert(h.too_large);
    h = (struct smtp_hops){0};
    static char line[1024];
    memset(line, ' ', sizeof line);
    line[0] = 'A';
    line[1] = ':';
    for (size_t n = 0; n < SMTP_HEAD_FIELD_MAX; n += sizeof line)
        smtp_hops_feed(&h, str_of(line, sizeof line));
    ck_assert(!h.too_large);
    smtp_hops_feed(&h, STR("x"));
    ck_assert(h.too_large);
}
END_TEST

START_TEST(the_end_of_a_header)
{
    static const struct {
        const char *block;
        size_t end, body;
    } cases[] = {{"A: b\r\n\r\nbody\r\n", 6, 8}, {"\r\nbody", 0, 2},
                 {"body\r\n\r\n", 0, 0},         {"A: b\r\nno field\r\nC: d\r\n\r\n", 6, 6},
                 {"A: b\r\n c\r\n\r\n", 10, 12}, {" A: b\r\n\r\n", 0, 0},
                 {"A : b\nB\t: c\n\nx", 12, 13}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct str all = str_z(cases[i].block);
        for (size_t cut = 0; cut <= all.n; cut++) {
            size_t scan = 0, body = 99;
            if (!smtp_head_end(str_sub(all, 0, cut), &scan, &body))
                ck_assert(smtp_head_end(all, &scan, &body));
            ck_assert_uint_eq(scan, cases[i].end);
            ck_assert_uint_eq(body, cases[i].body);
        }
    }
}
END_TEST

/* The mailboxes of a list, each with '|' behind; "BAD" at the end when it is malformed. */
static const char *
mailboxes(struct str list)
{
    static char out[1000];
    struct buf spec = buf_new(300), all = {.p = out, .cap = sizeof out, .max = sizeof out - 1};
    struct cursor c = cursor_of(list);
    size_t n = 0;
    int got;
    while ((got = smtp_mailbox_next(&c, &n, &spec)) == 1) {
        buf_add(&all, buf_str(&spec));
        buf_addc(&all, '|');
    }
    if (got < 0)
        buf_addz(&all, "BAD");
    buf_free(&spec);
    return buf_z(&all);
}

START_TEST(mailboxes_of_a_list)
{
    static const char *const cases[][2] = {
        {"a@b", "a@b|"},
        {"A B <a@b>, c@d", "a@b|c@d|"},
        {"\"x, y <z@w>\" <a@b> (co(mm)ent), (c) d @ (x) e", "a@b|d@e|"},
        {"group: a@b, C <c@d>;, e@f", "a@b|c@d|e@f|"},
        {"undisclosed-recipients:;", ""},
        {"", ""},
        {";", ""},
        {",,a@b,,", "a@b|"},
        {"\"q\\\" r\"@x", "\"q\\\" r\"@x|"},
        {"a@[IPv6:2001:db8::1], b@[1.2.3.4]", "a@[IPv6:2001:db8::1]|b@[1.2.3.4]|"},
        {"root", "root|"},
        {"two words", "two words|"},
        {"<>", "|"},
        {"a@b <c@d>", "c@d|"},
        {"a@b\r\n c@d", "a@b c@d|"},
        {"<a@b> c", "BAD"},
        {"<a@b", "BAD"},
        {"a@b>", "BAD"},
        {"\"a", "BAD"},
        {"(a", "BAD"},
        {"(a\\", "BAD"},
        {"\"a\\", "BAD"},
        {"a@[1", "BAD"},
        {"[List] A <a@b>", "a@b|"},
        {"[ <x@y>, ] <a@b>", "x@y|a@b|"},
        {"[<x@y>] <a@b>", "BAD"},
        {"z@[<x@y>] <a@b>", "BAD"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ck_assert_str_eq(mailboxes(str_z(cases[i][0])), cases[i][1]);
        for (size_t n = 0; n < strlen(cases[i][0]); n++) {
            char *copy = malloc(n ? n : 1);
            memcpy(copy, cases[i][0], n);
            mailboxes(str_of(copy, n));
            free(copy);
        }
    }
}
END_TEST

START_TEST(hostile_lists_end_soon)
{
    enum { N = 200000 };
    static const char alphabet[] = "(<>,\";:\\[@. \n";
    char *big = malloc(N);
    for (size_t i = 0; i < sizeof alphabet - 1; i++) {
        memset(big, alphabet[i], N);
        mailboxes(str_of(big, N));
        for (size_t k = 0; k + 1 < N; k += 2)
            big[k] = 'a';
        mailboxes(str_of(big, N));
    }
    free(big);
}
END_TEST

START_TEST(received_fields)
{
    struct buf out = buf_new(2000);
    struct smtp_received r = {.helo = STR("client.example"),
                              .ip = STR("2001:db8::1"),
                              .esmtp = true,
                              .tls = true,
                              .auth = true,
                              .tls_text = STR("TLSv1.3 X"),
                              .by = STR("mail.example.org"),
                              .id = STR("ID1"),
                              .when_s = 0};
    smtp_received_put(&out, &r);
    struct str want = STR("Received: from client.example ([IPv6:2001:db8::1])\r\n"
                          "\tby mail.example.org (Bulkhead) with ESMTPSA (TLSv1.3 X)\r\n"
                          "\tid ID1; ");
    ck_assert(str_starts(buf_str(&out), want));
    ck_assert(str_ends(buf_str(&out), STR("\r\n")));
    buf_reset(&out);
    setenv("TZ", "UTC", 1);
    smtp_date_put(&out, 4107542400); /* J14: 2100-02-29 does not exist */
    ck_assert(str_starts(buf_str(&out), STR("Mon, 1 Mar 2100")) ||
              str_starts(buf_str(&out), STR("Sun, 28 Feb 2100")));
    ck_assert_str_eq(smtp_protocol(false, false, false), "SMTP");
    ck_assert_str_eq(smtp_protocol(true, true, false), "ESMTPS");
    ck_assert_str_eq(smtp_protocol(true, false, true), "ESMTPA");
    buf_free(&out);
}
END_TEST

Suite *suite_smtp(void);
Suite *
suite_smtp(void)
{
    Suite *s = suite_create("smtp");
    TCase *t = tcase_create("smtp");
    tcase_add_test(t, dot_decoder_at_each_split);
    tcase_add_test(t, dot_decoder_is_not_smuggled_past);
    tcase_add_test(t, dot_encoder_at_each_split);
    tcase_add_test(t, dot_encoder_output_is_canonical);
    tcase_add_test(t, dots_at_buffer_edges_survive);
    tcase_add_test(t, command_lines);
    tcase_add_test(t, paths_and_parameters);
    tcase_add_test(t, parameters_at_their_ceiling);
    tcase_add_test(t, every_prefix_of_a_command);
    tcase_add_test(t, names_after_helo);
    tcase_add_test(t, replies);
    tcase_add_test(t, reply_ceilings);
    tcase_add_test(t, replies_over_a_stream);
    tcase_add_test(t, ehlo_keywords);
    tcase_add_test(t, hops_at_each_split);
    tcase_add_test(t, header_ceilings);
    tcase_add_test(t, the_end_of_a_header);
    tcase_add_test(t, mailboxes_of_a_list);
    tcase_add_test(t, hostile_lists_end_soon);
    tcase_add_test(t, received_fields);
    suite_add_tcase(s, t);
    return s;
}
