#include "lib/ipc/remote.h"
#include <unistd.h>

enum { SEND_MS = 10000, TRIES = 3 };

void
remote_init(struct remote *s, const struct start *start, enum role me, enum role it)
{
    *s = (struct remote){.start = start, .me = me, .it = it, .fd = -1};
}

void
remote_close(struct remote *s)
{
    if (s->fd >= 0)
        close(s->fd);
    s->fd = -1;
}

int
remote_send(struct remote *s, const struct msg *m, struct err *e)
{
    if (s->fd < 0) {
        s->fd = start_channel_for(s->start, s->it, s->front, m, e);
        return s->fd < 0 ? -1 : 0;
    }
    int sent = chan_send(s->fd, m, SEND_MS, e);
    if (sent < 0)
        remote_close(s);
    return sent;
}

int
remote_answer(struct remote *s, struct msg *m, enum msg_type want, int timeout_ms, struct err *e)
{
    int n = chan_answer(s->fd, m, want, s->me, s->it, timeout_ms, e);
    if (n < 0 && !chan_is_refusal(e->class))
        remote_close(s);
    return n;
}

static int
ask_once(struct remote *s, struct msg *m, enum msg_type want, int timeout_ms, struct err *e)
{
    return remote_send(s, m, e) < 0 ? -1 : remote_answer(s, m, want, timeout_ms, e);
}

int
remote_ask(struct remote *s, struct msg *m, enum msg_type want, int timeout_ms, struct err *e)
{
    /* The answer takes the place of the request. */
    enum msg_type request = m->type;
    struct buf fields = buf_new(MSG_PAYLOAD_MAX);
    int lent[MSG_FDS_MAX];
    size_t nlent = m->lent ? m->nfds : 0;
    memcpy(lent, m->fds, sizeof lent);
    buf_add(&fields, buf_str(&m->fields));
    int n = ask_once(s, m, want, timeout_ms, e);
    for (int tries = 1; tries < TRIES && n < 0 && e->class == ERR_CLOSED && buf_ok(&fields);
         tries++) {
        msg_begin(m, request);
        buf_add(&m->fields, buf_str(&fields));
        for (size_t i = 0; i < nlent; i++)
            msg_add_fd(m, lent[i]);
        n = ask_once(s, m, want, timeout_ms, e);
    }
    buf_wipe(&fields); /* it may hold a password */
    return n;
}
