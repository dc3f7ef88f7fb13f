#include "common/master/master.h"
#include "lib/log/log.h"
#include "lib/role/sockets.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

/* The descriptor becomes the child's under this name; one that had it is closed. */
static void
wire_set(struct child *c, int fd, const char *name)
{
    struct start_fd *w = c->wires;
    while (w < c->wires + c->nwires && strcmp(w->name, name) != 0)
        w++;
    if (w == c->wires + FDS_MAX)
        log_fatal("too many descriptors for %s", role_name(c->role));
    if (w == c->wires + c->nwires)
        c->nwires++;
    else
        close(w->fd);
    w->fd = fd;
    snprintf(w->name, sizeof w->name, "%s", name);
}

/* A copy of it does, for all of these roles. */
static void
wire_lend(struct master *m, unsigned roles, int fd, const char *name)
{
    for (size_t i = 0; i < m->nchildren; i++)
        if (roles & m->children[i].role)
            wire_set(&m->children[i], fcntl(fd, F_DUPFD_CLOEXEC, 3), name);
}

/* Closes all whose names begin so. */
static void
wire_drop(struct child *c, const char *prefix)
{
    for (size_t i = 0; i < c->nwires;)
        if (strncmp(c->wires[i].name, prefix, strlen(prefix)) == 0) {
            close(c->wires[i].fd);
            c->wires[i] = c->wires[--c->nwires];
        } else {
            i++;
        }
}

static struct child *
child_of(struct master *m, enum role role)
{
    for (size_t i = 0; i < m->nchildren; i++)
        if (m->children[i].role == role)
            return &m->children[i];
    return NULL;
}

/* A directory of its owner that nobody else can write to; made when it is not there. An open
 * descriptor, or -1. */
static int
directory(const struct master *m, const struct plan_dir *d)
{
    struct stat st;
    bool made = mkdir(d->path, 0700) == 0;
    int fd = open(d->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 ||
        (made && (fchmod(fd, d->mode) < 0 || (m->privileged && fchown(fd, d->uid, d->gid) < 0))))
        log_error("%s: %s", d->path, strerror(errno));
    else if (fstat(fd, &st) < 0 || (m->privileged && st.st_uid != d->uid && st.st_uid != 0))
        log_error("%s: belongs to user %u, not to %u", d->path, st.st_uid, d->uid);
    else if (st.st_mode & (S_IWGRP | S_IWOTH))
        log_error("%s: others may write to it (mode %04o)", d->path, st.st_mode & 07777);
    else
        return fd;
    return -1;
}

int
wires_directories(struct master *m)
{
    for (size_t i = 0; i < m->plan.fixed.ndirs; i++) {
        const struct plan_dir *d = &m->plan.fixed.dirs[i];
        int fd = directory(m, d);
        if (fd < 0)
            return -1;
        wire_lend(m, d->roles, fd, d->name);
        close(fd);
    }
    return 0;
}

/* A socket in the run directory; owner NULL: ours. */
static int
path_for(struct master *m, struct child *service, const struct child *owner, const char *file,
         int type, mode_t mode, const char *name)
{
    char full[160];
    struct err e = {0};
    int fd = sockets_unix(m->plan.fixed.run_dir, file, type, mode, &e);
    snprintf(full, sizeof full, "%s/%s", m->plan.fixed.run_dir, file);
    if (fd < 0 || (m->privileged && owner && chown(full, owner->uid, owner->gid) < 0)) {
        log_error("%s: %s", full, fd < 0 ? e.text : strerror(errno));
        return -1;
    }
    wire_set(service, fd, name);
    return 0;
}

/* The path of a service for clients that master did not start: only that client's user may connect.
 */
static int
path_of(struct master *m, struct child *service, enum role client, const char *more)
{
    char file[64], name[64];
    snprintf(file, sizeof file, "%s.%s%s", role_name(service->role), role_name(client), more);
    snprintf(name, sizeof name, "path.%s%s", role_name(client), more);
    return path_for(m, service, child_of(m, client), file, SOCK_SEQPACKET, 0600, name);
}

/* One socket pair; both ends stay open here, so that it outlives both programs. */
void
wires_door(struct master *m, struct door *d)
{
    int pair[2];
    char name[32];
    loop_del(&m->loop, &d->end);
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        log_fatal("no new door: %s", strerror(errno));
    snprintf(name, sizeof name, "to.%s%s", role_name(d->service->role), d->more);
    wire_set(d->client, pair[0], name);
    snprintf(name, sizeof name, "from.%s%s", role_name(d->client->role), d->more);
    wire_set(d->service, pair[1], name);
    d->end = (struct loop_io){.fd = pair[1], .ready = m->on_door_shut, .arg = d};
    if (loop_add(&m->loop, &d->end, EPOLLRDHUP) < 0)
        log_fatal("cannot watch a door: %s", strerror(errno));
}

/* All doors and paths from one program to another, when there are any. */
static int
add_doors(struct master *m, struct child *client, struct child *service)
{
    const char *more;
    for (size_t i = 0; (more = sockets_door(client->role, service->role, i)); i++) {
        struct door *d = &m->doors[m->ndoors++];
        *d = (struct door){.client = client, .service = service, .more = more};
        wires_door(m, d);
        if (m->ndoors > DOORS_MAX - SOCKETS_FRONTS || path_of(m, service, client->role, more) < 0)
            return -1;
    }
    return 0;
}

int
wires_doors(struct master *m)
{
    struct child *submitd = child_of(m, R_SUBMITD);
    for (size_t i = 0; i < m->nchildren; i++) {
        struct child *service = &m->children[i];
        for (size_t k = 0; k < m->nchildren; k++)
            if (add_doors(m, &m->children[k], service) < 0)
                return -1;
        if (sockets_linked(R_CTL, service->role) && path_of(m, service, R_CTL, "") < 0)
            return -1;
    }
    /* Where sendmail(1) comes in; anybody may connect, and the kernel says who it is. */
    return submitd ? path_for(m, submitd, NULL, "submit", SOCK_STREAM, 0666, "submit") : 0;
}

/* The socket for this listen line: the one we have had, or a new one. */
static int
socket_for(struct master *m, const struct plan_listen *l)
{
    struct err e = {0};
    for (size_t i = 0; i < m->nsockets; i++)
        if (memcmp(&m->plan.listen[i], l, sizeof *l) == 0)
            return fcntl(m->sockets[i], F_DUPFD_CLOEXEC, 3);
    struct conf_listen want = {str_z(l->host), (uint16_t)l->port, l->tls != 0};
    int fd = sockets_tcp(&want, &e);
    if (fd < 0)
        log_error("%s", e.text);
    return fd;
}

int
wires_sockets(struct master *m, const struct plan *plan)
{
    int fresh[PLAN_LISTEN];
    size_t n = 0;
    for (; n < plan->nlisten; n++) {
        fresh[n] = socket_for(m, &plan->listen[n]);
        if (fresh[n] < 0) {
            while (n-- > 0)
                close(fresh[n]);
            return -1;
        }
    }
    for (size_t i = 0; i < m->nsockets; i++)
        close(m->sockets[i]);
    memcpy(m->sockets, fresh, sizeof fresh);
    m->nsockets = n;
    for (size_t i = 0; i < m->nchildren; i++)
        wire_drop(&m->children[i], "listen.");
    for (size_t i = 0; i < n; i++) {
        const struct plan_listen *l = &plan->listen[i];
        char name[32];
        /* Names of wires are unique, services may have several sockets: a number tells them apart.
         */
        snprintf(name, sizeof name, "listen.%s.%zu",
                 sockets_service_name((enum role)l->role, l->tls), i);
        wire_lend(m, l->role, m->sockets[i], name);
    }
    return 0;
}

void
wires_known(struct master *m, int write_fd, int read_fd)
{
    wire_lend(m, R_AUTHD, write_fd, "map.known");
    wire_lend(m, R_SMTPD | R_SUBMITD | R_LOCAL, read_fd, "map.known");
    close(write_fd);
    close(read_fd);
}

/* Open a file for them; a missing one is a warning, and an empty file takes its place. */
static int
file_for(struct master *m, unsigned roles, const char *path, const char *name)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        log_warn("%s: %s", path, strerror(errno));
        fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    }
    wire_lend(m, roles, fd, name);
    return fd;
}

void
wires_files(struct master *m)
{
    char name[32];
    struct child *keyd = child_of(m, R_KEYD);
    wire_lend(m, R_ANY, m->config_fd, "config");
    if (m->aliases_fd)
        close(m->aliases_fd);
    m->aliases_fd = file_for(m, R_LOCAL | R_AUTHD, m->plan.aliases, "dir.aliases");
    if (keyd)
        wire_drop(keyd, "dir.");
    for (size_t k = 0; keyd && k < m->plan.nkeys; k++) {
        snprintf(name, sizeof name, "dir.chain%zu", k);
        close(file_for(m, R_KEYD, m->plan.keys[k].chain, name));
        snprintf(name, sizeof name, "dir.key%zu", k);
        close(file_for(m, R_KEYD, m->plan.keys[k].key, name));
    }
}

/* Descriptors 0 to last lead nowhere. */
int
wires_nothing(int last)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; null >= 0 && fd <= last; fd++)
        dup2(null, fd);
    return close(null);
}

/* Everybody's descriptor 2 becomes the log; 0 and 1 lead nowhere. */
int
wires_log(struct master *m)
{
    const char *log = m->plan.log;
    if (strcmp(log, "stderr") == 0)
        return wires_nothing(1);
    int fd = strcmp(log, "syslog") == 0
                 ? log_syslog_socket()
                 : open(log, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0640);
    if (fd < 0 || dup2(fd, 2) < 0 || wires_nothing(1) < 0) {
        log_error("log %s: %s", log, strerror(errno));
        return -1;
    }
    close(fd);
    log_open(2, "master");
    return 0;
}
