/*
 * format: printf's text, without stdio for the conversions that nearly all our texts are made of.
 *
 * Used by buf, err, log and the SMTP server: a session writes its replies and lines without
 * touching stdio's pages. %c %s %.*s %.Ns, and %d %u %x with l, ll, z, a width and zeros; a format
 * with any other goes to vsnprintf() as a whole, so both say the same.
 */
#pragma once
#include <stdarg.h>
#include <stddef.h>

/* As vsnprintf(): at most size bytes with the NUL that is always put (size 0: none); the length of
 * the whole, or negative when it cannot be made. */
int format_v(char *to, size_t size, const char *fmt, va_list ap)
    __attribute__((format(printf, 3, 0)));
int format(char *to, size_t size, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
