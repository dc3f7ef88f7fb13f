#include "lib/guard/sandbox.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Debian 12's header knows version 2; these are the kernel's later additions. */
enum {
    FS_TRUNCATE = 1 << 14,  /* version 3 */
    FS_IOCTL_DEV = 1 << 15, /* 5 */
    NET_BIND = 1 << 0,      /* 4 */
    NET_CONNECT = 1 << 1,
    SCOPE_ABSTRACT = 1 << 0, /* 6 */
    SCOPE_SIGNAL = 1 << 1,
    FS_VERSION_1 = (1 << 13) - 1,
    FS_REFER = 1 << 13, /* 2 */
    FS_READ = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR,
    FS_WRITE = FS_READ | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR |
               LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_DIR |
               LANDLOCK_ACCESS_FS_MAKE_REG,
};

struct ruleset { /* as of version 6; shorter for older kernels */
    uint64_t fs, net, scoped;
};

static uint64_t
fs_rights(int version)
{
    uint64_t rights = FS_VERSION_1;
    if (version >= 2)
        rights |= FS_REFER;
    if (version >= 3)
        rights |= FS_TRUNCATE;
    if (version >= 5)
        rights |= FS_IOCTL_DEV;
    return rights;
}

/* Debian 12's header does not know these either. Port 0: one that the kernel chooses, which is what
 * a local address for outbound connections needs. */
static int
allow_port(int ruleset, uint64_t allowed, uint16_t port)
{
    enum { RULE_NET_PORT = 2 };
    const struct {
        uint64_t allowed, port;
    } rule = {.allowed = allowed, .port = port};
    return (int)syscall(SYS_landlock_add_rule, ruleset, RULE_NET_PORT, &rule, 0);
}

static int
allow_dir(int ruleset, const struct guard_dir *dir, uint64_t known)
{
    uint64_t rights = dir->write ? FS_WRITE | FS_REFER | FS_TRUNCATE : FS_READ;
    int fd = dir->path ? open(dir->path, O_PATH | O_CLOEXEC) : dir->dirfd;
    if (fd < 0)
        return -1;
    struct landlock_path_beneath_attr rule = {.allowed_access = rights & known, .parent_fd = fd};
    int ok = (int)syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
    if (dir->path)
        close(fd);
    return ok;
}

int
sandbox_landlock(const struct guard *g, bool connects)
{
    long version = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    /* Version 1 forbids to rename between directories, which is how a queue and a Maildir work. */
    if (version <= 0 || (version == 1 && g->ndirs))
        return 0;
    struct ruleset set = {.fs = fs_rights((int)version)};
    size_t size = sizeof set.fs;
    if (version >= 4) {
        set.net = connects && g->nports == 0 ? NET_BIND : NET_BIND | NET_CONNECT;
        size += sizeof set.net;
    }
    if (version >= 6) {
        set.scoped = SCOPE_ABSTRACT | SCOPE_SIGNAL;
        size += sizeof set.scoped;
    }
    int fd = (int)syscall(SYS_landlock_create_ruleset, &set, size, 0);
    if (fd < 0)
        return -1;
    bool ports = connects && version >= 4;
    int ok = ports ? allow_port(fd, NET_BIND, 0) : 0;
    for (size_t i = 0; ports && ok == 0 && i < g->nports; i++)
        ok = allow_port(fd, NET_CONNECT, g->ports[i]);
    for (size_t i = 0; ok == 0 && i < g->ndirs; i++)
        ok = allow_dir(fd, &g->dirs[i], set.fs);
    if (ok == 0)
        ok = (int)syscall(SYS_landlock_restrict_self, fd, 0);
    close(fd);
    return ok < 0 ? -1 : (int)version;
}
