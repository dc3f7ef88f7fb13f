/* Whole sessions of the cells, on a Maildir that is made anew now and then, and the parsers that
 * can be asked alone. */
#include "imapd/cell/args.h"
#include "imapd/cell/park.h"
#include "imapd/cell/seqset.h"
#include "imapd/prelogin.h"
#include "lib/base/hmac.h"
#include "lib/mail/nfc.h"
#include "lib/mail/utf7.h"
#include "lib/mailbox/mailindexfile.h"
#include "pop3d/cell/pcell.h"
#include "tests/fuzz/fuzz.h"
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ANEW = 300 };

static int root = -1;

static void
plant(const char *name, const char *text)
{
    fuzz_write(name, str_z(text));
}

/* The working directory: three messages in the INBOX, a folder, and nothing of what sessions before
 * have done. */
static void
maildir(void)
{
    static unsigned long uses;
    struct err e;
    if (uses++ % ANEW)
        return;
    if (root >= 0)
        close(root);
    FUZZ_CHECK(chdir("/") == 0);
    fuzz_clean();
    FUZZ_CHECK(chdir(fuzz_dir()) == 0);
    root = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    FUZZ_CHECK(folder_make_subdirs(root, -1, &e) == 0);
    plant("cur/1000.a.h:2,S",
          "From: Joe <joe@x>\r\nSubject: =?utf-8?q?gr=C3=BC=C3=9Fe?=\r\n"
          "Message-ID: <1@x>\r\nDate: Fri, 21 Nov 1997 09:55:06 -0600\r\n\r\nHello\r\n");
    plant("cur/1001.b.h:2,F", "From: a@b\nReferences: <1@x>\nMIME-Version: 1.0\nContent-Type: "
                              "multipart/mixed; boundary=b\n\n--b\n"
                              "Content-Transfer-Encoding: base64\n\nbmVlZGxl\n--b\nContent-Type: "
                              "message/rfc822\n\nSubject: i\n\nx\n--b--\n");
    plant("new/1002.c.h", "To: g:a@b;\n\n");
    FUZZ_CHECK(folder_create(root, STR("Sub.&AOQ-"), &e) == 0);
}

/* All the client says has been said, and what it is told goes nowhere. */
static void
session(const char *before, struct str in)
{
    static struct icell ic;
    struct buf said = buf_new(100000);
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    maildir();
    buf_addz(&said, before);
    buf_add(&said, in);
    ic.message_size_max = 1 << 20;
    icell_run(&ic, fd, root, STR("t"), buf_str(&said));
    icell_free(&ic);
    close(fd);
    buf_free(&said);
}

void
fuzz_imap_command(struct str in)
{
    session("", in);
}

void
fuzz_imap_search(struct str in)
{
    struct buf command = buf_new(100000);
    buf_addz(&command, "b SEARCH ");
    buf_add(&command, in);
    buf_addz(&command, "\r\nc SORT (SUBJECT REVERSE DATE) UTF-8 ");
    buf_add(&command, in);
    buf_addz(&command, "\r\nd UID SEARCH RETURN (SAVE COUNT) ");
    buf_add(&command, in);
    buf_addz(&command, "\r\n");
    session("a EXAMINE INBOX\r\n", buf_str(&command));
    buf_free(&command);
}

void
fuzz_imap_inflate(struct str in)
{
    session("a COMPRESS DEFLATE\r\n", in);
}

/* A sequence set, against a mailbox of 50 messages with gaps in their UIDs. */
void
fuzz_imap_seqset(struct str in)
{
    static struct mailbox_message rows[50];
    static uint32_t saved[] = {5, 6, 100};
    struct icell ic = {.saved = saved, .nsaved = 3, .arena = arena_new(8 << 20)};
    struct icell_seqset set;
    struct cursor c = cursor_of(in);
    size_t n = 50, *at, count;
    for (size_t i = 0; i < n; i++)
        rows[i].uid = (uint32_t)(i * 5 + i % 3 + (i == 49) * 4294967000u);
    rows[0].uid = 1;
    ic.mb.msgs = rows;
    ic.mb.n = n;
    if (icell_seqset_parse(&c, &ic.arena, &set) == 0)
        for (int uid = 0; uid < 2; uid++) {
            if (icell_seqset_resolve(&ic, &set, uid, &ic.arena, &at, &count) < 0)
                continue;
            FUZZ_CHECK(count <= n);
            for (size_t i = 0; i < count; i++) {
                FUZZ_CHECK(at[i] < n && (i == 0 || at[i] > at[i - 1]));
                FUZZ_CHECK(!uid || set.saved ||
                           icell_seqset_has(&set, rows[at[i]].uid, rows[n - 1].uid));
            }
        }
    arena_free(&ic.arena);
}

/* The plain way to do it, for short patterns. */
static bool
matches(struct str pattern, struct str name)
{
    bool now[64] = {[0] = true}, next[64];
    for (size_t p = 0; p < pattern.n; p++) {
        memset(next, 0, sizeof next);
        for (size_t i = 0; i <= name.n; i++) {
            char w = pattern.p[p];
            if (!now[i])
                continue;
            if (w != '*' && w != '%') {
                next[i + 1] |= i < name.n && name.p[i] == w;
                continue;
            }
            for (size_t k = i; k <= name.n; k++) {
                next[k] = true;
                if (k < name.n && w == '%' && name.p[k] == '.')
                    break;
            }
        }
        memcpy(now, next, sizeof now);
    }
    return now[name.n];
}

void
fuzz_imap_list(struct str in)
{
    struct str all = in, pattern = fuzz_cut(&in, '\n'), name = in;
    struct buf command = buf_new(100000);
    bool got = folder_match(pattern, name);
    if (pattern.n < 60 && name.n < 60 && !str_casestarts(name, STR("INBOX")))
        FUZZ_CHECK(got == matches(pattern, name));
    FUZZ_CHECK(folder_match(STR("*"), name));
    buf_addf(&command, "b LIST (SUBSCRIBED RECURSIVEMATCH) \"\" {%zu+}\r\n", all.n);
    buf_add(&command, all);
    buf_addf(&command, "\r\nc LSUB \"\" {%zu+}\r\n", all.n);
    buf_add(&command, all);
    buf_addz(&command, "\r\nd LIST ");
    buf_add(&command, all);
    buf_addz(&command, "\r\n");
    session(all.n % 2 ? "a ENABLE IMAP4rev2\r\n" : "", buf_str(&command));
    buf_free(&command);
}

void
fuzz_imap_utf7(struct str in)
{
    struct buf a = buf_new(1 << 20), b = buf_new(1 << 20);
    if (utf7_decode(&a, in) == 0) {
        FUZZ_CHECK(str_utf8(buf_str(&a)) && utf7_encode(&b, buf_str(&a)) == 0);
        FUZZ_CHECK(str_eq(buf_str(&b), in));
    }
    buf_reset(&a);
    buf_reset(&b);
    if (utf7_encode(&a, in) == 0) {
        FUZZ_CHECK(utf7_decode(&b, buf_str(&a)) == 0 && str_eq(buf_str(&b), in));
        for (size_t i = 0; i < a.n; i++)
            FUZZ_CHECK(ch_print(a.p[i]));
    }
    buf_reset(&a);
    buf_reset(&b);
    if (nfc_normalise(&a, in) == 0 && a.n <= NFC_MAX) {
        FUZZ_CHECK(str_utf8(buf_str(&a)) && nfc_normalise(&b, buf_str(&a)) == 0);
        FUZZ_CHECK(str_eq(buf_str(&a), buf_str(&b)));
    }
    buf_free(&a);
    buf_free(&b);
}

void
fuzz_imap_prelogin(struct str in)
{
    struct prelogin p = prelogin_new();
    struct stream s;
    struct err e;
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    stream_init(&s, fd, fd, 100000, 1000);
    stream_preload(&s, in);
    for (enum prelogin_result r; (r = prelogin_read(&p, &s, &e)) != PRELOGIN_CLOSE;)
        for (size_t i = 0; i < p.nargs && r == PRELOGIN_OK; i++)
            FUZZ_CHECK(prelogin_arg(&p, i).n <= in.n && str_chr(prelogin_arg(&p, i), '\0') < 0);
    prelogin_wipe(&p);
    stream_free(&s);
    close(fd);
}

void
fuzz_pop3_command(struct str in)
{
    static struct pcell pc;
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    maildir();
    pcell_run(&pc, fd, root, in);
    pcell_free(&pc);
    close(fd);
}

/* The state of a parked session, its seal and its socket made right: whatever an account's own cell
 * may once have written. */
void
fuzz_imap_park(struct str in)
{
    static const unsigned char key[HMAC_KEY];
    static struct icell ic;
    unsigned char seal[HMAC_BYTES];
    struct buf state = buf_new(100000);
    uint64_t cookie;
    socklen_t n = sizeof cookie;
    int pair[2];
    int64_t end_ms;
    maildir();
    fuzz_write("bulkhead-park", str_of((const char *)key, sizeof key));
    FUZZ_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    FUZZ_CHECK(getsockopt(pair[0], SOL_SOCKET, SO_COOKIE, &cookie, &n) == 0);
    buf_add(&state, in);
    if (in.n >= 16)
        memcpy(state.p + 8, &cookie, sizeof cookie);
    hmac_sha256(key, buf_str(&state), seal);
    buf_add(&state, str_of((const char *)seal, sizeof seal));
    icell_begin(&ic, pair[0], root);
    if (icell_park_read(&ic, buf_str(&state), &end_ms) == 0 && ic.mb_open &&
        ic.state != ICELL_LOGOUT) {
        icell_tell(&ic, true);
        for (size_t i = 1; i < ic.mb.n; i++)
            FUZZ_CHECK(ic.mb.msgs[i].uid > ic.mb.msgs[i - 1].uid && !ic.mb.msgs[i].gone);
        FUZZ_CHECK(ic.told_exists == ic.mb.n);
    }
    icell_free(&ic);
    close(pair[0]);
    close(pair[1]);
    buf_free(&state);
}

/* ---- the index: its checksums made right, so that what is behind them is reached ---- */

static void
mend(struct buf *b, uint32_t validity)
{
    struct mailindex_head h;
    if (b->n < sizeof h)
        return;
    memcpy(&h, b->p, sizeof h);
    h.state.validity = validity;
    uint64_t rows_n = 0, gone_n = 0, at = 0;
    bool fits = !__builtin_mul_overflow(h.n, sizeof(struct mailbox_message), &rows_n) &&
                !__builtin_mul_overflow(h.ngone, sizeof(struct mailindex_gone), &gone_n) &&
                !__builtin_add_overflow(sizeof h + rows_n, gone_n, &at) && at <= b->n;
    if (fits) {
        h.rows_check = mailindex_rows_check((const struct mailbox_message *)(b->p + sizeof h), h.n);
        h.gone_check = mailindex_check(3, b->p + sizeof h + rows_n, gone_n);
    }
    h.check = mailindex_check(1, &h, offsetof(struct mailindex_head, check));
    memcpy(b->p, &h, sizeof h);
    if (!fits || __builtin_add_overflow(at, h.names_n, &at))
        return;
    struct mailindex_batch batch;
    while (at <= b->n && b->n - at >= sizeof batch) {
        memcpy(&batch, b->p + at, sizeof batch);
        if (batch.n > b->n - at - sizeof batch)
            return;
        struct mailindex_tail tail;
        uint64_t end = at + sizeof batch + batch.n;
        if (batch.n >= sizeof tail) {
            memcpy(&tail, b->p + end - sizeof tail, sizeof tail);
            tail.batch_n = batch.n;
            tail.state.validity = validity;
            tail.check = mailindex_check(h.id + end, &tail, offsetof(struct mailindex_tail, check));
            memcpy(b->p + end - sizeof tail, &tail, sizeof tail);
        }
        batch.check = mailindex_check(h.id + at, b->p + at + sizeof batch, batch.n);
        memcpy(b->p + at, &batch, sizeof batch);
        at += sizeof batch + batch.n;
    }
}

/* The index that these bytes are, over a folder that is there: what it says is told, and nothing is
 * lost. */
void
fuzz_index(struct str in)
{
    struct buf b = buf_new(1 << 20), name = buf_new(1000);
    struct mailbox mb;
    struct err e;
    size_t there = 0;
    maildir();
    session("a SELECT INBOX\r\nb STORE 1 +FLAGS (k)\r\nc UNSELECT\r\n", STR(""));
    buf_add(&b, in);
    FUZZ_CHECK(mailbox_open(&mb, root, STR("INBOX"), true, &e) == 0);
    uint32_t validity = mb.validity;
    mailbox_close(&mb);
    mend(&b, validity);
    fuzz_write("bulkhead.index", buf_str(&b));
    if (mailbox_open(&mb, root, STR("INBOX"), in.n % 2, &e) == 0) {
        for (size_t i = 0; i < mb.n; i++) {
            buf_reset(&name);
            (void)mailbox_name(&mb, i, &name);
            int fd = mailbox_open_message(&mb, i, NULL);
            there += fd >= 0;
            if (fd >= 0)
                close(fd);
            FUZZ_CHECK(i == 0 || mb.msgs[i].uid > mb.msgs[i - 1].uid);
        }
        (void)mailbox_refresh(&mb, NULL);
        mailbox_settle(&mb);
        mailbox_close(&mb);
    }
    (void)there;
    unlink("bulkhead.index");
    FUZZ_CHECK(mailbox_open(&mb, root, STR("INBOX"), true, &e) == 0 && mb.n == 3);
    mailbox_close(&mb);
    buf_free(&b);
    buf_free(&name);
}
