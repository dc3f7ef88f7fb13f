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
    int fd = start_fd(st, "map.known");
    k->page = NULL;
    if (fd < 0)
        return;
    void *p =
        mmap(NULL, sizeof *k->page, write ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, 0);
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
hash_of(const struct known *k, struct str address)
{
    char lower[ADDRESS_MAX_BYTES];
    struct sipkey key = k->page->key;
    if (address.n == 0 || address.n > sizeof lower)
        return 0;
    for (size_t i = 0; i < address.n; i++)
        lower[i] = ch_lower(address.p[i]);
    return siphash(&key, str_of(lower, address.n)) | 1;
}

void
known_note(struct known *k, struct str address)
{
    uint64_t hash = k->page ? hash_of(k, address) : 0;
    if (hash)
        __atomic_store_n(&k->page->slots[hash / 2 % KNOWN_SLOTS], hash, __ATOMIC_RELAXED);
}

bool
known_has(const struct known *k, struct str address)
{
    uint64_t hash = k->page ? hash_of(k, address) : 0;
    return hash &&
           __atomic_load_n(&k->page->slots[hash / 2 % KNOWN_SLOTS], __ATOMIC_RELAXED) == hash;
}
