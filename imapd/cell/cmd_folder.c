/* CREATE, DELETE, RENAME, SUBSCRIBE, UNSUBSCRIBE (RFC 9051 6.3.4 to 6.3.8). */
#include "imapd/cell/args.h"
#include "imapd/cell/commands.h"
#include "lib/log/log.h"
#include "lib/mail/utf7.h"
#include "lib/mailbox/quota.h"
#include <stdlib.h>

/* A name, then the end. A separator at the end says that folders will come below it, no more. */
static int
only_name(struct icell *ic, struct str *name_r)
{
    if (icell_arg_mailbox(ic, &ic->cmd.args, name_r) < 0 || !icell_arg_end(&ic->cmd.args)) {
        icell_end_syntax(ic);
        return -1;
    }
    if (name_r->n > 1 && name_r->p[name_r->n - 1] == '.')
        name_r->n--;
    return 0;
}

static void
end_folder(struct icell *ic, int result, const struct err *e, const char *done)
{
    struct str why = str_z(e->text);
    if (result == 0)
        icell_end(ic, ICELL_OK, "%s completed.", done);
    else if (e->class == ERR_PERMANENT)
        icell_end(ic, ICELL_NO, "[%s] %s.",
                  str_eq(why, STR("the folder exists")) ? "ALREADYEXISTS"
                  : str_eq(why, STR("no such folder"))  ? "NONEXISTENT"
                                                        : "CANNOT",
                  e->text);
    else
        icell_end_err(ic, e);
}

/* The name of a mailbox that is to be: modified UTF-7 in its one form (RFC 9051 A.1). Where the
 * client says UTF-8 it is so already. */
static bool
is_proper(struct icell *ic, struct str name)
{
    struct buf utf8 = buf_new((size_t)4 * FOLDER_NAME_MAX);
    bool proper = ic->utf8 || utf7_decode(&utf8, name) == 0;
    if (!proper)
        icell_end(ic, ICELL_NO, "[CANNOT] Not modified UTF-7.");
    buf_free(&utf8);
    return proper;
}

/* RFC 9051 6.3.4, 6.3.5: a client that said a name in another form is told the name. */
static void
tell_name(struct icell *ic, struct str name, const char *attributes)
{
    if (ic->rev2 && ic->cmd.oldname.p)
        icell_put_list(ic, name, attributes, ic->cmd.oldname);
}

/* " (USE (\\Sent))" behind the name (RFC 6154 3). *use_r stays NULL without it. 1: an attribute
 * that cannot be had. */
static int
take_use(struct icell *ic, const char **use_r)
{
    struct cursor *c = &ic->cmd.args;
    int result = 0;
    *use_r = NULL;
    if (!cur_take_case(c, STR(" (USE (")))
        return 0;
    do {
        struct str name;
        size_t from = c->at;
        if (!cur_take(c, '\\') || icell_arg_atom(c, &name) < 0)
            return -1;
        const char *use = folder_use_known(str_sub(c->all, from, c->at - from));
        if (!use || *use_r)
            result = 1;
        *use_r = use;
    } while (icell_arg_space(c));
    return cur_take_str(c, STR("))")) ? result : -1;
}

void
icell_cmd_create(struct icell *ic)
{
    struct str name;
    const char *use;
    struct mailbox mb;
    struct err e = {0};
    if (icell_arg_mailbox(ic, &ic->cmd.args, &name) < 0) {
        icell_end_syntax(ic);
        return;
    }
    int got = take_use(ic, &use);
    if (got < 0 || !icell_arg_end(&ic->cmd.args)) {
        icell_end_syntax(ic);
        return;
    }
    if (name.n > 1 && name.p[name.n - 1] == '.')
        name.n--;
    if (got > 0)
        icell_end(ic, ICELL_NO, "[USEATTR] No mailbox for that use.");
    else if (is_proper(ic, name)) {
        int result = folder_create(ic->root_fd, name, &e);
        if (result == 0 && use)
            result = folder_set_use(ic->root_fd, name, use, &e);
        if (result == 0)
            tell_name(ic, name, NULL);
        if (result == 0 && mailbox_open(&mb, ic->root_fd, name, true, &e) == 0) {
            icell_end(ic, ICELL_OK, "[MAILBOXID (F%u)] Create completed.", mb.validity);
            mailbox_close(&mb);
            return;
        }
        end_folder(ic, result, &e, "Create");
    }
}

void
icell_cmd_delete(struct icell *ic)
{
    struct str name;
    struct err e = {0};
    if (only_name(ic, &name) < 0)
        return;
    char path[FOLDER_NAME_MAX + 8];
    if (ic->mb_open && folder_path(name, path) == 0 && strcmp(path, ic->mb.path) == 0 &&
        !folder_is_inbox(name))
        icell_unselect(ic);
    if (!folder_is_inbox(name) && !folder_exists(ic->root_fd, name)) {
        icell_end(ic, ICELL_NO, "[NONEXISTENT] No such mailbox.");
        return;
    }
    int result = folder_delete(ic->root_fd, name, &e);
    if (result == 0) {
        quota_recount(ic->root_fd); /* its messages have gone with it */
        tell_name(ic, name, "\\NonExistent");
    }
    end_folder(ic, result, &e, "Delete");
}

/* RFC 3501 6.3.5: INBOX stays, its messages move to a new folder. */
static int
rename_inbox(struct icell *ic, struct str to, struct err *e)
{
    struct mailbox from, into;
    uint32_t first;
    if (mailbox_open(&from, ic->root_fd, STR("INBOX"), false, e) < 0)
        return -1;
    if (folder_create(ic->root_fd, to, e) < 0) {
        mailbox_close(&from);
        return -1;
    }
    int result = -1;
    size_t *all = calloc(from.n + 1, sizeof *all);
    if (!all) {
        err_set(e, ERR_TEMPORARY, "out of memory");
    } else if (mailbox_open_target(&into, ic->root_fd, to, e) == 0) {
        for (size_t i = 0; i < from.n; i++)
            all[i] = i;
        result = from.n ? mailbox_copy(&from, all, from.n, true, &into, &first, e) : 0;
        mailbox_close(&into);
    }
    if (result < 0) /* nothing is in it: or it would be in the way of the next try */
        (void)folder_delete(ic->root_fd, to, NULL);
    for (size_t i = 0; i < from.n && result == 0; i++)
        result = mailbox_unlink_moved(&from, i, e);
    free(all);
    mailbox_close(&from);
    return result;
}

void
icell_cmd_rename(struct icell *ic)
{
    struct str from, to;
    struct err e = {0};
    if (icell_arg_mailbox(ic, &ic->cmd.args, &from) < 0) {
        icell_end_syntax(ic);
        return;
    }
    struct str said = ic->cmd.oldname; /* of the first name; the second one's comes now */
    if (only_name(ic, &to) < 0)
        return;
    if (folder_is_inbox(from) && folder_exists(ic->root_fd, to)) {
        icell_end(ic, ICELL_NO, "[ALREADYEXISTS] Mailbox exists.");
    } else if (is_proper(ic, to)) {
        int result = folder_is_inbox(from) ? rename_inbox(ic, to, &e)
                                           : folder_rename(ic->root_fd, from, to, &e);
        if (result == 0 && ic->rev2 && !folder_is_inbox(from)) {
            struct buf shown = buf_new((size_t)4 * FOLDER_NAME_MAX);
            icell_shown_name(ic, &shown, from);
            icell_put_list(ic, to, NULL, said.p ? said : buf_str(&shown));
            buf_free(&shown);
        }
        end_folder(ic, result, &e, "Rename");
    }
}

static void
subscribe(struct icell *ic, bool on)
{
    struct str name;
    struct err e = {0};
    if (only_name(ic, &name) == 0)
        end_folder(ic, folder_subscribe(ic->root_fd, name, on, &e), &e,
                   on ? "Subscribe" : "Unsubscribe");
}

void
icell_cmd_subscribe(struct icell *ic)
{
    subscribe(ic, true);
}

void
icell_cmd_unsubscribe(struct icell *ic)
{
    subscribe(ic, false);
}
