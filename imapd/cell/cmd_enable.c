/* ENABLE (RFC 5161) and ID (RFC 2971). */
#include "imapd/cell/args.h"
#include "imapd/cell/commands.h"

enum { ID_PAIRS_MAX = 30 };

void
icell_enable_condstore(struct icell *ic)
{
    if (ic->condstore)
        return;
    ic->condstore = true;
    if (ic->state == ICELL_SELECTED)
        stream_putf(&ic->s, "* OK [HIGHESTMODSEQ %llu] Highest\r\n",
                    (unsigned long long)ic->mb.ix.state.modseq);
}

/* What we do not know is passed over (RFC 5161 3.1). */
void
icell_cmd_enable(struct icell *ic)
{
    enum { CONDSTORE, QRESYNC, UTF8, REV2, NAMES };
    static const char *const names[NAMES] = {"CONDSTORE", "QRESYNC", "UTF8=ACCEPT", "IMAP4rev2"};
    struct cursor *c = &ic->cmd.args;
    struct str name;
    bool on[NAMES] = {false}, any = false, good = true;
    while (good && icell_arg_space(c)) {
        good = any = icell_arg_atom(c, &name) == 0;
        for (size_t i = 0; i < NAMES; i++)
            on[i] |= str_caseeq(name, str_z(names[i]));
    }
    if (!good || !any || !icell_arg_end(c)) {
        icell_end_syntax(ic);
        return;
    }
    stream_putz(&ic->s, "* ENABLED");
    for (size_t i = 0; i < NAMES; i++)
        if (on[i])
            stream_putf(&ic->s, " %s", names[i]);
    stream_putz(&ic->s, "\r\n");
    /* RFC 7162 3.2.3: QRESYNC implies CONDSTORE. */
    if (on[CONDSTORE] || on[QRESYNC])
        icell_enable_condstore(ic);
    ic->qresync |= on[QRESYNC];
    ic->charset_free |= on[UTF8];
    ic->utf8 |= on[UTF8] || on[REV2];
    if (on[REV2] && !ic->rev2) { /* LITERAL+ is LITERAL- now */
        ic->rev2 = true;
        stream_putz(&ic->s, "* CAPABILITY ");
        icell_put_capabilities(ic);
        stream_putz(&ic->s, "\r\n");
    }
    icell_end(ic, ICELL_OK, "Enabled.");
}

/* "(" name value ... ")" or NIL. */
static int
id_arguments(struct icell *ic, struct cursor *c)
{
    struct str s;
    size_t n = 0;
    if (!icell_arg_space(c))
        return -1;
    if (cur_take_case(c, STR("NIL")))
        return icell_arg_end(c) ? 0 : -1;
    if (!cur_take(c, '('))
        return -1;
    if (!cur_take(c, ')')) {
        do {
            if (n++ == ID_PAIRS_MAX || icell_arg_string(c, &ic->arena, &s) < 0 ||
                !icell_arg_space(c) ||
                (!cur_take_case(c, STR("NIL")) && icell_arg_string(c, &ic->arena, &s) < 0))
                return -1;
        } while (icell_arg_space(c));
        if (!cur_take(c, ')'))
            return -1;
    }
    return icell_arg_end(c) ? 0 : -1;
}

void
icell_cmd_id(struct icell *ic)
{
    if (id_arguments(ic, &ic->cmd.args) < 0) {
        icell_end_syntax(ic);
        return;
    }
    stream_putz(&ic->s, "* ID (\"name\" \"Bulkhead\")\r\n");
    icell_end(ic, ICELL_OK, "ID completed.");
}
