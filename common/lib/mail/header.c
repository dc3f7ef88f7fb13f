#include "lib/mail/header.h"

/* Where the line that begins at `at` ends: just behind its LF. */
static size_t
line_end(struct str s, size_t at)
{
    ptrdiff_t lf = str_chr(str_from(s, at), '\n');
    return lf < 0 ? s.n : at + (size_t)lf + 1;
}

static bool
line_empty(struct str s, size_t at)
{
    struct str line = str_from(s, at);
    return str_starts(line, STR("\n")) || str_starts(line, STR("\r\n"));
}

/* Offset of the empty line, or the end. */
static size_t
empty_line(struct str s)
{
    for (size_t at = 0; at < s.n; at = line_end(s, at))
        if (line_empty(s, at))
            return at;
    return s.n;
}

size_t
header_body(struct str message)
{
    size_t at = empty_line(message);
    return at < message.n ? line_end(message, at) : at;
}

struct header
header_of(struct str message)
{
    return (struct header){.text = str_sub(message, 0, empty_line(message))};
}

/* The end of the field at `at`: its line and all that continue it. */
static size_t
field_end(struct str s, size_t at)
{
    size_t end = line_end(s, at);
    while (end < s.n && ch_wsp(s.p[end]))
        end = line_end(s, end);
    return end;
}

static struct str
no_line_end(struct str s)
{
    if (s.n && s.p[s.n - 1] == '\n')
        s.n--;
    if (s.n && s.p[s.n - 1] == '\r')
        s.n--;
    return s;
}

/* RFC 5322 3.6.8 with the blanks before the colon that 4.5 allows; bytes above 0x7e are let pass.
 */
static bool
split(struct str whole, struct header_field *f)
{
    ptrdiff_t colon = str_chr(str_sub(whole, 0, HEADER_FIELD_MAX), ':');
    if (colon <= 0)
        return false;
    struct str name = str_sub(whole, 0, (size_t)colon);
    while (name.n && ch_wsp(name.p[name.n - 1]))
        name.n--;
    for (size_t i = 0; i < name.n; i++)
        if (name.p[i] == ' ' || name.p[i] == '\t' || name.p[i] == '\r' || name.p[i] == '\n')
            return false;
    if (name.n == 0)
        return false;
    f->name = name;
    f->whole = whole;
    f->value = no_line_end(str_sub(whole, (size_t)colon + 1, HEADER_FIELD_MAX - (size_t)colon - 1));
    return true;
}

bool
header_next(struct header *h, struct header_field *field_r)
{
    while (h->at < h->text.n) {
        if (h->fields >= HEADER_FIELDS_MAX || h->at >= HEADER_BLOCK_MAX) {
            h->over = true;
            return false;
        }
        size_t end = field_end(h->text, h->at);
        struct str whole = str_sub(h->text, h->at, end - h->at);
        h->at = end;
        if (split(whole, field_r)) {
            h->fields++;
            return true;
        }
    }
    return false;
}

bool
header_find(struct str message, struct str name, struct header_field *field_r)
{
    struct header h = header_of(message);
    while (header_next(&h, field_r))
        if (str_caseeq(field_r->name, name))
            return true;
    return false;
}

void
header_unfold(struct buf *out, struct str value)
{
    value = str_trim(value);
    if (str_chr(value, '\n') < 0) {
        buf_add(out, value);
        return;
    }
    for (size_t i = 0; i < value.n; i++) {
        char c = value.p[i];
        bool fold = c == '\n' || (c == '\r' && i + 1 < value.n && value.p[i + 1] == '\n');
        if (!fold)
            buf_addc(out, c);
    }
}
