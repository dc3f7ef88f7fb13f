/*
 * table: the roles of the suite and the messages between them (table.def), as code.
 */
#pragma once
#include "lib/base/str.h"

/* A role is a trust domain: a program, or a part of one that runs under another user ID. Bits, so
 * that the table can name sets of them. */
enum role {
    R_NONE = 0,
    R_MASTER = 1 << 0,
    R_AUTHD = 1 << 1,
    R_KEYD = 1 << 2,
    R_DNSD = 1 << 3,
    R_SMTPD = 1 << 4,
    R_SUBMITD = 1 << 5,
    R_QMGR = 1 << 6,
    R_RELAY = 1 << 7,
    R_LOCAL = 1 << 8,
    R_POP3D = 1 << 9,
    R_IMAPD = 1 << 10,
    R_LAUNCHER = 1 << 11,
    R_CELL = 1 << 12, /* of imapd, pop3d or local */
    R_CTL = 1 << 13,  /* the operator's command bulkhead(8) */
    R_USER = 1 << 14, /* sendmail(1), run by anybody */
    R_TLSD = 1 << 15,
    R_IDLED = 1 << 16,
    R_ANY = (1 << 17) - 1,
};

enum msg_type {
#define MSG(name, number, from, to, fds, fields) M_##name = number,
#include "lib/ipc/table.def"
#undef MSG
};

struct msg_row {
    enum msg_type type;
    const char *name;
    unsigned from, to; /* sets of roles */
    unsigned fds;
    const char *fields;
};

/* The row of a type, or NULL. */
const struct msg_row *msg_row(unsigned type);
/* All rows, for documentation and tests. */
const struct msg_row *msg_rows(size_t *n_r);
/* "smtpd" and so on; "none" for what is not a single role. And back: R_NONE when unknown. */
const char *role_name(enum role role);
enum role role_named(struct str name);

/* Values of fields. */
enum address_kind {
    ADDRESS_UNKNOWN, /* our domain, nobody there */
    ADDRESS_ACCOUNT,
    ADDRESS_ALIAS,
    ADDRESS_FOREIGN, /* not our domain */
};
enum outcome {
    OUTCOME_DONE, /* delivered, or handed to a host that sees to reports itself */
    OUTCOME_LATER,
    OUTCOME_NEVER,
    OUTCOME_EXPANDED,
    OUTCOME_RELAYED, /* done: handed to a host that knows nothing of reports (RFC 3461 5.2.2) */
    OUTCOME_DAMAGED, /* the message is not what its check says; it has gone nowhere */
};
enum deliver_how { DELIVER_8BIT = 1, DELIVER_DSN = 2 };
enum dns_status {
    DNS_FOUND,
    DNS_NO_DATA,   /* the name exists (or may), no record of this type */
    DNS_NO_DOMAIN, /* NXDOMAIN */
    DNS_TRY_AGAIN, /* SERVFAIL, timeout, garbage: never taken for an answer */
};
enum key_how {
    KEY_RSA_PKCS1, /* data: DigestInfo, PKCS #1 v1.5 padding is added */
    KEY_RSA_RAW,   /* data: a PSS-padded block of the modulus's size */
    KEY_ECDSA,     /* data: a digest */
};
