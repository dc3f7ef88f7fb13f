/*
 * proxy: bytes between a client's TLS and whoever serves it, both ways, until one is finished.
 *
 * Used by tlsd's sessions. It looks at nothing. Each direction holds at most PROXY_BUFFER bytes;
 * when both are silent for idle_ms it ends. When the server has ended, and so counts at its front
 * no more, the client has last_ms to take the rest, and gives way to newcomers: else it could
 * hold one place after the other by reading nothing.
 */
#pragma once
#include "lib/io/stream.h"

enum { PROXY_BUFFER = 16384 };

/* client: a stream with TLS under it, whose own buffers are empty; clear_fd, the server's side, is
 * made non-blocking. When the server closes, what it sent is delivered first: true when the client
 * took all of it. idle_ms: without a byte either way. */
bool proxy_run(struct stream *client, int clear_fd, int idle_ms, int last_ms);
