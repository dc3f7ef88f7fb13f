#include "lib/mailbox/mbox.h"
#include "lib/mailbox/mailbox.h"
#include <stdio.h>
#include <time.h>

static const char *const months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                     "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
static const char *const days[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};

/* "21:49" or "21:49:08" */
static bool
take_clock(struct str word, struct tm *t)
{
    uint32_t h, m, s = 0;
    struct str hour = str_cut(&word, ':'), minute = str_cut(&word, ':');
    if (hour.n == 0 || hour.n > 2 || minute.n != 2 || str_u32(hour, 23, &h) < 0 ||
        str_u32(minute, 59, &m) < 0 || (word.n && str_u32(word, 60, &s) < 0))
        return false;
    t->tm_hour = (int)h;
    t->tm_min = (int)m;
    t->tm_sec = (int)s;
    return true;
}

static bool
take_month(struct str word, struct tm *t)
{
    for (int i = 0; i < 12; i++)
        if (str_caseeq(word, str_z(months[i]))) {
            t->tm_mon = i;
            return true;
        }
    return false;
}

bool
mbox_from_line(struct str line, int64_t *date_s_r)
{
    struct str back[2] = {{0}}; /* the words before this one */
    struct tm t = {0};
    bool clock = false;
    if (line.n > MBOX_FROM_MAX || !str_starts(line, STR("From ")))
        return false;
    struct str rest = str_from(line, 5);
    while (rest.n) {
        uint32_t day, year;
        struct str word = str_cut(&rest, ' ');
        if (word.n == 0)
            continue;
        if (clock && word.n == 4 && str_u32(word, 9999, &year) == 0 && year >= 1900) {
            t.tm_year = (int)year - 1900;
            *date_s_r = timegm(&t);
            return true;
        }
        if (!clock && take_clock(word, &t) && str_u32(back[0], 31, &day) == 0 && day &&
            take_month(back[1], &t)) {
            t.tm_mday = (int)day;
            clock = true;
        }
        back[1] = back[0];
        back[0] = word;
    }
    return false;
}

static uint8_t
flags_of(struct str letters)
{
    static const struct {
        char letter;
        uint8_t flag;
    } all[] = {{'R', MAILBOX_SEEN},
               {'A', MAILBOX_ANSWERED},
               {'F', MAILBOX_FLAGGED},
               {'D', MAILBOX_DELETED},
               {'T', MAILBOX_DRAFT}};
    uint8_t flags = 0;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if (str_chr(letters, all[i].letter) >= 0)
            flags |= all[i].flag;
    return flags;
}

/* "1700000000 0000000042 word ..." */
static void
take_base(struct str value, struct mbox_meta *m)
{
    if (str_u32(str_cut(&value, ' '), UINT32_MAX, &m->validity) < 0 ||
        str_u32(str_cut(&value, ' '), UINT32_MAX - 1, &m->next) < 0)
        m->validity = m->next = 0;
    else
        m->next++; /* it is the last one that is said */
}

bool
mbox_meta_line(struct str line, struct mbox_meta *m)
{
    struct str value = line;
    struct str name = str_trim(str_cut(&value, ':'));
    value = str_trim(value);
    if (name.n == line.n)
        return false;
    if (str_caseeq(name, STR("Status"))) {
        m->flags |= flags_of(value) & MAILBOX_SEEN;
        m->old |= str_chr(value, 'O') >= 0;
    } else if (str_caseeq(name, STR("X-Status"))) {
        m->flags |= flags_of(value) & (uint8_t)~MAILBOX_SEEN;
    } else if (str_caseeq(name, STR("X-Keywords"))) {
        m->keywords = value;
    } else if (str_caseeq(name, STR("X-UID"))) {
        if (str_u32(value, UINT32_MAX - 1, &m->uid) < 0)
            m->uid = 0;
    } else if (str_caseeq(name, STR("X-IMAP")) || str_caseeq(name, STR("X-IMAPbase"))) {
        take_base(value, m);
    } else {
        return str_caseeq(name, STR("Content-Length"));
    }
    return true;
}

void
mbox_put_meta(struct buf *out, const struct mbox_meta *m, int64_t date_s)
{
    struct tm t;
    time_t when = (time_t)date_s;
    if (!gmtime_r(&when, &t) || t.tm_year < 0 || t.tm_year > 8099)
        gmtime_r(&(time_t){0}, &t);
    buf_addf(out, "From MAILER-DAEMON %s %s %2d %02d:%02d:%02d %d\n", days[t.tm_wday],
             months[t.tm_mon], t.tm_mday, t.tm_hour, t.tm_min, t.tm_sec, t.tm_year + 1900);
    bool base = m->validity && m->next;
    buf_addf(out, "X-Bulkhead: %d%s\n", 3 + base + (m->uid != 0), m->no_newline ? " open" : "");
    if (base)
        buf_addf(out, "X-IMAPbase: %u %010u\n", m->validity, m->next - 1);
    if (m->uid)
        buf_addf(out, "X-UID: %u\n", m->uid);
    buf_addf(out, "Status: %s%s\n", m->flags & MAILBOX_SEEN ? "R" : "", m->old ? "O" : "");
    buf_addf(out, "X-Status: %s%s%s%s\n", m->flags & MAILBOX_ANSWERED ? "A" : "",
             m->flags & MAILBOX_FLAGGED ? "F" : "", m->flags & MAILBOX_DRAFT ? "T" : "",
             m->flags & MAILBOX_DELETED ? "D" : "");
    buf_addz(out, "X-Keywords: ");
    buf_add(out, m->keywords);
    buf_addc(out, '\n');
}
