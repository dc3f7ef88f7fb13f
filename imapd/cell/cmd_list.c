/* LIST, LSUB (RFC 3501 6.3.8, 6.3.9; RFC 5258, 3348, 5819, 6154). */
#include "imapd/cell/args.h"
#include "imapd/cell/commands.h"
#include "imapd/cell/status.h"
#include <stdlib.h>

enum { PATTERNS_MAX = 20 };

struct list {
    struct str reference;
    struct str patterns[PATTERNS_MAX];
    size_t npatterns;
    bool extended;
    bool only_subscribed, recursive, only_special; /* selection */
    bool subscribed;                               /* return */
    bool status;
    struct icell_status_items items;
};

static void
put_row(struct icell *ic, const char *what, const char *attributes, struct str name,
        const char *tail)
{
    struct buf line = buf_new(4096);
    buf_addf(&line, "* %s (%s) \".\" ", what, attributes);
    icell_put_astring(&line, name);
    buf_addf(&line, "%s\r\n", tail);
    stream_put(&ic->s, buf_str(&line));
    buf_free(&line);
}

/* ---- arguments ---- */

/* "(SUBSCRIBED RECURSIVEMATCH ...) " */
static int
selection(struct cursor *c, struct list *l)
{
    if (!cur_take(c, '('))
        return 0;
    l->extended = true;
    while (!cur_take(c, ')')) {
        struct str name;
        if (icell_arg_atom(c, &name) < 0)
            return -1;
        if (str_caseeq(name, STR("SUBSCRIBED")))
            l->only_subscribed = l->subscribed = true;
        else if (str_caseeq(name, STR("RECURSIVEMATCH")))
            l->recursive = true;
        else if (str_caseeq(name, STR("SPECIAL-USE")))
            l->only_special = true;
        else if (!str_caseeq(name, STR("REMOTE")))
            return -1;
        cur_take(c, ' ');
    }
    /* RFC 5258 3.1: it does not stand alone. */
    return icell_arg_space(c) && (!l->recursive || l->only_subscribed) ? 0 : -1;
}

/* " RETURN (SUBSCRIBED CHILDREN STATUS (...))" */
static int
returns(struct cursor *c, struct list *l)
{
    if (!cur_take_case(c, STR(" RETURN (")))
        return 0;
    l->extended = true;
    while (!cur_take(c, ')')) {
        struct str name;
        if (icell_arg_atom(c, &name) < 0)
            return -1;
        if (str_caseeq(name, STR("SUBSCRIBED")))
            l->subscribed = true;
        else if (str_caseeq(name, STR("STATUS"))) {
            if (!icell_arg_space(c) || icell_status_parse(c, &l->items) < 0)
                return -1;
            l->status = true;
        } else if (!str_caseeq(name, STR("CHILDREN")) && !str_caseeq(name, STR("SPECIAL-USE")))
            return -1;
        cur_take(c, ' ');
    }
    return 0;
}

static int
patterns(struct icell *ic, struct cursor *c, struct list *l)
{
    if (!cur_take(c, '(')) {
        l->npatterns = 1;
        return icell_arg_list_mailbox(c, &ic->arena, &l->patterns[0]);
    }
    l->extended = true;
    do
        if (l->npatterns == PATTERNS_MAX ||
            icell_arg_list_mailbox(c, &ic->arena, &l->patterns[l->npatterns++]) < 0)
            return -1;
    while (icell_arg_space(c));
    return cur_take(c, ')') ? 0 : -1;
}

static int
parse(struct icell *ic, struct list *l)
{
    struct cursor *c = &ic->cmd.args;
    *l = (struct list){0};
    if (!icell_arg_space(c) || selection(c, l) < 0 ||
        icell_arg_astring(c, &ic->arena, &l->reference) < 0 || !icell_arg_space(c) ||
        patterns(ic, c, l) < 0 || returns(c, l) < 0 || !icell_arg_end(c))
        return -1;
    return 0;
}

/* ---- LIST ---- */

static bool
matches(const struct list *l, struct str name)
{
    bool any = false;
    for (size_t i = 0; i < l->npatterns && !any; i++) {
        struct buf whole = buf_new(FOLDER_NAME_MAX * 4);
        buf_add(&whole, l->reference);
        buf_add(&whole, l->patterns[i]);
        any = buf_ok(&whole) && folder_match(buf_str(&whole), name);
        buf_free(&whole);
    }
    return any;
}

static bool
below(struct str name, struct str parent)
{
    return name.n > parent.n && str_starts(name, parent) && name.p[parent.n] == '.';
}

/* RFC 5258 3.5: a folder that does not match itself is told for those below it that do; not for
 * ones that the client sees anyway. */
static bool
has_subscribed_below(const struct list *l, const struct folder_list *all, struct str name)
{
    for (size_t i = 0; i < all->n; i++)
        if (all->at[i].subscribed && below(all->at[i].name, name) && !matches(l, all->at[i].name))
            return true;
    return false;
}

static void
put_folder(struct icell *ic, const struct list *l, const struct folder_list *all,
           const struct folder_entry *f, bool level)
{
    struct err e = {0};
    struct buf attributes = buf_new(200);
    bool info = l->recursive && has_subscribed_below(l, all, f->name);
    const char *use = f->exists ? folder_use(ic->root_fd, f->name) : NULL;
    if ((l->only_subscribed && !f->subscribed && !info) || (l->only_special && !use))
        goto out;
    if (!f->exists)
        buf_addz(&attributes, level && !l->extended ? "\\Noselect " : "\\NonExistent ");
    buf_addz(&attributes, f->children ? "\\HasChildren" : "\\HasNoChildren");
    if (l->subscribed && f->subscribed)
        buf_addz(&attributes, " \\Subscribed");
    if (use)
        buf_addf(&attributes, " %s", use);
    put_row(ic, "LIST", buf_z(&attributes), f->name,
            info ? " (\"CHILDINFO\" (\"SUBSCRIBED\"))" : "");
    if (l->status && f->exists)
        (void)icell_put_status(ic, f->name, &l->items, &e);
out:
    buf_free(&attributes);
}

static struct folder_entry *
entry_of(const struct folder_list *all, struct str name)
{
    for (size_t i = 0; i < all->n; i++)
        if (str_eq(all->at[i].name, name))
            return &all->at[i];
    return NULL;
}

/* The folders with what is subscribed, whether it is there or not, and the levels above. */
static int
everything(struct icell *ic, const struct list *l, struct folder_list *all_r, struct err *e)
{
    struct folder_list subs = {0}, all;
    if (folder_list(ic->root_fd, &ic->arena, &all, e) < 0)
        return -1;
    *all_r = all;
    if (!l->subscribed)
        return 0;
    if (folder_subscriptions(ic->root_fd, &ic->arena, &subs, e) < 0)
        return -1;
    all_r->at = arena_array(&ic->arena, all.n + 2 * subs.n + 1, sizeof *all_r->at);
    if (!all_r->at)
        return err_set(e, ERR_TEMPORARY, "out of memory");
    if (all.n)
        memcpy(all_r->at, all.at, all.n * sizeof *all.at);
    for (size_t i = 0; i < subs.n; i++) {
        struct folder_entry *there = entry_of(all_r, subs.at[i].name);
        ptrdiff_t dot = str_rchr(subs.at[i].name, '.');
        struct str up = str_sub(subs.at[i].name, 0, dot < 0 ? 0 : (size_t)dot);
        if (there)
            there->subscribed = true;
        else
            all_r->at[all_r->n++] =
                (struct folder_entry){.name = subs.at[i].name, .subscribed = true};
        if (up.n && !entry_of(all_r, up))
            all_r->at[all_r->n++] = (struct folder_entry){.name = up, .children = true};
    }
    return 0;
}

void
icell_cmd_list(struct icell *ic)
{
    struct list l;
    struct folder_list all;
    struct err e = {0};
    if (parse(ic, &l) < 0) {
        icell_end_syntax(ic);
        return;
    }
    if (l.status && icell_status_condstore(&l.items))
        icell_enable_condstore(ic);
    if (!l.extended && l.patterns[0].n == 0) {
        /* RFC 3501 6.3.8: an empty name asks for the separator. */
        put_row(ic, "LIST", "\\Noselect", str_of("", 0), "");
    } else if (everything(ic, &l, &all, &e) < 0) {
        icell_end_err(ic, &e);
        return;
    } else {
        for (size_t i = 0; i < all.n && !ic->s.broken; i++)
            if (matches(&l, all.at[i].name))
                put_folder(ic, &l, &all, &all.at[i], !all.at[i].subscribed);
    }
    icell_end(ic, ICELL_OK, "List completed.");
}

/* ---- LSUB ---- */

/* RFC 3501 6.3.9: with "%", a level above subscribed folders is told as \Noselect. */
static void
lsub_matching(struct icell *ic, struct str pattern, const struct folder_list *list)
{
    struct str told = str_of(NULL, 0);
    for (size_t i = 0; i < list->n; i++) {
        struct str name = list->at[i].name;
        if (folder_match(pattern, name)) {
            put_row(ic, "LSUB", "", name, "");
            told = name;
            continue;
        }
        if (!str_ends(pattern, STR("%")))
            continue;
        for (size_t k = name.n; k-- > 1;) {
            struct str up = str_sub(name, 0, k);
            if (name.p[k] != '.' || !folder_match(pattern, up))
                continue;
            if (!str_eq(up, told))
                put_row(ic, "LSUB", "\\Noselect", up, "");
            told = up;
            break;
        }
    }
}

void
icell_cmd_lsub(struct icell *ic)
{
    struct str reference, mailbox;
    struct buf pattern = buf_new(FOLDER_NAME_MAX * 4);
    struct folder_list list;
    struct err e = {0};
    if (icell_arg_mailbox(&ic->cmd.args, &ic->arena, &reference) < 0 ||
        !icell_arg_space(&ic->cmd.args) ||
        icell_arg_list_mailbox(&ic->cmd.args, &ic->arena, &mailbox) < 0 ||
        !icell_arg_end(&ic->cmd.args)) {
        icell_end_syntax(ic);
        return;
    }
    buf_add(&pattern, reference);
    buf_add(&pattern, mailbox);
    if (folder_subscriptions(ic->root_fd, &ic->arena, &list, &e) < 0) {
        icell_end_err(ic, &e);
    } else {
        lsub_matching(ic, buf_str(&pattern), &list);
        icell_end(ic, ICELL_OK, "Lsub completed.");
    }
    buf_free(&pattern);
}
