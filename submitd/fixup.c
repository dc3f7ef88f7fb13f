#include "lib/smtp/received.h"
#include "submitd/session.h"

/*
 * The header of a submitted message, made whole (RFC 6409 8): a submission agent may add what is
 * missing, and removes what nobody else should read.
 */

struct seen {
    unsigned from, date, message_id;
    struct str from_value; /* of the first From */
};

/* Copies the fields; what they were is noted in seen. */
static void
copy(struct str head, struct buf *out, struct seen *seen)
{
    struct cursor c = cursor_of(head);
    struct smtp_field f;
    while (smtp_field_next(&c, &f)) {
        /* Bcc is for us alone (catalogue H20); Return-Path is for final delivery to write. */
        if (str_caseeq(f.name, STR("Bcc")) || str_caseeq(f.name, STR("Resent-Bcc")) ||
            str_caseeq(f.name, STR("Return-Path")))
            continue;
        if (str_caseeq(f.name, STR("From")) && seen->from++ == 0)
            seen->from_value = f.value;
        else if (str_caseeq(f.name, STR("Date")))
            seen->date++;
        else if (str_caseeq(f.name, STR("Message-ID")))
            seen->message_id++;
        buf_add(out, f.whole);
    }
}

/* One From, one mailbox in it, and that one the login's (catalogue H4, F13). */
static bool
from_is_ours(struct smtp_server *s, struct str value)
{
    struct buf spec = buf_new(1024);
    struct cursor c = cursor_of(value);
    struct address a;
    size_t n = 0;
    int owns = 0;
    bool one = smtp_mailbox_next(&c, &n, &spec) == 1 &&
               address_parse(buf_str(&spec), &a, NULL) == 0 &&
               smtp_mailbox_next(&c, &n, &spec) == 0;
    if (one)
        owns = submitd_owns(s, address_str(&a));
    buf_free(&spec);
    if (!one)
        return smtp_refuse(s, 550, "5.7.1", "Error: From must name exactly one mailbox");
    if (owns < 0)
        return smtp_refuse(s, 451, "4.3.0", "Error: temporary lookup failure");
    return owns || smtp_refuse(s, 550, "5.7.1", "Error: the address in From is not yours");
}

static void
add_missing(struct smtp_server *s, const struct seen *seen, struct buf *out)
{
    if (!seen->from) {
        buf_addz(out, "From: ");
        if (s->tx.sender.n)
            buf_add(out, s->tx.sender);
        else
            buf_addf(out, "MAILER-DAEMON@%.*s", STR_ARG(smtp_origin_domain(s->conf)));
        buf_addz(out, "\r\n");
    }
    if (!seen->date) {
        buf_addz(out, "Date: ");
        smtp_date_put(out, wall_s());
        buf_addz(out, "\r\n");
    }
    if (!seen->message_id)
        buf_addf(out, "Message-ID: <%s.%llx@%.*s>\r\n", s->queue.id, (unsigned long long)wall_us(),
                 STR_ARG(s->conf->hostname));
}

bool
submitd_fixup(struct smtp_server *s, struct str head, struct buf *out)
{
    struct seen seen = {0};
    copy(head, out, &seen);
    if (seen.from > 1)
        return smtp_refuse(s, 550, "5.7.1", "Error: more than one From field");
    /* A local user is on record in Received; programs such as cron write a From of their own. */
    if (seen.from && !s->local && !from_is_ours(s, seen.from_value))
        return false;
    add_missing(s, &seen, out);
    return true;
}
