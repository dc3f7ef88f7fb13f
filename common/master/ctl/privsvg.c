#include "common/master/ctl/priv.h"
#include "lib/guard/table.h"
#include "lib/role/sockets.h"
#include <errno.h>
#include <stdio.h>

/* The picture: compartments as boxes in columns, from strangers on the left to root on the right,
 * and the doors between them. Boxes are drawn over the doors. */
enum {
    BOX_W = 232,
    BOX_H = 92,
    STEP_X = 304,
    STEP_Y = 116,
    LEFT = 20,
    TOP = 60,
    COLUMNS = 5,
    ROWS = 6,
};

static const struct place {
    enum role role;
    int column, row;
} places[] = {
    {R_SMTPD, 0, 0}, {R_SUBMITD, 0, 1}, {R_POP3D, 0, 2}, {R_IMAPD, 0, 3},    {R_DNSD, 0, 4},
    {R_RELAY, 1, 4}, {R_TLSD, 1, 1},    {R_IDLED, 1, 3}, {R_QMGR, 2, 0},     {R_KEYD, 2, 2},
    {R_LOCAL, 2, 4}, {R_AUTHD, 3, 1},   {R_CELL, 3, 5},  {R_LAUNCHER, 4, 1}, {R_MASTER, 4, 4},
};
enum { PLACES = sizeof places / sizeof places[0] };

static const struct place *
place_of(enum role role)
{
    for (size_t i = 0; i < PLACES; i++)
        if (places[i].role == role)
            return &places[i];
    return NULL;
}

static int
x_of(const struct place *p)
{
    return LEFT + p->column * STEP_X;
}

static int
y_of(const struct place *p)
{
    return TOP + p->row * STEP_Y;
}

/* A door from the client's side to the service's: out at the right and in at the left when that is
 * the way, else around. */
static void
door(FILE *f, enum role client, enum role service, const char *class)
{
    const struct place *a = place_of(client), *b = place_of(service);
    if (!a || !b)
        return;
    bool right = b->column > a->column, left = b->column < a->column;
    int x1 = x_of(a) + (left ? 0 : BOX_W), x2 = x_of(b) + (right ? 0 : BOX_W);
    int y1 = y_of(a) + BOX_H / 2 + 8 * (b->row - a->row),
        y2 = y_of(b) + BOX_H / 2 - 6 * (b->row - a->row);
    int bend = right ? 60 : left ? -60 : 40;
    fprintf(f,
            "<path class=\"%s\" d=\"M%d %d C%d %d %d %d %d %d\" marker-end=\"url(#tip)\">"
            "<title>%s to %s</title></path>\n",
            class, x1, y1, x1 + bend, y1, right || left ? x2 - bend : x2 + bend, y2, x2, y2,
            role_name(client), role_name(service));
}

static void
box(FILE *f, const struct priv *p, const struct priv_role *r)
{
    const struct place *at = place_of(r->role);
    const struct guard_row *row = guard_row(r->role);
    int list[PRIV_CALLS];
    unsigned running = 0;
    const struct priv_proc *first = NULL;
    for (size_t i = 0; i < p->n; i++)
        if (p->procs[i].role == r->role) {
            first = first ? first : &p->procs[i];
            running++;
        }
    int x = x_of(at), y = y_of(at);
    fprintf(f, "<g class=\"%s\"><rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" rx=\"6\"/>\n",
            row ? (r->network[0] == 'n' ? "in" : "out") : "root", x, y, BOX_W, BOX_H);
    fprintf(f, "<text class=\"name\" x=\"%d\" y=\"%d\">%s</text>\n", x + 10, y + 20,
            role_name(r->role));
    fprintf(f, "<text x=\"%d\" y=\"%d\">%u running; root directory: %.7s</text>\n", x + 10, y + 38,
            running, first ? first->root : "-");
    if (row)
        fprintf(f, "<text x=\"%d\" y=\"%d\">%zu system calls, in a session %zu</text>\n", x + 10,
                y + 53, guard_calls(row->sets, list, PRIV_CALLS),
                guard_calls(row->session_sets, list, PRIV_CALLS));
    else
        fprintf(f, "<text x=\"%d\" y=\"%d\">all system calls</text>\n", x + 10, y + 53);
    fprintf(f, "<text x=\"%d\" y=\"%d\">files: %s; network: %s</text>\n", x + 10, y + 68,
            r->directory, r->network);
    fprintf(f, "<text class=\"reads\" x=\"%d\" y=\"%d\">%s</text></g>\n", x + 10, y + 83, r->reads);
}

static void
draw(FILE *f, const struct priv *p)
{
    size_t n;
    const struct priv_role *roles = priv_roles(&n);
    int width = 2 * LEFT + (COLUMNS - 1) * STEP_X + BOX_W, height = TOP + ROWS * STEP_Y + 20;
    fprintf(f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
            "viewBox=\"0 0 %d %d\">\n<title>Bulkhead: compartments and doors</title>\n",
            width, height, width, height);
    fprintf(f, "<style>text{font:11px sans-serif;fill:#222}.name{font:bold 15px sans-serif}"
               ".reads{fill:#a11;font-style:italic}rect{stroke:#444;fill:#eef3fb}"
               ".out rect{fill:#fdf0dc}.root rect{fill:#f6dada}"
               "path{fill:none;stroke:#567;stroke-width:1.4}"
               "path.cell{stroke-dasharray:5 4}path.start{stroke:#b33}"
               "#tip path{fill:#567;stroke:none}</style>\n"
               "<defs><marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" "
               "markerWidth=\"7\" markerHeight=\"7\" orient=\"auto\"><path d=\"M0 0L8 4L0 8z\"/>"
               "</marker></defs>\n<rect width=\"100%%\" height=\"100%%\" style=\"fill:#fff;"
               "stroke:none\"/>\n");
    fprintf(f,
            "<text class=\"name\" x=\"%d\" y=\"24\">Compartments and the doors between them"
            "</text>\n<text x=\"%d\" y=\"42\">full: a door; dashed: the channel of a cell; red: "
            "starts. In italics: what it parses of strangers. Yellow: has the network. Pink: "
            "root without a filter. Each program has a control channel to master.</text>\n",
            LEFT, LEFT);
    for (unsigned a = 1; a < R_ANY; a <<= 1)
        for (unsigned b = 1; b < R_ANY; b <<= 1)
            if (sockets_linked((enum role)a, (enum role)b))
                door(f, (enum role)a, (enum role)b, "door");
    door(f, R_IMAPD, R_CELL, "cell");
    door(f, R_POP3D, R_CELL, "cell");
    door(f, R_LOCAL, R_CELL, "cell");
    door(f, R_LAUNCHER, R_CELL, "start");
    for (size_t i = 0; i < n; i++)
        box(f, p, &roles[i]);
    fprintf(f, "</svg>\n");
}

int
priv_svg(const struct priv *p, const char *path)
{
    FILE *f = fopen(path, "we");
    if (f)
        draw(f, p);
    if (!f || fclose(f) != 0) {
        fprintf(stderr, "bulkhead: %s: %s\n", path, strerror(errno));
        return 73; /* EX_CANTCREAT */
    }
    return 0;
}
