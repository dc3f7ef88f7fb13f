/*
 * bulkhead(8): the operator's command. Each sub-command is one row {name, run}; it talks to master
 * and to the daemons over their sockets in the run directory, which only root (or, unprivileged,
 * the user who started the suite) can open.
 */
#pragma once
#include "lib/conf/conf.h"
#include "lib/ipc/message.h"

struct ctl {
    const char *config_path;
    const char *programs_dir;
    struct conf conf;
    bool json;
};

/* Sub-commands: exit statuses of sysexits.h. argv[0] is the sub-command's own name. */
int ctl_plan(struct ctl *ctl, int argc, char **argv);
int ctl_launcher(struct ctl *ctl, int argc, char **argv);
int ctl_check(struct ctl *ctl, int argc, char **argv);
int ctl_start(struct ctl *ctl, int argc, char **argv);
int ctl_wait(struct ctl *ctl, int argc, char **argv);
int ctl_stop(struct ctl *ctl, int argc, char **argv);
int ctl_reload(struct ctl *ctl, int argc, char **argv);
int ctl_status(struct ctl *ctl, int argc, char **argv);
int ctl_queue(struct ctl *ctl, int argc, char **argv);
int ctl_privileges(struct ctl *ctl, int argc, char **argv);
int ctl_shape(struct ctl *ctl); /* of the queue */
int ctl_stats(struct ctl *ctl, int argc, char **argv);
int ctl_mailbox(struct ctl *ctl, int argc, char **argv);
int ctl_account(struct ctl *ctl, int argc, char **argv);

/* Read ctl->config_path into ctl->conf; print every error; 0 or 78. */
int ctl_read_config(struct ctl *ctl);
/* For commands to what runs already: mistakes in it are no hindrance, if it says where that is. */
int ctl_read_config_of_running(struct ctl *ctl);
/* The first from a descriptor. */
int ctl_read_config_from(struct ctl *ctl, int fd);
/* Whether each certificate and its key are there, can be used, and belong together: 0, or -1 after
 * printing what is wrong. What this user may not read is not looked at. */
int ctl_try_certificates(struct ctl *ctl);
/* Print what cannot be used in the aliases: 0, or -1 when there was something. */
int ctl_try_aliases(struct ctl *ctl);
/* What master says of its programs. 0, or -1 after printing why. */
struct control_answer;
int ctl_master_status(struct ctl *ctl, struct control_answer *answer_r);
/* Ask a service one thing: connects to run_dir/SERVICE.bulkhead. 0, or -1 after printing why; m is
 * freed then. */
int ctl_ask(struct ctl *ctl, enum role service, struct msg *m, enum msg_type want);
/* The account of this name, however it was written: 1; 0: there is none; below 0, after printing
 * why: an exit status, negative. */
enum { CTL_DIRECTORY_MAX = 256 };
struct ctl_account {
    uint32_t uid, gid;
    char directory[CTL_DIRECTORY_MAX];
};
int ctl_find_account(struct ctl *ctl, const char *given, struct ctl_account *account_r);
/* A text as a JSON string, to stdout. */
void ctl_json_str(struct str s);
