/* One target under libFuzzer: compiled for each with -DFUZZ_TARGET=fuzz_NAME. */
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    FUZZ_TARGET(str_of((const char *)data, n));
    return 0;
}
