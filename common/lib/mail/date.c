#include "lib/mail/date.h"
#include "lib/mail/cfws.h"
#include "lib/base/cursor.h"

static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
static const char weekdays[] = "ThuFriSatSunMonTueWed"; /* day 0 was a Thursday */
enum { DAY_S = 86400 };

/* Years begin in March here, so that the leap day is the last of the year. */
int64_t
date_days(int year, int month, int day)
{
    int64_t y = year - (month <= 2);
    int64_t era = (y >= 0 ? y : y - 399) / 400;
    int64_t of_era = y - era * 400;
    int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

void
date_civil(int64_t days, int *year_r, int *month_r, int *day_r)
{
    days += 719468;
    int64_t era = (days >= 0 ? days : days - 146096) / 146097;
    int64_t of_era = days - era * 146097;
    int64_t y = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int64_t of_year = of_era - (365 * y + y / 4 - y / 100);
    int64_t m = (5 * of_year + 2) / 153;
    *day_r = (int)(of_year - (153 * m + 2) / 5 + 1);
    *month_r = (int)(m < 10 ? m + 3 : m - 9);
    *year_r = (int)(y + era * 400 + (*month_r <= 2));
}

static int
month_days(int year, int month)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return month == 2 && leap ? 29 : days[month - 1];
}

static bool
is_digit(char ch)
{
    return ch_digit(ch);
}

/* min to max digits. */
static int
number(struct cursor *c, size_t min, size_t max, int *value_r)
{
    struct cursor at = *c;
    struct str digits = cur_while(&at, is_digit);
    uint32_t v;
    if (digits.n < min || digits.n > max || str_u32(digits, 99999, &v) < 0)
        return -1;
    *value_r = (int)v;
    *c = at;
    return 0;
}

/* 1..12 from three letters. */
static int
month_name(struct cursor *c, int *month_r)
{
    for (int m = 0; m < 12; m++)
        if (cur_take_case(c, str_of(months + 3 * m, 3))) {
            *month_r = m + 1;
            return 0;
        }
    return -1;
}

/* RFC 5322 4.3. Other letters mean nothing is known: -0000. */
static int
zone_name(struct cursor *c)
{
    static const struct {
        const char *name;
        int minutes;
    } zones[] = {{"EST", -300}, {"EDT", -240}, {"CST", -360}, {"CDT", -300},
                 {"MST", -420}, {"MDT", -360}, {"PST", -480}, {"PDT", -420}};
    struct str name = cur_while(c, ch_alpha);
    for (size_t i = 0; i < sizeof zones / sizeof zones[0]; i++)
        if (str_caseeq(name, str_z(zones[i].name)))
            return zones[i].minutes;
    return 0;
}

static int
zone(struct cursor *c, int *minutes_r)
{
    int sign = cur_peek(c), hhmm;
    *minutes_r = 0;
    if (sign != '+' && sign != '-') {
        *minutes_r = zone_name(c);
        return 0;
    }
    cur_next(c);
    if (number(c, 4, 4, &hhmm) < 0 || hhmm % 100 > 59)
        return -1;
    *minutes_r = (hhmm / 100 * 60 + hhmm % 100) * (sign == '-' ? -1 : 1);
    return 0;
}

static int
finish(struct date *d, int hour, int minute, int second)
{
    if (d->month < 1 || d->year < 1 || d->year > 9999 || d->day < 1 ||
        d->day > month_days(d->year, d->month) || hour > 23 || minute > 59 || second > 60)
        return -1;
    d->utc_s = date_days(d->year, d->month, d->day) * DAY_S + hour * 3600 + minute * 60 + second -
               d->zone_min * 60;
    return 0;
}

int
date_parse(struct str text, struct date *date_r)
{
    struct cursor c = cursor_of(text);
    struct date d = {0};
    int hour = 0, minute = 0, second = 0;
    cfws_skip(&c);
    if (cur_while(&c, ch_alpha).n) {
        cfws_skip(&c);
        cur_take(&c, ',');
        cfws_skip(&c);
    }
    if (number(&c, 1, 2, &d.day) < 0)
        return -1;
    cfws_skip(&c);
    if (month_name(&c, &d.month) < 0)
        return -1;
    cfws_skip(&c);
    size_t year_at = c.at;
    if (number(&c, 2, 4, &d.year) < 0)
        return -1;
    /* RFC 5322 4.3: two digits below 50 are 20xx, other two and all three are from 1900. */
    size_t digits = c.at - year_at;
    if (digits < 4)
        d.year += digits == 2 && d.year < 50 ? 2000 : 1900;
    cfws_skip(&c);
    if (number(&c, 1, 2, &hour) < 0)
        return -1;
    cfws_skip(&c);
    if (!cur_take(&c, ':'))
        return -1;
    cfws_skip(&c);
    if (number(&c, 1, 2, &minute) < 0)
        return -1;
    cfws_skip(&c);
    if (cur_take(&c, ':')) {
        cfws_skip(&c);
        if (number(&c, 1, 2, &second) < 0)
            return -1;
        cfws_skip(&c);
    }
    if (zone(&c, &d.zone_min) < 0 || finish(&d, hour, minute, second) < 0)
        return -1;
    *date_r = d;
    return 0;
}

struct parts {
    int year, month, day, hour, minute, second, weekday;
};

static struct parts
take_apart(int64_t utc_s, int zone_min)
{
    struct parts p;
    const int64_t first = -62135596800, last = 253402300799; /* years 1 and 9999 */
    int64_t local = utc_s + (int64_t)zone_min * 60;
    local = local < first ? first : local > last ? last : local;
    int64_t days = local / DAY_S, rest = local % DAY_S;
    if (rest < 0) {
        rest += DAY_S;
        days--;
    }
    date_civil(days, &p.year, &p.month, &p.day);
    p.hour = (int)(rest / 3600);
    p.minute = (int)(rest / 60 % 60);
    p.second = (int)(rest % 60);
    p.weekday = (int)((days % 7 + 7) % 7);
    return p;
}

static void
add_zone(struct buf *out, int zone_min)
{
    int minutes = zone_min < 0 ? -zone_min : zone_min;
    buf_addf(out, "%c%02d%02d", zone_min < 0 ? '-' : '+', minutes / 60 % 100, minutes % 60);
}

void
date_format(struct buf *out, int64_t utc_s, int zone_min)
{
    struct parts p = take_apart(utc_s, zone_min);
    buf_addf(out, "%.3s, %d %.3s %04d %02d:%02d:%02d ", weekdays + 3 * p.weekday, p.day,
             months + 3 * (p.month - 1), p.year, p.hour, p.minute, p.second);
    add_zone(out, zone_min);
}

void
date_format_imap(struct buf *out, int64_t utc_s, int zone_min)
{
    struct parts p = take_apart(utc_s, zone_min);
    buf_addf(out, "%2d-%.3s-%04d %02d:%02d:%02d ", p.day, months + 3 * (p.month - 1), p.year,
             p.hour, p.minute, p.second);
    add_zone(out, zone_min);
}

static int
day_month_year(struct cursor *c, struct date *d)
{
    cur_take(c, ' ');
    return number(c, 1, 2, &d->day) < 0 || !cur_take(c, '-') || month_name(c, &d->month) < 0 ||
                   !cur_take(c, '-') || number(c, 4, 4, &d->year) < 0
               ? -1
               : 0;
}

int
date_parse_imap(struct str text, struct date *date_r)
{
    struct cursor c = cursor_of(text);
    struct date d = {0};
    int hour, minute, second;
    if (day_month_year(&c, &d) < 0 || !cur_take(&c, ' ') || number(&c, 2, 2, &hour) < 0 ||
        !cur_take(&c, ':') || number(&c, 2, 2, &minute) < 0 || !cur_take(&c, ':') ||
        number(&c, 2, 2, &second) < 0 || !cur_take(&c, ' ') ||
        (cur_peek(&c) != '+' && cur_peek(&c) != '-') || zone(&c, &d.zone_min) < 0 || !cur_end(&c) ||
        finish(&d, hour, minute, second) < 0)
        return -1;
    *date_r = d;
    return 0;
}

int
date_parse_day(struct str text, int64_t *days_r)
{
    struct cursor c = cursor_of(text);
    struct date d = {0};
    if (day_month_year(&c, &d) < 0 || !cur_end(&c) || finish(&d, 0, 0, 0) < 0)
        return -1;
    *days_r = date_days(d.year, d.month, d.day);
    return 0;
}
