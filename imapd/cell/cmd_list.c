/* LIST, LSUB (RFC 3501 6.3.8, 6.3.9; RFC 3348). */
#include "imapd/cell/args.h"
#include "imapd/cell/commands.h"

static void
put_row(struct icell *ic, const char *what, const char *attributes, struct str name)
{
    struct buf line = buf_new(4096);
    buf_addf(&line, "* %s (%s) \".\" ", what, attributes);
    icell_put_astring(&line, name);
    buf_addz(&line, "\r\n");
    stream_put(&ic->s, buf_str(&line));
    buf_free(&line);
}

/* The reference and the pattern, put together. */
static int
arguments(struct icell *ic, struct buf *pattern)
{
    struct str reference, mailbox;
    if (icell_arg_mailbox(&ic->cmd.args, &ic->arena, &reference) < 0 ||
        !icell_arg_space(&ic->cmd.args) ||
        icell_arg_list_mailbox(&ic->cmd.args, &ic->arena, &mailbox) < 0 ||
        !icell_arg_end(&ic->cmd.args)) {
        icell_end_syntax(ic);
        return -1;
    }
    buf_add(pattern, reference);
    buf_add(pattern, mailbox);
    return 0;
}

static void
list_matching(struct icell *ic, struct str pattern)
{
    struct folder_list list;
    struct err e = {0};
    if (folder_list(ic->root_fd, &ic->arena, &list, &e) < 0) {
        icell_end_err(ic, &e);
        return;
    }
    for (size_t i = 0; i < list.n; i++) {
        const struct folder_entry *f = &list.at[i];
        if (folder_match(pattern, f->name))
            put_row(ic, "LIST",
                    f->exists ? f->children ? "\\HasChildren" : "\\HasNoChildren"
                              : "\\Noselect \\HasChildren",
                    f->name);
    }
    icell_end(ic, ICELL_OK, "List completed.");
}

void
icell_cmd_list(struct icell *ic)
{
    struct buf pattern = buf_new(FOLDER_NAME_MAX * 4);
    if (arguments(ic, &pattern) == 0) {
        struct cursor c = ic->cmd.args;
        bool empty = str_ends(c.all, STR("\"\""));
        if (pattern.n == 0 || (empty && str_ends(str_sub(c.all, 0, c.at), STR(" \"\"")))) {
            /* RFC 3501 6.3.8: an empty name asks for the separator. */
            put_row(ic, "LIST", "\\Noselect", str_of("", 0));
            icell_end(ic, ICELL_OK, "List completed.");
        } else if (!buf_ok(&pattern)) {
            icell_end(ic, ICELL_OK, "List completed.");
        } else {
            list_matching(ic, buf_str(&pattern));
        }
    }
    buf_free(&pattern);
}

/* RFC 3501 6.3.9: with "%", a level above subscribed folders is told as \Noselect. */
static void
lsub_matching(struct icell *ic, struct str pattern, const struct folder_list *list)
{
    struct str told = str_of(NULL, 0);
    for (size_t i = 0; i < list->n; i++) {
        struct str name = list->at[i].name;
        if (folder_match(pattern, name)) {
            put_row(ic, "LSUB", "", name);
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
                put_row(ic, "LSUB", "\\Noselect", up);
            told = up;
            break;
        }
    }
}

void
icell_cmd_lsub(struct icell *ic)
{
    struct buf pattern = buf_new(FOLDER_NAME_MAX * 4);
    struct folder_list list;
    struct err e = {0};
    if (arguments(ic, &pattern) == 0) {
        if (folder_subscriptions(ic->root_fd, &ic->arena, &list, &e) < 0) {
            icell_end_err(ic, &e);
        } else {
            lsub_matching(ic, buf_str(&pattern), &list);
            icell_end(ic, ICELL_OK, "Lsub completed.");
        }
    }
    buf_free(&pattern);
}
