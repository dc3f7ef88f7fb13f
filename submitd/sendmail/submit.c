#include "lib/base/encode.h"
#include "lib/conf/conf.h"
#include "lib/mail/address.h"
#include "lib/smtp/dot.h"
#include "submitd/sendmail/sendmail.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sysexits.h>
#include <unistd.h>

#define DEFAULT_SOCKET "/run/bulkhead/submit"

enum { IN_MAX = 65536, IDLE_MS = 600000, ORIGIN_MAX = 255 };

struct talk { /* one conversation with submitd */
    int fd;
    struct stream io;
    struct smtp_reply reply;
    char origin[ORIGIN_MAX + 1]; /* what follows a login name */
    bool verbose;
};

static int
socket_path(const struct sendmail_options *o, char *path, size_t size)
{
    static struct conf conf;
    static struct conf_errors errors;
    const char *given = getenv("BULKHEAD_SUBMIT");
    if (!o->config) {
        snprintf(path, size, "%s", given ? given : DEFAULT_SOCKET);
        return 0;
    }
    int fd = open(o->config, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        fprintf(stderr, "sendmail: %s: %s\n", o->config, strerror(errno));
        return EX_CONFIG;
    }
    int n = conf_read(&conf, str_z(o->config), fd, &errors);
    close(fd);
    if (n < 0) {
        fprintf(stderr, "sendmail: %s:%u:%u: %s\n", o->config, errors.at[0].line,
                errors.at[0].column, errors.at[0].text);
        return EX_CONFIG;
    }
    snprintf(path, size, "%.*s/submit", STR_ARG(conf.run_dir));
    conf_free(&conf);
    return 0;
}

int
sendmail_connect(const struct sendmail_options *o)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    if (socket_path(o, sun.sun_path, sizeof sun.sun_path))
        return -1;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&sun, sizeof sun) == 0)
        return fd;
    fprintf(stderr, "sendmail: cannot reach submitd at %s: %s\n", sun.sun_path, strerror(errno));
    if (fd >= 0)
        close(fd);
    return -1;
}

/* Complain about the reply, and what it means to the caller. */
static int
refused(struct talk *t, const char *what)
{
    struct buf text = buf_new(SMTP_REPLY_TEXT_MAX);
    smtp_reply_flat(&t->reply, &text);
    fprintf(stderr, "sendmail: %s: %s\n", what, buf_z(&text));
    buf_free(&text);
    if (t->reply.code < 500)
        return EX_TEMPFAIL;
    const char *status = smtp_reply_status(&t->reply);
    return strcmp(status, "5.1.1") == 0   ? EX_NOUSER
           : strcmp(status, "5.1.3") == 0 ? EX_USAGE
           : strcmp(status, "5.7.1") == 0 ? EX_NOPERM
                                          : EX_UNAVAILABLE;
}

/* Read a reply: 0 when its code begins with want, else an exit status. */
static int
expect(struct talk *t, unsigned want, const char *what)
{
    struct err e = {0};
    if (smtp_reply_read(&t->io, &t->reply, &e) < 0) {
        fprintf(stderr, "sendmail: %s: %s\n", what, e.text);
        return EX_TEMPFAIL;
    }
    if (t->verbose) {
        struct buf text = buf_new(SMTP_REPLY_TEXT_MAX);
        smtp_reply_flat(&t->reply, &text);
        printf("%s: %s\n", what, buf_z(&text));
        buf_free(&text);
    }
    return t->reply.code / 100 == want ? 0 : refused(t, what);
}

static void
keep_origin(struct talk *t)
{
    struct str line = buf_str(&t->reply.text);
    line = str_cut(&line, '\n');
    struct str host = str_cut(&line, ' ');
    struct str origin = address_is_domain(line) ? line : host;
    snprintf(t->origin, sizeof t->origin, "%.*s", STR_ARG(origin));
}

static int
hang_up(struct talk *t, int status)
{
    stream_putz(&t->io, "QUIT\r\n");
    (void)stream_flush(&t->io, NULL);
    stream_free(&t->io);
    smtp_reply_free(&t->reply);
    close(t->fd);
    return status;
}

static int
open_talk(struct talk *t, const struct sendmail_options *o)
{
    *t = (struct talk){.reply = smtp_reply_new(), .verbose = o->verbose};
    if ((t->fd = sendmail_connect(o)) < 0)
        return o->config ? EX_CONFIG : EX_TEMPFAIL;
    stream_init(&t->io, t->fd, t->fd, IN_MAX, IDLE_MS);
    int status = expect(t, 2, "greeting");
    if (!status) {
        stream_putz(&t->io, "EHLO localhost\r\n");
        status = expect(t, 2, "EHLO");
    }
    if (status)
        return hang_up(t, status);
    keep_origin(t);
    return 0;
}

/* The user's name, and the full name from the user database (RFC 5322 display name). */
static int
who(const struct sendmail_options *o, char *login, char *name, size_t size)
{
    const struct passwd *pw = getpwuid(getuid());
    if (!pw || str_z(pw->pw_name).n >= size) {
        fprintf(stderr, "sendmail: user ID %lu has no name\n", (unsigned long)getuid());
        return EX_NOUSER;
    }
    snprintf(login, size, "%s", pw->pw_name);
    struct str gecos = str_z(o->full_name ? o->full_name : pw->pw_gecos);
    struct buf out = buf_new(size - 1);
    if (!o->full_name)
        gecos = str_cut(&gecos, ',');
    for (size_t i = 0; i < gecos.n; i++) {
        if (gecos.p[i] == '&' && !o->full_name) { /* the login name, by old custom */
            buf_addc(&out, ch_upper(login[0]));
            buf_addz(&out, login + 1);
        } else {
            buf_addc(&out, gecos.p[i]);
        }
    }
    snprintf(name, size, "%s", buf_ok(&out) ? buf_z(&out) : "");
    buf_free(&out);
    return 0;
}

/* The envelope sender: -f as an addr-spec ("" for <>), or the login name. */
static int
sender_of(const struct sendmail_options *o, const char *login, struct buf *out)
{
    struct cursor c = cursor_of(str_z(o->sender ? o->sender : login));
    size_t n = 0;
    if (o->sender && (!o->sender[0] || strcmp(o->sender, "<>") == 0))
        return 0;
    if (smtp_mailbox_next(&c, &n, out) == 1 && cur_end(&c))
        return 0;
    fprintf(stderr, "sendmail: malformed sender address: %s\n", o->sender ? o->sender : login);
    return EX_USAGE;
}

/* Whatever is put into a command is one line: an address with a line break is none. */
static int
command(struct talk *t, const char *verb, struct str address, const char *behind, unsigned want)
{
    for (size_t i = 0; i < address.n; i++)
        if (!ch_print(address.p[i])) {
            fprintf(stderr, "sendmail: character not allowed in an address\n");
            return EX_USAGE;
        }
    stream_putf(&t->io, "%s:<%.*s>%s\r\n", verb, STR_ARG(address), behind);
    char room[128];
    struct buf what = buf_on(room, sizeof room, sizeof room - 1);
    buf_add(&what, str_sub(address, 0, 100));
    return expect(t, want, address.n ? buf_z(&what) : verb);
}

static int
send_pieces(struct talk *t, struct sendmail_letter *l, struct str head)
{
    struct dot_encoder enc = {.text = true};
    struct err e = {0};
    struct str piece = l->body;
    struct buf out = buf_new(2 * (SMTP_HEAD_MAX + 2 * SENDMAIL_CHUNK));
    int n = 1;
    dot_encode(&enc, head, &out);
    dot_encode(&enc, STR("\n"), &out);
    for (; n > 0; n = sendmail_read(&l->input, &piece)) {
        dot_encode(&enc, piece, &out);
        if (!buf_ok(&out))
            break;
        stream_put(&t->io, buf_str(&out));
        buf_reset(&out);
    }
    dot_encode_end(&enc, &out);
    if (n < 0 || !buf_ok(&out)) {
        fprintf(stderr, "sendmail: cannot read the message: %s\n",
                n < 0 ? strerror(errno) : "out of memory");
        shutdown(t->fd, SHUT_RDWR); /* without its end it is no message */
        t->io.broken = true;
        buf_free(&out);
        return EX_IOERR;
    }
    stream_put(&t->io, buf_str(&out));
    buf_free(&out);
    /* A refusal in the middle of it is there to be read, even when the rest could not be sent. */
    if (stream_flush(&t->io, &e) < 0) {
        t->io.broken = false;
        buf_reset(&t->io.out);
    }
    return 0;
}

static int
send_letter(struct talk *t, struct sendmail_letter *l, const char *name, struct str sender)
{
    struct buf head = buf_new(2 * SMTP_HEAD_MAX), address = buf_new(512);
    stream_putz(&t->io, "DATA\r\n");
    int status = expect(t, 3, "DATA");
    buf_add(&address, sender);
    if (sender.n && str_chr(sender, '@') < 0)
        buf_addf(&address, "@%s", t->origin);
    if (!status) {
        sendmail_letter_head(l, name, buf_str(&address), &head);
        status = send_pieces(t, l, buf_str(&head));
    }
    if (!status)
        status = expect(t, 2, "message");
    buf_free(&address);
    buf_free(&head);
    return status;
}

/* " NOTIFY=..." and ORCPT: submission is where the original address is known (RFC 3461 4.2). */
static void
put_notify(const struct talk *t, struct buf *out, unsigned notify, struct str address)
{
    struct buf orcpt = buf_new(DSN_ORCPT_MAX);
    buf_addz(out, " NOTIFY=");
    dsn_notify_put(out, notify);
    buf_addz(&orcpt, "rfc822;");
    xtext_encode(&orcpt, address);
    if (str_chr(address, '@') < 0)
        buf_addf(&orcpt, "@%s", t->origin);
    if (buf_ok(&orcpt) && dsn_orcpt_ok(buf_str(&orcpt)))
        buf_addf(out, " ORCPT=%.*s", STR_ARG(buf_str(&orcpt)));
    buf_free(&orcpt);
}

/* MAIL and RCPT. A refused recipient refuses all: nothing is sent, and the caller is told. */
static int
send_envelope(struct talk *t, const struct sendmail_options *o, struct str sender,
              const struct sendmail_rcpts *r)
{
    struct buf params = buf_new(1024);
    if (o->eight_bit)
        buf_addz(&params, " BODY=8BITMIME");
    if (o->ret)
        buf_addf(&params, " RET=%s", dsn_ret_name(o->ret));
    if (o->envid[0])
        buf_addf(&params, " ENVID=%s", o->envid);
    int status = command(t, "MAIL FROM", sender, buf_z(&params), 2);
    for (size_t i = 0; !status && i < r->n; i++) {
        buf_reset(&params);
        if (o->notify)
            put_notify(t, &params, o->notify, r->at[i]);
        status = command(t, "RCPT TO", r->at[i], buf_z(&params), 2);
    }
    buf_free(&params);
    return status;
}

/* Recipients among the arguments. A line break in one is no fold: it is an attempt at something. */
static int
take_arguments(const struct sendmail_options *o, struct sendmail_rcpts *r)
{
    int status = 0;
    for (size_t i = 0; !status && i < o->nrcpts; i++) {
        if (strpbrk(o->rcpts[i], "\r\n")) {
            fputs("sendmail: line break in an address\n", stderr);
            return EX_USAGE;
        }
        status = sendmail_rcpts_add(r, str_z(o->rcpts[i]));
    }
    return status;
}

int
sendmail_submit(const struct sendmail_options *o)
{
    static struct sendmail_letter letter;
    static struct sendmail_rcpts rcpts;
    struct talk t;
    char login[256], name[256];
    struct buf sender = buf_new(512);
    letter = (struct sendmail_letter){0};
    rcpts = (struct sendmail_rcpts){.arena = arena_new(1 << 20)};
    int status = who(o, login, name, sizeof login);
    if (!status)
        status = sender_of(o, login, &sender);
    if (!status)
        status = take_arguments(o, &rcpts);
    if (!status)
        status = sendmail_letter_open(&letter, o);
    if (!status && o->from_header)
        status = sendmail_rcpts_from(&rcpts, &letter);
    if (!status && rcpts.n == 0) {
        fputs("sendmail: no recipients\n", stderr);
        status = EX_USAGE;
    }
    if (!status)
        status = open_talk(&t, o);
    if (status)
        goto out;
    status = send_envelope(&t, o, buf_str(&sender), &rcpts);
    if (!status)
        status = send_letter(&t, &letter, name, buf_str(&sender));
    hang_up(&t, status);
out:
    arena_free(&rcpts.arena);
    buf_free(&letter.raw);
    buf_free(&sender);
    return status;
}

int
sendmail_verify(const struct sendmail_options *o)
{
    static struct sendmail_rcpts rcpts;
    struct talk t;
    rcpts = (struct sendmail_rcpts){.arena = arena_new(1 << 20)};
    int status = take_arguments(o, &rcpts);
    if (!status && (status = open_talk(&t, o)) == 0) {
        t.verbose = true;
        stream_putz(&t.io, "MAIL FROM:<>\r\n");
        status = expect(&t, 2, "MAIL");
        for (size_t i = 0; i < rcpts.n && t.reply.code; i++) {
            int one = command(&t, "RCPT TO", rcpts.at[i], "", 2);
            status = status ? status : one;
        }
        hang_up(&t, status);
    }
    arena_free(&rcpts.arena);
    return status;
}

int
sendmail_list(const struct sendmail_options *o)
{
    struct talk t;
    struct err e = {0};
    struct str line;
    bool bare;
    int status = open_talk(&t, o);
    if (status)
        return status;
    stream_putz(&t.io, "XQUEUE\r\n");
    do {
        if (stream_line(&t.io, SMTP_REPLY_LINE_MAX, &line, &bare, &e) < 0) {
            fprintf(stderr, "sendmail: the queue's list ended early: %s\n", e.text);
            return hang_up(&t, EX_TEMPFAIL);
        }
        if (!str_starts(line, STR("250"))) {
            fprintf(stderr, "sendmail: %.*s\n", STR_ARG(line));
            return hang_up(&t, EX_TEMPFAIL);
        }
        printf("%.*s\n", STR_ARG(str_from(line, 4)));
    } while (line.n > 3 && line.p[3] == '-');
    if (fflush(stdout) != 0) {
        fprintf(stderr, "sendmail: cannot write the list: %s\n", strerror(errno));
        return hang_up(&t, EX_IOERR);
    }
    return hang_up(&t, EX_OK);
}

/* Copy what is there; 0 at the end, -1 on trouble. */
static int
copy(int from, int to)
{
    char chunk[16384];
    ssize_t n = read(from, chunk, sizeof chunk);
    if (n <= 0)
        return n < 0 && errno == EINTR ? 1 : (int)n;
    for (ssize_t done = 0; done < n;) {
        ssize_t put = write(to, chunk + done, (size_t)(n - done));
        if (put < 0 && errno != EINTR)
            return -1;
        done += put > 0 ? put : 0;
    }
    return 1;
}

int
sendmail_proxy(const struct sendmail_options *o)
{
    int fd = sendmail_connect(o);
    if (fd < 0)
        return EX_TEMPFAIL;
    struct pollfd p[2] = {{.fd = fd, .events = POLLIN}, {.fd = 0, .events = POLLIN}};
    for (;;) {
        if (poll(p, 2, -1) < 0 && errno != EINTR)
            return EX_OSERR;
        if (p[0].revents) {
            int n = copy(fd, 1);
            if (n <= 0)
                return n < 0 ? EX_IOERR : EX_OK;
        }
        if (p[1].revents && copy(0, fd) <= 0) {
            shutdown(fd, SHUT_WR);
            p[1].fd = -1;
        }
    }
}
