#include "lib/mailbox/keywords.h"
#include "lib/base/buf.h"
#include "lib/mailbox/durable.h"
#include "lib/mailbox/mailscan.h"
#include "lib/mailbox/mailview.h"
#include <fcntl.h>
#include <sys/stat.h>

static const char file_name[] = "bulkhead-keywords";
static const char dovecot_name[] = "dovecot-keywords";
enum { FILE_MAX = 16384 };

bool
keywords_valid(struct str name)
{
    if (name.n == 0 || name.n > KEYWORD_LEN_MAX)
        return false;
    for (size_t i = 0; i < name.n; i++)
        if (name.p[i] <= 0x20 || name.p[i] >= 0x7f || strchr("(){%*\"\\]", name.p[i]))
            return false;
    return true;
}

/* "NUMBER NAME"; a line that is something else is passed over. */
static void
parse_line(struct keywords *k, struct str line)
{
    uint32_t number;
    struct str digits = str_cut(&line, ' ');
    if (str_u32(digits, KEYWORDS_MAX - 1, &number) < 0 || !keywords_valid(line) ||
        keywords_find(k, line) >= 0)
        return;
    memcpy(k->name[number], line.p, line.n);
    k->name[number][line.n] = '\0';
}

int
keywords_load(struct keywords *k, int dir_fd, struct err *e)
{
    struct stat st;
    if (fstatat(dir_fd, file_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        st = (struct stat){.st_mtim.tv_nsec = 1};
    if (st.st_mtim.tv_sec == k->mtime.tv_sec && st.st_mtim.tv_nsec == k->mtime.tv_nsec)
        return 0;
    struct buf text = buf_new(FILE_MAX);
    bool there;
    int result = durable_read(dir_fd, file_name, &text, &there, e);
    if (result == 0 && !there)
        result = durable_read(dir_fd, dovecot_name, &text, &there, e);
    if (result == 0) {
        struct str rest = buf_str(&text);
        memset(k->name, 0, sizeof k->name);
        while (rest.n)
            parse_line(k, str_trim(str_cut(&rest, '\n')));
        k->mtime = st.st_mtim;
    }
    buf_free(&text);
    return result;
}

int
keywords_find(const struct keywords *k, struct str name)
{
    for (int i = 0; i < KEYWORDS_MAX; i++)
        if (k->name[i][0] && str_caseeq(str_z(k->name[i]), name))
            return i;
    return -1;
}

/* The letters that names in a directory have. */
static int
add_letters(int dir_fd, const char *sub, uint32_t *letters, struct err *e)
{
    struct mailscan s = {0};
    int result = mailview_list_dir(&s, dir_fd, sub);
    for (size_t i = 0; i < s.n; i++)
        *letters |= s.at[i].keywords;
    mailscan_free(&s);
    return result < 0 ? err_set(e, ERR_TEMPORARY, "cannot list %s", sub) : 0;
}

/* A letter that means nothing yet. One that stands in names all the same, since a foreign program's
 * table is not ours or a table is lost, would give their messages the new keyword. */
static int
free_letter(const struct keywords *k, int dir_fd, struct err *e)
{
    uint32_t taken = 0;
    for (int i = 0; i < KEYWORDS_MAX; i++)
        taken |= k->name[i][0] ? 1u << i : 0;
    if (taken != (1u << KEYWORDS_MAX) - 1 &&
        (add_letters(dir_fd, "new", &taken, e) < 0 || add_letters(dir_fd, "cur", &taken, e) < 0))
        return -1;
    for (int i = 0; i < KEYWORDS_MAX; i++)
        if (!(taken >> i & 1))
            return i;
    return err_set(e, ERR_LIMIT, "no more keywords in this folder");
}

int
keywords_add(struct keywords *k, int dir_fd, struct str name, int *number_r, struct err *e)
{
    if (keywords_load(k, dir_fd, e) < 0)
        return -1;
    *number_r = keywords_find(k, name);
    if (*number_r >= 0)
        return 0;
    if (!keywords_valid(name))
        return err_set(e, ERR_LIMIT, "not a keyword");
    int at = free_letter(k, dir_fd, e);
    if (at < 0)
        return -1;
    memcpy(k->name[at], name.p, name.n);
    k->name[at][name.n] = '\0';
    struct buf text = buf_new(FILE_MAX);
    for (int i = 0; i < KEYWORDS_MAX; i++)
        if (k->name[i][0])
            buf_addf(&text, "%d %s\n", i, k->name[i]);
    int result = durable_replace(dir_fd, file_name, buf_str(&text), e);
    buf_free(&text);
    if (result < 0)
        k->name[at][0] = '\0';
    else
        *number_r = at;
    /* Whoever else wrote at this instant held the lock: our table is the file. */
    k->mtime = (struct timespec){0};
    return result;
}
