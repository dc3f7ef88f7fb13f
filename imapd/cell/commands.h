/*
 * commands: the table of commands after login.
 */
#pragma once
#include "imapd/cell/icell.h"

enum icell_sync_when {
    ICELL_SYNC_NONE,
    ICELL_SYNC_KEEP, /* no EXPUNGE while numbers are in use (RFC 3501 7.4.1), unless it was UID ...
                      */
    ICELL_SYNC_ALL,
};

struct icell_row {
    const char *name;
    unsigned states; /* of enum icell_state */
    bool uid;        /* may have UID before it */
    enum icell_sync_when sync;
    void (*run)(struct icell *ic);
};

/* "* LIST (attributes) "." name", with the name the mailbox had, or was called by, before if there
 * is one (RFC 9051 6.3.9.7). attributes may be NULL. */
void icell_put_list(struct icell *ic, struct str name, const char *attributes, struct str oldname);

/* By name in any case, or NULL. */
const struct icell_row *icell_row(struct str name);

void icell_cmd_capability(struct icell *ic);
void icell_cmd_noop(struct icell *ic); /* and CHECK */
void icell_cmd_logout(struct icell *ic);
void icell_cmd_namespace(struct icell *ic);
void icell_cmd_select(struct icell *ic);
void icell_cmd_examine(struct icell *ic);
void icell_cmd_close(struct icell *ic);
void icell_cmd_unselect(struct icell *ic);
void icell_cmd_create(struct icell *ic);
void icell_cmd_delete(struct icell *ic);
void icell_cmd_rename(struct icell *ic);
void icell_cmd_subscribe(struct icell *ic);
void icell_cmd_unsubscribe(struct icell *ic);
void icell_cmd_list(struct icell *ic);
void icell_cmd_lsub(struct icell *ic);
void icell_cmd_status(struct icell *ic);
void icell_cmd_append(struct icell *ic);
void icell_cmd_expunge(struct icell *ic);
void icell_cmd_search(struct icell *ic);
void icell_cmd_sort(struct icell *ic);
void icell_cmd_thread(struct icell *ic);
void icell_cmd_fetch(struct icell *ic);
void icell_cmd_store(struct icell *ic);
void icell_cmd_copy(struct icell *ic);
void icell_cmd_idle(struct icell *ic);
void icell_cmd_getquota(struct icell *ic);
void icell_cmd_getquotaroot(struct icell *ic);
void icell_cmd_compress(struct icell *ic);
void icell_cmd_enable(struct icell *ic);
void icell_cmd_move(struct icell *ic);
void icell_cmd_id(struct icell *ic);
