#include "imapd/cell/args.h"
#include "lib/mail/nfc.h"
#include "lib/mail/utf7.h"

bool
icell_arg_space(struct cursor *c)
{
    return cur_take(c, ' ');
}

bool
icell_arg_end(const struct cursor *c)
{
    return cur_end(c);
}

bool
icell_atom_char(char c)
{
    return c > 0x20 && c < 0x7f && !strchr("(){%*\"\\]", c);
}

static bool
astring_char(char c)
{
    return icell_atom_char(c) || c == ']';
}

static bool
list_char(char c)
{
    return astring_char(c) || c == '%' || c == '*';
}

int
icell_arg_atom(struct cursor *c, struct str *s_r)
{
    *s_r = cur_while(c, icell_atom_char);
    return s_r->n ? 0 : -1;
}

static int
quoted(struct cursor *c, struct arena *arena, struct str *s_r)
{
    struct cursor at = *c;
    size_t escapes = 0;
    cur_next(&at);
    size_t from = at.at;
    for (int b; (b = cur_next(&at)) != '"';) {
        if (b < 0 || b == '\r' || b == '\n')
            return -1;
        if (b == '\\') {
            b = cur_next(&at);
            escapes++;
            if (b != '"' && b != '\\')
                return -1;
        }
    }
    struct str raw = str_sub(c->all, from, at.at - 1 - from);
    *c = at;
    *s_r = raw;
    if (!escapes)
        return 0;
    struct str copy = arena_str(arena, raw);
    if (!copy.p)
        return -1;
    char *to = (char *)copy.p;
    size_t n = 0;
    for (size_t i = 0; i < raw.n; i++) {
        i += raw.p[i] == '\\';
        to[n++] = raw.p[i];
    }
    *s_r = str_of(copy.p, n);
    return 0;
}

static int
literal(struct cursor *c, struct str *s_r)
{
    struct cursor at = *c;
    uint32_t n;
    cur_next(&at);
    struct str digits = cur_while(&at, ch_digit);
    cur_take(&at, '+');
    if (!cur_take_str(&at, STR("}\r\n")) || str_u32(digits, ICELL_LITERAL_MAX, &n) < 0 ||
        cur_rest(&at).n < n)
        return -1;
    *s_r = cur_take_n(&at, n);
    *c = at;
    return 0;
}

int
icell_arg_string(struct cursor *c, struct arena *arena, struct str *s_r)
{
    if (cur_peek(c) == '"')
        return quoted(c, arena, s_r);
    return cur_peek(c) == '{' ? literal(c, s_r) : -1;
}

int
icell_arg_astring(struct cursor *c, struct arena *arena, struct str *s_r)
{
    *s_r = cur_while(c, astring_char);
    return s_r->n ? 0 : icell_arg_string(c, arena, s_r);
}

int
icell_arg_list_mailbox(struct cursor *c, struct arena *arena, struct str *s_r)
{
    *s_r = cur_while(c, list_char);
    return s_r->n ? 0 : icell_arg_string(c, arena, s_r);
}

int
icell_arg_number(struct cursor *c, uint64_t max, uint64_t *n_r)
{
    return str_u64(cur_while(c, ch_digit), max, n_r);
}

/* RFC 9051 5.1: a name in UTF-8 is normalised first. *name_r stays when it is none. */
static void
from_utf8(struct icell *ic, struct str given, struct str *name_r)
{
    struct buf normal = buf_new(4 * NFC_MAX), name = buf_new(4 * NFC_MAX),
               as_is = buf_new(4 * NFC_MAX);
    if (nfc_normalise(&normal, given) == 0 && utf7_encode(&name, buf_str(&normal)) == 0 &&
        buf_ok(&name)) {
        /* A foreign program's folder whose name is not the one form is known by what it has. */
        bool odd = str_chr(given, '&') >= 0 && utf7_decode(&as_is, given) < 0 &&
                   !folder_exists(ic->root_fd, buf_str(&name)) && folder_exists(ic->root_fd, given);
        struct str kept = arena_str(&ic->arena, buf_str(&name));
        if (!odd && kept.p)
            *name_r = kept;
        if (!str_eq(buf_str(&normal), given))
            ic->cmd.oldname = given;
    }
    buf_free(&normal);
    buf_free(&name);
    buf_free(&as_is);
}

/* Below INBOX, which has any case, names are told as they lie on disk. */
static int
below_inbox(struct icell *ic, struct str given, struct str *name_r)
{
    if (!str_casestarts(*name_r, STR("INBOX.")) || str_starts(*name_r, STR("INBOX.")))
        return 0;
    struct str name = arena_str(&ic->arena, *name_r);
    if (!name.p)
        return -1;
    memcpy((char *)name.p, "INBOX", 5);
    *name_r = name;
    ic->cmd.oldname = given;
    return 0;
}

int
icell_arg_mailbox(struct icell *ic, struct cursor *c, struct str *name_r)
{
    struct str given;
    ic->cmd.oldname = str_of(NULL, 0);
    if (!icell_arg_space(c) || icell_arg_astring(c, &ic->arena, &given) < 0)
        return -1;
    *name_r = given;
    if (folder_is_inbox(given)) {
        *name_r = STR("INBOX");
        if (!str_eq(given, *name_r))
            ic->cmd.oldname = given;
    } else if (ic->utf8) {
        from_utf8(ic, given, name_r);
    }
    return below_inbox(ic, given, name_r);
}

static const struct {
    const char *name;
    uint8_t flag;
} system_flags[] = {{"Answered", MAILBOX_ANSWERED}, {"Flagged", MAILBOX_FLAGGED},
                    {"Deleted", MAILBOX_DELETED},   {"Seen", MAILBOX_SEEN},
                    {"Draft", MAILBOX_DRAFT},       {"Recent", 0}};
enum { SYSTEM_FLAGS = sizeof system_flags / sizeof system_flags[0] };

static int
one_flag(struct cursor *c, struct icell_flags *f)
{
    struct str name;
    bool system = cur_take(c, '\\');
    if (icell_arg_atom(c, &name) < 0)
        return -1;
    for (size_t i = 0; i < SYSTEM_FLAGS && system; i++)
        if (str_caseeq(name, str_z(system_flags[i].name))) {
            f->flags |= system_flags[i].flag;
            return 0;
        }
    if (system)
        return -1;
    if (f->nkeywords < KEYWORDS_MAX && keywords_valid(name))
        f->keyword[f->nkeywords++] = name;
    else
        f->too_many = true;
    return 0;
}

int
icell_arg_flags(struct cursor *c, bool parens_needed, struct icell_flags *f_r)
{
    bool parens = cur_take(c, '(');
    *f_r = (struct icell_flags){0};
    if (!parens && parens_needed)
        return -1;
    if (parens && cur_take(c, ')'))
        return 0;
    do
        if (one_flag(c, f_r) < 0)
            return -1;
    while (cur_take(c, ' '));
    return !parens || cur_take(c, ')') ? 0 : -1;
}

int
icell_flags_bits(struct mailbox *mb, const struct icell_flags *f, bool add, uint32_t *bits_r,
                 struct err *e)
{
    *bits_r = 0;
    if (f->too_many)
        return err_set(e, ERR_LIMIT, "too many keywords");
    for (size_t i = 0; i < f->nkeywords; i++) {
        int k = keywords_find(&mb->keywords, f->keyword[i]);
        if (k < 0 && add && mailbox_keyword(mb, f->keyword[i], &k, e) < 0)
            return -1;
        if (k >= 0)
            *bits_r |= 1u << k;
    }
    return 0;
}

/* ---- output ---- */

static bool
fits_quoted(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!ch_print(s.p[i]) && s.p[i] != '\t')
            return false;
    return s.n <= 1000;
}

static void
put_quoted(struct buf *out, struct str s)
{
    buf_addc(out, '"');
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '"' || s.p[i] == '\\')
            buf_addc(out, '\\');
        buf_addc(out, s.p[i]);
    }
    buf_addc(out, '"');
}

void
icell_put_nstring(struct buf *out, struct str s)
{
    if (!s.p) {
        buf_addz(out, "NIL");
    } else if (fits_quoted(s)) {
        put_quoted(out, s);
    } else {
        buf_addf(out, "{%zu}\r\n", s.n);
        buf_add(out, s);
    }
}

void
icell_put_astring(struct buf *out, struct str s)
{
    bool atom = s.n > 0 && !str_caseeq(s, STR("NIL"));
    for (size_t i = 0; i < s.n; i++)
        atom = atom && astring_char(s.p[i]);
    if (atom)
        buf_add(out, s);
    else
        icell_put_nstring(out, str_of(s.p ? s.p : "", s.n));
}

void
icell_put_utf8(struct buf *out, struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] >= 0x80) {
            put_quoted(out, s);
            return;
        }
    icell_put_astring(out, s);
}

void
icell_shown_name(const struct icell *ic, struct buf *out, struct str name)
{
    if (!ic->utf8 || utf7_decode(out, name) < 0)
        buf_add(out, name);
}

struct str
icell_shown(struct icell *ic, struct str name)
{
    struct buf shown = buf_new((size_t)4 * FOLDER_NAME_MAX);
    if (!ic->utf8 || str_chr(name, '&') < 0)
        return name;
    icell_shown_name(ic, &shown, name);
    struct str kept = arena_str(&ic->arena, buf_str(&shown));
    buf_free(&shown);
    return kept.p ? kept : name;
}

void
icell_put_mailbox(const struct icell *ic, struct buf *out, struct str name)
{
    struct buf shown = buf_new(4 * FOLDER_NAME_MAX);
    icell_shown_name(ic, &shown, name);
    icell_put_utf8(out, buf_str(&shown));
    buf_free(&shown);
}
