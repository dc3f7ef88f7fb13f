/*
 * route: from a domain to the hosts and addresses to try, in order (RFC 5321 5.1).
 *
 * relay only. The names come from dnsd, which has checked them. Hosts of equal preference come in
 * random order; addresses are looked up only when it is their host's turn. At most ROUTE_HOSTS_MAX
 * hosts and ROUTE_ADDRESSES_MAX addresses are tried.
 */
#pragma once
#include "lib/ipc/remote.h"
#include "relay/relay.h"
#include <netinet/in.h>

enum { ROUTE_HOSTS_MAX = 10, ROUTE_ADDRESSES_MAX = 20, ROUTE_LOOKUP_MS = 30000 };

struct route_host {
    uint32_t preference;
    uint32_t shuffle;
    char name[256];
};

struct target {
    char host[256];
    char ip[INET6_ADDRSTRLEN];
    uint16_t port;
    struct sockaddr_storage address;
    socklen_t address_n;
};

struct route {
    const struct relay *relay;
    uint16_t port;
    struct remote dnsd;
    struct route_host hosts[ROUTE_HOSTS_MAX];
    size_t nhosts, next_host;
    struct target addresses[ROUTE_ADDRESSES_MAX]; /* of the current host */
    size_t naddresses, next_address, given;
};

/* The hosts of domain. -1 with *v_r when there are none: LATER or NEVER. */
int route_find(struct route *r, const struct relay *relay, struct str domain, struct verdict *v_r);
/* The next address to try; NULL when all were given. *v_r is set when a host had no address, so
 * after the last one it tells why nothing was tried. */
const struct target *route_next(struct route *r, struct verdict *v_r);
void route_free(struct route *r);
