#include "common/master/launcher/launcher.h"
#include "lib/log/log.h"
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
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

static int
become_user(uid_t uid, gid_t gid)
{
    uid_t r, e, s;
    bool done = setgroups(0, NULL) == 0 && setresgid(gid, gid, gid) == 0 &&
                setresuid(uid, uid, uid) == 0 && getresuid(&r, &e, &s) == 0;
    return done && r == uid && e == uid && s == uid && setuid(0) < 0 ? 0 : -1;
}

static int
descend(int at, const char *name)
{
    return openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

/* Outside the mail directory the account's own user makes the last part, since a link planted there
 * must not make root write anywhere. (We are a process of our own for this one cell.) */
static int
make_as_user(int parent, const char *name, const struct cell_request *r)
{
    int made = -1;
    if (setgroups(0, NULL) == 0 && setresgid(KEEP, r->gid, KEEP) == 0 &&
        setresuid(KEEP, r->uid, KEEP) == 0)
        made = mkdirat(parent, name, 0) == 0 || errno == EEXIST ? 0 : -1;
    return setresuid(KEEP, 0, KEEP) == 0 && setresgid(KEEP, 0, KEEP) == 0 ? made : -1;
}

/* What is delivered below must be found again after a power cut: so a directory is made without a
 * mode, and has one when its name and its owner are on disk. Whoever finds one without does the
 * rest, for a maker that was killed, or along with one that is at it. */
static int
finish(int parent, int fd, mode_t mode, uid_t uid, gid_t gid)
{
    return fsync(parent) < 0 || fchown(fd, uid, gid) < 0 || fsync(fd) < 0 ? -1 : fchmod(fd, mode);
}

/* Descend to one name without following a link, making it when it is ours to make: 0711 and root's,
 * but the last 0700 and the user's. */
static int
descend_made(const struct launcher *l, int parent, const char *name, bool ours, bool last,
             const struct cell_request *r)
{
    const mode_t mode = last ? 0700 : 0711;
    struct stat st;
    int fd = descend(parent, name);
    if (fd < 0 && errno == ENOENT && (ours || last)) {
        int made = l->privileged && !ours ? make_as_user(parent, name, r)
                                          : mkdirat(parent, name, l->privileged ? 0 : mode);
        if ((made < 0 && errno != EEXIST) || (!l->privileged && fsync(parent) < 0))
            return -1;
        fd = descend(parent, name);
    }
    if (fd < 0 || !l->privileged || fstat(fd, &st) < 0 || st.st_mode & 07777 ||
        !((ours && st.st_uid == 0) || (last && st.st_uid == r->uid)))
        return fd;
    bool give = last && st.st_uid == 0;
    if (finish(parent, fd, mode, give ? r->uid : KEEP, give ? r->gid : KEEP) == 0)
        return fd;
    close(fd);
    return -1;
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
        int next = descend_made(l, fd, name, ours, !slash, r);
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
