#include "lib/smtp/received.h"
#include "lib/base/clock.h"
#include "lib/mail/date.h"

void
smtp_date_put(struct buf *out, int64_t when_s)
{
    date_format(out, when_s, zone_min(when_s));
}

const char *
smtp_protocol(bool esmtp, bool tls, bool auth)
{
    static const char *const names[] = {"ESMTP", "ESMTPA", "ESMTPS", "ESMTPSA"};
    return esmtp ? names[tls * 2 + auth] : "SMTP";
}

void
smtp_received_put(struct buf *out, const struct smtp_received *r)
{
    buf_addz(out, "Received: ");
    if (r->ip.n) {
        buf_addf(out, "from %.*s ([%s%.*s])\r\n\tby %.*s (Bulkhead) with %s", STR_ARG(r->helo),
                 str_chr(r->ip, ':') >= 0 ? "IPv6:" : "", STR_ARG(r->ip), STR_ARG(r->by),
                 smtp_protocol(r->esmtp, r->tls, r->auth));
        if (r->tls_text.n)
            buf_addf(out, " (%.*s)", STR_ARG(r->tls_text));
    } else {
        buf_addf(out, "by %.*s (Bulkhead, from userid %lu)", STR_ARG(r->by), (unsigned long)r->uid);
    }
    buf_addf(out, "\r\n\tid %.*s; ", STR_ARG(r->id));
    smtp_date_put(out, r->when_s);
    buf_addz(out, "\r\n");
}
