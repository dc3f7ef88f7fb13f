#include "common/master/master.h"
#include "lib/log/log.h"
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    NOBODY = 65534,
    SEALED = F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL,
};

/* In the child: nobody, with the text on 0 and the way back on 1. */
static void
become_planner(const struct master *m, int text_fd, int out_fd)
{
    char program[PLAN_PATH * 2];
    snprintf(program, sizeof program, "%s/bulkhead", m->programs_dir);
    char *argv[] = {program, (char *)"plan", (char *)m->config_path,
                    (char *)(m->privileged ? "root" : "user"), NULL};
    char *env[] = {NULL};
    if (!m->privileged || (setgroups(0, NULL) == 0 && setresgid(NOBODY, NOBODY, NOBODY) == 0 &&
                           setresuid(NOBODY, NOBODY, NOBODY) == 0))
        if (dup2(text_fd, 0) == 0 && dup2(out_fd, 1) == 1)
            execve(program, argv, env);
    log_error("%s: %s", program, strerror(errno));
    _exit(71);
}

static bool
plan_ok(const struct plan *p)
{
    const struct plan_fixed *f = &p->fixed;
    bool ok = p->magic == PLAN_MAGIC && p->size == sizeof *p && f->nroles <= PLAN_ROLES &&
              f->ndirs <= PLAN_DIRS && p->nlisten <= PLAN_LISTEN && p->nkeys <= PLAN_KEYS &&
              str_fits(f->run_dir, sizeof f->run_dir) && str_fits(p->aliases, PLAN_PATH) &&
              str_fits(p->log, PLAN_PATH);
    for (size_t i = 0; ok && i < f->ndirs; i++)
        ok = str_fits(f->dirs[i].name, sizeof f->dirs[i].name) &&
             str_fits(f->dirs[i].path, PLAN_PATH);
    for (size_t i = 0; ok && i < p->nlisten; i++)
        ok = str_fits(p->listen[i].host, sizeof p->listen[i].host) && p->listen[i].port <= 65535;
    for (size_t i = 0; ok && i < p->nkeys; i++)
        ok = str_fits(p->keys[i].chain, PLAN_PATH) && str_fits(p->keys[i].key, PLAN_PATH);
    return ok;
}

/* All programs get the same text, and nobody can change it under them. */
static int
take_plan(int from, struct plan_made *made)
{
    struct msg m = {0};
    bool ok = msg_recv(from, &m, R_CTL, R_MASTER) == 1 && m.type == M_PLAN;
    struct str raw = msg_get_str(&m);
    ok = ok && msg_end(&m) && raw.n == sizeof made->plan;
    if (ok)
        memcpy(&made->plan, raw.p, raw.n);
    ok = ok && plan_ok(&made->plan) && fcntl(m.fds[0], F_GET_SEALS) == SEALED;
    for (size_t i = 0; ok && i < PLAN_FDS; i++)
        made->fds[i] = msg_take_fd(&m, i);
    msg_free(&m);
    return ok ? 0 : -1;
}

int
plan_load(const struct master *m, struct plan_made *made_r)
{
    int pair[2], status = -1;
    int text = open(m->config_path, O_RDONLY | O_CLOEXEC);
    if (text < 0)
        log_error("%s: %s", m->config_path, strerror(errno));
    if (text < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return -1;
    pid_t pid = fork();
    if (pid == 0)
        become_planner(m, text, pair[1]);
    close(text);
    close(pair[1]);
    if (pid > 0)
        waitpid(pid, &status, 0);
    int ok = status == 0 ? take_plan(pair[0], made_r) : -1;
    close(pair[0]);
    return ok;
}
