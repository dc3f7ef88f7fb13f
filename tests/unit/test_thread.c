/* subject, msgid, thread, sort: RFC 5256, by example, by every small change of the examples, and at
 * the sizes a stranger would choose. */
#include "imapd/cell/sort.h"
#include "imapd/cell/thread.h"
#include "lib/mail/msgid.h"
#include "lib/mail/subject.h"
#include "tests/unit/unit.h"
#include <stdio.h>
#include <stdlib.h>

static const struct {
    const char *value, *base;
    bool reply;
} subjects[] = {
    {"hello", "hello", false},
    {" Re: hello", "hello", true},
    {"RE : [a] fwd: hello (fwd) (FWD)  ", "hello", true},
    {"[list] hello", "hello", false},
    {"[list] [b] Re[2]: hello", "hello", true},
    {"[list]", "[list]", false},
    {"[a][b]  [c] ", "[c]", false},
    {"[a][b] Re: [c]", "[c]", true},
    {"re:", "", true},
    {"(fwd)", "", true},
    {"[fwd: Re: hello]", "hello", true},
    {"[Fwd: [fwd: [x] hello (fwd)]]", "hello", true},
    {"[fwd:]", "", true},
    {"a\r\n\tb   c", "a b c", false},
    {"Re: =?utf-8?q?Re=3A_gr=C3=BC=C3=9Fe?=",
     "gr\xc3\xbc\xc3\x9f"
     "e",
     true},
    {"regards", "regards", false},
    {"re [open: x", "re [open: x", false},
    {"", "", false},
};

START_TEST(base_subjects)
{
    for (size_t i = 0; i < sizeof subjects / sizeof subjects[0]; i++) {
        struct buf out = buf_new(4096);
        bool reply;
        subject_base(&out, str_z(subjects[i].value), &reply);
        ck_assert_msg(str_eq(buf_str(&out), str_z(subjects[i].base)), "%s: %s", subjects[i].value,
                      buf_z(&out));
        ck_assert_msg(reply == subjects[i].reply, "%s", subjects[i].value);
        buf_free(&out);
    }
}
END_TEST

/* The base of a base is itself, whatever the text. */
static void
base_twice(struct str value)
{
    struct buf one = buf_new(65536), two = buf_new(65536);
    bool reply;
    subject_base(&one, value, &reply);
    if (str_find(buf_str(&one), STR("=?")) < 0) { /* an encoded word may say "=?" */
        subject_base(&two, buf_str(&one), &reply);
        ck_assert_msg(str_eq(buf_str(&one), buf_str(&two)), "%s", buf_z(&one));
        ck_assert(!reply);
    }
    buf_free(&one);
    buf_free(&two);
}

START_TEST(base_subjects_changed)
{
    for (size_t i = 0; i < sizeof subjects / sizeof subjects[0]; i++) {
        struct str s = str_z(subjects[i].value);
        for (size_t n = 0; n <= s.n; n++)
            base_twice(str_sub(s, 0, n));
        for (size_t at = 0; at < s.n; at++)
            for (int b = 0; b < 256; b++) {
                char copy[128];
                memcpy(copy, s.p, s.n);
                copy[at] = (char)b;
                base_twice(str_of(copy, s.n));
            }
    }
}
END_TEST

START_TEST(base_subjects_long)
{
    static const char *const runs[] = {"[x]", "re:", "[fwd:", "[", "(fwd)", "re [", "fw[a]"};
    for (size_t k = 0; k < sizeof runs / sizeof runs[0]; k++) {
        struct buf text = buf_new(1 << 20);
        while (text.n < 60000)
            buf_addz(&text, runs[k]);
        base_twice(buf_str(&text));
        buf_free(&text);
    }
}
END_TEST

START_TEST(folding)
{
    struct buf out = buf_new(100);
    subject_fold(&out, STR("aZ\xc3\xbc\xc3\xb7\xcf\x82\xd1\x8f\xd1\x91\xc3"));
    ck_str(buf_str(&out), "AZU\xcc\x88\xc3\xb7\xce\xa3\xd0\xaf\xd0\x81\xc3");
    buf_free(&out);
}
END_TEST

static void
ids(struct str value, struct buf *out)
{
    struct cursor c = cursor_of(value);
    struct msgid id;
    while (msgid_next(&c, &id)) {
        ck_assert_uint_le(id.n, MSGID_MAX);
        buf_add(out, str_of(id.p, id.n));
        buf_addc(out, ' ');
    }
    ck_assert(cur_end(&c));
}

static const struct {
    const char *value, *want;
} idents[] = {
    {"<a@b>", "a@b "},
    {" <\"a\"@b> (c <x@y>", "a@b x@y "},
    {"<a @ b>\r\n <c@d><e@f>", "a@b c@d e@f "},
    {"<a(comment)@b>", "a@b "},
    {"<a><b@c", ""},
    {"<<a@b>", "a@b "},
    {"<@b> <a>", ""},
    {"<\"a\\\"> b\"@c>", "a\"> b@c "},
    {"joe's message <1@x> of today", "1@x "},
};

START_TEST(identifiers)
{
    for (size_t i = 0; i < sizeof idents / sizeof idents[0]; i++) {
        struct buf out = buf_new(65536);
        struct str s = str_z(idents[i].value);
        ids(s, &out);
        ck_assert_msg(str_eq(buf_str(&out), str_z(idents[i].want)), "%s: %s", idents[i].value,
                      buf_z(&out));
        for (size_t n = 0; n <= s.n; n++)
            ids(str_sub(s, 0, n), &out);
        for (size_t at = 0; at < s.n; at++)
            for (int b = 0; b < 256; b++) {
                char copy[64];
                memcpy(copy, s.p, s.n);
                copy[at] = (char)b;
                buf_reset(&out);
                ids(str_of(copy, s.n), &out);
            }
        buf_free(&out);
    }
    char longest[MSGID_MAX + 3];
    memset(longest, 'a', sizeof longest);
    longest[0] = '<';
    longest[3] = '@';
    for (size_t over = 0; over < 2; over++) {
        struct buf out = buf_new(4096);
        longest[MSGID_MAX + over + 1] = '>';
        ids(str_of(longest, MSGID_MAX + over + 2), &out);
        ck_assert_uint_eq(out.n, over ? 0 : MSGID_MAX + 1);
        longest[MSGID_MAX + over + 1] = 'a';
        buf_free(&out);
    }
}
END_TEST

/* ---- trees ---- */

static void
put(void *to, struct str piece)
{
    buf_add(to, piece);
}

/* "id<ref,ref=subject" of single letters, space between; dates ascend; a subject in capitals is a
 * reply to it. */
static size_t
read_messages(const char *text, struct icell_thread_message *m, uint64_t (*refs)[16])
{
    size_t n = 0;
    for (const char *p = text; *p; n++) {
        m[n] = (struct icell_thread_message){
            .number = (uint32_t)n + 1, .date_s = (int64_t)n, .refs = refs[n]};
        if (*p != '<' && *p != '=' && *p != ' ')
            m[n].id = (uint64_t)*p++;
        if (*p == '<')
            for (p++; *p && *p != '=' && *p != ' '; p++)
                refs[n][m[n].nrefs++] = (uint64_t)*p;
        if (*p == '=') {
            m[n].reply = p[1] < 'a';
            m[n].subject = (uint64_t)ch_lower(p[1]);
            p += 2;
        }
        if (*p == ' ')
            p++;
    }
    return n;
}

static const struct {
    const char *messages, *references, *subjects;
} trees[] = {
    {"", "", ""},
    {"a", " (1)", " (1)"},
    {"a b<a c<ab", " (1 2 3)", " (1 (2)(3))"},
    {"a b<a c<a", " (1 (2)(3))", " (1 (2)(3))"},
    {"a b<a c<a d<b", " (1 (2 4)(3))", NULL},
    /* who is not there, with one child and with two */
    {"b<a", " (1)", NULL},
    {"b<a c<a", " ((1)(2))", NULL},
    {"x b<a c<da", " (1)((2)(3))", NULL},
    {"d<abc e<ab f<a", " ((1)(2)(3))", NULL},
    {"a d<abc e<abc", " (1 (2)(3))", NULL},
    /* itself, each other, in a ring */
    {"a<a", " (1)", NULL},
    {"a<aa b<ab", " (1)(2)", NULL},
    {"a<b b<a", " (2 1)", NULL},
    {"a<c b<a c<b", " (3 1 2)", NULL},
    {"a<bcab b<acba c<aabc", NULL, NULL},
    /* a second message of the same name is nobody */
    {"a a b<a", " (1 3)(2)", NULL},
    {"a< a<a", " (1 2)", NULL},
    /* a parent that was guessed from others gives way */
    {"c<abc b<x d<abc", NULL, NULL},
    {"c<ab b a", " (2 1)(3)", NULL},
    {"b a c<ab", " (2 1 3)", NULL},
    /* subjects */
    {"a=x b=X c=X", " (1 (2)(3))", " (1 (2)(3))"},
    {"a=X b=x", " (2 1)", " (1 2)"},
    {"a=x b=x", " ((1)(2))", " (1 2)"},
    {"a=x b=x c=X", " ((1)(2)(3))", " (1 (2)(3))"},
    {"b<a=x c<a=y d=X", " ((1)(2)(3))", " (1 3)(2)"},
    {"b<a=x c<a=y d<e=x f<e=x", " ((1)(2)(3)(4))", NULL},
    {"a=x b=y c=X d=Y", " (1 3)(2 4)", " (1 3)(2 4)"},
    {"a b c", " (1)(2)(3)", " (1 (2)(3))"},
};

static void
tree(bool references, const struct icell_thread_message *m, size_t n, struct buf *out)
{
    struct arena arena = arena_new(256 << 20);
    struct icell_forest f;
    ck_assert_int_eq(references ? icell_thread_references(m, n, &arena, &f)
                                : icell_thread_subjects(m, n, &arena, &f),
                     0);
    icell_thread_put(&f, put, out);
    arena_free(&arena);
}

/* Every message once, and parentheses in pairs. */
static void
whole(const struct buf *out, size_t n)
{
    size_t depth = 0, numbers = 0;
    for (size_t i = 0; i < out->n; i++) {
        depth += out->p[i] == '(';
        ck_assert(depth > 0 || out->p[i] == ' ');
        depth -= out->p[i] == ')';
        numbers += ch_digit(out->p[i]) && !ch_digit(out->p[i - 1]);
    }
    ck_assert_uint_eq(depth, 0);
    ck_assert_uint_eq(numbers, n);
}

START_TEST(trees_by_example)
{
    for (size_t i = 0; i < sizeof trees / sizeof trees[0]; i++)
        for (int references = 0; references < 2; references++) {
            struct icell_thread_message m[16];
            uint64_t refs[16][16];
            struct buf out = buf_new(4096);
            const char *want = references ? trees[i].references : trees[i].subjects;
            size_t n = read_messages(trees[i].messages, m, refs);
            tree(references, m, n, &out);
            whole(&out, n);
            ck_assert_msg(!want || str_eq(buf_str(&out), str_z(want)), "%s: %s, not %s",
                          trees[i].messages, buf_z(&out), want);
            buf_free(&out);
        }
}
END_TEST

START_TEST(trees_at_random)
{
    srandom(1);
    for (int round = 0; round < 20000; round++) {
        struct icell_thread_message m[16];
        uint64_t refs[16][16];
        struct buf out = buf_new(4096);
        size_t n = (size_t)random() % 12;
        for (size_t i = 0; i < n; i++) {
            m[i] = (struct icell_thread_message){.number = (uint32_t)i + 1,
                                                 .date_s = random() % 5,
                                                 .id = (uint64_t)(random() % 8),
                                                 .subject = (uint64_t)(random() % 4),
                                                 .reply = random() % 2,
                                                 .refs = refs[i],
                                                 .nrefs = (uint32_t)random() % 5};
            for (size_t k = 0; k < m[i].nrefs; k++)
                refs[i][k] = 1 + (uint64_t)(random() % 8);
        }
        tree(round % 2, m, n, &out);
        whole(&out, n);
        buf_free(&out);
    }
}
END_TEST

enum { MANY = 100000 };

/* Chain, star, chain backwards, each pointing at all before it, and all of one subject. */
START_TEST(trees_of_many)
{
    struct icell_thread_message *m = calloc(MANY, sizeof *m);
    uint64_t *refs = calloc((size_t)MANY * 3, sizeof *refs);
    ck_assert(m && refs);
    for (int shape = 0; shape < 5; shape++) {
        struct buf out = buf_new(16 << 20);
        for (size_t i = 0; i < MANY; i++) {
            uint64_t *r = &refs[3 * i];
            m[i] = (struct icell_thread_message){
                .number = (uint32_t)i + 1, .id = i + 1, .refs = r, .nrefs = i && shape < 4};
            r[0] = shape == 0 ? i : shape == 1 ? 1 : i + 2;
            if (shape == 3) {
                m[i].nrefs = 3;
                r[0] = MANY - i;
                r[1] = i + 1;
                r[2] = i / 2 + 1;
            }
            m[i].subject = shape == 4 ? 7 : 0;
        }
        tree(true, m, MANY, &out);
        whole(&out, MANY);
        buf_free(&out);
    }
    free(refs);
    free(m);
}
END_TEST

START_TEST(keys_of_sort)
{
    static const char text[] = "(REVERSE DATE subject From REVERSE size DATE DISPLAYTO)";
    struct icell_sort s;
    struct cursor c = cursor_of(STR(text));
    ck_assert_int_eq(icell_sort_parse(&c, &s), 0);
    ck_assert_uint_eq(s.n, 5);
    ck_assert(s.keys[0].reverse && !s.keys[1].reverse && s.keys[3].reverse);
    ck_assert(cur_end(&c));
    for (size_t n = 0; n < sizeof text - 1; n++) {
        c = cursor_of(str_sub(STR(text), 0, n));
        ck_assert_int_eq(icell_sort_parse(&c, &s), -1);
    }
    for (size_t at = 0; at < sizeof text - 1; at++)
        for (int b = 0; b < 256; b++) {
            char copy[sizeof text];
            memcpy(copy, text, sizeof text);
            copy[at] = (char)b;
            c = cursor_of(str_of(copy, sizeof text - 1));
            if (icell_sort_parse(&c, &s) == 0)
                ck_assert(s.n > 0 && s.n <= ICELL_SORT_KINDS);
        }
    c = cursor_of(STR("()"));
    ck_assert_int_eq(icell_sort_parse(&c, &s), -1);
}
END_TEST

Suite *suite_thread(void);
Suite *
suite_thread(void)
{
    Suite *s = suite_create("thread");
    TCase *t = tcase_create("thread");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, base_subjects);
    tcase_add_test(t, base_subjects_changed);
    tcase_add_test(t, base_subjects_long);
    tcase_add_test(t, folding);
    tcase_add_test(t, identifiers);
    tcase_add_test(t, trees_by_example);
    tcase_add_test(t, trees_at_random);
    tcase_add_test(t, trees_of_many);
    tcase_add_test(t, keys_of_sort);
    suite_add_tcase(s, t);
    return s;
}
