#include "common/authd/authd.h"
#include "lib/base/sort.h"
#include "lib/ipc/cell.h"
#include "lib/log/log.h"
#include "lib/mail/address.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_MAX = 256 << 20, ARENA_MAX = 512 << 20, LINE_FIELDS = 5, READ_BLOCK = 16384 };

bool
accounts_name_ok(struct str name)
{
    size_t ats = 0;
    if (name.n == 0 || name.n > ACCOUNT_NAME_MAX || name.p[0] == '.' || name.p[0] == '-' ||
        name.p[0] == '@' || name.p[name.n - 1] == '@')
        return false;
    for (size_t i = 0; i < name.n; i++) {
        char c = name.p[i];
        bool dot_after_at = c == '.' && i > 0 && (name.p[i - 1] == '@' || name.p[i - 1] == '.');
        ats += c == '@';
        if (!(ch_alnum(c) || c == '.' || c == '_' || c == '-' || c == '@' || c == '=') ||
            ch_lower(c) != c || dot_after_at)
            return false;
    }
    ptrdiff_t at = str_chr(name, '@');
    return ats <= 1 && (at < 0 ? name.n : (size_t)at) <= ADDRESS_LOCAL_MAX;
}

static size_t
bucket_of(const struct accounts *a, struct str name)
{
    return (size_t)(siphash(&a->key, name) % a->nbuckets);
}

struct account *
accounts_find(const struct accounts *a, struct str name)
{
    if (a->nbuckets == 0)
        return NULL;
    for (struct account *x = a->buckets[bucket_of(a, name)]; x; x = x->next)
        if (str_eq(x->name, name))
            return x;
    return NULL;
}

struct account *
accounts_by_uid(const struct accounts *a, uint32_t uid)
{
    for (size_t i = 0; i < a->n; i++)
        if (a->list[i]->uid == uid)
            return a->list[i];
    return NULL;
}

static int
compare(struct str a, struct str b)
{
    int c = memcmp(a.p, b.p, a.n < b.n ? a.n : b.n);
    return c ? c : a.n < b.n ? -1 : a.n > b.n;
}

size_t
accounts_after(const struct accounts *a, struct str name)
{
    size_t low = 0, high = a->n;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (compare(a->list[middle]->name, name) <= 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static int
rehash(struct accounts *a)
{
    size_t n = a->cap * 2 + 1;
    struct account **buckets = calloc(n, sizeof(struct account *));
    if (!buckets)
        return -1;
    free(a->buckets);
    a->buckets = buckets;
    a->nbuckets = n;
    for (size_t i = 0; i < a->n; i++) {
        struct account **bucket = &buckets[bucket_of(a, a->list[i]->name)];
        a->list[i]->next = *bucket;
        *bucket = a->list[i];
    }
    return 0;
}

/* Into the list (sorted) and its bucket. */
static int
insert(struct accounts *a, struct account *account)
{
    if (a->n == ACCOUNTS_MAX)
        return -1;
    if (a->n == a->cap) {
        size_t cap = a->cap ? 2 * a->cap : 64;
        struct account **list = reallocarray(a->list, cap, sizeof(struct account *));
        if (!list)
            return -1;
        a->list = list;
        a->cap = cap;
        if (rehash(a) < 0)
            return -1;
    }
    size_t at = accounts_after(a, account->name);
    memmove(a->list + at + 1, a->list + at, (a->n - at) * sizeof(struct account *));
    a->list[at] = account;
    a->n++;
    struct account **bucket = &a->buckets[bucket_of(a, account->name)];
    account->next = *bucket;
    *bucket = account;
    return 0;
}

static void
take_out(struct accounts *a, struct account *account)
{
    struct account **link = &a->buckets[bucket_of(a, account->name)];
    while (*link && *link != account)
        link = &(*link)->next;
    if (*link)
        *link = account->next;
    size_t at = accounts_after(a, account->name) - 1;
    memmove(a->list + at, a->list + at + 1, (a->n - at - 1) * sizeof(struct account *));
    a->n--;
}

static struct account *
copy(struct accounts *a, const struct account *from)
{
    struct account *x = arena_alloc(&a->arena, sizeof *x);
    if (!x)
        return NULL;
    x->name = arena_str(&a->arena, from->name);
    x->hash = arena_str(&a->arena, from->hash);
    x->directory = arena_str(&a->arena, from->directory);
    x->uid = from->uid;
    x->gid = from->gid;
    return x->name.p && x->hash.p && x->directory.p ? x : NULL;
}

static bool
clean_field(struct str s, size_t max)
{
    for (size_t i = 0; i < s.n; i++)
        if (!ch_print(s.p[i]) || s.p[i] == ':')
            return false;
    return s.n <= max;
}

/* What is wrong with a record, or NULL. */
static const char *
fault_of(const struct accounts *a, const struct account *x)
{
    if (!accounts_name_ok(x->name))
        return "malformed name";
    if (accounts_find(a, x->name))
        return "a name for the second time";
    if (x->uid < CELL_UID_MIN || x->gid < CELL_UID_MIN)
        return "a user ID or group ID below 500";
    if (!clean_field(x->directory, ACCOUNT_DIR_MAX) || x->directory.n < 2 ||
        x->directory.p[0] != '/' || str_find(x->directory, STR("/.")) >= 0 ||
        str_find(x->directory, STR("//")) >= 0 || str_ends(x->directory, STR("/")))
        return "the directory is not a plain absolute path";
    if (!clean_field(x->hash, HASH_MAX - 1) || x->hash.n == 0)
        return "malformed password hash";
    return NULL;
}

static void
load_line(struct accounts *a, size_t number, struct str line)
{
    struct account x = {0};
    const char *fault = NULL;
    size_t colons = 0;
    for (size_t i = 0; i < line.n; i++)
        colons += line.p[i] == ':';
    x.name = str_cut(&line, ':');
    if (colons != LINE_FIELDS - 1)
        fault = "not five fields: name:uid:gid:directory:hash";
    else if (str_u32(str_cut(&line, ':'), INT32_MAX, &x.uid) < 0 ||
             str_u32(str_cut(&line, ':'), INT32_MAX, &x.gid) < 0)
        fault = "a user ID or group ID is not a number";
    if (!fault) {
        x.directory = str_cut(&line, ':');
        x.hash = line;
        fault = fault_of(a, &x);
    }
    struct account *kept = fault ? NULL : copy(a, &x);
    if (!fault && (!kept || insert(a, kept) < 0))
        fault = "too many accounts";
    if (fault) {
        log_error("accounts:%zu: %s", number, fault);
        a->bad_lines++;
    }
}

static void
load_given(struct accounts *a, size_t number, struct str uid)
{
    if (str_u32(uid, INT32_MAX, &a->given) == 0)
        return;
    log_error("accounts:%zu: \"given\" wants a user ID", number);
    a->bad_lines++;
}

static void
load_text(struct accounts *a, struct str text)
{
    size_t number = 1;
    struct str first = str_cut(&text, '\n');
    if (!str_eq(first, STR("version 1"))) {
        log_error("accounts:1: the first line must be: version 1");
        a->bad_lines++;
    }
    while (text.n) {
        bool whole = str_chr(text, '\n') >= 0;
        struct str line = str_cut(&text, '\n');
        number++;
        if (!whole) {
            log_error("accounts:%zu: the last line does not end", number);
            a->bad_lines++;
        }
        if (str_starts(line, STR("given ")))
            load_given(a, number, str_from(line, 6));
        else if (line.n && line.p[0] != '#')
            load_line(a, number, line);
    }
}

static void
remember(struct accounts *a, const struct stat *st)
{
    a->seen.inode = st->st_ino;
    a->seen.size = st->st_size;
    a->seen.mtime_s = st->st_mtim.tv_sec;
    a->seen.mtime_ns = st->st_mtim.tv_nsec;
}

static bool
edited(const struct accounts *a)
{
    struct accounts now = {0};
    struct stat st;
    if (fstatat(a->dirfd, "accounts", &st, AT_SYMLINK_NOFOLLOW) == 0)
        remember(&now, &st);
    return now.seen.inode != a->seen.inode || now.seen.size != a->seen.size ||
           now.seen.mtime_s != a->seen.mtime_s || now.seen.mtime_ns != a->seen.mtime_ns;
}

static int
read_file(struct accounts *a, struct buf *text, struct err *e)
{
    struct stat st;
    int fd = openat(a->dirfd, "accounts", O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0 && errno == ENOENT) {
        buf_addz(text, "version 1\n");
        return 0;
    }
    if (fd < 0)
        return err_errno(e, "cannot open accounts");
    ssize_t n = 1;
    if (fstat(fd, &st) == 0) /* before it is read: what comes later is an edit */
        remember(a, &st);
    while (n > 0) {
        char *to = buf_reserve(text, READ_BLOCK);
        n = to ? read(fd, to, READ_BLOCK) : -1;
        if (n > 0)
            buf_commit(text, (size_t)n);
    }
    if (n < 0)
        err_errno(e, "cannot read accounts");
    close(fd);
    return n < 0 ? -1 : 0;
}

int
accounts_load(struct accounts *a, int dirfd, struct err *e)
{
    struct buf text = buf_new(FILE_MAX);
    *a = (struct accounts){.dirfd = dirfd, .arena = arena_new(ARENA_MAX), .cap = 0};
    if (getrandom(&a->key, sizeof a->key, 0) != sizeof a->key)
        return err_errno(e, "getrandom");
    int ok = read_file(a, &text, e);
    if (ok == 0)
        load_text(a, buf_str(&text));
    buf_wipe(&text);
    return ok;
}

/* The whole file anew beside the old one, durable before it takes its place. */
static int
save(struct accounts *a, struct err *e)
{
    struct buf text = buf_new(FILE_MAX);
    if (a->bad_lines)
        return err_set(e, ERR_PERMANENT,
                       "the accounts file has %zu bad lines (see the log): mend it first",
                       a->bad_lines);
    if (edited(a))
        return err_set(e, ERR_TEMPORARY,
                       "the accounts file was edited: take it in with bulkhead reload first");
    buf_addz(&text, "version 1\n");
    if (a->given)
        buf_addf(&text, "given %u\n", a->given);
    for (size_t i = 0; i < a->n; i++) {
        const struct account *x = a->list[i];
        buf_add(&text, x->name);
        buf_addf(&text, ":%u:%u:", x->uid, x->gid);
        buf_add(&text, x->directory);
        buf_addc(&text, ':');
        buf_add(&text, x->hash);
        buf_addc(&text, '\n');
    }
    int fd = openat(a->dirfd, "accounts.new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW,
                    0600);
    size_t done = 0;
    while (fd >= 0 && buf_ok(&text) && done < text.n) {
        ssize_t n = write(fd, text.p + done, text.n - done);
        if (n <= 0)
            break;
        done += (size_t)n;
    }
    bool good = fd >= 0 && buf_ok(&text) && done == text.n && fsync(fd) == 0 &&
                renameat(a->dirfd, "accounts.new", a->dirfd, "accounts") == 0 &&
                fsync(a->dirfd) == 0;
    struct stat st;
    if (!good)
        err_errno(e, "cannot write accounts");
    else if (fstat(fd, &st) == 0)
        remember(a, &st);
    if (fd >= 0)
        close(fd);
    buf_wipe(&text);
    return good ? 0 : -1;
}

void
accounts_free(struct accounts *a)
{
    arena_free(&a->arena);
    free(a->list);
    free(a->buckets);
    *a = (struct accounts){.dirfd = -1};
}

/* Whose mail it is could not be told by the file's owner any more. */
static bool
is_anothers(const struct accounts *a, const struct account *account)
{
    for (size_t i = 0; i < a->n; i++)
        if (a->list[i]->uid != account->uid && str_eq(a->list[i]->directory, account->directory))
            return true;
    return false;
}

int
accounts_add(struct accounts *a, const struct account *account, struct err *e)
{
    const char *fault = fault_of(a, account);
    if (!fault && is_anothers(a, account))
        fault = "the directory is that of an account with another user ID";
    if (fault)
        return err_set(e, ERR_PERMANENT, "%s", fault);
    struct account *x = copy(a, account);
    if (!x || insert(a, x) < 0)
        return err_set(e, ERR_TEMPORARY, "no room for another account");
    if (save(a, e) == 0)
        return 0;
    take_out(a, x);
    return -1;
}

int
accounts_remove(struct accounts *a, struct str name, struct err *e)
{
    struct account *x = accounts_find(a, name);
    if (!x)
        return err_set(e, ERR_PERMANENT, "no such account");
    take_out(a, x);
    if (save(a, e) == 0)
        return 0;
    (void)insert(a, x);
    return -1;
}

int
accounts_set_hash(struct accounts *a, struct str name, struct str hash, struct err *e)
{
    struct account *x = accounts_find(a, name);
    if (!x)
        return err_set(e, ERR_PERMANENT, "no such account");
    struct str old = x->hash;
    x->hash = arena_str(&a->arena, hash);
    if (x->hash.p && save(a, e) == 0)
        return 0;
    x->hash = old;
    return -1;
}

static int
by_number(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* The lowest that no account has. */
static uint32_t
unused_uid(const struct accounts *a, uint32_t first, uint32_t last)
{
    uint32_t *used = calloc(a->n + 1, sizeof *used);
    uint32_t want = first;
    if (!used)
        return 0;
    for (size_t i = 0; i < a->n; i++)
        used[i] = a->list[i]->uid;
    sort_array(used, a->n, sizeof *used, by_number);
    for (size_t i = 0; i < a->n; i++)
        if (used[i] == want)
            want++;
    free(used);
    return want <= last ? want : 0;
}

uint32_t
accounts_give_uid(struct accounts *a, uint32_t first, uint32_t last)
{
    uint32_t from = a->given >= first && a->given < last ? a->given + 1 : first;
    uint32_t uid = unused_uid(a, from, last);
    if (!uid)
        uid = unused_uid(a, first, last);
    if (uid && uid <= a->given && a->given <= last)
        log_warn("user ID %u may have been a removed account's: the range was given once", uid);
    accounts_retire_uid(a, uid, first, last);
    return uid;
}

void
accounts_retire_uid(struct accounts *a, uint32_t uid, uint32_t first, uint32_t last)
{
    if (uid >= first && uid <= last && (uid > a->given || a->given > last))
        a->given = uid;
}
