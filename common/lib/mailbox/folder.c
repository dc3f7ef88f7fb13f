#include "lib/mailbox/folder.h"
#include "lib/mailbox/durable.h"
#include "lib/mailbox/mailview.h"
#include "lib/base/sort.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char subscriptions_name[] = "subscriptions";
static const char deleted_prefix[] = "bulkhead-deleted-";
enum { SUBSCRIPTIONS_MAX = 1 << 20 };

/* ---- names ---- */

static bool
utf7_base64(char c)
{
    return ch_alnum(c) || c == '+' || c == ',';
}

/* RFC 3501 5.1.3: "&" then modified base64 and "-"; "&-" stands for "&" itself. */
static bool
utf7_ok(struct str name)
{
    for (size_t i = 0; i < name.n; i++) {
        if (name.p[i] != '&')
            continue;
        do
            i++;
        while (i < name.n && utf7_base64(name.p[i]));
        if (i >= name.n || name.p[i] != '-')
            return false;
    }
    return true;
}

bool
folder_check(struct str name)
{
    size_t levels = 1;
    if (name.n == 0 || name.n > FOLDER_NAME_MAX || name.p[0] == '.' || name.p[name.n - 1] == '.' ||
        str_find(name, STR("..")) >= 0)
        return false;
    for (size_t i = 0; i < name.n; i++) {
        if (!ch_print(name.p[i]) || strchr("/*%\"\\", name.p[i]))
            return false;
        levels += name.p[i] == '.';
    }
    return levels <= FOLDER_DEPTH_MAX && utf7_ok(name);
}

bool
folder_is_inbox(struct str name)
{
    return str_caseeq(name, STR("INBOX"));
}

int
folder_path(struct str name, char path_r[FOLDER_NAME_MAX + 8])
{
    if (!folder_check(name))
        return -1;
    if (folder_is_inbox(name)) {
        memcpy(path_r, ".", 2);
        return 0;
    }
    path_r[0] = '.';
    memcpy(path_r + 1, name.p, name.n);
    path_r[name.n + 1] = '\0';
    if (str_casestarts(name, STR("INBOX.")))
        memcpy(path_r + 1, "INBOX", 5);
    return 0;
}

/* One pass over name with the set of all places in the pattern that can be reached. */
bool
folder_match(struct str pattern, struct str name)
{
    enum { PATTERN_MAX = FOLDER_NAME_MAX + 64 };
    bool at[PATTERN_MAX + 1] = {false};
    if (pattern.n > PATTERN_MAX)
        return false;
    bool inbox = folder_is_inbox(name) || str_casestarts(name, STR("INBOX."));
    at[0] = true;
    for (size_t i = 0;; i++) {
        /* A wildcard may match nothing. */
        for (size_t k = 0; k < pattern.n; k++)
            if (at[k] && (pattern.p[k] == '*' || pattern.p[k] == '%'))
                at[k + 1] = true;
        if (i == name.n)
            return at[pattern.n];
        char c = name.p[i];
        for (size_t k = pattern.n + 1; k-- > 0;) {
            char want = k ? pattern.p[k - 1] : '\0';
            bool stay = k < pattern.n && at[k] &&
                        (pattern.p[k] == '*' || (pattern.p[k] == '%' && c != '.'));
            bool step = k > 0 && at[k - 1] && want != '*' && want != '%' &&
                        (want == c || (inbox && i < 5 && ch_lower(want) == ch_lower(c)));
            at[k] = stay || step;
        }
    }
}

/* ---- listing ---- */

static int
by_name(const void *a, const void *b)
{
    const struct folder_entry *x = a, *y = b;
    bool xi = folder_is_inbox(x->name), yi = folder_is_inbox(y->name);
    if (xi != yi)
        return xi ? -1 : 1;
    size_t n = x->name.n < y->name.n ? x->name.n : y->name.n;
    int order = memcmp(x->name.p, y->name.p, n);
    return order ? order : x->name.n < y->name.n ? -1 : x->name.n > y->name.n;
}

struct gather {
    struct arena *arena;
    struct folder_entry *at;
    size_t n, cap;
};

static int
gather_add(struct gather *g, struct str name, bool exists, bool subscribed)
{
    if (g->n >= (size_t)FOLDERS_MAX * 4)
        return 0;
    if (g->n == g->cap) {
        size_t cap = g->cap ? g->cap * 2 : 64;
        struct folder_entry *at = reallocarray(g->at, cap, sizeof *at);
        if (!at)
            return -1;
        g->at = at;
        g->cap = cap;
    }
    struct str copy = arena_str(g->arena, name);
    if (!copy.p)
        return -1;
    g->at[g->n++] = (struct folder_entry){copy, exists, false, subscribed, false};
    return 0;
}

struct str
folder_above(struct str name)
{
    ptrdiff_t dot = str_rchr(name, '.');
    return str_sub(name, 0, dot < 0 ? 0 : (size_t)dot);
}

struct folder_entry *
folder_list_find(const struct folder_list *list, struct str name)
{
    struct folder_entry key = {.name = name};
    return list->n ? bsearch(&key, list->at, list->n, sizeof key, by_name) : NULL;
}

void
folder_list_merge(struct folder_list *list)
{
    struct folder_entry *at = list->at;
    size_t n = 0;
    if (list->n)
        sort_array(at, list->n, sizeof *at, by_name);
    for (size_t i = 0; i < list->n; i++) {
        if (n && str_eq(at[n - 1].name, at[i].name)) {
            at[n - 1].exists |= at[i].exists;
            at[n - 1].children |= at[i].children;
            at[n - 1].subscribed |= at[i].subscribed;
            at[n - 1].listed |= at[i].listed;
        } else {
            at[n++] = at[i];
        }
    }
    list->n = n;
}

/* Sorted, each name once, into the arena. */
static int
gather_end(struct gather *g, struct folder_list *list_r, struct err *e)
{
    struct folder_list list = {g->at, g->n};
    folder_list_merge(&list);
    size_t n = list.n;
    struct folder_entry *at = arena_array(g->arena, n, sizeof *at);
    if (!at)
        return err_set(e, ERR_TEMPORARY, "out of memory");
    if (n)
        memcpy(at, g->at, n * sizeof *at);
    *list_r = (struct folder_list){at, n};
    for (size_t i = 0; i < n; i++) {
        struct folder_entry *parent = folder_list_find(list_r, folder_above(at[i].name));
        if (parent)
            parent->children = true;
    }
    return 0;
}

static bool
has_folder_name(const struct dirent *d)
{
    struct str name = str_z(d->d_name + 1);
    return d->d_name[0] == '.' && (d->d_type == DT_DIR || d->d_type == DT_UNKNOWN) &&
           folder_check(name) && !folder_is_inbox(name);
}

static bool
has_cur(int root_fd, const char *path)
{
    char cur[300];
    struct stat st;
    snprintf(cur, sizeof cur, "%s/cur", path);
    return fstatat(root_fd, cur, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode);
}

static bool
is_folder(int root_fd, const struct dirent *d)
{
    struct stat st;
    if (!has_folder_name(d))
        return false;
    if (fstatat(root_fd, d->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISDIR(st.st_mode))
        return false;
    return has_cur(root_fd, d->d_name);
}

static DIR *
open_root(int root_fd, struct err *e)
{
    int fd = openat(root_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir) {
        err_errno(e, "list the folders");
        if (fd >= 0)
            close(fd);
    }
    return dir;
}

static int
add_with_parents(struct gather *g, struct str name)
{
    if (gather_add(g, name, true, false) < 0)
        return -1;
    for (size_t i = 1; i < name.n; i++)
        if (name.p[i] == '.' && gather_add(g, str_sub(name, 0, i), false, false) < 0)
            return -1;
    return 0;
}

int
folder_list(int root_fd, struct arena *arena, struct folder_list *list_r, struct err *e)
{
    struct gather g = {.arena = arena};
    DIR *dir = open_root(root_fd, e);
    struct dirent *d;
    if (!dir)
        return -1;
    int result = gather_add(&g, STR("INBOX"), true, false);
    size_t folders = 0;
    while (result == 0 && folders < FOLDERS_MAX && (d = readdir(dir)))
        if (is_folder(root_fd, d)) {
            folders++;
            result = add_with_parents(&g, str_z(d->d_name + 1));
        }
    closedir(dir);
    if (result < 0)
        err_set(e, ERR_TEMPORARY, "out of memory");
    else
        result = gather_end(&g, list_r, e);
    free(g.at);
    return result;
}

/* ---- subscriptions ---- */

static int
read_subscriptions(int root_fd, struct gather *g, struct err *e)
{
    struct buf text = buf_new(SUBSCRIPTIONS_MAX);
    bool there;
    int result = durable_read(root_fd, subscriptions_name, &text, &there, e);
    struct str rest = buf_str(&text);
    while (result == 0 && rest.n) {
        struct str line = str_cut(&rest, '\n');
        /* Dovecot's newer form: a line "V\t2" on top, and tabs between levels. */
        for (size_t i = 0; i < line.n; i++)
            if (line.p[i] == '\t')
                text.p[line.p - text.p + (ptrdiff_t)i] = '.';
        if (!str_eq(line, STR("V.2")) && folder_check(line) && g->n < FOLDERS_MAX &&
            gather_add(g, folder_is_inbox(line) ? STR("INBOX") : line, false, true) < 0)
            result = err_set(e, ERR_TEMPORARY, "out of memory");
    }
    buf_free(&text);
    return result;
}

int
folder_subscriptions(int root_fd, struct arena *arena, struct folder_list *list_r, struct err *e)
{
    struct gather g = {.arena = arena};
    int result = read_subscriptions(root_fd, &g, e);
    if (result == 0)
        result = gather_end(&g, list_r, e);
    free(g.at);
    return result;
}

int
folder_subscribe(int root_fd, struct str name, bool on, struct err *e)
{
    if (!folder_check(name))
        return err_set(e, ERR_PERMANENT, "not a folder's name");
    if (folder_is_inbox(name))
        name = STR("INBOX");
    int lock_fd = mailview_open_lock(root_fd, e);
    if (lock_fd < 0)
        return -1;
    struct arena arena = arena_new(8 << 20);
    struct buf text = buf_new(SUBSCRIPTIONS_MAX);
    struct folder_list list;
    int result = uidfile_lock(lock_fd, e);
    if (result == 0)
        result = folder_subscriptions(root_fd, &arena, &list, e);
    if (result == 0) {
        bool there = false;
        for (size_t i = 0; i < list.n; i++) {
            bool same = str_eq(list.at[i].name, name);
            there |= same;
            if (!same || on) {
                buf_add(&text, list.at[i].name);
                buf_addc(&text, '\n');
            }
        }
        if (on && !there) {
            buf_add(&text, name);
            buf_addc(&text, '\n');
        }
        if (!buf_ok(&text) || (on && !there && list.n >= FOLDERS_MAX))
            result = err_set(e, ERR_LIMIT, "too many subscriptions");
        else if (there != on)
            result = durable_replace(root_fd, subscriptions_name, buf_str(&text), e);
    }
    close(lock_fd);
    buf_free(&text);
    arena_free(&arena);
    return result;
}

/* ---- making and removing ---- */

/* A message in a directory that is not known above is no message, and who finds a directory puts
 * messages into it. So it is made under another name, which is synced, and then renamed: if a power
 * cut undoes that it is found under its first name, with all that is in it. */
int
folder_make_subdirs(int dir_fd, int above_fd, struct err *e)
{
    static const char *const subs[] = {"tmp", "new", "cur"};
    static const char *const firsts[] = {"bulkhead-tmp", "bulkhead-new", "bulkhead-cur"};
    enum { SUBS = sizeof subs / sizeof subs[0] };
    struct stat st;
    bool missing[SUBS], any = false;
    for (size_t i = 0; i < SUBS; i++) {
        missing[i] = fstatat(dir_fd, subs[i], &st, AT_SYMLINK_NOFOLLOW) < 0;
        if (missing[i] && mkdirat(dir_fd, firsts[i], 0700) < 0 && errno != EEXIST)
            return err_errno(e, "make %s", subs[i]);
        any |= missing[i];
    }
    if (any && (fsync(dir_fd) < 0 || (above_fd >= 0 && fsync(above_fd) < 0)))
        return err_errno(e, "sync the Maildir");
    for (size_t i = 0; i < SUBS; i++) {
        if (!missing[i] || renameat2(dir_fd, firsts[i], dir_fd, subs[i], RENAME_NOREPLACE) == 0 ||
            ((errno == EINVAL || errno == ENOSYS) &&
             renameat(dir_fd, firsts[i], dir_fd, subs[i]) == 0)) /* NFS */
            continue;
        if (errno != EEXIST && errno != ENOTEMPTY && errno != ENOENT)
            return err_errno(e, "make %s", subs[i]);
        (void)unlinkat(dir_fd, firsts[i], AT_REMOVEDIR); /* another was faster */
    }
    return any && fsync(dir_fd) < 0 ? err_errno(e, "sync the Maildir") : 0;
}

bool
folder_exists(int root_fd, struct str name)
{
    char path[FOLDER_NAME_MAX + 8];
    struct stat st;
    return folder_path(name, path) == 0 && fstatat(root_fd, path, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
           S_ISDIR(st.st_mode);
}

bool
folder_is_at(int at_fd, const char *path, int fd)
{
    struct stat named, open;
    return fstatat(at_fd, path, &named, AT_SYMLINK_NOFOLLOW) == 0 && fstat(fd, &open) == 0 &&
           named.st_dev == open.st_dev && named.st_ino == open.st_ino;
}

/* One more would be one that folder_list() may leave out. */
static bool
is_full(int root_fd)
{
    size_t n = 0;
    struct dirent *d;
    DIR *dir = open_root(root_fd, NULL);
    while (dir && n < FOLDERS_MAX && (d = readdir(dir)))
        n += has_folder_name(d);
    if (dir)
        closedir(dir);
    return n >= FOLDERS_MAX;
}

int
folder_create(int root_fd, struct str name, struct err *e)
{
    char path[FOLDER_NAME_MAX + 8];
    if (folder_path(name, path) < 0)
        return err_set(e, ERR_PERMANENT, "not a folder's name");
    if (!folder_is_inbox(name) && !folder_exists(root_fd, name) && is_full(root_fd))
        return err_set(e, ERR_LIMIT, "too many folders");
    /* One without cur/ is no folder yet: whoever was making it was killed. */
    if (folder_is_inbox(name) ||
        (mkdirat(root_fd, path, 0700) < 0 && errno == EEXIST && has_cur(root_fd, path)))
        return err_set(e, ERR_PERMANENT, "the folder exists");
    int fd = openat(root_fd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return err_errno(e, "create the folder");
    /* Maildir++ marks what is a folder and not a Maildir of its own. */
    int mark = openat(fd, "maildirfolder", O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (mark >= 0)
        close(mark);
    int result = folder_make_subdirs(fd, root_fd, e);
    close(fd);
    return result;
}

/* Remove the files of a directory, and (levels 1) those of its directories, then these. */
static void
empty_dir(int parent_fd, const char *name, int levels)
{
    int fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *d;
    if (!dir) {
        if (fd >= 0)
            close(fd);
        return;
    }
    while ((d = readdir(dir))) {
        if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0 ||
            unlinkat(fd, d->d_name, 0) == 0)
            continue;
        if (levels > 0) {
            empty_dir(fd, d->d_name, levels - 1);
            unlinkat(fd, d->d_name, AT_REMOVEDIR);
        }
    }
    closedir(dir);
}

/* What deletions moved aside, this one's and those that a crash cut short. */
static void
sweep_deleted(int root_fd)
{
    DIR *dir = open_root(root_fd, NULL);
    struct dirent *d;
    if (!dir)
        return;
    while ((d = readdir(dir)))
        if (str_starts(str_z(d->d_name), str_z(deleted_prefix))) {
            empty_dir(root_fd, d->d_name, 1);
            unlinkat(root_fd, d->d_name, AT_REMOVEDIR);
        }
    closedir(dir);
}

int
folder_delete(int root_fd, struct str name, struct err *e)
{
    char path[FOLDER_NAME_MAX + 8], aside[64], hex[17];
    if (folder_path(name, path) < 0 || folder_is_inbox(name) || !folder_exists(root_fd, name))
        return err_set(e, ERR_PERMANENT, "no such folder, or not to be deleted");
    durable_random_hex(hex, 8);
    snprintf(aside, sizeof aside, "%s%s", deleted_prefix, hex);
    if (renameat(root_fd, path, root_fd, aside) < 0)
        return err_errno(e, "delete the folder");
    sweep_deleted(root_fd);
    return fsync(root_fd) < 0 ? err_errno(e, "sync the folder") : 0;
}

/* Rename those folders of the list that are from or below it. */
static int
rename_all(int root_fd, const struct folder_list *list, struct str from, struct str to,
           struct err *e)
{
    char old[FOLDER_NAME_MAX + 8], new[FOLDER_NAME_MAX + 8];
    struct buf name = buf_new(FOLDER_NAME_MAX * 3);
    size_t done = 0;
    int result = 0;
    /* First whether all can be, then the renames. */
    for (int doing = 0; doing < 2 && result == 0; doing++)
        for (size_t i = 0; i < list->n && result == 0; i++) {
            struct str f = list->at[i].name;
            if (!list->at[i].exists || !str_starts(f, from) || (f.n > from.n && f.p[from.n] != '.'))
                continue;
            buf_reset(&name);
            buf_add(&name, to);
            buf_add(&name, str_from(f, from.n));
            if (folder_path(f, old) < 0 || folder_path(buf_str(&name), new) < 0)
                result = err_set(e, ERR_PERMANENT, "not a folder's name");
            else if (folder_exists(root_fd, buf_str(&name)))
                result = err_set(e, ERR_PERMANENT, "the folder exists");
            else if (doing && renameat(root_fd, old, root_fd, new) < 0)
                result = err_errno(e, "rename the folder");
            done += 1;
        }
    if (result == 0 && done == 0)
        result = err_set(e, ERR_PERMANENT, "no such folder");
    if (result == 0 && fsync(root_fd) < 0)
        result = err_errno(e, "sync the folder");
    buf_free(&name);
    return result;
}

int
folder_rename(int root_fd, struct str from, struct str to, struct err *e)
{
    if (!folder_check(from) || !folder_check(to) || folder_is_inbox(from))
        return err_set(e, ERR_PERMANENT, "not a folder's name");
    if (folder_is_inbox(to) || folder_exists(root_fd, to))
        return err_set(e, ERR_PERMANENT, "the folder exists");
    if (to.n > from.n && str_starts(to, from) && to.p[from.n] == '.')
        return err_set(e, ERR_PERMANENT, "a folder cannot go below itself");
    struct arena arena = arena_new(32 << 20);
    struct folder_list list;
    int result = folder_list(root_fd, &arena, &list, e);
    if (result == 0)
        result = rename_all(root_fd, &list, from, to, e);
    arena_free(&arena);
    return result;
}

/* ---- special use ---- */

static const char use_name[] = "bulkhead-use";
static const struct {
    const char *use, *folder;
} uses[] = {{"\\Archive", "Archive"}, {"\\Drafts", "Drafts"}, {"\\Junk", "Junk"},
            {"\\Sent", "Sent"},       {"\\Trash", "Trash"},   {"\\Junk", "Spam"}};
enum { USES = sizeof uses / sizeof uses[0], USE_MAX = 64 };

const char *
folder_use_known(struct str attribute)
{
    for (size_t i = 0; i < USES; i++)
        if (str_caseeq(attribute, str_z(uses[i].use)))
            return uses[i].use;
    return NULL;
}

const char *
folder_use(int root_fd, struct str name)
{
    char path[FOLDER_NAME_MAX + 8];
    struct buf text = buf_new(USE_MAX);
    const char *use = NULL;
    bool there = false;
    if (folder_is_inbox(name) || folder_path(name, path) < 0)
        return NULL;
    int fd = openat(root_fd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0 && durable_read(fd, use_name, &text, &there, NULL) == 0 && there)
        use = folder_use_known(str_trim(buf_str(&text)));
    for (size_t i = 0; i < USES && fd >= 0 && !there && !use; i++)
        if (str_eq(name, str_z(uses[i].folder)))
            use = uses[i].use;
    if (fd >= 0)
        close(fd);
    buf_free(&text);
    return use;
}

int
folder_set_use(int root_fd, struct str name, const char *use, struct err *e)
{
    char path[FOLDER_NAME_MAX + 8];
    if (folder_path(name, path) < 0)
        return err_set(e, ERR_PERMANENT, "not a folder's name");
    int fd = openat(root_fd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return err_errno(e, "open the folder");
    int result = durable_replace(fd, use_name, str_z(use), e);
    close(fd);
    return result;
}
