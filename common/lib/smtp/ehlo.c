#include "lib/smtp/ehlo.h"

static const struct {
    enum smtp_extension bit;
    const char *keyword;
    const char *written; /* when it is more than the keyword */
} rows[] = {
    {SMTP_PIPELINING, "PIPELINING", NULL},
    {SMTP_SIZE, "SIZE", NULL},
    {SMTP_STARTTLS, "STARTTLS", NULL},
    {SMTP_AUTH_PLAIN, "AUTH", "AUTH PLAIN"},
    {SMTP_ENHANCED, "ENHANCEDSTATUSCODES", NULL},
    {SMTP_8BITMIME, "8BITMIME", NULL},
    {SMTP_DSN, "DSN", NULL},
    {SMTP_XQUEUE, "XQUEUE", NULL},
};
enum { ROWS = sizeof rows / sizeof rows[0] };

void
smtp_ehlo_put(struct buf *out, unsigned extensions, uint64_t size_max)
{
    for (size_t i = 0; i < ROWS; i++) {
        if (!(extensions & rows[i].bit))
            continue;
        buf_addc(out, '\n');
        buf_addz(out, rows[i].written ? rows[i].written : rows[i].keyword);
        if (rows[i].bit == SMTP_SIZE) {
            buf_addc(out, ' ');
            buf_addu(out, size_max);
        }
    }
}

/* Whether one of the words of s is word. */
static bool
has_word(struct str s, struct str word)
{
    while (s.n)
        if (str_caseeq(str_cut(&s, ' '), word))
            return true;
    return false;
}

unsigned
smtp_ehlo_parse(const struct smtp_reply *r, uint64_t *size_max_r)
{
    struct str lines = buf_str(&r->text);
    unsigned set = 0;
    *size_max_r = 0;
    str_cut(&lines, '\n'); /* the server's name */
    while (lines.n) {
        struct str line = str_cut(&lines, '\n');
        struct str keyword = str_cut(&line, ' ');
        for (size_t i = 0; i < ROWS; i++)
            if (str_caseeq(keyword, str_z(rows[i].keyword)) &&
                (rows[i].bit != SMTP_AUTH_PLAIN || has_word(line, STR("PLAIN"))))
                set |= rows[i].bit;
        if (str_caseeq(keyword, STR("SIZE")) && str_u64(str_trim(line), INT64_MAX, size_max_r) < 0)
            *size_max_r = 0;
    }
    return set;
}
