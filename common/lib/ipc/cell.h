/*
 * cell: what authd asks the launcher for: a process of one account, locked to its directory.
 *
 * A struct of fixed size, so that root need not parse. The launcher trusts authd for which account
 * this is, and checks what it can: no user ID below CELL_UID_MIN, a directory that belongs to that
 * user.
 */
#pragma once
#include <stdint.h>

enum { CELL_UID_MIN = 500 };
enum cell_kind { CELL_IMAPD, CELL_POP3D, CELL_LOCAL, CELL_KINDS };

struct cell_request {
    uint32_t kind;
    uint32_t uid, gid;
    char account[128];   /* for the cell's log */
    char directory[256]; /* the Maildir: absolute, or below the suite's mail directory */
    char quota[48];      /* "BYTES MESSAGES", 0: no limit; the cell's third argument */
};
