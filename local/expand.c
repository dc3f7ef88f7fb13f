#include "local/local.h"

struct expansion {
    const struct local *l;
    struct arena *arena;
    const struct alias **visited;
    size_t nvisited;
    struct str *out;
    size_t nout;
    struct str *work; /* targets still to be looked at */
    size_t nwork;
    bool broken;
};

static struct str
domain_of(struct str address)
{
    return str_from(address, (size_t)(str_rchr(address, '@') + 1));
}

static const struct alias *
alias_of(const struct local *l, struct str address)
{
    ptrdiff_t at = str_rchr(address, '@');
    struct str domain = domain_of(address);
    if (at < 0 || !conf_is_ours(l->conf, domain))
        return NULL;
    if (!conf_is_local(l->conf, domain))
        domain = l->conf->domains[0];
    return aliases_for(&l->aliases, str_sub(address, 0, (size_t)at), domain,
                       l->conf->delimiter.p[0]);
}

static bool
visited(const struct expansion *x, const struct alias *alias)
{
    for (size_t i = 0; i < x->nvisited; i++)
        if (x->visited[i] == alias)
            return true;
    return false;
}

static int
push(struct expansion *x, struct str address)
{
    if (x->nwork == EXPAND_MAX)
        return -1;
    x->work[x->nwork++] = address;
    return 0;
}

/* An end of the way: a foreign address as it is, one of ours marked. */
static int
finish(struct expansion *x, struct str address)
{
    char room[400];
    struct buf marked = buf_on(room, sizeof room, sizeof room - 1);
    if (conf_is_ours(x->l->conf, domain_of(address)))
        buf_addc(&marked, '\\');
    buf_add(&marked, address);
    if (x->nout == EXPAND_MAX || !buf_ok(&marked))
        return -1;
    for (size_t i = 0; i < x->nout; i++)
        if (str_caseeq(x->out[i], buf_str(&marked)))
            return 0;
    x->out[x->nout] = arena_str(x->arena, buf_str(&marked));
    return x->out[x->nout++].p ? 0 : -1;
}

static int
follow(struct expansion *x, const struct alias *alias)
{
    x->broken |= alias->broken;
    if (x->nvisited == EXPAND_MAX || alias->broken)
        return -1;
    x->visited[x->nvisited++] = alias;
    for (size_t i = 0; i < alias->ntargets; i++)
        /* "root: root, admin": a name that leads to itself means the account of that name. */
        if (str_caseeq(alias->targets[i], alias->name) ? finish(x, alias->name) < 0
                                                       : push(x, alias->targets[i]) < 0)
            return -1;
    return 0;
}

static int
run(struct expansion *x)
{
    while (x->nwork) {
        struct str address = x->work[--x->nwork];
        const struct alias *alias = alias_of(x->l, address);
        if (alias && visited(x, alias))
            continue; /* a circle: what else the aliases lead to still counts */
        if (alias ? follow(x, alias) < 0 : finish(x, address) < 0)
            return -1;
    }
    return 0;
}

int
expand_address(const struct local *l, struct arena *arena, struct str address,
               struct str **addresses_r, size_t *n_r, struct err *e)
{
    struct expansion x = {.l = l, .arena = arena};
    const struct alias *first = alias_of(l, address);
    struct str local_part = str_sub(address, 0, (size_t)(str_rchr(address, '@') + 1));
    *n_r = 0;
    bool postmaster =
        !first && l->conf->postmaster.n && conf_is_ours(l->conf, domain_of(address)) &&
        str_caseeq(local_part, STR("postmaster@")) && !str_caseeq(address, l->conf->postmaster);
    if (!first && !postmaster)
        return 0; /* an account, or nobody: authd knows, and whether that is certain */
    x.visited = arena_array(arena, EXPAND_MAX, sizeof *x.visited);
    x.out = arena_array(arena, EXPAND_MAX, sizeof *x.out);
    x.work = arena_array(arena, EXPAND_MAX, sizeof *x.work);
    if (!x.visited || !x.out || !x.work)
        return err_set(e, ERR_TEMPORARY, "out of memory");
    if ((first ? follow(&x, first) : push(&x, l->conf->postmaster)) < 0 || run(&x) < 0)
        return x.broken ? err_set(e, ERR_TEMPORARY, "the aliases of this address have a bad line")
                        : err_set(e, ERR_PERMANENT, "the aliases of this address lead to too many");
    if (x.nout == 0)
        return err_set(e, ERR_PERMANENT, "the aliases of this address lead in a circle");
    *addresses_r = x.out;
    *n_r = x.nout;
    return 0;
}
