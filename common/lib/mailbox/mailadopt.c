#include "lib/mailbox/mailadopt.h"
#include "lib/mailbox/durable.h"
#include "lib/mailbox/mailbox.h"
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static const char file_name[] = "bulkhead-adopt";
#define MAGIC "BHADOPT\n"
enum { VERSION = 1, LINE_HEAD = 5, FILE_MAX = 300 << 20 };

struct head {
    char magic[8];
    uint32_t version, validity;
    uint64_t n, size; /* lines, bytes of them */
    uint64_t check;   /* of all above, and of the lines */
};

static uint64_t
check_of(const struct head *h, struct str lines)
{
    return mailindex_check(mailindex_check(4, h, offsetof(struct head, check)), lines.p, lines.n);
}

static size_t
slot_of(const struct mailadopt *a, struct str base)
{
    return (size_t)mailindex_check(5, base.p, base.n) & (a->slots - 1);
}

static struct str
base_at(const struct mailadopt *a, size_t at)
{
    return str_sub(buf_str(&a->lines), at + LINE_HEAD, (unsigned char)a->lines.p[at + 4]);
}

/* The slot that has this base, or the free one where it would be. */
static size_t
look(const struct mailadopt *a, struct str base)
{
    size_t i = slot_of(a, base);
    while (a->table[i] && !str_eq(base_at(a, a->table[i] - 1), base))
        i = (i + 1) & (a->slots - 1);
    return i;
}

int
mailadopt_begin(struct mailadopt *a, uint32_t validity, size_t n)
{
    *a = (struct mailadopt){.validity = validity, .lines = buf_new(FILE_MAX), .slots = 64};
    while (a->slots < 2 * n)
        a->slots *= 2;
    a->table = calloc(a->slots, sizeof *a->table);
    return a->table ? 0 : -1;
}

void
mailadopt_free(struct mailadopt *a)
{
    free(a->table);
    buf_free(&a->lines);
    *a = (struct mailadopt){0};
}

int
mailadopt_add(struct mailadopt *a, struct str base, uint32_t uid)
{
    size_t i = look(a, base);
    if (a->table[i] || base.n > UINT8_MAX || a->n * 2 >= a->slots)
        return -1;
    a->table[i] = (uint32_t)a->lines.n + 1;
    buf_add(&a->lines, str_of((const char *)&uid, sizeof uid));
    buf_addc(&a->lines, (char)base.n);
    buf_add(&a->lines, base);
    a->n++;
    return buf_ok(&a->lines) ? 0 : -1;
}

uint32_t
mailadopt_find(const struct mailadopt *a, struct str base)
{
    uint32_t uid;
    if (!a->validity)
        return 0;
    size_t i = look(a, base);
    if (!a->table[i])
        return 0;
    memcpy(&uid, a->lines.p + a->table[i] - 1, sizeof uid);
    return uid;
}

/* The lines of a file whose check holds; still nothing is believed that leads out of it. */
static int
take_lines(struct mailadopt *a, struct str lines, uint64_t n)
{
    while (lines.n) {
        uint32_t uid;
        if (lines.n < LINE_HEAD)
            return -1;
        size_t base_n = (unsigned char)lines.p[4];
        memcpy(&uid, lines.p, sizeof uid);
        if (lines.n < LINE_HEAD + base_n || !uid ||
            mailadopt_add(a, str_sub(lines, LINE_HEAD, base_n), uid) < 0)
            return -1;
        lines = str_from(lines, LINE_HEAD + base_n);
    }
    return a->n == n ? 0 : -1;
}

int
mailadopt_load(struct mailadopt *a, int dir_fd, struct err *e)
{
    struct head h;
    struct stat st;
    bool there;
    *a = (struct mailadopt){0};
    if (fstatat(dir_fd, file_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return 0;
    struct buf text = buf_new(FILE_MAX);
    int result = durable_read(dir_fd, file_name, &text, &there, e);
    if (result == 0 && there && text.n >= sizeof h) {
        memcpy(&h, text.p, sizeof h);
        struct str lines = str_from(buf_str(&text), sizeof h);
        bool good = memcmp(h.magic, MAGIC, sizeof h.magic) == 0 && h.version == VERSION &&
                    h.validity && h.size == lines.n && h.n <= MAILBOX_MESSAGES_MAX &&
                    h.check == check_of(&h, lines);
        if (good && (mailadopt_begin(a, h.validity, h.n + 1) < 0 || take_lines(a, lines, h.n) < 0))
            mailadopt_free(a);
    }
    buf_free(&text);
    return result;
}

int
mailadopt_write(const struct mailadopt *a, int dir_fd, struct err *e)
{
    struct head h = {.version = VERSION, .validity = a->validity, .n = a->n, .size = a->lines.n};
    struct buf text = buf_new(FILE_MAX + sizeof h);
    memcpy(h.magic, MAGIC, sizeof h.magic);
    h.check = check_of(&h, buf_str(&a->lines));
    buf_add(&text, str_of((const char *)&h, sizeof h));
    buf_add(&text, buf_str(&a->lines));
    int result = buf_ok(&text) ? durable_replace(dir_fd, file_name, buf_str(&text), e)
                               : err_set(e, ERR_TEMPORARY, "out of memory");
    buf_free(&text);
    return result;
}

void
mailadopt_end(int dir_fd, int cur_fd)
{
    struct stat st;
    if (fstatat(dir_fd, file_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && fsync(cur_fd) == 0)
        unlinkat(dir_fd, file_name, 0);
}
