/*
 * pop3d-cell: the POP3 session of one account, under the account's own user ID.
 *
 * The launcher starts it with the account's Maildir as working (and where it may, root) directory,
 * its channel as descriptor 3, the account's name for the log, and its quota. One client comes
 * through the channel.
 */
#include "lib/log/log.h"
#include "lib/mailbox/quota.h"
#include "lib/role/cell.h"
#include "pop3d/cell/pcell.h"

/* Dovecot's line, for the parsers that know it. */
static void
log_end(const struct pcell *pc, struct str user)
{
    uint64_t size = 0;
    for (size_t i = 0; i < pc->n; i++)
        size += pc->sizes[i];
    log_info("pop3(%s): Disconnected: %s top=%u/%llu, retr=%u/%llu, del=%u/%zu, size=%llu",
             log_str(user), pc->ended ? pc->ended : "Connection closed", pc->did.top,
             (unsigned long long)pc->did.top_bytes, pc->did.retr,
             (unsigned long long)pc->did.retr_bytes, pc->did.dele, pc->n, (unsigned long long)size);
}

int
main(int argc, char **argv)
{
    static struct pcell pc;
    struct msg m = {0};
    struct cell_client client;
    const char *account = argc > 1 ? argv[1] : "";
    int root_fd = cell_enter("pop3d", account);
    quota_configure(root_fd, str_z(argc > 2 ? argv[2] : ""));
    int status = cell_await_client("pop3", account, R_POP3D, &m, &client);
    if (status)
        return status;
    pcell_run(&pc, client.fd, root_fd, client.unread);
    log_end(&pc, client.user);
    pcell_free(&pc);
    msg_free(&m);
    return 0;
}
