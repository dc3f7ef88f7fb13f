/*
 * err: why a library function returned -1: a class, and one line of text without a newline.
 *
 * What is unknown is temporary: a mail server that errs on the side of trying again loses nothing.
 */
#pragma once
#include "lib/base/str.h"

enum err_class {
    ERR_TEMPORARY, /* try again later: 4xx, EX_TEMPFAIL */
    ERR_PERMANENT, /* will fail again: 5xx */
    ERR_CLOSED,    /* the peer has gone */
    ERR_TIMEOUT,   /* a deadline has passed */
    ERR_PROTOCOL,  /* the peer broke the rules of the protocol */
    ERR_LIMIT,     /* a ceiling was reached */
    ERR_DAMAGED,   /* what is read is not what was written */
};

struct err {
    enum err_class class;
    char text[256];
};

/* Fill *e (which may be NULL) and return -1. The text is cut to its place, and bytes outside
 * printable ASCII become '?'. */
int err_set(struct err *e, enum err_class class, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* The same as temporary, with ": " and the text of errno behind it. */
int err_errno(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
