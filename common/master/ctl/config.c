#include "common/master/ctl/ctl.h"
#include "common/master/plan.h"
#include "lib/mail/aliases.h"
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

static struct conf_errors errors;

static void
print_errors(const char *path)
{
    for (size_t i = 0; i < errors.n; i++)
        fprintf(stderr, "%s:%u:%u: %s\n", path, errors.at[i].line, errors.at[i].column,
                errors.at[i].text);
    if (errors.suppressed)
        fprintf(stderr, "%s: and %zu more errors\n", path, errors.suppressed);
}

int
ctl_read_config_from(struct ctl *ctl, int fd)
{
    if (conf_read(&ctl->conf, str_z(ctl->config_path), fd, &errors) == 0)
        return 0;
    print_errors(ctl->config_path);
    return 78; /* EX_CONFIG */
}

static int
open_config(const struct ctl *ctl)
{
    int fd = open(ctl->config_path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        fprintf(stderr, "%s: %s\n", ctl->config_path, strerror(errno));
    return fd;
}

int
ctl_read_config(struct ctl *ctl)
{
    int fd = open_config(ctl);
    if (fd < 0)
        return 78;
    int status = ctl_read_config_from(ctl, fd);
    close(fd);
    return status;
}

int
ctl_read_config_of_running(struct ctl *ctl)
{
    int fd = open_config(ctl);
    if (fd < 0)
        return 78;
    int ok = conf_read(&ctl->conf, str_z(ctl->config_path), fd, &errors);
    close(fd);
    if (ok == 0)
        return 0;
    if (ctl->conf.run_dir.n == 0) {
        print_errors(ctl->config_path);
        return 78;
    }
    fprintf(
        stderr,
        "bulkhead: %s has mistakes (bulkhead check says which); what runs is looked for in %.*s\n",
        ctl->config_path, STR_ARG(ctl->conf.run_dir));
    return 0;
}

/* The child becomes keyd's user, and keyd, which says what is wrong. */
static void
become_keyd(const struct ctl *ctl, int chain, int key, const char *name)
{
    char user[64], program[320];
    snprintf(user, sizeof user, "%.*s%s", STR_ARG(ctl->conf.user_prefix), role_name(R_KEYD));
    snprintf(program, sizeof program, "%.*s/keyd", STR_ARG(ctl->conf.libexec_dir));
    const struct passwd *pw = geteuid() == 0 ? getpwnam(user) : NULL;
    if (geteuid() == 0 &&
        !pw) /* no other user may see a key; start says that this one is missing */
        _exit(0);
    if (pw && (setgroups(0, NULL) < 0 || setresgid(pw->pw_gid, pw->pw_gid, pw->pw_gid) < 0 ||
               setresuid(pw->pw_uid, pw->pw_uid, pw->pw_uid) < 0))
        _exit(71);
    if (dup2(key, 0) == 0 && dup2(chain, 1) == 1)
        execl(program, "keyd", "-t", name, (char *)NULL);
    fprintf(stderr, "bulkhead: %s: %s\n", program, strerror(errno));
    _exit(71);
}

/* 0; -1 when there is something wrong. */
static int
try_pair(const struct ctl *ctl, int chain, int key, const char *name)
{
    int status;
    pid_t pid = fork();
    if (pid == 0)
        become_keyd(ctl, chain, key, name);
    while (pid > 0 && waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -1;
    return pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -1;
}

/* -1 with *wrong_r set, after saying why; unset when the file is not for us to see. */
static int
open_to_try(const char *path, bool *wrong_r)
{
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd >= 0 || (errno == EACCES && geteuid() != 0))
        return fd;
    fprintf(stderr, "%s: %s\n", path, strerror(errno));
    *wrong_r = true;
    return -1;
}

int
ctl_try_certificates(struct ctl *ctl)
{
    bool wrong = false;
    char name[2 * PLAN_PATH + 32];
    for (size_t i = 0; i < ctl->conf.nkeys; i++) {
        const struct conf_key *k = &ctl->conf.keys[i];
        int chain = open_to_try(k->chain.p, &wrong), key = open_to_try(k->key.p, &wrong);
        snprintf(name, sizeof name, "certificate %s key %s", k->chain.p, k->key.p);
        if (chain >= 0 && key >= 0 && try_pair(ctl, chain, key, name) < 0)
            wrong = true;
        if (chain >= 0)
            close(chain);
        if (key >= 0)
            close(key);
    }
    return wrong ? -1 : 0;
}

static const char *aliases_path;

static void
print_alias_fault(size_t line, const char *what)
{
    fprintf(stderr, "%s:%zu: %s\n", aliases_path, line, what);
}

int
ctl_try_aliases(struct ctl *ctl)
{
    struct aliases a;
    struct err e = {0};
    bool wrong = false;
    aliases_path = ctl->conf.aliases.p;
    if (access(aliases_path, F_OK) < 0 && errno == ENOENT) /* there need not be any */
        return 0;
    int fd = open_to_try(aliases_path, &wrong);
    if (fd < 0)
        return wrong ? -1 : 0;
    if (aliases_read(&a, fd, ctl->conf.domains[0], conf_other_name(&ctl->conf), print_alias_fault,
                     &e) < 0) {
        fprintf(stderr, "%s: %s\n", aliases_path, e.text);
        wrong = true;
    } else {
        wrong = a.bad_lines > 0;
        aliases_free(&a);
    }
    close(fd);
    return wrong ? -1 : 0;
}

int
ctl_check(struct ctl *ctl, int argc, char **argv)
{
    (void)argv;
    if (argc != 1) {
        fprintf(stderr, "usage: bulkhead [-f FILE] check\n");
        return 64;
    }
    int status = ctl_read_config(ctl);
    if (status)
        return status;
    int certificates = ctl_try_certificates(ctl), aliases = ctl_try_aliases(ctl);
    if (certificates < 0 || aliases < 0)
        return 78;
    printf("%s: good\n", ctl->config_path);
    return 0;
}
