#include "common/authd/authd.h"

/* "user@domain" of this domain, or "user" when it is the primary one; without the subaddress. */
static struct account *
account_of(struct str local, struct str domain)
{
    char room[ACCOUNT_NAME_MAX + 2];
    struct buf name = buf_on(room, sizeof room, ACCOUNT_NAME_MAX);
    const struct conf *conf = authd.conf;
    for (size_t i = 0; i < local.n; i++)
        buf_addc(&name, ch_lower(local.p[i]));
    struct account *found = NULL;
    if (str_caseeq(domain, conf->domains[0]) || str_caseeq(domain, conf->hostname))
        found = accounts_find(&authd.accounts, buf_str(&name));
    if (found && str_chr(found->name, '@') < 0)
        return found;
    buf_addc(&name, '@');
    for (size_t i = 0; i < domain.n; i++)
        buf_addc(&name, ch_lower(domain.p[i]));
    return buf_ok(&name) ? accounts_find(&authd.accounts, buf_str(&name)) : NULL;
}

static struct account *
account_for(struct str local, struct str domain)
{
    struct account *found = account_of(local, domain);
    ptrdiff_t tag = str_chr(local, authd.conf->delimiter.p[0]);
    return found || tag <= 0 ? found : account_of(str_sub(local, 0, (size_t)tag), domain);
}

/* The account that alone gets this alias's mail, and so may send as it. */
static struct account *
only_account_of(const struct alias *alias)
{
    struct str target = alias->ntargets == 1 ? alias->targets[0] : STR("");
    ptrdiff_t at = str_rchr(target, '@');
    if (at <= 0)
        return NULL;
    struct str local = str_sub(target, 0, (size_t)at), domain = str_from(target, (size_t)at + 1);
    if (!conf_is_local(authd.conf, domain) ||
        aliases_for(&authd.aliases, local, domain, authd.conf->delimiter.p[0]))
        return NULL;
    return account_for(local, domain);
}

int
resolve_address(struct str address, enum address_kind *kind_r, struct account **account_r,
                struct err *e)
{
    ptrdiff_t at = str_rchr(address, '@');
    const struct conf *conf = authd.conf;
    struct str local = at < 0 ? address : str_sub(address, 0, (size_t)at);
    struct str domain = at < 0 ? conf->domains[0] : str_from(address, (size_t)at + 1);
    *account_r = NULL;
    if (!conf_is_ours(conf, domain)) {
        *kind_r = ADDRESS_FOREIGN;
        return 0;
    }
    /* The host's own name is the primary domain by another name. */
    if (!conf_is_local(conf, domain))
        domain = conf->domains[0];
    /* RFC 5321 4.5.1: postmaster is always somebody. */
    bool postmaster = str_caseeq(local, STR("postmaster")) && conf->postmaster.n &&
                      !str_caseeq(address, conf->postmaster);
    const struct alias *alias = aliases_for(&authd.aliases, local, domain, conf->delimiter.p[0]);
    if (alias || postmaster) {
        *kind_r = ADDRESS_ALIAS;
        *account_r = account_for(local, domain);
        if (!*account_r && alias)
            *account_r = only_account_of(alias);
        return 0;
    }
    *account_r = account_for(local, domain);
    *kind_r = *account_r ? ADDRESS_ACCOUNT : ADDRESS_UNKNOWN;
    if (!*account_r && (authd.accounts.bad_lines || authd.aliases.bad_lines))
        return err_set(e, ERR_TEMPORARY, "the %s file has bad lines: nobody can be called unknown",
                       authd.accounts.bad_lines ? "accounts" : "aliases");
    return 0;
}

struct account *
resolve_login(struct str user)
{
    char room[ACCOUNT_NAME_MAX + 1];
    if (user.n > ACCOUNT_NAME_MAX)
        return NULL;
    for (size_t i = 0; i < user.n; i++)
        room[i] = ch_lower(user.p[i]);
    struct str name = str_of(room, user.n);
    struct account *found = accounts_find(&authd.accounts, name);
    ptrdiff_t at = str_chr(name, '@');
    if (found || at <= 0)
        return found;
    struct str domain = str_from(name, (size_t)at + 1);
    /* "user@primary" for the account "user" */
    return conf_is_local(authd.conf, domain) && str_eq(domain, authd.conf->domains[0])
               ? accounts_find(&authd.accounts, str_sub(name, 0, (size_t)at))
               : NULL;
}
