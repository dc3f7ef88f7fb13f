#include "common/master/master.h"
#include "lib/log/log.h"
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TEXT_MAX = 1 << 20, NOBODY = 65534 };

static int
copy_text(int from, int to)
{
    char block[8192];
    size_t total = 0;
    ssize_t n;
    while ((n = read(from, block, sizeof block)) > 0) {
        total += (size_t)n;
        if (total > TEXT_MAX || write(to, block, (size_t)n) != n)
            return -1;
    }
    return n < 0 ? -1 : 0;
}

/* All programs see the same text, and nobody can change it under them. */
static int
sealed_copy(const char *path)
{
    int from = open(path, O_RDONLY | O_CLOEXEC);
    if (from < 0) {
        log_error("%s: %s", path, strerror(errno));
        return -1;
    }
    int to = memfd_create("bulkhead.conf", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    int seals = F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL;
    if (to < 0 || copy_text(from, to) < 0 || fcntl(to, F_ADD_SEALS, seals) < 0) {
        log_error("%s: cannot copy it: %s", path, strerror(errno));
        close(to);
        to = -1;
    }
    close(from);
    return to;
}

/* In the child: nobody, with the text on 0 and the plan's pipe on 1. */
static void
become_planner(const struct master *m, int text_fd, int out_fd)
{
    char program[PLAN_PATH * 2];
    snprintf(program, sizeof program, "%s/bulkhead", m->programs_dir);
    if (m->privileged && (setgroups(0, NULL) < 0 || setresgid(NOBODY, NOBODY, NOBODY) < 0 ||
                          setresuid(NOBODY, NOBODY, NOBODY) < 0))
        _exit(71);
    char *argv[] = {program, (char *)"plan", (char *)m->config_path,
                    (char *)(m->privileged ? "root" : "user"), NULL};
    char *env[] = {NULL};
    if (dup2(text_fd, 0) < 0 || dup2(out_fd, 1) < 0)
        _exit(71);
    execve(program, argv, env);
    log_error("%s: %s", program, strerror(errno));
    _exit(71);
}

static bool
ends(const char *text, size_t size)
{
    return memchr(text, '\0', size) != NULL;
}

static bool
plan_ok(const struct plan *p)
{
    if (p->magic != PLAN_MAGIC || p->size != sizeof *p || p->nroles > PLAN_ROLES ||
        p->nlisten > PLAN_LISTEN || p->nkeys > PLAN_KEYS)
        return false;
    if (!ends(p->run_dir, sizeof p->run_dir) || !ends(p->queue_dir, PLAN_PATH) ||
        !ends(p->state_dir, PLAN_PATH) || !ends(p->mail_dir, PLAN_PATH) ||
        !ends(p->programs_dir, PLAN_PATH) || !ends(p->aliases, PLAN_PATH) ||
        !ends(p->log, PLAN_PATH))
        return false;
    for (size_t i = 0; i < p->nlisten; i++)
        if (!ends(p->listen[i].host, sizeof p->listen[i].host) || p->listen[i].port > 65535)
            return false;
    for (size_t i = 0; i < p->nkeys; i++)
        if (!ends(p->keys[i].chain, PLAN_PATH) || !ends(p->keys[i].key, PLAN_PATH))
            return false;
    return true;
}

static int
read_plan(int fd, struct plan *plan)
{
    size_t have = 0;
    ssize_t n;
    while (have < sizeof *plan && (n = read(fd, (char *)plan + have, sizeof *plan - have)) > 0)
        have += (size_t)n;
    return have == sizeof *plan && plan_ok(plan) ? 0 : -1;
}

int
plan_load(struct master *m, int *config_fd_r, struct plan *plan_r)
{
    int out[2], status = 0;
    int text = sealed_copy(m->config_path);
    if (text < 0)
        return -1;
    if (pipe2(out, O_CLOEXEC) < 0) {
        close(text);
        return -1;
    }
    pid_t pid = fork();
    if (pid == 0)
        become_planner(m, text, out[1]);
    close(out[1]);
    int ok = pid < 0 ? -1 : read_plan(out[0], plan_r);
    close(out[0]);
    if (pid > 0)
        waitpid(pid, &status, 0);
    if (ok < 0 || status != 0) {
        close(text);
        return -1;
    }
    *config_fd_r = text;
    return 0;
}
