#include "lib/base/cursor.h"

bool
cur_take(struct cursor *c, char want)
{
    if (cur_peek(c) != (unsigned char)want)
        return false;
    c->at++;
    return true;
}

bool
cur_take_str(struct cursor *c, struct str want)
{
    if (!str_starts(cur_rest(c), want))
        return false;
    c->at += want.n;
    return true;
}

bool
cur_take_case(struct cursor *c, struct str want)
{
    if (!str_casestarts(cur_rest(c), want))
        return false;
    c->at += want.n;
    return true;
}

struct str
cur_take_n(struct cursor *c, size_t n)
{
    struct str taken = str_sub(c->all, c->at, n);
    c->at += taken.n;
    return taken;
}

struct str
cur_while(struct cursor *c, bool (*is)(char))
{
    size_t from = c->at;
    while (c->at < c->all.n && is(c->all.p[c->at]))
        c->at++;
    return str_sub(c->all, from, c->at - from);
}

struct str
cur_until(struct cursor *c, char stop)
{
    ptrdiff_t at = str_chr(cur_rest(c), stop);
    return cur_take_n(c, at < 0 ? c->all.n : (size_t)at);
}

size_t
cur_skip_wsp(struct cursor *c)
{
    return cur_while(c, ch_wsp).n;
}
