#include "lib/smtp/command.h"

void
smtp_command_parse(struct str line, struct smtp_command *c_r)
{
    struct cursor c = cursor_of(line);
    c_r->verb = cur_while(&c, ch_alpha);
    /* A verb ends at white space or at the end: "DATAX" and "DATA;" are not DATA. */
    if (!cur_end(&c) && !ch_wsp((char)cur_peek(&c)))
        c_r->verb = str_sub(line, 0, 0);
    c_r->argument = str_trim(cur_rest(&c));
}

static bool
is_keyword_char(char c)
{
    return ch_alnum(c) || c == '-';
}

static bool
is_value_char(char c)
{
    return c > 0x20 && c < 0x7f && c != '=';
}

static int
parse_param(struct cursor *c, struct smtp_param *p, struct err *e)
{
    p->key = cur_while(c, is_keyword_char);
    p->has_value = cur_take(c, '=');
    p->value = p->has_value ? cur_while(c, is_value_char) : str_sub(c->all, c->at, 0);
    if (p->key.n == 0 || p->key.p[0] == '-' || (p->has_value && p->value.n == 0) ||
        (!cur_end(c) && !ch_wsp((char)cur_peek(c))))
        return err_set(e, ERR_PROTOCOL, "malformed parameter");
    return 0;
}

static int
parse_params(struct cursor *c, struct smtp_path *p, struct err *e)
{
    while (cur_skip_wsp(c), !cur_end(c)) {
        if (p->nparams == SMTP_PARAMS_MAX)
            return err_set(e, ERR_PROTOCOL, "more than %d parameters", SMTP_PARAMS_MAX);
        if (parse_param(c, &p->params[p->nparams++], e) < 0)
            return -1;
    }
    return 0;
}

/* Takes the text up to the '>' that closes the path: one within a quoted string does not. */
static int
take_raw(struct cursor *c, struct str *raw_r, struct err *e)
{
    size_t from = c->at;
    bool quoted = false;
    for (int ch; (ch = cur_next(c)) >= 0;) {
        if (ch == '\\' && quoted)
            cur_next(c);
        else if (ch == '"')
            quoted = !quoted;
        else if (ch == '>' && !quoted) {
            *raw_r = str_sub(c->all, from, c->at - from - 1);
            return 0;
        }
    }
    return err_set(e, ERR_PROTOCOL, "no closing bracket");
}

static int
parse_path(struct smtp_path *p, struct err *e)
{
    if (p->raw.n == 0) {
        p->kind = SMTP_PATH_NULL;
        return 0;
    }
    struct cursor c = cursor_of(p->raw);
    struct str local = address_take_local(&c);
    if (local.n && local.n <= ADDRESS_LOCAL_MAX && cur_end(&c)) {
        p->kind = SMTP_PATH_LOCAL;
        return 0;
    }
    p->kind = SMTP_PATH_ADDRESS;
    if (p->raw.p[0] == '@') /* RFC 5321 appendix C lets us refuse source routes */
        return err_set(e, ERR_PERMANENT, "source routes are not accepted");
    return address_parse(p->raw, &p->address, e);
}

int
smtp_path_parse(struct str argument, struct str keyword, struct smtp_path *p_r, struct err *e)
{
    struct cursor c = cursor_of(argument);
    *p_r = (struct smtp_path){.raw = str_sub(argument, 0, 0)};
    if (!cur_take_case(&c, keyword))
        return err_set(e, ERR_PROTOCOL, "expected %.*s:<address>", STR_ARG(keyword));
    cur_skip_wsp(&c);
    if (!cur_take(&c, ':'))
        return err_set(e, ERR_PROTOCOL, "expected %.*s:<address>", STR_ARG(keyword));
    cur_skip_wsp(&c); /* not in the grammar, but sent by many */
    if (!cur_take(&c, '<'))
        return err_set(e, ERR_PROTOCOL, "expected %.*s:<address>", STR_ARG(keyword));
    if (take_raw(&c, &p_r->raw, e) < 0)
        return -1;
    if (!cur_end(&c) && !ch_wsp((char)cur_peek(&c)))
        return err_set(e, ERR_PROTOCOL, "text behind the address");
    if (parse_params(&c, p_r, e) < 0)
        return -1;
    return parse_path(p_r, e);
}

bool
smtp_helo_ok(struct str name)
{
    if (name.n == 0 || name.n > ADDRESS_DOMAIN_MAX)
        return false;
    for (size_t i = 0; i < name.n; i++)
        if (!ch_alnum(name.p[i]) && !strchr(".-_:[]+", name.p[i]))
            return false;
    return true;
}
