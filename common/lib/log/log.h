/*
 * log: one line an event, to the descriptor the supervisor gave (a file, a syslog socket, or
 * stderr).
 *
 * Every process uses it. It never blocks and never fails: a line that cannot be written at once is
 * counted and the count told later (catalogue J19). What a stranger said goes through log_str(),
 * which quotes; the whole line is quoted once more at the end, so no byte outside printable ASCII
 * can ever be written (catalogue H18). Lines are cut at LOG_LINE_MAX.
 */
#pragma once
#include "lib/base/buf.h"

enum { LOG_LINE_MAX = 2048, LOG_FIELD_MAX = 320 };
enum log_level { LOG_DEBUG_, LOG_INFO_, LOG_WARN_, LOG_ERROR_ };

/* fd: where lines go (a datagram socket gets a syslog priority in front). program: "smtpd" and so
 * on, a string that stays. Call before the role is entered: it reads the time zone. */
void log_open(int fd, const char *program);
/* To another file or socket from now on, also after the role is entered: a copy of fd takes the
 * place of the old one, at the same number if that was 2. */
void log_move(int fd);
/* From now on lines are kept until log_flush(), which lib/loop calls after each turn: one write for
 * many. Warnings and errors, and all to a datagram socket, do not wait. */
void log_gather(void);
void log_flush(void);
void log_debug_set(bool on); /* debug lines are dropped unless this is on */

void log_info(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_debug(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Log as error and exit(71): only at start, when memory is out, and on our own broken invariants.
 */
void log_fatal(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));

/* The time in front of lines, made once a second. A listener calls this before it forks, so that
 * its sessions need not make it. */
const char *log_stamp(void);
/* A stranger's bytes, quoted and cut to LOG_FIELD_MAX, for use as a %s argument. The text lives in
 * one of eight static places: use at most eight in one call. */
const char *log_str(struct str s);
/* A socket to the system's log, or -1: what log_open() may be given. */
int log_syslog_socket(void);
