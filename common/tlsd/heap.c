#include "tlsd/heap.h"
#include "lib/loop/listener.h"
#include <openssl/crypto.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    PAGE = 4096,
    SESSION_AT_ONCE = 100 << 10, /* what a handshake needs, about */
    STEP = 16,
    SMALL_MAX = 1024,
    SMALL = SMALL_MAX / STEP, /* classes of these, one for each step */
    CLASSES = SMALL + 4 * 6,  /* and four for each power of two up to HEAP_BLOCK_MAX */
};

struct block {
    size_t class;
    struct block *next; /* while it is free */
};
_Static_assert(sizeof(struct block) == STEP, "what follows a head is aligned as malloc() does it");

static struct {
    char *start, *middle, *end; /* before middle: the listener's; behind it: the session's */
    /* New blocks are cut off here: at the start, and at the end those that sessions write to. */
    char *at, *limit;
    bool session;
    struct block *free[CLASSES], *free_hot[CLASSES];
} heap;

/* Files of OpenSSL whose blocks sessions write to. */
static bool
is_hot(const char *file)
{
    static const char *const names[] = {
        "threads_pthread.c", "drbg.c",     "drbg_ctr.c", "cipher_aes.c",   "err.c",
        "exchange.c",        "kdf_meth.c", "mac_meth.c", "keymgmt_meth.c", "signature.c"};
    const char *name = strrchr(file, '/');
    name = name ? name + 1 : file;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return false;
}

static size_t
class_of(size_t n)
{
    if (n <= SMALL_MAX)
        return n ? (n - 1) / STEP : 0;
    unsigned power = 63 - (unsigned)__builtin_clzl(n - 1); /* 2^power < n <= 2^(power + 1) */
    size_t quarter = (n - 1 - ((size_t)1 << power)) >> (power - 2);
    return SMALL + 4 * (power - 10) + quarter;
}

static size_t
size_of(size_t class)
{
    if (class < SMALL)
        return (class + 1) * STEP;
    unsigned power = (unsigned)(class - SMALL) / 4 + 10;
    size_t quarter = (class - SMALL) % 4;
    return ((size_t)1 << power) + ((quarter + 1) << (power - 2));
}

static bool
is_ours(const void *p)
{
    return (const char *)p >= heap.start && (const char *)p < heap.end;
}

static struct block *
cut(size_t class, bool hot)
{
    size_t n = sizeof(struct block) + size_of(class);
    struct block *b = NULL;
    if (hot && n <= (size_t)(heap.limit - heap.at)) {
        heap.limit -= n;
        b = (void *)heap.limit;
    } else if (!hot && n <= (size_t)(heap.limit - heap.at)) {
        b = (void *)heap.at;
        heap.at += n;
    }
    if (b)
        b->class = class;
    return b;
}

void *
heap_take(size_t n, const char *file, int line)
{
    (void)line;
    if (n == 0)
        return NULL;
    if (n > HEAP_BLOCK_MAX)
        return malloc(n);
    size_t class = class_of(n);
    bool hot = !heap.session && is_hot(file);
    struct block **list = hot ? &heap.free_hot[class] : &heap.free[class], *b = *list;
    if (b)
        *list = b->next;
    else
        b = cut(class, hot);
    return b ? b + 1 : malloc(n);
}

void
heap_give(void *p, const char *file, int line)
{
    (void)file, (void)line;
    if (!is_ours(p)) {
        free(p);
        return;
    }
    struct block *b = (struct block *)p - 1;
    if (heap.session && (char *)p < heap.middle)
        return; /* the listener's */
    struct block **list = (char *)p >= heap.limit && !heap.session ? heap.free_hot : heap.free;
    b->next = list[b->class];
    list[b->class] = b;
}

void *
heap_resize(void *p, size_t n, const char *file, int line)
{
    if (!p)
        return heap_take(n, file, line);
    if (n == 0) {
        heap_give(p, file, line);
        return NULL;
    }
    if (!is_ours(p))
        return realloc(p, n);
    size_t has = size_of(((struct block *)p - 1)->class);
    if (n <= has)
        return p;
    void *larger = heap_take(n, file, line);
    if (larger) {
        memcpy(larger, p, has); /* NOLINT */
        heap_give(p, file, line);
    }
    return larger;
}

void
heap_prepare(void)
{
    char *p = mmap(NULL, HEAP_OLD + HEAP_NEW, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return;
    heap.start = heap.at = p;
    heap.middle = heap.limit = p + HEAP_OLD;
    heap.end = heap.middle + HEAP_NEW;
#ifndef BH_SANITIZE /* which watches malloc() */
    (void)CRYPTO_set_mem_functions(heap_take, heap_resize, heap_give);
#endif
}

void
heap_session(void)
{
    if (!heap.start)
        return;
    const char *written = heap.limit;
    heap.session = true;
    memset(heap.free, 0, sizeof heap.free);
    heap.at = heap.middle;
    heap.limit = heap.end;
    listener_own(written, (size_t)(heap.middle + SESSION_AT_ONCE - written));
}

void
heap_rest(void)
{
    for (size_t class = SMALL; heap.session && class < CLASSES; class ++)
        for (const struct block *b = heap.free[class]; b; b = b->next) {
            uintptr_t from = ((uintptr_t)(b + 1) + PAGE - 1) & ~(uintptr_t)(PAGE - 1);
            uintptr_t to = ((uintptr_t)(b + 1) + size_of(class)) & ~(uintptr_t)(PAGE - 1);
            if (from < to)
                (void)madvise((void *)from, to - from, MADV_DONTNEED);
        }
}
