/* IDLE (RFC 2177): inotify wakes us; where it cannot be had, a look every POLL_MS. */
#include "imapd/cell/args.h"
#include "imapd/cell/commands.h"
#include "imapd/cell/deflate.h"
#include "imapd/cell/park.h"
#include <errno.h>
#include <poll.h>
#include <unistd.h>

/* ALIVE_MS: middle boxes forget silent connections, often after five minutes. */
enum { POLL_MS = 20000, ALIVE_MS = 120000 };

/* What woke us: 1 the client, 0 the mailbox or the clock; *moved_r: the mailbox. */
static int
wait_turn(struct icell *ic, int watch_fd, int64_t until_ms, bool *moved_r)
{
    struct pollfd p[2] = {{.fd = ic->s.fd_in, .events = POLLIN},
                          {.fd = watch_fd, .events = POLLIN}};
    bool watched = ic->mb_open && watch_fd >= 0;
    *moved_r = false;
    if (stream_buffered(&ic->s) || icell_deflate_pending(ic->deflate))
        return 1;
    int ms = ms_left(until_ms);
    if (ic->mb_open && !watched && ms > POLL_MS)
        ms = POLL_MS;
    int n = poll(p, watch_fd >= 0 ? 2 : 1, ms);
    if (n < 0 && errno != EINTR)
        return 1;
    *moved_r = n > 0 && p[1].revents && watch_fd >= 0;
    if (*moved_r)
        mailbox_watch_drain(watch_fd);
    return n > 0 && p[0].revents;
}

static int64_t
earliest(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Until the client says something; or, when all has been quiet, until it is parked. */
static void
wait_for_client(struct icell *ic, int watch_fd, int64_t end_ms)
{
    int64_t alive = now_ms() + ALIVE_MS, quiet = now_ms() + (int64_t)ic->park.after_ms;
    bool moved;
    while (ic->state != ICELL_LOGOUT && stream_flush(&ic->s, NULL) == 0) {
        bool parks = ic->park.fd >= 0 && icell_can_park(ic, watch_fd);
        if (wait_turn(ic, watch_fd, earliest(earliest(alive, end_ms), parks ? quiet : alive),
                      &moved))
            return;
        int64_t now = now_ms();
        if (moved)
            quiet = now + (int64_t)ic->park.after_ms;
        if (now >= end_ms) {
            stream_putz(&ic->s, "* BYE Disconnected for inactivity.\r\n");
            ic->bye = "Disconnected for inactivity in IDLE";
            ic->state = ICELL_LOGOUT;
            return;
        }
        if (ic->mb_open)
            icell_sync(ic, true);
        if (now >= alive) {
            stream_putz(&ic->s, "* OK Still here\r\n");
            alive = now + ALIVE_MS;
        }
        if (parks && now >= quiet && icell_can_park(ic, watch_fd)) {
            icell_park(ic, watch_fd, end_ms);
            quiet = now + (int64_t)ic->park.after_ms;
        }
    }
}

void
icell_idle(struct icell *ic, int64_t end_ms)
{
    struct str line;
    struct err e = {0};
    bool bare;
    /* Which ones are recent is part of what is parked. */
    if (ic->mb_open && ic->mb.lazy && mailbox_count(&ic->mb).recent && icell_need_messages(ic) < 0)
        return;
    int watch_fd = ic->mb_open ? mailbox_watch(&ic->mb) : -1;
    /* What came between the last look and the watch. */
    if (ic->mb_open)
        icell_sync(ic, true);
    wait_for_client(ic, watch_fd, end_ms);
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

void
icell_cmd_idle(struct icell *ic)
{
    if (!icell_arg_end(&ic->cmd.args)) {
        icell_end_syntax(ic);
        return;
    }
    stream_putz(&ic->s, "+ idling\r\n");
    icell_idle(ic, now_ms() + ICELL_IDLE_MS);
}
