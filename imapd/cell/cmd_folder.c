/* CREATE, DELETE, RENAME, SUBSCRIBE, UNSUBSCRIBE (RFC 3501 6.3.3 to 6.3.7). */
#include "imapd/cell/args.h"
#include "imapd/cell/commands.h"
#include "lib/log/log.h"
#include <stdlib.h>

/* A name, then the end. A separator at the end says that folders will come below it, no more. */
static int
only_name(struct icell *ic, struct str *name_r)
{
    if (icell_arg_mailbox(&ic->cmd.args, &ic->arena, name_r) < 0 || !icell_arg_end(&ic->cmd.args)) {
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
    if (result == 0)
        icell_end(ic, ICELL_OK, "%s completed.", done);
    else if (e->class == ERR_PERMANENT)
        icell_end(ic, ICELL_NO, "[CANNOT] %s.", e->text);
    else
        icell_end_err(ic, e);
}

void
icell_cmd_create(struct icell *ic)
{
    struct str name;
    struct err e = {0};
    if (only_name(ic, &name) < 0)
        return;
    if (folder_exists(ic->root_fd, name))
        icell_end(ic, ICELL_NO, "[ALREADYEXISTS] Mailbox exists.");
    else
        end_folder(ic, folder_create(ic->root_fd, name, &e), &e, "Create");
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
    if (!folder_is_inbox(name) && !folder_exists(ic->root_fd, name))
        icell_end(ic, ICELL_NO, "[NONEXISTENT] No such mailbox.");
    else
        end_folder(ic, folder_delete(ic->root_fd, name, &e), &e, "Delete");
}

/* RFC 3501 6.3.5: INBOX stays, its messages move to a new folder. */
static int
rename_inbox(struct icell *ic, struct str to, struct err *e)
{
    struct mailbox from, into;
    uint32_t first;
    if (folder_create(ic->root_fd, to, e) < 0 ||
        mailbox_open(&from, ic->root_fd, STR("INBOX"), false, e) < 0)
        return -1;
    int result = -1;
    size_t *all = calloc(from.n + 1, sizeof *all);
    if (!all) {
        err_set(e, ERR_TEMPORARY, "out of memory");
    } else if (mailbox_open_target(&into, ic->root_fd, to, e) == 0) {
        for (size_t i = 0; i < from.n; i++)
            all[i] = i;
        result = from.n ? mailbox_copy(&from, all, from.n, &into, &first, e) : 0;
        mailbox_close(&into);
    }
    for (size_t i = 0; i < from.n && result == 0; i++)
        result = mailbox_unlink(&from, i, e);
    free(all);
    mailbox_close(&from);
    return result;
}

void
icell_cmd_rename(struct icell *ic)
{
    struct str from, to;
    struct err e = {0};
    if (icell_arg_mailbox(&ic->cmd.args, &ic->arena, &from) < 0 || only_name(ic, &to) < 0) {
        icell_end_syntax(ic);
        return;
    }
    if (folder_is_inbox(from) && folder_exists(ic->root_fd, to))
        icell_end(ic, ICELL_NO, "[ALREADYEXISTS] Mailbox exists.");
    else if (folder_is_inbox(from))
        end_folder(ic, rename_inbox(ic, to, &e), &e, "Rename");
    else
        end_folder(ic, folder_rename(ic->root_fd, from, to, &e), &e, "Rename");
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
