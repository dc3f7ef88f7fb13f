/*
 * bulkhead plan: what master needs to know of the configuration, and what it need not be root for:
 * looking at directories, looking up users, making memory. As root's child it runs as nobody.
 */
#include "common/master/plan.h"
#include "common/master/ctl/ctl.h"
#include "lib/ipc/channel.h"
#include "lib/ipc/known.h"
#include "lib/role/sockets.h"
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SEND_MS = 5000 };
_Static_assert(sizeof(struct plan) + 16 < MSG_PAYLOAD_MAX, "a plan is one message");

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
    static const enum role all[] = {R_AUTHD,    R_KEYD,  R_TLSD,  R_DNSD,  R_QMGR,
                                    R_LAUNCHER, R_IDLED, R_LOCAL, R_RELAY, R_SUBMITD,
                                    R_SMTPD,    R_POP3D, R_IMAPD};
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
        plan->fixed.roles[plan->fixed.nroles++] = r;
    }
    return 0;
}

static int
plan_listen(const struct conf *conf, struct plan *plan)
{
    for (size_t i = 0; i < SOCKETS_FRONTS; i++) {
        enum role front = sockets_fronts[i];
        const struct conf_service *block = sockets_block(conf, front);
        for (size_t k = 0; block->present && k < block->nlisten; k++) {
            const struct conf_listen *l = &block->listen[k];
            struct plan_listen *to = &plan->listen[plan->nlisten++];
            *to = (struct plan_listen){(uint32_t)front, l->tls, l->port, ""};
            if (put_path(to->host, sizeof to->host, l->host, "listen") < 0)
                return -1;
        }
    }
    return 0;
}

/* Who can write to a directory above can put another in its place (catalogue E5). Where nobody may
 * not even look nobody may write. */
static int
parents_safe(const char *path)
{
    char above[PLAN_PATH];
    struct stat st;
    snprintf(above, sizeof above, "%s", path);
    for (char *slash; (slash = strrchr(above, '/'));) {
        slash[slash == above] = '\0';
        if (stat(above, &st) == 0 && (st.st_mode & S_IWOTH) && !(st.st_mode & S_ISVTX)) {
            fprintf(stderr, "%s: everybody may write to it, and %s lies below it (mode %04o)\n",
                    above, path, st.st_mode & 07777);
            return -1;
        }
        if (slash == above)
            break;
    }
    return 0;
}

static const struct plan_role *
role_of(const struct plan *plan, enum role role)
{
    for (size_t i = 0; i < plan->fixed.nroles; i++)
        if (plan->fixed.roles[i].role == (uint32_t)role)
            return &plan->fixed.roles[i];
    return NULL;
}

/* owner R_NONE: master's own. */
static int
plan_dir(struct plan *plan, struct str path, const char *below, uint32_t mode, enum role owner,
         unsigned roles, const char *name)
{
    struct plan_dir *d = &plan->fixed.dirs[plan->fixed.ndirs];
    const struct plan_role *r = role_of(plan, owner);
    if (owner != R_NONE && !r) /* it does not run */
        return 0;
    if (path.n + strlen(below) >= sizeof d->path) {
        fprintf(stderr, "directories: a path of more than %zu bytes: %.*s\n", sizeof d->path - 1,
                STR_ARG(path));
        return -1;
    }
    snprintf(d->path, sizeof d->path, "%.*s%s", STR_ARG(path), below);
    d->mode = mode;
    d->uid = r ? r->uid : 0;
    d->gid = r ? r->gid : 0;
    d->roles = roles;
    snprintf(d->name, sizeof d->name, "%s", name);
    plan->fixed.ndirs++;
    return *below ? 0 : parents_safe(d->path); /* master looks at the one above */
}

/* Whose own directory is its root directory gets it twice; the launcher stays where it is. */
static int
plan_dirs(const struct conf *conf, struct plan *plan)
{
    unsigned elsewhere = R_QMGR | R_AUTHD | R_LAUNCHER;
    return plan_dir(plan, conf->run_dir, "", 0755, R_NONE, 0, "run") < 0 ||
                   plan_dir(plan, conf->run_dir, "/empty", 0555, R_NONE, R_ANY & ~elsewhere,
                            "root") < 0 ||
                   plan_dir(plan, conf->mail_dir, "", 0711, R_NONE, R_LAUNCHER, "dir.mail") < 0 ||
                   plan_dir(plan, conf->queue_dir, "", 0700, R_QMGR, R_QMGR, "dir.queue") < 0 ||
                   plan_dir(plan, conf->queue_dir, "", 0700, R_QMGR, R_QMGR, "root") < 0 ||
                   plan_dir(plan, conf->state_dir, "", 0700, R_AUTHD, R_AUTHD, "dir.state") < 0 ||
                   plan_dir(plan, conf->state_dir, "", 0700, R_AUTHD, R_AUTHD, "root") < 0
               ? -1
               : 0;
}

static int
plan_fill(const struct conf *conf, bool privileged, struct plan *plan)
{
    plan->magic = PLAN_MAGIC;
    plan->size = sizeof *plan;
    if (put_path(plan->fixed.run_dir, sizeof plan->fixed.run_dir, conf->run_dir,
                 "directories run") < 0 ||
        put_path(plan->aliases, PLAN_PATH, conf->aliases, "aliases") < 0 ||
        put_path(plan->log, PLAN_PATH, conf->log, "log") < 0)
        return -1;
    for (size_t i = 0; i < conf->nkeys; i++) {
        struct plan_key *key = &plan->keys[plan->nkeys++];
        if (put_path(key->chain, PLAN_PATH, conf->keys[i].chain, "certificate") < 0 ||
            put_path(key->key, PLAN_PATH, conf->keys[i].key, "key") < 0)
            return -1;
    }
    return plan_roles(conf, privileged, plan) < 0 || plan_listen(conf, plan) < 0 ||
                   plan_dirs(conf, plan) < 0
               ? -1
               : 0;
}

/* The text as it is now, in memory that nobody can change any more: all programs read the same. */
static int
sealed_copy(int from)
{
    char block[8192];
    size_t total = 0;
    ssize_t n = -1;
    int to = memfd_create("bulkhead.conf", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    while (to >= 0 && (n = read(from, block, sizeof block)) != 0)
        if (n < 0 || (total += (size_t)n) > CONF_TEXT_MAX || write(to, block, (size_t)n) != n)
            break;
    if (to >= 0 && n == 0 &&
        fcntl(to, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) == 0)
        return to;
    fprintf(stderr, "cannot copy the configuration: %s\n",
            total > CONF_TEXT_MAX ? "too large" : strerror(errno));
    return -1;
}

static int
send_plan(const struct plan *plan, int text)
{
    struct msg m = {0};
    struct err e = {0};
    int known[2];
    if (known_make(&known[0], &known[1], &e) < 0) {
        fprintf(stderr, "%s\n", e.text);
        return 71;
    }
    msg_begin(&m, M_PLAN);
    msg_put_str(&m, str_of((const char *)plan, sizeof *plan));
    msg_add_fd(&m, text);
    msg_add_fd(&m, known[0]);
    msg_add_fd(&m, known[1]);
    int ok = chan_send(1, &m, SEND_MS, &e);
    msg_free(&m);
    return ok < 0 ? 71 : 0;
}

/* For master: "plan FILE root" or "plan FILE user"; the text on descriptor 0, PLAN to descriptor 1,
 * errors to 2. */
int
ctl_plan(struct ctl *ctl, int argc, char **argv)
{
    static struct plan plan;
    if (argc != 3)
        return 64;
    ctl->config_path = argv[1];
    int text = sealed_copy(0);
    int status = text < 0 ? 71 : ctl_read_config_from(ctl, text);
    if (status)
        return status;
    if (plan_fill(&ctl->conf, strcmp(argv[2], "root") == 0, &plan) < 0)
        return 78;
    return send_plan(&plan, text);
}
