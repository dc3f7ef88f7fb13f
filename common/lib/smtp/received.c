#include "lib/smtp/received.h"
#include <time.h>

void
smtp_date_put(struct buf *out, int64_t when_s)
{
    static const char days[][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char months[][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                     "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    time_t t = (time_t)when_s;
    struct tm tm;
    if (!localtime_r(&t, &tm)) /* a year beyond int: not a time of ours */
        tm = (struct tm){.tm_mday = 1, .tm_year = 70, .tm_wday = 4};
    long minutes = tm.tm_gmtoff / 60;
    long size = minutes < 0 ? -minutes : minutes;
    buf_addf(out, "%s, %d %s %d %02d:%02d:%02d %c%02ld%02ld", days[tm.tm_wday % 7], tm.tm_mday,
             months[tm.tm_mon % 12], tm.tm_year + 1900, tm.tm_hour, tm.tm_min, tm.tm_sec,
             minutes < 0 ? '-' : '+', size / 60, size % 60);
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
