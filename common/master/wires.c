#include "common/master/master.h"
#include "lib/ipc/known.h"
#include "lib/log/log.h"
#include "lib/role/sockets.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

void
wire_set(struct child *c, int fd, const char *name)
{
    struct wire *w = c->wires;
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

void
wire_drop(struct child *c, const char *prefix)
{
    for (size_t i = 0; i < c->nwires;) {
        if (strncmp(c->wires[i].name, prefix, strlen(prefix)) != 0) {
            i++;
            continue;
        }
        close(c->wires[i].fd);
        c->wires[i] = c->wires[--c->nwires];
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

/* Who can write to a directory above can put another in its place (catalogue E5). */
static int
parents_safe(const char *path)
{
    char above[PLAN_PATH * 2];
    struct stat st;
    snprintf(above, sizeof above, "%s", path);
    for (char *slash; (slash = strrchr(above, '/'));) {
        slash[slash == above] = '\0';
        if (stat(above, &st) == 0 && (st.st_mode & S_IWOTH) && !(st.st_mode & S_ISVTX)) {
            log_error("%s: everybody may write to it, and %s lies below it (mode %04o)", above,
                      path, st.st_mode & 07777);
            return -1;
        }
        if (slash == above)
            break;
    }
    return 0;
}

/* A directory of this owner that nobody else can write to; made when it is not there. An open
 * descriptor, or -1. */
static int
directory(const struct master *m, const char *path, mode_t mode, uid_t uid, gid_t gid)
{
    struct stat st;
    if (parents_safe(path) < 0)
        return -1;
    if (mkdir(path, mode) == 0) {
        if (chmod(path, mode) < 0 || (m->privileged && chown(path, uid, gid) < 0)) {
            log_error("%s: %s", path, strerror(errno));
            return -1;
        }
    } else if (errno != EEXIST) {
        log_error("%s: cannot make it: %s", path, strerror(errno));
        return -1;
    }
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0) {
        log_error("%s: %s", path, strerror(errno));
    } else if (m->privileged && st.st_uid != uid && st.st_uid != 0) {
        log_error("%s: belongs to user %u, not to %u", path, st.st_uid, uid);
    } else if (st.st_mode & (S_IWGRP | S_IWOTH)) {
        log_error("%s: others may write to it (mode %04o)", path, st.st_mode & 07777);
    } else {
        return fd;
    }
    if (fd >= 0)
        close(fd);
    return -1;
}

/* The role's own directory becomes its root; other roles have the empty one. */
static int
own_directory(struct master *m, enum role role, const char *path, const char *name)
{
    struct child *c = child_of(m, role);
    if (!c)
        return 0;
    int fd = directory(m, path, 0700, c->uid, c->gid);
    if (fd < 0)
        return -1;
    wire_set(c, fd, name);
    wire_set(c, fcntl(fd, F_DUPFD_CLOEXEC, 3), "root");
    return 0;
}

int
wires_directories(struct master *m)
{
    char empty[sizeof m->plan.run_dir + 8];
    int run = directory(m, m->plan.run_dir, 0755, 0, 0);
    if (run < 0)
        return -1;
    close(run);
    snprintf(empty, sizeof empty, "%s/empty", m->plan.run_dir);
    m->empty_fd = directory(m, empty, 0555, 0, 0);
    int mail = directory(m, m->plan.mail_dir, 0711, 0, 0);
    if (m->empty_fd < 0 || mail < 0)
        return -1;
    struct child *launcher = child_of(m, R_LAUNCHER);
    if (launcher)
        wire_set(launcher, mail, "dir.mail");
    else
        close(mail);
    for (size_t i = 0; i < m->nchildren; i++)
        if (m->children[i].role != R_LAUNCHER)
            wire_set(&m->children[i], fcntl(m->empty_fd, F_DUPFD_CLOEXEC, 3), "root");
    return own_directory(m, R_QMGR, m->plan.queue_dir, "dir.queue") < 0 ||
                   own_directory(m, R_AUTHD, m->plan.state_dir, "dir.state") < 0
               ? -1
               : 0;
}

/* The path of a service for clients that master did not start: only that client's user may connect.
 */
static int
path_for(struct master *m, struct child *service, enum role client)
{
    char file[64], name[64], full[160];
    struct err e = {0};
    const struct child *c = child_of(m, client);
    snprintf(file, sizeof file, "%s.%s", role_name(service->role), role_name(client));
    snprintf(name, sizeof name, "path.%s", role_name(client));
    snprintf(full, sizeof full, "%s/%s", m->plan.run_dir, file);
    int fd = sockets_unix(m->plan.run_dir, file, SOCK_SEQPACKET, 0600, &e);
    if (fd < 0) {
        log_error("%s", e.text);
        return -1;
    }
    if (m->privileged && c && chown(full, c->uid, c->gid) < 0)
        log_warn("%s: %s", full, strerror(errno));
    wire_set(service, fd, name);
    return 0;
}

/* One socket pair; both ends stay open here, so that it outlives both programs. */
int
wires_door(struct door *d)
{
    int pair[2];
    char name[32];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return -1;
    snprintf(name, sizeof name, "to.%s", role_name(d->service->role));
    wire_set(d->client, pair[0], name);
    snprintf(name, sizeof name, "from.%s", role_name(d->client->role));
    wire_set(d->service, pair[1], name);
    d->end.fd = pair[1];
    return 0;
}

static int
add_door(struct master *m, struct child *client, struct child *service)
{
    struct door *d = &m->doors[m->ndoors];
    if (m->ndoors == DOORS_MAX)
        return -1;
    *d = (struct door){.client = client, .service = service, .end.arg = d};
    m->ndoors++;
    return wires_door(d);
}

int
wires_doors(struct master *m)
{
    for (size_t i = 0; i < m->nchildren; i++) {
        struct child *service = &m->children[i];
        for (size_t k = 0; k < m->nchildren; k++)
            if (sockets_linked(m->children[k].role, service->role) &&
                (add_door(m, &m->children[k], service) < 0 ||
                 path_for(m, service, m->children[k].role) < 0))
                return -1;
        if (sockets_linked(R_CTL, service->role) && path_for(m, service, R_CTL) < 0)
            return -1;
    }
    return 0;
}

/* The socket for this listen line: the one we have had, or a new one. */
static int
socket_for(struct master *m, const struct plan_listen *l)
{
    struct err e = {0};
    for (size_t i = 0; i < m->nsockets; i++)
        if (memcmp(&m->sockets[i].listen, l, sizeof *l) == 0)
            return fcntl(m->sockets[i].fd, F_DUPFD_CLOEXEC, 3);
    struct conf_listen want = {str_z(l->host), (uint16_t)l->port, l->tls != 0};
    int fd = sockets_tcp(&want, &e);
    if (fd < 0)
        log_error("%s", e.text);
    return fd;
}

int
wires_sockets(struct master *m)
{
    struct kept fresh[PLAN_LISTEN];
    size_t n = 0;
    for (; n < m->plan.nlisten; n++) {
        fresh[n] = (struct kept){m->plan.listen[n], socket_for(m, &m->plan.listen[n])};
        if (fresh[n].fd < 0) {
            while (n-- > 0)
                close(fresh[n].fd);
            return -1;
        }
    }
    for (size_t i = 0; i < m->nsockets; i++)
        close(m->sockets[i].fd);
    memcpy(m->sockets, fresh, sizeof fresh);
    m->nsockets = n;
    for (size_t i = 0; i < m->nchildren; i++)
        wire_drop(&m->children[i], "listen.");
    for (size_t i = 0; i < n; i++) {
        const struct plan_listen *l = &m->sockets[i].listen;
        struct child *c = child_of(m, (enum role)l->role);
        char name[32];
        /* Names of wires are unique, services may have several sockets: a number tells them apart.
         */
        snprintf(name, sizeof name, "listen.%s.%zu",
                 sockets_service_name((enum role)l->role, l->tls), i);
        if (c)
            wire_set(c, fcntl(m->sockets[i].fd, F_DUPFD_CLOEXEC, 3), name);
    }
    return 0;
}

/* The page of known recipients (lib/ipc/known.h): authd writes, smtpd and submitd read. It stays
 * for good, so that a new authd clears what the old one wrote. Without it they ask for each. */
void
wires_known(struct master *m)
{
    static const enum role readers[] = {R_SMTPD, R_SUBMITD};
    char path[40];
    int fd = memfd_create("known", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int seals = F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL;
    int reading = -1;
    if (fd >= 0 && ftruncate(fd, sizeof(struct known_page)) == 0 &&
        fcntl(fd, F_ADD_SEALS, seals) == 0)
        reading = open(path, O_RDONLY | O_CLOEXEC);
    struct child *authd = reading < 0 ? NULL : child_of(m, R_AUTHD);
    if (authd)
        wire_set(authd, fcntl(fd, F_DUPFD_CLOEXEC, 3), "map.known");
    for (size_t i = 0; authd && i < sizeof readers / sizeof readers[0]; i++)
        if (child_of(m, readers[i]))
            wire_set(child_of(m, readers[i]), fcntl(reading, F_DUPFD_CLOEXEC, 3), "map.known");
    close(fd);
    close(reading);
}

/* Where sendmail(1) comes in; anybody may connect, and the kernel says who it is. */
int
wires_submit(struct master *m)
{
    struct err e = {0};
    struct child *submitd = child_of(m, R_SUBMITD);
    if (!submitd)
        return 0;
    int fd = sockets_unix(m->plan.run_dir, "submit", SOCK_STREAM, 0666, &e);
    if (fd < 0) {
        log_error("%s", e.text);
        return -1;
    }
    wire_set(submitd, fd, "submit");
    return 0;
}

/* Open a file for one child; a missing one is a warning, and an empty file takes its place. */
static void
file_for(struct child *c, const char *path, const char *name)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        log_warn("%s: %s", path, strerror(errno));
        fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    }
    if (fd >= 0)
        wire_set(c, fd, name);
}

int
wires_files(struct master *m)
{
    char name[32];
    for (size_t i = 0; i < m->nchildren; i++) {
        struct child *c = &m->children[i];
        int fd = fcntl(m->config_fd, F_DUPFD_CLOEXEC, 3);
        if (fd < 0)
            return -1;
        wire_set(c, fd, "config");
        if (c->role == R_LOCAL || c->role == R_AUTHD)
            file_for(c, m->plan.aliases, "dir.aliases");
        if (c->role != R_KEYD)
            continue;
        wire_drop(c, "dir.");
        for (size_t k = 0; k < m->plan.nkeys; k++) {
            snprintf(name, sizeof name, "dir.chain%zu", k);
            file_for(c, m->plan.keys[k].chain, name);
            snprintf(name, sizeof name, "dir.key%zu", k);
            file_for(c, m->plan.keys[k].key, name);
        }
    }
    return 0;
}

/* Everybody's descriptor 2 becomes the log; 0 and 1 lead nowhere. */
int
wires_log(struct master *m)
{
    const char *log = m->plan.log;
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (fd < 0 || dup2(fd, 0) < 0 || dup2(fd, 1) < 0)
        return -1;
    close(fd);
    if (strcmp(log, "stderr") == 0)
        return 0;
    if (strcmp(log, "syslog") == 0)
        fd = log_syslog_socket();
    else
        fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0640);
    if (fd < 0) {
        log_error("log %s: %s", log, strerror(errno));
        return -1;
    }
    if (dup2(fd, 2) < 0)
        return -1;
    close(fd);
    log_open(2, "master");
    return 0;
}
