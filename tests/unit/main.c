/*
 * Runs every suite (tests/unit/test_X.c exports suite_X) and ends with "N passed, N failed".
 * An argument names one suite.
 */
#include "tests/unit/unit.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SUITE(name) Suite *suite_##name(void);
#include "suites.h"
#undef SUITE

static const struct {
    const char *name;
    Suite *(*make)(void);
} suites[] = {
#define SUITE(name) {#name, suite_##name},
#include "suites.h"
#undef SUITE
};

int
main(int argc, char **argv)
{
    int failed = 0, run = 0;
    /* A bound for what hangs, not a measure: a slow machine fails no test. */
    setenv("CK_DEFAULT_TIMEOUT", "300", 0);
    for (size_t i = 0; i < sizeof suites / sizeof suites[0]; i++) {
        if (argc > 1 && strcmp(argv[1], suites[i].name) != 0)
            continue;
        SRunner *runner = srunner_create(suites[i].make());
        srunner_run_all(runner, CK_SILENT);
        int n = srunner_ntests_run(runner), bad = srunner_ntests_failed(runner);
        printf("%-24s %4d tests %4d failed\n", suites[i].name, n, bad);
        if (bad)
            srunner_print(runner, CK_NORMAL);
        run += n;
        failed += bad;
        srunner_free(runner);
    }
    printf("%d passed, %d failed\n", run - failed, failed);
    return failed || run == 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
