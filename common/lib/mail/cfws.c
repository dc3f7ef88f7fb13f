#include "lib/mail/cfws.h"

void
cfws_skip(struct cursor *c)
{
    unsigned depth = 0;
    for (;;) {
        int b = cur_peek(c);
        if (b == '(')
            depth++;
        else if (b == ')' && depth)
            depth--;
        else if (b == '\\' && depth)
            cur_next(c);
        else if (b < 0 || (!depth && b != ' ' && b != '\t' && b != '\r' && b != '\n'))
            return;
        cur_next(c);
    }
}
