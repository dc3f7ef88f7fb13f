/*
 * date: dates of messages, without a locale or a time zone of the system (catalogue J14).
 *
 * RFC 5322 3.3 with the obsolete forms of 4.3 for reading; RFC 3501's date-time for IMAP. Years 1
 * to 9999 in 64-bit seconds. Input is a stranger's.
 */
#pragma once
#include "lib/base/buf.h"

struct date {
    int64_t utc_s;   /* since 1970 */
    int zone_min;    /* east of UTC */
    int year, month; /* as written, in its zone: month 1..12, day 1..31 */
    int day;
};

/* A date-time with optional comments and day of the week. -1 when it is none. */
int date_parse(struct str text, struct date *date_r);
/* "Sat, 21 Nov 2026 20:33:00 +0000". */
void date_format(struct buf *out, int64_t utc_s, int zone_min);
/* IMAP: "21-Nov-2026 20:33:00 +0000" (day two bytes wide), and the way back, without quotes. */
void date_format_imap(struct buf *out, int64_t utc_s, int zone_min);
int date_parse_imap(struct str text, struct date *date_r);
/* "21-Nov-2026", as SEARCH has it: days since 1970. */
int date_parse_day(struct str text, int64_t *days_r);
/* Days since 1970 of a date in the proleptic Gregorian calendar; and the date of a day. */
int64_t date_days(int year, int month, int day);
void date_civil(int64_t days, int *year_r, int *month_r, int *day_r);
