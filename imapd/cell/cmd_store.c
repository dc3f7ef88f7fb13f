/* STORE, COPY, EXPUNGE (RFC 3501 6.4.3, 6.4.6, 6.4.7; RFC 4315). */
#include "imapd/cell/args.h"
#include "imapd/cell/commands.h"
#include "imapd/cell/seqset.h"

struct store {
    enum mailbox_store_op op;
    bool silent;
    struct icell_flags flags;
};

static int
parse_store(struct cursor *c, struct store *s)
{
    *s = (struct store){.op = MAILBOX_REPLACE};
    if (!icell_arg_space(c))
        return -1;
    if (cur_take(c, '+'))
        s->op = MAILBOX_ADD;
    else if (cur_take(c, '-'))
        s->op = MAILBOX_REMOVE;
    if (!cur_take_case(c, STR("FLAGS")))
        return -1;
    s->silent = cur_take_case(c, STR(".SILENT"));
    return icell_arg_space(c) && icell_arg_flags(c, false, &s->flags) == 0 && icell_arg_end(c) ? 0
                                                                                               : -1;
}

static void
tell_stored(struct icell *ic, size_t i)
{
    struct buf line = buf_new(8192);
    buf_addf(&line, "* %zu FETCH (", i + 1);
    if (ic->cmd.uid)
        buf_addf(&line, "UID %u ", ic->mb.msgs[i].uid);
    buf_addz(&line, "FLAGS ");
    icell_add_flags(ic, &line, &ic->mb.msgs[i]);
    buf_addz(&line, ")\r\n");
    stream_put(&ic->s, buf_str(&line));
    buf_free(&line);
    ic->mb.msgs[i].changed = false;
}

void
icell_cmd_store(struct icell *ic)
{
    size_t *at, n;
    struct store s;
    struct err e = {0};
    uint32_t bits;
    bool gone = false;
    if (icell_seqset_arg(ic, &ic->cmd.args, &at, &n) < 0)
        return;
    if (parse_store(&ic->cmd.args, &s) < 0) {
        icell_end_syntax(ic);
        return;
    }
    if (ic->mb.read_only) {
        icell_end(ic, ICELL_NO, "[READ-ONLY] Mailbox is read-only.");
        return;
    }
    if (icell_flags_bits(&ic->mb, &s.flags, s.op != MAILBOX_REMOVE, &bits, &e) < 0) {
        icell_end_err(ic, &e);
        return;
    }
    icell_tell_flags(ic);
    for (size_t k = 0; k < n; k++) {
        if (mailbox_store(&ic->mb, at[k], s.op, s.flags.flags, bits, &e) < 0) {
            icell_end_err(ic, &e);
            return;
        }
        gone |= ic->mb.msgs[at[k]].gone;
        if (!ic->mb.msgs[at[k]].gone && (!s.silent || ic->mb.msgs[at[k]].changed))
            tell_stored(ic, at[k]);
    }
    if (gone)
        icell_end(ic, ICELL_NO, "[EXPUNGEISSUED] Some messages have been expunged.");
    else
        icell_end(ic, ICELL_OK, "Store completed.");
}

static void
end_copy(struct icell *ic, const size_t *at, size_t n, uint32_t validity, uint32_t first)
{
    uint32_t *uids = arena_array(&ic->arena, n, sizeof *uids);
    struct buf code = buf_new(60000);
    for (size_t k = 0; k < n && uids; k++)
        uids[k] = ic->mb.msgs[at[k]].uid;
    if (uids) {
        buf_addf(&code, "[COPYUID %u ", validity);
        icell_seqset_add(&code, uids, n);
        buf_addf(&code, " %u", first);
        if (n > 1)
            buf_addf(&code, ":%u", first + (uint32_t)n - 1);
        buf_addz(&code, "] ");
    }
    icell_end(ic, ICELL_OK, "%sCopy completed.", uids && buf_ok(&code) ? buf_z(&code) : "");
    buf_free(&code);
}

void
icell_cmd_copy(struct icell *ic)
{
    size_t *at, n;
    struct str name;
    struct mailbox to;
    struct err e = {0};
    uint32_t first;
    if (icell_seqset_arg(ic, &ic->cmd.args, &at, &n) < 0)
        return;
    if (icell_arg_mailbox(&ic->cmd.args, &ic->arena, &name) < 0 || !icell_arg_end(&ic->cmd.args)) {
        icell_end_syntax(ic);
        return;
    }
    if (n == 0) {
        icell_end(ic, ICELL_OK, "No messages copied.");
        return;
    }
    if (mailbox_open_target(&to, ic->root_fd, name, &e) < 0) {
        if (e.class == ERR_PERMANENT)
            icell_end(ic, ICELL_NO, "[TRYCREATE] No such mailbox.");
        else
            icell_end_err(ic, &e);
        return;
    }
    if (mailbox_copy(&ic->mb, at, n, &to, &first, &e) == 0)
        end_copy(ic, at, n, to.uids.validity, first);
    else if (e.class == ERR_PERMANENT)
        icell_end(ic, ICELL_NO, "[EXPUNGEISSUED] Some messages have been expunged.");
    else
        icell_end_err(ic, &e);
    mailbox_close(&to);
}

void
icell_cmd_expunge(struct icell *ic)
{
    struct err e = {0};
    size_t *at = NULL, n = ic->mb.n;
    if (ic->cmd.uid && icell_seqset_arg(ic, &ic->cmd.args, &at, &n) < 0)
        return;
    if (!icell_arg_end(&ic->cmd.args)) {
        icell_end_syntax(ic);
        return;
    }
    if (ic->mb.read_only) {
        icell_end(ic, ICELL_NO, "[READ-ONLY] Mailbox is read-only.");
        return;
    }
    for (size_t k = 0; k < n; k++) {
        size_t i = at ? at[k] : k;
        if ((ic->mb.msgs[i].flags & MAILBOX_DELETED) && mailbox_expunge(&ic->mb, i, &e) < 0) {
            icell_end_err(ic, &e);
            return;
        }
    }
    icell_end(ic, ICELL_OK, "Expunge completed.");
}
