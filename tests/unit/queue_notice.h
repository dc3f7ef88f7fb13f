/* What senders are told, for the tests of qmgr. */
#pragma once
#include "tests/unit/queue_world.h"

/* The notice in new/, but for the message itself; NULL p: none. */
static inline struct buf
notice(void)
{
    struct buf b = buf_new(1 << 20);
    char path[700];
    snprintf(path, sizeof path, "%s/new", dir);
    DIR *d = opendir(path);
    for (struct dirent *x; (x = readdir(d));)
        if (str_ends(str_z(x->d_name), STR(".b"))) {
            ck_assert_msg(b.n == 0, "two notices");
            snprintf(path, sizeof path, "%s/new/%s", dir, x->d_name);
            int fd = open(path, O_RDONLY);
            char *to = buf_reserve(&b, 200000);
            ssize_t n = read(fd, to, 200000);
            ck_assert_int_gt(n, 0);
            buf_commit(&b, (size_t)n);
            close(fd);
        }
    closedir(d);
    return b;
}

static inline bool
has(const struct buf *b, const char *text)
{
    return str_find(buf_str(b), str_z(text)) >= 0;
}
