#include "common/master/ctl/priv.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { FILE_MAX = 16384 };

const char *const priv_fd_names[FD_KINDS] = {"tcp",   "udp",   "stream",    "seqpacket",
                                             "dgram", "file",  "directory", "device",
                                             "pipe",  "epoll", "other"};
const char *const priv_limit_names[PRIV_LIMITS] = {"core", "files", "file_size", "memory",
                                                   "processes"};
static const char *const limit_words[PRIV_LIMITS] = {
    "Max core file size", "Max open files", "Max file size", "Max address space", "Max processes"};

struct known { /* a process and where it stands, for all of /proc */
    pid_t pid, parent, group;
    char name[20];
};
struct sockets { /* types of sockets by inode, of the three tables in /proc/net */
    struct {
        uint64_t inode;
        enum priv_fd kind;
    } * rows;
    size_t n, cap;
};

static ssize_t
read_proc(pid_t pid, const char *name, char *text, size_t size)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, size - 1);
    if (fd >= 0)
        close(fd);
    text[n > 0 ? n : 0] = '\0';
    return n;
}

/* "pid (name) state parent group": the name may hold anything, so the last ')' ends it. */
static bool
read_stat(pid_t pid, struct known *k)
{
    char text[1024];
    if (read_proc(pid, "stat", text, sizeof text) <= 0)
        return false;
    const char *open = strchr(text, '('), *close = strrchr(text, ')');
    if (!open || !close || close < open || strlen(close) < 5)
        return false;
    *k = (struct known){.pid = pid};
    snprintf(k->name, sizeof k->name, "%.*s", (int)(close - open - 1), open + 1);
    char *end;
    k->parent = (pid_t)strtol(close + 4, &end, 10);
    k->group = (pid_t)strtol(end, NULL, 10);
    return true;
}

static uint64_t
number_after(const char *text, const char *word, int base)
{
    const char *at = strstr(text, word);
    return at ? strtoull(at + strlen(word), NULL, base) : 0;
}

static void
read_status(struct priv_proc *p)
{
    char text[FILE_MAX];
    if (read_proc(p->pid, "status", text, sizeof text) <= 0)
        return;
    const char *uids = strstr(text, "\nUid:"), *groups = strstr(text, "\nGroups:");
    char *end = NULL;
    for (size_t i = 0; uids && i < 4; i++) {
        p->uids[i] = (uid_t)strtoul(i ? end : uids + 5, &end, 10);
    }
    p->gid = (gid_t)number_after(text, "\nGid:", 10);
    for (const char *at = groups ? groups + 8 : ""; *at && *at != '\n'; at++)
        p->groups += ch_digit(*at) && !ch_digit(at[-1]);
    p->cap_inh = number_after(text, "\nCapInh:", 16);
    p->cap_prm = number_after(text, "\nCapPrm:", 16);
    p->cap_eff = number_after(text, "\nCapEff:", 16);
    p->cap_bnd = number_after(text, "\nCapBnd:", 16);
    p->cap_amb = number_after(text, "\nCapAmb:", 16);
    p->no_new_privs = (unsigned)number_after(text, "\nNoNewPrivs:", 10);
    p->seccomp = (unsigned)number_after(text, "\nSeccomp:", 10);
    p->filters = (unsigned)number_after(text, "\nSeccomp_filters:", 10);
}

/* prlimit(2) would ask for more rights than reading does. */
static void
read_limits(struct priv_proc *p)
{
    char text[FILE_MAX];
    read_proc(p->pid, "limits", text, sizeof text);
    for (size_t i = 0; i < PRIV_LIMITS; i++) {
        const char *at = strstr(text, limit_words[i]);
        char *end = NULL;
        rlim_t *v = &p->limits[i];
        *v = RLIM_INFINITY;
        if (!at)
            continue;
        at += strlen(limit_words[i]);
        rlim_t got = strtoull(at, &end, 10);
        if (end != at && strncmp(at + strspn(at, " "), "unlimited", 9) != 0)
            *v = got;
    }
}

static bool
same_file(const struct stat *a, struct str path)
{
    char z[320];
    struct stat b;
    snprintf(z, sizeof z, "%.*s", STR_ARG(path));
    return stat(z, &b) == 0 && a->st_dev == b.st_dev && a->st_ino == b.st_ino;
}

static void
read_root(const struct conf *conf, struct priv_proc *p)
{
    char path[64], empty[320], to[80];
    struct stat st;
    snprintf(path, sizeof path, "/proc/%d/root", (int)p->pid);
    snprintf(empty, sizeof empty, "%.*s/empty", STR_ARG(conf->run_dir));
    ssize_t n = readlink(path, to, sizeof to - 1);
    const char *name = NULL;
    if (n <= 0 || stat(path, &st) < 0)
        name = "not readable";
    else if (same_file(&st, STR("/")))
        name = "system";
    else if (same_file(&st, str_z(empty)))
        name = "empty";
    else if (same_file(&st, conf->queue_dir))
        name = "queue";
    else if (same_file(&st, conf->state_dir))
        name = "state";
    struct str at = str_of(to, n > 0 ? (size_t)n : 0);
    if (!name && str_starts(at, conf->queue_dir)) {
        at = str_from(at, conf->queue_dir.n);
        snprintf(p->root, sizeof p->root, "queue%.*s", STR_ARG(at));
        return;
    }
    if (name)
        snprintf(p->root, sizeof p->root, "%s", name);
    else
        snprintf(p->root, sizeof p->root, "%s%.*s", p->role == R_CELL ? "account " : "",
                 STR_ARG(at));
}

static void
add_socket(struct sockets *s, uint64_t inode, enum priv_fd kind)
{
    if (s->n == s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 256;
        void *rows = reallocarray(s->rows, cap, sizeof *s->rows);
        if (!rows)
            return;
        s->rows = rows;
        s->cap = cap;
    }
    s->rows[s->n].inode = inode;
    s->rows[s->n++].kind = kind;
}

/* The column of words, separated by blanks, that is wanted; or 0. */
static uint64_t
column(const char *line, size_t index, int base)
{
    for (size_t i = 0; *line; i++) {
        line += strspn(line, " ");
        if (i == index)
            return strtoull(line, NULL, base);
        line += strcspn(line, " ");
    }
    return 0;
}

static void
read_net(struct sockets *s, const char *path, size_t inode_at, enum priv_fd kind)
{
    char line[512];
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f)) {
        uint64_t inode = column(line, inode_at, 10);
        uint64_t type = kind == FD_STREAM ? column(line, 4, 16) : 0; /* of /proc/net/unix */
        if (inode)
            add_socket(s, inode,
                       type == SOCK_SEQPACKET ? FD_SEQPACKET
                       : type == SOCK_DGRAM   ? FD_DATAGRAM
                                              : kind);
    }
    if (f)
        fclose(f);
}

static enum priv_fd
kind_of(const struct sockets *s, const struct stat *st, const char *link)
{
    if (S_ISREG(st->st_mode))
        return FD_FILE;
    if (S_ISDIR(st->st_mode))
        return FD_DIRECTORY;
    if (S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode))
        return FD_DEVICE;
    if (S_ISFIFO(st->st_mode))
        return FD_PIPE;
    for (size_t i = 0; S_ISSOCK(st->st_mode) && i < s->n; i++)
        if (s->rows[i].inode == st->st_ino)
            return s->rows[i].kind;
    return strstr(link, "eventpoll") ? FD_EPOLL : FD_OTHER;
}

static void
read_fds(const struct sockets *s, struct priv_proc *p)
{
    char path[64], link[64];
    snprintf(path, sizeof path, "/proc/%d/fd", (int)p->pid);
    DIR *dir = opendir(path);
    p->unreadable_fd = !dir;
    for (const struct dirent *d; dir && (d = readdir(dir));) {
        struct stat st;
        if (d->d_name[0] == '.' || fstatat(dirfd(dir), d->d_name, &st, 0) < 0)
            continue;
        ssize_t n = readlinkat(dirfd(dir), d->d_name, link, sizeof link - 1);
        link[n > 0 ? n : 0] = '\0';
        p->fds[kind_of(s, &st, link)]++;
    }
    if (dir)
        closedir(dir);
}

/* Which role a process has: by master's list, its group, or the launcher it is a child of. */
static enum role
belongs(const struct control_answer *a, const struct known *k, enum priv_kind *kind_r)
{
    for (size_t i = 0; i < a->nrows; i++) {
        const struct control_row *row = &a->rows[i];
        enum role role = (enum role)row->role;
        *kind_r = PRIV_PROGRAM;
        if (row->pid <= 0)
            continue;
        if (row->pid == k->pid)
            return role;
        if (role == R_LAUNCHER && k->parent == row->pid)
            return str_ends(str_z(k->name), STR("-cell")) ? R_CELL : R_LAUNCHER;
        *kind_r = PRIV_SESSION;
        if (role != R_MASTER && getpgid(row->pid) == k->group)
            return role;
        struct known master;
        *kind_r = PRIV_WATCHER;
        if (role == R_MASTER && read_stat(row->pid, &master) && master.parent == k->pid &&
            strcmp(k->name, "master") == 0)
            return role;
    }
    return R_NONE;
}

static int
by_role(const void *a, const void *b)
{
    const struct priv_proc *x = a, *y = b;
    if (x->role != y->role)
        return x->role < y->role ? -1 : 1;
    if (x->kind != y->kind)
        return x->kind < y->kind ? -1 : 1;
    return x->pid < y->pid ? -1 : 1;
}

static void
look(const struct ctl *ctl, const struct sockets *sockets, unsigned inherited,
     struct priv_proc *proc)
{
    read_status(proc);
    read_root(&ctl->conf, proc);
    read_fds(sockets, proc);
    read_limits(proc);
    priv_filter(proc, inherited);
}

int
priv_find(const struct ctl *ctl, const struct control_answer *answer, struct priv *p)
{
    struct sockets sockets = {0};
    struct priv_proc master = {.pid = answer->rows[0].pid};
    DIR *dir = opendir("/proc");
    p->procs = calloc(PRIV_PROCS_MAX, sizeof *p->procs);
    if (!dir || !p->procs) {
        fprintf(stderr, "bulkhead: /proc: %s\n", strerror(errno));
        return -1;
    }
    read_status(&master); /* it has none of its own */
    p->inherited = master.filters;
    read_net(&sockets, "/proc/net/unix", 6, FD_STREAM);
    read_net(&sockets, "/proc/net/tcp", 9, FD_TCP);
    read_net(&sockets, "/proc/net/tcp6", 9, FD_TCP);
    read_net(&sockets, "/proc/net/udp", 9, FD_UDP);
    read_net(&sockets, "/proc/net/udp6", 9, FD_UDP);
    for (const struct dirent *d; (d = readdir(dir)) && p->n < PRIV_PROCS_MAX;) {
        struct known k;
        uint32_t pid;
        enum priv_kind kind;
        if (str_u32(str_z(d->d_name), INT32_MAX, &pid) < 0 || !read_stat((pid_t)pid, &k))
            continue;
        enum role role = belongs(answer, &k, &kind);
        if (role == R_NONE)
            continue;
        p->procs[p->n] = (struct priv_proc){.role = role, .kind = kind, .pid = k.pid};
        look(ctl, &sockets, p->inherited, &p->procs[p->n++]);
    }
    closedir(dir);
    free(sockets.rows);
    qsort(p->procs, p->n, sizeof *p->procs, by_role);
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    p->landlock = abi > 0 ? (int)abi : 0;
    return 0;
}
