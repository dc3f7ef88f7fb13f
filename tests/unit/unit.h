/* What unit tests share: libcheck, and comparisons of str. */
#pragma once
#include "lib/base/str.h"
#include <check.h>

#define ck_str(got, want)                                                                          \
    do {                                                                                           \
        struct str ck_g = (got), ck_w = str_z(want);                                               \
        ck_assert_msg(str_eq(ck_g, ck_w), "got \"%.*s\", want \"%s\"", (int)ck_g.n, ck_g.p, want); \
    } while (0)
