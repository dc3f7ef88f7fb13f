/* CAPABILITY, NOOP, CHECK, LOGOUT, NAMESPACE. */
#include "imapd/cell/args.h"
#include "imapd/cell/commands.h"

void
icell_cmd_capability(struct icell *ic)
{
    if (!icell_arg_end(&ic->cmd.args)) {
        icell_end_syntax(ic);
        return;
    }
    stream_putz(&ic->s, "* CAPABILITY ");
    icell_put_capabilities(ic);
    stream_putz(&ic->s, "\r\n");
    icell_end(ic, ICELL_OK, "Capability completed.");
}

void
icell_cmd_noop(struct icell *ic)
{
    if (icell_arg_end(&ic->cmd.args))
        icell_end(ic, ICELL_OK, "Completed.");
    else
        icell_end_syntax(ic);
}

void
icell_cmd_logout(struct icell *ic)
{
    if (!icell_arg_end(&ic->cmd.args)) {
        icell_end_syntax(ic);
        return;
    }
    stream_putz(&ic->s, "* BYE Logging out\r\n");
    icell_end(ic, ICELL_OK, "Logout completed.");
    icell_unselect(ic);
    ic->state = ICELL_LOGOUT;
    ic->bye = "Logged out";
}

/* RFC 2342: one personal namespace, without a prefix. */
void
icell_cmd_namespace(struct icell *ic)
{
    if (!icell_arg_end(&ic->cmd.args)) {
        icell_end_syntax(ic);
        return;
    }
    stream_putz(&ic->s, "* NAMESPACE ((\"\" \".\")) NIL NIL\r\n");
    icell_end(ic, ICELL_OK, "Namespace completed.");
}
