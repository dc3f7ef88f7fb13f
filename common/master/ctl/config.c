#include "common/master/ctl/ctl.h"
#include "common/master/plan.h"
#include "lib/role/sockets.h"
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <unistd.h>

static void
print_errors(const char *path, const struct conf_errors *errors)
{
    for (size_t i = 0; i < errors->n; i++)
        fprintf(stderr, "%s:%u:%u: %s\n", path, errors->at[i].line, errors->at[i].column,
                errors->at[i].text);
    if (errors->suppressed)
        fprintf(stderr, "%s: and %zu more errors\n", path, errors->suppressed);
}

static int
read_from(struct ctl *ctl, int fd)
{
    static struct conf_errors errors;
    if (conf_read(&ctl->conf, str_z(ctl->config_path), fd, &errors) == 0)
        return 0;
    print_errors(ctl->config_path, &errors);
    return 78; /* EX_CONFIG */
}

int
ctl_read_config(struct ctl *ctl)
{
    int fd = open(ctl->config_path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        fprintf(stderr, "%s: %s\n", ctl->config_path, strerror(errno));
        return 78;
    }
    int status = read_from(ctl, fd);
    close(fd);
    return status;
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
    if (status == 0)
        printf("%s: good\n", ctl->config_path);
    return status;
}

static int
put_path(char *to, size_t size, struct str s, const char *what)
{
    if (s.n >= size) {
        fprintf(stderr, "%s: a path of more than %zu bytes: %.*s\n", what, size - 1, STR_ARG(s));
        return -1;
    }
    memcpy(to, s.p, s.n);
    return 0;
}

/* Whether this program runs under this configuration. */
static bool
wanted(const struct conf *conf, enum role role)
{
    const struct conf_service *block = sockets_block(conf, role);
    if (block)
        return block->present;
    if (role == R_KEYD || role == R_TLSD)
        return conf->nkeys > 0;
    if (role == R_IDLED)
        return conf->imapd.present;
    return true;
}

static int
plan_roles(const struct conf *conf, bool privileged, struct plan *plan)
{
    static const enum role all[] = {R_AUTHD, R_KEYD,  R_TLSD,    R_DNSD,  R_QMGR,  R_LAUNCHER, R_IDLED,
                                    R_LOCAL, R_RELAY, R_SUBMITD, R_SMTPD, R_POP3D, R_IMAPD};
    /* master says whether it is root: this process is nobody even then. */
    bool same = !privileged;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        char user[64];
        if (!wanted(conf, all[i]))
            continue;
        struct plan_role r = {.role = (uint32_t)all[i], .uid = getuid(), .gid = getgid()};
        snprintf(user, sizeof user, "%.*s%s", STR_ARG(conf->user_prefix), role_name(all[i]));
        const struct passwd *pw = same || all[i] == R_LAUNCHER ? NULL : getpwnam(user);
        if (!same && all[i] != R_LAUNCHER && !pw) {
            fprintf(stderr, "user %s does not exist\n", user);
            return -1;
        }
        if (pw) {
            r.uid = pw->pw_uid;
            r.gid = pw->pw_gid;
        } else if (all[i] == R_LAUNCHER && !same) {
            r.uid = r.gid = 0;
        }
        if (pw && (r.uid == 0 || r.gid == 0)) {
            fprintf(stderr, "user %s must not be root\n", user);
            return -1;
        }
        plan->roles[plan->nroles++] = r;
    }
    return 0;
}

static int
plan_listen(const struct conf *conf, struct plan *plan)
{
    static const enum role fronts[] = {R_SMTPD, R_SUBMITD, R_POP3D, R_IMAPD};
    for (size_t i = 0; i < 4; i++) {
        const struct conf_service *block = sockets_block(conf, fronts[i]);
        for (size_t k = 0; block->present && k < block->nlisten; k++) {
            const struct conf_listen *l = &block->listen[k];
            struct plan_listen *to = &plan->listen[plan->nlisten++];
            *to = (struct plan_listen){(uint32_t)fronts[i], l->tls, l->port, ""};
            if (put_path(to->host, sizeof to->host, l->host, "listen") < 0)
                return -1;
        }
    }
    return 0;
}

static int
plan_fill(const struct conf *conf, bool privileged, struct plan *plan)
{
    plan->magic = PLAN_MAGIC;
    plan->size = sizeof *plan;
    if (put_path(plan->run_dir, sizeof plan->run_dir, conf->run_dir, "directories run") < 0 ||
        put_path(plan->queue_dir, PLAN_PATH, conf->queue_dir, "directories queue") < 0 ||
        put_path(plan->state_dir, PLAN_PATH, conf->state_dir, "directories state") < 0 ||
        put_path(plan->mail_dir, PLAN_PATH, conf->mail_dir, "directories mail") < 0 ||
        put_path(plan->programs_dir, PLAN_PATH, conf->libexec_dir, "directories programs") < 0 ||
        put_path(plan->aliases, PLAN_PATH, conf->aliases, "aliases") < 0 ||
        put_path(plan->log, PLAN_PATH, conf->log, "log") < 0)
        return -1;
    for (size_t i = 0; i < conf->nkeys; i++) {
        struct plan_key *key = &plan->keys[plan->nkeys++];
        if (put_path(key->chain, PLAN_PATH, conf->keys[i].chain, "certificate") < 0 ||
            put_path(key->key, PLAN_PATH, conf->keys[i].key, "key") < 0)
            return -1;
    }
    return plan_roles(conf, privileged, plan) < 0 || plan_listen(conf, plan) < 0 ? -1 : 0;
}

/* For master: "plan FILE root" or "plan FILE user"; the text on descriptor 0, a struct plan to
 * descriptor 1, errors to 2. */
int
ctl_plan(struct ctl *ctl, int argc, char **argv)
{
    static struct plan plan;
    if (argc != 3)
        return 64;
    ctl->config_path = argv[1];
    int status = read_from(ctl, 0);
    if (status)
        return status;
    if (plan_fill(&ctl->conf, strcmp(argv[2], "root") == 0, &plan) < 0)
        return 78;
    return write(1, &plan, sizeof plan) == (ssize_t)sizeof plan ? 0 : 71;
}
