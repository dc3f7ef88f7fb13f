/* IDLE (RFC 2177): inotify wakes us; where it cannot be had, a look every POLL_MS. */
#include "imapd/cell/args.h"
#include "imapd/cell/commands.h"
#include "imapd/cell/deflate.h"
#include <errno.h>
#include <poll.h>
#include <unistd.h>

/* ALIVE_MS: middle boxes forget silent connections, often after five minutes. */
enum { POLL_MS = 20000, ALIVE_MS = 120000 };

/* What woke us: 1 the client, 0 the mailbox or the clock. */
static int
wait_turn(struct icell *ic, int watch_fd)
{
    struct pollfd p[2] = {{.fd = ic->s.fd_in, .events = POLLIN},
                          {.fd = watch_fd, .events = POLLIN}};
    bool watched = ic->mb_open && watch_fd >= 0;
    if (stream_buffered(&ic->s) || icell_deflate_pending(ic->deflate))
        return 1;
    int n = poll(p, watch_fd >= 0 ? 2 : 1, ic->mb_open && !watched ? POLL_MS : ALIVE_MS);
    if (n < 0 && errno != EINTR)
        return 1;
    if (n > 0 && p[1].revents && watch_fd >= 0)
        mailbox_watch_drain(watch_fd);
    return n > 0 && p[0].revents;
}

static void
idle(struct icell *ic, int watch_fd)
{
    int64_t end = now_ms() + ICELL_IDLE_MS, alive = now_ms() + ALIVE_MS;
    while (ic->state != ICELL_LOGOUT && stream_flush(&ic->s, NULL) == 0) {
        if (wait_turn(ic, watch_fd))
            return;
        if (now_ms() >= end) {
            stream_putz(&ic->s, "* BYE Disconnected for inactivity.\r\n");
            ic->bye = "Disconnected for inactivity in IDLE";
            ic->state = ICELL_LOGOUT;
            return;
        }
        if (ic->mb_open)
            icell_sync(ic, true);
        if (now_ms() >= alive) {
            stream_putz(&ic->s, "* OK Still here\r\n");
            alive = now_ms() + ALIVE_MS;
        }
    }
}

void
icell_cmd_idle(struct icell *ic)
{
    struct str line;
    struct err e = {0};
    bool bare;
    if (!icell_arg_end(&ic->cmd.args)) {
        icell_end_syntax(ic);
        return;
    }
    int watch_fd = ic->mb_open ? mailbox_watch(&ic->mb) : -1;
    stream_putz(&ic->s, "+ idling\r\n");
    /* What came between the last look and the watch. */
    if (ic->mb_open)
        icell_sync(ic, true);
    idle(ic, watch_fd);
    if (watch_fd >= 0)
        close(watch_fd);
    if (ic->state == ICELL_LOGOUT)
        return;
    if (stream_line(&ic->s, ICELL_LINE_MAX, &line, &bare, &e) < 0) {
        ic->bye = "Connection closed in IDLE";
        ic->state = ICELL_LOGOUT;
    } else if (str_caseeq(line, STR("DONE"))) {
        icell_end(ic, ICELL_OK, "Idle completed.");
    } else {
        icell_end(ic, ICELL_BAD, "Expected DONE.");
    }
}
