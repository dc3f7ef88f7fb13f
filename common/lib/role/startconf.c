/* start_config() and start_sockets(): apart, so that what runs as root has no parser linked in. */
#include "lib/ipc/channel.h"
#include "lib/log/log.h"
#include "lib/role/sockets.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

void
start_config(const struct start *st, struct conf *conf)
{
    static struct conf_errors errors;
    const char *path = st->config_path ? st->config_path : BH_SYSCONFDIR "/bulkhead/bulkhead.conf";
    int given = start_fd(st, "config");
    int fd = given >= 0 ? given : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        log_fatal("%s: %s", path, strerror(errno));
    int ok = conf_read(conf, str_z(path), fd, &errors);
    if (fd != given)
        close(fd);
    if (ok == 0) {
        log_debug_set(conf->log_debug);
        return;
    }
    for (size_t i = 0; i < errors.n; i++)
        log_error("%s:%u:%u: %s", path, errors.at[i].line, errors.at[i].column, errors.at[i].text);
    exit(78); /* EX_CONFIG */
}

static void
add_or_die(struct start *st, int fd, const char *name, const struct err *e)
{
    if (fd < 0)
        log_fatal("%s", e->text);
    start_add_fd(st, fd, name);
}

/* Whether a supervisor passed a socket that clients come in by. */
static bool
has_listener(const struct start *st)
{
    for (size_t i = 0; i < st->nfds; i++) {
        const char *name = st->fds[i].name;
        if (strcmp(name, sockets_service_name(st->role, false)) == 0 ||
            strcmp(name, sockets_service_name(st->role, true)) == 0 ||
            str_starts(str_z(name), STR("listen.")))
            return true;
    }
    return false;
}

/* Where that program's doors to us begin. */
static void
path_of(struct start *st, const char *dir, enum role client)
{
    const char *more;
    struct err e = {0};
    for (size_t i = 0; (more = sockets_door(client, st->role, i)); i++) {
        char name[64], file[96];
        snprintf(name, sizeof name, "path.%s%s", role_name(client), more);
        snprintf(file, sizeof file, "%s.%s%s", role_name(st->role), role_name(client), more);
        if (start_fd(st, name) < 0)
            add_or_die(st, sockets_unix(dir, file, SOCK_SEQPACKET, 0600, &e), name, &e);
    }
}

/* Our doors to it, by its paths. */
static void
door_to(struct start *st, const char *dir, enum role service)
{
    const char *more;
    struct err e = {0};
    for (size_t i = 0; (more = sockets_door(st->role, service, i)); i++) {
        char name[64], path[256];
        snprintf(name, sizeof name, "to.%s%s", role_name(service), more);
        if (start_fd(st, name) >= 0)
            continue;
        snprintf(path, sizeof path, "%s/%s.%s%s", dir, role_name(service), role_name(st->role),
                 more);
        int fd = chan_connect(path, &e);
        if (fd >= 0)
            start_add_fd(st, fd, name);
        else
            log_warn("%s", e.text);
    }
}

/* Our side of everything the table links us with, but for what was given. */
void
start_sockets(struct start *st, const struct conf *conf)
{
    const struct conf_service *block = sockets_block(conf, st->role);
    const char *dir = conf->run_dir.p;
    struct err e = {0};
    if (st->given)
        return;
    mkdir(dir, 0755);
    for (size_t i = 0; block && !st->inetd && !has_listener(st) && i < block->nlisten; i++)
        add_or_die(st, sockets_tcp(&block->listen[i], &e),
                   sockets_service_name(st->role, block->listen[i].tls), &e);
    if (st->role == R_SUBMITD && !st->inetd && start_fd(st, "submit") < 0)
        add_or_die(st, sockets_unix(dir, "submit", SOCK_STREAM, 0666, &e), "submit", &e);
    for (unsigned bit = 1; bit < R_ANY; bit <<= 1) {
        path_of(st, dir, (enum role)bit);
        door_to(st, dir, (enum role)bit);
    }
}
