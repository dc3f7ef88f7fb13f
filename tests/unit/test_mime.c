/* addrlist, mime, bodytext: structure of good and bad mail, cut at each byte, at the ceilings. */
#include "lib/base/clock.h"
#include "lib/mail/addrlist.h"
#include "lib/mail/bodytext.h"
#include "lib/mail/mime.h"
#include "tests/unit/unit.h"
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- addresses ---- */

static void
render(struct buf *out, const struct addrlist *list)
{
    buf_reset(out);
    for (size_t i = 0; i < list->n; i++) {
        const struct addrlist_entry *a = &list->at[i];
        if (a->kind == ADDRLIST_GROUP_END)
            buf_addz(out, "; ");
        else if (a->kind == ADDRLIST_GROUP_START)
            buf_addf(out, "%.*s: ", STR_ARG(a->mailbox));
        else
            buf_addf(out, "[%.*s|%.*s|%.*s|%.*s] ", STR_ARG(a->name), STR_ARG(a->route),
                     STR_ARG(a->mailbox), STR_ARG(a->host));
    }
}

START_TEST(address_lists)
{
    static const struct {
        const char *text, *want;
    } cases[] = {
        {"a@b", "[||a|b] "},
        {"Joe Q. Public <john.q@ex.com>, m@x.test (Mary)",
         "[Joe Q. Public||john.q|ex.com] [Mary||m|x.test] "},
        {"\"Giant; \\\"Big\\\" Box\" <sysservices@example.net>",
         "[Giant; \"Big\" Box||sysservices|example.net] "},
        {"A Group:Ed <e@f>,j@g;, x@y", "A Group: [Ed||e|f] [||j|g] ; [||x|y] "},
        {"Undisclosed recipients:;", "Undisclosed recipients: ; "},
        {"Undisclosed recipients:", "Undisclosed recipients: ; "},
        {"<@a,@b:c@d>", "[|@a,@b|c|d] "},
        {"\"a b\"@c", "[||a b|c] "},
        {"a . b @ c . d", "[||a.b|c.d] "},
        {"x@[1.2.3.4]", "[||x|[1.2.3.4]] "},
        {"joe", "[||joe|] "},
        {"", ""},
        {";", ""},
        {"g:;", "g: ; "},
        {":", ""},
        {",,,", ""},
        {"<>", "[|||] "},
        {"a@b\r\n ,\r\n\tc@d", "[||a|b] [||c|d] "},
        {"\"unended", "[||unended|] "},
        {"(unended", ""},
        {"a@b (c\\", "[c\\||a|b] "},
    };
    struct buf out = buf_new(4096);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct arena arena = arena_new(1 << 20);
        struct addrlist list;
        ck_assert_int_eq(addrlist_parse(str_z(cases[i].text), &arena, &list), 0);
        render(&out, &list);
        ck_assert_msg(str_eq(buf_str(&out), str_z(cases[i].want)), "%s: got %s", cases[i].text,
                      buf_z(&out));
        arena_free(&arena);
    }
    buf_free(&out);
}
END_TEST

START_TEST(every_prefix_of_an_address_list)
{
    static const char text[] =
        "\"a\\\"b\" (c (d\\)) e) <@x,@y:\"l\\\\\"@[1.2]>, G : a@b , c (\\z) ; , <<>><(((";
    for (size_t n = 0; n < sizeof text; n++) {
        char *exact = malloc(n ? n : 1);
        struct arena arena = arena_new(1 << 20);
        struct addrlist list;
        memcpy(exact, text, n);
        ck_assert_int_eq(addrlist_parse(str_of(exact, n), &arena, &list), 0);
        arena_free(&arena);
        free(exact);
    }
}
END_TEST

START_TEST(address_lists_end_at_the_ceiling)
{
    struct buf b = buf_new(1 << 20);
    struct arena arena = arena_new(64 << 20);
    struct addrlist list;
    for (int i = 0; i < ADDRLIST_MAX - 2; i++)
        buf_addz(&b, "a@b,");
    ck_assert_int_eq(addrlist_parse(buf_str(&b), &arena, &list), 0);
    ck_assert_uint_eq(list.n, ADDRLIST_MAX - 2);
    for (int i = 0; i < 1000; i++)
        buf_addz(&b, "g:a@b;");
    ck_assert_int_eq(addrlist_parse(buf_str(&b), &arena, &list), 0);
    ck_assert_uint_le(list.n, ADDRLIST_MAX);
    arena_free(&arena);
    buf_free(&b);
}
END_TEST

/* Each of many routes without an end is looked through no further than the next one. */
START_TEST(address_lists_of_routes)
{
    struct buf b = buf_new(1 << 20);
    struct addrlist list;
    int64_t begin = now_ms();
    for (int i = 0; i < ADDRLIST_MAX; i++)
        buf_addz(&b, "<@a,        ");
    for (int i = 0; i < 8; i++) {
        struct arena arena = arena_new(8 << 20);
        ck_assert_int_eq(addrlist_parse(buf_str(&b), &arena, &list), 0);
        ck_assert_uint_ge(list.n, ADDRLIST_MAX - 2);
        arena_free(&arena);
    }
    ck_assert_int_lt(now_ms() - begin, 2000);
    buf_free(&b);
}
END_TEST

/* ---- structure ---- */

static void
outline(struct buf *out, const struct mime *m)
{
    buf_reset(out);
    for (uint32_t i = 0; i != MIME_NONE && m->n;) {
        const struct mime_part *p = &m->parts[i];
        buf_addf(out, "%.*s/%.*s", STR_ARG(p->type), STR_ARG(p->subtype));
        if (p->kind == MIME_LEAF)
            buf_addf(out, "=%zu/%u", p->end - p->body_at, p->lines);
        if (p->first != MIME_NONE) {
            buf_addz(out, "(");
            i = p->first;
            continue;
        }
        while (m->parts[i].next == MIME_NONE && m->parts[i].parent != MIME_NONE) {
            i = m->parts[i].parent;
            buf_addz(out, ")");
        }
        i = m->parts[i].next;
        if (i != MIME_NONE)
            buf_addz(out, ",");
    }
}

static const struct {
    const char *text, *want;
} mails[] = {
    {"", "text/plain=0/0"},
    {"Subject: x\r\n\r\nhello\r\n", "text/plain=7/1"},
    {"Content-Type: text/html\r\n\r\na", "text/html=1/0"},
    {"Content-Type: garbage\r\n\r\na\n", "text/plain=2/1"},
    {"Content-Type: multipart/mixed\r\n\r\na\r\n", "text/plain=3/1"},
    {"Content-Type: multipart/mixed; boundary=b\r\n\r\npre\r\n--b\r\n\r\none\r\n--b\r\n"
     "Content-Type: text/x\r\n\r\ntwo\r\n\r\n--b--\r\nepi\r\n",
     "multipart/mixed(text/plain=3/0,text/x=5/1)"},
    {"Content-Type: multipart/mixed; boundary=\"b\"\n\n--b\n\none\n--b--\n",
     "multipart/mixed(text/plain=3/0)"},
    {"Content-Type: multipart/mixed; boundary=b\r\n\r\nnothing\r\n",
     "multipart/mixed(text/plain=0/0)"},
    {"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n--b\r\n--b--\r\n",
     "multipart/mixed(text/plain=0/0,text/plain=0/0)"},
    {"Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\nSubject: "
     "s\r\n\r\nx\r\n--b--\r\n",
     "multipart/digest(message/rfc822(text/plain=1/0))"},
    {"Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\nContent-Type: multipart/mixed;\r\n"
     " boundary=aa\r\n\r\n--aa\r\n\r\nx\r\n--a\r\n\r\ny\r\n--a--\r\n",
     "multipart/mixed(multipart/mixed(text/plain=1/0),text/plain=1/0)"},
    {"Content-Type: message/rfc822\r\n\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"
     "\r\nx\r\n--b--\r\n",
     "message/rfc822(multipart/mixed(text/plain=1/0))"},
    {"Content-Type: message/rfc822\r\n\r\n", "message/rfc822(text/plain=0/0)"},
    {"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: "
     "message/rfc822\r\n--b--\r\n",
     "multipart/mixed(message/rfc822(text/plain=0/0))"},
    {"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b \t\r\n\r\nx\r\n--b--  \r\n--b\r\n",
     "multipart/mixed(text/plain=1/0)"},
};
enum { MAILS = sizeof mails / sizeof mails[0] };

START_TEST(structures)
{
    struct buf out = buf_new(65536);
    for (size_t i = 0; i < MAILS; i++) {
        struct arena arena = arena_new(1 << 20);
        struct mime m;
        ck_assert_int_eq(mime_parse(str_z(mails[i].text), &arena, &m), 0);
        outline(&out, &m);
        ck_assert_msg(str_eq(buf_str(&out), str_z(mails[i].want)), "%zu: got %s, want %s", i,
                      buf_z(&out), mails[i].want);
        mime_free(&m);
        arena_free(&arena);
    }
    buf_free(&out);
}
END_TEST

/* What must hold of any structure. */
static void
check_sane(const struct mime *m, struct str text)
{
    ck_assert_uint_ge(m->n, 1);
    for (uint32_t i = 0; i < m->n; i++) {
        const struct mime_part *p = &m->parts[i];
        ck_assert_uint_le(p->header_at, p->body_at);
        ck_assert_uint_le(p->body_at, p->end);
        ck_assert_uint_le(p->end, text.n);
        ck_assert_uint_gt(p->type.n, 0);
        ck_assert_uint_gt(p->subtype.n, 0);
        ck_assert_int_eq(p->kind == MIME_LEAF, p->first == MIME_NONE);
        ck_assert_uint_le(p->depth, MIME_DEPTH_MAX);
        if (p->parent != MIME_NONE)
            ck_assert_uint_lt(p->parent, i);
        if (p->next != MIME_NONE)
            ck_assert_uint_gt(p->next, i);
    }
}

START_TEST(every_prefix_of_a_mail_has_a_structure)
{
    for (size_t i = 0; i < MAILS; i++)
        for (size_t n = 0; n <= strlen(mails[i].text); n++) {
            char *exact = malloc(n ? n : 1);
            struct arena arena = arena_new(1 << 20);
            struct mime m;
            memcpy(exact, mails[i].text, n);
            ck_assert_int_eq(mime_parse(str_of(exact, n), &arena, &m), 0);
            check_sane(&m, str_of(exact, n));
            mime_free(&m);
            arena_free(&arena);
            free(exact);
        }
}
END_TEST

START_TEST(fields_of_a_part)
{
    static const char text[] =
        "Content-Type: text/plain (c); charset=\"utf-8\"; name*0*=us'en'a%20b;\r\n"
        " x=y z; bad; q=\"a\\\"b\"\r\nContent-ID: <a@b>\r\nContent-Description: two\r\n words\r\n"
        "Content-Transfer-Encoding: BASE64 (x)\r\n"
        "Content-Disposition: attachment; filename=\"f;g\"\r\n"
        "Content-Language: en, de\r\nContent-MD5: Q2hl\r\nContent-Location: http://x/\r\n\r\n";
    struct arena arena = arena_new(1 << 20);
    struct mime m;
    ck_assert_int_eq(mime_parse(STR(text), &arena, &m), 0);
    const struct mime_part *p = &m.parts[0];
    ck_str(mime_param(p->params, p->nparams, STR("CHARSET")), "utf-8");
    ck_str(mime_param(p->params, p->nparams, STR("name*")), "us'en'a%20b");
    ck_str(mime_param(p->params, p->nparams, STR("x")), "y");
    ck_str(mime_param(p->params, p->nparams, STR("q")), "a\"b");
    ck_assert_uint_eq(p->nparams, 4);
    ck_str(p->id, "<a@b>");
    ck_str(p->description, "two words");
    ck_str(p->encoding, "BASE64");
    ck_str(p->disposition, "attachment");
    ck_str(mime_param(p->disposition_params, p->ndisposition_params, STR("filename")), "f;g");
    ck_assert_uint_eq(p->nlanguages, 2);
    ck_str(p->languages[1], "de");
    ck_str(p->md5, "Q2hl");
    ck_str(p->location, "http://x/");
    mime_free(&m);
    arena_free(&arena);
}
END_TEST

static size_t
nested(unsigned levels, bool *truncated_r, uint16_t *deepest_r)
{
    struct buf b = buf_new(64 << 20);
    struct arena arena = arena_new(64 << 20);
    struct mime m;
    for (unsigned i = 0; i < levels; i++)
        buf_addf(&b, "Content-Type: multipart/mixed; boundary=b%u\r\n\r\n--b%u\r\n", i, i);
    ck_assert_int_eq(mime_parse(buf_str(&b), &arena, &m), 0);
    check_sane(&m, buf_str(&b));
    size_t n = m.n;
    *truncated_r = m.truncated;
    *deepest_r = 0;
    for (size_t i = 0; i < m.n; i++)
        if (m.parts[i].depth > *deepest_r)
            *deepest_r = m.parts[i].depth;
    mime_free(&m);
    arena_free(&arena);
    buf_free(&b);
    return n;
}

START_TEST(depth_has_a_ceiling)
{
    bool truncated;
    uint16_t deepest;
    ck_assert_uint_eq(nested(MIME_DEPTH_MAX, &truncated, &deepest), MIME_DEPTH_MAX + 1);
    ck_assert(!truncated);
    ck_assert_uint_eq(deepest, MIME_DEPTH_MAX);
    ck_assert_uint_eq(nested(MIME_DEPTH_MAX + 1, &truncated, &deepest), MIME_DEPTH_MAX + 1);
    ck_assert(truncated);
    int64_t begin = now_ms();
    nested(100000, &truncated, &deepest);
    ck_assert_int_lt(now_ms() - begin, 2000);
}
END_TEST

static size_t
many(size_t parts, bool *truncated_r)
{
    struct buf b = buf_new(64 << 20);
    struct arena arena = arena_new(64 << 20);
    struct mime m;
    buf_addz(&b, "Content-Type: multipart/mixed; boundary=b\r\n\r\n");
    for (size_t i = 0; i < parts; i++)
        buf_addz(&b, "--b\r\n\r\n");
    ck_assert_int_eq(mime_parse(buf_str(&b), &arena, &m), 0);
    check_sane(&m, buf_str(&b));
    size_t n = m.n;
    *truncated_r = m.truncated;
    if (m.truncated)
        ck_str(m.parts[n - 1].subtype, "octet-stream");
    mime_free(&m);
    arena_free(&arena);
    buf_free(&b);
    return n;
}

START_TEST(parts_have_a_ceiling)
{
    bool truncated;
    ck_assert_uint_eq(many(MIME_PARTS_MAX - 1, &truncated), MIME_PARTS_MAX);
    ck_assert(!truncated);
    ck_assert_uint_eq(many(MIME_PARTS_MAX, &truncated), MIME_PARTS_MAX);
    ck_assert(truncated);
    int64_t begin = now_ms();
    ck_assert_uint_eq(many(1000000, &truncated), MIME_PARTS_MAX);
    ck_assert_int_lt(now_ms() - begin, 2000);
}
END_TEST

static size_t
boundary_of(size_t n)
{
    char b[200], text[800];
    struct arena arena = arena_new(1 << 20);
    struct mime m;
    memset(b, 'b', n);
    b[n] = '\0';
    snprintf(text, sizeof text, "Content-Type: multipart/mixed; boundary=%s\n\n--%s\n\nx\n--%s--\n",
             b, b, b);
    ck_assert_int_eq(mime_parse(str_z(text), &arena, &m), 0);
    size_t parts = m.n;
    mime_free(&m);
    arena_free(&arena);
    return parts;
}

START_TEST(boundaries_and_parameters_have_ceilings)
{
    ck_assert_uint_eq(boundary_of(70), 2);
    ck_assert_uint_eq(boundary_of(MIME_BOUNDARY_MAX), 2);
    ck_assert_uint_eq(boundary_of(MIME_BOUNDARY_MAX + 1), 1);
    struct buf b = buf_new(65536);
    struct arena arena = arena_new(1 << 20);
    struct str type, subtype;
    struct mime_param *params;
    size_t n;
    buf_addz(&b, "a/b");
    for (int i = 0; i < MIME_PARAMS_MAX; i++)
        buf_addf(&b, ";p%d=%d", i, i);
    ck_assert_int_eq(mime_parse_value(buf_str(&b), true, &arena, &type, &subtype, &params, &n), 0);
    ck_assert_uint_eq(n, MIME_PARAMS_MAX);
    buf_addz(&b, ";more=x");
    ck_assert_int_eq(mime_parse_value(buf_str(&b), true, &arena, &type, &subtype, &params, &n), 0);
    ck_assert_uint_eq(n, MIME_PARAMS_MAX);
    arena_free(&arena);
    buf_free(&b);
}
END_TEST

/* ---- decoding ---- */

START_TEST(decoding)
{
    struct buf b = buf_new(4096);
    static const struct {
        const char *in, *encoding, *want;
    } bodies[] = {
        {"aGVsbG8=", "base64", "hello"},       {"aGVs\r\nbG8", "BASE64", "hello"},
        {"aGVsbG8=aGk=", "base64", "hellohi"}, {"a=3Db=\r\nc=\n", "quoted-printable", "a=bc"},
        {"=4", "quoted-printable", "=4"},      {"x=ZZ", "quoted-printable", "x=ZZ"},
        {"=", "quoted-printable", ""},         {"a=3D", "8bit", "a=3D"},
    };
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
        buf_reset(&b);
        bodytext_decode(&b, str_z(bodies[i].in), str_z(bodies[i].encoding));
        ck_str(buf_str(&b), bodies[i].want);
    }
    static const struct {
        const char *in, *want;
    } headers[] = {
        {"=?utf-8?q?gr=C3=BC=C3=9Fe?=", "gr\xc3\xbc\xc3\x9f"
                                        "e"},
        {"=?ISO-8859-1?B?4Q==?=\r\n =?utf-8?q?_b?= c", "\xc3\xa1 b c"},
        {"a =?x", "a =?x"},
        {"=?utf-8?q?a?= b =?utf-8*en?Q?c?=", "a b c"},
        {"=?utf-8?z?a?=", "=?utf-8?z?a?="},
        {"=?windows-1252?q?=80=92=93=A0=E9=81?=",
         "\xe2\x82\xac\xe2\x80\x99\xe2\x80\x9c\xc2\xa0\xc3\xa9\xc2\x81"},
        {"=?iso-8859-15?q?=A4=A5=BE?=", "\xe2\x82\xac\xc2\xa5\xc5\xb8"},
        {"=?iso-8859-1?q?=A4=80?=", "\xc2\xa4\xc2\x80"},
        {"=?=?=?utf-8?q?x?=", "=?=?x"},
        {"=?utf-8?q?a", "=?utf-8?q?a"},
    };
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++) {
        buf_reset(&b);
        bodytext_header(&b, str_z(headers[i].in));
        ck_str(buf_str(&b), headers[i].want);
    }
    buf_free(&b);
}
END_TEST

START_TEST(every_prefix_decodes)
{
    static const char text[] = "=?utf-8*en?q?a=C3=BC_?= =?b?B?QQ==?= =3D=\r\n=4x =?a?q";
    struct buf b = buf_new(4096);
    for (size_t n = 0; n < sizeof text; n++) {
        char *exact = malloc(n ? n : 1);
        memcpy(exact, text, n);
        buf_reset(&b);
        bodytext_header(&b, str_of(exact, n));
        bodytext_quoted_printable(&b, str_of(exact, n));
        bodytext_base64(&b, str_of(exact, n));
        bodytext_utf8(&b, str_of(exact, n), STR("latin1"));
        free(exact);
    }
    buf_free(&b);
}
END_TEST

/* ---- against the structures of others ---- */

#define DATA "../shared/data/mime"

/* How many bodies an XML file of the collection has. */
static size_t
xml_bodies(const char *path)
{
    char line[4096];
    size_t bodies = 0;
    FILE *f = fopen(path, "r");
    if (!f)
        return 0;
    while (fgets(line, sizeof line, f))
        bodies += strstr(line, "<body>") != NULL;
    fclose(f);
    return bodies;
}

START_TEST(structures_agree_with_the_collection)
{
    struct dirent *d;
    DIR *dir = opendir(DATA);
    size_t compared = 0, agreed = 0;
    if (!dir) {
        printf("note: %s is not there: nothing compared\n", DATA);
        return;
    }
    while ((d = readdir(dir))) {
        struct str name = str_z(d->d_name);
        char path[600];
        if (!str_ends(name, STR(".msg")))
            continue;
        snprintf(path, sizeof path, "%s/%s", DATA, d->d_name);
        FILE *f = fopen(path, "r");
        ck_assert_ptr_nonnull(f);
        struct buf text = buf_new(16 << 20);
        char *room = buf_reserve(&text, 4 << 20);
        buf_commit(&text, fread(room, 1, 4 << 20, f));
        fclose(f);
        struct arena arena = arena_new(16 << 20);
        struct mime m;
        ck_assert_int_eq(mime_parse(buf_str(&text), &arena, &m), 0);
        check_sane(&m, buf_str(&text));
        size_t leaves = 0;
        for (size_t i = 0; i < m.n; i++)
            /* The empty part that IMAP's grammar wants in a multipart of none is ours alone. */
            leaves += m.parts[i].kind == MIME_LEAF && m.parts[i].header_at < m.parts[i].end;
        snprintf(path, sizeof path, "%s/%.*s.xml", DATA, (int)name.n - 4, name.p);
        size_t want = xml_bodies(path);
        compared++;
        agreed += want == leaves;
        if (want != leaves)
            printf("note: %s: %zu leaves, the collection has %zu\n", d->d_name, leaves, want);
        mime_free(&m);
        arena_free(&arena);
        buf_free(&text);
    }
    closedir(dir);
    ck_assert_uint_ge(compared, 1);
    printf("note: %zu of %zu structures agree with the collection\n", agreed, compared);
    ck_assert_uint_ge(agreed * 10, compared * 9);
}
END_TEST

Suite *suite_mime(void);
Suite *
suite_mime(void)
{
    Suite *s = suite_create("mime");
    TCase *t = tcase_create("mime");
    tcase_set_timeout(t, 300);
    tcase_add_test(t, address_lists);
    tcase_add_test(t, every_prefix_of_an_address_list);
    tcase_add_test(t, address_lists_end_at_the_ceiling);
    tcase_add_test(t, address_lists_of_routes);
    tcase_add_test(t, structures);
    tcase_add_test(t, every_prefix_of_a_mail_has_a_structure);
    tcase_add_test(t, fields_of_a_part);
    tcase_add_test(t, depth_has_a_ceiling);
    tcase_add_test(t, parts_have_a_ceiling);
    tcase_add_test(t, boundaries_and_parameters_have_ceilings);
    tcase_add_test(t, decoding);
    tcase_add_test(t, every_prefix_decodes);
    tcase_add_test(t, structures_agree_with_the_collection);
    suite_add_tcase(s, t);
    return s;
}
