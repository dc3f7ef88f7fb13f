#include "pop3d/cell/commands.h"
#include "lib/base/encode.h"
#include "lib/base/siphash.h"
#include "lib/log/log.h"
#include "lib/mail/header.h"
#include "lib/mailbox/mailfile.h"
#include "lib/mailbox/mailname.h"
#include <unistd.h>

enum { UIDL_MAX = 70 };

/* ---- text ---- */

void
pcell_put_begin(struct pcell_text *t, uint64_t body_lines)
{
    *t = (struct pcell_text){.line_start = true, .empty = true, .left = body_lines};
}

/* Where the piece's part that may be sent ends; counts lines. */
static size_t
within(struct pcell_text *t, struct str line, bool lf)
{
    if (t->in_body && t->line_start && t->left-- == 0) {
        t->done = true;
        return 0;
    }
    for (size_t i = 0; i < line.n && t->empty && !t->in_body; i++)
        t->empty = line.p[i] == '\r' || line.p[i] == '\n';
    if (lf) {
        t->in_body |= t->empty;
        t->empty = true;
    }
    return line.n;
}

void
pcell_put_piece(struct stream *s, struct pcell_text *t, struct str piece)
{
    while (piece.n && !t->done && !s->broken) {
        ptrdiff_t lf = str_chr(piece, '\n');
        struct str line = str_sub(piece, 0, lf < 0 ? piece.n : (size_t)lf + 1);
        if (within(t, line, lf >= 0) == 0)
            return;
        if (t->line_start && line.p[0] == '.')
            stream_putz(s, ".");
        for (size_t at = 0; at < line.n; at += 32768) /* a line may be as long as the message */
            stream_put(s, str_sub(line, at, 32768));
        t->line_start = lf >= 0;
        piece = str_from(piece, line.n);
    }
}

void
pcell_put_end(struct stream *s, struct pcell_text *t)
{
    if (!t->line_start)
        stream_putz(s, "\r\n");
    stream_putz(s, ".\r\n");
}

static void
put_base(struct buf *out, struct str base)
{
    bool fit = base.n > 0 && base.n <= UIDL_MAX;
    for (size_t i = 0; i < base.n && fit; i++)
        fit = base.p[i] > 0x20 && base.p[i] < 0x7f;
    if (fit) {
        buf_add(out, base);
        return;
    }
    static const struct sipkey keys[2] = {{"pop3 uidl, one"}, {"pop3 uidl, two"}};
    buf_addf(out, "h%016llx%016llx", (unsigned long long)siphash(&keys[0], base),
             (unsigned long long)siphash(&keys[1], base));
}

void
pcell_uidl(struct buf *out, struct str file)
{
    struct mailname name;
    put_base(out, mailname_parse(file, &name) < 0 ? file : name.base);
}

/* ---- arguments ---- */

static void
bad_arguments(struct pcell *pc)
{
    stream_putz(&pc->s, "-ERR Invalid arguments.\r\n");
    pc->bad++;
}

/* The message of this number, or -1 and an answer. */
static int
message(struct pcell *pc, struct str number, size_t *i_r)
{
    uint32_t n;
    if (str_u32(number, UINT32_MAX, &n) < 0) {
        bad_arguments(pc);
        return -1;
    }
    if (n == 0 || n > pc->n || pc->deleted[n - 1]) {
        stream_putz(&pc->s, "-ERR There is no such message.\r\n");
        return -1;
    }
    *i_r = n - 1;
    return 0;
}

static bool
no_arguments(struct pcell *pc, struct str args)
{
    if (args.n)
        bad_arguments(pc);
    return args.n == 0;
}

/* ---- commands ---- */

static void
totals(const struct pcell *pc, size_t *n_r, uint64_t *bytes_r)
{
    *n_r = 0;
    *bytes_r = 0;
    for (size_t i = 0; i < pc->n; i++)
        if (!pc->deleted[i]) {
            (*n_r)++;
            *bytes_r += pc->sizes[i];
        }
}

void
pcell_cmd_stat(struct pcell *pc, struct str args)
{
    size_t n;
    uint64_t bytes;
    if (!no_arguments(pc, args))
        return;
    totals(pc, &n, &bytes);
    stream_putf(&pc->s, "+OK %zu %llu\r\n", n, (unsigned long long)bytes);
}

static void
put_uidl(struct pcell *pc, size_t i)
{
    struct err e = {0};
    struct str base;
    struct buf *out = &pc->s.out;
    /* Not known only when the index was damaged under us: a look at the folder mends that. */
    if (mailbox_base(&pc->mb, i, &base) < 0 &&
        (mailbox_refresh(&pc->mb, &e) < 0 || mailbox_base(&pc->mb, i, &base) < 0))
        buf_addf(out, "u%u.%u", pc->mb.msgs[i].uid, pc->mb.validity);
    else
        put_base(out, base);
}

static void
put_row(struct pcell *pc, size_t i, bool uidl)
{
    struct buf *out = &pc->s.out;
    buf_addu(out, i + 1);
    buf_addc(out, ' ');
    if (uidl)
        put_uidl(pc, i);
    else
        buf_addu(out, pc->sizes[i]);
    stream_putz(&pc->s, "\r\n");
}

static void
list(struct pcell *pc, struct str args, bool uidl)
{
    size_t i;
    if (args.n) {
        if (message(pc, args, &i) < 0)
            return;
        stream_putz(&pc->s, "+OK ");
        put_row(pc, i, uidl);
        return;
    }
    stream_putz(&pc->s, "+OK\r\n");
    for (i = 0; i < pc->n; i++)
        if (!pc->deleted[i])
            put_row(pc, i, uidl);
    stream_putz(&pc->s, ".\r\n");
}

void
pcell_cmd_list(struct pcell *pc, struct str args)
{
    list(pc, args, false);
}

void
pcell_cmd_uidl(struct pcell *pc, struct str args)
{
    list(pc, args, true);
}

/* The message, and the size of what will be sent; or -1 and an answer. */
static int
load(struct pcell *pc, size_t i, struct mailfile *f, uint64_t *size_r)
{
    struct err e = {0};
    int fd = mailbox_open_message(&pc->mb, i, &e);
    *f = (struct mailfile){0};
    if (fd >= 0 && mailfile_load(f, fd, false, &e) == 0) {
        if (mailfile_size(f, size_r, &e) == 0)
            return 0;
        mailfile_free(f);
    }
    log_warn("UID %u: %s", pc->mb.msgs[i].uid, e.text);
    stream_putf(&pc->s, "-ERR %s.\r\n",
                pc->mb.msgs[i].gone ? "The message has been removed by another session"
                                    : "[SYS/TEMP] The message cannot be read");
    return -1;
}

/* What is sent cannot be taken back: a message that cannot be read to its end ends the connection.
 */
static void
put_file(struct pcell *pc, const struct mailfile *f, uint64_t size, uint64_t body_lines)
{
    static struct mailreader r;
    struct pcell_text t;
    struct str piece;
    struct err e = {0};
    int got = 0;
    mailreader_begin(&r, f, 0, size);
    pcell_put_begin(&t, body_lines);
    while (!t.done && !pc->s.broken && (got = mailreader_next(&r, &piece, &e)) > 0)
        pcell_put_piece(&pc->s, &t, piece);
    if (got < 0) {
        log_warn("%s", e.text);
        pc->s.broken = pc->over = true;
        pc->ended = "A message could not be read to its end";
        return;
    }
    pcell_put_end(&pc->s, &t);
}

void
pcell_cmd_retr(struct pcell *pc, struct str args)
{
    size_t i;
    uint64_t size;
    struct mailfile f;
    if (message(pc, args, &i) < 0 || load(pc, i, &f, &size) < 0)
        return;
    uint64_t before = pc->s.bytes_out + pc->s.out.n;
    stream_putf(&pc->s, "+OK %llu octets\r\n", (unsigned long long)size);
    put_file(pc, &f, size, UINT64_MAX);
    mailfile_free(&f);
    pc->did.retr++;
    pc->did.retr_bytes += pc->s.bytes_out + pc->s.out.n - before;
    pc->read[i] |= !pc->s.broken && !(pc->mb.msgs[i].flags & MAILBOX_SEEN);
}

void
pcell_cmd_top(struct pcell *pc, struct str args)
{
    size_t i;
    uint64_t lines, size;
    struct mailfile f;
    struct str count = args;
    struct str number = str_cut(&count, ' ');
    if (str_u64(count, INT64_MAX, &lines) < 0) {
        bad_arguments(pc);
        return;
    }
    if (message(pc, number, &i) < 0 || load(pc, i, &f, &size) < 0)
        return;
    uint64_t before = pc->s.bytes_out + pc->s.out.n;
    stream_putz(&pc->s, "+OK\r\n");
    put_file(pc, &f, size, lines);
    mailfile_free(&f);
    pc->did.top++;
    pc->did.top_bytes += pc->s.bytes_out + pc->s.out.n - before;
}

void
pcell_cmd_dele(struct pcell *pc, struct str args)
{
    size_t i;
    if (message(pc, args, &i) < 0)
        return;
    pc->deleted[i] = true;
    stream_putz(&pc->s, "+OK Marked to be deleted.\r\n");
}

void
pcell_cmd_noop(struct pcell *pc, struct str args)
{
    if (no_arguments(pc, args))
        stream_putz(&pc->s, "+OK\r\n");
}

void
pcell_cmd_rset(struct pcell *pc, struct str args)
{
    if (!no_arguments(pc, args))
        return;
    for (size_t i = 0; i < pc->n; i++)
        pc->deleted[i] = false;
    stream_putz(&pc->s, "+OK\r\n");
}

void
pcell_cmd_capa(struct pcell *pc, struct str args)
{
    if (no_arguments(pc, args))
        stream_putz(&pc->s, "+OK\r\nTOP\r\nUIDL\r\nRESP-CODES\r\nPIPELINING\r\n.\r\n");
}

/* Under one lock, but not for so long that others wait. */
static void
each_in_batches(struct pcell *pc, const bool *which, void (*run)(struct pcell *pc, size_t i))
{
    size_t done = 0;
    bool locked = false;
    for (size_t i = 0; i < pc->n; i++) {
        if (!which[i])
            continue;
        if (!locked)
            locked = mailbox_changes_begin(&pc->mb, NULL) == 0;
        run(pc, i);
        if (++done % MAILBOX_BATCH == 0 && locked) {
            mailbox_changes_end(&pc->mb);
            locked = false;
        }
    }
    if (locked)
        mailbox_changes_end(&pc->mb);
}

static void
mark_one(struct pcell *pc, size_t i)
{
    (void)mailbox_store(&pc->mb, i, MAILBOX_ADD, MAILBOX_SEEN, 0, NULL);
    pc->read[i] = false;
}

void
pcell_mark_read(struct pcell *pc)
{
    if (pc->read)
        each_in_batches(pc, pc->read, mark_one);
}

static void
remove_one(struct pcell *pc, size_t i)
{
    struct err e = {0};
    pc->read[i] = false;
    if (mailbox_unlink(&pc->mb, i, &e) == 0)
        pc->did.dele++;
    else if (!pc->did.failed++)
        log_error("a message could not be removed: %s", e.text);
}

/* RFC 1939 6: the UPDATE state. What could not be removed is said. */
void
pcell_cmd_quit(struct pcell *pc, struct str args)
{
    if (!no_arguments(pc, args))
        return;
    /* Nothing is removed for a client that has gone before it had what it asked for. */
    if (stream_flush(&pc->s, NULL) < 0) {
        pc->over = true;
        pc->ended = "Connection lost";
        return;
    }
    each_in_batches(pc, pc->deleted, remove_one);
    pcell_mark_read(pc);
    if (pc->did.failed)
        stream_putz(&pc->s, "-ERR [SYS/TEMP] Some deleted messages were not removed.\r\n");
    else
        stream_putz(&pc->s, "+OK Logging out.\r\n");
    pc->over = true;
    pc->ended = "Logged out";
}

/* ---- the table ---- */

static const struct pcell_row rows[] = {
    {"STAT", pcell_cmd_stat}, {"LIST", pcell_cmd_list}, {"RETR", pcell_cmd_retr},
    {"DELE", pcell_cmd_dele}, {"NOOP", pcell_cmd_noop}, {"RSET", pcell_cmd_rset},
    {"TOP", pcell_cmd_top},   {"UIDL", pcell_cmd_uidl}, {"CAPA", pcell_cmd_capa},
    {"QUIT", pcell_cmd_quit},
};

const struct pcell_row *
pcell_row(struct str name)
{
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (str_caseeq(name, str_z(rows[i].name)))
            return &rows[i];
    return NULL;
}
