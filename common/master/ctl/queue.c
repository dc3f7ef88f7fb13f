#include "common/master/ctl/ctl.h"
#include "lib/base/clock.h"
#include "lib/base/encode.h"
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

/* One page of rows; the last ID goes to *last. Returns whether there are more, or -1. */
static int
print_page(struct ctl *ctl, struct msg *m, struct buf *last, size_t *count)
{
    bool more = msg_get_bool(m);
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
        buf_reset(last);
        buf_add(last, r.id);
        if (ctl->json)
            print_json_row(&r, m, *count == 0);
        else
            print_table_row(&r, m);
        ++*count;
    }
    return msg_end(m) ? more : -1;
}

static int
list(struct ctl *ctl)
{
    struct msg m = {0};
    struct buf last = buf_new(64);
    size_t count = 0;
    int more = 1;
    printf("%s", ctl->json ? "[" : "");
    while (more > 0) {
        msg_begin(&m, M_QUEUE_LIST);
        msg_put_str(&m, buf_str(&last));
        if (ctl_ask(ctl, R_QMGR, &m, M_QUEUE_ROWS) < 0)
            return 69;
        more = print_page(ctl, &m, &last, &count);
    }
    if (ctl->json)
        printf("\n]\n");
    else
        printf("%zu message%s in the queue\n", count, count == 1 ? "" : "s");
    msg_free(&m);
    buf_free(&last);
    return more < 0 ? 76 : 0; /* EX_PROTOCOL */
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

static int
act(struct ctl *ctl, enum msg_type type, const char *id, const char *done)
{
    struct msg m = {0};
    msg_begin(&m, type);
    msg_put_str(&m, str_z(id));
    if (ctl_ask(ctl, R_QMGR, &m, M_QUEUE_OK) < 0)
        return 69;
    printf("%u message(s) %s\n", msg_get_u32(&m), done);
    msg_free(&m);
    return 0;
}

int
ctl_queue(struct ctl *ctl, int argc, char **argv)
{
    const char *verb = argc > 1 ? argv[1] : "";
    if (argc == 2 && strcmp(verb, "list") == 0)
        return list(ctl);
    if (argc == 3 && strcmp(verb, "show") == 0)
        return show(ctl, argv[2]);
    if (argc == 3 && strcmp(verb, "retry") == 0)
        return act(ctl, M_QUEUE_RETRY, strcmp(argv[2], "all") == 0 ? "" : argv[2],
                   "tried again now");
    if (argc == 3 && strcmp(verb, "remove") == 0)
        return act(ctl, M_QUEUE_REMOVE, argv[2], "removed");
    fprintf(stderr, "usage: bulkhead queue list | show ID | retry ID|all | remove ID\n");
    return 64;
}
