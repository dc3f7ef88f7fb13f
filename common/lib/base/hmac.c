#include "lib/base/hmac.h"

enum { BLOCK = 64 };

void
hmac_sha256(const unsigned char key[HMAC_KEY], struct str data, unsigned char mac_r[HMAC_BYTES])
{
    struct sha256 h;
    char pad[BLOCK];
    for (int outer = 0; outer < 2; outer++) {
        memset(pad, outer ? 0x5c : 0x36, sizeof pad);
        for (size_t i = 0; i < HMAC_KEY; i++)
            pad[i] = (char)(pad[i] ^ (char)key[i]);
        sha256_begin(&h);
        sha256_add(&h, str_of(pad, sizeof pad));
        sha256_add(&h, outer ? str_of((const char *)mac_r, HMAC_BYTES) : data);
        sha256_end(&h, mac_r);
    }
    explicit_bzero(pad, sizeof pad);
    explicit_bzero(&h, sizeof h);
}

bool
hmac_same(const unsigned char *a, const unsigned char *b)
{
    unsigned char differ = 0;
    for (size_t i = 0; i < HMAC_BYTES; i++)
        differ |= (unsigned char)(a[i] ^ b[i]);
    return differ == 0;
}
