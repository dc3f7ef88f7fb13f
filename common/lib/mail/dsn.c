#include "lib/mail/dsn.h"
#include "lib/base/encode.h"

static const struct {
    const char *word;
    uint8_t bit;
} words[] = {
    {"NEVER", DSN_NEVER}, {"SUCCESS", DSN_SUCCESS}, {"FAILURE", DSN_FAILURE}, {"DELAY", DSN_DELAY}};
enum { WORDS = sizeof words / sizeof words[0] };

static uint8_t
bit_of(struct str word)
{
    for (size_t i = 0; i < WORDS; i++)
        if (str_caseeq(word, str_z(words[i].word)))
            return words[i].bit;
    return 0;
}

int
dsn_notify_parse(struct str value, uint8_t *notify_r)
{
    uint8_t set = 0;
    bool more = true;
    if (value.n > DSN_NOTIFY_MAX)
        return -1;
    while (more) {
        more = str_chr(value, ',') >= 0;
        uint8_t bit = bit_of(str_cut(&value, ','));
        if (!bit)
            return -1;
        set |= bit;
    }
    if (!dsn_notify_ok(set))
        return -1;
    *notify_r = set;
    return 0;
}

int
dsn_ret_parse(struct str value, uint8_t *ret_r)
{
    if (str_caseeq(value, STR("FULL")))
        *ret_r = DSN_RET_FULL;
    else if (str_caseeq(value, STR("HDRS")))
        *ret_r = DSN_RET_HDRS;
    else
        return -1;
    return 0;
}

bool
dsn_notify_ok(unsigned notify)
{
    return notify < DSN_NOTIFY_END && (!(notify & DSN_NEVER) || notify == DSN_NEVER);
}

/* Decoded into out; false when it is no xtext, or not of printable US-ASCII. */
static bool
decode(struct buf *out, struct str xtext)
{
    size_t from = out->n;
    if (xtext_decode(out, xtext) < 0)
        return false;
    for (size_t i = from; i < out->n; i++)
        if (!ch_print(out->p[i]))
            return false;
    return true;
}

static bool
is_printable(struct str xtext)
{
    char room[DSN_ORCPT_MAX + 1];
    struct buf b = buf_on(room, sizeof room, sizeof room - 1);
    return decode(&b, xtext);
}

bool
dsn_envid_ok(struct str xtext)
{
    return xtext.n && xtext.n <= DSN_ENVID_MAX && is_printable(xtext);
}

/* RFC 822 3.3 */
static bool
is_atom(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!ch_alnum(s.p[i]) && str_chr(STR("!#$%&'*+-/?^_`{|}~"), s.p[i]) < 0)
            return false;
    return s.n > 0;
}

bool
dsn_orcpt_ok(struct str orcpt)
{
    struct str address = orcpt;
    struct str type = str_cut(&address, ';');
    return orcpt.n <= DSN_ORCPT_MAX && is_atom(type) && address.n && is_printable(address);
}

void
dsn_notify_put(struct buf *out, unsigned notify)
{
    const char *before = "";
    for (size_t i = 0; i < WORDS; i++)
        if (notify & words[i].bit) {
            buf_addz(out, before);
            buf_addz(out, words[i].word);
            before = ",";
        }
}

const char *
dsn_ret_name(unsigned ret)
{
    return ret == DSN_RET_FULL ? "FULL" : "HDRS";
}

void
dsn_envid_decode(struct buf *out, struct str xtext)
{
    (void)decode(out, xtext);
}

void
dsn_orcpt_decode(struct buf *out, struct str orcpt)
{
    struct str address = orcpt;
    buf_add(out, str_cut(&address, ';'));
    buf_addz(out, "; ");
    (void)decode(out, address);
}

unsigned
dsn_notify_expanded(unsigned notify)
{
    /* Without SUCCESS nothing may be left; nothing at all would ask for failures. */
    return notify == DSN_SUCCESS ? DSN_NEVER : notify & ~(unsigned)DSN_SUCCESS;
}
