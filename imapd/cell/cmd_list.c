/* LIST (RFC 9051 6.3.9; RFC 5258, 6154), LSUB (RFC 3501 6.3.9). */
#include "imapd/cell/args.h"
#include "imapd/cell/commands.h"
#include "imapd/cell/status.h"
#include "lib/mail/nfc.h"
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
    struct folder_list all;
    struct str *shown; /* their names as the client knows them */
    struct use {
        const char *is;
        bool known;
    } * uses;
};

/* name: as the client knows it. */
static void
put_row(struct icell *ic, const char *what, const char *attributes, struct str name,
        const char *tail)
{
    struct buf line = buf_new(8192);
    buf_addf(&line, "* %s (%s) \".\" ", what, attributes);
    icell_put_utf8(&line, name);
    buf_addf(&line, "%s\r\n", tail);
    stream_put(&ic->s, buf_str(&line));
    buf_free(&line);
}

void
icell_put_list(struct icell *ic, struct str name, const char *attributes, struct str oldname)
{
    struct buf tail = buf_new(4096), shown = buf_new((size_t)4 * FOLDER_NAME_MAX);
    if (oldname.p) {
        buf_addz(&tail, " (\"OLDNAME\" (");
        icell_put_utf8(&tail, oldname);
        buf_addz(&tail, "))");
    }
    icell_shown_name(ic, &shown, name);
    put_row(ic, "LIST", attributes ? attributes : "", buf_str(&shown), buf_z(&tail));
    buf_free(&tail);
    buf_free(&shown);
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
    /* RFC 9051 6.3.9.1: it does not stand alone. */
    return icell_arg_space(c) && (!l->recursive || l->only_subscribed || l->only_special) ? 0 : -1;
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

/* The reference and each pattern, in the form that names have (RFC 9051 5.1). */
static int
join_patterns(struct icell *ic, struct list *l)
{
    int result = 0;
    for (size_t i = 0; i < l->npatterns && result == 0; i++) {
        struct buf whole = buf_new(NFC_MAX), normal = buf_new(4 * NFC_MAX);
        buf_add(&whole, l->reference);
        buf_add(&whole, l->patterns[i]);
        /* What cannot be a pattern matches nothing (6.3.9). */
        bool good = buf_ok(&whole) && (!ic->utf8 || nfc_normalise(&normal, buf_str(&whole)) == 0);
        l->patterns[i] =
            good ? arena_str(&ic->arena, buf_str(ic->utf8 ? &normal : &whole)) : STR("");
        result = l->patterns[i].p ? 0 : -1;
        buf_free(&whole);
        buf_free(&normal);
    }
    return result;
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
matches(const struct list *l, size_t i)
{
    for (size_t k = 0; k < l->npatterns; k++)
        if (l->patterns[k].n && folder_match(l->patterns[k], l->shown[i]))
            return true;
    return false;
}

static const char *
use_of(struct icell *ic, struct list *l, size_t i)
{
    struct use *u = &l->uses[i];
    if (!u->known)
        u->is = l->all.at[i].exists ? folder_use(ic->root_fd, l->all.at[i].name) : NULL;
    u->known = true;
    return u->is;
}

/* Whether it is what the selection options ask for. */
static bool
fits(struct icell *ic, struct list *l, size_t i)
{
    return (l->only_subscribed ? l->all.at[i].subscribed : l->all.at[i].listed) &&
           (!l->only_special || use_of(ic, l, i));
}

static bool
below(struct str name, struct str parent)
{
    return name.n > parent.n && str_starts(name, parent) && name.p[parent.n] == '.';
}

/* RFC 9051 6.3.9.6. Whether a folder below fits; *unseen_r: one that the client is not told of. */
static bool
fits_below(struct icell *ic, struct list *l, size_t i, bool *unseen_r)
{
    struct str name = l->all.at[i].name;
    bool any = false, first = folder_is_inbox(name); /* of all, not before what is below it */
    *unseen_r = false;
    for (size_t k = i + 1; k < l->all.n && l->recursive && !*unseen_r &&
                           (first || str_starts(l->all.at[k].name, name));
         k++)
        if (below(l->all.at[k].name, name) && fits(ic, l, k)) {
            any = true;
            *unseen_r = !matches(l, k);
        }
    return any;
}

static void
put_folder(struct icell *ic, struct list *l, size_t i)
{
    const struct folder_entry *f = &l->all.at[i];
    struct err e = {0};
    struct buf attributes = buf_new(200), tail = buf_new(200);
    bool unseen, info = fits_below(ic, l, i, &unseen), itself = fits(ic, l, i);
    const char *use = use_of(ic, l, i);
    if (!itself && !unseen)
        return;
    if (!f->exists)
        buf_addz(&attributes, !f->subscribed && !l->extended ? "\\Noselect " : "\\NonExistent ");
    buf_addz(&attributes, f->children ? "\\HasChildren" : "\\HasNoChildren");
    if (l->subscribed && f->subscribed)
        buf_addz(&attributes, " \\Subscribed");
    if (use)
        buf_addf(&attributes, " %s", use);
    if (info)
        buf_addf(&tail, " (\"CHILDINFO\" (%s%s%s))", l->only_subscribed ? "\"SUBSCRIBED\"" : "",
                 l->only_subscribed && l->only_special ? " " : "",
                 l->only_special ? "\"SPECIAL-USE\"" : "");
    put_row(ic, "LIST", buf_z(&attributes), l->shown[i], buf_z(&tail));
    if (l->status && f->exists && itself)
        (void)icell_put_status(ic, f->name, &l->items, &e);
    buf_free(&attributes);
    buf_free(&tail);
}

/* A subscribed name with the levels above it. */
static void
add_subscribed(struct folder_list *all, struct str name)
{
    all->at[all->n++] = (struct folder_entry){.name = name, .subscribed = true};
    for (size_t k = name.n; k-- > 1;)
        if (name.p[k] == '.')
            all->at[all->n++] = (struct folder_entry){.name = str_sub(name, 0, k)};
}

/* The folders with what is subscribed, whether it is there or not, and the levels above. */
static int
everything(struct icell *ic, struct list *l, struct err *e)
{
    struct folder_list subs = {0}, all;
    size_t room = 0;
    if (folder_list(ic->root_fd, &ic->arena, &all, e) < 0 ||
        (l->subscribed && folder_subscriptions(ic->root_fd, &ic->arena, &subs, e) < 0))
        return -1;
    for (size_t i = 0; i < subs.n; i++) {
        room++;
        for (size_t k = 0; k < subs.at[i].name.n; k++)
            room += subs.at[i].name.p[k] == '.';
    }
    room += all.n;
    l->all.at = arena_array(&ic->arena, room, sizeof *l->all.at);
    l->shown = arena_array(&ic->arena, room, sizeof *l->shown);
    l->uses = arena_array(&ic->arena, room, sizeof *l->uses);
    if (!l->all.at || !l->shown || !l->uses)
        return err_set(e, ERR_TEMPORARY, "out of memory");
    for (size_t i = 0; i < all.n; i++) {
        l->all.at[l->all.n] = all.at[i];
        l->all.at[l->all.n++].listed = true;
    }
    for (size_t i = 0; i < subs.n; i++)
        add_subscribed(&l->all, subs.at[i].name);
    folder_list_merge(&l->all);
    for (size_t i = 0; i < l->all.n; i++) {
        if (!l->all.at[i].listed && !l->all.at[i].subscribed)
            l->all.at[i].children = true; /* above some that is subscribed */
        l->uses[i] = (struct use){0};
        l->shown[i] = icell_shown(ic, l->all.at[i].name);
    }
    return 0;
}

void
icell_cmd_list(struct icell *ic)
{
    struct list l;
    struct err e = {0};
    if (parse(ic, &l) < 0) {
        icell_end_syntax(ic);
        return;
    }
    if (l.status && icell_status_condstore(&l.items))
        icell_enable_condstore(ic);
    if (!l.extended && l.patterns[0].n == 0) {
        /* RFC 9051 6.3.9: an empty name asks for the separator. */
        put_row(ic, "LIST", "\\Noselect", str_of("", 0), "");
    } else if (join_patterns(ic, &l) < 0 || everything(ic, &l, &e) < 0) {
        icell_end_err(ic, &e);
        return;
    } else {
        for (size_t i = 0; i < l.all.n && !ic->s.broken; i++)
            if (matches(&l, i))
                put_folder(ic, &l, i);
    }
    icell_end(ic, ICELL_OK, "List completed.");
}

/* ---- LSUB ---- */

/* RFC 3501 6.3.9: with "%", a level above subscribed folders is told as \Noselect, unless it is
 * subscribed itself. */
static void
lsub_matching(struct icell *ic, struct str pattern, const struct folder_list *list)
{
    struct str told = str_of(NULL, 0);
    for (size_t i = 0; i < list->n; i++) {
        struct str above = list->at[i].name, name = icell_shown(ic, above);
        if (folder_match(pattern, name)) {
            put_row(ic, "LSUB", "", name, "");
            continue;
        }
        if (!str_ends(pattern, STR("%")))
            continue;
        for (size_t k = name.n; k-- > 1;) {
            struct str up = str_sub(name, 0, k);
            if (name.p[k] != '.')
                continue;
            above = folder_above(above);
            if (!folder_match(pattern, up))
                continue;
            if (!str_eq(up, told) && !folder_list_find(list, above))
                put_row(ic, "LSUB", "\\Noselect", up, "");
            told = up;
            break;
        }
    }
}

void
icell_cmd_lsub(struct icell *ic)
{
    struct list l = {.npatterns = 1};
    struct cursor *c = &ic->cmd.args;
    struct folder_list list;
    struct err e = {0};
    if (!icell_arg_space(c) || icell_arg_astring(c, &ic->arena, &l.reference) < 0 ||
        !icell_arg_space(c) || icell_arg_list_mailbox(c, &ic->arena, &l.patterns[0]) < 0 ||
        !icell_arg_end(c)) {
        icell_end_syntax(ic);
        return;
    }
    if (join_patterns(ic, &l) < 0 || folder_subscriptions(ic->root_fd, &ic->arena, &list, &e) < 0) {
        icell_end_err(ic, &e);
        return;
    }
    lsub_matching(ic, l.patterns[0], &list);
    icell_end(ic, ICELL_OK, "Lsub completed.");
}
