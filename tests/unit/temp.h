/* A directory for one test, and silence: what is logged on bad input is not for the reader of
 * tests. */
#pragma once
#include "lib/log/log.h"
#include <check.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static inline void
temp_quiet(void)
{
    log_open(open("/dev/null", O_WRONLY | O_CLOEXEC), "test");
}

static inline char *
temp_dir(void)
{
    static char path[64] = "/tmp/bulkhead-unit-XXXXXX";
    ck_assert_ptr_nonnull(mkdtemp(path));
    return path;
}

static inline void
temp_remove(const char *path)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", path);
    ck_assert_int_eq(system(command), 0);
}

static inline size_t
temp_count(const char *path)
{
    size_t n = 0;
    DIR *d = opendir(path);
    ck_assert_ptr_nonnull(d);
    for (struct dirent *x; (x = readdir(d));)
        n += x->d_name[0] != '.';
    closedir(d);
    return n;
}

/* Open descriptors of this process. */
static inline size_t
temp_fds(void)
{
    return temp_count("/proc/self/fd");
}
