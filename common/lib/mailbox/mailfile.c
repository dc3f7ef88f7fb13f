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

/* Where the body begins, or 0: not in s. */
static size_t
find_body(struct str s)
{
    for (size_t at = 0; at < s.n;) {
        struct str line = str_from(s, at);
        if (str_starts(line, STR("\n")) || str_starts(line, STR("\r\n")))
            return at + (line.p[0] == '\r') + 1;
        ptrdiff_t lf = str_chr(line, '\n');
        if (lf < 0)
            return 0;
        at += (size_t)lf + 1;
    }
    return 0;
}

/* In place, from the end: the room behind is what the CRs need. cr: what stood before p. */
static void
spread(char *p, size_t n, size_t extra, bool cr)
{
    size_t to = n + extra;
    for (size_t i = n; i-- > 0 && to > i + 1;) {
        p[--to] = p[i];
        if (p[i] == '\n' && (i ? p[i - 1] != '\r' : !cr))
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
        spread(p, n, extra, false);
    }
    no_nul(p, n + extra);
    f->p = p;
    f->text = str_of(p, n + extra);
    f->body_at = find_body(f->text);
    if (!f->body_at)
        f->body_at = f->text.n;
    return 0;
}

/* The first want bytes; 1 when the header does not end in them and there is more. */
static int
load_part(struct mailfile *f, int fd, size_t want, size_t size, struct err *e)
{
    size_t got;
    char *p = malloc(want + 1);
    if (!p)
        return err_set(e, ERR_TEMPORARY, "out of memory");
    if (slurp(fd, p, want, &got) < 0) {
        free(p);
        return err_errno(e, "read a message");
    }
    if (want < size && want < MAILFILE_WHOLE && !find_body(str_of(p, got))) {
        free(p);
        return 1;
    }
    f->whole = want == size;
    return convert(f, p, got, e);
}

int
mailfile_load(struct mailfile *f, int fd, bool head_only, struct err *e)
{
    struct stat st;
    *f = (struct mailfile){.fd = fd, .open = true};
    if (fstat(fd, &st) < 0) {
        err_errno(e, "stat a message");
        goto fail;
    }
    if (st.st_size < 0 || (uint64_t)st.st_size > MAILFILE_MAX) {
        err_set(e, ERR_LIMIT, "a message of %lld bytes", (long long)st.st_size);
        goto fail;
    }
    size_t size = (size_t)st.st_size, head = head_only ? MAILFILE_HEAD : MAILFILE_WHOLE;
    if (!head_only && size > MAILFILE_WHOLE)
        head = MAILFILE_HEAD;
    int result = 1;
    for (; result == 1; head = MAILFILE_WHOLE)
        result = load_part(f, fd, size < head ? size : head, size, e);
    if (result < 0)
        goto fail;
    f->raw = size;
    if (f->whole) {
        f->size = f->text.n;
        close(fd);
        f->open = false;
    }
    return 0;
fail:
    mailfile_free(f);
    return -1;
}

void
mailfile_free(struct mailfile *f)
{
    if (f->open)
        close(f->fd);
    free(f->p);
    *f = (struct mailfile){0};
}

int
mailfile_size(struct mailfile *f, uint64_t *size_r, struct err *e)
{
    uint64_t raw;
    if (!f->whole && !f->size && mailfile_measure(f->fd, &raw, &f->size, e) < 0)
        return -1;
    *size_r = f->size;
    return 0;
}

/* ---- in pieces ---- */

void
mailreader_begin(struct mailreader *r, const struct mailfile *f, uint64_t from, uint64_t to)
{
    r->f = f;
    r->at = from;
    r->end = to > from ? to : from;
    r->raw_at = 0;
    r->cr = false;
    r->held = 0;
    r->skip = from;
    /* Nothing is to be put in: the file's offsets are the text's. */
    if (!f->whole && f->size == f->raw) {
        r->raw_at = from;
        r->skip = 0;
        r->cr = true;
    }
}

/* The next piece of the file, converted, into room. */
static int
refill(struct mailreader *r, struct err *e)
{
    bool cr = r->cr;
    ssize_t n = read_at(r->f->fd, r->room, MAILFILE_PIECE, r->raw_at);
    if (n < 0)
        return err_errno(e, "read a message");
    if (n == 0)
        return err_set(e, ERR_TEMPORARY, "a message has become shorter");
    r->raw_at += (uint64_t)n;
    size_t extra = mailfile_bare_lf(str_of(r->room, (size_t)n), &r->cr);
    if (extra)
        spread(r->room, (size_t)n, extra, cr);
    r->held = (size_t)n + extra;
    no_nul(r->room, r->held);
    return 0;
}

int
mailreader_next(struct mailreader *r, struct str *piece_r, struct err *e)
{
    uint64_t left = r->end - r->at;
    if (left == 0)
        return 0;
    if (r->f->whole) {
        if (r->end > r->f->text.n)
            return err_set(e, ERR_TEMPORARY, "beyond the end of a message");
        *piece_r = str_sub(r->f->text, (size_t)r->at, (size_t)left);
        r->at = r->end;
        return 1;
    }
    do {
        if (refill(r, e) < 0)
            return -1;
        size_t skip = r->skip < r->held ? (size_t)r->skip : r->held;
        r->skip -= skip;
        *piece_r = str_of(r->room + skip, r->held - skip);
    } while (piece_r->n == 0);
    if (piece_r->n > left)
        piece_r->n = (size_t)left;
    r->at += piece_r->n;
    return 1;
}

int
mailfile_range(const struct mailfile *f, uint64_t from, uint64_t to, struct buf *out, struct err *e)
{
    struct mailreader *r = malloc(sizeof *r);
    struct str piece;
    int result = r ? 1 : err_set(e, ERR_TEMPORARY, "out of memory");
    if (r)
        mailreader_begin(r, f, from, to);
    while (result > 0 && (result = mailreader_next(r, &piece, e)) > 0)
        buf_add(out, piece);
    free(r);
    if (result == 0 && !buf_ok(out))
        result = err_set(e, ERR_LIMIT, "more than %zu bytes of a message", out->max);
    return result;
}
