/*
 * imapd-cell: the IMAP session of one account, under the account's own user ID.
 *
 * The launcher starts it with the account's Maildir as working (and where it may, root) directory,
 * its channel as descriptor 3, and the account's name for the log. One client comes through the
 * channel.
 */
#include "imapd/cell/icell.h"
#include "lib/guard/guard.h"
#include "lib/ipc/channel.h"
#include "lib/log/log.h"
#include <fcntl.h>
#include <unistd.h>

enum { CHANNEL_FD = 3, CLIENT_MS = 60000 };

int
main(int argc, char **argv)
{
    static struct icell ic;
    struct msg m = {0};
    struct err e = {0};
    const char *account = argc > 1 ? argv[1] : "";
    log_open(2, "imapd");
    int root_fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root_fd < 0)
        log_fatal("cannot open the Maildir of %s", log_str(str_z(account)));
    const struct guard_dir dir = {.dirfd = root_fd, .write = true};
    guard_enter(&(struct guard){
        .role = R_CELL, .root_fd = -1, .keep_root_dir = true, .dirs = &dir, .ndirs = 1});

    msg_begin(&m, M_CELL_READY);
    msg_put_u32(&m, (uint32_t)getpid());
    if (msg_send(CHANNEL_FD, &m) < 0 ||
        chan_recv(CHANNEL_FD, &m, R_IMAPD, R_CELL, CLIENT_MS, &e) != 1) {
        log_error("imap(%s): no client: %s", log_str(str_z(account)), e.text);
        return 75; /* EX_TEMPFAIL */
    }
    struct str user = msg_get_str(&m), remote = msg_get_str(&m);
    bool tls = msg_get_bool(&m);
    struct str tag = msg_get_str(&m), unread = msg_get_str(&m);
    uint64_t message_size_max = msg_get_u64(&m);
    (void)remote;
    (void)tls;
    int client_fd = msg_take_fd(&m, 0);
    if (m.type != M_CELL_CLIENT || !msg_end(&m) || client_fd < 0) {
        log_error("imap(%s): a malformed client message", log_str(str_z(account)));
        return 76; /* EX_PROTOCOL */
    }
    close(CHANNEL_FD);
    ic.message_size_max = message_size_max;
    icell_run(&ic, client_fd, root_fd, tag, unread);
    log_info("imap(%s): Disconnected: %s in=%llu out=%llu", log_str(user),
             ic.bye ? ic.bye : "Connection closed", (unsigned long long)ic.s.bytes_in,
             (unsigned long long)ic.s.bytes_out);
    icell_free(&ic);
    msg_free(&m);
    return 0;
}
