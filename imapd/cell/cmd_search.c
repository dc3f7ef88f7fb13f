/* SEARCH (RFC 3501 6.4.4). */
#include "imapd/cell/commands.h"
#include "imapd/cell/search.h"

void
icell_cmd_search(struct icell *ic)
{
    struct icell_search s;
    if (icell_search_parse(ic, &ic->cmd.args, &s) == 0) {
        size_t n = ic->mb.n;
        stream_putz(&ic->s, "* SEARCH");
        for (size_t i = 0; i < n && !ic->s.broken; i++)
            if (icell_search_match(ic, &s, i))
                stream_putf(&ic->s, " %zu", ic->cmd.uid ? ic->mb.msgs[i].uid : i + 1);
        stream_putz(&ic->s, "\r\n");
        icell_end(ic, ICELL_OK, "Search completed.");
    }
    icell_search_free(&s);
}
