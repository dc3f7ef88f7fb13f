/* STATUS (RFC 3501 6.3.10). */
#include "imapd/cell/args.h"
#include "imapd/cell/commands.h"

static const char *const items[] = {"MESSAGES", "RECENT", "UIDNEXT", "UIDVALIDITY", "UNSEEN"};
enum { ITEMS = sizeof items / sizeof items[0], WANTED_MAX = 16 };

static int
parse(struct cursor *c, int wanted[WANTED_MAX], size_t *n_r)
{
    *n_r = 0;
    if (!icell_arg_space(c) || !cur_take(c, '('))
        return -1;
    do {
        struct str name;
        int found = -1;
        if (icell_arg_atom(c, &name) < 0 || *n_r == WANTED_MAX)
            return -1;
        for (int i = 0; i < ITEMS; i++)
            if (str_caseeq(name, str_z(items[i])))
                found = i;
        if (found < 0)
            return -1;
        wanted[(*n_r)++] = found;
    } while (icell_arg_space(c));
    return cur_take(c, ')') && icell_arg_end(c) ? 0 : -1;
}

void
icell_cmd_status(struct icell *ic)
{
    struct str name;
    int wanted[WANTED_MAX];
    size_t n;
    struct mailbox mb;
    struct err e = {0};
    if (icell_arg_mailbox(&ic->cmd.args, &ic->arena, &name) < 0 ||
        parse(&ic->cmd.args, wanted, &n) < 0) {
        icell_end_syntax(ic);
        return;
    }
    if (mailbox_open(&mb, ic->root_fd, name, true, &e) < 0) {
        if (e.class == ERR_PERMANENT)
            icell_end(ic, ICELL_NO, "[NONEXISTENT] No such mailbox.");
        else
            icell_end_err(ic, &e);
        return;
    }
    struct mailbox_counts counts = mailbox_count(&mb);
    const uint32_t values[ITEMS] = {counts.messages, counts.recent, mb.uids.next, mb.uids.validity,
                                    counts.unseen};
    struct buf line = buf_new(4096);
    buf_addz(&line, "* STATUS ");
    icell_put_astring(&line, name);
    for (size_t i = 0; i < n; i++)
        buf_addf(&line, "%s%s %u", i ? " " : " (", items[wanted[i]], values[wanted[i]]);
    buf_addz(&line, ")\r\n");
    stream_put(&ic->s, buf_str(&line));
    buf_free(&line);
    mailbox_close(&mb);
    icell_end(ic, ICELL_OK, "Status completed.");
}
