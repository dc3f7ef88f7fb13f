#include "common/authd/authd.h"
#include "lib/ipc/cell.h"
#include "lib/log/log.h"
#include <fcntl.h>
#include <unistd.h>

static void
report_alias(size_t line, const char *what)
{
    log_error("aliases:%zu: %s", line, what);
}

void
authd_read_aliases(int fd)
{
    struct aliases fresh;
    struct err e = {0};
    if (fd < 0)
        return;
    if (aliases_read(&fresh, fd, authd.conf->domains[0], conf_other_name(authd.conf), report_alias,
                     &e) < 0) {
        log_error("%s", e.text);
        return;
    }
    aliases_free(&authd.aliases);
    authd.aliases = fresh;
}

void
authd_read_accounts(void)
{
    struct accounts fresh;
    struct err e = {0};
    if (accounts_load(&fresh, authd.accounts.dirfd, &e) < 0) {
        log_error("%s: the accounts stay as they were", e.text);
        return;
    }
    /* None is right before the first account. Later it is moved away by mistake, or for a moment,
     * and mail for everybody would bounce. */
    if (fresh.seen.inode == 0 && authd.accounts.seen.inode != 0) {
        log_error("the accounts file is gone: the accounts stay as they were");
        accounts_free(&fresh);
        return;
    }
    accounts_free(&authd.accounts);
    authd.accounts = fresh;
}

static void
broken(struct client *c, const struct msg *m)
{
    const struct msg_row *row = msg_row(m->type);
    log_warn("malformed %s from %s", row ? row->name : "message", role_name(c->role));
    service_close(c);
}

static void
on_address(struct client *c, struct msg *m)
{
    struct err e = {0};
    enum address_kind kind;
    struct account *account;
    struct str address = msg_get_str(m);
    if (!msg_end(m)) {
        broken(c, m);
        return;
    }
    if (resolve_address(address, &kind, &account, &e) < 0) {
        service_fail(c, e.class, e.text);
        return;
    }
    if (kind == ADDRESS_ACCOUNT || kind == ADDRESS_ALIAS)
        known_note(&authd.known, address);
    struct msg out = {0};
    msg_begin(&out, M_ADDRESS_IS);
    msg_put_u32(&out, (uint32_t)kind);
    msg_put_str(&out, account ? account->name : STR(""));
    service_send(c, &out);
    msg_free(&out);
}

static void
on_uid(struct client *c, struct msg *m)
{
    struct err e = {0};
    enum address_kind kind;
    struct account *owner = NULL;
    uint32_t uid = msg_get_u32(m);
    struct str sender = msg_get_str(m);
    if (!msg_end(m)) {
        broken(c, m);
        return;
    }
    const struct account *account = accounts_by_uid(&authd.accounts, uid);
    if (account && sender.n && resolve_address(sender, &kind, &owner, &e) < 0) {
        service_fail(c, e.class, e.text);
        return;
    }
    if (owner && owner->uid == uid)
        account = owner;
    /* Who has no account may say more than who has one. */
    if (!account && authd.accounts.bad_lines) {
        service_fail(c, ERR_TEMPORARY, ACCOUNTS_INCOMPLETE);
        return;
    }
    struct msg out = {0};
    msg_begin(&out, M_ADDRESS_IS);
    msg_put_u32(&out, account ? ADDRESS_ACCOUNT : ADDRESS_UNKNOWN);
    msg_put_str(&out, account ? account->name : STR(""));
    service_send(c, &out);
    msg_free(&out);
}

static void
on_login(struct client *c, struct msg *m)
{
    struct str user = msg_get_str(m), password = msg_get_str(m), remote = msg_get_str(m);
    int kind = c->role == R_IMAPD ? CELL_IMAPD : c->role == R_POP3D ? CELL_POP3D : -1;
    if (!msg_end(m)) {
        broken(c, m);
        return;
    }
    login_start(c, user, password, remote, kind, kind < 0 ? -1 : msg_take_fd(m, 0));
    /* The password was in the message. */
    msg_forget(m);
}

static void
on_cell(struct client *c, struct msg *m)
{
    struct err e = {0};
    struct str name = msg_get_str(m);
    if (!msg_end(m)) {
        broken(c, m);
        return;
    }
    const struct account *account = accounts_find(&authd.accounts, name);
    int channel = msg_take_fd(m, 0);
    if (!account) {
        service_fail(c, ERR_TEMPORARY, "no such account now");
    } else if (login_cell(account, CELL_LOCAL, channel, &e) < 0) {
        log_error("no cell for %s: %s", log_str(name), e.text);
        service_fail(c, ERR_TEMPORARY, "the mailbox cannot be opened now");
    } else {
        login_granted(c, account, false);
    }
    close(channel);
}

/* A parked session wants a cell again. */
static void
on_resume(struct client *c, struct msg *m)
{
    struct err e = {0};
    struct str token = msg_get_str(m);
    if (!msg_end(m)) {
        broken(c, m);
        return;
    }
    const struct account *account = token_account(token);
    int channel = msg_take_fd(m, 0);
    if (!account) {
        log_warn("a token that is not valid, or not any more");
        service_fail(c, ERR_PERMANENT, "not a valid token");
    } else if (login_cell(account, CELL_IMAPD, channel, &e) < 0) {
        log_error("no cell for %s: %s", log_str(account->name), e.text);
        service_fail(c, ERR_TEMPORARY, "the mailbox cannot be opened now");
    } else {
        login_granted(c, account, true);
    }
    close(channel);
}

static void
answer(struct client *c, int ok, const struct err *e)
{
    struct msg out = {0};
    if (ok < 0) {
        service_fail(c, e->class, e->text);
        return;
    }
    msg_begin(&out, M_ACCOUNT_OK);
    service_send(c, &out);
    msg_free(&out);
}

static int
add(struct str given, struct str password, uint32_t uid, uint32_t gid, struct str directory,
    struct err *e)
{
    char hash[HASH_MAX], lower[ACCOUNT_NAME_MAX];
    struct buf path = buf_new(ACCOUNT_DIR_MAX);
    if (given.n == 0 || given.n > sizeof lower)
        return err_set(e, ERR_PERMANENT, "malformed name");
    for (size_t i = 0; i < given.n; i++)
        lower[i] = ch_lower(given.p[i]);
    struct str name = str_of(lower, given.n);
    ptrdiff_t at = str_chr(name, '@');
    struct str domain = at < 0 ? STR("") : str_from(name, (size_t)at + 1);
    if (at >= 0 && !conf_is_local(authd.conf, domain))
        return err_set(e, ERR_PERMANENT, "domain %.*s is not in the configuration",
                       STR_ARG(domain));
    /* The primary domain is not written: "user" and "user@primary" are one account. */
    if (at >= 0 && str_eq(domain, authd.conf->domains[0]))
        name.n = (size_t)at;
    if (password.n == 0 || login_hash(password, hash, sizeof hash) < 0)
        return err_set(e, ERR_PERMANENT, "the password cannot be used (1 to %d bytes)",
                       PASSWORD_MAX);
    if (uid == 0) {
        uid = authd.unprivileged
                  ? authd.own_uid
                  : accounts_give_uid(&authd.accounts, authd.conf->uid_first, authd.conf->uid_last);
        gid = uid;
    }
    if (uid == 0)
        return err_set(e, ERR_PERMANENT, "the range of user IDs is used up");
    struct account x = {.name = name,
                        .hash = str_z(hash),
                        .directory =
                            directory.n ? directory : conf_maildir(authd.conf, name, &path),
                        .uid = uid,
                        .gid = gid};
    int ok = accounts_add(&authd.accounts, &x, e);
    buf_free(&path);
    return ok;
}

static void
on_account_change(struct client *c, struct msg *m)
{
    struct err e = {0};
    int ok = -1;
    struct str name = msg_get_str(m);
    /* Nobody else runs between this and the change. */
    known_clear(&authd.known);
    if (m->type == M_ACCOUNT_REMOVE) {
        const struct account *account = resolve_login(name);
        if (msg_end(m) && account)
            accounts_retire_uid(&authd.accounts, account->uid, authd.conf->uid_first,
                                authd.conf->uid_last);
        if (msg_end(m))
            ok = accounts_remove(&authd.accounts, account ? account->name : name, &e);
    } else if (m->type == M_ACCOUNT_PASSWD) {
        char hash[HASH_MAX];
        struct str password = msg_get_str(m);
        const struct account *account = resolve_login(name);
        if (msg_end(m) && !account)
            err_set(&e, ERR_PERMANENT, "no such account");
        else if (msg_end(m) && login_hash(password, hash, sizeof hash) == 0)
            ok = accounts_set_hash(&authd.accounts, account->name, str_z(hash), &e);
        else
            err_set(&e, ERR_PERMANENT, "the password cannot be used");
    } else {
        struct str password = msg_get_str(m);
        uint32_t uid = msg_get_u32(m), gid = msg_get_u32(m);
        struct str directory = msg_get_str(m);
        if (msg_end(m))
            ok = add(name, password, uid, gid, directory, &e);
    }
    if (!msg_end(m)) {
        broken(c, m);
        return;
    }
    if (ok == 0)
        log_info("account <%s>: %s", log_str(name),
                 m->type == M_ACCOUNT_REMOVE ? "removed"
                 : m->type == M_ACCOUNT_ADD  ? "added"
                                             : "password");
    answer(c, ok, &e);
    msg_forget(m);
}

static void
on_list(struct client *c, struct msg *m)
{
    enum { PAGE = 100 };
    struct str after = msg_get_str(m);
    struct msg out = {0};
    if (!msg_end(m)) {
        broken(c, m);
        return;
    }
    size_t from = accounts_after(&authd.accounts, after);
    size_t n = authd.accounts.n - from < PAGE ? authd.accounts.n - from : PAGE;
    msg_begin(&out, M_ACCOUNT_ROWS);
    msg_put_bool(&out, from + n < authd.accounts.n);
    msg_put_u32(&out, (uint32_t)n);
    for (size_t i = from; i < from + n; i++) {
        const struct account *x = authd.accounts.list[i];
        msg_put_str(&out, x->name);
        msg_put_u32(&out, x->uid);
        msg_put_u32(&out, x->gid);
        msg_put_str(&out, x->directory);
    }
    service_send(c, &out);
    msg_free(&out);
}

void
serve_message(struct client *c, struct msg *m)
{
    switch (m->type) {
    case M_ADDRESS:
        on_address(c, m);
        break;
    case M_UID_ACCOUNT:
        on_uid(c, m);
        break;
    case M_VERIFY:
    case M_ENTER:
        on_login(c, m);
        break;
    case M_CELL:
        on_cell(c, m);
        break;
    case M_RESUME:
        on_resume(c, m);
        break;
    case M_ACCOUNT_ADD:
    case M_ACCOUNT_PASSWD:
    case M_ACCOUNT_REMOVE:
        on_account_change(c, m);
        break;
    case M_ACCOUNT_LIST:
        on_list(c, m);
        break;
    default:
        broken(c, m);
    }
}

void
serve_gone(struct client *c)
{
    login_forget(c);
}
