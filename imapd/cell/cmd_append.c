/* APPEND (RFC 3501 6.3.11, RFC 4315 APPENDUID): the literal goes to tmp/ as it comes. */
#include "imapd/cell/args.h"
#include "imapd/cell/commands.h"
#include "lib/mail/date.h"

struct append {
    struct str name;
    struct icell_flags flags;
    int64_t date_s; /* 0: now */
};

/* "mailbox SP [flags SP] [date-time SP]" up to the literal. */
static int
parse(struct icell *ic, struct append *a)
{
    struct cursor *c = &ic->cmd.args;
    *a = (struct append){0};
    if (icell_arg_mailbox(c, &ic->arena, &a->name) < 0 || !icell_arg_space(c))
        return -1;
    if (cur_peek(c) == '(' && (icell_arg_flags(c, true, &a->flags) < 0 || !icell_arg_space(c)))
        return -1;
    if (cur_peek(c) == '"') {
        struct str text;
        struct date date;
        if (icell_arg_string(c, &ic->arena, &text) < 0 || !icell_arg_space(c) ||
            date_parse_imap(text, &date) < 0)
            return -1;
        a->date_s = date.utc_s ? date.utc_s : 1;
    }
    return icell_arg_end(c) && ic->cmd.literal.waiting ? 0 : -1;
}

/* The literal and the end of the command. 0; 1: refused or failed on our side, all of it read; -1:
 * the connection is gone or out of step. */
static int
receive(struct icell *ic, struct mailbox_writer *w, struct err *e)
{
    uint64_t left = ic->cmd.literal.size;
    int result = 0;
    if (!ic->cmd.literal.plus)
        stream_putz(&ic->s, "+ OK\r\n");
    ic->cmd.literal.waiting = false;
    while (left) {
        struct str have;
        struct err gone;
        if (stream_peek(&ic->s, &have, &gone) < 0)
            return -1;
        have = str_sub(have, 0, left);
        if (result == 0 && str_chr(have, '\0') >= 0)
            result = err_set(e, ERR_PROTOCOL, "NUL in a message");
        if (result == 0)
            result = mailbox_write(w, have, e);
        left -= have.n;
        stream_take(&ic->s, have.n);
    }
    struct str line;
    struct err gone;
    bool bare;
    if (stream_line(&ic->s, ICELL_LINE_MAX, &line, &bare, &gone) < 0)
        return -1;
    if (result == 0 && line.n)
        result = err_set(e, ERR_PROTOCOL, "one message at a time");
    return result < 0 ? 1 : 0;
}

static void
store(struct icell *ic, const struct append *a, struct mailbox *mb, struct mailbox_writer *w)
{
    struct err e = {0};
    uint32_t bits = 0, uid;
    int got = receive(ic, w, &e);
    if (got < 0) {
        ic->bye = "Connection closed in APPEND";
        ic->state = ICELL_LOGOUT;
    } else if (got > 0 && e.class == ERR_PROTOCOL) {
        icell_end(ic, ICELL_BAD, "%s.", e.text);
    } else if (got > 0) {
        icell_end_err(ic, &e);
    } else if (w->size == 0) {
        icell_end(ic, ICELL_NO, "A message of no bytes.");
    } else if (icell_flags_bits(mb, &a->flags, true, &bits, &e) < 0 && e.class != ERR_LIMIT) {
        icell_end_err(ic, &e);
    } else if (mailbox_write_commit(w, mb, a->flags.flags, bits, a->date_s, &uid, &e) < 0) {
        icell_end_err(ic, &e);
    } else {
        icell_end(ic, ICELL_OK, "[APPENDUID %u %u] Append completed.", mb->uids.validity, uid);
    }
}

void
icell_cmd_append(struct icell *ic)
{
    struct append a;
    struct mailbox mb;
    struct mailbox_writer w;
    struct err e = {0};
    if (parse(ic, &a) < 0) {
        icell_end_syntax(ic);
        return;
    }
    if (ic->cmd.literal.size > ic->message_size_max) {
        icell_end(ic, ICELL_NO, "[TOOBIG] Message too long.");
        return;
    }
    if (mailbox_open_target(&mb, ic->root_fd, a.name, &e) < 0) {
        if (e.class == ERR_PERMANENT)
            icell_end(ic, ICELL_NO, "[TRYCREATE] No such mailbox.");
        else
            icell_end_err(ic, &e);
        return;
    }
    if (mailbox_write_begin(&w, mb.tmp_fd, &e) < 0)
        icell_end_err(ic, &e);
    else
        store(ic, &a, &mb, &w);
    mailbox_write_abort(&w);
    mailbox_close(&mb);
}
