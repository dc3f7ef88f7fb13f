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
#include <errno.h>

enum { IDLE_MS = 30000, BATCH_MAX = 8 };

static const struct sipkey name_key = {"bulkhead-deliver"};

/* The file's name: of queue ID and recipient, so that a second delivery finds it taken. The
 * recipient stands in head, in the Delivered-To line. */
static void
put_base(struct buf *out, struct str id, uint64_t arrived_us, struct str head)
{
    buf_addf(out, "%llu.Q%.*sR%016llx.bulkhead", (unsigned long long)(arrived_us / 1000000),
             STR_ARG(id), (unsigned long long)siphash(&name_key, head));
}

/* What became of one message. */
struct done {
    bool failed;
    struct err e;
    struct mailbox_put put;
};

static int
put(struct mailbox_inbox *in, struct msg *m, struct done *done)
{
    char room[160];
    struct buf base = buf_on(room, sizeof room, sizeof room - 1);
    struct mailbox_delivery d = {0};
    struct str id = msg_get_str(m);
    (void)msg_get_u32(m);
    uint64_t arrived_us = msg_get_u64(m);
    d.offset = msg_get_u64(m);
    d.size = msg_get_u64(m);
    d.check = msg_get_u64(m);
    d.again = msg_get_bool(m);
    d.head = msg_get_str(m);
    if (m->type != M_CELL_DELIVER || !msg_end(m))
        return -1;
    put_base(&base, id, arrived_us, d.head);
    d.base = buf_str(&base);
    d.fd = m->fds[0];
    done->failed = mailbox_put(in, &d, &done->put, &done->e) < 0;
    return 0;
}

/* Their names are durable from here on; or they have all failed. */
static void
settle(struct mailbox_inbox *in, struct done *all, size_t n)
{
    struct err e;
    for (size_t i = 0; i < n; i++)
        if (!all[i].failed)
            all[i].failed = mailbox_place(in, &all[i].put, &all[i].e) < 0;
    if (mailbox_settle_inbox(in, &e) == 0)
        return;
    for (size_t i = 0; i < n; i++) {
        if (all[i].failed)
            continue;
        mailbox_take_back(in, &all[i].put);
        all[i].failed = true;
        all[i].e = e;
    }
}

static int
answer(struct done *done, struct msg *m)
{
    if (done->failed) {
        log_error("%s", done->e.text);
        return chan_fail(CELL_CHANNEL, &done->e);
    }
    msg_begin(m, M_CELL_DELIVERED);
    msg_put_str(m, buf_str(&done->put.file));
    return msg_send(CELL_CHANNEL, m);
}

/* A message, and those that have come behind it: with one sync of the directory. */
static int
serve(int root, struct msg *m)
{
    struct mailbox_inbox in = mailbox_inbox(root);
    static struct done all[BATCH_MAX];
    size_t n = 0;
    int ok = 0, more = 1;
    while (ok == 0 && more == 1) {
        ok = put(&in, m, &all[n]);
        if (ok == 0 && ++n < BATCH_MAX)
            more = msg_recv(CELL_CHANNEL, m, R_LOCAL, R_CELL);
        else
            more = 0;
    }
    if (more < 0 && errno == EPROTO)
        ok = -1;
    settle(&in, all, n);
    mailbox_inbox_close(&in);
    for (size_t i = 0; i < n; i++)
        if (answer(&all[i], m) < 0)
            ok = -1;
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
