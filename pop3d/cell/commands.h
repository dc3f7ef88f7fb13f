/*
 * commands: the commands of the TRANSACTION state. All are legal in it, and it is the only state
 * here: the front has the one before, and QUIT's code is the one after.
 */
#pragma once
#include "pop3d/cell/pcell.h"

struct pcell_row {
    const char *name;
    void (*run)(struct pcell *pc, struct str args);
};

const struct pcell_row *pcell_row(struct str name);

void pcell_cmd_stat(struct pcell *pc, struct str args);
void pcell_cmd_list(struct pcell *pc, struct str args);
void pcell_cmd_retr(struct pcell *pc, struct str args);
void pcell_cmd_dele(struct pcell *pc, struct str args);
void pcell_cmd_noop(struct pcell *pc, struct str args);
void pcell_cmd_rset(struct pcell *pc, struct str args);
void pcell_cmd_top(struct pcell *pc, struct str args);
void pcell_cmd_uidl(struct pcell *pc, struct str args);
void pcell_cmd_capa(struct pcell *pc, struct str args);
void pcell_cmd_quit(struct pcell *pc, struct str args);
