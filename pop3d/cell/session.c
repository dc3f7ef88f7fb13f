#include "lib/log/log.h"
#include "pop3d/cell/commands.h"
#include <stdlib.h>

enum { IN_MAX = 2 * 65536, SKIP_MAX = 65536 };

static void
over(struct pcell *pc, const char *why)
{
    pc->over = true;
    pc->ended = why;
}

/* Open the INBOX for this session alone, and know all sizes. */
static int
open_inbox(struct pcell *pc, int root_fd, struct err *e)
{
    if (mailbox_open(&pc->mb, root_fd, STR("INBOX"), false, e) < 0)
        return -1;
    if (mailbox_claim(&pc->mb, e) < 0)
        return -1;
    pc->n = pc->mb.n;
    pc->deleted = calloc(pc->n + 1, sizeof *pc->deleted);
    pc->read = calloc(pc->n + 1, sizeof *pc->read);
    pc->sizes = calloc(pc->n + 1, sizeof *pc->sizes);
    if (!pc->deleted || !pc->read || !pc->sizes)
        return err_set(e, ERR_TEMPORARY, "out of memory");
    for (size_t i = 0; i < pc->n; i++)
        if (mailbox_vsize(&pc->mb, i, &pc->sizes[i], e) < 0 && !pc->mb.msgs[i].gone)
            log_warn("UID %u: %s", pc->mb.msgs[i].uid, e->text); /* RETR will say so, too */
    return 0;
}

static void
run_line(struct pcell *pc, struct str line)
{
    struct str args = line;
    struct str name = str_cut(&args, ' ');
    const struct pcell_row *row = pcell_row(name);
    unsigned before = pc->bad;
    if (!row) {
        stream_putz(&pc->s, "-ERR Unknown command.\r\n");
        pc->bad++;
    } else {
        row->run(pc, str_trim(args));
    }
    if (pc->bad == before)
        pc->bad = 0;
    if (pc->bad >= PCELL_BAD_MAX && !pc->over) {
        stream_putz(&pc->s, "-ERR Too many invalid commands.\r\n");
        over(pc, "Too many invalid commands");
    }
}

static void
next_line(struct pcell *pc)
{
    static struct err e;
    struct str line;
    bool bare;
    if (stream_line(&pc->s, PCELL_LINE_MAX, &line, &bare, &e) == 0) {
        if (str_chr(line, '\0') < 0 && str_chr(line, '\r') < 0) {
            run_line(pc, line);
            return;
        }
    } else if (e.class != ERR_LIMIT || pc->s.broken || stream_skip_line(&pc->s, SKIP_MAX, &e) < 0) {
        if (e.class == ERR_TIMEOUT) {
            pc->s.broken = false;
            stream_putz(&pc->s, "-ERR Disconnected for inactivity.\r\n");
        }
        over(pc, e.class == ERR_TIMEOUT ? "Disconnected for inactivity" : e.text);
        return;
    }
    stream_putz(&pc->s, "-ERR Malformed command.\r\n");
    if (++pc->bad >= PCELL_BAD_MAX)
        over(pc, "Too many invalid commands");
}

void
pcell_run(struct pcell *pc, int client_fd, int root_fd, struct str unread)
{
    struct err e = {0};
    *pc = (struct pcell){.mb = {.lock_fd = -1}};
    stream_init(&pc->s, client_fd, client_fd, IN_MAX, PCELL_IDLE_MS);
    stream_preload(&pc->s, unread);
    if (open_inbox(pc, root_fd, &e) < 0) {
        bool in_use = e.class == ERR_LIMIT;
        if (!in_use)
            log_error("%s", e.text);
        stream_putf(&pc->s, "-ERR %s\r\n",
                    in_use ? "[IN-USE] Mailbox is in use by another session."
                           : "[SYS/TEMP] Mailbox cannot be opened.");
        over(pc, in_use ? "Mailbox is in use" : "Mailbox cannot be opened");
    } else {
        uint64_t bytes = 0;
        for (size_t i = 0; i < pc->n; i++)
            bytes += pc->sizes[i];
        stream_putf(&pc->s, "+OK Logged in, %zu messages, %llu octets.\r\n", pc->n,
                    (unsigned long long)bytes);
    }
    while (!pc->over) {
        next_line(pc);
        /* Who has not been told of one command has nothing done by the next ones. */
        if (pc->s.broken && !pc->over)
            over(pc, "Connection lost");
    }
    (void)stream_flush(&pc->s, NULL);
    pcell_mark_read(pc);
}

void
pcell_free(struct pcell *pc)
{
    if (pc->mb.lock_fd >= 0)
        mailbox_close(&pc->mb);
    free(pc->deleted);
    free(pc->read);
    free(pc->sizes);
    stream_free(&pc->s);
}
