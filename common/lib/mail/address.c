#include "lib/mail/address.h"
#include "lib/base/buf.h"
#include <arpa/inet.h>

enum { LABEL_MAX = 63 };

/* RFC 5322 3.2.3 atext. */
static bool
is_atext(char c)
{
    return ch_alnum(c) || str_chr(STR("!#$%&'*+-/=?^_`{|}~"), c) >= 0;
}

static bool
is_dot_string(struct str s)
{
    bool want = true; /* an atom must begin here */
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '.' ? want : !is_atext(s.p[i]))
            return false;
        want = s.p[i] == '.';
    }
    return !want;
}

/* Takes a whole quoted string and returns how many bytes it stands for, or -1. */
static ptrdiff_t
take_quoted(struct cursor *c)
{
    ptrdiff_t n = 0;
    if (!cur_take(c, '"'))
        return -1;
    for (;;) {
        int ch = cur_next(c);
        if (ch == '"')
            return n;
        if (ch == '\\')
            ch = cur_next(c);
        if (ch < 0 || !ch_print((char)ch)) /* RFC 5321 4.1.2 QcontentSMTP */
            return -1;
        n++;
    }
}

struct str
address_take_local(struct cursor *c)
{
    size_t from = c->at;
    if (cur_peek(c) == '"') {
        if (take_quoted(c) <= 0)
            c->at = from;
    } else {
        while (!cur_end(c) && (is_atext((char)cur_peek(c)) || cur_peek(c) == '.'))
            cur_next(c);
        if (!is_dot_string(str_sub(c->all, from, c->at - from)))
            c->at = from;
    }
    return str_sub(c->all, from, c->at - from);
}

bool
address_is_domain(struct str s)
{
    if (s.n == 0 || s.n > ADDRESS_DOMAIN_MAX || s.p[s.n - 1] == '.')
        return false;
    while (s.n) {
        struct str label = str_cut(&s, '.');
        if (label.n == 0 || label.n > LABEL_MAX || label.p[0] == '-' || label.p[label.n - 1] == '-')
            return false;
        for (size_t i = 0; i < label.n; i++)
            if (!ch_alnum(label.p[i]) && label.p[i] != '-')
                return false;
    }
    return true;
}

bool
address_is_literal(struct str s)
{
    char text[INET6_ADDRSTRLEN], binary[16];
    if (s.n < 3 || s.p[0] != '[' || s.p[s.n - 1] != ']')
        return false;
    s = str_sub(s, 1, s.n - 2);
    bool six = str_casestarts(s, STR("IPv6:"));
    if (six)
        s = str_from(s, 5);
    if (s.n >= sizeof text || str_chr(s, '\0') >= 0)
        return false;
    memcpy(text, s.p, s.n);
    text[s.n] = '\0';
    return inet_pton(six ? AF_INET6 : AF_INET, text, binary) == 1;
}

struct str
address_local_value(const struct address *a, char *out)
{
    struct str local = address_local(a);
    size_t n = 0;
    if (!a->quoted) {
        memcpy(out, local.p, local.n);
        return str_of(out, local.n);
    }
    for (size_t i = 1; i + 1 < local.n && n < ADDRESS_LOCAL_MAX; i++) {
        if (local.p[i] == '\\')
            i++;
        out[n++] = local.p[i];
    }
    return str_of(out, n);
}

/* value: the local part without quotes. */
static int
build(struct str value, struct str domain, struct address *a_r, struct err *e)
{
    struct address a = {.quoted = !is_dot_string(value), .literal = domain.n && domain.p[0] == '['};
    struct buf out = buf_on(a.text, sizeof a.text, sizeof a.text - 1);
    if (a.quoted)
        buf_addc(&out, '"');
    for (size_t i = 0; i < value.n; i++) {
        if (a.quoted && (value.p[i] == '"' || value.p[i] == '\\'))
            buf_addc(&out, '\\');
        buf_addc(&out, value.p[i]);
    }
    if (a.quoted)
        buf_addc(&out, '"');
    a.local_n = out.n;
    buf_addc(&out, '@');
    for (size_t i = 0; i < domain.n; i++)
        buf_addc(&out, ch_lower(domain.p[i]));
    a.n = out.n;
    if (a.local_n > ADDRESS_LOCAL_MAX)
        return err_set(e, ERR_LIMIT, "local part longer than %d bytes", ADDRESS_LOCAL_MAX);
    if (!buf_ok(&out))
        return err_set(e, ERR_LIMIT, "address longer than %d bytes", ADDRESS_MAX);
    *a_r = a;
    return 0;
}

int
address_make(struct str local, struct str domain, struct address *a_r, struct err *e)
{
    if (local.n == 0)
        return err_set(e, ERR_PERMANENT, "local part is empty");
    for (size_t i = 0; i < local.n; i++)
        if (!ch_print(local.p[i]))
            return err_set(e, ERR_PERMANENT, "character not allowed in a local part");
    if (domain.n > ADDRESS_DOMAIN_MAX)
        return err_set(e, ERR_LIMIT, "domain longer than %d bytes", ADDRESS_DOMAIN_MAX);
    if (!address_is_domain(domain) && !address_is_literal(domain))
        return err_set(e, ERR_PERMANENT, "malformed domain");
    return build(local, domain, a_r, e);
}

int
address_parse(struct str s, struct address *a_r, struct err *e)
{
    struct cursor c = cursor_of(s);
    char value[ADDRESS_LOCAL_MAX];
    struct str local = address_take_local(&c);
    if (local.n == 0)
        return err_set(e, ERR_PERMANENT, "malformed local part");
    if (local.n > ADDRESS_LOCAL_MAX)
        return err_set(e, ERR_LIMIT, "local part longer than %d bytes", ADDRESS_LOCAL_MAX);
    if (!cur_take(&c, '@'))
        return err_set(e, ERR_PERMANENT, "no domain, or a character not allowed");
    if (local.p[0] == '"') {
        struct address raw = {.local_n = local.n, .quoted = true};
        memcpy(raw.text, local.p, local.n);
        local = address_local_value(&raw, value);
    }
    return address_make(local, cur_rest(&c), a_r, e);
}

bool
address_is_routed(const struct address *a)
{
    struct str local = address_local(a);
    for (size_t i = 0; i < local.n; i++)
        if (str_chr(STR("%!@/|"), local.p[i]) >= 0)
            return true;
    return false;
}

void
address_split(struct str local, struct str delimiter, struct str *user_r, struct str *detail_r)
{
    ptrdiff_t at = delimiter.n ? str_chr(str_from(local, 1), delimiter.p[0]) : -1;
    *user_r = at < 0 ? local : str_sub(local, 0, (size_t)at + 1);
    *detail_r = at < 0 ? str_from(local, local.n) : str_from(local, (size_t)at + 2);
}
