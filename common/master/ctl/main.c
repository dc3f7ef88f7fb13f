/*
 * bulkhead(8): see bulkhead.8 beside this directory.
 */
#include "common/master/ctl/ctl.h"
#include "lib/io/std.h"
#include "lib/log/log.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const struct {
    const char *name, *arguments, *about;
    int (*run)(struct ctl *, int, char **);
    int (*configure)(struct ctl *ctl);
} commands[] = {
    {"start", "", "start the suite", ctl_start, ctl_read_config},
    {"wait", "[PROCESS]", "wait until every program is ready", ctl_wait, ctl_read_config},
    {"stop", "", "stop the suite", ctl_stop, ctl_read_config_of_running},
    {"reload", "", "take a changed configuration, certificates and tables", ctl_reload,
     ctl_read_config},
    {"status", "", "show the running programs", ctl_status, ctl_read_config_of_running},
    {"check", "", "check the configuration", ctl_check, NULL},
    {"queue", "list|hold|release|retry|remove [-n] ID ...|FILTER ... | show ID | flush | shape",
     "work on the queue", ctl_queue, ctl_read_config_of_running},
    {"stats", "", "what the queue manager has done since it started", ctl_stats,
     ctl_read_config_of_running},
    {"account",
     "add NAME [-u USER-ID [-g GROUP-ID]] [-d DIRECTORY] | passwd NAME | list | remove NAME",
     "work on the accounts", ctl_account, ctl_read_config},
    {"mailbox",
     "import [-o] [-f FOLDER] ACCOUNT SOURCE | export [-m] ACCOUNT DIRECTORY | check ACCOUNT | "
     "rebuild ACCOUNT",
     "work on an account's messages", ctl_mailbox, ctl_read_config},
    {"privileges", "[--svg FILE]", "show what each process may do, as the kernel has it",
     ctl_privileges, ctl_read_config_of_running},
    {"plan", NULL, NULL, ctl_plan, NULL},                    /* for master */
    {"launcher", NULL, NULL, ctl_launcher, ctl_read_config}, /* for the launcher */
};
enum { COMMANDS = sizeof commands / sizeof commands[0] };

/* --json stands anywhere. Returns how many words are left. */
static int
take_json(struct ctl *ctl, int argc, char **argv)
{
    int n = 0;
    for (int i = 0; i < argc; i++)
        if (strcmp(argv[i], "--json") == 0)
            ctl->json = true;
        else
            argv[n++] = argv[i];
    argv[n] = NULL;
    return n;
}

/* What was printed and did not arrive was not said. */
static int
finish(int status)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return status;
    fprintf(stderr, "bulkhead: cannot write the answer: %s\n", strerror(errno));
    return status ? status : 74; /* EX_IOERR */
}

static int
usage(void)
{
    fprintf(stderr, "usage: bulkhead [-f FILE] [--json] COMMAND ...\n");
    for (size_t i = 0; i < COMMANDS; i++)
        if (commands[i].about)
            fprintf(stderr, "  %-10s %s\n             %s\n", commands[i].name,
                    commands[i].arguments, commands[i].about);
    return 64;
}

int
main(int argc, char **argv)
{
    static struct ctl ctl;
    int i = 1;
    ctl.config_path = BH_SYSCONFDIR "/bulkhead/bulkhead.conf";
    std_open();
    log_open(2, "bulkhead");
    argc = take_json(&ctl, argc, argv);
    for (; i < argc && argv[i][0] == '-'; i++) {
        if (strcmp(argv[i], "-f") == 0 && i + 1 < argc)
            ctl.config_path = argv[++i];
        else
            return usage();
    }
    for (size_t k = 0; i < argc && k < COMMANDS; k++) {
        if (strcmp(commands[k].name, argv[i]) != 0)
            continue;
        int status = commands[k].configure ? commands[k].configure(&ctl) : 0;
        return finish(status ? status : commands[k].run(&ctl, argc - i, argv + i));
    }
    if (i < argc)
        fprintf(stderr, "bulkhead: there is no command %s\n", argv[i]);
    return usage();
}
