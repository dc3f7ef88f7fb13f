#include "common/master/ctl/ctl.h"
#include "lib/base/clock.h"
#include "lib/base/encode.h"
#include "lib/queue/qfilter.h"
#include <stdio.h>
#include <time.h>
#include <unistd.h>

struct row {
    struct str id, sender, state, reason;
    uint64_t size, arrived_s, next_s;
    uint32_t attempts, nrcpt;
};

static const char *
quoted(struct str s)
{
    static struct buf places[4];
    static unsigned next;
    struct buf *b = &places[next++ % 4];
    b->max = 4096;
    buf_reset(b);
    quote_add(b, s, 400);
    return buf_z(b);
}

static void
print_table_row(const struct row *r, struct msg *m)
{
    char stamp[32] = "";
    time_t arrived = (time_t)r->arrived_s;
    struct tm tm;
    if (localtime_r(&arrived, &tm))
        strftime(stamp, sizeof stamp, "%b %e %H:%M:%S", &tm);
    printf("%-20s %9llu %s %-9s <%s>\n", quoted(r->id), (unsigned long long)r->size, stamp,
           quoted(r->state), quoted(r->sender));
    if (r->reason.n)
        printf("%41s(%s)\n", "", quoted(r->reason));
    for (uint32_t i = 0; i < r->nrcpt && !m->bad; i++)
        printf("%41s<%s>\n", "", quoted(msg_get_str(m)));
}

static void
print_json_row(const struct row *r, struct msg *m, bool first)
{
    printf("%s\n  {\"id\": ", first ? "" : ",");
    ctl_json_str(r->id);
    printf(", \"size\": %llu, \"arrived\": %llu, \"next\": %llu, \"attempts\": %u, \"state\": ",
           (unsigned long long)r->size, (unsigned long long)r->arrived_s,
           (unsigned long long)r->next_s, r->attempts);
    ctl_json_str(r->state);
    printf(", \"sender\": ");
    ctl_json_str(r->sender);
    printf(", \"reason\": ");
    ctl_json_str(r->reason);
    printf(", \"recipients\": [");
    for (uint32_t i = 0; i < r->nrcpt && !m->bad; i++) {
        printf("%s", i ? ", " : "");
        ctl_json_str(msg_get_str(m));
    }
    printf("]}");
}

/* The rows of one answer, from its count on; -1 when they make no sense. */
static int
print_rows(struct ctl *ctl, struct msg *m, size_t *count)
{
    uint32_t n = msg_get_u32(m);
    for (uint32_t i = 0; i < n && !m->bad; i++) {
        struct row r = {.id = msg_get_str(m)};
        r.size = msg_get_u64(m);
        r.arrived_s = msg_get_u64(m);
        r.next_s = msg_get_u64(m);
        r.attempts = msg_get_u32(m);
        r.sender = msg_get_str(m);
        r.state = msg_get_str(m);
        r.reason = msg_get_str(m);
        r.nrcpt = msg_get_u32(m);
        if (ctl->json)
            print_json_row(&r, m, *count == 0);
        else
            print_table_row(&r, m);
        ++*count;
    }
    return msg_end(m) ? 0 : -1;
}

struct order {
    enum queue_action action;
    bool dry;
    struct qfilter f;
    size_t count, busy;
};

/* One part of the queue; 1: there is more, 0: done, or an exit status below 0. */
static int
ask_part(struct ctl *ctl, struct order *o, struct buf *after)
{
    struct msg m = {0};
    bool find = o->action == QUEUE_FIND;
    msg_begin(&m, M_QUEUE_SELECT);
    msg_put_str(&m, buf_str(after));
    msg_put_u32(&m, o->action);
    msg_put_bool(&m, o->dry);
    qfilter_put(&m, &o->f);
    if (ctl_ask(ctl, R_QMGR, &m, find ? M_QUEUE_FOUND : M_QUEUE_DID) < 0)
        return -69;
    int more = msg_get_bool(&m);
    buf_reset(after);
    buf_add(after, msg_get_str(&m));
    int ok = 0;
    if (find) {
        ok = print_rows(ctl, &m, &o->count);
    } else {
        o->count += msg_get_u32(&m);
        o->busy += msg_get_u32(&m);
        ok = msg_end(&m) ? 0 : -1;
    }
    msg_free(&m);
    return ok < 0 ? -76 : more; /* EX_PROTOCOL */
}

static int
ask_all(struct ctl *ctl, struct order *o)
{
    struct buf after = buf_new(64);
    bool progress = o->action != QUEUE_FIND && isatty(2);
    unsigned parts = 0;
    int more;
    while ((more = ask_part(ctl, o, &after)) > 0)
        if (progress && ++parts % 8 == 0)
            fprintf(stderr, "\r%zu message(s) so far ...", o->count);
    if (parts >= 8 && progress)
        fprintf(stderr, "\r%40s\r", "");
    buf_free(&after);
    return -more;
}

static int
list(struct ctl *ctl, struct order *o)
{
    if (qfilter_empty(&o->f))
        o->f.all = true;
    printf("%s", ctl->json ? "[" : "");
    int status = ask_all(ctl, o);
    if (ctl->json)
        printf("\n]\n");
    else if (status == 0) /* else nobody knows */
        printf("%zu message%s in the queue\n", o->count, o->count == 1 ? "" : "s");
    return status;
}

static int
act(struct ctl *ctl, struct order *o, const char *done)
{
    int status = ask_all(ctl, o);
    if (status)
        return status;
    if (o->f.nids && o->count + o->busy == 0) {
        fprintf(stderr, "bulkhead: no such message in the queue, or nothing to do with it\n");
        return 69;
    }
    if (ctl->json) {
        printf("{\"count\": %zu, \"busy\": %zu, \"dry\": %s}\n", o->count, o->busy,
               o->dry ? "true" : "false");
        return 0;
    }
    printf("%zu message(s) %s%s\n", o->count, o->dry ? "would be " : "", done);
    if (o->busy)
        printf("%zu more are being delivered right now: %s when this attempt has ended\n", o->busy,
               done);
    return 0;
}

static int
show(struct ctl *ctl, const char *id)
{
    struct msg m = {0};
    char block[65536];
    msg_begin(&m, M_QUEUE_SHOW);
    msg_put_str(&m, str_z(id));
    if (ctl_ask(ctl, R_QMGR, &m, M_QUEUE_MESSAGE) < 0)
        return 69;
    uint64_t at = msg_get_u64(&m), left = msg_get_u64(&m);
    int fd = msg_take_fd(&m, 0);
    while (left) {
        size_t want = left < sizeof block ? (size_t)left : sizeof block;
        ssize_t n = pread(fd, block, want, (off_t)at);
        if (n <= 0)
            return 74; /* EX_IOERR */
        fwrite(block, 1, (size_t)n, stdout);
        at += (uint64_t)n;
        left -= (uint64_t)n;
    }
    close(fd);
    msg_free(&m);
    return 0;
}

/* What each verb does; those that change something want to be told to what. */
static const struct verb {
    const char *name;
    enum queue_action action;
    const char *done;
} verbs[] = {
    {"hold", QUEUE_HOLD, "held"},
    {"release", QUEUE_RELEASE, "released"},
    {"retry", QUEUE_TRY, "tried again now"},
    {"remove", QUEUE_DROP, "removed"},
    {"flush", QUEUE_TRY, "tried again now"},
};

static int
usage(const char *why)
{
    if (why)
        fprintf(stderr, "bulkhead: %s\n", why);
    fprintf(stderr, "usage: bulkhead queue list [FILTER ...] | show ID | shape | flush\n"
                    "       bulkhead queue hold|release|retry|remove [-n] ID ...|FILTER ...|--all\n"
                    "FILTER: --sender A, --recipient A, --domain D, --older TIME, --newer TIME\n");
    return 64;
}

/* The words behind the verb. */
static int
read_order(struct order *o, int argc, char **argv)
{
    struct err e;
    for (int i = 2; i < argc; i++) {
        const char *option = argv[i][0] == '-' ? argv[i] : NULL;
        if (strcmp(argv[i], "-n") == 0) {
            o->dry = true;
            continue;
        }
        if (strcmp(argv[i], "all") == 0)
            option = "--all";
        int used = qfilter_word(&o->f, option, option ? argv[i + 1] : argv[i], &e);
        if (used < 0)
            return usage(e.text);
        i += option ? used : 0;
    }
    return 0;
}

int
ctl_queue(struct ctl *ctl, int argc, char **argv)
{
    static struct order o;
    const char *verb = argc > 1 ? argv[1] : "";
    if (argc == 3 && strcmp(verb, "show") == 0)
        return show(ctl, argv[2]);
    int status = read_order(&o, argc, argv);
    if (status)
        return status;
    if (strcmp(verb, "list") == 0 && !o.dry)
        return list(ctl, &o);
    if (strcmp(verb, "shape") == 0 && qfilter_empty(&o.f) && !o.dry)
        return ctl_shape(ctl);
    for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++) {
        if (strcmp(verb, verbs[i].name) != 0)
            continue;
        if (strcmp(verb, "flush") == 0 && qfilter_empty(&o.f))
            o.f.all = true;
        if (qfilter_empty(&o.f))
            return usage("which messages? Give IDs, a filter, or --all");
        o.action = verbs[i].action;
        return act(ctl, &o, verbs[i].done);
    }
    return usage(NULL);
}
