/*
 * local-cell: delivers into one account's Maildir, as that account's user, locked to that
 * directory.
 *
 * Started by the launcher with the Maildir as root and working directory, its channel (to a process
 * of local) as descriptor 3, the account's name and quota as arguments. Parses nothing of a
 * message: it copies bytes.
 */
#include "lib/base/siphash.h"
#include "lib/ipc/channel.h"
#include "lib/log/log.h"
#include "lib/mailbox/mailbox.h"
#include "lib/mailbox/quota.h"
#include "lib/role/cell.h"
#include <stdio.h>

enum { IDLE_MS = 30000 };

static const struct sipkey name_key = {"bulkhead-deliver"};

/* The file's name: of queue ID and recipient, so that a second delivery finds it taken. The
 * recipient stands in head, in the Delivered-To line. */
static void
put_base(struct buf *out, struct str id, uint64_t arrived_us, struct str head)
{
    buf_addf(out, "%llu.Q%.*sR%016llx.bulkhead", (unsigned long long)(arrived_us / 1000000),
             STR_ARG(id), (unsigned long long)siphash(&name_key, head));
}

static int
deliver(int root, struct msg *m, struct buf *file, struct err *e)
{
    char room[160];
    struct buf base = buf_on(room, sizeof room, sizeof room - 1);
    struct mailbox_delivery d = {0};
    bool already;
    struct str id = msg_get_str(m);
    (void)msg_get_u32(m);
    uint64_t arrived_us = msg_get_u64(m);
    d.offset = msg_get_u64(m);
    d.size = msg_get_u64(m);
    d.again = msg_get_bool(m);
    d.head = msg_get_str(m);
    if (m->type != M_CELL_DELIVER || !msg_end(m))
        return err_set(e, ERR_PROTOCOL, "malformed request");
    put_base(&base, id, arrived_us, d.head);
    d.base = buf_str(&base);
    d.fd = m->fds[0];
    return mailbox_deliver(root, &d, file, &already, e);
}

static int
serve(int root, struct msg *m)
{
    struct err e = {0};
    struct buf file = buf_new(255);
    int ok = deliver(root, m, &file, &e);
    if (ok < 0 && e.class != ERR_PROTOCOL) {
        log_error("%s", e.text);
        ok = chan_fail(CELL_CHANNEL, &e);
    } else if (ok == 0) {
        msg_begin(m, M_CELL_DELIVERED);
        msg_put_str(m, buf_str(&file));
        ok = msg_send(CELL_CHANNEL, m);
    }
    buf_free(&file);
    return ok;
}

int
main(int argc, char **argv)
{
    struct msg m = {0};
    struct err e;
    if (argc < 2)
        log_fatal("the launcher starts me");
    int root = cell_enter("local-cell", argv[1]);
    quota_configure(root, str_z(argc > 2 ? argv[2] : ""));
    while (chan_recv(CELL_CHANNEL, &m, R_LOCAL, R_CELL, IDLE_MS, &e) == 1)
        if (serve(root, &m) < 0)
            break;
    msg_free(&m);
    return 0;
}
