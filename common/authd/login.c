#include "common/authd/authd.h"
#include "lib/guard/guard.h"
#include "lib/ipc/cell.h"
#include "lib/ipc/channel.h"
#include "lib/log/log.h"
#include <crypt.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* Workers at once: yescrypt takes 16 MiB and tens of milliseconds of one core each. */
enum { WORKERS_MAX = 8, WAITING_MAX = 512, NETWORK_LOGINS_MAX = 24 };
/* So authd and its workers stay below this, with hashes of our own making. */
enum { LOGIN_MEMORY_MIB = 192 };
_Static_assert(LOGIN_MEMORY_MIB > WORKERS_MAX * 20, "each worker has 20 MiB");

static bool
matches(const char *password, const char *hash)
{
    struct crypt_data *data = calloc(1, sizeof *data);
    const char *got = data ? crypt_r(password, hash, data) : NULL;
    size_t n = strlen(hash);
    unsigned char differ = !got || strlen(got) != n || *got == '*';
    /* In constant time: how far a guess was right is nobody's business. */
    for (size_t i = 0; !differ && i < n; i++)
        differ |= (unsigned char)(got[i] ^ hash[i]);
    if (data)
        explicit_bzero(data, sizeof *data);
    free(data);
    return !differ;
}

/* In the worker: the exit status is the answer, 0 for yes. */
static void
work(const char *password, const char *hash)
{
    guard_session(R_AUTHD);
    _exit(matches(password, hash) ? 0 : 1);
}

int
login_hash(struct str password, char *hash_r, size_t size)
{
    char salt[CRYPT_GENSALT_OUTPUT_SIZE], z[PASSWORD_MAX + 1];
    struct crypt_data *data = calloc(1, sizeof *data);
    int ok = -1;
    if (!data || password.n > PASSWORD_MAX || str_chr(password, '\0') >= 0)
        goto out;
    memcpy(z, password.p, password.n);
    z[password.n] = '\0';
    if (!crypt_gensalt_rn("$y$", 0, NULL, 0, salt, sizeof salt))
        goto out;
    const char *hash = crypt_r(z, salt, data);
    if (hash && *hash != '*' && strlen(hash) < size) {
        memcpy(hash_r, hash, strlen(hash) + 1);
        ok = 0;
    }
out:
    explicit_bzero(z, sizeof z);
    if (data)
        explicit_bzero(data, sizeof *data);
    free(data);
    return ok;
}

static int
launcher_channel(struct err *e)
{
    if (authd.launcher < 0)
        authd.launcher = start_channel(authd.start, R_LAUNCHER, NULL, e);
    return authd.launcher;
}

int
login_cell(const struct account *account, int kind, int channel, struct err *e)
{
    struct cell_request r = {.kind = (uint32_t)kind, .uid = account->uid, .gid = account->gid};
    struct msg m = {0};
    int ok = -1;
    memcpy(r.account, account->name.p, account->name.n);
    struct str directory = account->directory, mail = authd.conf->mail_dir;
    if (str_starts(directory, mail) && directory.n > mail.n + 1 && directory.p[mail.n] == '/')
        directory = str_from(directory, mail.n + 1);
    memcpy(r.directory, directory.p, directory.n);
    snprintf(r.quota, sizeof r.quota, "%llu %llu", (unsigned long long)authd.conf->quota_bytes,
             (unsigned long long)authd.conf->quota_messages);
    for (int tries = 0; ok < 0 && tries < 2; tries++) {
        if (launcher_channel(e) < 0)
            break;
        msg_begin(&m, M_CELL_START);
        msg_put_str(&m, str_of((const char *)&r, sizeof r));
        msg_add_fd(&m, channel);
        ok = msg_send(authd.launcher, &m);
        if (ok < 0) { /* it was restarted: the door leads to the new one */
            err_errno(e, "launcher");
            close(authd.launcher);
            authd.launcher = -1;
        }
    }
    msg_free(&m);
    return ok;
}

/* What failures are counted by: an account may be called by two names. */
static struct str
name_of(const struct login *l)
{
    return l->account.n ? l->account : l->user;
}

void
login_granted(struct client *c, const struct account *account, bool token)
{
    struct msg m = {0};
    struct buf text = buf_new(2 * ACCOUNT_NAME_MAX);
    msg_begin(&m, token ? M_ENTERED : M_GRANTED);
    msg_put_str(&m, account->name);
    if (token) {
        token_put(&text, account);
        msg_put_str(&m, buf_str(&text));
    }
    service_send(c, &m);
    msg_free(&m);
    buf_wipe(&text);
}

static void
finish(struct login *l, bool good)
{
    struct err e = {0};
    struct account *account = good ? accounts_find(&authd.accounts, l->account) : NULL;
    if (!account) {
        /* Counted also when the client did not wait for the answer. */
        throttle_failed(str_z(l->remote), name_of(l));
        log_info("login failed: user=<%s>, rip=%s", log_str(l->user), l->remote);
        if (l->client)
            service_fail(l->client, ERR_PERMANENT, "wrong user name or password");
        goto out;
    }
    throttle_succeeded(str_z(l->remote), name_of(l));
    if (l->client && l->kind >= 0 && login_cell(account, l->kind, l->channel, &e) < 0) {
        log_error("no cell for %s: %s", log_str(l->account), e.text);
        service_fail(l->client, ERR_TEMPORARY, "the mailbox cannot be opened now");
    } else if (l->client) {
        login_granted(l->client, account, l->kind == CELL_IMAPD);
    }
out:
    if (l->channel >= 0)
        close(l->channel);
    free(l);
}

/* A name that nobody has takes as long as one that somebody has: somebody's hash is tried, for each
 * name always the same, and the answer is no whatever comes of it. */
static const char *
somebodys_hash(struct str user)
{
    const struct accounts *a = &authd.accounts;
    return a->n ? a->list[siphash(&a->key, user) % a->n]->hash.p : authd.dummy_hash;
}

/* A login that waits for a worker keeps its password beside it. */
struct waiting {
    struct login login; /* first: what frees one frees both */
    char password[PASSWORD_MAX + 1];
};

static void
run(struct waiting *w)
{
    struct login *l = &w->login;
    const struct account *account = accounts_find(&authd.accounts, l->account);
    l->pid = fork();
    if (l->pid == 0)
        work(w->password, account ? account->hash.p : somebodys_hash(l->user));
    explicit_bzero(w->password, sizeof w->password);
    if (l->pid > 0) {
        l->next = authd.running;
        authd.running = l;
        authd.nrunning++;
        return;
    }
    log_error("cannot start a password worker: %s", strerror(errno));
    if (l->client)
        service_fail(l->client, ERR_TEMPORARY, "try again later");
    if (l->channel >= 0)
        close(l->channel);
    free(w);
}

static void
run_waiting(void)
{
    while (authd.waiting && authd.nrunning < WORKERS_MAX) {
        struct waiting *w = (struct waiting *)authd.waiting;
        authd.waiting = w->login.next;
        authd.nwaiting--;
        run(w);
    }
}

void
login_reap(pid_t pid, int status)
{
    struct login **link = &authd.running;
    while (*link && (*link)->pid != pid)
        link = &(*link)->next;
    struct login *l = *link;
    if (!l)
        return;
    *link = l->next;
    authd.nrunning--;
    if (WIFSIGNALED(status))
        log_error("a password worker died of signal %d", WTERMSIG(status));
    /* Success is one explicit exit status; everything else is a no. */
    finish(l, WIFEXITED(status) && WEXITSTATUS(status) == 0);
    run_waiting();
}

void
login_forget(struct client *c)
{
    for (struct login *l = authd.running; l; l = l->next)
        if (l->client == c)
            l->client = NULL;
    for (struct login *l = authd.waiting; l; l = l->next)
        if (l->client == c)
            l->client = NULL;
}

/* Of one network only so many at once: the others find a place. */
static size_t
logins_of(uint64_t network)
{
    size_t n = 0;
    for (const struct login *l = authd.running; l; l = l->next)
        n += l->network == network;
    for (const struct login *l = authd.waiting; l; l = l->next)
        n += l->network == network;
    return n;
}

static bool
acceptable(struct str user, struct str password)
{
    return user.n && user.n <= ACCOUNT_NAME_MAX && password.n && password.n <= PASSWORD_MAX &&
           str_utf8(user) && str_chr(password, '\0') < 0;
}

void
login_start(struct client *c, struct str user, struct str password, struct str remote, int kind,
            int channel)
{
    const char *refusal = NULL;
    enum err_class class = ERR_TEMPORARY;
    struct waiting *w = NULL;
    struct account *account = acceptable(user, password) ? resolve_login(user) : NULL;
    uint64_t network = throttle_network(remote);
    if (!acceptable(user, password)) {
        refusal = "wrong user name or password";
        class = ERR_PERMANENT;
    } else if (!throttle_allows(remote, account ? account->name : user)) {
        log_warn("too many failed logins: user=<%s>, rip=%s", log_str(user), log_str(remote));
        refusal = "too many failed logins";
    } else if (authd.nwaiting >= WAITING_MAX || logins_of(network) >= NETWORK_LOGINS_MAX ||
               !(w = calloc(1, sizeof *w))) {
        refusal = "too many logins at once";
    }
    if (refusal) {
        service_fail(c, class, refusal);
        if (channel >= 0)
            close(channel);
        return;
    }
    struct login *l = &w->login;
    l->client = c;
    l->channel = channel;
    l->kind = kind;
    l->network = network;
    memcpy(l->user_text, user.p, user.n);
    l->user = str_of(l->user_text, user.n);
    if (account) {
        memcpy(l->account_text, account->name.p, account->name.n);
        l->account = str_of(l->account_text, account->name.n);
    }
    snprintf(l->remote, sizeof l->remote, "%s", log_str(str_sub(remote, 0, 45)));
    memcpy(w->password, password.p, password.n);
    struct login **last = &authd.waiting;
    while (*last)
        last = &(*last)->next;
    *last = l;
    authd.nwaiting++;
    run_waiting();
}
