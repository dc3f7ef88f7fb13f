#include "common/master/ctl/ctl.h"
#include "lib/base/encode.h"
#include "lib/base/sort.h"
#include <stdio.h>
#include <stdlib.h>

/* queue shape: how many messages wait for which destination, and for how long already. */
enum { CLASSES = 10, SHOWN = 40, DOMAIN_SHOWN = 32, TOTALS = 6 };
static const char *const total_names[TOTALS] = {"total",    "active", "queued",
                                                "deferred", "hold",   "not_read_yet"};
static const char *const class_names[CLASSES] = {"5",   "10",  "20",  "40",   "80",
                                                 "160", "320", "640", "1280", "1280+"};

struct line {
    char domain[256];
    uint64_t held, total, by_age[CLASSES];
};
struct shape {
    uint64_t totals[TOTALS];
    struct line *lines;
    size_t n, cap;
};

static struct line *
new_line(struct shape *s)
{
    if (s->n == s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 128;
        struct line *lines = reallocarray(s->lines, cap, sizeof *lines);
        if (!lines)
            return NULL;
        s->lines = lines;
        s->cap = cap;
    }
    s->lines[s->n] = (struct line){0};
    return &s->lines[s->n];
}

static void
read_lines(struct msg *m, struct shape *s)
{
    uint32_t n = msg_get_u32(m);
    for (uint32_t i = 0; i < n && !m->bad; i++) {
        struct line *l = new_line(s);
        if (!l)
            return;
        struct str domain = str_sub(msg_get_str(m), 0, sizeof l->domain - 1);
        memcpy(l->domain, domain.p, domain.n);
        l->held = msg_get_u64(m);
        for (size_t k = 0; k < CLASSES; k++) {
            l->by_age[k] = msg_get_u64(m);
            l->total += l->by_age[k];
        }
        s->n += l->total > 0;
    }
}

static int
ask(struct ctl *ctl, struct shape *s)
{
    struct msg m = {0};
    uint32_t from = 0;
    bool more = true;
    while (more) {
        msg_begin(&m, M_QUEUE_SHAPE);
        msg_put_u32(&m, from);
        if (ctl_ask(ctl, R_QMGR, &m, M_QUEUE_SHAPE_IS) < 0)
            return 69;
        more = msg_get_bool(&m);
        from = msg_get_u32(&m);
        for (size_t i = 0; i < TOTALS; i++)
            s->totals[i] = msg_get_u64(&m);
        read_lines(&m, s);
        if (!msg_end(&m))
            return 76;
    }
    msg_free(&m);
    return 0;
}

static int
most_first(const void *a, const void *b)
{
    const struct line *x = a, *y = b;
    if (x->total != y->total)
        return x->total > y->total ? -1 : 1;
    return strcmp(x->domain, y->domain);
}

static void
print_json(const struct shape *s)
{
    printf("{");
    for (size_t i = 0; i < TOTALS; i++)
        printf("\"%s\": %llu, ", total_names[i], (unsigned long long)s->totals[i]);
    printf("\"minutes\": [5, 10, 20, 40, 80, 160, 320, 640, 1280], \"destinations\": [");
    for (size_t i = 0; i < s->n; i++) {
        const struct line *l = &s->lines[i];
        printf("%s\n  {\"domain\": ", i ? "," : "");
        ctl_json_str(str_z(l->domain));
        printf(", \"total\": %llu, \"hold\": %llu, \"by_age\": [", (unsigned long long)l->total,
               (unsigned long long)l->held);
        for (size_t k = 0; k < CLASSES; k++)
            printf("%s%llu", k ? ", " : "", (unsigned long long)l->by_age[k]);
        printf("]}");
    }
    printf("\n]}\n");
}

static void
print_line(const struct line *l)
{
    struct buf name = buf_new(1024);
    quote_add(&name, str_z(l->domain), DOMAIN_SHOWN);
    printf("%*s %7llu %6llu", DOMAIN_SHOWN + 3, buf_z(&name), (unsigned long long)l->total,
           (unsigned long long)l->held);
    for (size_t k = 0; k < CLASSES; k++)
        printf(" %6llu", (unsigned long long)l->by_age[k]);
    putchar('\n');
    buf_free(&name);
}

static void
print_table(const struct shape *s)
{
    struct line all = {.domain = "TOTAL"};
    printf("%*s %7s %6s", DOMAIN_SHOWN + 3, "minutes since arrival, below:", "all", "hold");
    for (size_t k = 0; k < CLASSES; k++)
        printf(" %6s", class_names[k]);
    putchar('\n');
    for (size_t i = 0; i < s->n; i++) {
        all.total += s->lines[i].total;
        all.held += s->lines[i].held;
        for (size_t k = 0; k < CLASSES; k++)
            all.by_age[k] += s->lines[i].by_age[k];
    }
    print_line(&all);
    for (size_t i = 0; i < s->n && i < SHOWN; i++)
        print_line(&s->lines[i]);
    if (s->n > SHOWN)
        printf("and %zu more destinations\n", s->n - SHOWN);
    for (size_t i = 0; i < TOTALS; i++)
        printf("%s%s %llu", i ? ", " : "", total_names[i], (unsigned long long)s->totals[i]);
    putchar('\n');
}

int
ctl_shape(struct ctl *ctl)
{
    struct shape s = {0};
    int status = ask(ctl, &s);
    if (status == 0) {
        sort_array(s.lines, s.n, sizeof *s.lines, most_first);
        if (ctl->json)
            print_json(&s);
        else
            print_table(&s);
    }
    free(s.lines);
    return status;
}
