#include "tests/fuzz/fuzz.h"
#include "lib/log/log.h"
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

static char dir[64];

void
fuzz_die(const char *what, const char *file, int line)
{
    fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, what);
    abort();
}

void
fuzz_clean(void)
{
    char command[100];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    if (dir[0] && system(command) != 0)
        fprintf(stderr, "%s is left\n", dir);
    dir[0] = '\0';
}

const char *
fuzz_dir(void)
{
    if (dir[0])
        return dir;
    log_open(open("/dev/null", O_WRONLY | O_CLOEXEC), "fuzz");
    snprintf(dir, sizeof dir, "%s/bh-fuzz-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    FUZZ_CHECK(mkdtemp(dir));
    atexit(fuzz_clean);
    return dir;
}

void
fuzz_write(const char *name, struct str bytes)
{
    char path[200];
    snprintf(path, sizeof path, "%s/%s", fuzz_dir(), name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    FUZZ_CHECK(fd >= 0 && write(fd, bytes.p, bytes.n) == (ssize_t)bytes.n);
    close(fd);
}

int
fuzz_file(struct str bytes)
{
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    FUZZ_CHECK(fd >= 0 && write(fd, bytes.p, bytes.n) == (ssize_t)bytes.n);
    lseek(fd, 0, SEEK_SET);
    return fd;
}
