#include "lib/ipc/known.h"
#include "lib/log/log.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

enum { ADDRESS_MAX_BYTES = 512 };

int
known_make(int *write_r, int *read_r, struct err *e)
{
    char path[40];
    int fd = memfd_create("known", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (fd < 0 || ftruncate(fd, sizeof(struct known_page)) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0 ||
        (*read_r = open(path, O_RDONLY | O_CLOEXEC)) < 0) {
        err_errno(e, "no memory for known recipients");
        if (fd >= 0)
            close(fd);
        return -1;
    }
    *write_r = fd;
    return 0;
}

void
known_open(struct known *k, const struct start *st, bool write)
{
    *k = (struct known){.fd = start_fd(st, "map.known")};
    if (k->fd < 0 || !write)
        return;
    void *p = mmap(NULL, sizeof *k->page, PROT_READ | PROT_WRITE, MAP_SHARED, k->fd, 0);
    if (p == MAP_FAILED)
        log_warn("the page of known recipients: %s", strerror(errno));
    else
        k->page = p;
}

void
known_clear(struct known *k)
{
    struct sipkey key;
    if (!k->page)
        return;
    if (getrandom(&key, sizeof key, 0) != sizeof key)
        log_fatal("getrandom: %s", strerror(errno));
    for (size_t i = 0; i < KNOWN_SLOTS; i++)
        __atomic_store_n(&k->page->slots[i], 0, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    k->page->key = key;
}

/* 0: too long to be noted. */
static uint64_t
hash_of(const struct sipkey *key, struct str address)
{
    char lower[ADDRESS_MAX_BYTES];
    if (address.n == 0 || address.n > sizeof lower)
        return 0;
    for (size_t i = 0; i < address.n; i++)
        lower[i] = ch_lower(address.p[i]);
    return siphash(key, str_of(lower, address.n)) | 1;
}

static size_t
slot_of(uint64_t hash)
{
    return hash / 2 % KNOWN_SLOTS;
}

void
known_note(struct known *k, struct str address)
{
    uint64_t hash = k->page ? hash_of(&k->page->key, address) : 0;
    if (hash)
        __atomic_store_n(&k->page->slots[slot_of(hash)], hash, __ATOMIC_RELAXED);
}

static bool
get(const struct known *k, size_t at, void *to, size_t n)
{
    return pread(k->fd, to, n, (off_t)at) == (ssize_t)n;
}

bool
known_epoch(const struct known *k, struct sipkey *epoch_r)
{
    return k->fd >= 0 && get(k, offsetof(struct known_page, key), epoch_r, sizeof *epoch_r);
}

bool
known_has(const struct known *k, struct str address)
{
    struct sipkey key;
    uint64_t noted;
    if (!known_epoch(k, &key))
        return false;
    uint64_t hash = hash_of(&key, address);
    size_t at = offsetof(struct known_page, slots) + slot_of(hash) * sizeof noted;
    return hash && get(k, at, &noted, sizeof noted) && noted == hash;
}
