/* STORE, COPY, EXPUNGE (RFC 3501 6.4.3, 6.4.6, 6.4.7; RFC 4315). */
#include "imapd/cell/args.h"
#include "imapd/cell/commands.h"
#include "imapd/cell/seqset.h"

struct store {
    enum mailbox_store_op op;
    bool silent;
    bool conditional; /* RFC 7162 3.1.3 */
    uint64_t unchanged_since;
    uint32_t bits; /* of the keywords */
    struct icell_flags flags;
    uint32_t *modified; /* numbers, as the client counts, of those that were left */
    size_t nmodified;
    bool gone;
};

static int
parse_store(struct cursor *c, struct store *s)
{
    *s = (struct store){.op = MAILBOX_REPLACE};
    if (cur_take_str(c, STR(" ("))) {
        s->conditional = true;
        if (!cur_take_case(c, STR("UNCHANGEDSINCE ")) ||
            icell_arg_number(c, INT64_MAX, &s->unchanged_since) < 0 || !cur_take(c, ')'))
            return -1;
    }
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
tell_stored(struct icell *ic, size_t i, bool flags)
{
    struct buf *out = &ic->s.out;
    const char *gap = "";
    stream_putf(&ic->s, "* %zu FETCH (", i + 1);
    if (ic->cmd.uid || ic->qresync) {
        buf_addf(out, "UID %u", ic->mb.msgs[i].uid);
        gap = " ";
    }
    if (ic->condstore) {
        buf_addf(out, "%sMODSEQ (%llu)", gap, (unsigned long long)ic->mb.msgs[i].modseq);
        gap = " ";
    }
    if (flags) {
        buf_addf(out, "%sFLAGS ", gap);
        icell_add_flags(ic, out, &ic->mb.msgs[i]);
        ic->mb.msgs[i].changed = false;
    }
    stream_putz(&ic->s, ")\r\n");
}

/* One message, with the lock held: nobody changes it between the look and the change. */
static int
store_one(struct icell *ic, struct store *s, size_t i, struct err *e)
{
    uint64_t before = ic->mb.msgs[i].modseq;
    if (s->conditional && before > s->unchanged_since && !ic->mb.msgs[i].gone) {
        s->modified[s->nmodified++] = ic->cmd.uid ? ic->mb.msgs[i].uid : (uint32_t)i + 1;
        return 0;
    }
    if (mailbox_store(&ic->mb, i, s->op, s->flags.flags, s->bits, e) < 0)
        return -1;
    const struct mailbox_message *m = &ic->mb.msgs[i];
    s->gone |= m->gone;
    if (m->gone)
        return 0;
    if (!s->silent || m->changed)
        tell_stored(ic, i, true);
    else if (ic->condstore && m->modseq != before)
        tell_stored(ic, i, false);
    return 0;
}

static int
store_all(struct icell *ic, struct store *s, const size_t *at, size_t n, struct err *e)
{
    int result = 0;
    for (size_t k = 0; k < n && result == 0;) {
        if (mailbox_changes_begin(&ic->mb, e) < 0)
            return -1;
        for (size_t end = k + MAILBOX_BATCH; k < n && k < end && result == 0; k++)
            result = store_one(ic, s, at[k], e);
        mailbox_changes_end(&ic->mb);
    }
    return result;
}

static void
end_store(struct icell *ic, const struct store *s)
{
    struct buf code = buf_new(60000);
    if (s->nmodified) {
        buf_addz(&code, "[MODIFIED ");
        icell_seqset_add(&code, s->modified, s->nmodified);
        buf_addz(&code, "] ");
    }
    if (s->gone)
        icell_end(ic, ICELL_NO, "[EXPUNGEISSUED] Some messages have been expunged.");
    else if (s->nmodified)
        icell_end(ic, ICELL_OK, "%sConditional store failed for some.",
                  buf_ok(&code) ? buf_z(&code) : "");
    else
        icell_end(ic, ICELL_OK, "Store completed.");
    buf_free(&code);
}

void
icell_cmd_store(struct icell *ic)
{
    size_t *at, n;
    struct store s;
    struct err e = {0};
    if (icell_seqset_arg(ic, &ic->cmd.args, &at, &n) < 0)
        return;
    if (parse_store(&ic->cmd.args, &s) < 0) {
        icell_end_syntax(ic);
        return;
    }
    s.modified = arena_array(&ic->arena, n + 1, sizeof *s.modified);
    if (ic->mb.read_only) {
        icell_end(ic, ICELL_NO, "[READ-ONLY] Mailbox is read-only.");
        return;
    }
    if (!s.modified ||
        icell_flags_bits(&ic->mb, &s.flags, s.op != MAILBOX_REMOVE, &s.bits, &e) < 0) {
        icell_end_err(ic, &e);
        return;
    }
    if (s.conditional)
        icell_enable_condstore(ic);
    icell_tell_flags(ic);
    if (store_all(ic, &s, at, n, &e) < 0)
        icell_end_err(ic, &e);
    else
        end_store(ic, &s);
}

/* "[COPYUID validity from to] ", or nothing when it would be too long (RFC 4315 3). */
static void
copyuid(struct icell *ic, const size_t *at, size_t n, uint32_t validity, uint32_t first,
        struct buf *code)
{
    uint32_t *uids = arena_array(&ic->arena, n, sizeof *uids);
    for (size_t k = 0; k < n && uids; k++)
        uids[k] = ic->mb.msgs[at[k]].uid;
    if (uids) {
        buf_addf(code, "[COPYUID %u ", validity);
        icell_seqset_add(code, uids, n);
        buf_addf(code, " %u", first);
        if (n > 1)
            buf_addf(code, ":%u", first + (uint32_t)n - 1);
        buf_addz(code, "] ");
    }
    if (!buf_ok(code))
        buf_reset(code);
}

/* RFC 7162 3.2.7, 3.2.9, RFC 6851 4.4. */
static void
end_removal(struct icell *ic, const char *what)
{
    if (ic->qresync)
        icell_end(ic, ICELL_OK, "[HIGHESTMODSEQ %llu] %s completed.",
                  (unsigned long long)ic->mb.ix.state.modseq, what);
    else
        icell_end(ic, ICELL_OK, "%s completed.", what);
}

/* The messages of a COPY or MOVE are in the other mailbox; in it moved ones are not here any more.
 */
static void
end_copy(struct icell *ic, bool move, const size_t *at, size_t n, const char *code)
{
    struct err e = {0};
    int result = 0;
    if (!move) {
        icell_end(ic, ICELL_OK, "%sCopy completed.", code);
        return;
    }
    /* RFC 6851 4.3: before the EXPUNGEs. */
    stream_putf(&ic->s, "* OK %sMoved.\r\n", code);
    for (size_t k = 0; k < n && result == 0;) {
        result = mailbox_changes_begin(&ic->mb, &e);
        if (result < 0)
            break;
        for (size_t end = k + MAILBOX_BATCH; k < n && k < end && result == 0; k++)
            result = mailbox_unlink_moved(&ic->mb, at[k], &e);
        mailbox_changes_end(&ic->mb);
    }
    if (result < 0)
        icell_end_err(ic, &e);
    else
        end_removal(ic, "Move");
}

static void
copy(struct icell *ic, bool move)
{
    size_t *at, n;
    struct str name;
    struct mailbox to;
    struct err e = {0};
    uint32_t first;
    if (icell_seqset_arg(ic, &ic->cmd.args, &at, &n) < 0)
        return;
    if (icell_arg_mailbox(ic, &ic->cmd.args, &name) < 0 || !icell_arg_end(&ic->cmd.args)) {
        icell_end_syntax(ic);
        return;
    }
    if (n == 0) {
        icell_end(ic, ICELL_OK, "No messages %s.", move ? "moved" : "copied");
        return;
    }
    if (move && ic->mb.read_only) {
        icell_end(ic, ICELL_NO, "[READ-ONLY] Mailbox is read-only.");
        return;
    }
    if (mailbox_open_target(&to, ic->root_fd, name, &e) < 0) {
        if (e.class == ERR_PERMANENT)
            icell_end(ic, ICELL_NO, "[TRYCREATE] No such mailbox.");
        else
            icell_end_err(ic, &e);
        return;
    }
    if (mailbox_copy(&ic->mb, at, n, move, &to, &first, &e) == 0) {
        struct buf code = buf_new(60000);
        copyuid(ic, at, n, to.uids.validity, first, &code);
        end_copy(ic, move, at, n, buf_z(&code));
        buf_free(&code);
    } else if (e.class == ERR_PERMANENT) {
        icell_end(ic, ICELL_NO, "[EXPUNGEISSUED] Some messages have been expunged.");
    } else {
        icell_end_err(ic, &e);
    }
    mailbox_close(&to);
}

void
icell_cmd_copy(struct icell *ic)
{
    copy(ic, false);
}

void
icell_cmd_move(struct icell *ic)
{
    copy(ic, true);
}

int
icell_expunge(struct icell *ic, const size_t *at, size_t n, struct err *e)
{
    int result = 0;
    for (size_t k = 0; k < n && result == 0;) {
        size_t i = at ? at[k] : k;
        if (!(ic->mb.msgs[i].flags & MAILBOX_DELETED)) {
            k++;
            continue;
        }
        if (mailbox_changes_begin(&ic->mb, e) < 0)
            return -1;
        for (size_t end = k + MAILBOX_BATCH; k < n && k < end && result == 0; k++) {
            i = at ? at[k] : k;
            if (ic->mb.msgs[i].flags & MAILBOX_DELETED)
                result = mailbox_expunge(&ic->mb, i, e);
        }
        mailbox_changes_end(&ic->mb);
    }
    return result;
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
    if (icell_expunge(ic, at, n, &e) < 0)
        icell_end_err(ic, &e);
    else
        end_removal(ic, "Expunge");
}
