/*
 * launcher: see launcher.h. As root it is started by master only, and reads no configuration.
 */
#include "common/master/launcher/launcher.h"
#include "lib/guard/guard.h"
#include "lib/ipc/service.h"
#include "lib/log/log.h"
#include "lib/role/sockets.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
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

/* "dir.mail" tells which directory is the suite's: its path, as the kernel knows it. */
static void
find_mail_dir(const struct start *st)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", start_fd(st, "dir.mail"));
    ssize_t n = readlink(link, the.launcher.mail_dir, sizeof the.launcher.mail_dir - 1);
    if (n <= 1)
        log_fatal("no mail directory");
}

static void
open_programs(void)
{
    static const char *const names[CELL_KINDS] = {"imapd-cell", "pop3d-cell", "local-cell"};
    char self[256], path[320];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n <= 0)
        log_fatal("/proc/self/exe: %s", strerror(errno));
    self[n] = '\0';
    *(strrchr(self, '/') + 1) = '\0';
    for (size_t i = 0; i < CELL_KINDS; i++) {
        snprintf(path, sizeof path, "%s%s", self, names[i]);
        the.launcher.programs[i] = open(path, O_PATH | O_CLOEXEC);
        if (the.launcher.programs[i] < 0) /* not every piece need be installed */
            log_warn("%s: %s", path, strerror(errno));
    }
}

/* Started by hand, by an ordinary user, whose accounts all are. */
static void
by_hand(struct start *st)
{
    static struct conf conf;
    if (geteuid() == 0)
        log_fatal("as root I am started by master only");
    start_config(st, &conf);
    start_sockets(st, &conf);
    mkdir(conf.mail_dir.p, 0711);
    int fd = open(conf.mail_dir.p, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        log_fatal("%s: %s", conf.mail_dir.p, strerror(errno));
    start_add_fd(st, fd, "dir.mail");
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
    if (!st.given)
        by_hand(&st);
    find_mail_dir(&st);
    open_programs();
    the.loop.on_signal = on_signal;
    the.service = (struct service){.clients_max = 8, .message = on_message};
    if (loop_init(&the.loop, signals) < 0 || service_init(&the.service, &the.loop, &st) < 0)
        log_fatal("event loop: %s", strerror(errno));
    struct guard guard = {
        .role = R_LAUNCHER, .root_fd = -1, .keep_root_dir = true, .no_landlock = true};
    guard_enter(&guard);
    start_ready(&st);
    loop_run(&the.loop);
    return 0;
}
