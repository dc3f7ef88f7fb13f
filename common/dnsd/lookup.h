/*
 * lookup: the questions of relay and smtpd, answered from the cache or by the resolver.
 *
 * dnsd only. Equal questions that are under way are one. Each channel may have one question open,
 * and all together DNSD_LOOKUPS_MAX; what takes longer than DNSD_DEADLINE_MS is answered "try
 * again", and so is everything that is not a proper answer (catalogue I8).
 */
#pragma once
#include "dnsd/cache.h"
#include "dnsd/resolver.h"
#include "lib/ipc/service.h"

enum { DNSD_LOOKUPS_MAX = 2000, DNSD_CHANNELS_MAX = 8000, DNSD_DEADLINE_MS = 20000 };

struct lookup;
struct dnsd {
    struct loop loop;
    struct service service;
    struct resolver resolver;
    struct cache cache;
    struct lookup *lookups;
    size_t nlookups;
    int deadline_ms;       /* DNSD_DEADLINE_MS; tests are in more of a hurry */
    int64_t complained_ms; /* when an overload was last logged */
};

/* Before the role is entered. */
int dnsd_prepare(struct dnsd *d, const struct conf *conf, struct err *e);
/* Until SIGTERM. */
void dnsd_serve(struct dnsd *d, const struct start *st);
