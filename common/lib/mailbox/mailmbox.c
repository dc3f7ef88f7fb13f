/* mailimport_mbox(): the messages of an mbox file, read as a stream: a line may be of any length.
 */
#include "lib/base/sha256.h"
#include "lib/mailbox/mailimport.h"
#include "lib/mailbox/mbox.h"
#include "lib/mailbox/quota.h"
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PIECE = 65536 };

struct reader {
    struct mailimport *im;
    int fd;
    bool mboxo;
    bool begun; /* the folder: at the first message, which may say its UIDVALIDITY */
    int root_fd;
    struct str folder;
    size_t expected;
    uint64_t bytes; /* read */
    /* What is being read. */
    struct buf line; /* a line, or the start of a long one */
    bool whole;      /* the line's end is there */
    bool at_start;   /* line is the start of one */
    bool was_blank;
    /* The message. */
    bool open, header, held_newline;
    bool owed;  /* of a message that had none at its end: a newline, if more comes */
    int marked; /* of our lines that are still to come; -1: no mark of ours */
    struct mailbox_writer w;
    struct mbox_meta meta;
    struct buf keywords;
    struct buf head; /* of the first message, while the folder is not begun */
    int64_t date_s;
    struct sha256 hash;
    size_t header_n;
    struct mailadopt seen; /* how often the same message has come */
};

/* The next line, or a piece of one that is longer than PIECE. 1, 0 at the end, -1. */
static int
next_line(struct reader *r, char *room, size_t *room_n, size_t *room_at, struct err *e)
{
    r->at_start = r->whole;
    r->whole = false;
    buf_reset(&r->line);
    while (!r->whole && r->line.n < PIECE) {
        if (*room_at == *room_n) {
            ssize_t n = read(r->fd, room, PIECE);
            if (n < 0 && errno == EINTR)
                continue;
            if (n < 0)
                return err_errno(e, "read the mbox");
            if (n == 0)
                return r->line.n > 0;
            r->bytes += (uint64_t)n;
            if (r->im->progress)
                r->im->progress(r->im->arg, r->bytes);
            *room_n = (size_t)n;
            *room_at = 0;
        }
        struct str rest = str_of(room + *room_at, *room_n - *room_at);
        ptrdiff_t end = str_chr(rest, '\n');
        size_t take = end < 0 ? rest.n : (size_t)end + 1;
        if (take > PIECE - r->line.n)
            take = PIECE - r->line.n;
        r->whole = end >= 0 && take == (size_t)end + 1;
        buf_add(&r->line, str_sub(rest, 0, take));
        *room_at += take;
    }
    return 1;
}

/* The folder, now that its UIDVALIDITY is known, and the first message's file. */
static int
begin_folder(struct reader *r, struct err *e)
{
    if (r->begun)
        return 0;
    if (mailimport_begin(r->im, r->root_fd, r->folder, r->meta.validity, r->meta.next, r->expected,
                         e) < 0)
        return -1;
    r->begun = true;
    return 0;
}

static int
put_now(struct reader *r, struct str data, struct err *e)
{
    sha256_add(&r->hash, data);
    if (r->begun && r->w.fd >= 0)
        return mailbox_write(&r->w, data, e);
    buf_add(&r->head, data);
    return buf_ok(&r->head) ? 0 : err_set(e, ERR_LIMIT, "a header is too long");
}

static int
put(struct reader *r, struct str data, struct err *e)
{
    if (r->owed && put_now(r, STR("\n"), e) < 0)
        return -1;
    r->owed = r->meta.no_newline && str_ends(data, STR("\n"));
    return put_now(r, r->owed ? str_sub(data, 0, data.n - 1) : data, e);
}

/* The header is over: the folder can be begun and the file written. */
static int
leave_header(struct reader *r, struct err *e)
{
    r->header = false;
    if (r->w.fd >= 0)
        return 0;
    if (begin_folder(r, e) < 0 || mailimport_open(r->im, &r->w, e) < 0)
        return -1;
    int result = mailbox_write(&r->w, buf_str(&r->head), e);
    buf_reset(&r->head);
    return result;
}

/* A base that is the same each time this message is read, also when it is there twice. */
static int
make_base(struct reader *r, struct buf *base)
{
    unsigned char digest[SHA256_BYTES];
    char hex[33];
    sha256_end(&r->hash, digest);
    for (size_t i = 0; i < 16; i++) {
        hex[2 * i] = "0123456789abcdef"[digest[i] >> 4];
        hex[2 * i + 1] = "0123456789abcdef"[digest[i] & 15];
    }
    hex[32] = '\0';
    for (unsigned k = 0;; k++) {
        buf_reset(base);
        buf_addf(base, "%lld.X%sR%u.bulkhead", (long long)(r->date_s > 0 ? r->date_s : 0), hex, k);
        if (!mailadopt_find(&r->seen, buf_str(base)))
            return mailadopt_add(&r->seen, buf_str(base), 1);
    }
}

static uint32_t
keyword_bits(struct reader *r)
{
    uint32_t bits = 0;
    struct str rest = buf_str(&r->keywords);
    while (rest.n) {
        struct str word = str_cut(&rest, ' ');
        if (word.n)
            bits |= mailimport_keyword(r->im, word);
    }
    return bits;
}

static int
end_message(struct reader *r, struct err *e)
{
    struct buf base = buf_new(150);
    int result = 0;
    if (!r->open)
        return 0;
    r->open = false;
    if (leave_header(r, e) < 0 || make_base(r, &base) < 0) {
        result = err_set(e, ERR_TEMPORARY, "cannot take in a message");
    } else if (mailimport_has(r->im, buf_str(&base))) {
        mailbox_write_abort(&r->w);
    } else {
        const struct mailimport_from from = {.base = buf_str(&base),
                                             .fields = str_of("", 0),
                                             .uid = r->meta.uid,
                                             .flags = r->meta.flags,
                                             .keywords = keyword_bits(r),
                                             .fresh = !r->meta.old,
                                             .date_s = r->date_s};
        result = mailimport_put(r->im, &r->w, &from, e);
    }
    if (result < 0 && r->w.fd >= 0)
        mailbox_write_abort(&r->w);
    r->w.fd = -1;
    buf_free(&base);
    return result;
}

static int
begin_message(struct reader *r, int64_t date_s, struct err *e)
{
    if (end_message(r, e) < 0)
        return -1;
    r->open = r->header = true;
    r->held_newline = r->owed = false;
    r->marked = -2;
    r->meta = (struct mbox_meta){0};
    buf_reset(&r->keywords);
    buf_reset(&r->head);
    r->header_n = 0;
    r->date_s = date_s;
    sha256_begin(&r->hash);
    sha256_add(&r->hash, str_sub(buf_str(&r->line), 0, r->line.n));
    return 0;
}

/* "X-Bulkhead: 4 open" as the first line of all. */
static bool
take_mark(struct reader *r, struct str line)
{
    uint32_t n;
    if (!str_starts(line, STR("X-Bulkhead: ")))
        return false;
    struct str rest = str_trim(str_from(line, 12));
    if (str_u32(str_cut(&rest, ' '), 20, &n) < 0)
        return false;
    r->meta.no_newline = str_eq(rest, STR("open"));
    r->marked = (int)n;
    return true;
}

/* Whether a line of the header is about the message, not of it. */
static bool
is_meta(struct reader *r, struct str line)
{
    bool first = r->marked == -2;
    if (first)
        r->marked = -1;
    if (first && take_mark(r, line))
        return true;
    if (r->marked == 0 || !r->at_start || !r->whole)
        return false;
    if (r->marked > 0)
        r->marked--;
    if (!mbox_meta_line(line, &r->meta))
        return false;
    if (r->meta.keywords.n) {
        buf_reset(&r->keywords);
        buf_add(&r->keywords, r->meta.keywords);
        r->meta.keywords = STR("");
    }
    return true;
}

/* mboxrd: one '>' less before any number of them and "From "; mboxo: of ">From " only. */
static struct str
unquoted(const struct reader *r, struct str line)
{
    size_t n = 0;
    while (n < line.n && line.p[n] == '>')
        n++;
    if (r->at_start && n && (n == 1 || !r->mboxo) && str_starts(str_from(line, n), STR("From ")))
        return str_from(line, 1);
    return line;
}

static int
take_line(struct reader *r, struct err *e)
{
    int64_t date_s;
    struct str line = buf_str(&r->line), text = line;
    if (str_ends(text, STR("\n")))
        text = str_sub(text, 0, text.n - 1);
    if (str_ends(text, STR("\r")))
        text = str_sub(text, 0, text.n - 1);
    bool blank = r->at_start && r->whole && text.n == 0;
    if (r->at_start && r->was_blank && mbox_from_line(text, &date_s)) {
        r->was_blank = false;
        return begin_message(r, date_s, e);
    }
    if (!r->open) {
        r->was_blank = blank;
        return blank ? 0
                     : err_set(e, ERR_PERMANENT, "this is no mbox: it does not begin with From");
    }
    /* The empty line before the next message is no part of this one. */
    if (r->held_newline && put(r, STR("\n"), e) < 0)
        return -1;
    r->held_newline = false;
    r->was_blank = blank;
    if (r->header) {
        r->header_n += line.n;
        if (!blank && is_meta(r, text))
            return 0;
        if ((blank || r->header_n > MBOX_HEADER_MAX / 2) && leave_header(r, e) < 0)
            return -1;
    }
    if (blank && line.n == 1) {
        r->held_newline = true;
        return 0;
    }
    return put(r, unquoted(r, line), e);
}

int
mailimport_mbox(struct mailimport *im, int fd, bool mboxo, int root_fd, struct str folder,
                struct err *e)
{
    static char room[PIECE];
    size_t room_n = 0, room_at = 0;
    struct stat st;
    struct reader r = {.im = im,
                       .fd = fd,
                       .mboxo = mboxo,
                       .root_fd = root_fd,
                       .folder = folder,
                       .whole = true,
                       .was_blank = true,
                       .w.fd = -1,
                       .line = buf_new(PIECE),
                       .keywords = buf_new(MBOX_HEADER_MAX),
                       .head = buf_new(MBOX_HEADER_MAX + PIECE)};
    if (fstat(fd, &st) < 0)
        return err_errno(e, "the mbox");
    im->by_bytes = true;
    /* The shortest message has some 40 bytes with its first line. */
    r.expected = (size_t)(st.st_size > 0 ? st.st_size / 30 : 0) + 1;
    if (r.expected > MAILBOX_MESSAGES_MAX)
        r.expected = MAILBOX_MESSAGES_MAX;
    int more = mailadopt_begin(&r.seen, 1, r.expected + 1, true) < 0
                   ? err_set(e, ERR_TEMPORARY, "out of memory")
                   : 1;
    while (more > 0 && (more = next_line(&r, room, &room_n, &room_at, e)) > 0)
        if (take_line(&r, e) < 0)
            more = -1;
    if (more == 0)
        more = end_message(&r, e);
    if (r.w.fd >= 0)
        mailbox_write_abort(&r.w);
    struct err ignored = {0};
    if (r.begun && mailimport_end(im, more < 0, more < 0 ? &ignored : e) < 0)
        more = -1;
    quota_recount(root_fd);
    mailadopt_free(&r.seen);
    buf_free(&r.line);
    buf_free(&r.keywords);
    buf_free(&r.head);
    return more < 0 ? -1 : 0;
}
