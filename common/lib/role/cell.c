#include "lib/role/cell.h"
#include "lib/guard/guard.h"
#include "lib/ipc/channel.h"
#include "lib/log/log.h"
#include <fcntl.h>
#include <unistd.h>

enum { CLIENT_MS = 60000 };

int
cell_enter(const char *program, const char *account)
{
    log_open(2, program);
    int root_fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root_fd < 0)
        log_fatal("cannot open the Maildir of %s", log_str(str_z(account)));
    const struct guard_dir dir = {.dirfd = root_fd, .write = true};
    guard_enter(&(struct guard){
        .role = R_CELL, .root_fd = -1, .keep_root_dir = true, .dirs = &dir, .ndirs = 1});
    return root_fd;
}

int
cell_await_client(const char *name, const char *account, enum role front, struct msg *m,
                  struct cell_client *client_r)
{
    struct err e = {0};
    msg_begin(m, M_CELL_READY);
    msg_put_u32(m, (uint32_t)getpid());
    if (msg_send(CELL_CHANNEL, m) < 0 ||
        chan_recv(CELL_CHANNEL, m, front, R_CELL, CLIENT_MS, &e) != 1) {
        log_error("%s(%s): no client: %s", name, log_str(str_z(account)), e.text);
        return 75; /* EX_TEMPFAIL */
    }
    client_r->user = msg_get_str(m);
    client_r->remote = msg_get_str(m);
    client_r->tls = msg_get_bool(m);
    client_r->tag = msg_get_str(m);
    client_r->unread = msg_get_str(m);
    client_r->message_size_max = msg_get_u64(m);
    client_r->fd = msg_take_fd(m, 0);
    if (m->type != M_CELL_CLIENT || !msg_end(m) || client_r->fd < 0) {
        log_error("%s(%s): a malformed client message", name, log_str(str_z(account)));
        return 76; /* EX_PROTOCOL */
    }
    close(CELL_CHANNEL);
    return 0;
}
