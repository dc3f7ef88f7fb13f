/*
 * words: the grammar of bulkhead.conf as one table. conf.c interprets it; bulkhead.conf(5) is
 * checked against it.
 */
#pragma once
#include "lib/conf/conf.h"

enum conf_type {
    CT_TEXT,     /* one value, kept as it is */
    CT_NAME,     /* a host name or domain, lower-cased */
    CT_NAMES,    /* one or more domains */
    CT_PATH,     /* absolute */
    CT_COUNT,    /* a number between min and max */
    CT_PORT,     /* 1 to 65535 */
    CT_TIME,     /* 90, 90s, 5m, 4h, 5d: seconds between min and max */
    CT_SIZE,     /* 1000, 64K, 50M: bytes between min and max */
    CT_YESNO,    /* yes or no */
    CT_LISTEN,   /* HOST port N [tls] */
    CT_KEY,      /* CHAIN key FILE [for PROGRAM...] */
    CT_RESOLVER, /* ADDRESS [port N] */
    CT_VIA,      /* HOST [port N] */
    CT_RANGE,    /* N to N */
    CT_ADDRESS,  /* an IPv4 or IPv6 address */
    CT_NETWORKS, /* one or more addresses or networks: 192.0.2.0/24 */
};

struct conf_word {
    const char *block; /* "" is the top */
    const char *word;
    enum conf_type type;
    size_t offset; /* of the field in struct conf */
    uint64_t min, max;
    bool repeats;
};

const struct conf_word *conf_words(size_t *n_r);
/* The blocks that name a program: its struct conf_service, or NULL. */
struct conf_service *conf_service_of(struct conf *conf, struct str block);
bool conf_is_block(struct str word);
/* The word of this block (or, with block NULL, the block) nearest to what was written, or NULL. */
const char *conf_nearest(const char *block, struct str written);
