/*
 * durable: the small files of a folder: read whole, replaced whole and for good.
 *
 * Used by uidfile, keywords and folder. The directory is the account's own and may hold anything
 * under the name: links are not followed, only regular files are read.
 */
#pragma once
#include "lib/base/buf.h"
#include "lib/base/err.h"
#include <sys/stat.h>

/* Open for reading without following links or waiting; *st_r is what fstat said. -1 with errno
 * (ENOENT, or EINVAL when it is not a regular file). */
int durable_open(int dir_fd, const char *name, struct stat *st_r);
/* The same for reading and writing. */
int durable_open_rw(int dir_fd, const char *name, struct stat *st_r);
/* The content appended to out, at most its maximum; 0 also when there is no such file (out stays as
 * it is, *there_r false). */
int durable_read(int dir_fd, const char *name, struct buf *out, bool *there_r, struct err *e);
/* Write beside, sync, rename over, sync the directory. */
int durable_replace(int dir_fd, const char *name, struct str text, struct err *e);
/* All bytes, at the descriptor's place. -1 with errno. */
int durable_write(int fd, struct str text);
/* n random bytes as 2n hexadecimal digits and a NUL in to. */
void durable_random_hex(char *to, size_t n);
