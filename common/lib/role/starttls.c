#include "lib/role/starttls.h"
#include "lib/ipc/channel.h"
#include <stdio.h>
#include <unistd.h>

bool
starttls_possible(const struct start *start, const struct conf *conf)
{
    return conf_keys(conf, start->role) > 0 && start_door(start, R_TLSD) >= 0;
}

/* The end of the socket pair, or -1. */
static int
ask(const struct start *start, const struct stream *s, char *text_r, struct err *e)
{
    struct msg m = {0};
    int clear = -1;
    msg_begin(&m, M_TLS_START);
    msg_add_fd(&m, s->fd_in);
    msg_add_fd(&m, s->fd_out);
    int channel = start_channel(start, R_TLSD, &m, e);
    if (channel >= 0 &&
        chan_answer(channel, &m, M_TLS_STARTED, start->role, R_TLSD, STARTTLS_MS, e) == 0) {
        struct str version = msg_get_str(&m), cipher = msg_get_str(&m);
        snprintf(text_r, STARTTLS_TEXT_MAX, "%.*s %.*s", STR_ARG(version), STR_ARG(cipher));
        if (msg_end(&m))
            clear = msg_take_fd(&m, 0);
        else
            err_set(e, ERR_PROTOCOL, "tlsd: malformed answer");
    }
    msg_free(&m);
    if (channel >= 0)
        close(channel);
    return clear;
}

int
starttls(const struct start *start, struct stream *s, char *text_r, struct err *e)
{
    int clear = -1;
    /* What came before TLS must not be taken for what comes inside it. */
    if (stream_buffered(s))
        err_set(e, ERR_PROTOCOL, "data in clear behind the start of TLS");
    else if (stream_flush(s, e) == 0)
        clear = ask(start, s, text_r, e);
    close(s->fd_in);
    if (s->fd_out != s->fd_in)
        close(s->fd_out);
    if (clear < 0) {
        s->broken = true;
        s->fd_in = s->fd_out = -1;
        return -1;
    }
    stream_switch(s, clear);
    return 0;
}
