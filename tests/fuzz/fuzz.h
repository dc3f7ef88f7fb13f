/*
 * fuzz: targets that take any bytes, and die when something does not hold that must.
 *
 * Each is run in two ways: by libFuzzer (make fuzz, with clang), and by driver.c, which changes the
 * seeds by chance of its own and needs no more than the project's compiler (make check).
 */
#pragma once
#include "lib/base/buf.h"
#include <stdlib.h>

#define TARGET(name) void fuzz_##name(struct str in);
#include "tests/fuzz/targets.def"
#undef TARGET

#define FUZZ_CHECK(x)                                                                              \
    do {                                                                                           \
        if (!(x))                                                                                  \
            fuzz_die(#x, __FILE__, __LINE__);                                                      \
    } while (0)
_Noreturn void fuzz_die(const char *what, const char *file, int line);

/* A directory for this process, in memory where that can be had. */
const char *fuzz_dir(void);
void fuzz_clean(void);
/* Write a file below it. */
void fuzz_write(const char *name, struct str bytes);
/* A descriptor of a file in memory with these bytes, at its beginning. */
int fuzz_file(struct str bytes);
/* The piece up to the next byte of value sep, taken from *in. */
static inline struct str
fuzz_cut(struct str *in, char sep)
{
    return str_cut(in, sep);
}
