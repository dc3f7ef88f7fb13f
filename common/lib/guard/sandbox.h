/*
 * sandbox: the kernel's own walls: Landlock and seccomp. Used by guard.c only.
 */
#pragma once
#include "lib/guard/guard.h"

/* Deny every file but what is below g->dirs; deny TCP bind, and connect unless connects: then to
 * g->ports, if there are any. Returns the version the kernel offered, 0 for none; -1 with errno
 * when it offered and failed. */
int sandbox_landlock(const struct guard *g, bool connects);
/* Allow these system calls and no other (SIGSYS kills the process). -1 with errno. */
int sandbox_seccomp(const int *calls, size_t ncalls);
/* Take these away from what is allowed already, in a session: a short filter on top of the first,
 * since the kernel compiles it for each session. Prepared once, in the listener; -1 with errno. */
void sandbox_deny_prepare(const int *calls, size_t ncalls);
int sandbox_deny(void);
