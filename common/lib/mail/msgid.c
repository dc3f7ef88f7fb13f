#include "lib/mail/msgid.h"
#include "lib/mail/cfws.h"

/* Behind "<", to ">". False where something is that cannot be in one; the cursor is there. */
static bool
inside(struct cursor *c, struct msgid *id)
{
    bool quoted = false, at = false;
    id->n = 0;
    for (int b; (b = cur_peek(c)) >= 0;) {
        if (!quoted && (b == ' ' || b == '\t' || b == '\r' || b == '\n' || b == '(')) {
            cfws_skip(c);
            continue;
        }
        if (!quoted && b == '<')
            return false;
        cur_next(c);
        if (b == '"') {
            quoted = !quoted;
            continue;
        }
        if (!quoted && b == '>')
            return at && id->n > 2;
        if (quoted && b == '\\' && cur_peek(c) >= 0)
            b = cur_next(c);
        at |= !quoted && b == '@' && id->n > 0;
        if (id->n == MSGID_MAX)
            return false;
        id->p[id->n++] = (char)b;
    }
    return false;
}

bool
msgid_next(struct cursor *c, struct msgid *id_r)
{
    for (;;) {
        cur_until(c, '<');
        if (!cur_take(c, '<'))
            return false;
        if (inside(c, id_r))
            return true;
    }
}
