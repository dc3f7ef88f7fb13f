/* What is in a message, and around one in an envelope. */
#include "imapd/cell/fetch.h"
#include "lib/mail/address.h"
#include "lib/mail/addrlist.h"
#include "lib/mail/bodytext.h"
#include "lib/mail/date.h"
#include "lib/mail/dsn.h"
#include "lib/mail/header.h"
#include "lib/mail/mime.h"
#include "lib/mail/rfc2231.h"
#include "lib/mail/msgid.h"
#include "lib/mail/subject.h"
#include "tests/fuzz/fuzz.h"

static void
check_parts(const struct mime *m, size_t n)
{
    FUZZ_CHECK(m->n >= 1 && m->n <= MIME_PARTS_MAX);
    for (size_t i = 0; i < m->n; i++) {
        const struct mime_part *p = &m->parts[i];
        FUZZ_CHECK(p->header_at <= p->body_at && p->body_at <= p->end && p->end <= n);
        FUZZ_CHECK(p->type.n && p->subtype.n && p->depth <= MIME_DEPTH_MAX);
        FUZZ_CHECK((p->kind == MIME_LEAF) == (p->first == MIME_NONE));
        FUZZ_CHECK(p->parent == MIME_NONE || p->parent < i);
        FUZZ_CHECK(p->next == MIME_NONE || (p->next > i && p->next < m->n));
        FUZZ_CHECK(p->nparams <= MIME_PARAMS_MAX && p->ndisposition_params <= MIME_PARAMS_MAX);
    }
}

/* "(...)" with as many ")" as "(" outside strings. */
static void
check_structure(struct str s)
{
    struct cursor c = cursor_of(s);
    long depth = 0;
    for (int b; (b = cur_next(&c)) >= 0;) {
        uint32_t n;
        if (b == '"') {
            while ((b = cur_next(&c)) != '"') {
                FUZZ_CHECK(b >= 0 && b != '\r' && b != '\n');
                if (b == '\\')
                    cur_next(&c);
            }
        } else if (b == '{') {
            FUZZ_CHECK(str_u32(cur_while(&c, ch_digit), UINT32_MAX, &n) == 0 &&
                       cur_take_str(&c, STR("}\r\n")));
            FUZZ_CHECK(cur_take_n(&c, n).n == n);
        } else {
            depth += (b == '(') - (b == ')');
            FUZZ_CHECK(depth > 0 || cur_end(&c));
        }
    }
    FUZZ_CHECK(depth == 0);
}

static void
write_structure(const struct mime *m, struct str text, struct buf *out)
{
    struct arena arena = arena_new(64 << 20);
    const struct mailfile f = {.whole = true, .text = text};
    const bool utf8 = m->n % 2;
    icell_structure(out, &arena, m, &f, (struct icell_structure_how){true, utf8});
    arena_free(&arena);
    check_structure(buf_str(out));
}

/* The structure is the same in whatever pieces the message comes. */
void
fuzz_mime(struct str in)
{
    struct arena a = arena_new(64 << 20), b = arena_new(64 << 20);
    struct buf one = buf_new(64 << 20), two = buf_new(64 << 20);
    struct mime whole, pieces;
    size_t piece = in.n ? (unsigned char)in.p[in.n / 2] % 7 + 1 : 1;
    FUZZ_CHECK(mime_parse(in, &a, &whole) == 0);
    check_parts(&whole, in.n);
    write_structure(&whole, in, &one);
    struct mime_parser *p = mime_begin(&b, &pieces);
    for (size_t at = 0; at < in.n; at += piece)
        mime_feed(p, str_sub(in, at, piece));
    FUZZ_CHECK(mime_end(p) == 0 && pieces.n == whole.n);
    write_structure(&pieces, in, &two);
    FUZZ_CHECK(str_eq(buf_str(&one), buf_str(&two)));
    buf_free(&one);
    buf_free(&two);
    mime_free(&whole);
    mime_free(&pieces);
    arena_free(&a);
    arena_free(&b);
}

void
fuzz_header(struct str in)
{
    struct header h = header_of(in);
    struct header_field f;
    struct buf line = buf_new(2 * HEADER_FIELD_MAX), envelope = buf_new(64 << 20);
    struct arena arena = arena_new(64 << 20);
    size_t body = header_body(in), last = 0;
    FUZZ_CHECK(body <= in.n);
    while (header_next(&h, &f)) {
        size_t at = (size_t)(f.whole.p - in.p);
        FUZZ_CHECK(f.name.n && at >= last && at + f.whole.n <= body);
        last = at + f.whole.n;
        buf_reset(&line);
        header_unfold(&line, f.value);
        FUZZ_CHECK(str_chr(buf_str(&line), '\n') < 0);
    }
    FUZZ_CHECK(header_find(in, STR("Subject"), &f) || !header_find(in, STR("SUBJECT"), &f));
    icell_envelope(&envelope, &arena, in);
    check_structure(buf_str(&envelope));
    arena_free(&arena);
    buf_free(&line);
    buf_free(&envelope);
}

void
fuzz_rfc2231(struct str in)
{
    struct arena arena = arena_new(16 << 20);
    struct str type, subtype;
    struct mime_param *params;
    size_t n;
    struct buf text = buf_new(16 << 20);
    for (int k = 0; k < 2; k++)
        if (mime_parse_value(in, k, &arena, &type, &subtype, &params, &n) == 0) {
            FUZZ_CHECK(n <= MIME_PARAMS_MAX && type.n && (!k || subtype.n));
            for (size_t i = 0; i < n; i++) {
                FUZZ_CHECK(params[i].name.n && params[i].value.p &&
                           params[i].value.n <= 3 * in.n + 3);
                buf_reset(&text);
                if (rfc2231_utf8(params[i].name, params[i].value, &text) == 0)
                    FUZZ_CHECK(str_utf8(buf_str(&text)));
                else
                    FUZZ_CHECK(text.n == 0);
            }
        }
    buf_free(&text);
    arena_free(&arena);
}

void
fuzz_rfc2047(struct str in)
{
    static const char *const encodings[] = {"base64", "quoted-printable", "8bit"};
    static const char *const charsets[] = {"utf-8", "iso-8859-1", "windows-1252", "koi8-r"};
    struct buf out = buf_new(1 << 20), again = buf_new(1 << 20);
    bodytext_header(&out, in);
    FUZZ_CHECK(buf_ok(&out) && out.n <= 3 * in.n + 16);
    for (size_t i = 0; i < 3; i++) {
        buf_reset(&out);
        bodytext_decode(&out, in, str_z(encodings[i]));
        FUZZ_CHECK(out.n <= in.n);
        for (size_t k = 0; k < 4; k++) {
            buf_reset(&again);
            bodytext_utf8(&again, buf_str(&out), str_z(charsets[k]));
            FUZZ_CHECK(again.n <= 3 * out.n);
            FUZZ_CHECK(k != 1 || str_chr(buf_str(&out), '\0') >= 0 || str_utf8(buf_str(&again)));
        }
    }
    buf_free(&out);
    buf_free(&again);
}

void
fuzz_date(struct str in)
{
    struct date d, e;
    struct buf text = buf_new(100);
    int64_t days;
    if (date_parse(in, &d) == 0) {
        FUZZ_CHECK(d.month >= 1 && d.month <= 12 && d.day >= 1 && d.day <= 31);
        date_format(&text, d.utc_s, 0);
        FUZZ_CHECK(date_parse(buf_str(&text), &e) < 0 || e.utc_s == d.utc_s);
    }
    buf_reset(&text);
    if (date_parse_imap(in, &d) == 0) {
        date_format_imap(&text, d.utc_s, d.zone_min);
        FUZZ_CHECK(date_parse_imap(buf_str(&text), &e) == 0 && e.utc_s == d.utc_s);
    }
    if (date_parse_day(in, &days) == 0) {
        int y, m, day;
        date_civil(days, &y, &m, &day);
        FUZZ_CHECK(date_days(y, m, day) == days);
    }
    buf_free(&text);
}

void
fuzz_addrlist(struct str in)
{
    struct arena arena = arena_new(64 << 20);
    struct addrlist list;
    FUZZ_CHECK(addrlist_parse(in, &arena, &list) == 0 && list.n <= ADDRLIST_MAX);
    for (size_t i = 0; i < list.n; i++)
        FUZZ_CHECK(list.at[i].name.n + list.at[i].mailbox.n + list.at[i].host.n <= in.n);
    arena_free(&arena);
}

/* The normal form is its own normal form. */
void
fuzz_address(struct str in)
{
    struct address a, b;
    struct err e;
    char local[ADDRESS_LOCAL_MAX];
    if (address_parse(in, &a, &e) < 0)
        return;
    FUZZ_CHECK(a.n <= ADDRESS_MAX && a.local_n <= ADDRESS_LOCAL_MAX + 2 &&
               a.text[a.local_n] == '@');
    FUZZ_CHECK(address_parse(address_str(&a), &b, &e) == 0 &&
               str_eq(address_str(&a), address_str(&b)));
    FUZZ_CHECK(address_make(address_local_value(&a, local), address_domain(&a), &b, &e) == 0);
    FUZZ_CHECK(str_eq(address_str(&a), address_str(&b)));
}

void
fuzz_subject(struct str in)
{
    struct buf base = buf_new(1 << 20), again = buf_new(1 << 20), fold = buf_new(1 << 20);
    bool reply;
    subject_base(&base, in, &reply);
    subject_fold(&fold, in);
    FUZZ_CHECK(fold.n <= in.n + in.n / 2 + 2);
    FUZZ_CHECK(base.n <= 3 * in.n + 16);
    buf_free(&base);
    buf_free(&again);
    buf_free(&fold);
}

void
fuzz_dsn(struct str in)
{
    uint8_t notify, ret;
    struct buf out = buf_new(4096);
    if (dsn_notify_parse(in, &notify) == 0) {
        uint8_t again;
        FUZZ_CHECK(dsn_notify_ok(notify));
        dsn_notify_put(&out, notify);
        FUZZ_CHECK(out.n <= DSN_NOTIFY_MAX && dsn_notify_parse(buf_str(&out), &again) == 0 &&
                   again == notify);
    }
    if (dsn_ret_parse(in, &ret) == 0)
        FUZZ_CHECK(str_caseeq(in, str_z(dsn_ret_name(ret))));
    for (int k = 0; k < 2; k++)
        if (k ? dsn_envid_ok(in) : dsn_orcpt_ok(in)) {
            buf_reset(&out);
            (k ? dsn_envid_decode : dsn_orcpt_decode)(&out, in);
            FUZZ_CHECK(buf_ok(&out) && out.n);
            for (size_t i = 0; i < out.n; i++)
                FUZZ_CHECK(ch_print(out.p[i]));
        }
    buf_free(&out);
}
