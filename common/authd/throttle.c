#include "common/authd/authd.h"
#include "lib/base/clock.h"
#include <arpa/inet.h>
#include <sys/random.h>

/* A bucket a network and one an account: PER_MINUTE failures are free, then they must drain. The
 * table has a fixed size; who falls into a used slot replaces the emptier one, so forgetting
 * favours strangers and memory does not grow. */
enum { SLOTS = 8192, PROBES = 8, NETWORK_MAX = 20, ACCOUNT_MAX = 30, DRAIN_MS = 6000 };
/* Networks from which an account has logged in: there the failures of all others do not count, so
 * that a stranger cannot lock it out. A table of its own, which only who has a password can fill.
 */
enum { GOOD_SLOTS = 8192, GOOD_DAYS = 30 };

struct slot {
    uint64_t key;
    int64_t seen_ms;
    unsigned failures;
};
static struct slot slots[SLOTS];
static struct good {
    uint64_t key;
    int64_t seen_ms;
} goods[GOOD_SLOTS];
static struct sipkey secret;

/* The network of an address: IPv4 whole, IPv6 the /64. */
static struct str
network_of(struct str remote, unsigned char raw[16])
{
    char z[64];
    if (remote.n >= sizeof z)
        return remote;
    memcpy(z, remote.p, remote.n);
    z[remote.n] = '\0';
    if (inet_pton(AF_INET6, z, raw) == 1)
        return str_of((const char *)raw, 8);
    return remote;
}

static uint64_t
key_of(struct str network, struct str user)
{
    char room[16 + ACCOUNT_NAME_MAX + 64] = {0};
    size_t n = user.n < ACCOUNT_NAME_MAX ? user.n : ACCOUNT_NAME_MAX;
    size_t at = network.n < 64 ? network.n : 64;
    memcpy(room + 1, network.p, at);
    room[0] = (char)(at + 1); /* where the name begins */
    for (size_t i = 0; i < n; i++)
        room[at + 1 + i] = ch_lower(user.p[i]);
    n += at;
    while (secret.b[0] == 0)
        if (getrandom(&secret, sizeof secret, 0) < 0)
            break;
    return siphash(&secret, str_of(room, n + 1)) | 1;
}

static unsigned
drained(const struct slot *s, int64_t now)
{
    int64_t gone = (now - s->seen_ms) / DRAIN_MS;
    return gone >= s->failures ? 0 : s->failures - (unsigned)gone;
}

static struct slot *
find(uint64_t key, bool make)
{
    int64_t now = now_ms();
    struct slot *emptiest = NULL;
    for (size_t i = 0; i < PROBES; i++) {
        struct slot *s = &slots[(key + i) % SLOTS];
        if (s->key == key)
            return s;
        if (!emptiest || drained(s, now) < drained(emptiest, now))
            emptiest = s;
    }
    if (!make)
        return NULL;
    *emptiest = (struct slot){.key = key, .seen_ms = now};
    return emptiest;
}

static bool
full(uint64_t key, unsigned max)
{
    const struct slot *s = find(key, false);
    return s && drained(s, now_ms()) >= max;
}

static void
count(uint64_t key, unsigned max)
{
    int64_t now = now_ms();
    struct slot *s = find(key, true);
    unsigned left = drained(s, now);
    s->failures = left < 2 * max ? left + 1 : left;
    s->seen_ms = now;
}

uint64_t
throttle_network(struct str remote)
{
    unsigned char raw[16];
    return key_of(network_of(remote, raw), STR(""));
}

static uint64_t
pair_of(struct str remote, struct str user)
{
    unsigned char raw[16];
    return key_of(network_of(remote, raw), user);
}

/* The place of a pair, or the one that has been unused longest. */
static struct good *
find_good(uint64_t key)
{
    struct good *oldest = NULL;
    for (size_t i = 0; i < PROBES; i++) {
        struct good *g = &goods[(key + i) % GOOD_SLOTS];
        if (g->key == key)
            return g;
        if (!oldest || g->seen_ms < oldest->seen_ms)
            oldest = g;
    }
    return oldest;
}

static bool
was_good(uint64_t key)
{
    const struct good *g = find_good(key);
    return g->key == key && now_ms() - g->seen_ms < (int64_t)GOOD_DAYS * 86400 * 1000;
}

void
throttle_succeeded(struct str remote, struct str user)
{
    uint64_t key = pair_of(remote, user);
    *find_good(key) = (struct good){key, now_ms()};
}

bool
throttle_allows(struct str remote, struct str user)
{
    return !full(throttle_network(remote), NETWORK_MAX) &&
           (!full(key_of(STR(""), user), ACCOUNT_MAX) || was_good(pair_of(remote, user)));
}

void
throttle_failed(struct str remote, struct str user)
{
    count(throttle_network(remote), NETWORK_MAX);
    count(key_of(STR(""), user), ACCOUNT_MAX);
}
