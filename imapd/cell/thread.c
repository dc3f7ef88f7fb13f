#include "imapd/cell/thread.h"
#include "lib/base/buf.h"
#include "lib/base/sort.h"

enum { NONE = 0 };
#define NOBODY ICELL_THREAD_NONE

/* ---- a table from hashes to nodes ---- */

struct slot {
    uint64_t key; /* 0: free */
    uint32_t node;
};
struct table {
    struct slot *slots;
    size_t mask;
};

static int
table_new(struct table *t, size_t entries, struct arena *arena)
{
    size_t n = 16;
    while (n < entries * 2)
        n *= 2;
    t->slots = arena_array(arena, n, sizeof *t->slots);
    t->mask = n - 1;
    return t->slots ? 0 : -1;
}

/* The slot of a key; a free one when it is not there. */
static struct slot *
table_find(const struct table *t, uint64_t key)
{
    size_t at = (size_t)key & t->mask;
    while (t->slots[at].key && t->slots[at].key != key)
        at = (at + 1) & t->mask;
    return &t->slots[at];
}

/* ---- linking ---- */

struct linker {
    struct icell_forest *f; /* parent[] is what is made here; nodes are messages and identifiers */
    uint32_t *tree;         /* union and find: whose root is the root of the node's tree */
    struct table ids;
    uint32_t **refs;
};

static uint32_t
root_of(uint32_t *tree, uint32_t node)
{
    while (tree[node] != node) {
        tree[node] = tree[tree[node]];
        node = tree[node];
    }
    return node;
}

/* A child without a parent is the root of its tree: it gets this parent if that is in another. */
static void
link_to(struct linker *l, uint32_t child, uint32_t parent)
{
    uint32_t root = root_of(l->tree, parent);
    if (l->f->parent[child] != NOBODY || root == child)
        return;
    l->f->parent[child] = parent;
    l->tree[child] = root;
}

/* The node of an identifier, a new one when nobody has it. */
static uint32_t
node_of(struct linker *l, uint64_t id)
{
    struct slot *s = table_find(&l->ids, id);
    if (!s->key)
        *s = (struct slot){id, (uint32_t)l->f->n++};
    return s->node;
}

/* Step 1. */
static void
link_all(struct linker *l)
{
    const struct icell_thread_message *m = l->f->messages;
    size_t n = l->f->nmessages;
    for (size_t i = 0; i < n; i++) {
        struct slot *s = m[i].id ? table_find(&l->ids, m[i].id) : NULL;
        if (s && !s->key) /* of two messages with one identifier the second has none */
            *s = (struct slot){m[i].id, (uint32_t)i};
    }
    for (size_t i = 0; i < n; i++)
        if (m[i].nrefs)
            link_to(l, (uint32_t)i, node_of(l, m[i].refs[m[i].nrefs - 1]));
    for (size_t i = 0; i < n; i++)
        for (uint32_t k = 1; k < m[i].nrefs; k++) {
            uint32_t child = node_of(l, m[i].refs[k]);
            /* A message that comes later says itself whose child it is, or that it is nobody's. */
            if (child >= n || child < i)
                link_to(l, child, node_of(l, m[i].refs[k - 1]));
        }
}

/* ---- from all nodes to those that are shown ---- */

/* The nearest message above, or the topmost node when there is none: step 3 lets the children of
 * nodes that are not there move up, but not to the roots. */
static void
shorten(struct icell_forest *f, uint32_t *up)
{
    for (size_t i = 0; i < f->n; i++)
        up[i] = NOBODY;
    for (size_t i = 0; i < f->nmessages; i++) {
        uint32_t at = f->parent[i], found;
        while (at != NOBODY && at >= f->nmessages && up[at] == NOBODY && f->parent[at] != NOBODY)
            at = f->parent[at];
        found = at != NOBODY && at >= f->nmessages && up[at] != NOBODY ? up[at] : at;
        up[i] = found;
        for (at = f->parent[i]; at != NOBODY && at >= f->nmessages && up[at] == NOBODY;
             at = f->parent[at])
            up[at] = found;
    }
}

/* Step 3: parents are messages, or one node above several roots, of which few are left. */
static void
prune(struct icell_forest *f, uint32_t *up, uint32_t *count)
{
    uint32_t n = (uint32_t)f->nmessages, kept = n;
    shorten(f, up);
    for (size_t i = n; i < f->n; i++)
        count[i] = 0;
    for (size_t i = 0; i < n; i++)
        if (up[i] != NOBODY && up[i] >= n)
            count[up[i]]++;
    for (uint32_t i = 0; i < n; i++)
        f->parent[i] = up[i] != NOBODY && up[i] >= n && count[up[i]] < 2 ? NOBODY : up[i];
    for (size_t i = n; i < f->n; i++) /* up[] is now the new number */
        up[i] = count[i] > 1 ? kept++ : NOBODY;
    for (uint32_t i = 0; i < n; i++)
        if (f->parent[i] != NOBODY && f->parent[i] >= n)
            f->parent[i] = up[f->parent[i]];
    f->n = kept;
    for (size_t i = n; i < kept; i++)
        f->parent[i] = NOBODY;
}

/* Their numbers, as values. */
static const struct sort_pair *
order_by_date(const struct icell_thread_message *m, size_t n, struct arena *arena)
{
    const uint64_t middle = (uint64_t)1 << 63; /* dates may be negative */
    struct sort_pair *order = arena_array(arena, n + 1, sizeof *order);
    struct sort_pair *room = arena_array(arena, n + 1, sizeof *room);
    if (!order || !room)
        return NULL;
    for (size_t i = 0; i < n; i++)
        order[i] = (struct sort_pair){(uint64_t)m[i].date_s + middle, i};
    sort_pairs(order, room, n);
    return order;
}

/* Lists of children and roots, each by date; a node that is not there goes by its first child. */
static void
make_lists(struct icell_forest *f, const struct sort_pair *order)
{
    uint32_t *last = &f->root;
    f->root = NOBODY;
    for (size_t i = 0; i < f->n; i++)
        f->first[i] = f->next[i] = NOBODY;
    for (size_t k = f->nmessages; k-- > 0;) {
        uint32_t i = (uint32_t)order[k].value, above = f->parent[i];
        if (above == NOBODY)
            continue;
        f->next[i] = f->first[above];
        f->first[above] = i;
    }
    for (size_t k = 0; k < f->nmessages; k++) {
        uint32_t i = (uint32_t)order[k].value, above = f->parent[i];
        if (above != NOBODY && above >= f->nmessages && f->first[above] == i)
            i = above;
        else if (above != NOBODY)
            continue;
        *last = i;
        last = &f->next[i];
    }
    *last = NOBODY;
}

/* ---- step 5: trees of one subject ---- */

static const struct icell_thread_message *
speaker(const struct icell_forest *f, uint32_t root)
{
    return &f->messages[root < f->nmessages ? root : f->first[root]];
}

static void
choose(struct icell_forest *f, const struct table *subjects)
{
    uint32_t n = (uint32_t)f->nmessages;
    for (uint32_t r = f->root; r != NOBODY; r = f->next[r]) {
        const struct icell_thread_message *m = speaker(f, r);
        if (!m->subject)
            continue;
        struct slot *s = table_find(subjects, m->subject);
        bool there = s->key && s->node < n;
        if (!s->key || (there && (r >= n || (speaker(f, s->node)->reply && !m->reply))))
            *s = (struct slot){m->subject, r};
    }
}

static void
adopt(struct icell_forest *f, uint32_t from, uint32_t to)
{
    for (uint32_t c = f->first[from]; c != NOBODY; c = f->next[c])
        f->parent[c] = to;
}

static void
merge(struct icell_forest *f, const struct table *subjects)
{
    uint32_t n = (uint32_t)f->nmessages;
    for (uint32_t r = f->root; r != NOBODY; r = f->next[r]) {
        const struct icell_thread_message *m = speaker(f, r);
        struct slot *s = m->subject ? table_find(subjects, m->subject) : NULL;
        if (!s || s->node == r || f->parent[r] != NOBODY)
            continue;
        uint32_t head = s->node;
        if (r >= n) {
            adopt(f, r, head); /* both are not there: choose() prefers such */
        } else if (head >= n || (m->reply && !speaker(f, head)->reply)) {
            f->parent[r] = head;
        } else {
            uint32_t above = (uint32_t)f->n++;
            f->parent[above] = NOBODY;
            f->parent[r] = f->parent[head] = above;
            f->first[above] = head;
            f->next[above] = NOBODY;
            s->node = above;
        }
    }
}

static int
forest_new(struct icell_forest *f, const struct icell_thread_message *m, size_t n, size_t nodes,
           struct arena *arena)
{
    *f = (struct icell_forest){.messages = m,
                               .nmessages = n,
                               .n = n,
                               .parent = arena_array(arena, nodes, sizeof *f->parent),
                               .first = arena_array(arena, nodes, sizeof *f->first),
                               .next = arena_array(arena, nodes, sizeof *f->next)};
    if (!f->parent || !f->first || !f->next || nodes >= NOBODY)
        return -1;
    for (size_t i = 0; i < nodes; i++)
        f->parent[i] = NOBODY;
    return 0;
}

int
icell_thread_references(const struct icell_thread_message *m, size_t n, struct arena *arena,
                        struct icell_forest *f_r)
{
    struct linker l = {.f = f_r};
    struct table subjects;
    size_t nodes = 2 * n + 1; /* step 5 makes at most one for each two roots */
    for (size_t i = 0; i < n; i++)
        nodes += m[i].nrefs;
    if (forest_new(f_r, m, n, nodes, arena) < 0 || table_new(&l.ids, nodes, arena) < 0 ||
        table_new(&subjects, n, arena) < 0)
        return -1;
    l.tree = arena_array(arena, nodes, sizeof *l.tree);
    const struct sort_pair *order = order_by_date(m, n, arena);
    if (!l.tree || !order)
        return -1;
    for (size_t i = 0; i < nodes; i++)
        l.tree[i] = (uint32_t)i;
    link_all(&l);
    prune(f_r, l.tree, f_r->next);
    make_lists(f_r, order);
    choose(f_r, &subjects);
    merge(f_r, &subjects);
    make_lists(f_r, order);
    return 0;
}

/* The first of a subject is above all others of it. */
int
icell_thread_subjects(const struct icell_thread_message *m, size_t n, struct arena *arena,
                      struct icell_forest *f_r)
{
    struct table subjects;
    const struct sort_pair *order = order_by_date(m, n, arena);
    if (!order || forest_new(f_r, m, n, n + 1, arena) < 0 || table_new(&subjects, n, arena) < 0)
        return -1;
    for (size_t k = 0; k < n; k++) {
        uint32_t i = (uint32_t)order[k].value;
        /* An empty subject is a subject like others here. */
        struct slot *s = table_find(&subjects, m[i].subject ? m[i].subject : 1);
        if (s->key)
            f_r->parent[i] = s->node;
        else
            *s = (struct slot){m[i].subject ? m[i].subject : 1, i};
    }
    make_lists(f_r, order);
    return 0;
}

/* ---- telling ---- */

struct teller {
    const struct icell_forest *f;
    void (*put)(void *to, struct str piece);
    void *to;
};

static void
tell(const struct teller *t, const char *z)
{
    t->put(t->to, str_z(z));
}

/* Whether the children of a node stand in parentheses of their own. */
static bool
branches(const struct icell_forest *f, uint32_t i)
{
    return i >= f->nmessages || f->next[f->first[i]] != NOBODY;
}

/* A node; the child that comes next, or NOBODY. */
static uint32_t
tell_node(const struct teller *t, uint32_t i)
{
    const struct icell_forest *f = t->f;
    char room[16];
    if (i < f->nmessages) {
        struct buf number = buf_on(room, sizeof room, sizeof room - 1);
        buf_addu(&number, f->messages[i].number);
        t->put(t->to, buf_str(&number));
    }
    if (f->first[i] == NOBODY)
        return NOBODY;
    if (i < f->nmessages)
        tell(t, " ");
    if (branches(f, i))
        tell(t, "(");
    return f->first[i];
}

void
icell_thread_put(const struct icell_forest *f, void (*put)(void *to, struct str piece), void *to)
{
    const struct teller t = {f, put, to};
    uint32_t i = f->root;
    if (i != NOBODY)
        tell(&t, " (");
    while (i != NOBODY) {
        uint32_t down = tell_node(&t, i);
        if (down != NOBODY) {
            i = down;
            continue;
        }
        /* Up past all that end here, to the next one beside them. */
        for (bool up = true; up;) {
            uint32_t above = f->parent[i];
            bool alone = above != NOBODY && !branches(f, above);
            if (!alone)
                tell(&t, ")");
            up = alone || (f->next[i] == NOBODY && above != NOBODY);
            if (up) {
                i = above;
            } else {
                i = f->next[i];
                if (i != NOBODY)
                    tell(&t, "(");
            }
        }
    }
}
