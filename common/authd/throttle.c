#include "common/authd/authd.h"
#include "lib/base/clock.h"
#include <arpa/inet.h>
#include <sys/random.h>

/* A bucket a network and one an account: PER_MINUTE failures are free, then they must drain. The
 * table has a fixed size; who falls into a used slot replaces the emptier one, so forgetting
 * favours strangers and memory does not grow. */
enum { SLOTS = 8192, PROBES = 8, NETWORK_MAX = 20, ACCOUNT_MAX = 30, DRAIN_MS = 6000 };

struct slot {
    uint64_t key;
    int64_t seen_ms;
    unsigned failures;
};
static struct slot slots[SLOTS];
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
key_of(char kind, struct str s)
{
    char room[200];
    size_t n = s.n < sizeof room - 1 ? s.n : sizeof room - 1;
    room[0] = kind;
    for (size_t i = 0; i < n; i++)
        room[i + 1] = ch_lower(s.p[i]);
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

bool
throttle_allows(struct str remote, struct str user)
{
    unsigned char raw[16];
    return !full(key_of('n', network_of(remote, raw)), NETWORK_MAX) &&
           !full(key_of('u', user), ACCOUNT_MAX);
}

void
throttle_failed(struct str remote, struct str user)
{
    unsigned char raw[16];
    count(key_of('n', network_of(remote, raw)), NETWORK_MAX);
    count(key_of('u', user), ACCOUNT_MAX);
}
