#include "lib/mailbox/mailname.h"
#include "lib/base/clock.h"
#include "lib/mailbox/durable.h"
#include "lib/mailbox/mailbox.h"

static const struct {
    char letter;
    uint8_t flag;
} letters[] = {{'D', MAILBOX_DRAFT},
               {'F', MAILBOX_FLAGGED},
               {'R', MAILBOX_ANSWERED},
               {'S', MAILBOX_SEEN},
               {'T', MAILBOX_DELETED}};
enum { LETTERS = sizeof letters / sizeof letters[0] };

int
mailname_uid(struct str field, struct mailname *m_r)
{
    struct str validity = str_from(field, 2);
    struct str uid = str_cut(&validity, '.');
    return !str_starts(field, STR("U=")) || str_u32(uid, UINT32_MAX, &m_r->uid) < 0 ||
                   str_u32(validity, UINT32_MAX, &m_r->validity) < 0 || !m_r->uid || !m_r->validity
               ? -1
               : 0;
}

static void
parse_field(struct str field, struct mailname *m)
{
    if (field.n < 2 || field.p[1] != '=')
        return;
    struct str value = str_from(field, 2);
    if (field.p[0] == 'S' && str_u64(value, INT64_MAX, &m->size) < 0)
        m->size = UINT64_MAX;
    if (field.p[0] == 'W' && str_u64(value, INT64_MAX, &m->vsize) < 0)
        m->vsize = UINT64_MAX;
    if (field.p[0] == 'U' && mailname_uid(field, m) < 0)
        m->uid = m->validity = 0;
}

static void
parse_flags(struct str info, struct mailname *m)
{
    for (size_t i = 0; i < info.n && info.p[i] != ','; i++) {
        if (info.p[i] >= 'a' && info.p[i] <= 'z')
            m->keywords |= 1u << (info.p[i] - 'a');
        for (size_t k = 0; k < LETTERS; k++)
            if (info.p[i] == letters[k].letter)
                m->flags |= letters[k].flag;
    }
}

struct str
mailname_head(struct str name)
{
    size_t at = 0;
    for (ptrdiff_t skip; (skip = str_chr(str_from(name, at), ':')) >= 0; at++) {
        at += (size_t)skip;
        if (name.n - at >= 3 && name.p[at + 1] == '2' && name.p[at + 2] == ',')
            return str_sub(name, 0, at);
    }
    return name;
}

int
mailname_parse(struct str name, struct mailname *m_r)
{
    if (name.n > MAILNAME_MAX || !str_component(name))
        return -1;
    *m_r = (struct mailname){.size = UINT64_MAX, .vsize = UINT64_MAX};
    struct str head = mailname_head(name);
    m_r->info = head.n == name.n ? str_of("", 0) : str_from(name, head.n + 3);
    struct str rest = head;
    m_r->base = str_cut(&rest, ',');
    m_r->fields = str_from(head, m_r->base.n);
    while (rest.n)
        parse_field(str_cut(&rest, ','), m_r);
    parse_flags(m_r->info, m_r);
    size_t digits = 0;
    while (digits < head.n && digits < 11 && ch_digit(head.p[digits]))
        digits++;
    uint64_t seconds = 0;
    if (str_u64(str_sub(head, 0, digits), INT64_MAX, &seconds) == 0)
        m_r->time_s = (int64_t)seconds;
    return 0;
}

void
mailname_fresh(struct buf *out, int64_t time_s)
{
    char hex[25];
    durable_random_hex(hex, 12);
    buf_addf(out, "%lld.M%06lldR%s.bulkhead", (long long)(time_s > 0 ? time_s : wall_s()),
             (long long)(wall_us() % 1000000), hex);
}

struct str
mailname_suffix(char room[static MAILNAME_SUFFIX_MAX], uint8_t flags, uint32_t keywords)
{
    char *text = room;
    size_t n = 3;
    memcpy(text, ":2,", 3);
    for (size_t k = 0; k < LETTERS; k++)
        if (flags & letters[k].flag)
            text[n++] = letters[k].letter;
    for (unsigned k = 0; k < 26 && keywords >> k; k++)
        if (keywords >> k & 1)
            text[n++] = (char)('a' + k);
    return str_of(text, n);
}

struct str
mailname_base(struct str name)
{
    struct str head = mailname_head(name);
    return str_cut(&head, ',');
}

/* Flags in ASCII order; others' letters stay. */
static void
build_info(struct buf *out, const struct mailname *old, const struct mailname_new *with)
{
    bool set[256] = {false};
    struct str tail = old->info;
    struct str flags = str_cut(&tail, ',');
    for (size_t i = 0; i < flags.n; i++)
        set[(unsigned char)flags.p[i]] = true;
    for (unsigned k = 0; k < 26; k++)
        set['a' + k] = with->keywords >> k & 1;
    for (size_t k = 0; k < LETTERS; k++)
        set[(unsigned char)letters[k].letter] = with->flags & letters[k].flag;
    buf_addz(out, ":2,");
    for (int c = 1; c < 256; c++)
        if (set[c])
            buf_addc(out, (char)c);
    if (flags.n < old->info.n)
        buf_add(out, str_from(old->info, flags.n));
}

static void
build(struct buf *out, struct str base, bool sizes, const struct mailname *old,
      const struct mailname_new *with)
{
    struct str rest = str_from(old->fields, 1);
    buf_reset(out);
    buf_add(out, base);
    while (rest.n) {
        struct str field = str_cut(&rest, ',');
        if (!str_starts(field, STR("U=")) && !(str_starts(field, STR("S=")) && !sizes) &&
            !(str_starts(field, STR("W=")) && !sizes)) {
            buf_addc(out, ',');
            buf_add(out, field);
        }
    }
    if (sizes && old->size == UINT64_MAX && with->size != UINT64_MAX)
        buf_addf(out, ",S=%llu", (unsigned long long)with->size);
    if (sizes && old->vsize == UINT64_MAX && with->vsize != UINT64_MAX)
        buf_addf(out, ",W=%llu", (unsigned long long)with->vsize);
    if (with->uid)
        buf_addf(out, ",U=%u.%u", with->uid, with->validity);
    if (with->info)
        build_info(out, old, with);
}

void
mailname_build(struct buf *out, const struct mailname *old, const struct mailname_new *with)
{
    build(out, old->base, true, old, with);
    if (buf_ok(out) && out->n <= MAILNAME_MAX)
        return;
    build(out, old->base, false, old, with);
    if (buf_ok(out) && out->n <= MAILNAME_MAX)
        return;
    struct buf fresh = buf_new(80);
    struct mailname bare = *old;
    bare.fields = str_of("", 0);
    bare.info = str_sub(old->info, 0, 40);
    mailname_fresh(&fresh, old->time_s);
    build(out, buf_str(&fresh), true, &bare, with);
    buf_free(&fresh);
}
