#include "imapd/cell/args.h"
#include "imapd/cell/fetch.h"

static const struct {
    const char *name;
    enum icell_item_kind kind;
    enum icell_section_text text; /* of RFC822... */
    bool peek;
} words[] = {
    /* A name that begins another comes behind it. */
    {"FLAGS", ICELL_ITEM_FLAGS, 0, false},
    {"UID", ICELL_ITEM_UID, 0, false},
    {"INTERNALDATE", ICELL_ITEM_INTERNALDATE, 0, false},
    {"ENVELOPE", ICELL_ITEM_ENVELOPE, 0, false},
    {"BODYSTRUCTURE", ICELL_ITEM_BODYSTRUCTURE, 0, false},
    {"MODSEQ", ICELL_ITEM_MODSEQ, 0, false},
    {"SAVEDATE", ICELL_ITEM_SAVEDATE, 0, false},
    {"EMAILID", ICELL_ITEM_EMAILID, 0, false},
    {"THREADID", ICELL_ITEM_THREADID, 0, false},
    {"PREVIEW", ICELL_ITEM_PREVIEW, 0, false},
    {"BINARY", ICELL_ITEM_BINARY, 0, false},
    {"BINARY.PEEK", ICELL_ITEM_BINARY, 0, true},
    {"BINARY.SIZE", ICELL_ITEM_BINARY_SIZE, 0, true},
    {"RFC822.SIZE", ICELL_ITEM_SIZE, 0, false},
    {"RFC822.HEADER", ICELL_ITEM_SECTION, ICELL_HEADER, true},
    {"RFC822.TEXT", ICELL_ITEM_SECTION, ICELL_TEXT, false},
    {"RFC822", ICELL_ITEM_SECTION, ICELL_WHOLE, false},
};

static bool
item_char(char c)
{
    return ch_alnum(c) || c == '.';
}

static int
field_names(struct cursor *c, struct arena *arena, struct icell_section *s)
{
    struct str names[ICELL_FIELDS_MAX];
    size_t n = 0;
    if (!icell_arg_space(c) || !cur_take(c, '('))
        return -1;
    do {
        if (n == ICELL_FIELDS_MAX || icell_arg_astring(c, arena, &names[n]) < 0 || !names[n].n)
            return -1;
        n++;
    } while (icell_arg_space(c));
    s->fields = arena_array(arena, n, sizeof *s->fields);
    if (!cur_take(c, ')') || !s->fields)
        return -1;
    memcpy(s->fields, names, n * sizeof *names);
    s->nfields = n;
    return 0;
}

/* "1.2." before a word, or the whole of it. */
static int
section_path(struct cursor *c, struct arena *arena, struct icell_section *s)
{
    uint32_t path[ICELL_SECTION_MAX];
    while (cur_peek(c) >= '0' && cur_peek(c) <= '9') {
        if (s->npath == ICELL_SECTION_MAX ||
            str_u32(cur_while(c, ch_digit), UINT32_MAX, &path[s->npath]) < 0 || !path[s->npath])
            return -1;
        s->npath++;
        if (!cur_take(c, '.'))
            break;
        if (cur_peek(c) == ']')
            return -1;
    }
    s->path = arena_array(arena, s->npath, sizeof *s->path);
    if (!s->path)
        return -1;
    if (s->npath)
        memcpy(s->path, path, s->npath * sizeof *path);
    return 0;
}

static int
section_word(struct cursor *c, struct arena *arena, struct icell_section *s)
{
    struct str word = cur_while(c, item_char);
    if (word.n == 0)
        return 0;
    if (str_caseeq(word, STR("HEADER")))
        s->text = ICELL_HEADER;
    else if (str_caseeq(word, STR("TEXT")))
        s->text = ICELL_TEXT;
    else if (str_caseeq(word, STR("MIME")) && s->npath)
        s->text = ICELL_MIME;
    else if (str_caseeq(word, STR("HEADER.FIELDS")))
        s->text = ICELL_FIELDS;
    else if (str_caseeq(word, STR("HEADER.FIELDS.NOT")))
        s->text = ICELL_FIELDS_NOT;
    else
        return -1;
    return s->text == ICELL_FIELDS || s->text == ICELL_FIELDS_NOT ? field_names(c, arena, s) : 0;
}

static int
partial(struct cursor *c, struct icell_section *s)
{
    if (!cur_take(c, '<'))
        return 0;
    if (icell_arg_number(c, INT64_MAX, &s->start) < 0 || !cur_take(c, '.') ||
        icell_arg_number(c, INT64_MAX, &s->count) < 0 || s->count == 0 || !cur_take(c, '>'))
        return -1;
    s->partial = true;
    return 0;
}

/* "[1.2]<0.100>" behind "BINARY" or "BINARY.PEEK", "[1.2]" behind "BINARY.SIZE" (RFC 3516 7). */
static int
binary(struct cursor *c, struct arena *arena, struct icell_item *item)
{
    if (!cur_take(c, '[') || section_path(c, arena, &item->section) < 0 || !cur_take(c, ']'))
        return -1;
    return item->kind == ICELL_ITEM_BINARY ? partial(c, &item->section) : 0;
}

/* Behind "BODY" or "BODY.PEEK", at '['. */
static int
section(struct cursor *c, struct arena *arena, struct icell_section *s)
{
    return cur_take(c, '[') && section_path(c, arena, s) == 0 && section_word(c, arena, s) == 0 &&
                   cur_take(c, ']') && partial(c, s) == 0
               ? 0
               : -1;
}

static struct icell_item *
add(struct icell_fetch *f, enum icell_item_kind kind, const char *name)
{
    if (f->n == ICELL_FETCH_MAX)
        return NULL;
    f->items[f->n] = (struct icell_item){.kind = kind, .name = name};
    return &f->items[f->n++];
}

static int
one(struct icell *ic, struct cursor *c, struct icell_fetch *f)
{
    struct str word = cur_while(c, item_char);
    bool peek = str_caseeq(word, STR("BODY.PEEK"));
    if (peek || str_caseeq(word, STR("BODY"))) {
        bool whole = cur_peek(c) != '[';
        struct icell_item *item = add(f, whole ? ICELL_ITEM_BODY : ICELL_ITEM_SECTION, NULL);
        if (!item || (whole && peek))
            return -1;
        item->peek = peek;
        return whole ? 0 : section(c, &ic->arena, &item->section);
    }
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (!str_caseeq(word, str_z(words[i].name)))
            continue;
        struct icell_item *item = add(f, words[i].kind, words[i].name);
        if (!item)
            return -1;
        item->section.text = words[i].text;
        item->peek = words[i].peek;
        if (item->kind == ICELL_ITEM_PREVIEW)
            item->lazy = cur_take_case(c, STR(" (LAZY)"));
        if (item->kind == ICELL_ITEM_BINARY || item->kind == ICELL_ITEM_BINARY_SIZE)
            return binary(c, &ic->arena, item);
        return 0;
    }
    return -1;
}

/* ALL, FULL, FAST: instead of a list only. */
static bool
macro(struct cursor *c, struct icell_fetch *f)
{
    struct cursor at = *c;
    struct str word = cur_while(&at, item_char);
    bool all = str_caseeq(word, STR("ALL")), full = str_caseeq(word, STR("FULL"));
    if (!all && !full && !str_caseeq(word, STR("FAST")))
        return false;
    *c = at;
    add(f, ICELL_ITEM_FLAGS, "FLAGS");
    add(f, ICELL_ITEM_INTERNALDATE, "INTERNALDATE");
    add(f, ICELL_ITEM_SIZE, "RFC822.SIZE");
    if (all || full)
        add(f, ICELL_ITEM_ENVELOPE, "ENVELOPE");
    if (full)
        add(f, ICELL_ITEM_BODY, NULL);
    return true;
}

bool
icell_fetch_has(const struct icell_fetch *f, enum icell_item_kind kind)
{
    for (size_t i = 0; i < f->n; i++)
        if (f->items[i].kind == kind)
            return true;
    return false;
}

/* " (CHANGEDSINCE n VANISHED)" behind the items (RFC 4466 2.4). */
static int
modifiers(struct icell *ic, struct cursor *c, struct icell_fetch *f)
{
    if (!cur_take_str(c, STR(" (")))
        return 0;
    do {
        struct str name;
        if (icell_arg_atom(c, &name) < 0)
            return -1;
        if (str_caseeq(name, STR("CHANGEDSINCE"))) {
            if (!icell_arg_space(c) || icell_arg_number(c, INT64_MAX, &f->since) < 0)
                return -1;
            f->changed_since = true;
        } else if (str_caseeq(name, STR("VANISHED")) && ic->cmd.uid && ic->qresync) {
            f->vanished = true;
        } else {
            return -1;
        }
    } while (icell_arg_space(c));
    if (f->vanished && !f->changed_since)
        return -1;
    if (f->changed_since && !icell_fetch_has(f, ICELL_ITEM_MODSEQ) &&
        !add(f, ICELL_ITEM_MODSEQ, "MODSEQ"))
        return -1;
    return cur_take(c, ')') ? 0 : -1;
}

int
icell_fetch_parse(struct icell *ic, struct cursor *c, struct icell_fetch *f_r)
{
    f_r->n = 0;
    f_r->changed_since = f_r->vanished = false;
    if (!icell_arg_space(c))
        return -1;
    if (cur_take(c, '(')) {
        do
            if (one(ic, c, f_r) < 0)
                return -1;
        while (icell_arg_space(c));
        if (!cur_take(c, ')'))
            return -1;
    } else if (!macro(c, f_r) && one(ic, c, f_r) < 0) {
        return -1;
    }
    if (ic->cmd.uid && !icell_fetch_has(f_r, ICELL_ITEM_UID) && !add(f_r, ICELL_ITEM_UID, "UID"))
        return -1;
    if (modifiers(ic, c, f_r) < 0)
        return -1;
    return icell_arg_end(c) ? 0 : -1;
}
