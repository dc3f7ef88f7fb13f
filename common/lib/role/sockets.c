#include "lib/role/sockets.h"
#include "lib/base/format.h"
#include <arpa/inet.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 1024 };

const enum role sockets_fronts[SOCKETS_FRONTS] = {R_SMTPD, R_SUBMITD, R_POP3D, R_IMAPD};

void
umask_for_role(void)
{
    umask(077);
}

bool
sockets_linked(enum role client, enum role service)
{
    static const unsigned served =
        R_AUTHD | R_KEYD | R_TLSD | R_DNSD | R_QMGR | R_RELAY | R_LOCAL | R_LAUNCHER | R_IDLED;
    size_t n;
    const struct msg_row *rows = msg_rows(&n);
    if (!((unsigned)service & served) || client == service || client == R_MASTER)
        return false;
    /* Who only answers opens no way, although its answers go to services. */
    if ((service == R_QMGR && client == R_RELAY) || client == R_KEYD || client == R_DNSD ||
        (service == R_IDLED && client != R_IMAPD))
        return false;
    for (size_t i = 0; i < n; i++)
        if (rows[i].from != R_ANY && (rows[i].from & (unsigned)client) &&
            (rows[i].to & (unsigned)service) && rows[i].type != M_EXPAND &&
            rows[i].type != M_OUTCOME)
            return !((service == R_RELAY || service == R_LOCAL) && client != R_QMGR) &&
                   client != R_CELL;
    return false;
}

const char *
sockets_door(enum role client, enum role service, size_t i)
{
    static const char *const of_fronts[SOCKETS_FRONTS] = {".smtpd", ".submitd", ".pop3d", ".imapd"};
    if (!sockets_linked(client, service))
        return NULL;
    if (client == R_TLSD && service == R_KEYD)
        return i < SOCKETS_FRONTS ? of_fronts[i] : NULL;
    return i == 0 ? "" : NULL;
}

const char *
sockets_service_name(enum role role, bool tls)
{
    switch (role) {
    case R_SMTPD:
        return tls ? "smtps" : "smtp";
    case R_SUBMITD:
        return tls ? "submissions" : "submission";
    case R_POP3D:
        return tls ? "pop3s" : "pop3";
    default:
        return tls ? "imaps" : "imap";
    }
}

const struct conf_service *
sockets_block(const struct conf *conf, enum role role)
{
    return role == R_SMTPD     ? &conf->smtpd
           : role == R_SUBMITD ? &conf->submitd
           : role == R_POP3D   ? &conf->pop3d
           : role == R_IMAPD   ? &conf->imapd
                               : NULL;
}

/* inet_ntop() goes through stdio for it. */
static void
put_ipv4(const uint8_t *raw, char *ip, size_t size)
{
    format(ip, size, "%u.%u.%u.%u", raw[0], raw[1], raw[2], raw[3]);
}

void
sockets_describe(const struct sockaddr_storage *ss, char *ip, size_t size, uint16_t *port)
{
    const struct sockaddr_in *in = (const void *)ss;
    const struct sockaddr_in6 *in6 = (const void *)ss;
    if (ss->ss_family == AF_INET) {
        put_ipv4((const uint8_t *)&in->sin_addr, ip, size);
        *port = ntohs(in->sin_port);
    } else if (ss->ss_family == AF_INET6) {
        if (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr))
            put_ipv4(&in6->sin6_addr.s6_addr[12], ip, size);
        else
            inet_ntop(AF_INET6, &in6->sin6_addr, ip, (socklen_t)size);
        *port = ntohs(in6->sin6_port);
    }
}

static socklen_t
address_of(const struct conf_listen *l, struct sockaddr_storage *ss)
{
    struct sockaddr_in *in = (void *)ss;
    struct sockaddr_in6 *in6 = (void *)ss;
    memset(ss, 0, sizeof *ss);
    if (inet_pton(AF_INET, l->host.p, &in->sin_addr) == 1) {
        in->sin_family = AF_INET;
        in->sin_port = htons(l->port);
        return sizeof *in;
    }
    if (str_eq(l->host, STR("*")))
        in6->sin6_addr = in6addr_any;
    else if (inet_pton(AF_INET6, l->host.p, &in6->sin6_addr) != 1)
        return 0;
    in6->sin6_family = AF_INET6;
    in6->sin6_port = htons(l->port);
    return sizeof *in6;
}

int
sockets_tcp(const struct conf_listen *l, struct err *e)
{
    struct sockaddr_storage ss;
    socklen_t n = address_of(l, &ss);
    const int on = 1, off = 0;
    int fd = socket(n ? ss.ss_family : AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 && str_eq(l->host, STR("*"))) {
        /* A kernel without IPv6: all addresses are those of IPv4. */
        struct conf_listen any = {STR("0.0.0.0"), l->port, l->tls};
        return sockets_tcp(&any, e);
    }
    if (fd < 0 || n == 0)
        return err_errno(e, "socket for %.*s", STR_ARG(l->host));
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (ss.ss_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, str_eq(l->host, STR("*")) ? &off : &on,
                   sizeof on);
    if (bind(fd, (struct sockaddr *)&ss, n) == 0 && listen(fd, BACKLOG) == 0)
        return fd;
    err_errno(e, "listen on %.*s port %u", STR_ARG(l->host), l->port);
    close(fd);
    return -1;
}

int
sockets_unix(const char *dir, const char *name, int type, mode_t mode, struct err *e)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    int n = snprintf(sun.sun_path, sizeof sun.sun_path, "%s/%s", dir, name);
    if (n < 0 || (size_t)n >= sizeof sun.sun_path)
        return err_set(e, ERR_PERMANENT, "path too long for a socket: %s/%s", dir, name);
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_errno(e, "socket");
    unlink(sun.sun_path);
    if (bind(fd, (struct sockaddr *)&sun, sizeof sun) == 0 && chmod(sun.sun_path, mode) == 0 &&
        listen(fd, BACKLOG) == 0)
        return fd;
    err_errno(e, "listen at %s", sun.sun_path);
    close(fd);
    return -1;
}
