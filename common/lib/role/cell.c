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

/* Copied: what comes next takes the message's place. */
static void
keep_token(struct cell_client *c, struct str token)
{
    c->token_n = token.n <= sizeof c->token ? token.n : 0;
    memcpy(c->token, token.p, c->token_n);
}

static bool
take_parking(struct cell_client *c, struct msg *m)
{
    keep_token(c, msg_get_str(m));
    c->park_ms = msg_get_u64(m);
    c->park_fd = msg_take_fd(m, 0);
    return msg_end(m);
}

static bool
take_resumed(struct cell_client *c, struct msg *m)
{
    c->resumed = true;
    c->state = msg_get_str(m);
    keep_token(c, msg_get_str(m));
    c->fd = msg_take_fd(m, 0);
    c->park_fd = msg_take_fd(m, 1);
    return msg_end(m) && c->fd >= 0;
}

static bool
take_client(struct cell_client *c, struct msg *m)
{
    c->user = msg_get_str(m);
    c->remote = msg_get_str(m);
    c->tls = msg_get_bool(m);
    c->tag = msg_get_str(m);
    c->unread = msg_get_str(m);
    c->message_size_max = msg_get_u64(m);
    c->fd = msg_take_fd(m, 0);
    return m->type == M_CELL_CLIENT && msg_end(m) && c->fd >= 0;
}

int
cell_await_client(const char *name, const char *account, unsigned front, struct msg *m,
                  struct cell_client *client_r)
{
    struct err e = {0};
    bool good = true, more;
    *client_r = (struct cell_client){.fd = -1, .park_fd = -1};
    msg_begin(m, M_CELL_READY);
    msg_put_u32(m, (uint32_t)getpid());
    int n = msg_send(CELL_CHANNEL, m) < 0 ? -1 : 1;
    do {
        if (n == 1)
            n = chan_recv(CELL_CHANNEL, m, (enum role)front, R_CELL, CLIENT_MS, &e);
        if (n != 1) {
            log_error("%s(%s): no client: %s", name, log_str(str_z(account)), e.text);
            return 75; /* EX_TEMPFAIL */
        }
        more = m->type == M_CELL_PARKING && client_r->park_fd < 0;
        good = more                       ? take_parking(client_r, m)
               : m->type == M_CELL_RESUME ? take_resumed(client_r, m)
                                          : take_client(client_r, m);
    } while (good && more);
    if (!good) {
        log_error("%s(%s): a malformed client message", name, log_str(str_z(account)));
        return 76; /* EX_PROTOCOL */
    }
    close(CELL_CHANNEL);
    return 0;
}
