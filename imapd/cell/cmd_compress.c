/* COMPRESS (RFC 4978). */
#include "imapd/cell/args.h"
#include "imapd/cell/commands.h"
#include "imapd/cell/deflate.h"

void
icell_cmd_compress(struct icell *ic)
{
    struct err e = {0};
    if (!icell_arg_space(&ic->cmd.args) || !cur_take_case(&ic->cmd.args, STR("DEFLATE")) ||
        !icell_arg_end(&ic->cmd.args)) {
        icell_end_syntax(ic);
        return;
    }
    if (ic->deflate) {
        icell_end(ic, ICELL_NO, "[COMPRESSIONACTIVE] DEFLATE is active already.");
        return;
    }
    /* The tagged line goes out plain, and what comes behind it compressed. */
    stream_put(&ic->s, ic->cmd.tag);
    stream_putz(&ic->s, " OK DEFLATE active\r\n");
    if (stream_flush(&ic->s, NULL) == 0 && icell_deflate_begin(&ic->s, &ic->deflate, &e) == 0)
        return;
    ic->bye = "Compression could not begin";
    ic->state = ICELL_LOGOUT;
}
