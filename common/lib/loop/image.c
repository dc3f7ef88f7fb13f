#include "lib/loop/image.h"
#include <link.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#define HUGE ((uintptr_t)2 << 20)

enum {
    PAGE = 4096,
    COLLAPSE = 25, /* MADV_COLLAPSE, Linux 6.1: huge pages now, or an error */
};

static uintptr_t
up(uintptr_t at)
{
    return (at + HUGE - 1) & ~(HUGE - 1);
}

/* Zeroed memory at a multiple of HUGE, in huge pages alone; or NULL. */
static char *
huge_room(size_t size)
{
    char *p = mmap(NULL, size + HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    size_t before = up((uintptr_t)p) - (uintptr_t)p;
    if (before)
        munmap(p, before);
    if (before < HUGE)
        munmap(p + before + size, HUGE - before);
    p += before;
    (void)madvise(p, size, MADV_HUGEPAGE);
    memset(p, 0, size);
    if (madvise(p, size, COLLAPSE) == 0)
        return p;
    munmap(p, size);
    return NULL;
}

/* Whether nobody has anything between these places; then it is ours. */
static bool
take_gap(uintptr_t from, uintptr_t to)
{
    return from == to ||
           mmap((void *)from, to - from, PROT_NONE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == (void *)from;
}

/* Of the used bytes from at on: all, when there is room behind them for the last huge page, or
 * those that fill theirs. */
static void
replace(uintptr_t at, size_t used, int protection)
{
    uintptr_t end = (at + used + PAGE - 1) & ~(uintptr_t)(PAGE - 1);
    size_t size = take_gap(end, up(end)) ? up(end) - at : used / HUGE * HUGE;
    char *copy = size ? huge_room(size) : NULL;
    if (!copy)
        return;
    memcpy(copy, (const void *)at, used < size ? used : size); /* NOLINT */
    /* The code that runs here is the same before and after. */
    if (mprotect(copy, size, protection) < 0 ||
        mremap(copy, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)at) == MAP_FAILED)
        munmap(copy, size);
}

/* The program itself comes first, and is all there is when it is static. */
static int
enlarge(struct dl_phdr_info *info, size_t info_size, void *arg)
{
    (void)info_size, (void)arg;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        uintptr_t at = info->dlpi_addr + p->p_vaddr;
        if (p->p_type == PT_LOAD && !(p->p_flags & PF_W) && at % HUGE == 0 &&
            p->p_memsz >= HUGE / 4)
            replace(at, p->p_memsz, PROT_READ | (p->p_flags & PF_X ? PROT_EXEC : 0));
    }
    return 1;
}

void
image_enlarge(void)
{
#ifndef BH_SANITIZE /* which has maps of its own */
    dl_iterate_phdr(enlarge, NULL);
#else
    (void)enlarge;
#endif
}
