/* SELECT, EXAMINE, CLOSE (RFC 3501 6.3.1, 6.3.2, 6.4.2), UNSELECT (RFC 3691). */
#include "imapd/cell/args.h"
#include "imapd/cell/commands.h"

static void
tell_all(struct icell *ic)
{
    const struct mailbox *mb = &ic->mb;
    buf_reset(&ic->told_flags);
    icell_tell_flags(ic);
    stream_putf(&ic->s, "* %zu EXISTS\r\n* %u RECENT\r\n", mb->n, mailbox_count(mb).recent);
    for (size_t i = 0; i < mb->n; i++)
        if (!(mb->msgs[i].flags & MAILBOX_SEEN)) {
            stream_putf(&ic->s, "* OK [UNSEEN %zu] First unseen.\r\n", i + 1);
            break;
        }
    stream_putf(&ic->s, "* OK [UIDVALIDITY %u] UIDs valid\r\n", mb->uids.validity);
    stream_putf(&ic->s, "* OK [UIDNEXT %u] Predicted next UID\r\n", mb->uids.next);
    ic->told_exists = mb->n;
}

static void
select_mailbox(struct icell *ic, bool read_only)
{
    struct str name;
    struct err e = {0};
    if (icell_arg_mailbox(&ic->cmd.args, &ic->arena, &name) < 0 || !icell_arg_end(&ic->cmd.args)) {
        icell_end_syntax(ic);
        return;
    }
    /* Also a SELECT that fails leaves nothing selected. */
    icell_unselect(ic);
    if (mailbox_open(&ic->mb, ic->root_fd, name, read_only, &e) < 0) {
        if (e.class == ERR_PERMANENT)
            icell_end(ic, ICELL_NO, "[NONEXISTENT] No such mailbox.");
        else
            icell_end_err(ic, &e);
        return;
    }
    ic->mb_open = true;
    ic->state = ICELL_SELECTED;
    tell_all(ic);
    icell_end(ic, ICELL_OK, "[%s] %s completed.", read_only ? "READ-ONLY" : "READ-WRITE",
              read_only ? "Examine" : "Select");
}

void
icell_cmd_select(struct icell *ic)
{
    select_mailbox(ic, false);
}

void
icell_cmd_examine(struct icell *ic)
{
    select_mailbox(ic, true);
}

void
icell_cmd_close(struct icell *ic)
{
    struct err e = {0};
    if (!icell_arg_end(&ic->cmd.args)) {
        icell_end_syntax(ic);
        return;
    }
    for (size_t i = 0; i < ic->mb.n && !ic->mb.read_only; i++)
        if ((ic->mb.msgs[i].flags & MAILBOX_DELETED) && mailbox_expunge(&ic->mb, i, &e) < 0) {
            icell_end_err(ic, &e);
            return;
        }
    icell_unselect(ic);
    icell_end(ic, ICELL_OK, "Close completed.");
}

void
icell_cmd_unselect(struct icell *ic)
{
    if (!icell_arg_end(&ic->cmd.args)) {
        icell_end_syntax(ic);
        return;
    }
    icell_unselect(ic);
    icell_end(ic, ICELL_OK, "Unselect completed.");
}
