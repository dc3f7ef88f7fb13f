#include "imapd/cell/commands.h"

enum { ANY = ICELL_AUTHENTICATED | ICELL_SELECTED, SEL = ICELL_SELECTED };

static const struct icell_row rows[] = {
    {"CAPABILITY", ANY, false, ICELL_SYNC_ALL, icell_cmd_capability},
    {"NOOP", ANY, false, ICELL_SYNC_ALL, icell_cmd_noop},
    {"LOGOUT", ANY, false, ICELL_SYNC_NONE, icell_cmd_logout},
    {"NAMESPACE", ANY, false, ICELL_SYNC_ALL, icell_cmd_namespace},
    {"SELECT", ANY, false, ICELL_SYNC_NONE, icell_cmd_select},
    {"EXAMINE", ANY, false, ICELL_SYNC_NONE, icell_cmd_examine},
    {"CREATE", ANY, false, ICELL_SYNC_ALL, icell_cmd_create},
    {"DELETE", ANY, false, ICELL_SYNC_ALL, icell_cmd_delete},
    {"RENAME", ANY, false, ICELL_SYNC_ALL, icell_cmd_rename},
    {"SUBSCRIBE", ANY, false, ICELL_SYNC_ALL, icell_cmd_subscribe},
    {"UNSUBSCRIBE", ANY, false, ICELL_SYNC_ALL, icell_cmd_unsubscribe},
    {"LIST", ANY, false, ICELL_SYNC_ALL, icell_cmd_list},
    {"LSUB", ANY, false, ICELL_SYNC_ALL, icell_cmd_lsub},
    {"STATUS", ANY, false, ICELL_SYNC_ALL, icell_cmd_status},
    {"APPEND", ANY, false, ICELL_SYNC_ALL, icell_cmd_append},
    {"IDLE", ANY, false, ICELL_SYNC_ALL, icell_cmd_idle},
    {"GETQUOTA", ANY, false, ICELL_SYNC_ALL, icell_cmd_getquota},
    {"GETQUOTAROOT", ANY, false, ICELL_SYNC_ALL, icell_cmd_getquotaroot},
    {"COMPRESS", ANY, false, ICELL_SYNC_NONE, icell_cmd_compress},
    {"ENABLE", ANY, false, ICELL_SYNC_ALL, icell_cmd_enable},
    {"ID", ANY, false, ICELL_SYNC_ALL, icell_cmd_id},
    {"CHECK", SEL, false, ICELL_SYNC_ALL, icell_cmd_noop},
    {"CLOSE", SEL, false, ICELL_SYNC_NONE, icell_cmd_close},
    {"UNSELECT", SEL, false, ICELL_SYNC_NONE, icell_cmd_unselect},
    {"EXPUNGE", SEL, true, ICELL_SYNC_ALL, icell_cmd_expunge},
    {"SEARCH", SEL, true, ICELL_SYNC_KEEP, icell_cmd_search},
    {"SORT", SEL, true, ICELL_SYNC_KEEP, icell_cmd_sort},
    {"THREAD", SEL, true, ICELL_SYNC_KEEP, icell_cmd_thread},
    {"FETCH", SEL, true, ICELL_SYNC_KEEP, icell_cmd_fetch},
    {"STORE", SEL, true, ICELL_SYNC_KEEP, icell_cmd_store},
    {"COPY", SEL, true, ICELL_SYNC_ALL, icell_cmd_copy},
    {"MOVE", SEL, true, ICELL_SYNC_ALL, icell_cmd_move},
};

const struct icell_row *
icell_row(struct str name)
{
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (str_caseeq(name, str_z(rows[i].name)))
            return &rows[i];
    return NULL;
}
