#include "lib/conf/conf.h"
#include "lib/base/cursor.h"
#include "lib/conf/words.h"
#include "lib/ipc/table.h"
#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <unistd.h>

/* The shortest word takes 2 bytes of the text and 16 of the arena. */
enum { ARENA_MAX = 16 * CONF_TEXT_MAX, READ_BLOCK = 4096, VALUES_MAX = CONF_LIST_MAX + 1 };
enum token_kind { TOK_WORD, TOK_OPEN, TOK_CLOSE, TOK_END_OF_STATEMENT, TOK_EOF };

struct token {
    enum token_kind kind;
    struct str text;
    unsigned line, column;
};

struct parser {
    struct conf *conf;
    struct cursor c;
    unsigned line;
    size_t line_start;
    struct conf_errors *errors;
    struct token values[VALUES_MAX];
    size_t nvalues;
    unsigned seen[128]; /* line where a word of the table was first set */
};

static void __attribute__((format(printf, 3, 4)))
complain(struct parser *p, const struct token *at, const char *fmt, ...)
{
    struct conf_errors *errors = p->errors;
    if (errors->n == CONF_ERRORS_MAX) {
        errors->suppressed++;
        return;
    }
    struct conf_error *error = &errors->at[errors->n++];
    error->line = at->line;
    error->column = at->column;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(error->text, sizeof error->text, fmt, ap);
    va_end(ap);
    for (char *z = error->text; *z; z++)
        if (!ch_print(*z))
            *z = '?';
}

static bool
word_char(char c)
{
    return ch_print(c) && c != ' ' && c != '{' && c != '}' && c != ';' && c != '"' && c != '#';
}

static void
skip_blank(struct parser *p)
{
    for (;;) {
        int c = cur_peek(&p->c);
        if (c == ' ' || c == '\t' || c == '\r')
            p->c.at++;
        else if (c == '#')
            cur_until(&p->c, '\n');
        else if (c == '\\' && cur_peek_at(&p->c, 1) == '\n') {
            p->c.at += 2;
            p->line++;
            p->line_start = p->c.at;
        } else
            return;
    }
}

static struct token
next_token(struct parser *p)
{
    for (;;) {
        skip_blank(p);
        struct token t = {.line = p->line, .column = (unsigned)(p->c.at - p->line_start) + 1};
        int c = cur_peek(&p->c);
        if (c < 0) {
            t.kind = TOK_EOF;
            return t;
        }
        if (c == '"') {
            p->c.at++;
            t.text = cur_while(&p->c, ch_print);
            ptrdiff_t quote = str_chr(t.text, '"');
            if (quote < 0) {
                complain(p, &t, "a quoted text does not end on its line");
                return t;
            }
            p->c.at -= t.text.n - (size_t)quote - 1;
            t.text.n = (size_t)quote;
            return t;
        }
        if (word_char((char)c)) {
            t.text = cur_while(&p->c, word_char);
            return t;
        }
        p->c.at++;
        if (c == '\n') {
            p->line++;
            p->line_start = p->c.at;
        }
        t.kind = c == '{' ? TOK_OPEN : c == '}' ? TOK_CLOSE : TOK_END_OF_STATEMENT;
        if (t.kind != TOK_END_OF_STATEMENT || c == '\n' || c == ';')
            return t;
        complain(p, &t, "byte 0x%02x is not allowed here", (unsigned)c);
    }
}

static struct str
keep(struct parser *p, struct str s)
{
    return arena_str(&p->conf->arena, s);
}

static int
value_number(struct parser *p, const struct token *t, uint64_t scale, struct str digits,
             uint64_t min, uint64_t max, uint64_t *v_r)
{
    if (str_u64(digits, UINT64_MAX / (scale ? scale : 1), v_r) < 0) {
        complain(p, t, "\"%.*s\" is not a number", STR_ARG(t->text));
        return -1;
    }
    *v_r *= scale;
    if (*v_r >= min && *v_r <= max)
        return 0;
    complain(p, t, "\"%.*s\" is out of range: from %llu to %llu", STR_ARG(t->text),
             (unsigned long long)min, (unsigned long long)max);
    return -1;
}

/* A number with a unit letter: of time or of size. */
static int
value_scaled(struct parser *p, const struct token *t, const struct conf_word *w, uint64_t *v_r)
{
    static const struct {
        char unit;
        enum conf_type type;
        uint64_t scale;
    } units[] = {{'s', CT_TIME, 1},      {'m', CT_TIME, 60},      {'h', CT_TIME, 3600},
                 {'d', CT_TIME, 86400},  {'K', CT_SIZE, 1 << 10}, {'M', CT_SIZE, 1 << 20},
                 {'G', CT_SIZE, 1 << 30}};
    struct str digits = t->text;
    uint64_t scale = 1;
    for (size_t i = 0; digits.n && i < sizeof units / sizeof units[0]; i++)
        if (units[i].type == w->type && digits.p[digits.n - 1] == units[i].unit) {
            scale = units[i].scale;
            digits.n--;
            break;
        }
    return value_number(p, t, scale, digits, w->min, w->max, v_r);
}

static bool
is_name(struct str s)
{
    bool label = false;
    if (s.n == 0 || s.n > 253)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (c == '.' ? !label : !(ch_alnum(c) || c == '-' || c == '_'))
            return false;
        label = c != '.';
    }
    return label;
}

static bool
is_address(struct str s)
{
    unsigned char raw[16];
    char z[64];
    if (s.n >= sizeof z)
        return false;
    memcpy(z, s.p, s.n);
    z[s.n] = '\0';
    return inet_pton(AF_INET, z, raw) == 1 || inet_pton(AF_INET6, z, raw) == 1;
}

static int
value_name(struct parser *p, const struct token *t, struct str *name_r)
{
    if (!is_name(t->text)) {
        complain(p, t, "\"%.*s\" is not a domain name", STR_ARG(t->text));
        return -1;
    }
    *name_r = arena_lower(&p->conf->arena, t->text);
    return 0;
}

/* "port N" at values[i]; the default stays when it is not there. Returns how many values it took.
 */
static size_t
value_port(struct parser *p, size_t i, uint16_t *port_r)
{
    uint64_t v;
    if (i + 1 >= p->nvalues || !str_eq(p->values[i].text, STR("port")))
        return 0;
    if (value_number(p, &p->values[i + 1], 1, p->values[i + 1].text, 1, 65535, &v) == 0)
        *port_r = (uint16_t)v;
    return 2;
}

static void
expect_no_more(struct parser *p, size_t i)
{
    if (i < p->nvalues)
        complain(p, &p->values[i], "unexpected \"%.*s\"", STR_ARG(p->values[i].text));
}

static void
set_listen(struct parser *p, struct conf_service *service)
{
    struct conf_listen l = {.host = keep(p, p->values[0].text)};
    if (!str_eq(l.host, STR("*")) && !is_address(l.host))
        complain(p, &p->values[0], "\"%.*s\" is neither an address nor *", STR_ARG(l.host));
    size_t i = 1 + value_port(p, 1, &l.port);
    if (i == 1)
        complain(p, &p->values[0], "listen wants: listen ADDRESS port NUMBER [tls]");
    if (i < p->nvalues && str_eq(p->values[i].text, STR("tls"))) {
        l.tls = true;
        i++;
    }
    expect_no_more(p, i);
    if (service->nlisten == CONF_LISTEN_MAX)
        complain(p, &p->values[0], "more than %d listen lines", CONF_LISTEN_MAX);
    else {
        service->listen_line[service->nlisten] = p->values[0].line;
        service->listen_column[service->nlisten] = p->values[0].column;
        service->listen[service->nlisten++] = l;
    }
}

/* The programs' current directory is not where the operator was. */
static void
absolute(struct parser *p, const struct token *t)
{
    if (t->text.n == 0 || t->text.p[0] != '/')
        complain(p, t, "\"%.*s\" is not an absolute path", STR_ARG(t->text));
}

/* Whose clients a certificate is for: those named behind "for", or all. */
static unsigned
key_fronts(struct parser *p)
{
    static const unsigned all = R_SMTPD | R_SUBMITD | R_POP3D | R_IMAPD;
    unsigned fronts = 0;
    for (size_t i = 4; i < p->nvalues; i++) {
        unsigned front = role_named(p->values[i].text);
        if (!(front & all))
            complain(p, &p->values[i], "a certificate is for smtpd, submitd, pop3d or imapd");
        fronts |= front & all;
    }
    return p->nvalues > 4 ? fronts : all;
}

static void
set_key(struct parser *p)
{
    struct conf *conf = p->conf;
    if (p->nvalues < 3 || !str_eq(p->values[1].text, STR("key")) || p->nvalues == 4 ||
        (p->nvalues > 4 && !str_eq(p->values[3].text, STR("for")))) {
        complain(p, &p->values[0],
                 "certificate wants: certificate FILE key FILE [for PROGRAM ...]");
        return;
    }
    if (conf->nkeys == CONF_KEYS_MAX) {
        complain(p, &p->values[0], "more than %d certificates", CONF_KEYS_MAX);
        return;
    }
    for (size_t i = 0; i <= 2; i += 2)
        absolute(p, &p->values[i]);
    conf->keys[conf->nkeys++] =
        (struct conf_key){keep(p, p->values[0].text), keep(p, p->values[2].text), key_fronts(p)};
}

static void
set_resolver(struct parser *p)
{
    struct conf *conf = p->conf;
    struct conf_resolver r = {keep(p, p->values[0].text), 53};
    if (!is_address(r.host))
        complain(p, &p->values[0], "\"%.*s\" is not an address", STR_ARG(r.host));
    expect_no_more(p, 1 + value_port(p, 1, &r.port));
    if (conf->nresolvers == CONF_RESOLVERS_MAX)
        complain(p, &p->values[0], "more than %d resolvers", CONF_RESOLVERS_MAX);
    else
        conf->resolvers[conf->nresolvers++] = r;
}

static void
set_networks(struct parser *p)
{
    struct conf *conf = p->conf;
    for (size_t i = 0; i < p->nvalues; i++) {
        struct str text = p->values[i].text;
        if (conf->nrelay_from == CONF_NETWORKS_MAX)
            complain(p, &p->values[i], "more than %d networks", CONF_NETWORKS_MAX);
        else if (!network_parse(&conf->relay_from[conf->nrelay_from], text))
            complain(p, &p->values[i], "\"%.*s\" is neither an address nor a network",
                     STR_ARG(text));
        else
            conf->nrelay_from++;
    }
}

static void
set_via(struct parser *p)
{
    struct conf *conf = p->conf;
    conf->relay.host = arena_lower(&conf->arena, p->values[0].text);
    if (!is_name(conf->relay.host) && !is_address(conf->relay.host))
        complain(p, &p->values[0], "\"%.*s\" is not a host", STR_ARG(conf->relay.host));
    expect_no_more(p, 1 + value_port(p, 1, &conf->relay.port));
}

static void
set_range(struct parser *p, const struct conf_word *w)
{
    struct conf *conf = p->conf;
    uint64_t first, last;
    if (p->nvalues != 3 || !str_eq(p->values[1].text, STR("to"))) {
        complain(p, &p->values[0], "%s wants: %s FIRST to LAST", w->word, w->word);
        return;
    }
    if (value_number(p, &p->values[0], 1, p->values[0].text, w->min, w->max, &first) < 0 ||
        value_number(p, &p->values[2], 1, p->values[2].text, w->min, w->max, &last) < 0)
        return;
    if (last < first)
        complain(p, &p->values[2], "the range is empty");
    conf->uid_first = (uint32_t)first;
    conf->uid_last = (uint32_t)last;
}

static void
set_names(struct parser *p)
{
    struct conf *conf = p->conf;
    for (size_t i = 0; i < p->nvalues; i++) {
        struct str name;
        if (value_name(p, &p->values[i], &name) < 0)
            continue;
        if (conf_is_local(conf, name))
            complain(p, &p->values[i], "domain \"%.*s\" is named twice", STR_ARG(name));
        else if (conf->ndomains == CONF_LIST_MAX)
            complain(p, &p->values[i], "more than %d domains", CONF_LIST_MAX);
        else
            conf->domains[conf->ndomains++] = name;
    }
}

/* Words with exactly one value. */
static void
set_single(struct parser *p, const struct conf_word *w)
{
    void *field = (char *)p->conf + w->offset;
    const struct token *t = &p->values[0];
    uint64_t v;
    expect_no_more(p, 1);
    switch (w->type) {
    case CT_NAME:
        (void)value_name(p, t, field);
        return;
    case CT_PATH:
        absolute(p, t);
        if (field == &p->conf->run_dir && t->text.n > CONF_RUN_MAX)
            complain(p, t, "a path of more than %d bytes", CONF_RUN_MAX);
        *(struct str *)field = keep(p, t->text);
        return;
    case CT_ADDRESS:
        if (!is_address(t->text))
            complain(p, t, "\"%.*s\" is not an address", STR_ARG(t->text));
        *(struct str *)field = keep(p, t->text);
        return;
    case CT_COUNT:
        if (value_number(p, t, 1, t->text, w->min, w->max, &v) == 0)
            *(uint32_t *)field = (uint32_t)v;
        return;
    case CT_PORT:
        if (value_number(p, t, 1, t->text, w->min, w->max, &v) == 0)
            *(uint16_t *)field = (uint16_t)v;
        return;
    case CT_TIME:
        if (value_scaled(p, t, w, &v) == 0)
            *(uint32_t *)field = (uint32_t)v;
        return;
    case CT_SIZE:
        if (value_scaled(p, t, w, &v) == 0)
            *(uint64_t *)field = v;
        return;
    case CT_YESNO:
        if (str_eq(t->text, STR("yes")) || str_eq(t->text, STR("no")))
            *(bool *)field = t->text.n == 3;
        else
            complain(p, t, "\"%.*s\" is neither yes nor no", STR_ARG(t->text));
        return;
    default:
        if (field == &p->conf->log && !str_eq(t->text, STR("syslog")) &&
            !str_eq(t->text, STR("stderr")) && !str_starts(t->text, STR("/")))
            complain(p, t, "log wants syslog, stderr or an absolute path");
        if (field == &p->conf->delimiter && t->text.n != 1)
            complain(p, t, "delimiter must be one character");
        *(struct str *)field = keep(p, t->text);
    }
}

static void
apply(struct parser *p, const struct conf_word *w, const struct token *t, size_t row)
{
    if (p->nvalues == 0) {
        complain(p, t, "%s wants a value", w->word);
        return;
    }
    if (!w->repeats && row < sizeof p->seen / sizeof p->seen[0]) {
        if (p->seen[row])
            complain(p, t, "%s was already set in line %u", w->word, p->seen[row]);
        p->seen[row] = t->line;
    }
    switch (w->type) {
    case CT_LISTEN:
        set_listen(p, (struct conf_service *)((char *)p->conf + w->offset));
        break;
    case CT_KEY:
        set_key(p);
        break;
    case CT_RESOLVER:
        set_resolver(p);
        break;
    case CT_VIA:
        set_via(p);
        break;
    case CT_RANGE:
        set_range(p, w);
        break;
    case CT_NAMES:
        set_names(p);
        break;
    case CT_NETWORKS:
        set_networks(p);
        break;
    default:
        set_single(p, w);
    }
}

static void
statement(struct parser *p, const char *block, const struct token *t)
{
    size_t n;
    const struct conf_word *words = conf_words(&n);
    for (size_t i = 0; i < n; i++)
        if (strcmp(words[i].block, block) == 0 && str_eq(t->text, str_z(words[i].word))) {
            apply(p, &words[i], t, i);
            return;
        }
    if (!*block && conf_is_block(t->text)) {
        complain(p, t, "the block %.*s wants its { on this line", STR_ARG(t->text));
        return;
    }
    const char *near = conf_nearest(block, t->text);
    complain(p, t, "unknown word \"%.*s\"%s%s%s%s%s", STR_ARG(t->text), *block ? " in block " : "",
             block, near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
}

/* The values behind a word; returns the token that ended them. */
static struct token
read_values(struct parser *p)
{
    p->nvalues = 0;
    for (;;) {
        struct token t = next_token(p);
        if (t.kind != TOK_WORD)
            return t;
        if (p->nvalues == VALUES_MAX)
            complain(p, &t, "too many values");
        else
            p->values[p->nvalues++] = t;
    }
}

static void
read_version(struct parser *p)
{
    struct token t;
    do
        t = next_token(p);
    while (t.kind == TOK_END_OF_STATEMENT);
    struct token end = t.kind == TOK_WORD ? read_values(p) : t;
    if (!str_eq(t.text, STR("version")) || p->nvalues != 1 ||
        !str_eq(p->values[0].text, STR("1")) ||
        (end.kind != TOK_END_OF_STATEMENT && end.kind != TOK_EOF))
        complain(p, &t, "the first line must be: version 1");
}

static void
read_statements(struct parser *p)
{
    char block[32] = "";
    struct token opened = {.line = 1, .column = 1};
    for (;;) {
        struct token t = next_token(p);
        if (t.kind == TOK_EOF)
            break;
        if (t.kind == TOK_CLOSE) {
            if (!*block)
                complain(p, &t, "} without a block");
            *block = '\0';
            continue;
        }
        if (t.kind != TOK_WORD) {
            if (t.kind == TOK_OPEN)
                complain(p, &t, "{ without a block's name");
            continue;
        }
        struct token end = read_values(p);
        if (end.kind != TOK_OPEN) {
            statement(p, block, &t);
            if (end.kind == TOK_CLOSE && *block)
                *block = '\0';
            else if (end.kind == TOK_CLOSE)
                complain(p, &end, "} without a block");
            continue;
        }
        struct conf_service *service = conf_service_of(p->conf, t.text);
        if (*block)
            complain(p, &t, "a block inside the block %s", block);
        if (!conf_is_block(t.text) || p->nvalues) {
            const char *near = conf_nearest("", t.text);
            complain(p, &t, "unknown block \"%.*s\"%s%s%s", STR_ARG(t.text),
                     near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
        }
        if (service)
            service->present = true;
        snprintf(block, sizeof block, "%.*s", STR_ARG(t.text));
        opened = t;
    }
    if (*block)
        complain(p, &opened, "the block %s is not closed", block);
}

static void
defaults(struct conf *conf)
{
    static const struct conf_service smtp = {
        .sessions_max = 1000, .sessions_per_ip_max = 50, .idle_s = 300, .session_s = 3600};
    static const struct conf_service mailbox = {
        .sessions_max = 3000, .sessions_per_ip_max = 100, .idle_s = 1860, .park_s = 60};
    conf->aliases = STR("/etc/aliases");
    conf->run_dir = STR("/run/bulkhead");
    conf->queue_dir = STR("/var/spool/bulkhead");
    conf->state_dir = STR("/var/lib/bulkhead");
    conf->mail_dir = STR("/var/mail/bulkhead");
    conf->libexec_dir = STR(BH_LIBEXEC);
    conf->user_prefix = STR("bh-");
    conf->log = STR("/var/log/bulkhead.log");
    conf->message_size_max = 50u << 20;
    conf->recipients_max = 1000;
    conf->hops_max = 50;
    conf->uid_first = 200000;
    conf->uid_last = 299999;
    conf->delimiter = STR("+");
    conf->quota_wait = true;
    conf->smtpd = conf->submitd = smtp;
    conf->pop3d = conf->imapd = mailbox;
    conf->queue.retry_min_s = 300;
    conf->queue.retry_max_s = 4000;
    conf->queue.expire_s = 5 * 86400;
    conf->queue.bounce_expire_s = 2 * 86400;
    conf->queue.list_expire_s = 3 * 86400;
    conf->queue.warn_after_s = 4 * 3600;
    conf->queue.user_messages_max = 10000;
    conf->queue.user_size_max = 1 << 30;
    conf->queue.local_max = 40;
    conf->queue.relay_max = 100;
    conf->queue.destination_max = 20;
    conf->relay.port = 25;
    conf->relay.connect_s = 30;
    conf->relay.command_s = 300;
    conf->relay.data_s = 600;
    conf->relay.tls = true;
}

size_t
conf_keys(const struct conf *conf, unsigned front)
{
    size_t n = 0;
    for (size_t i = 0; i < conf->nkeys; i++)
        n += (conf->keys[i].fronts & front) != 0;
    return n;
}

/* A block without a listen line gets the usual ports; those with TLS only when there is a key. */
static void
default_listen(const struct conf *conf, struct conf_service *service, uint16_t port,
               uint16_t tls_port, enum role front)
{
    if (!service->present || service->nlisten)
        return;
    service->listen[service->nlisten++] = (struct conf_listen){STR("*"), port, false};
    if (tls_port && conf_keys(conf, front))
        service->listen[service->nlisten++] = (struct conf_listen){STR("*"), tls_port, true};
}

/* Of two that listen at one place the second would not start. */
static void
check_listen_twice(struct parser *p, const struct conf_service *const *services)
{
    const struct conf_listen *all[4 * CONF_LISTEN_MAX];
    size_t n = 0;
    for (size_t i = 0; i < 4; i++)
        for (size_t k = 0; services[i]->present && k < services[i]->nlisten; k++) {
            const struct conf_listen *l = &services[i]->listen[k];
            struct token at = {.line = services[i]->listen_line[k],
                               .column = services[i]->listen_column[k]};
            if (at.line == 0)
                at.line = at.column = 1;
            for (size_t o = 0; o < n; o++)
                if (l->port == all[o]->port && str_eq(l->host, all[o]->host))
                    complain(p, &at, "%.*s port %u is listened at twice", STR_ARG(l->host),
                             l->port);
            all[n++] = l;
        }
}

/* What no single line can get wrong. */
static void
check_whole(struct parser *p)
{
    struct conf *conf = p->conf;
    struct token top = {.line = 1, .column = 1};
    const struct conf_service *services[] = {&conf->smtpd, &conf->submitd, &conf->pop3d,
                                             &conf->imapd};
    static const enum role fronts[] = {R_SMTPD, R_SUBMITD, R_POP3D, R_IMAPD};
    default_listen(conf, &conf->smtpd, 25, 0, R_SMTPD);
    default_listen(conf, &conf->submitd, 587, 465, R_SUBMITD);
    default_listen(conf, &conf->pop3d, 110, 995, R_POP3D);
    default_listen(conf, &conf->imapd, 143, 993, R_IMAPD);
    if (conf->hostname.n == 0)
        complain(p, &top, "hostname is missing");
    if (conf->ndomains == 0)
        complain(p, &top, "domain is missing: at least one domain whose mail is delivered here");
    if (conf->postmaster.n && str_chr(conf->postmaster, '@') < 0 && conf->ndomains) {
        /* Without a domain: of the primary one, as in the aliases. */
        struct buf full = buf_new(1024);
        buf_add(&full, conf->postmaster);
        buf_addc(&full, '@');
        buf_add(&full, conf->domains[0]);
        conf->postmaster = buf_ok(&full) ? keep(p, buf_str(&full)) : str_of(NULL, 0);
        buf_free(&full);
    }
    check_listen_twice(p, services);
    if (conf->queue.retry_max_s < conf->queue.retry_min_s)
        complain(p, &top, "retry-max is less than retry");
    for (size_t i = 0; i < 4; i++)
        for (size_t k = 0; k < services[i]->nlisten; k++)
            if (services[i]->listen[k].tls && conf_keys(conf, fronts[i]) == 0) {
                complain(p, &top, "a listen line says tls, but there is no certificate");
                return;
            }
}

int
conf_parse(struct conf *conf, struct str path, struct str text, struct conf_errors *errors_r)
{
    *conf = (struct conf){.arena = arena_new(ARENA_MAX)};
    *errors_r = (struct conf_errors){0};
    struct parser *p = arena_alloc(&conf->arena, sizeof *p);
    if (!p)
        return -1;
    p->conf = conf;
    p->c = cursor_of(text);
    p->line = 1;
    p->errors = errors_r;
    defaults(conf);
    conf->path = arena_str(&conf->arena, path);
    read_version(p);
    read_statements(p);
    check_whole(p);
    return errors_r->n ? -1 : 0;
}

int
conf_read(struct conf *conf, struct str path, int fd, struct conf_errors *errors_r)
{
    struct buf text = buf_new(CONF_TEXT_MAX + READ_BLOCK);
    off_t at = 0;
    for (;;) {
        char *to = text.n <= CONF_TEXT_MAX ? buf_reserve(&text, READ_BLOCK) : NULL;
        ssize_t n = to ? pread(fd, to, READ_BLOCK, at) : -1;
        if (n < 0) {
            *errors_r = (struct conf_errors){.n = 1};
            snprintf(errors_r->at[0].text, sizeof errors_r->at[0].text, "cannot read: %s",
                     to ? strerror(errno) : "the file is too large");
            *conf = (struct conf){0};
            buf_free(&text);
            return -1;
        }
        if (n == 0)
            break;
        buf_commit(&text, (size_t)n);
        at += n;
    }
    int parsed = conf_parse(conf, path, buf_str(&text), errors_r);
    buf_free(&text);
    return parsed;
}

void
conf_free(struct conf *conf)
{
    arena_free(&conf->arena);
    *conf = (struct conf){0};
}

bool
conf_relays_for(const struct conf *conf, struct str ip)
{
    for (size_t i = 0; i < conf->nrelay_from; i++)
        if (network_has(&conf->relay_from[i], ip))
            return true;
    return false;
}

bool
conf_is_local(const struct conf *conf, struct str domain)
{
    for (size_t i = 0; i < conf->ndomains; i++)
        if (str_caseeq(conf->domains[i], domain))
            return true;
    return false;
}

bool
conf_is_ours(const struct conf *conf, struct str domain)
{
    return conf_is_local(conf, domain) || str_caseeq(domain, conf->hostname);
}

struct str
conf_other_name(const struct conf *conf)
{
    return conf_is_local(conf, conf->hostname) ? STR("") : conf->hostname;
}

struct str
conf_maildir(const struct conf *conf, struct str account, struct buf *out)
{
    struct str domain = account, user = str_cut(&domain, '@');
    size_t from = out->n;
    buf_add(out, conf->mail_dir);
    buf_addc(out, '/');
    buf_add(out, domain.n ? domain : conf->domains[0]);
    buf_addc(out, '/');
    buf_add(out, user);
    for (size_t i = from + conf->mail_dir.n; buf_ok(out) && i < out->n; i++)
        out->p[i] = ch_lower(out->p[i]);
    return str_from(buf_str(out), from);
}
