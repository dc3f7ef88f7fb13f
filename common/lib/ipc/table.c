#include "lib/ipc/table.h"

static const struct msg_row rows[] = {
#define MSG(name, number, from, to, fds, fields) {M_##name, #name, from, to, fds, fields},
#include "lib/ipc/table.def"
#undef MSG
};

static const char *const names[] = {"master", "authd",    "keyd",  "dnsd",  "smtpd", "submitd",
                                    "qmgr",   "relay",    "local", "pop3d", "imapd", "launcher",
                                    "cell",   "bulkhead", "user",  "tlsd",  "idled"};
enum { ROWS = sizeof rows / sizeof rows[0], NAMES = sizeof names / sizeof names[0] };

const struct msg_row *
msg_row(unsigned type)
{
    for (size_t i = 0; i < ROWS; i++)
        if (rows[i].type == type)
            return &rows[i];
    return NULL;
}

const struct msg_row *
msg_rows(size_t *n_r)
{
    *n_r = ROWS;
    return rows;
}

const char *
role_name(enum role role)
{
    for (size_t i = 0; i < NAMES; i++)
        if ((int)role == 1 << i)
            return names[i];
    return "none";
}

enum role
role_named(struct str name)
{
    for (size_t i = 0; i < NAMES; i++)
        if (str_eq(name, str_z(names[i])))
            return (enum role)(1 << i);
    return R_NONE;
}
