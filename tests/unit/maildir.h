/* For suites whose tests each have a Maildir of their own, which is the working directory. */
#pragma once
#include "lib/mailbox/folder.h"
#include "tests/unit/temp.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char top[64]; /* its path */
static int root = -1;

static inline void
setup(void)
{
    snprintf(top, sizeof top, "/tmp/bh-maildir-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(top));
    root = open(top, O_RDONLY | O_DIRECTORY);
    ck_assert_int_ge(root, 0);
    ck_assert_int_eq(chdir(top), 0);
    ck_assert_int_eq(folder_make_subdirs(root, -1, NULL), 0);
}

static inline void
teardown(void)
{
    ck_assert_int_eq(chdir("/"), 0);
    close(root);
    temp_remove(top);
}

/* A file below it, as a foreign program writes it. */
static inline void
plant(const char *path, const char *text)
{
    int fd = openat(root, path, O_WRONLY | O_CREAT, 0600);
    ck_assert(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
}
