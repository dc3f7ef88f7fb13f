/* STATUS (RFC 3501 6.3.10). */
#include "imapd/cell/args.h"
#include "imapd/cell/commands.h"
#include "imapd/cell/status.h"

enum item {
    MESSAGES,
    RECENT,
    UIDNEXT,
    UIDVALIDITY,
    UNSEEN,
    HIGHESTMODSEQ,
    SIZE,
    DELETED,
    APPENDLIMIT,
    MAILBOXID,
    DELETED_STORAGE, /* RFC 9208 4.1.4 */
    ITEMS
};
static const char *const names[ITEMS] = {
    "MESSAGES", "RECENT",  "UIDNEXT",     "UIDVALIDITY", "UNSEEN",         "HIGHESTMODSEQ",
    "SIZE",     "DELETED", "APPENDLIMIT", "MAILBOXID",   "DELETED-STORAGE"};

int
icell_status_parse(struct cursor *c, struct icell_status_items *items_r)
{
    items_r->n = 0;
    if (!cur_take(c, '('))
        return -1;
    do {
        struct str name;
        int found = -1;
        if (icell_arg_atom(c, &name) < 0 || items_r->n == ICELL_STATUS_MAX)
            return -1;
        for (int i = 0; i < ITEMS; i++)
            if (str_caseeq(name, str_z(names[i])))
                found = i;
        if (found < 0)
            return -1;
        items_r->wanted[items_r->n++] = found;
    } while (icell_arg_space(c));
    return cur_take(c, ')') ? 0 : -1;
}

static bool
asks(const struct icell_status_items *items, int item)
{
    for (size_t i = 0; i < items->n; i++)
        if (items->wanted[i] == item)
            return true;
    return false;
}

bool
icell_status_condstore(const struct icell_status_items *items)
{
    return asks(items, HIGHESTMODSEQ);
}

int
icell_put_status(struct icell *ic, struct str name, const struct icell_status_items *items,
                 struct err *e)
{
    struct mailbox mb;
    uint64_t values[ITEMS] = {0};
    if (mailbox_peek(&mb, ic->root_fd, name, true, e) < 0)
        return -1;
    struct mailbox_counts counts = mailbox_count(&mb);
    values[MESSAGES] = counts.messages;
    values[RECENT] = counts.recent;
    values[UNSEEN] = counts.unseen;
    values[UIDNEXT] = mailbox_uidnext(&mb);
    values[UIDVALIDITY] = values[MAILBOXID] = mb.validity;
    values[HIGHESTMODSEQ] = mb.ix.state.modseq;
    values[APPENDLIMIT] = ic->message_size_max;
    values[DELETED] = counts.deleted;
    bool sizes = asks(items, SIZE) || (counts.deleted && asks(items, DELETED_STORAGE));
    if (sizes && mailbox_load(&mb, e) < 0) {
        mailbox_close(&mb);
        return -1;
    }
    for (size_t i = 0; sizes && i < mb.n; i++) {
        uint64_t size = 0;
        bool deleted = mb.msgs[i].flags & MAILBOX_DELETED;
        if ((asks(items, SIZE) || (deleted && asks(items, DELETED_STORAGE))) &&
            mailbox_vsize(&mb, i, &size, NULL) == 0) {
            values[SIZE] += size;
            values[DELETED_STORAGE] += deleted ? size : 0;
        }
    }
    mailbox_settle(&mb);
    mailbox_close(&mb);
    struct buf line = buf_new(4096);
    buf_addz(&line, "* STATUS ");
    icell_put_mailbox(ic, &line, name);
    for (size_t i = 0; i < items->n; i++) {
        int item = items->wanted[i];
        buf_addf(&line, item == MAILBOXID ? "%s%s (F%llu)" : "%s%s %llu", i ? " " : " (",
                 names[item], (unsigned long long)values[item]);
    }
    buf_addz(&line, ")\r\n");
    stream_put(&ic->s, buf_str(&line));
    buf_free(&line);
    return 0;
}

void
icell_cmd_status(struct icell *ic)
{
    struct str name;
    struct icell_status_items items;
    struct err e = {0};
    if (icell_arg_mailbox(ic, &ic->cmd.args, &name) < 0 || !icell_arg_space(&ic->cmd.args) ||
        icell_status_parse(&ic->cmd.args, &items) < 0 || !icell_arg_end(&ic->cmd.args)) {
        icell_end_syntax(ic);
        return;
    }
    if (icell_status_condstore(&items))
        icell_enable_condstore(ic);
    if (icell_put_status(ic, name, &items, &e) == 0)
        icell_end(ic, ICELL_OK, "Status completed.");
    else if (e.class == ERR_PERMANENT)
        icell_end(ic, ICELL_NO, "[NONEXISTENT] No such mailbox.");
    else
        icell_end_err(ic, &e);
}
