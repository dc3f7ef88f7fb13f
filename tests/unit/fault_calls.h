/*
 * fault_calls: calls that change files, counted, and made to end the process or to fail at one of
 * them. For a forked child only: what is armed stays so.
 */
#pragma once
#include <stdbool.h>

enum fault_how { FAULT_NONE, FAULT_DIE, FAULT_FAIL, FAULT_ONCE };

/* At the n-th call from now on (1 is the next): die before it with FAULT_STATUS, or fail it and all
 * that follow with ENOSPC (unlink and close go on working, as on a full disk), or it alone. */
enum { FAULT_STATUS = 77 };
void fault_arm(enum fault_how how, unsigned n);

/* Who syncs: asked with the descriptor; 0, or the errno it is to fail with. Holds for processes
 * that are forked later, too. */
void fault_sync(int (*fails)(int fd));

/* Who reads a directory: asked with its name and NULL when the reading begins, then with each name;
 * true hides it. Set in a process that does nothing else. */
void fault_readdir(bool (*hide)(const char *dir, const char *name));
