/*
 * launcher: starts cells. The one program besides master that stays root: it changes to the
 * account's user, makes the account's directory the root directory, and executes a cell in it. It
 * takes orders from authd alone, each a struct of fixed size (lib/ipc/cell.h), and reads nothing
 * else.
 */
#pragma once
#include "lib/ipc/cell.h"
#include <stdbool.h>
#include <sys/types.h>

extern const char *const launcher_cells[CELL_KINDS];
enum { CELLS_MAX = 8000, CELLS_PER_USER_MAX = 200 };

struct launcher {
    bool privileged;
    uid_t own_uid;            /* unprivileged: the one user there is */
    int mail_dir;             /* below it we make directories; elsewhere the user does */
    int programs[CELL_KINDS]; /* the cells' executables */
};

/* Whether the request is one that may be served: texts end, the user is not a system one, the path
 * has no part that is empty or begins with a dot. */
bool launch_allowed(const struct launcher *l, const struct cell_request *r);
/* Start a cell on this channel: its process ID, or -1 with errno. */
pid_t launch_cell(const struct launcher *l, const struct cell_request *r, int channel);
