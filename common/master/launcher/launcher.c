#include "common/master/launcher/launcher.h"
#include "lib/log/log.h"
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHANNEL_FD = 3 };
#define KEEP ((uid_t)-1)
const char *const launcher_cells[CELL_KINDS] = {"imapd-cell", "pop3d-cell", "local-cell"};

static bool
path_ok(const char *path)
{
    return *path && path[0] != '.' && !strstr(path, "//") && !strstr(path, "/.") &&
           path[strlen(path) - 1] != '/';
}

bool
launch_allowed(const struct launcher *l, const struct cell_request *r)
{
    if (r->kind >= CELL_KINDS || l->programs[r->kind] < 0 ||
        !str_fits(r->account, sizeof r->account) || !str_fits(r->quota, sizeof r->quota) ||
        !str_fits(r->directory, sizeof r->directory) || !path_ok(r->directory) || !*r->account ||
        !*r->quota)
        return false;
    if (!l->privileged)
        return r->uid == l->own_uid;
    return r->uid >= CELL_UID_MIN && r->gid >= CELL_UID_MIN;
}

/* Descend to one name without following a link, making it (ours, mode 0711) when make says so. */
static int
descend(int at, const char *name, bool make)
{
    int made = make ? mkdirat(at, name, 0711) : -1;
    if (make && made < 0 && errno != EEXIST)
        return -1;
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return fd >= 0 && made == 0 && (fsync(fd) < 0 || fsync(at) < 0) ? -1 : fd;
}

static int
become_user(uid_t uid, gid_t gid)
{
    uid_t r, e, s;
    bool done = setgroups(0, NULL) == 0 && setresgid(gid, gid, gid) == 0 &&
                setresuid(uid, uid, uid) == 0 && getresuid(&r, &e, &s) == 0;
    return done && r == uid && e == uid && s == uid && setuid(0) < 0 ? 0 : -1;
}

/* Outside the mail directory the account's own user makes the last part, since a link planted there
 * must not make root write anywhere. (We are a process of our own for this one cell.) */
static int
make_as_user(int parent, const char *name, const struct cell_request *r)
{
    int made = -1;
    if (setgroups(0, NULL) == 0 && setresgid(KEEP, r->gid, KEEP) == 0 &&
        setresuid(KEEP, r->uid, KEEP) == 0)
        made = mkdirat(parent, name, 0700) == 0 || errno == EEXIST ? 0 : -1;
    return setresuid(KEEP, 0, KEEP) == 0 && setresgid(KEEP, 0, KEEP) == 0 ? made : -1;
}

/* In the mail directory: made under a name of its own, given to the user, and only then called what
 * it is to be called. Several cells of a new account may start at once; the first one's stays. */
static int
make_for_user(int parent, const char *name, const struct cell_request *r)
{
    char fresh[32];
    snprintf(fresh, sizeof fresh, ".new-%d", (int)getpid());
    int fd =
        mkdirat(parent, fresh, 0700) < 0 && errno != EEXIST ? -1 : descend(parent, fresh, false);
    int ok = fd < 0 || fchown(fd, r->uid, r->gid) < 0 || fsync(fd) < 0 ? -1 : 0;
    if (ok == 0 && renameat2(parent, fresh, parent, name, RENAME_NOREPLACE) < 0 &&
        (errno != EINVAL || renameat(parent, fresh, parent, name) < 0)) { /* EINVAL: NFS */
        ok = errno == EEXIST || errno == ENOTEMPTY ? 0 : -1;
        unlinkat(parent, fresh, AT_REMOVEDIR);
    }
    if (fd >= 0)
        close(fd);
    return ok;
}

static int
open_last(const struct launcher *l, int parent, const char *name, bool ours,
          const struct cell_request *r)
{
    int fd = descend(parent, name, false), made;
    if (fd >= 0 || errno != ENOENT)
        return fd;
    if (!l->privileged)
        made = mkdirat(parent, name, 0700) < 0 && errno != EEXIST ? -1 : 0;
    else
        made = ours ? make_for_user(parent, name, r) : make_as_user(parent, name, r);
    /* What is delivered below must be found again after a power cut. */
    return made < 0 || fsync(parent) < 0 ? -1 : descend(parent, name, false);
}

/* The account's directory, component by component: an open descriptor, and it belongs to the user.
 */
static int
open_directory(const struct launcher *l, const struct cell_request *r)
{
    char path[sizeof r->directory];
    struct stat st;
    bool ours = r->directory[0] != '/';
    memcpy(path, r->directory, sizeof path);
    int fd = openat(l->mail_dir, ours ? "." : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    char *name = path + !ours;
    while (fd >= 0 && name) {
        char *slash = strchr(name, '/');
        if (slash)
            *slash = '\0';
        int next = slash ? descend(fd, name, ours) : open_last(l, fd, name, ours, r);
        int saved = errno;
        close(fd);
        errno = saved;
        fd = next;
        name = slash ? slash + 1 : NULL;
    }
    if (fd >= 0 && (fstat(fd, &st) < 0 || st.st_uid != r->uid)) {
        close(fd);
        errno = EPERM;
        return -1;
    }
    return fd;
}

/* In the child. From the change of user on, nothing of root is left. */
static void
become_cell(const struct launcher *l, const struct cell_request *r, int channel)
{
    sigset_t none;
    char *argv[] = {(char *)launcher_cells[r->kind], (char *)r->account, (char *)r->quota, NULL};
    char *env[] = {NULL};
    int dir = open_directory(l, r);
    if (dir < 0 || fchdir(dir) < 0)
        goto failed;
#ifndef BH_SANITIZE /* such cells are linked dynamically, and look for their libraries */
    if (l->privileged && chroot(".") < 0)
        goto failed;
#endif
    if (l->privileged && become_user(r->uid, r->gid) < 0)
        goto failed;
    if (channel == CHANNEL_FD ? fcntl(channel, F_SETFD, 0) < 0 : dup3(channel, CHANNEL_FD, 0) < 0)
        goto failed;
    umask(077);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execveat(l->programs[r->kind], "", argv, env, AT_EMPTY_PATH);
failed:
    log_error("cannot start a cell for %s in %s: %s", log_str(str_z(r->account)),
              log_str(str_z(r->directory)), strerror(errno));
    _exit(71);
}

pid_t
launch_cell(const struct launcher *l, const struct cell_request *r, int channel)
{
    pid_t pid = fork();
    if (pid == 0)
        become_cell(l, r, channel);
    return pid;
}
