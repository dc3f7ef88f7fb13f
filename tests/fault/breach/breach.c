/* clang-format off */
/*
 * breach: a role that has been taken over. Linked into builds of the programs in a tree of their
 * own (build/breach/bin), never into what is installed: --wrap puts it behind guard_enter() and
 * guard_session(), so what it does it does under the real confinement.
 *
 * What to do stands in JOBS/ROLE.job, a line each, read before the role is entered (JOBS is beside
 * the directory of the programs; a cell reads ./breach-job in its Maildir); what came of it goes to
 * ROLE.out. tests/fault/check_breach.py compares that with the documents.
 *
 *   calls FIRST LAST   each system call, after guard_enter() and in a session, a process for each
 *   paths              open and stat every line of JOBS/paths
 *   connect            socket, connect to each port in JOBS/ports, Unix sockets of both kinds
 *   control            every message and garbage to master
 *   own                every message through each door (authd, qmgr); as authd, forbidden cells
 *   say TYPE           a cell: this message and garbage to who started it, and the end
 *   doors              in the first session: every message through each door
 *   fill               in the first session: memory and descriptors until there are no more
 *
 * A try runs in a forked process that enters the role by itself, since most tries end it.
 */
/* clang-format on */
#include "lib/guard/table.h"
#include "lib/ipc/cell.h"
#include "lib/ipc/channel.h"
#include "lib/ipc/message.h"
#include "lib/role/cell.h"
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    OUT_FD = 100,
    TEXT_MAX = 2 << 20,
    NAMES_MAX = 96,
    TYPES = 128,
    FILL_STEP = 1 << 20,
    SPECIALS = 17
};
enum stage { ENTERED, SESSION, SYNCER, STAGES };
static const char *const stage_names[] = {"entered", "session", "syncer"};

void __real_guard_enter(const struct guard *g);
void __wrap_guard_enter(const struct guard *g);
void __real_guard_session(enum role role);
void __wrap_guard_session(enum role role);

static struct {
    bool on;
    char *job, *paths, *ports;
    char names[NAMES_MAX][32];
    size_t nnames;
    int *played; /* shared: only the first session plays */
} breach;

static void
say(const char *fmt, ...)
{
    char line[512];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(line, sizeof line - 1, fmt, ap);
    va_end(ap);
    if (n < 0)
        return;
    if ((size_t)n > sizeof line - 2)
        n = (int)sizeof line - 2;
    line[n] = '\n';
    (void)!write(OUT_FD, line, (size_t)n + 1);
}

static char *
read_file(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    char *text = fd < 0 ? NULL : calloc(1, TEXT_MAX);
    size_t n = 0;
    ssize_t got;
    while (text && n < TEXT_MAX - 1 && (got = read(fd, text + n, TEXT_MAX - 1 - n)) > 0)
        n += (size_t)got;
    if (fd >= 0)
        close(fd);
    return text;
}

static void
keep_names(void)
{
    struct str names = str_z(getenv("LISTEN_FDNAMES"));
    while (names.n && breach.nnames < NAMES_MAX) {
        struct str one = str_cut(&names, ':');
        snprintf(breach.names[breach.nnames++], sizeof breach.names[0], "%.*s", STR_ARG(one));
    }
}

static __attribute__((constructor)) void
prepare(void)
{
    char self[300] = "", path[400], *base;
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 40);
    if (n > 0) {
        self[n] = '\0';
        base = strrchr(self, '/');
        *base++ = '\0';
        char *dir = strrchr(self, '/');
        snprintf(path, sizeof path, "%.*s/jobs/%s.job", (int)(dir - self), self, base);
        breach.job = read_file(path);
        snprintf(path, sizeof path, "%.*s/jobs/paths", (int)(dir - self), self);
        breach.paths = breach.job ? read_file(path) : NULL;
        snprintf(path, sizeof path, "%.*s/jobs/ports", (int)(dir - self), self);
        breach.ports = breach.job ? read_file(path) : NULL;
        snprintf(path, sizeof path, "%.*s/jobs/%s.out", (int)(dir - self), self, base);
    } else { /* a cell: nothing but its Maildir is in sight */
        breach.job = read_file("breach-job");
        breach.paths = breach.job ? read_file("breach-paths") : NULL;
        snprintf(path, sizeof path, "breach-out");
    }
    int fd = breach.job ? open(path, O_WRONLY | O_APPEND | O_CLOEXEC) : -1;
    if (fd < 0 || dup3(fd, OUT_FD, O_CLOEXEC) < 0) /* what the launcher's list has of it */
        return;
    close(fd);
    keep_names();
    breach.played = mmap(NULL, sizeof *breach.played, PROT_READ | PROT_WRITE,
                         MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    breach.on = breach.played != MAP_FAILED;
}

static const char *
job(const char *word)
{
    const char *at = breach.on ? strstr(breach.job, word) : NULL;
    return at && (at == breach.job || at[-1] == '\n') ? at + strlen(word) : NULL;
}

static void
enter(const struct guard *g, enum stage stage)
{
    struct guard own = *g;
    own.as_session = own.as_session || stage == SYNCER;
    __real_guard_enter(&own);
    if (stage == SESSION)
        __real_guard_session(g->role);
}

static bool
has_stage(const struct guard *g, enum stage stage)
{
    const struct guard_row *row = guard_row(g->role);
    if (stage == ENTERED)
        return true;
    return row && row->session_sets && (stage == SYNCER) == (g->role == R_QMGR);
}

/* The result of one try in a process of its own. */
static void
report(const char *what, enum stage stage, pid_t pid)
{
    int status = 0;
    if (pid < 0 || waitpid(pid, &status, __WALL) != pid)
        say("%s %s lost", what, stage_names[stage]);
    else if (WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS)
        say("%s %s killed", what, stage_names[stage]);
    else if (WIFSIGNALED(status))
        say("%s %s signal %d", what, stage_names[stage], WTERMSIG(status));
    else
        say("%s %s returned %d", what, stage_names[stage], WEXITSTATUS(status));
}

/* Arguments that do nothing where the call is allowed: no descriptor, no address. */
static int
call(long nr)
{
    long r = nr == SYS_clone ? syscall(nr, SIGCHLD, 0, 0, 0, 0) : syscall(nr, -1L, 0, 0, 0, 0, 0);
    if (nr == SYS_clone && r == 0)
        _exit(0);
    return r < 0 ? errno : 0;
}

static void
try_calls(const struct guard *g, long first, long last)
{
    char what[32];
    for (enum stage stage = ENTERED; stage < STAGES; stage++)
        for (long nr = first; has_stage(g, stage) && nr <= last; nr++) {
            pid_t pid = fork();
            if (pid == 0) {
                enter(g, stage);
                _exit(call(nr));
            }
            snprintf(what, sizeof what, "call %ld", nr);
            report(what, stage, pid);
        }
}

static int
special(int which)
{
    int pair[2];
    long r = 0;
    switch (which) {
    case 0:
        r = syscall(SYS_mmap, 0, 4096, PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        break;
    case 1:
        r = syscall(SYS_mprotect, (long)&breach & ~4095L, 4096, PROT_READ | PROT_EXEC);
        break;
    case 2:
        r = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
        break;
    case 3:
        r = syscall(SYS_clone, CLONE_VM | CLONE_THREAD | CLONE_SIGHAND, 0, 0, 0, 0);
        break;
    case 4:
        r = syscall(SYS_socketpair, AF_UNIX, SOCK_DGRAM, 0, pair);
        break;
    case 5:
        r = syscall(SYS_socket, AF_UNIX, SOCK_STREAM, 0);
        break;
    case 6:
        r = syscall(SYS_socket, AF_NETLINK, SOCK_RAW, 0);
        break;
    case 7:
        r = syscall(SYS_socket, AF_PACKET, SOCK_RAW, 0);
        break;
    case 8:
        r = syscall(SYS_socket, 38 /* AF_ALG */, SOCK_SEQPACKET, 0);
        break;
    case 9:
        r = syscall(SYS_fcntl, 2, F_SETOWN, getppid());
        break;
    case 10:
        r = syscall(SYS_fcntl, 2, F_SETSIG, SIGKILL);
        break;
    case 11:
        r = syscall(SYS_fcntl, 2, F_SETFL, O_ASYNC);
        break;
    case 12:
        r = syscall(SYS_getpid | 0x40000000); /* the x32 table */
        break;
    case 13: { /* the 32-bit table: getpid is 20 there */
        long nr = 20;
        __asm__ volatile("int $0x80" : "+a"(nr) : : "memory", "r8", "r9", "r10", "r11");
        errno = nr < 0 ? (int)-nr : 0;
        r = nr < 0 ? -1 : 0;
        break;
    }
    case 14: /* cut the log: it is open for appending only */
        r = syscall(SYS_ftruncate, 2, 0);
        break;
    case 16: /* a file that is held, the page of known recipients for one, mapped for writing */
        r = -1;
        for (int fd = 0; fd < OUT_FD && r < 0; fd++) {
            void *at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
            r = at == MAP_FAILED ? -1 : 0;
        }
        errno = EACCES;
        break;
    case 15: /* write over what is in the log */
        r = syscall(SYS_fcntl, 2, F_SETFL, 0);
        break;
    default:
        break;
    }
    return r < 0 ? errno : 0;
}

static void
try_specials(const struct guard *g)
{
    char what[32];
    for (enum stage stage = ENTERED; stage < STAGES; stage++)
        for (int i = 0; has_stage(g, stage) && i < SPECIALS; i++) {
            pid_t pid = fork();
            if (pid == 0) {
                enter(g, stage);
                _exit(special(i));
            }
            snprintf(what, sizeof what, "special %d", i);
            report(what, stage, pid);
        }
}

static void
reach(bool by_open, int dir, const char *path)
{
    struct stat st;
    int fd = by_open ? openat(dir, path, O_RDONLY | O_NONBLOCK | O_NOCTTY) : -1;
    if (by_open && fd < 0)
        return;
    int ok = by_open ? fstat(fd, &st) : fstatat(dir, path, &st, 0);
    if (ok == 0)
        say("reached %s %llu %llu %s", by_open ? "open" : "stat", (unsigned long long)st.st_dev,
            (unsigned long long)st.st_ino, path);
    if (by_open)
        close(fd);
}

static void
reach_all(bool by_open)
{
    char path[500], over[600];
    size_t n = 0;
    for (const char *at = breach.paths; at && *at; n++) {
        size_t len = strcspn(at, "\n");
        snprintf(path, sizeof path, "%.*s", (int)len, at);
        at += len + (at[len] == '\n');
        reach(by_open, AT_FDCWD, path);
        for (int fd = 3; n < 40 && fd < OUT_FD; fd++) /* past every directory that is held */
            if (fcntl(fd, F_GETFD) >= 0) {
                snprintf(over, sizeof over, "../../../../../../../..%s", path);
                reach(by_open, fd, over);
            }
    }
    say("tried %s %zu", by_open ? "open" : "stat", n);
}

static void
try_paths(const struct guard *g)
{
    for (enum stage stage = ENTERED; stage < STAGES; stage++)
        for (int by_open = 0; has_stage(g, stage) && by_open < 2; by_open++) {
            say("paths %s", stage_names[stage]);
            pid_t pid = fork();
            if (pid == 0) {
                enter(g, stage);
                reach_all(by_open);
                _exit(0);
            }
            report(by_open ? "open" : "stat", stage, pid);
        }
}

static void
connect_all(void)
{
    for (const char *at = breach.ports; at && *at;) {
        char *end;
        unsigned long port = strtoul(at, &end, 10);
        struct sockaddr_in in = {.sin_family = AF_INET,
                                 .sin_port = htons((uint16_t)port),
                                 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        at = *end ? end + 1 : end;
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        int ok = connect(fd, (struct sockaddr *)&in, sizeof in);
        say("port %lu %d", port, ok < 0 ? errno : 0);
        close(fd);
    }
    int pair[2];
    struct sockaddr_un un = {.sun_family = AF_UNIX, .sun_path = "\0bulkhead-breach"};
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0) {
        close(pair[1]);
        int ok = connect(pair[0], (struct sockaddr *)&un, sizeof un);
        say("abstract %d", ok < 0 ? errno : 0);
        snprintf(un.sun_path, sizeof un.sun_path, "/run/bulkhead/master");
        ok = connect(pair[0], (struct sockaddr *)&un, sizeof un);
        say("unix %d", ok < 0 ? errno : 0);
    }
}

static void
try_connect(const struct guard *g)
{
    for (enum stage stage = ENTERED; stage < STAGES; stage++) {
        if (!has_stage(g, stage))
            continue;
        say("connects %s", stage_names[stage]);
        pid_t pid = fork();
        if (pid == 0) {
            enter(g, stage);
            connect_all();
            _exit(0);
        }
        report("connect", stage, pid);
    }
}

/* A message of this type that looks right: its fields as the table's text names them. */
static void
forge(struct msg *m, unsigned type, int fd)
{
    const struct msg_row *row = msg_row(type);
    struct str text = str_z(row ? row->fields : "");
    ptrdiff_t tail = str_find(text, STR("descriptor"));
    msg_begin(m, (enum msg_type)type);
    text = tail < 0 ? text : str_sub(text, 0, (size_t)tail);
    while (text.n) {
        struct str word = str_cut(&text, ' ');
        word = str_from(word, word.n && word.p[0] == '{' ? 1 : 0);
        if (str_eq(word, STR("str")))
            msg_put_str(m, STR("bob@example.org"));
        else if (str_eq(word, STR("u32")))
            msg_put_u32(m, 1);
        else if (str_eq(word, STR("u64")))
            msg_put_u64(m, 1);
        else if (str_eq(word, STR("bool")))
            msg_put_bool(m, false);
    }
    for (unsigned i = 0; row && i < row->fds; i++)
        msg_add_fd(m, fd);
}

static void
through(int door, const char *service, unsigned type, struct msg *m)
{
    struct err e;
    char head[12];
    int spare[2];
    int fd = chan_open(door, NULL, &e);
    if (fd < 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, spare) < 0) {
        say("door %.*s %u nochannel", (int)strcspn(service, "."), service, type);
        return;
    }
    forge(m, type, spare[1]);
    int sent = msg_send(fd, m);
    close(spare[1]);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    ssize_t n = sent == 0 && poll(&p, 1, 400) > 0 ? recv(fd, head, sizeof head, MSG_DONTWAIT) : -2;
    uint16_t answer = 0;
    if (n == (ssize_t)sizeof head)
        memcpy(&answer, head + 6, sizeof answer);
    say("door %.*s %u %s %u", (int)strcspn(service, "."), service, type,
        n == -2                     ? "silent"
        : n == (ssize_t)sizeof head ? "answer"
                                    : "closed",
        answer);
    close(spare[0]);
    close(fd);
}

static void
try_doors(void)
{
    struct msg m = {0};
    say("role session");
    for (size_t i = 0; i < breach.nnames; i++) {
        if (strncmp(breach.names[i], "to.", 3) != 0)
            continue;
        for (unsigned type = 0; type < TYPES; type++)
            through(3 + (int)i, breach.names[i] + 3, type, &m);
    }
    msg_free(&m);
    say("doors done");
}

/* Cells that the launcher must not start, whatever authd says: no CELL_READY comes. */
static void
try_cells(void)
{
    static const struct cell_request wrong[] = {
        {.kind = CELL_IMAPD, .uid = 0, .gid = 0, .account = "root", .directory = "/root"},
        {.kind = CELL_IMAPD, .uid = 0, .gid = 1000, .account = "root", .directory = "/root"},
        {.kind = CELL_IMAPD, .uid = 1000, .gid = 0, .account = "bob", .directory = "/tmp"},
        {.kind = CELL_IMAPD, .uid = 1, .gid = 1, .account = "daemon", .directory = "/usr/sbin"},
        {.kind = CELL_IMAPD, .uid = 200000, .gid = 200000, .account = "bob", .directory = "/etc"},
        {.kind = CELL_IMAPD,
         .uid = 200000,
         .gid = 200000,
         .account = "bob",
         .directory = "../../etc"},
        {.kind = CELL_IMAPD,
         .uid = 200000,
         .gid = 200000,
         .account = "bob",
         .directory = "example.org/../../../etc"},
        {.kind = CELL_IMAPD,
         .uid = 200000,
         .gid = 200000,
         .account = "bob",
         .directory = "/proc/self/root"},
        {.kind = CELL_IMAPD, .uid = 200000, .gid = 200000, .account = "bob", .directory = ""},
        {.kind = CELL_IMAPD,
         .uid = 200000,
         .gid = 200000,
         .account = "",
         .directory = "example.org/bob"},
        {.kind = 99,
         .uid = 200000,
         .gid = 200000,
         .account = "bob",
         .directory = "example.org/bob"},
    };
    int door = -1;
    for (size_t i = 0; i < breach.nnames; i++)
        if (strcmp(breach.names[i], "to.launcher") == 0)
            door = 3 + (int)i;
    for (size_t i = 0; door >= 0 && i < sizeof wrong / sizeof wrong[0]; i++) {
        struct msg m = {0};
        struct err e;
        int pair[2], fd = chan_open(door, NULL, &e);
        if (fd < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) < 0)
            continue;
        msg_begin(&m, M_CELL_START);
        msg_put_str(&m, str_of((const char *)&wrong[i], sizeof wrong[i]));
        msg_add_fd(&m, pair[1]);
        (void)msg_send(fd, &m);
        close(pair[1]);
        int n = chan_recv(pair[0], &m, R_CELL, R_IMAPD, 5000, &e);
        say("cell %zu %s", i, n == 0 ? "closed" : n < 0 ? "none" : "ready");
        close(pair[0]);
        close(fd);
        msg_free(&m);
    }
    say("cells done");
}

static void
try_own(const struct guard *g)
{
    pid_t pid = fork();
    if (pid == 0) {
        enter(g, ENTERED);
        try_doors();
        if (g->role == R_AUTHD)
            try_cells();
        _exit(0);
    }
    report("own", ENTERED, pid);
}

/* A cell says to its front, or to local, what it likes. */
static void
say_as_cell(unsigned type)
{
    struct msg m = {0};
    char junk[700];
    memset(junk, 0xa5, sizeof junk);
    forge(&m, type, 2);
    (void)msg_send(CELL_CHANNEL, &m);
    for (size_t i = 0; i < sizeof junk; i += 7)
        (void)send(CELL_CHANNEL, junk, i, MSG_DONTWAIT | MSG_NOSIGNAL);
    _exit(0);
}

/* Every message to master, then garbage. */
static void
try_control(const struct guard *g)
{
    int fd = -1;
    for (size_t i = 0; i < breach.nnames; i++)
        if (strcmp(breach.names[i], "control") == 0)
            fd = 3 + (int)i;
    pid_t pid = fd < 0 ? -1 : fork();
    if (pid == 0) {
        struct msg m = {0};
        char junk[512];
        enter(g, ENTERED);
        memset(junk, 0xa5, sizeof junk);
        for (unsigned type = 0; type < TYPES; type++)
            if (type != M_READY) {
                forge(&m, type, 2);
                (void)msg_send(fd, &m);
            }
        for (size_t i = 0; i < sizeof junk; i++)
            (void)send(fd, junk, i, MSG_DONTWAIT | MSG_NOSIGNAL);
        _exit(0);
    }
    report("control", ENTERED, pid);
}

static void
try_fill(void)
{
    size_t memory = 0, n = 0;
    while (memory < (size_t)64 << 30 && mmap(NULL, FILL_STEP, PROT_READ | PROT_WRITE,
                                             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED)
        memory += FILL_STEP;
    while (fcntl(2, F_DUPFD, 3) >= 0)
        n++;
    say("filled %zu %zu", memory, n);
    for (int fd = OUT_FD + 1; n > 0 && fd < 20000; fd++)
        close(fd);
}

void
__wrap_guard_enter(const struct guard *g)
{
    long first = 0, last = 0;
    const char *at = job("calls ");
    char *end;
    if (fcntl(OUT_FD, F_GETFD) < 0)
        breach.on = false;
    if (breach.on && at) {
        first = strtol(at, &end, 10);
        last = strtol(end, NULL, 10);
        try_calls(g, first, last);
    }
    if (job("specials"))
        try_specials(g);
    if (job("paths"))
        try_paths(g);
    if (job("connect"))
        try_connect(g);
    if (job("control"))
        try_control(g);
    if (job("own") && (g->role & (R_AUTHD | R_QMGR)))
        try_own(g);
    if (breach.on)
        say("entered");
    __real_guard_enter(g);
    if (job("say "))
        say_as_cell((unsigned)strtoul(job("say "), NULL, 10));
}

void
__wrap_guard_session(enum role role)
{
    __real_guard_session(role);
    if (!breach.on || __atomic_fetch_add(breach.played, 1, __ATOMIC_SEQ_CST) > 0)
        return;
    if (job("doors"))
        try_doors();
    if (job("fill"))
        try_fill();
}
