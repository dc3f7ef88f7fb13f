/* APPEND (RFC 3501 6.3.11; APPENDUID: RFC 4315; several at once: RFC 3502; literal8: RFC 3516):
 * each literal goes to tmp/ as it comes, and all into the folder at the end, or none. */
#include "imapd/cell/args.h"
#include "imapd/cell/commands.h"
#include "lib/mail/date.h"
#include <stdlib.h>

struct append {
    struct icell *ic;
    struct str name;
    struct mailbox mb;
    struct mailbox_writing *at;
    size_t n;
    struct err e; /* why nothing is stored: set when failed */
    bool failed, bad;
    bool minus;   /* a literal was longer than RFC 7888 5 lets it be without being asked for */
    bool closing; /* "UTF8 (" was before the literal: ")" comes behind it (RFC 6855 4) */
};

/* "[flags SP] [date-time SP]" up to the literal, of which "~" may be there, or "UTF8 (~". */
static int
parse_options(struct icell *ic, struct cursor *c, struct icell_flags *flags, int64_t *date_s,
              bool *utf8_r)
{
    *flags = (struct icell_flags){0};
    *date_s = 0;
    if (cur_peek(c) == '(' && (icell_arg_flags(c, true, flags) < 0 || !icell_arg_space(c)))
        return -1;
    if (cur_peek(c) == '"') {
        struct str text;
        struct date date;
        if (icell_arg_string(c, &ic->arena, &text) < 0 || !icell_arg_space(c) ||
            date_parse_imap(text, &date) < 0)
            return -1;
        *date_s = date.utc_s ? date.utc_s : 1;
    }
    *utf8_r = ic->utf8 && cur_take_case(c, STR("UTF8 ("));
    if (!cur_take(c, '~') && *utf8_r)
        return -1;
    return icell_arg_end(c) ? 0 : -1;
}

static void
fail(struct append *a, enum err_class class, const char *text)
{
    if (!a->failed)
        err_set(&a->e, class, "%s", text);
    a->failed = true;
}

/* The next message's file; what its flags and date are is known. */
static void
begin(struct append *a, const struct icell_flags *flags, int64_t date_s)
{
    uint32_t bits = 0;
    struct err e = {0};
    if (a->n == ICELL_APPEND_MAX) {
        fail(a, ERR_LIMIT, "too many messages at once");
        return;
    }
    if (a->failed)
        return;
    struct mailbox_writing *x = &a->at[a->n];
    if ((icell_flags_bits(&a->mb, flags, true, &bits, &e) < 0 && e.class != ERR_LIMIT) ||
        mailbox_write_begin(&x->w, a->mb.tmp_fd, &e) < 0) {
        fail(a, e.class, e.text);
        return;
    }
    x->flags = flags->flags;
    x->keywords = bits;
    x->date_s = date_s;
    a->n++;
}

/* The literal's bytes, also when they are not wanted any more. -1: the connection is gone. */
static int
receive(struct append *a)
{
    struct icell *ic = a->ic;
    uint64_t left = ic->cmd.literal.size;
    struct str have;
    struct err e = {0};
    if (left > ic->message_size_max)
        fail(a, ERR_LIMIT, "message too long");
    if (icell_literal_too_long(ic, left, ic->cmd.literal.plus)) {
        a->minus = true;
        fail(a, ERR_PROTOCOL, "literal too long");
    }
    if (left == 0)
        fail(a, ERR_PERMANENT, "a message of no bytes");
    if (!ic->cmd.literal.plus)
        stream_putz(&ic->s, "+ OK\r\n");
    ic->cmd.literal.waiting = false;
    while (left) {
        if (stream_peek(&ic->s, &have, &e) < 0)
            return -1;
        have = str_sub(have, 0, left);
        if (!a->failed && str_chr(have, '\0') >= 0) {
            a->bad = !ic->cmd.literal.binary;
            ic->cmd.unknown_cte = !a->bad;
            fail(a, ERR_PROTOCOL, "NUL in a message");
        }
        if (!a->failed && mailbox_write(&a->at[a->n - 1].w, have, &e) < 0)
            fail(a, e.class, e.text);
        left -= have.n;
        stream_take(&ic->s, have.n);
    }
    return 0;
}

/* Behind a literal: the end (0), another message (1), or what cannot be there (0, bad). A message
 * that is too long and comes anyway, and one behind what cannot be read, end the session: -1. */
static int
next(struct append *a)
{
    struct icell *ic = a->ic;
    struct str line, head = {0};
    struct err e;
    bool bare;
    struct icell_flags flags;
    int64_t date_s;
    if (stream_line(&ic->s, ICELL_LINE_MAX, &line, &bare, &e) < 0)
        return -1;
    if (a->closing && !str_starts(line, STR(")"))) {
        a->bad = true;
        fail(a, ERR_PROTOCOL, "no parenthesis behind the message");
    } else if (a->closing) {
        line = str_from(line, 1);
    }
    if (line.n == 0)
        return 0;
    bool literal =
        icell_find_literal(line, &head, &ic->cmd.literal.size, &ic->cmd.literal.plus) == 0;
    struct cursor c = cursor_of(head);
    if (!literal || !icell_arg_space(&c) ||
        parse_options(ic, &c, &flags, &date_s, &a->closing) < 0) {
        a->bad = true;
        fail(a, ERR_PROTOCOL, "what is behind a message is not another");
        return literal && ic->cmd.literal.plus ? -1 : 0;
    }
    ic->cmd.literal.binary = str_ends(head, STR("~"));
    begin(a, &flags, date_s);
    bool refuse = a->failed || ic->cmd.literal.size > ic->message_size_max;
    if (refuse && ic->cmd.literal.plus && ic->cmd.literal.size > ic->message_size_max)
        return -1;
    if (refuse && !ic->cmd.literal.plus) {
        fail(a, ERR_LIMIT, "message too long");
        return 0; /* it was not invited: RFC 3502 lets the server say NO here */
    }
    return 1;
}

static void
answer(struct append *a)
{
    struct icell *ic = a->ic;
    uint32_t uid;
    if (!a->failed && mailbox_write_commit_all(a->at, a->n, &a->mb, &uid, &a->e) < 0)
        a->failed = true;
    if (ic->cmd.unknown_cte)
        icell_end(ic, ICELL_NO, "[UNKNOWN-CTE] %s.", a->e.text);
    else if (a->minus) /* RFC 7888 5: BAD, and this code */
        icell_end(ic, ICELL_BAD, "[TOOBIG] Literal too long.");
    else if (a->bad)
        icell_end(ic, ICELL_BAD, "%s.", a->e.text);
    else if (a->failed && str_eq(str_z(a->e.text), STR("message too long")))
        icell_end(ic, ICELL_NO, "[TOOBIG] Message too long.");
    else if (a->failed)
        icell_end_err(ic, &a->e);
    else if (a->n == 1)
        icell_end(ic, ICELL_OK, "[APPENDUID %u %u] Append completed.", a->mb.uids.validity, uid);
    else
        icell_end(ic, ICELL_OK, "[APPENDUID %u %u:%u] Append completed.", a->mb.uids.validity, uid,
                  uid + (uint32_t)a->n - 1);
}

static void
take_all(struct append *a, const struct icell_flags *flags, int64_t date_s)
{
    int more = 1;
    begin(a, flags, date_s);
    while (more > 0) {
        if (receive(a) < 0 || (more = next(a)) < 0) {
            a->ic->bye = "Connection closed in APPEND";
            a->ic->state = ICELL_LOGOUT;
            break;
        }
    }
    if (more == 0)
        answer(a);
    for (size_t i = 0; i < a->n; i++)
        mailbox_write_abort(&a->at[i].w);
}

void
icell_cmd_append(struct icell *ic)
{
    struct append a = {.ic = ic};
    struct icell_flags flags;
    int64_t date_s;
    struct cursor *c = &ic->cmd.args;
    if (icell_arg_mailbox(ic, c, &a.name) < 0 || !icell_arg_space(c) ||
        parse_options(ic, c, &flags, &date_s, &a.closing) < 0 || !ic->cmd.literal.waiting) {
        icell_end_syntax(ic);
    } else if (ic->cmd.literal.size > ic->message_size_max) {
        icell_end(ic, ICELL_NO, "[TOOBIG] Message too long.");
    } else if (!(a.at = calloc(ICELL_APPEND_MAX, sizeof *a.at))) {
        icell_end(ic, ICELL_NO, "Out of memory.");
    } else if (mailbox_open_target(&a.mb, ic->root_fd, a.name, &a.e) < 0) {
        if (a.e.class == ERR_PERMANENT)
            icell_end(ic, ICELL_NO, "[TRYCREATE] No such mailbox.");
        else
            icell_end_err(ic, &a.e);
    } else {
        take_all(&a, &flags, date_s);
        mailbox_close(&a.mb);
    }
    free(a.at);
}
