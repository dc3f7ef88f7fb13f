#include "lib/mailbox/mailforeign.h"
#include "lib/base/cursor.h"
#include "lib/mailbox/durable.h"
#include "lib/mailbox/mailbox.h"
#include "lib/mailbox/mailname.h"
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static size_t
count_lines(struct str text)
{
    size_t n = 1;
    for (size_t i = 0; i < text.n; i++)
        n += text.p[i] == '\n';
    return n < MAILBOX_MESSAGES_MAX ? n : MAILBOX_MESSAGES_MAX;
}

static int
read_text(int dir_fd, const char *name, struct buf *text, bool *there_r, struct err *e)
{
    *text = buf_new(MAILFOREIGN_FILE_MAX);
    return durable_read(dir_fd, name, text, there_r, e);
}

/* "3 V1700000000 N42 G..." or "1 1700000000 42". */
static int
parse_head(struct str line, struct mailforeign *f)
{
    uint32_t version;
    if (str_u32(str_cut(&line, ' '), 3, &version) < 0 || version == 0)
        return -1;
    if (version < 3) {
        if (str_u32(str_cut(&line, ' '), UINT32_MAX, &f->validity) < 0 ||
            str_u32(str_trim(str_cut(&line, ' ')), UINT32_MAX, &f->next) < 0)
            return -1;
    } else {
        while (line.n) {
            struct str word = str_cut(&line, ' ');
            if (str_starts(word, STR("V")))
                (void)str_u32(str_from(word, 1), UINT32_MAX, &f->validity);
            else if (str_starts(word, STR("N")))
                (void)str_u32(str_from(word, 1), UINT32_MAX, &f->next);
        }
    }
    return f->validity ? 0 : -1;
}

/* "17 W1234 :1700000000.M1P2.host,S=1200" or "17 1700000000.M1P2.host". UIDs ascend; the base is
 * what names have in common. */
static void
parse_line(struct str line, struct mailforeign *f, uint32_t *last)
{
    uint32_t uid;
    if (str_u32(str_cut(&line, ' '), UINT32_MAX - 1, &uid) < 0 || uid <= *last)
        return;
    ptrdiff_t colon = str_starts(line, STR(":")) ? 0 : str_find(line, STR(" :"));
    struct str name = colon < 0 ? line : str_from(line, (size_t)colon + (colon > 0 ? 2 : 1));
    struct str base = mailname_base(name);
    if (base.n == 0 || mailadopt_add(&f->uids, base, uid) < 0)
        return;
    *last = uid;
    if (f->next <= uid)
        f->next = uid + 1;
}

static int
parse_list(struct str text, struct mailforeign *f)
{
    uint32_t last = 0;
    if (parse_head(str_trim(str_cut(&text, '\n')), f) < 0) {
        f->validity = f->next = 0;
        return 0;
    }
    if (mailadopt_begin(&f->uids, f->validity, count_lines(text) + 1, true) < 0)
        return -1;
    while (text.n)
        parse_line(str_cut(&text, '\n'), f, &last);
    return 0;
}

/* Names of keywords, one a line; an empty line; "file:0 3" for each message that has some. */
static int
parse_courier(struct str text, struct mailforeign *f)
{
    for (int k = 0; text.n; k++) {
        struct str name = str_cut(&text, '\n');
        if (name.n == 0)
            break;
        if (k < KEYWORDS_MAX && keywords_valid(name)) {
            memcpy(f->listed.name[k], name.p, name.n);
            f->listed.name[k][name.n] = '\0';
        }
    }
    if (mailadopt_begin(&f->listed_for, 1, count_lines(text) + 1, true) < 0)
        return -1;
    while (text.n) {
        struct str numbers = str_cut(&text, '\n');
        struct str base = mailname_base(str_cut(&numbers, ':'));
        uint32_t bits = 0, k;
        while (numbers.n)
            if (str_u32(str_cut(&numbers, ' '), KEYWORDS_MAX - 1, &k) == 0)
                bits |= 1u << k;
        if (bits && base.n)
            (void)mailadopt_add(&f->listed_for, base, bits);
    }
    return 0;
}

static int
load_courier(struct mailforeign *f, int dir_fd, struct err *e)
{
    struct buf text;
    bool there;
    int sub =
        openat(dir_fd, "courierimapkeywords", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (sub < 0)
        return 0;
    int result = read_text(sub, ":list", &text, &there, e);
    if (result == 0 && there && parse_courier(buf_str(&text), f) < 0)
        result = err_set(e, ERR_TEMPORARY, "out of memory");
    buf_free(&text);
    close(sub);
    return result;
}

int
mailforeign_load(struct mailforeign *f, int dir_fd, struct err *e)
{
    static const char *const lists[] = {"dovecot-uidlist", "courierimapuiddb"};
    struct uidfile own = {0};
    *f = (struct mailforeign){0};
    if (uidfile_read(&own, dir_fd, e) < 0 || keywords_load(&f->letters, dir_fd, e) < 0 ||
        load_courier(f, dir_fd, e) < 0)
        return -1;
    f->in_names = own.validity != 0;
    f->validity = own.validity;
    f->next = own.mark;
    for (size_t i = 0; !f->validity && i < sizeof lists / sizeof lists[0]; i++) {
        struct buf text;
        bool there;
        int result = read_text(dir_fd, lists[i], &text, &there, e);
        if (result == 0 && there && parse_list(buf_str(&text), f) < 0)
            result = err_set(e, ERR_TEMPORARY, "out of memory");
        buf_free(&text);
        if (result < 0)
            return -1;
    }
    return 0;
}

void
mailforeign_free(struct mailforeign *f)
{
    mailadopt_free(&f->uids);
    mailadopt_free(&f->listed_for);
}
