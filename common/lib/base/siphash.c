#include "lib/base/siphash.h"

static uint64_t
rotl(uint64_t x, unsigned n)
{
    return x << n | x >> (64 - n);
}

static uint64_t
le64(const void *p, size_t n)
{
    uint64_t v = 0;
    memcpy(&v, p, n);
    return v;
}

static void
rounds(struct siphash *s, int n)
{
    while (n-- > 0) {
        s->v0 += s->v1;
        s->v2 += s->v3;
        s->v1 = rotl(s->v1, 13) ^ s->v0;
        s->v3 = rotl(s->v3, 16) ^ s->v2;
        s->v0 = rotl(s->v0, 32);
        s->v2 += s->v1;
        s->v0 += s->v3;
        s->v1 = rotl(s->v1, 17) ^ s->v2;
        s->v3 = rotl(s->v3, 21) ^ s->v0;
        s->v2 = rotl(s->v2, 32);
    }
}

static void
word(struct siphash *s, uint64_t m)
{
    s->v3 ^= m;
    rounds(s, 2);
    s->v0 ^= m;
}

struct siphash
siphash_begin(const struct sipkey *key)
{
    uint64_t k0 = le64(key->b, 8), k1 = le64(key->b + 8, 8);
    return (struct siphash){.v0 = k0 ^ 0x736f6d6570736575u,
                            .v1 = k1 ^ 0x646f72616e646f6du,
                            .v2 = k0 ^ 0x6c7967656e657261u,
                            .v3 = k1 ^ 0x7465646279746573u};
}

void
siphash_add(struct siphash *h, struct str piece)
{
    size_t held = h->n % 8;
    h->n += piece.n;
    if (held) {
        size_t more = piece.n < 8 - held ? piece.n : 8 - held;
        memcpy(h->last + held, piece.p, more);
        if (held + more < 8)
            return;
        word(h, le64(h->last, 8));
        piece = str_from(piece, more);
    }
    struct siphash s = *h; /* in registers */
    size_t whole = piece.n & ~(size_t)7;
    for (size_t i = 0; i < whole; i += 8)
        word(&s, le64(piece.p + i, 8));
    *h = s;
    if (piece.n > whole)
        memcpy(h->last, piece.p + whole, piece.n - whole);
}

uint64_t
siphash_end(struct siphash *h)
{
    word(h, h->n << 56 | le64(h->last, h->n % 8));
    h->v2 ^= 0xff;
    rounds(h, 4);
    return h->v0 ^ h->v1 ^ h->v2 ^ h->v3;
}

uint64_t
siphash(const struct sipkey *key, struct str in)
{
    struct siphash h = siphash_begin(key);
    siphash_add(&h, in);
    return siphash_end(&h);
}
