#include "lib/queue/qfilter.h"
#include "lib/base/sort.h"

enum { YEAR_S = 366 * 86400 };

static int
take_time(const char *option, const char *value, uint64_t *seconds_r, struct err *e)
{
    static const struct {
        char unit;
        uint64_t seconds;
    } units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
    struct str s = str_z(value);
    uint64_t scale = 1, n;
    if (s.n == 0)
        return err_set(e, ERR_PERMANENT, "%s needs a value", option);
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++)
        if (s.n && s.p[s.n - 1] == units[i].unit) {
            scale = units[i].seconds;
            s.n--;
            break;
        }
    if (str_u64(s, 100ull * YEAR_S / scale, &n) < 0 || n == 0)
        return err_set(e, ERR_PERMANENT, "\"%s\" is not a time like 90s, 5m, 4h or 2d", value);
    *seconds_r = n * scale;
    return 1;
}

static int
take_text(const char *option, const char *value, struct str *text_r, struct err *e)
{
    struct str s = str_z(value);
    if (s.n == 0 || s.n > QFILTER_TEXT_MAX)
        return err_set(e, ERR_PERMANENT, "%s needs a value", option);
    bool domain = strcmp(option, "--domain") == 0, null = str_eq(s, STR("<>"));
    ptrdiff_t star = str_chr(s, '*');
    if (domain && (star >= 0 || str_chr(s, '@') >= 0))
        return err_set(e, ERR_PERMANENT, "\"%s\" is not a domain", value);
    if (!domain && star >= 0 &&
        (star > 0 || s.n < 3 || s.p[1] != '@' || str_chr(str_from(s, 1), '*') >= 0))
        return err_set(e, ERR_PERMANENT, "\"%s\": a star can only stand for all before the @",
                       value);
    if (null && strcmp(option, "--sender") != 0)
        return err_set(e, ERR_PERMANENT, "only a sender can be <>");
    *text_r = null ? STR("") : s;
    return 1;
}

int
qfilter_word(struct qfilter *f, const char *option, const char *value, struct err *e)
{
    if (!option) {
        if (f->nids == QFILTER_IDS_MAX)
            return err_set(e, ERR_LIMIT, "more than %d IDs", QFILTER_IDS_MAX);
        f->ids[f->nids++] = str_z(value);
        return 1;
    }
    if (strcmp(option, "--all") == 0) {
        f->all = true;
        return 0;
    }
    if (strcmp(option, "--sender") == 0)
        return take_text(option, value, &f->sender, e);
    if (strcmp(option, "--recipient") == 0)
        return take_text(option, value, &f->recipient, e);
    if (strcmp(option, "--domain") == 0)
        return take_text(option, value, &f->domain, e);
    if (strcmp(option, "--older") == 0)
        return take_time(option, value, &f->older_s, e);
    if (strcmp(option, "--newer") == 0)
        return take_time(option, value, &f->newer_s, e);
    return err_set(e, ERR_PERMANENT, "unknown option %s", option);
}

bool
qfilter_empty(const struct qfilter *f)
{
    return !f->sender.p && !f->recipient.p && !f->domain.p && !f->older_s && !f->newer_s &&
           !f->all && !f->nids;
}

bool
qfilter_needs_envelope(const struct qfilter *f)
{
    return f->sender.p || f->recipient.p || f->domain.p;
}

static void
put_text(struct msg *m, struct str s)
{
    msg_put_bool(m, s.p != NULL);
    msg_put_str(m, s.p ? s : STR(""));
}

static void
get_text(struct msg *m, struct str *s_r)
{
    bool said = msg_get_bool(m);
    struct str s = msg_get_str(m);
    *s_r = said ? s : (struct str){0};
}

void
qfilter_put(struct msg *m, const struct qfilter *f)
{
    put_text(m, f->sender);
    put_text(m, f->recipient);
    put_text(m, f->domain);
    msg_put_u64(m, f->older_s);
    msg_put_u64(m, f->newer_s);
    msg_put_bool(m, f->all);
    msg_put_u32(m, (uint32_t)f->nids);
    for (size_t i = 0; i < f->nids; i++)
        msg_put_str(m, f->ids[i]);
}

static int
compare(const void *a, const void *b)
{
    const struct str *x = a, *y = b;
    size_t n = x->n < y->n ? x->n : y->n;
    int c = memcmp(x->p, y->p, n);
    return c ? c : (x->n > y->n) - (x->n < y->n);
}

void
qfilter_get(struct msg *m, struct qfilter *f_r)
{
    *f_r = (struct qfilter){0};
    get_text(m, &f_r->sender);
    get_text(m, &f_r->recipient);
    get_text(m, &f_r->domain);
    f_r->older_s = msg_get_u64(m);
    f_r->newer_s = msg_get_u64(m);
    f_r->all = msg_get_bool(m);
    size_t n = msg_get_u32(m);
    m->bad = m->bad || n > QFILTER_IDS_MAX;
    for (size_t i = 0; i < n && !m->bad; i++)
        f_r->ids[f_r->nids++] = msg_get_str(m);
    sort_array(f_r->ids, f_r->nids, sizeof f_r->ids[0], compare);
}

bool
qfilter_address(struct str wanted, struct str address)
{
    if (!str_starts(wanted, STR("*@")))
        return str_caseeq(wanted, address);
    ptrdiff_t at = str_rchr(address, '@');
    return at >= 0 && str_caseeq(str_from(wanted, 2), str_from(address, (size_t)at + 1));
}
