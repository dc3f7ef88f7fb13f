/*
 * fault_calls: calls that change files, counted, and made to end the process or to fail at one of
 * them. For a forked child only: what is armed stays so.
 */
#pragma once

enum fault_how { FAULT_NONE, FAULT_DIE, FAULT_FAIL };

/* At the n-th call from now on (1 is the next): die before it with FAULT_STATUS, or fail it and all
 * that follow with ENOSPC (unlink and close go on working, as on a full disk). */
enum { FAULT_STATUS = 77 };
void fault_arm(enum fault_how how, unsigned n);
