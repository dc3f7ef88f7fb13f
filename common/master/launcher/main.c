/*
 * launcher: see launcher.h. As root it is started by master only, and reads no configuration.
 */
#include "common/master/launcher/launcher.h"
#include "lib/guard/guard.h"
#include "lib/ipc/service.h"
#include "lib/log/log.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <string.h>
#include <unistd.h>

static struct {
    struct launcher launcher;
    struct loop loop;
    struct service service;
    struct {
        pid_t pid;
        uint32_t uid;
    } cells[CELLS_MAX];
    size_t ncells;
} the;

static size_t
cells_of(uint32_t uid)
{
    size_t n = 0;
    for (size_t i = 0; i < the.ncells; i++)
        n += the.cells[i].uid == uid;
    return n;
}

static void
on_message(struct client *c, struct msg *m)
{
    struct cell_request r;
    struct str raw = msg_get_str(m);
    if (m->type != M_CELL_START || !msg_end(m) || raw.n != sizeof r) {
        service_close(c);
        return;
    }
    memcpy(&r, raw.p, sizeof r);
    int channel = msg_take_fd(m, 0);
    if (!launch_allowed(&the.launcher, &r)) {
        log_error("authd asked for a cell that may not be: user %u", r.uid);
    } else if (the.ncells == CELLS_MAX ||
               (the.launcher.privileged && cells_of(r.uid) >= CELLS_PER_USER_MAX)) {
        log_warn("too many cells: one of user %u refused", r.uid);
    } else {
        pid_t pid = launch_cell(&the.launcher, &r, channel);
        if (pid > 0) {
            the.cells[the.ncells].pid = pid;
            the.cells[the.ncells++].uid = r.uid;
        } else {
            log_error("cannot start a cell: %s", strerror(errno));
        }
    }
    close(channel); /* who waits at its other end sees that it closes */
}

static void
on_signal(struct loop *l, int signo)
{
    int status;
    pid_t pid;
    if (signo != SIGCHLD) {
        l->stop = true;
        return;
    }
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        for (size_t i = 0; i < the.ncells; i++) {
            if (the.cells[i].pid != pid)
                continue;
            if (WIFSIGNALED(status) && WTERMSIG(status) != SIGTERM)
                log_error("cell %d of user %u died of signal %d", (int)pid, the.cells[i].uid,
                          WTERMSIG(status));
            the.cells[i] = the.cells[--the.ncells];
            break;
        }
}

/* Where the programs lie, as the kernel knows it. */
static int
our_directory(void)
{
    char path[256];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    path[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(path, '/');
    if (!slash)
        log_fatal("/proc/self/exe: %s", strerror(errno));
    *slash = '\0';
    return open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

static void
open_programs(int dir)
{
    for (size_t i = 0; i < CELL_KINDS; i++) {
        the.launcher.programs[i] = openat(dir, launcher_cells[i], O_PATH | O_CLOEXEC);
        if (the.launcher.programs[i] < 0) /* not every piece need be installed */
            log_warn("%s: %s", launcher_cells[i], strerror(errno));
    }
    close(dir);
}

/* An ordinary user may start us by hand: bulkhead(8) reads the configuration, and comes back. */
static void
by_hand(const struct start *st, int dir)
{
    char *path =
        (char *)(st->config_path ? st->config_path : BH_SYSCONFDIR "/bulkhead/bulkhead.conf");
    char *argv[] = {(char *)"bulkhead", (char *)"-f", path, (char *)"launcher", NULL};
    char *env[] = {NULL};
    if (the.launcher.privileged)
        log_fatal("as root I am started by master only");
    execveat(dir, "bulkhead", argv, env, 0);
    log_fatal("bulkhead: %s", strerror(errno));
}

int
main(int argc, char **argv)
{
    static const int signals[] = {SIGCHLD, SIGTERM, SIGINT, 0};
    static struct start st;
    start_read(&st, R_LAUNCHER, argc, argv);
    umask(0); /* directories get the modes we name; cells set their own again */
    the.launcher.own_uid = geteuid();
    the.launcher.privileged = the.launcher.own_uid == 0;
    the.launcher.mail_dir = start_fd(&st, "dir.mail");
    int dir = our_directory();
    if (!st.given)
        by_hand(&st, dir);
    open_programs(dir);
    the.loop.on_signal = on_signal;
    the.service = (struct service){.clients_max = 8, .message = on_message};
    if (loop_init(&the.loop, signals) < 0 || service_init(&the.service, &the.loop, &st) < 0)
        log_fatal("event loop: %s", strerror(errno));
    guard_enter(&(struct guard){
        .role = R_LAUNCHER, .root_fd = -1, .keep_root_dir = true, .no_landlock = true});
    start_ready(&st);
    loop_run(&the.loop);
    return 0;
}
