/*
 * imapd-cell: the IMAP session of one account, under the account's own user ID.
 *
 * The launcher starts it with the account's Maildir as working (and where it may, root) directory,
 * its channel as descriptor 3, the account's name for the log, and its quota. One client comes
 * through the channel.
 */
#include "imapd/cell/icell.h"
#include "lib/log/log.h"
#include "lib/mailbox/quota.h"
#include "lib/role/cell.h"

int
main(int argc, char **argv)
{
    static struct icell ic;
    struct msg m = {0};
    struct cell_client client;
    const char *account = argc > 1 ? argv[1] : "";
    int root_fd = cell_enter("imapd", account);
    quota_configure(root_fd, str_z(argc > 2 ? argv[2] : ""));
    int status = cell_await_client("imap", account, R_IMAPD | R_IDLED, &m, &client);
    if (status)
        return status;
    struct str user = client.resumed ? str_z(account) : client.user;
    ic.message_size_max = client.message_size_max;
    ic.park = (struct icell_park){.fd = client.park_fd,
                                  .after_ms = client.park_ms,
                                  .token = str_of(client.token, client.token_n),
                                  .user = user};
    if (!client.resumed) {
        icell_run(&ic, client.fd, root_fd, client.tag, client.unread);
    } else if (icell_resume(&ic, client.fd, root_fd, client.state) < 0) {
        log_warn("imap(%s): a parked session that is none of ours", log_str(user));
        return 77; /* EX_NOPERM */
    }
    if (!ic.park.done)
        log_info("imap(%s): Disconnected: %s in=%llu out=%llu", log_str(user),
                 ic.bye ? ic.bye : "Connection closed", (unsigned long long)ic.s.bytes_in,
                 (unsigned long long)ic.s.bytes_out);
    icell_free(&ic);
    msg_free(&m);
    return 0;
}
