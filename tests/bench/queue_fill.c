/*
 * queue_fill: fill a queue directory with messages for tests and measurements, as qmgr would have
 * left it: queue_fill DIRECTORY COUNT SENDER RECIPIENT [deferred]. A %d in the recipient becomes
 * the number modulo 1000. Without the last word the messages are in new/; with it they are in cur/,
 * to be tried within the next hour but not soon, each with a journal. They have arrived one each
 * millisecond until now.
 */
#include "lib/queue/qfile.h"
#include "qmgr/journal.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const char alphabet[] = ID_LETTERS;

static int
die(const char *what)
{
    perror(what);
    exit(1);
}

static void
make_id(char id[ID_LEN + 1], uint64_t ms, uint64_t number)
{
    uint64_t low = number * 0x9e3779b97f4a7c15u >> 9;
    for (int i = 8; i >= 0; i--, ms >>= 5)
        id[i] = alphabet[ms & 31];
    for (int i = ID_LEN - 1; i >= 9; i--, low >>= 5)
        id[i] = alphabet[low & 31];
    id[ID_LEN] = '\0';
}

static void
write_file(const char *path, const struct buf *b, time_t mtime)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
    if (fd < 0 || write(fd, b->p, b->n) != (ssize_t)b->n)
        die(path);
    if (mtime && futimens(fd, (struct timespec[]){{.tv_nsec = UTIME_OMIT}, {.tv_sec = mtime}}) < 0)
        die(path);
    close(fd);
}

static void
make_directory(const char *path)
{
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        die(path);
}

static void
make_tree(const char *dir, bool deferred)
{
    static const char *const parts[] = {"new", "cur", "journal"};
    char path[300];
    make_directory(dir);
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, parts[i]);
        make_directory(path);
        for (int xx = 0; i > 0 && deferred && xx < 1024; xx++) {
            snprintf(path, sizeof path, "%s/%s/%c%c", dir, parts[i], alphabet[xx >> 5],
                     alphabet[xx & 31]);
            make_directory(path);
        }
    }
}

static void
put_journal(const char *dir, const char *id)
{
    char path[300];
    struct buf b = buf_new(10000);
    journal_put_deferred(&b, 0, STR("connect to mx.example: Connection timed out"));
    journal_put_attempt(&b, 1, 300);
    snprintf(path, sizeof path, "%s/journal/%s/%s", dir, id + ID_LEN - 2, id);
    write_file(path, &b, 0);
    buf_free(&b);
}

int
main(int argc, char **argv)
{
    static const char text[] =
        "Subject: filled\r\nFrom: somebody@example.com\r\n\r\nA short message.\r\n";
    if (argc < 5)
        return 64;
    long count = strtol(argv[2], NULL, 10);
    bool deferred = argc > 5;
    uint64_t now_ms = (uint64_t)time(NULL) * 1000;
    struct buf b = buf_new(1 << 16);
    make_tree(argv[1], deferred);
    for (long i = 0; i < count; i++) {
        char id[ID_LEN + 1], path[300];
        struct buf to = buf_new(400);
        struct str pattern = str_z(argv[4]);
        ptrdiff_t at = str_find(pattern, STR("%d"));
        buf_add(&to, at < 0 ? pattern : str_sub(pattern, 0, (size_t)at));
        if (at >= 0) {
            buf_addu(&to, (uint64_t)i % 1000);
            buf_add(&to, str_from(pattern, (size_t)at + 2));
        }
        struct qfile_rcpt rcpt = {.address = buf_str(&to)};
        uint64_t ms = now_ms - (uint64_t)(count - i);
        struct envelope env = {.sender = str_z(argv[3]),
                               .origin = STR("submission"),
                               .client = STR("[192.0.2.1]"),
                               .login = str_z(argv[3]),
                               .arrived_us = (int64_t)ms * 1000,
                               .rcpts = &rcpt,
                               .nrcpt = 1};
        struct err e;
        buf_reset(&b);
        if (qfile_whole(&b, &env, str_z(text), &e) < 0)
            die(e.text);
        make_id(id, ms, (uint64_t)i + 1);
        if (deferred) {
            snprintf(path, sizeof path, "%s/cur/%s/%s.u", argv[1], id + ID_LEN - 2, id);
            write_file(path, &b, time(NULL) + 1800 + i % 1800);
            put_journal(argv[1], id);
        } else {
            snprintf(path, sizeof path, "%s/new/%s.u", argv[1], id);
            write_file(path, &b, 0);
        }
        buf_free(&to);
    }
    return 0;
}
