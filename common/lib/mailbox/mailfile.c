#include "lib/mailbox/mailfile.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PIECE = 32768 };

size_t
mailfile_bare_lf(struct str s, bool *cr)
{
    size_t n = 0;
    const char *at = s.p, *end = s.p + s.n;
    while (at < end) {
        const char *lf = memchr(at, '\n', (size_t)(end - at));
        if (!lf)
            break;
        n += lf > s.p ? lf[-1] != '\r' : !*cr;
        at = lf + 1;
    }
    if (s.n)
        *cr = s.p[s.n - 1] == '\r';
    return n;
}

static ssize_t
read_at(int fd, char *to, size_t n, uint64_t at)
{
    ssize_t got;
    do
        got = pread(fd, to, n, (off_t)at);
    while (got < 0 && errno == EINTR);
    return got;
}

int
mailfile_measure(int fd, uint64_t *size_r, uint64_t *vsize_r, struct err *e)
{
    char piece[PIECE];
    bool cr = false;
    *size_r = *vsize_r = 0;
    for (;;) {
        ssize_t n = read_at(fd, piece, sizeof piece, *size_r);
        if (n < 0)
            return err_errno(e, "read a message");
        if (n == 0)
            return 0;
        *size_r += (uint64_t)n;
        *vsize_r += (uint64_t)n + mailfile_bare_lf(str_of(piece, (size_t)n), &cr);
    }
}

/* Up to want bytes of the file. */
static int
slurp(int fd, char *to, size_t want, size_t *got_r)
{
    *got_r = 0;
    while (*got_r < want) {
        ssize_t n = read_at(fd, to + *got_r, want - *got_r, *got_r);
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        *got_r += (size_t)n;
    }
    return 0;
}

static bool
header_ends(struct str s)
{
    return str_find(s, STR("\n\r\n")) >= 0 || str_find(s, STR("\n\n")) >= 0 ||
           str_starts(s, STR("\r\n")) || str_starts(s, STR("\n"));
}

/* In place, from the end: the room behind is what the CRs need. */
static void
spread(char *p, size_t n, size_t extra)
{
    size_t to = n + extra;
    for (size_t i = n; i-- > 0 && to > i + 1;) {
        p[--to] = p[i];
        if (p[i] == '\n' && (i == 0 || p[i - 1] != '\r'))
            p[--to] = '\r';
    }
}

static void
no_nul(char *p, size_t n)
{
    char *nul;
    while (n && (nul = memchr(p, '\0', n))) {
        *nul = (char)0x80;
        n -= (size_t)(nul + 1 - p);
        p = nul + 1;
    }
}

/* p holds n bytes as read; make it what clients may see. */
static int
convert(struct mailfile *f, char *p, size_t n, struct err *e)
{
    bool cr = false;
    size_t extra = mailfile_bare_lf(str_of(p, n), &cr);
    if (extra) {
        char *more = realloc(p, n + extra);
        if (!more) {
            free(p);
            return err_set(e, ERR_TEMPORARY, "out of memory");
        }
        p = more;
        spread(p, n, extra);
    }
    no_nul(p, n + extra);
    f->p = p;
    f->text = str_of(p, n + extra);
    return 0;
}

int
mailfile_load(struct mailfile *f, int fd, bool head_only, struct err *e)
{
    struct stat st;
    *f = (struct mailfile){0};
    if (fstat(fd, &st) < 0)
        return err_errno(e, "stat a message");
    if (st.st_size < 0 || (uint64_t)st.st_size > MAILFILE_MAX)
        return err_set(e, ERR_LIMIT, "a message of %lld bytes", (long long)st.st_size);
    size_t size = (size_t)st.st_size;
    size_t want = head_only && size > MAILFILE_HEAD ? MAILFILE_HEAD : size;
    for (;;) {
        size_t got;
        char *p = malloc(want + 1);
        if (!p)
            return err_set(e, ERR_TEMPORARY, "out of memory");
        if (slurp(fd, p, want, &got) < 0) {
            free(p);
            return err_errno(e, "read a message");
        }
        f->whole = want == size;
        if (f->whole || header_ends(str_of(p, got)))
            return convert(f, p, got, e);
        free(p);
        want = size;
    }
}

void
mailfile_free(struct mailfile *f)
{
    free(f->p);
    *f = (struct mailfile){0};
}
