/* GETQUOTA, GETQUOTAROOT (RFC 9208): one root, "", over all folders; there where maildirsize says
 * a limit. */
#include "imapd/cell/args.h"
#include "imapd/cell/commands.h"
#include "lib/mailbox/quota.h"

static uint64_t
used(int64_t n)
{
    return n > 0 ? (uint64_t)n : 0;
}

/* A list of resources is not empty (7): a root without a limit is none. */
static bool
is_root(const struct quota *q)
{
    return q->bytes_max || q->count_max;
}

/* STORAGE is counted in units of 1024 bytes (5.1). */
static void
put(struct icell *ic, const struct quota *q)
{
    const char *gap = "";
    stream_putz(&ic->s, "* QUOTA \"\" (");
    if (q->bytes_max) {
        stream_putf(&ic->s, "STORAGE %llu %llu", (unsigned long long)(used(q->bytes) + 1023) / 1024,
                    (unsigned long long)q->bytes_max / 1024);
        gap = " ";
    }
    if (q->count_max)
        stream_putf(&ic->s, "%sMESSAGE %llu %llu", gap, (unsigned long long)used(q->count),
                    (unsigned long long)q->count_max);
    stream_putz(&ic->s, ")\r\n");
}

void
icell_cmd_getquota(struct icell *ic)
{
    struct str root;
    struct quota q;
    struct err e = {0};
    if (!icell_arg_space(&ic->cmd.args) ||
        icell_arg_astring(&ic->cmd.args, &ic->arena, &root) < 0 || !icell_arg_end(&ic->cmd.args)) {
        icell_end_syntax(ic);
    } else if (quota_read(ic->root_fd, &q, &e) < 0) {
        icell_end_err(ic, &e);
    } else if (root.n || !is_root(&q)) {
        icell_end(ic, ICELL_NO, "[NONEXISTENT] No such quota root.");
    } else {
        put(ic, &q);
        icell_end(ic, ICELL_OK, "Getquota completed.");
    }
}

void
icell_cmd_getquotaroot(struct icell *ic)
{
    struct str name;
    struct quota q;
    struct err e = {0};
    if (icell_arg_mailbox(ic, &ic->cmd.args, &name) < 0 || !icell_arg_end(&ic->cmd.args)) {
        icell_end_syntax(ic);
    } else if (!folder_is_inbox(name) && !folder_exists(ic->root_fd, name)) {
        icell_end(ic, ICELL_NO, "[NONEXISTENT] No such mailbox.");
    } else if (quota_read(ic->root_fd, &q, &e) < 0) {
        icell_end_err(ic, &e);
    } else {
        stream_putz(&ic->s, "* QUOTAROOT ");
        icell_put_mailbox(ic, &ic->s.out, name);
        stream_putz(&ic->s, is_root(&q) ? " \"\"\r\n" : "\r\n");
        if (is_root(&q))
            put(ic, &q);
        icell_end(ic, ICELL_OK, "Getquotaroot completed.");
    }
}
