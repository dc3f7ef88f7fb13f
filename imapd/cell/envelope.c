/* ENVELOPE (RFC 3501 7.4.2). */
#include "imapd/cell/args.h"
#include "imapd/cell/fetch.h"
#include "lib/mail/addrlist.h"
#include "lib/mail/header.h"

static void
put_text(struct buf *out, struct str header, const char *name)
{
    struct header_field f;
    struct buf line = buf_new(HEADER_FIELD_MAX);
    if (header_find(header, str_z(name), &f)) {
        header_unfold(&line, f.value);
        icell_put_nstring(out, buf_str(&line));
    } else {
        buf_addz(out, "NIL");
    }
    buf_free(&line);
}

static struct str
or_nil(struct str s)
{
    return s.n ? s : str_of(NULL, 0);
}

static void
put_address(struct buf *out, const struct addrlist_entry *a)
{
    buf_addc(out, '(');
    icell_put_nstring(out, or_nil(a->name));
    buf_addc(out, ' ');
    icell_put_nstring(out, or_nil(a->route));
    buf_addc(out, ' ');
    /* A group ends with all NIL; NIL as host says that a group begins. */
    if (a->kind == ADDRLIST_GROUP_END)
        buf_addz(out, "NIL NIL");
    else {
        icell_put_nstring(out, a->mailbox);
        buf_addc(out, ' ');
        icell_put_nstring(out, a->kind == ADDRLIST_ADDRESS ? a->host : str_of(NULL, 0));
    }
    buf_addc(out, ')');
}

/* Of several fields of one name the first counts. False: none, or nothing in it. */
static bool
put_addresses(struct buf *out, struct arena *arena, struct str header, const char *name)
{
    struct header_field f;
    struct addrlist list;
    if (!header_find(header, str_z(name), &f) || addrlist_parse(f.value, arena, &list) < 0 ||
        list.n == 0)
        return false;
    buf_addc(out, '(');
    for (size_t i = 0; i < list.n; i++)
        put_address(out, &list.at[i]);
    buf_addc(out, ')');
    return true;
}

void
icell_envelope(struct buf *out, struct arena *arena, struct str header)
{
    static const char *const lists[] = {"From", "Sender", "Reply-To", "To", "Cc", "Bcc"};
    buf_addc(out, '(');
    put_text(out, header, "Date");
    buf_addc(out, ' ');
    put_text(out, header, "Subject");
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        buf_addc(out, ' ');
        /* Sender and Reply-To that are not there are From. */
        bool there = put_addresses(out, arena, header, lists[i]);
        if (!there && (i == 1 || i == 2))
            there = put_addresses(out, arena, header, "From");
        if (!there)
            buf_addz(out, "NIL");
    }
    buf_addc(out, ' ');
    put_text(out, header, "In-Reply-To");
    buf_addc(out, ' ');
    put_text(out, header, "Message-ID");
    buf_addc(out, ')');
}
