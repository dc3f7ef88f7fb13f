#include "lib/mail/subject.h"
#include "lib/base/cursor.h"
#include "lib/base/utf8.h"
#include "lib/mail/bodytext.h"
#include "lib/mail/header.h"

/* "[...]" and the blanks behind it; takes nothing when it is none. */
static bool
blob(struct cursor *c)
{
    struct cursor at = *c;
    if (!cur_take(&at, '['))
        return false;
    for (int b; (b = cur_next(&at)) != ']';)
        if (b < 0 || b == '[')
            return false;
    cur_skip_wsp(&at);
    *c = at;
    return true;
}

/* "re:", "fw:", "fwd:", with blanks and one blob before the colon. */
static bool
refwd(struct cursor *c)
{
    struct cursor at = *c;
    if (!cur_take_case(&at, STR("re")) && !cur_take_case(&at, STR("fwd")) &&
        !cur_take_case(&at, STR("fw")))
        return false;
    cur_skip_wsp(&at);
    blob(&at);
    if (!cur_take(&at, ':'))
        return false;
    *c = at;
    return true;
}

/* Step 2. */
static struct str
without_trailers(struct str s, bool *reply)
{
    for (;;) {
        s = str_trim(s);
        if (s.n < 5 || !str_caseeq(str_from(s, s.n - 5), STR("(fwd)")))
            return s;
        s.n -= 5;
        *reply = true;
    }
}

/* Steps 3 to 5. A run of blobs is looked at once: before a "re:" all of it goes, else as many as
 * leave something. */
static struct str
without_leaders(struct str s, bool *reply)
{
    struct cursor c = cursor_of(s);
    for (;;) {
        cur_skip_wsp(&c);
        struct cursor last = c, at = c;
        while (blob(&at))
            if (!cur_end(&at))
                last = at;
        bool leader = refwd(&at);
        *reply |= leader;
        c = leader ? at : last;
        if (!leader)
            return cur_rest(&c);
    }
}

static struct str
base(struct str s, bool *reply)
{
    for (;;) {
        s = without_leaders(without_trailers(s, reply), reply);
        /* Step 6. */
        if (!str_casestarts(s, STR("[fwd:")) || !str_ends(s, STR("]")))
            return s;
        s = str_sub(s, 5, s.n - 6);
        *reply = true;
    }
}

void
subject_base(struct buf *out, struct str value, bool *reply_r)
{
    struct buf text = buf_new(4 * HEADER_FIELD_MAX);
    *reply_r = false;
    bodytext_header(&text, value);
    /* Step 1: every run of blanks is one space. */
    size_t n = 0;
    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i];
        bool blank = c == ' ' || c == '\t' || c == '\r' || c == '\n';
        if (!blank)
            text.p[n++] = c;
        else if (n && text.p[n - 1] != ' ')
            text.p[n++] = ' ';
    }
    buf_truncate(&text, n);
    buf_add(out, base(buf_str(&text), reply_r));
    buf_free(&text);
}

/* The upper case of a character of two bytes (U+0080 to U+07FF). */
static unsigned
upper(unsigned c)
{
    if ((c >= 0xe0 && c <= 0xfe && c != 0xf7) || (c >= 0x3b1 && c <= 0x3c9 && c != 0x3c2) ||
        (c >= 0x430 && c <= 0x44f))
        return c - 0x20;
    return c >= 0x450 && c <= 0x45f ? c - 0x50 : c == 0x3c2 ? 0x3a3 : c;
}

/* Latin-1's capitals in two: U+00C0 to U+00DF as letter and mark (U+0300 and more). */
static bool
decomposed(struct buf *out, unsigned c)
{
    static const char letters[] = "AAAAAA CEEEEIIII NOOOOO  UUUUY  ";
    static const unsigned char marks[] = {0, 1, 2, 3, 8, 10, 0, 39, 0, 1, 2, 8, 0, 1, 2, 8,
                                          0, 3, 0, 1, 2, 3,  8, 0,  0, 0, 1, 2, 8, 1, 0, 0};
    if (c < 0xc0 || c > 0xdf || letters[c - 0xc0] == ' ')
        return false;
    buf_addc(out, letters[c - 0xc0]);
    buf_addc(out, (char)0xcc);
    buf_addc(out, (char)(0x80 | marks[c - 0xc0]));
    return true;
}

void
subject_fold(struct buf *out, struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned c = (unsigned char)s.p[i];
        if (c >= 0xc2 && c <= 0xdf && i + 1 < s.n && ((unsigned char)s.p[i + 1] & 0xc0) == 0x80) {
            c = upper((c & 0x1f) << 6 | ((unsigned char)s.p[++i] & 0x3f));
            if (decomposed(out, c))
                continue;
            utf8_put(out, c);
        } else {
            buf_addc(out, ch_upper(s.p[i]));
        }
    }
}
