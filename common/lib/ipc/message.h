/*
 * message: what one program says to another: a frame with a type, fields and descriptors.
 *
 * SOCK_SEQPACKET keeps frames whole; a frame is a 12-byte head (magic, version, count of
 * descriptors, type, length) and at most MSG_PAYLOAD_MAX bytes of fields. A field is a kind byte
 * and a value; text carries its length. Fields come in the order the table (lib/ipc/table.def)
 * lists. Reading is checked: one wrong kind or length makes the whole message bad (msg_end() says
 * so), and a bad message closes the peer that sent it.
 *
 * Descriptors in a message belong to it: msg_free() and the next msg_recv() close what was not
 * taken with msg_take_fd(). msg_add_fd() lends: the sender's descriptor stays the sender's.
 */
#pragma once
#include "lib/base/buf.h"
#include "lib/base/err.h"
#include "lib/ipc/table.h"

enum { MSG_PAYLOAD_MAX = 65536 - 12, MSG_FDS_MAX = 3 };

struct msg {
    enum msg_type type;
    struct buf fields;
    size_t at; /* read position in fields */
    bool bad;  /* a read went wrong */
    int fds[MSG_FDS_MAX];
    size_t nfds;
    bool lent; /* fds are the sender's: not ours to close */
};

/* Zero-initialise (struct msg){0} before the first use; these start a new message or forget it. */
void msg_begin(struct msg *m, enum msg_type type);
/* One whose fields are in the caller's room as long as they fit. */
static inline struct msg
msg_on(char *room, size_t size)
{
    return (struct msg){.fields = buf_on(room, size, MSG_PAYLOAD_MAX)};
}
void msg_free(struct msg *m);

void msg_put_u32(struct msg *m, uint32_t v);
void msg_put_u64(struct msg *m, uint64_t v);
void msg_put_str(struct msg *m, struct str s);
void msg_put_bool(struct msg *m, bool v);
void msg_add_fd(struct msg *m, int fd);
/* Bytes of text that still fit (an estimate on the safe side). */
size_t msg_room(const struct msg *m);

uint32_t msg_get_u32(struct msg *m); /* 0 when bad */
uint64_t msg_get_u64(struct msg *m);
struct str msg_get_str(struct msg *m); /* points into the message; empty when bad */
bool msg_get_bool(struct msg *m);
int msg_take_fd(struct msg *m, size_t index); /* now the caller's; -1 when not there */
/* True when all fields were read, with the right kinds, and none is left. */
bool msg_end(struct msg *m);

/* Wipe what a received message held: it had a secret. */
void msg_forget(struct msg *m);

/* Write the frame to the socket. 0; -1 with errno (EAGAIN when the peer's queue is full, EMSGSIZE
 * when the fields overflowed). Never blocks (whatever the peer did to the socket's flags), never
 * raises SIGPIPE. */
int msg_send(int fd, const struct msg *m);
/* Read one frame: its head, type and count of descriptors are checked against the table, with from
 * as the sender's role and to as ours. 1: a message. 0: the peer has closed, or sent an empty
 * frame. -1: nothing there now (errno EAGAIN), or the peer broke the rules (errno EPROTO;
 * descriptors are closed, log and close the channel). m is emptied first. */
int msg_recv(int fd, struct msg *m, enum role from, enum role to);
