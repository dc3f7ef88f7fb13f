/* SELECT, EXAMINE, CLOSE (RFC 9051 6.3.2, 6.3.3, 6.4.1; RFC 3501 6.3.1), UNSELECT (RFC 3691). */
#include "imapd/cell/args.h"
#include "imapd/cell/commands.h"
#include "imapd/cell/qresync.h"

static void
tell_all(struct icell *ic)
{
    const struct mailbox *mb = &ic->mb;
    buf_reset(&ic->told_flags);
    icell_tell_flags(ic);
    const struct mailbox_counts counts = mailbox_count(mb);
    icell_tell_exists(ic);
    if (counts.first_unseen && !ic->rev2)
        stream_putf(&ic->s, "* OK [UNSEEN %u] First unseen.\r\n", counts.first_unseen);
    stream_putf(&ic->s, "* OK [UIDVALIDITY %u] UIDs valid\r\n", mb->validity);
    stream_putf(&ic->s, "* OK [UIDNEXT %u] Predicted next UID\r\n", mailbox_uidnext(mb));
    stream_putf(&ic->s, "* OK [MAILBOXID (F%u)] Mailbox ID\r\n", mb->validity);
    stream_putf(&ic->s, "* OK [HIGHESTMODSEQ %llu] Highest\r\n",
                (unsigned long long)mb->ix.state.modseq);
    ic->told_exists = counts.messages;
}

/* " (CONDSTORE)", " (QRESYNC (...))" (RFC 4466 2.1, RFC 7162). */
static int
parameters(struct icell *ic, struct cursor *c, bool *condstore_r, struct icell_qresync *q_r)
{
    *condstore_r = false;
    *q_r = (struct icell_qresync){0};
    if (!cur_take_str(c, STR(" (")))
        return 0;
    do {
        struct str name;
        if (icell_arg_atom(c, &name) < 0)
            return -1;
        if (str_caseeq(name, STR("CONDSTORE")))
            *condstore_r = true;
        else if (!str_caseeq(name, STR("QRESYNC")) || !ic->qresync || !icell_arg_space(c) ||
                 icell_qresync_parse(ic, c, q_r) < 0)
            return -1;
    } while (icell_arg_space(c));
    return cur_take(c, ')') ? 0 : -1;
}

/* The mailbox that is selected already: its view is brought up instead of read anew. */
static bool
select_again(struct icell *ic, struct str name, bool read_only)
{
    char path[FOLDER_NAME_MAX + 8];
    if (!ic->mb_open || ic->mb.read_only != read_only || folder_path(name, path) < 0 ||
        strcmp(path, ic->mb.path) != 0 || !mailbox_is_named(&ic->mb))
        return false;
    for (size_t i = 0; i < ic->mb.n; i++)
        ic->mb.msgs[i].recent = false; /* of those this session has been told */
    if (mailbox_refresh(&ic->mb, NULL) < 0)
        return false;
    mailbox_drop_gone(&ic->mb);
    for (size_t i = 0; i < ic->mb.n; i++)
        ic->mb.msgs[i].changed = false;
    ic->nsaved = 0;
    return true;
}

static void
select_mailbox(struct icell *ic, bool read_only)
{
    struct str name;
    struct err e = {0};
    bool condstore;
    struct icell_qresync q;
    if (icell_arg_mailbox(ic, &ic->cmd.args, &name) < 0 ||
        parameters(ic, &ic->cmd.args, &condstore, &q) < 0 || !icell_arg_end(&ic->cmd.args)) {
        icell_end_syntax(ic);
        return;
    }
    /* Also a SELECT that fails leaves nothing selected. */
    if (ic->mb_open && (ic->qresync || ic->rev2)) /* RFC 7162 3.2.11, RFC 9051 6.3.2 */
        stream_putz(&ic->s, "* OK [CLOSED] Previous mailbox closed.\r\n");
    ic->condstore |= condstore;
    bool again = select_again(ic, name, read_only);
    if (!again)
        icell_unselect(ic);
    if (!again && mailbox_peek(&ic->mb, ic->root_fd, name, read_only, &e) < 0) {
        if (e.class == ERR_PERMANENT)
            icell_end(ic, ICELL_NO, "[NONEXISTENT] No such mailbox.");
        else
            icell_end_err(ic, &e);
        return;
    }
    ic->mb_open = true;
    ic->state = ICELL_SELECTED;
    if (q.given && icell_need_messages(ic) < 0)
        return;
    tell_all(ic);
    if (ic->rev2)
        icell_put_list(ic, name, folder_use(ic->root_fd, name), ic->cmd.oldname);
    if (q.given)
        icell_put_resync(ic, &q);
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
    bool expunge = !ic->mb.read_only && mailbox_count(&ic->mb).deleted;
    if (expunge && icell_need_messages(ic) < 0)
        return;
    if (expunge && icell_expunge(ic, NULL, ic->mb.n, &e) < 0) {
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
