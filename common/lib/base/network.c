#include "lib/base/network.h"
#include <arpa/inet.h>

enum { V4_AT = 12, V4_BITS = 96 };

/* *v4_r: the text was of IPv4. */
static bool
parse_address(unsigned char address_r[16], bool *v4_r, struct str text)
{
    static const unsigned char mapped[V4_AT] = {[10] = 0xff, [11] = 0xff};
    char z[INET6_ADDRSTRLEN + 1];
    if (text.n >= sizeof z || str_chr(text, '\0') >= 0)
        return false;
    memcpy(z, text.p, text.n);
    z[text.n] = '\0';
    *v4_r = inet_pton(AF_INET, z, address_r + V4_AT) == 1;
    if (!*v4_r)
        return inet_pton(AF_INET6, z, address_r) == 1;
    memcpy(address_r, mapped, sizeof mapped);
    return true;
}

static bool
same_bits(const unsigned char *a, const unsigned char *b, unsigned bits)
{
    unsigned whole = bits / 8, rest = bits % 8;
    if (memcmp(a, b, whole) != 0)
        return false;
    return rest == 0 || ((a[whole] ^ b[whole]) >> (8 - rest)) == 0;
}

bool
network_parse(struct network *n_r, struct str text)
{
    struct str rest = text, address = str_cut(&rest, '/');
    bool v4, whole = address.n == text.n;
    uint32_t bits;
    if (!parse_address(n_r->address, &v4, address))
        return false;
    bits = v4 ? 32 : 128;
    if (!whole && str_u32(rest, bits, &bits) < 0)
        return false;
    n_r->bits = bits + (v4 ? V4_BITS : 0);
    /* 192.0.2.1/24 is a mistake: which of the two was meant? */
    for (unsigned i = n_r->bits; i < 128; i++)
        if (n_r->address[i / 8] & 0x80 >> i % 8)
            return false;
    return true;
}

bool
network_has(const struct network *n, struct str address)
{
    unsigned char raw[16];
    bool v4;
    return parse_address(raw, &v4, address) && same_bits(raw, n->address, n->bits);
}
