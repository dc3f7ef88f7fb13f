/*
 * answer: a DNS reply, read and checked (RFC 1035 4).
 *
 * dnsd only. The bytes come from a resolver, which passes on what strangers publish. c-ares has
 * matched the reply to its question; everything in it is looked at here once more: each length,
 * each pointer, each name. A host that is not a host name (letters, digits, hyphens) is dropped, so
 * no other process ever sees one. What cannot be understood is DNS_TRY_AGAIN, never an answer.
 *
 * Limits: DNS_RECORDS_MAX records, DNS_CNAMES_MAX hops, names of DNS_NAME_MAX bytes.
 */
#pragma once
#include "lib/base/str.h"
#include "lib/ipc/table.h"

enum {
    DNS_NAME_MAX = 253,
    DNS_RECORDS_MAX = 100,
    DNS_CNAMES_MAX = 8,
    DNS_TTL_MIN_S = 5,
    DNS_TTL_MAX_S = 3600,
    DNS_TTL_NEGATIVE_S = 60,
};

enum dns_type { DNS_T_A = 1, DNS_T_CNAME = 5, DNS_T_PTR = 12, DNS_T_MX = 15, DNS_T_AAAA = 28 };

struct dns_record {
    uint16_t preference;         /* MX */
    uint8_t n;                   /* bytes in data */
    char data[DNS_NAME_MAX + 1]; /* MX, PTR: the host in lower case; A, AAAA: 4 or 16 bytes */
};

struct dns_answer {
    enum dns_status status;
    uint32_t ttl_s;
    size_t n;
    struct dns_record at[DNS_RECORDS_MAX];
};

/* Read reply to a question for name and type. Always fills *answer_r. A null MX (RFC 7505) is one
 * record with the host ".". */
void dns_answer_read(struct str reply, struct str name, enum dns_type type,
                     struct dns_answer *answer_r);
/* Labels of letters, digits and hyphens, 1..63 bytes each and 1..253 in all, no dot at the end. An
 * underscore, too: there are mail servers that have one in their name, and it harms nobody. */
bool dns_host_ok(struct str host);
