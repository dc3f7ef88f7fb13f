#include "submitd/session.h"
#include <stdio.h>
#include <time.h>

/*
 * XQUEUE: the list of the queue for mailq(1), on the local socket only, in the columns that people
 * and their scripts know from other systems' mailq.
 */

enum { PAGES_MAX = 100000, QLINE_MAX = 480 };

struct listing {
    uint64_t messages, bytes;
    char after[QCLIENT_ID_MAX + 1];
    bool more;
};

static void put_line(struct smtp_server *s, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
static void
put_line(struct smtp_server *s, const char *fmt, ...)
{
    char text[QLINE_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    for (char *p = text; *p; p++)
        if (!ch_print(*p))
            *p = '?';
    stream_putf(&s->io, "250-%s\r\n", text);
}

static void
put_message(struct smtp_server *s, struct msg *m, struct listing *l)
{
    char when[32] = "";
    struct tm tm;
    struct str id = msg_get_str(m);
    uint64_t size = msg_get_u64(m);
    time_t arrived = (time_t)msg_get_u64(m);
    (void)msg_get_u64(m); /* the next attempt's time */
    (void)msg_get_u32(m); /* how many there were */
    struct str sender = msg_get_str(m), state = msg_get_str(m), reason = msg_get_str(m);
    uint32_t nrcpt = msg_get_u32(m);
    if (m->bad || id.n > QCLIENT_ID_MAX)
        return;
    if (localtime_r(&arrived, &tm))
        strftime(when, sizeof when, "%a %b %e %H:%M:%S", &tm);
    put_line(s, "%-12.*s%c %8llu %s  %.*s", STR_ARG(id),
             str_eq(state, STR("active")) ? '*'
             : str_eq(state, STR("hold")) ? '!'
                                          : ' ',
             (unsigned long long)size, when, STR_ARG(sender.n ? sender : STR("MAILER-DAEMON")));
    if (reason.n)
        put_line(s, "(%.*s)", STR_ARG(reason));
    for (uint32_t i = 0; i < nrcpt && !m->bad; i++) {
        struct str address = msg_get_str(m);
        if (!m->bad)
            put_line(s, "%41s%.*s", "", STR_ARG(address));
    }
    put_line(s, "%s", "");
    memcpy(l->after, id.p, id.n);
    l->after[id.n] = '\0';
    l->messages++;
    l->bytes += size;
}

/* One answer of qmgr; 0, or -1. */
static int
put_page(struct smtp_server *s, struct listing *l, struct err *e)
{
    struct msg m = {0};
    msg_begin(&m, M_QUEUE_LIST);
    msg_put_str(&m, str_z(l->after));
    int n = remote_ask(&s->queue.remote, &m, M_QUEUE_ROWS, QCLIENT_ASK_MS, e);
    if (n == 0) {
        l->more = msg_get_bool(&m);
        uint32_t rows = msg_get_u32(&m);
        if (rows && l->messages == 0)
            put_line(s, "-Queue ID-  --Size-- ----Arrival Time---- -Sender/Recipient-------");
        for (uint32_t i = 0; i < rows && !m.bad; i++)
            put_message(s, &m, l);
        if (rows == 0)
            l->more = false;
        if (!msg_end(&m))
            n = err_set(e, ERR_PROTOCOL, "qmgr: malformed answer");
    }
    msg_free(&m);
    return n;
}

void
submitd_xqueue(struct smtp_server *s, struct str argument)
{
    struct listing l = {0};
    struct err e = {0};
    if (!s->local || argument.n) {
        smtp_say(s, 502, "5.5.1", "Error: XQUEUE is for local users, and has no argument");
        return;
    }
    for (unsigned page = 0; page == 0 || (l.more && page < PAGES_MAX); page++) {
        if (put_page(s, &l, &e) < 0) {
            /* The lines so far were all 250-: the last one has the same code, and says it. */
            if (l.messages)
                smtp_reply_put(&s->io, 250, "", STR("-- the list is not complete"));
            else
                smtp_say(s, 451, "4.3.0", "Error: the queue manager does not answer");
            return;
        }
    }
    if (l.messages == 0)
        smtp_reply_put(&s->io, 250, "", STR("Mail queue is empty"));
    else
        stream_putf(&s->io, "250 -- %llu Kbytes in %llu Request%s.\r\n",
                    (unsigned long long)((l.bytes + 1023) / 1024), (unsigned long long)l.messages,
                    l.messages == 1 ? "" : "s");
}
