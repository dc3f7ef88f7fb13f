/*
 * proxy: bytes between a client's TLS and its cell, both ways, until one of them is finished.
 *
 * Used by the fronts after a login under TLS. It looks at nothing. Each direction holds at most
 * PROXY_BUFFER bytes; when both are silent for idle_ms it ends.
 */
#pragma once
#include "lib/io/stream.h"

enum { PROXY_BUFFER = 16384 };

/* client: a stream with TLS under it, whose own buffers are empty; cell_fd: made non-blocking. When
 * the cell closes, what it sent is delivered first. */
void proxy_run(struct stream *client, int cell_fd, int idle_ms);
