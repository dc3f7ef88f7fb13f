#include "lib/mail/aliases.h"
#include "lib/base/buf.h"
#include "lib/base/cursor.h"
#include "lib/mail/address.h"
#include <errno.h>
#include <sys/random.h>
#include <unistd.h>

enum { NAME_MAX_BYTES = 320, LINE_MAX_BYTES = 1 << 20, READ_BLOCK = 4096 };

struct parse {
    struct aliases *a;
    struct str primary, other;
    void (*report)(size_t line, const char *what);
    size_t line; /* of the entry */
};

static void
bad(struct parse *p, const char *what)
{
    p->a->bad_lines++;
    p->report(p->line, what);
}

static size_t
bucket_of(const struct aliases *a, struct str lower)
{
    return (size_t)(siphash(&a->key, lower) % a->nbuckets);
}

/* name or name@domain as an address in the arena; p NULL when memory is out. */
static struct str
with_domain(struct parse *p, struct str name)
{
    struct buf full = buf_new(NAME_MAX_BYTES);
    ptrdiff_t at = str_rchr(name, '@');
    bool other = at >= 0 && p->other.n && str_caseeq(str_from(name, (size_t)at + 1), p->other);
    buf_add(&full, other ? str_sub(name, 0, (size_t)at) : name);
    if (other || str_chr(name, '@') < 0) {
        buf_addc(&full, '@');
        buf_add(&full, p->primary);
    }
    struct str kept = buf_ok(&full) ? arena_str(&p->a->arena, buf_str(&full)) : str_of(NULL, 0);
    buf_free(&full);
    return kept;
}

static bool
target_char_ok(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!ch_print(s.p[i]) || s.p[i] == ' ' || s.p[i] == '<' || s.p[i] == '>')
            return false;
    return true;
}

/* One target; quotes around all of it are taken off. */
static int
add_target(struct parse *p, struct alias *alias, struct str t)
{
    if (t.n >= 2 && t.p[0] == '"' && t.p[t.n - 1] == '"')
        t = str_sub(t, 1, t.n - 2);
    if (t.n && t.p[0] == '\\') /* "\user": this name itself, which is what a loop means here, too */
        t = str_from(t, 1);
    if (t.n == 0)
        return 0;
    if (t.p[0] == '|' || t.p[0] == '/' || str_casestarts(t, STR(":include:"))) {
        p->report(p->line, "delivery to a command, a file or a list file is not served");
        return -1;
    }
    if (!target_char_ok(t) || alias->ntargets == ALIASES_TARGETS_MAX) {
        p->report(p->line, "a target is malformed, or there are too many");
        return -1;
    }
    struct address parsed;
    struct str full = with_domain(p, t);
    if (!full.p) {
        p->report(p->line, "a target is too long");
        return -1;
    }
    if (address_parse(full, &parsed, NULL) < 0) { /* nobody: its mail would come back */
        p->report(p->line, "a target is malformed: no address");
        return -1;
    }
    alias->targets[alias->ntargets++] = full;
    return 0;
}

static size_t
count_commas(struct str s)
{
    size_t n = 1;
    for (size_t i = 0; i < s.n; i++)
        n += s.p[i] == ',';
    return n < ALIASES_TARGETS_MAX ? n : ALIASES_TARGETS_MAX;
}

/* The next target before a comma that is not inside quotes. */
static struct str
next_target(struct str *list)
{
    bool quoted = false;
    size_t i = 0;
    for (; i < list->n && (quoted || list->p[i] != ','); i++)
        quoted ^= list->p[i] == '"';
    struct str t = str_trim(str_sub(*list, 0, i));
    *list = str_from(*list, i + 1);
    return t;
}

static void
entry(struct parse *p, struct str text)
{
    struct aliases *a = p->a;
    ptrdiff_t colon = str_chr(text, ':');
    if (colon <= 0) {
        bad(p, "a line wants: name: target, target ...");
        return;
    }
    struct str name = str_trim(str_sub(text, 0, (size_t)colon));
    struct str list = str_trim(str_from(text, (size_t)colon + 1));
    if (name.n >= 2 && name.p[0] == '"' && name.p[name.n - 1] == '"')
        name = str_sub(name, 1, name.n - 2);
    if (name.n == 0 || !target_char_ok(name) || list.n == 0) {
        bad(p, "a name or its targets are missing or malformed");
        return;
    }
    struct alias *alias = arena_alloc(&a->arena, sizeof *alias);
    struct str full = with_domain(p, name);
    if (!alias || !full.p || a->n == ALIASES_MAX) {
        bad(p, "too many aliases");
        return;
    }
    alias->name = arena_lower(&a->arena, full);
    alias->targets = arena_array(&a->arena, count_commas(list), sizeof *alias->targets);
    if (!alias->name.p || !alias->targets) {
        bad(p, "out of memory");
        return;
    }
    while (list.n && !alias->broken)
        alias->broken = add_target(p, alias, next_target(&list)) < 0;
    if (!alias->broken && alias->ntargets == 0) { /* commas only */
        p->report(p->line, "the targets are missing");
        alias->broken = true;
    }
    if (alias->broken)
        alias->ntargets = 0;
    if (aliases_find(a, alias->name)) {
        bad(p, "this name was defined before");
        return;
    }
    struct alias **bucket = &a->buckets[bucket_of(a, alias->name)];
    alias->next = *bucket;
    *bucket = alias;
    a->n++;
}

static int
prepare(struct aliases *a, struct str text)
{
    size_t lines = 1;
    for (size_t i = 0; i < text.n; i++)
        lines += text.p[i] == '\n';
    *a = (struct aliases){.arena = arena_new((size_t)256 << 20), .lines = lines};
    a->nbuckets = lines | 1;
    a->buckets = arena_array(&a->arena, a->nbuckets, sizeof *a->buckets);
    return a->buckets && getrandom(&a->key, sizeof a->key, 0) == sizeof a->key ? 0 : -1;
}

int
aliases_parse(struct aliases *a, struct str text, struct str primary_domain, struct str other_name,
              void (*report)(size_t line, const char *what), struct err *e)
{
    struct parse p = {.a = a, .primary = primary_domain, .other = other_name, .report = report};
    struct buf logical = buf_new(LINE_MAX_BYTES);
    size_t number = 0;
    if (text.n > ALIASES_TEXT_MAX)
        return err_set(e, ERR_LIMIT, "the aliases are larger than %d bytes", ALIASES_TEXT_MAX);
    if (prepare(a, text) < 0)
        return err_set(e, ERR_TEMPORARY, "out of memory for the aliases");
    while (text.n) {
        struct str line = str_cut(&text, '\n');
        number++;
        if (str_trim(line).n == 0 || str_trim(line).p[0] == '#')
            continue;
        if (!ch_wsp(line.p[0])) {
            if (logical.n)
                entry(&p, buf_str(&logical));
            buf_reset(&logical);
        }
        if (!logical.n) /* also of a text that begins with a continuation */
            p.line = number;
        buf_add(&logical, line);
        buf_addc(&logical, ' ');
        if (!buf_ok(&logical)) {
            bad(&p, "an entry is too long");
            buf_reset(&logical);
        }
    }
    if (logical.n)
        entry(&p, buf_str(&logical));
    buf_free(&logical);
    return 0;
}

int
aliases_read(struct aliases *a, int fd, struct str primary_domain, struct str other_name,
             void (*report)(size_t line, const char *what), struct err *e)
{
    struct buf text = buf_new(ALIASES_TEXT_MAX + READ_BLOCK);
    for (off_t at = 0;;) {
        char *to = text.n <= ALIASES_TEXT_MAX ? buf_reserve(&text, READ_BLOCK) : NULL;
        if (!to)
            break; /* too large: aliases_parse() says so */
        ssize_t n = pread(fd, to, READ_BLOCK, at);
        if (n < 0 && errno == ESPIPE) /* /dev/null takes the place of a missing file */
            n = 0;
        if (n < 0) {
            buf_free(&text);
            return err_errno(e, "cannot read the aliases");
        }
        if (n == 0)
            break;
        buf_commit(&text, (size_t)n);
        at += n;
    }
    int ok = aliases_parse(a, buf_str(&text), primary_domain, other_name, report, e);
    buf_free(&text);
    return ok;
}

void
aliases_free(struct aliases *a)
{
    arena_free(&a->arena);
    *a = (struct aliases){0};
}

const struct alias *
aliases_find(const struct aliases *a, struct str address)
{
    char lower[NAME_MAX_BYTES];
    if (address.n > sizeof lower || a->nbuckets == 0)
        return NULL;
    for (size_t i = 0; i < address.n; i++)
        lower[i] = ch_lower(address.p[i]);
    struct str wanted = str_of(lower, address.n);
    for (const struct alias *x = a->buckets[bucket_of(a, wanted)]; x; x = x->next)
        if (str_eq(x->name, wanted))
            return x;
    return NULL;
}

const struct alias *
aliases_for(const struct aliases *a, struct str local, struct str domain, char delimiter)
{
    char room[NAME_MAX_BYTES + 2];
    struct buf address = buf_on(room, sizeof room, NAME_MAX_BYTES);
    buf_add(&address, local);
    buf_addc(&address, '@');
    buf_add(&address, domain);
    const struct alias *found = buf_ok(&address) ? aliases_find(a, buf_str(&address)) : NULL;
    ptrdiff_t tag = str_chr(local, delimiter);
    if (found || tag <= 0)
        return found;
    buf_reset(&address);
    buf_add(&address, str_sub(local, 0, (size_t)tag));
    buf_addc(&address, '@');
    buf_add(&address, domain);
    return buf_ok(&address) ? aliases_find(a, buf_str(&address)) : NULL;
}
