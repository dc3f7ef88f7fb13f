#include "imapd/cell/args.h"
#include "imapd/cell/commands.h"
#include "imapd/cell/deflate.h"
#include "imapd/cell/seqset.h"
#include "lib/log/log.h"
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

static const char capabilities[] =
    "IMAP4rev1 IMAP4rev2 UTF8=ACCEPT UIDPLUS IDLE NAMESPACE UNSELECT CHILDREN ENABLE ID "
    "ESEARCH SEARCHRES "
    "CONDSTORE QRESYNC MOVE LIST-EXTENDED LIST-STATUS STATUS=SIZE SPECIAL-USE "
    "CREATE-SPECIAL-USE WITHIN SAVEDATE SORT SORT=DISPLAY THREAD=ORDEREDSUBJECT "
    "THREAD=REFERENCES QUOTA QUOTA=RES-STORAGE QUOTA=RES-MESSAGE OBJECTID PREVIEW BINARY "
    "MULTIAPPEND";

enum { IN_MAX = 2 * ICELL_LINE_MAX, ANSWER_MAX = 65536 };

bool
icell_literal_too_long(const struct icell *ic, uint64_t size, bool plus)
{
    return ic->rev2 && plus && size > ICELL_LITERAL_MINUS_MAX;
}

void
icell_put_capabilities(struct icell *ic)
{
    /* RFC 7888 5: never both of these at once. Who has enabled IMAP4rev2 has the literals of RFC
     * 9051 4.3, which are those of LITERAL-. */
    stream_putf(&ic->s, "%s %s APPENDLIMIT=%llu%s", capabilities,
                ic->rev2 ? "LITERAL-" : "LITERAL+", (unsigned long long)ic->message_size_max,
                ic->deflate ? "" : " COMPRESS=DEFLATE");
}

void
icell_end(struct icell *ic, enum icell_status status, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    ic->cmd.status = status;
    buf_reset(&ic->cmd.answer);
    buf_addv(&ic->cmd.answer, fmt, ap);
    va_end(ap);
}

void
icell_end_err(struct icell *ic, const struct err *e)
{
    log_warn("%s", e->text);
    const char *code = e->class != ERR_LIMIT                       ? ""
                       : str_eq(str_z(e->text), STR("over quota")) ? "[OVERQUOTA] "
                                                                   : "[LIMIT] ";
    icell_end(ic, ICELL_NO, "%s%s", code, e->text);
}

void
icell_end_syntax(struct icell *ic)
{
    icell_end(ic, ICELL_BAD, "Error in the command's arguments.");
}

void
icell_command_reset(struct icell *ic)
{
    struct buf text = ic->cmd.text, answer = ic->cmd.answer;
    buf_reset(&text);
    buf_reset(&answer);
    ic->cmd = (struct icell_command){.text = text, .answer = answer};
    arena_reset(&ic->arena);
}

void
icell_unselect(struct icell *ic)
{
    if (!ic->mb_open)
        return;
    mailbox_close(&ic->mb);
    ic->mb_open = false;
    icell_message_reset(&ic->msg);
    ic->hot_uid = 0;
    ic->digest_keyed = false;
    buf_reset(&ic->told_flags);
    ic->told_exists = 0;
    free(ic->saved);
    ic->saved = NULL;
    ic->nsaved = 0;
    if (ic->state == ICELL_SELECTED)
        ic->state = ICELL_AUTHENTICATED;
}

/* ---- telling ---- */

void
icell_add_flags(const struct icell *ic, struct buf *out, const struct mailbox_message *m)
{
    static const struct {
        uint8_t flag;
        const char *name;
    } names[] = {{MAILBOX_ANSWERED, "\\Answered"},
                 {MAILBOX_FLAGGED, "\\Flagged"},
                 {MAILBOX_DELETED, "\\Deleted"},
                 {MAILBOX_SEEN, "\\Seen"},
                 {MAILBOX_DRAFT, "\\Draft"}};
    const char *gap = "";
    buf_addc(out, '(');
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (m->flags & names[i].flag) {
            buf_addz(out, gap);
            buf_addz(out, names[i].name);
            gap = " ";
        }
    if (m->recent && !ic->rev2) { /* RFC 9051 E 12 */
        buf_addf(out, "%s\\Recent", gap);
        gap = " ";
    }
    for (int k = 0; k < KEYWORDS_MAX && m->keywords >> k; k++)
        if ((m->keywords >> k & 1) && ic->mb.keywords.name[k][0]) {
            buf_addz(out, gap);
            buf_addz(out, ic->mb.keywords.name[k]);
            gap = " ";
        }
    buf_addc(out, ')');
}

void
icell_tell_flags(struct icell *ic)
{
    struct buf list = buf_new(8192);
    bool full = true;
    buf_addz(&list, "\\Answered \\Flagged \\Deleted \\Seen \\Draft");
    for (int k = 0; k < KEYWORDS_MAX; k++) {
        full = full && ic->mb.keywords.name[k][0];
        if (ic->mb.keywords.name[k][0])
            buf_addf(&list, " %s", ic->mb.keywords.name[k]);
    }
    if (!str_eq(buf_str(&list), buf_str(&ic->told_flags))) {
        stream_putf(&ic->s, "* FLAGS (%s)\r\n", buf_z(&list));
        if (ic->mb.read_only)
            stream_putz(&ic->s, "* OK [PERMANENTFLAGS ()] Read-only mailbox.\r\n");
        else
            stream_putf(&ic->s, "* OK [PERMANENTFLAGS (%s%s)] Flags permitted.\r\n", buf_z(&list),
                        full ? "" : " \\*");
        buf_reset(&ic->told_flags);
        buf_add(&ic->told_flags, buf_str(&list));
    }
    buf_free(&list);
}

/* From the highest number down, so that none changes before it is told. */
static void
tell_numbers(struct icell *ic, size_t told)
{
    for (size_t i = told; i-- > 0;)
        if (ic->mb.msgs[i].gone)
            stream_putf(&ic->s, "* %zu EXPUNGE\r\n", i + 1);
}

/* RFC 7162 3.2.10 */
static void
tell_vanished(struct icell *ic, size_t told)
{
    uint32_t uids[1000];
    size_t n = 0;
    for (size_t i = 0; i < told; i++) {
        if (ic->mb.msgs[i].gone)
            uids[n++] = ic->mb.msgs[i].uid;
        if (n && (n == sizeof uids / sizeof uids[0] || i + 1 == told)) {
            stream_putz(&ic->s, "* VANISHED ");
            icell_seqset_add(&ic->s.out, uids, n);
            stream_putz(&ic->s, "\r\n");
            n = 0;
        }
    }
}

static void
tell_expunged(struct icell *ic)
{
    size_t gone = 0, gone_told = 0;
    /* What the client has not been told of cannot be taken from it (RFC 3501 7.4.1). */
    size_t told = ic->told_exists < ic->mb.n ? ic->told_exists : ic->mb.n;
    for (size_t i = 0; i < ic->mb.n; i++) {
        gone += ic->mb.msgs[i].gone;
        gone_told += ic->mb.msgs[i].gone && i < told;
    }
    if (!gone)
        return;
    if (ic->qresync)
        tell_vanished(ic, told);
    else
        tell_numbers(ic, told);
    ic->told_exists -= gone_told;
    mailbox_drop_gone(&ic->mb);
}

void
icell_tell_exists(struct icell *ic)
{
    const struct mailbox_counts counts = mailbox_count(&ic->mb);
    stream_putf(&ic->s, "* %u EXISTS\r\n", counts.messages);
    if (!ic->rev2)
        stream_putf(&ic->s, "* %u RECENT\r\n", counts.recent);
}

void
icell_tell(struct icell *ic, bool expunge)
{
    if (!ic->mb.news) {
        icell_tell_flags(ic);
        return;
    }
    if (expunge)
        tell_expunged(ic);
    if (ic->mb.n != ic->told_exists) {
        icell_tell_exists(ic);
        ic->told_exists = ic->mb.n;
    }
    icell_tell_flags(ic);
    for (size_t i = 0; i < ic->mb.n; i++) {
        struct mailbox_message *m = &ic->mb.msgs[i];
        if (!m->changed || m->gone)
            continue;
        m->changed = false;
        struct buf line = buf_new(8192);
        buf_addf(&line, "* %zu FETCH (UID %u FLAGS ", i + 1, m->uid);
        icell_add_flags(ic, &line, m);
        if (ic->condstore)
            buf_addf(&line, " MODSEQ (%llu)", (unsigned long long)m->modseq);
        buf_addz(&line, ")\r\n");
        stream_put(&ic->s, buf_str(&line));
        buf_free(&line);
    }
    /* What has gone is still to be told when it may not be told now. */
    ic->mb.news = !expunge;
}

static void
give_up(struct icell *ic, const struct err *e)
{
    log_warn("%s", e->text);
    if (e->class == ERR_PERMANENT) {
        stream_putz(&ic->s, "* BYE The mailbox has changed under us, please reconnect.\r\n");
        ic->bye = "the mailbox changed under us";
        ic->state = ICELL_LOGOUT;
    }
}

void
icell_sync(struct icell *ic, bool expunge)
{
    struct err e = {0};
    if (mailbox_refresh(&ic->mb, &e) == 0)
        icell_tell(ic, expunge);
    else
        give_up(ic, &e);
}

int
icell_need_messages(struct icell *ic)
{
    struct err e = {0};
    if (mailbox_load(&ic->mb, &e) == 0)
        return 0;
    /* Numbers have been told that nothing stands behind. */
    e.class = ERR_PERMANENT;
    give_up(ic, &e);
    icell_end(ic, ICELL_NO, "%s", e.text);
    return -1;
}

/* What was learnt since the last answer has no number before the client knows of it. */
static void
tell_exists(struct icell *ic)
{
    if (ic->state != ICELL_SELECTED || !ic->mb_open || ic->mb.n <= ic->told_exists)
        return;
    stream_putf(&ic->s, "* %zu EXISTS\r\n", ic->mb.n);
    ic->told_exists = ic->mb.n;
}

/* Commands of a selected mailbox that look at no message. */
static bool
needs_messages(const struct icell_row *row)
{
    return row->states == ICELL_SELECTED && row->run != icell_cmd_noop &&
           row->run != icell_cmd_close && row->run != icell_cmd_unselect;
}

/* ---- the loop ---- */

void
icell_answer(struct icell *ic)
{
    static const char *const words[] = {"", "OK", "NO", "BAD"};
    struct icell_command *cmd = &ic->cmd;
    if (cmd->status == ICELL_NONE)
        return;
    stream_put(&ic->s, cmd->tag.n ? cmd->tag : STR("*"));
    stream_putf(&ic->s, " %s ", words[cmd->status]);
    stream_put(&ic->s, buf_str(&cmd->answer));
    stream_putz(&ic->s, "\r\n");
    if (cmd->status != ICELL_BAD) {
        ic->bad = 0;
    } else if (++ic->bad >= ICELL_BAD_MAX && ic->state != ICELL_LOGOUT) {
        stream_putz(&ic->s, "* BYE Too many invalid commands.\r\n");
        ic->bye = "Too many invalid commands";
        ic->state = ICELL_LOGOUT;
    }
}

static const struct icell_row *
find_row(struct icell *ic)
{
    struct icell_command *cmd = &ic->cmd;
    struct str name = cur_while(&cmd->args, ch_alpha);
    if (str_caseeq(name, STR("UID")) && cur_take(&cmd->args, ' ')) {
        cmd->uid = true;
        name = cur_while(&cmd->args, ch_alpha);
    }
    const struct icell_row *row = icell_row(name);
    return row && (!cmd->uid || row->uid) ? row : NULL;
}

/* The bytes of a literal, and the line that goes on behind it. */
static int
swallow_literal(struct icell *ic, struct str *line_r)
{
    struct err e;
    uint64_t left = ic->cmd.literal.size;
    struct str have;
    bool bare;
    while (left && stream_peek(&ic->s, &have, &e) == 0) {
        have = str_sub(have, 0, left);
        left -= have.n;
        stream_take(&ic->s, have.n);
    }
    return left ? -1 : stream_line(&ic->s, ICELL_LINE_MAX, line_r, &bare, &e);
}

/* APPEND's literals when APPEND did not want them. Behind each there may be another (RFC 3502):
 * what is in it is no command either. */
static void
swallow_literals(struct icell *ic)
{
    struct str line, head;
    while (ic->cmd.literal.waiting && ic->cmd.literal.plus) {
        if (ic->cmd.literal.size > ic->message_size_max) {
            stream_putz(&ic->s, "* BYE Literal too long.\r\n");
            ic->bye = "Literal too long";
            ic->state = ICELL_LOGOUT;
            return;
        }
        if (swallow_literal(ic, &line) < 0) {
            ic->bye = "Connection lost in a literal";
            ic->state = ICELL_LOGOUT;
            return;
        }
        ic->cmd.literal.waiting =
            icell_find_literal(line, &head, &ic->cmd.literal.size, &ic->cmd.literal.plus) == 0;
    }
    ic->cmd.literal.waiting = false;
}

static bool
has_input(const struct icell *ic)
{
    struct pollfd p = {.fd = ic->s.fd_in, .events = POLLIN};
    return stream_buffered(&ic->s) || icell_deflate_pending(ic->deflate) || poll(&p, 1, 0) != 0;
}

void
icell_run_command(struct icell *ic)
{
    struct icell_command *cmd = &ic->cmd;
    const struct icell_row *row = NULL;
    if (cmd->status != ICELL_NONE) {
        /* refused while it was read */
    } else if (cmd->malformed) {
        icell_end(ic, ICELL_BAD, "NUL or CR in a command.");
    } else if (!cmd->tag.n) {
        icell_end(ic, ICELL_BAD, "No tag, or no command behind it.");
    } else if (!(row = find_row(ic))) {
        icell_end(ic, ICELL_BAD, "Unknown command.");
    } else if (!(row->states & (unsigned)ic->state)) {
        icell_end(ic, ICELL_BAD, "No mailbox selected.");
        row = NULL;
    } else if (!needs_messages(row) || icell_need_messages(ic) == 0) {
        tell_exists(ic);
        row->run(ic);
    }
    swallow_literals(ic);
    if (row && row->sync != ICELL_SYNC_NONE && ic->state == ICELL_SELECTED)
        icell_sync(ic, row->sync == ICELL_SYNC_ALL || cmd->uid);
    icell_answer(ic);
    /* The client has its answer: now there is time to keep what was found out. */
    if (ic->mb_open && stream_flush(&ic->s, NULL) == 0)
        while (mailbox_settle(&ic->mb) && !has_input(ic))
            ;
}

void
icell_begin(struct icell *ic, int client_fd, int root_fd)
{
    *ic = (struct icell){.root_fd = root_fd,
                         .state = ICELL_AUTHENTICATED,
                         .message_size_max = ic->message_size_max,
                         .park = ic->park};
    ic->arena = arena_new(ICELL_ARENA_MAX);
    ic->msg.arena = arena_new(ICELL_ARENA_MAX);
    ic->cmd.text = buf_new(ICELL_COMMAND_MAX);
    ic->cmd.answer = buf_new(ANSWER_MAX);
    ic->told_flags = buf_new(8192);
    ic->hot = buf_new(65536);
    ic->digest = buf_new(4096);
    ic->ready = buf_new(ICELL_READY_MAX);
    stream_init(&ic->s, client_fd, client_fd, IN_MAX, ICELL_IDLE_MS);
}

void
icell_loop(struct icell *ic)
{
    while (ic->state != ICELL_LOGOUT) {
        icell_command_reset(ic);
        if (icell_read_command(ic) < 0)
            break;
        icell_run_command(ic);
    }
    if (!ic->park.done)
        (void)stream_flush(&ic->s, NULL);
}

void
icell_run(struct icell *ic, int client_fd, int root_fd, struct str tag, struct str unread)
{
    icell_begin(ic, client_fd, root_fd);
    stream_preload(&ic->s, unread);
    if (tag.n) {
        stream_put(&ic->s, tag);
        stream_putz(&ic->s, " OK [CAPABILITY ");
        icell_put_capabilities(ic);
        stream_putz(&ic->s, "] Logged in\r\n");
    }
    icell_loop(ic);
}

void
icell_free(struct icell *ic)
{
    icell_unselect(ic);
    icell_message_reset(&ic->msg);
    arena_free(&ic->msg.arena);
    arena_free(&ic->arena);
    buf_free(&ic->cmd.text);
    buf_free(&ic->cmd.answer);
    buf_free(&ic->told_flags);
    buf_free(&ic->hot);
    buf_free(&ic->digest);
    buf_free(&ic->ready);
    stream_free(&ic->s);
    icell_deflate_free(ic->deflate);
    ic->deflate = NULL;
}
