/*
 * command: SMTP command lines (RFC 5321 4.1.1), taken apart.
 *
 * Used by smtpd and submitd (lib/smtp/server.h) and by their tests. The line is a stranger's. What
 * is returned points into the line.
 */
#pragma once
#include "lib/mail/address.h"

enum {
    SMTP_LINE_MAX = 2048,
    SMTP_AUTH_LINE_MAX = 12288, /* RFC 4954 4 */
    SMTP_LINE_SKIP_MAX = 65536, /* a longer line ends the connection */
    SMTP_PARAMS_MAX = 16,
};

struct smtp_command {
    struct str verb;     /* letters; may be empty */
    struct str argument; /* without white space at both ends */
};

struct smtp_param { /* RFC 5321 4.1.2 esmtp-param */
    struct str key;
    struct str value;
    bool has_value;
};

struct smtp_path {
    enum {
        SMTP_PATH_ADDRESS,
        SMTP_PATH_NULL,  /* <> */
        SMTP_PATH_LOCAL, /* a local part without a domain: <postmaster>, <root> */
    } kind;
    struct str raw;         /* between the brackets, as it came */
    struct address address; /* of SMTP_PATH_ADDRESS */
    struct smtp_param params[SMTP_PARAMS_MAX];
    size_t nparams;
};

void smtp_command_parse(struct str line, struct smtp_command *c_r);
/* The argument of MAIL (keyword "FROM") or RCPT ("TO"): FROM:<path> and its parameters. On -1,
 * ERR_PROTOCOL: the form of the command is wrong; ERR_PERMANENT or ERR_LIMIT: the path is (and its
 * raw text is set). */
int smtp_path_parse(struct str argument, struct str keyword, struct smtp_path *p_r, struct err *e);
/* A name after HELO or EHLO that may stand in a header and a log: printable, no white space, none
 * of the characters that mean something in a header, at most 255 bytes. */
bool smtp_helo_ok(struct str name);
