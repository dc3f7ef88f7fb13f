#include "lib/mailbox/mailadopt.h"
#include "lib/mailbox/durable.h"
#include "lib/mailbox/mailbox.h"
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static const char file_name[] = "bulkhead-adopt";
#define MAGIC "BHADOPT\n"
enum { VERSION = 1, LINE_HEAD = 5, LINE_USUAL = 48, LINES_AT_ONCE = 1 << 20, FILE_MAX = 300 << 20 };

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

static struct str
base_at(const struct mailadopt *a, size_t at)
{
    return str_sub(buf_str(&a->text), at + LINE_HEAD, (unsigned char)a->text.p[at + 4]);
}

/* The slot that has this base, or the free one where it would be, with its tag. */
static struct mailadopt_slot *
look(const struct mailadopt *a, struct str base)
{
    uint64_t hash = mailindex_check(5, base.p, base.n);
    uint32_t tag = (uint32_t)(hash >> 32);
    size_t i = (size_t)hash & (a->slots - 1);
    while (a->table[i].at && (a->table[i].tag != tag || !str_eq(base_at(a, a->table[i].at), base)))
        i = (i + 1) & (a->slots - 1);
    a->table[i].tag = tag;
    return &a->table[i];
}

int
mailadopt_begin(struct mailadopt *a, uint32_t validity, size_t n, bool table)
{
    *a = (struct mailadopt){
        .validity = validity, .text = buf_new(FILE_MAX), .slots = table ? 64 : 0};
    while (table && a->slots < 2 * n)
        a->slots *= 2;
    a->table = table ? calloc(a->slots, sizeof *a->table) : NULL;
    /* Once, for lines of usual length: to grow is to copy. */
    size_t room = n < LINES_AT_ONCE ? n * LINE_USUAL : LINES_AT_ONCE * LINE_USUAL;
    char *head = a->table || !table ? buf_reserve(&a->text, sizeof(struct head) + room) : NULL;
    if (!head) {
        mailadopt_free(a);
        return -1;
    }
    memset(head, 0, sizeof(struct head));
    buf_commit(&a->text, sizeof(struct head));
    return 0;
}

void
mailadopt_free(struct mailadopt *a)
{
    free(a->table);
    buf_free(&a->text);
    *a = (struct mailadopt){0};
}

int
mailadopt_add(struct mailadopt *a, struct str base, uint32_t uid)
{
    struct mailadopt_slot *slot = a->table ? look(a, base) : NULL;
    if (base.n > UINT8_MAX || (slot && (slot->at || a->n * 2 >= a->slots)))
        return -1;
    if (slot)
        slot->at = (uint32_t)a->text.n;
    buf_add(&a->text, str_of((const char *)&uid, sizeof uid));
    buf_addc(&a->text, (char)base.n);
    buf_add(&a->text, base);
    a->n++;
    return buf_ok(&a->text) ? 0 : -1;
}

uint32_t
mailadopt_find(const struct mailadopt *a, struct str base)
{
    uint32_t uid;
    if (!a->validity || !a->table)
        return 0;
    const struct mailadopt_slot *slot = look(a, base);
    if (!slot->at)
        return 0;
    memcpy(&uid, a->text.p + slot->at, sizeof uid);
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
        if (good &&
            (mailadopt_begin(a, h.validity, h.n + 1, true) < 0 || take_lines(a, lines, h.n) < 0))
            mailadopt_free(a);
    }
    buf_free(&text);
    return result;
}

int
mailadopt_write(struct mailadopt *a, int dir_fd, struct err *e)
{
    if (!buf_ok(&a->text))
        return err_set(e, ERR_TEMPORARY, "out of memory");
    struct str lines = str_from(buf_str(&a->text), sizeof(struct head));
    struct head h = {.version = VERSION, .validity = a->validity, .n = a->n, .size = lines.n};
    memcpy(h.magic, MAGIC, sizeof h.magic);
    h.check = check_of(&h, lines);
    memcpy(a->text.p, &h, sizeof h);
    return durable_replace(dir_fd, file_name, buf_str(&a->text), e);
}

void
mailadopt_end(int dir_fd, int cur_fd)
{
    struct stat st;
    if (fstatat(dir_fd, file_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && fsync(cur_fd) == 0)
        unlinkat(dir_fd, file_name, 0);
}
