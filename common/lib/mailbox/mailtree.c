/* mailimport_maildir(): a Maildir++ of another server, folder by folder. */
#include "lib/mailbox/durable.h"
#include "lib/mailbox/folder.h"
#include "lib/mailbox/mailimport.h"
#include "lib/mailbox/mailname.h"
#include "lib/mailbox/mailscan.h"
#include "lib/mailbox/mailview.h"
#include "lib/mailbox/quota.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SUBSCRIBED_MAX = 1 << 20 };

struct source {
    int dir_fd;
    struct mailforeign known;
    uint32_t letter[KEYWORDS_MAX], listed[KEYWORDS_MAX]; /* bits in the target */
};

static void
map_keywords(struct mailimport *im, struct source *s)
{
    for (int k = 0; k < KEYWORDS_MAX; k++) {
        s->letter[k] = s->known.letters.name[k][0]
                           ? mailimport_keyword(im, str_z(s->known.letters.name[k]))
                           : 0;
        s->listed[k] =
            s->known.listed.name[k][0] ? mailimport_keyword(im, str_z(s->known.listed.name[k])) : 0;
    }
}

static uint32_t
keywords_of(const struct source *s, const struct mailscan_entry *x, struct str base)
{
    uint32_t bits = 0, listed = mailadopt_find(&s->known.listed_for, base);
    for (int k = 0; k < KEYWORDS_MAX; k++)
        bits |= (x->keywords >> k & 1 ? s->letter[k] : 0) | (listed >> k & 1 ? s->listed[k] : 0);
    return bits;
}

static int
copy_bytes(int fd, struct mailbox_writer *w, struct err *e)
{
    char piece[65536];
    for (;;) {
        ssize_t n = read(fd, piece, sizeof piece);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_errno(e, "read a message");
        if (n == 0)
            return 0;
        if (mailbox_write(w, str_of(piece, (size_t)n), e) < 0)
            return -1;
    }
}

static int
take_file(struct mailimport *im, struct source *s, int sub_fd, const struct mailscan_entry *x,
          const char *name, struct err *e)
{
    struct mailname parsed;
    struct mailbox_writer w;
    struct stat st;
    if (mailname_parse(str_z(name), &parsed) < 0 || mailimport_has(im, parsed.base))
        return 0;
    int fd = durable_open(sub_fd, name, &st);
    if (fd < 0 && errno == ENOENT)
        return 0; /* taken away meanwhile */
    if (fd < 0)
        return err_errno(e, "open %s", name);
    const struct mailimport_from from = {
        .base = parsed.base,
        .fields = parsed.fields,
        .uid = s->known.in_names ? (x->validity == s->known.validity ? x->uid : 0)
                                 : mailadopt_find(&s->known.uids, parsed.base),
        .flags = x->flags,
        .keywords = keywords_of(s, x, parsed.base),
        .fresh = x->in_new,
        .date_s = st.st_mtim.tv_sec};
    int result = mailimport_open(im, &w, e);
    if (result == 0 && (result = copy_bytes(fd, &w, e)) < 0)
        mailbox_write_abort(&w);
    else if (result == 0)
        result = mailimport_put(im, &w, &from, e);
    close(fd);
    return result;
}

static int
take_dir(struct mailimport *im, struct source *s, const char *sub, struct mailscan *scan,
         struct err *e)
{
    int result = 0;
    int fd = openat(s->dir_fd, sub, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    for (size_t i = 0; fd >= 0 && result == 0 && i < scan->n; i++)
        result = take_file(im, s, fd, &scan->at[i], mailscan_name(scan, &scan->at[i]), e);
    if (fd >= 0)
        close(fd);
    return result;
}

static int
take_folder(struct mailimport *im, int from_fd, int root_fd, struct str name, struct err *e)
{
    char path[FOLDER_NAME_MAX + 8];
    struct mailscan fresh = {0}, cur = {0};
    struct source s = {.dir_fd = -1};
    if (folder_path(name, path) < 0)
        return 0;
    s.dir_fd = openat(from_fd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int result =
        s.dir_fd < 0 ? err_errno(e, "open %s", path) : mailforeign_load(&s.known, s.dir_fd, e);
    if (result == 0) {
        /* A directory that is missing has no messages. */
        (void)mailview_list_dir(&fresh, s.dir_fd, "new");
        (void)mailview_list_dir(&cur, s.dir_fd, "cur");
        for (size_t i = 0; i < cur.n; i++)
            cur.at[i].in_new = false;
        result =
            mailimport_begin(im, root_fd, name, s.known.validity, s.known.next, fresh.n + cur.n, e);
        if (result == 0) {
            map_keywords(im, &s);
            if ((result = take_dir(im, &s, "new", &fresh, e)) == 0)
                result = take_dir(im, &s, "cur", &cur, e);
            struct err ignored = {0};
            if (mailimport_end(im, result < 0, result < 0 ? &ignored : e) < 0)
                result = -1;
        }
    }
    mailscan_free(&fresh);
    mailscan_free(&cur);
    mailforeign_free(&s.known);
    if (s.dir_fd >= 0)
        close(s.dir_fd);
    return result;
}

/* Dovecot's second format has its levels apart by tabs; Courier names all below "INBOX.". */
static int
subscribe_line(int root_fd, struct str line, struct err *e)
{
    char name[FOLDER_NAME_MAX + 1];
    if (str_starts(line, STR("INBOX.")))
        line = str_from(line, 6);
    if (line.n == 0 || line.n > FOLDER_NAME_MAX)
        return 0;
    for (size_t i = 0; i < line.n; i++)
        name[i] = line.p[i] == '\t' || line.p[i] == '/' ? '.' : line.p[i];
    struct str folder = str_of(name, line.n);
    return folder_check(folder) ? folder_subscribe(root_fd, folder, true, e) : 0;
}

static int
take_subscriptions(int from_fd, int root_fd, struct err *e)
{
    static const char *const files[] = {"subscriptions", "courierimapsubscribed"};
    int result = 0;
    for (size_t i = 0; result == 0 && i < sizeof files / sizeof files[0]; i++) {
        struct buf text = buf_new(SUBSCRIBED_MAX);
        bool there;
        result = durable_read(from_fd, files[i], &text, &there, e);
        struct str rest = buf_str(&text);
        if (str_starts(rest, STR("V\t2\n")))
            rest = str_from(rest, 4);
        while (result == 0 && rest.n)
            result = subscribe_line(root_fd, str_cut(&rest, '\n'), e);
        buf_free(&text);
    }
    return result;
}

int
mailimport_maildir(struct mailimport *im, int from_fd, int root_fd, struct err *e)
{
    struct arena arena = arena_new(32 << 20);
    struct folder_list list;
    int result = folder_list(from_fd, &arena, &list, e);
    for (size_t i = 0; result == 0 && i < list.n; i++)
        if (list.at[i].exists)
            result = take_folder(im, from_fd, root_fd, list.at[i].name, e);
    if (result == 0)
        result = take_subscriptions(from_fd, root_fd, e);
    quota_recount(root_fd);
    arena_free(&arena);
    return result;
}

uint64_t
mailimport_count(int from_fd)
{
    static const char *const subs[] = {"new", "cur"};
    struct arena arena = arena_new(32 << 20);
    struct folder_list list = {0};
    uint64_t n = 0;
    if (folder_list(from_fd, &arena, &list, NULL) < 0)
        list.n = 0;
    for (size_t i = 0; i < 2 * list.n; i++) {
        char path[FOLDER_NAME_MAX + 8];
        struct mailscan s = {0};
        if (!list.at[i / 2].exists || folder_path(list.at[i / 2].name, path) < 0)
            continue;
        int fd = openat(from_fd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd >= 0 && mailview_list_dir(&s, fd, subs[i % 2]) == 0)
            n += s.n;
        mailscan_free(&s);
        if (fd >= 0)
            close(fd);
    }
    arena_free(&arena);
    return n;
}
