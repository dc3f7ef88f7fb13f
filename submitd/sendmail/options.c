#include "lib/base/encode.h"
#include "lib/io/std.h"
#include "submitd/sendmail/sendmail.h"
#include <stdio.h>
#include <sysexits.h>
#include <unistd.h>

/* Postfix's list. Without a function of ours, and silently accepted as there: -A -G -h -L -m -n -O
 * -o (but -oi) -p -U -X -x -c -e. */
static const char letters[] = "A:B:C:F:GIL:N:O:R:UV:X:b:cd::e:f:h:imno:p:r:q::tvx";

static int
usage(const char *what, const char *value)
{
    fprintf(stderr, "sendmail: %s%s\n", what, value);
    return EX_USAGE;
}

static int
set_mode(struct sendmail_options *o, const char *value)
{
    static const struct {
        char letter;
        int mode;
    } modes[] = {{'m', SENDMAIL_DELIVER}, {'s', SENDMAIL_SMTP},    {'p', SENDMAIL_QUEUE},
                 {'i', SENDMAIL_ALIASES}, {'v', SENDMAIL_VERIFY},  {'d', SENDMAIL_DAEMON},
                 {'l', SENDMAIL_DAEMON},  {'h', SENDMAIL_NOTHING}, {'H', SENDMAIL_NOTHING}};
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++)
        if (value[0] == modes[i].letter && value[1] == '\0') {
            o->mode = modes[i].mode;
            return 0;
        }
    return usage("unsupported: -b", value);
}

/* "failure, delay" is what people write. */
static int
take_notify(struct sendmail_options *o, const char *value)
{
    char room[DSN_NOTIFY_MAX + 1];
    struct buf words = buf_on(room, sizeof room, sizeof room - 1);
    for (const char *p = value; *p; p++)
        if (!ch_wsp(*p))
            buf_addc(&words, *p);
    if (!buf_ok(&words) || dsn_notify_parse(buf_str(&words), &o->notify) < 0)
        return usage("-N takes never, or some of success,failure,delay: ", value);
    return 0;
}

static int
take_envid(struct sendmail_options *o, const char *value)
{
    struct buf xtext = buf_on(o->envid, sizeof o->envid, sizeof o->envid - 1);
    xtext_encode(&xtext, str_z(value));
    o->envid[xtext.n] = '\0';
    if (!buf_ok(&xtext) || !dsn_envid_ok(buf_str(&xtext)))
        return usage("-V takes printable characters, 100 at most: ", value);
    return 0;
}

static int
take_option(struct sendmail_options *o, int letter, const char *value)
{
    switch (letter) {
    case 'B':
        o->eight_bit = str_caseeq(str_z(value), STR("8BITMIME"));
        return o->eight_bit || str_caseeq(str_z(value), STR("7BIT"))
                   ? 0
                   : usage("unsupported body type: ", value);
    case 'C':
        o->config = value;
        return 0;
    case 'F':
        o->full_name = value;
        return 0;
    case 'f':
    case 'r':
        o->sender = value;
        return 0;
    case 'I':
        o->mode = SENDMAIL_ALIASES;
        return 0;
    case 'N':
        return take_notify(o, value);
    case 'R':
        return dsn_ret_parse(str_z(value), &o->ret) < 0 ? usage("-R takes full or hdrs: ", value)
                                                        : 0;
    case 'V':
        return take_envid(o, value);
    case 'b':
        return set_mode(o, value);
    case 'i':
        o->ignore_dots = true;
        return 0;
    case 'o':
        if (value[0] == 'i')
            o->ignore_dots = true;
        return 0;
    case 'q':
        o->mode = SENDMAIL_DAEMON;
        return 0;
    case 't':
        o->from_header = true;
        return 0;
    case 'v':
        o->verbose = true;
        return 0;
    case '?':
        return usage("see sendmail(1)", "");
    default:
        return 0;
    }
}

int
sendmail_options(int argc, char **argv, struct sendmail_options *o_r)
{
    const char *slash = strrchr(argc ? argv[0] : "sendmail", '/');
    const char *name = slash ? slash + 1 : argc ? argv[0] : "sendmail";
    int letter;
    *o_r = (struct sendmail_options){.mode = SENDMAIL_DELIVER};
    if (strcmp(name, "mailq") == 0)
        o_r->mode = SENDMAIL_QUEUE;
    else if (strcmp(name, "newaliases") == 0)
        o_r->mode = SENDMAIL_ALIASES;
    optind = 0; /* start anew, also in a test */
    while ((letter = getopt(argc, argv, letters)) != -1) {
        int status = take_option(o_r, letter, optarg);
        if (status)
            return status;
    }
    o_r->rcpts = argv + optind;
    o_r->nrcpts = (size_t)(argc - optind);
    if (o_r->mode == SENDMAIL_VERIFY && o_r->nrcpts == 0)
        return usage("-bv wants recipient addresses", "");
    if (o_r->mode == SENDMAIL_DELIVER && o_r->nrcpts == 0 && !o_r->from_header)
        return usage("recipient addresses must be given, or -t", "");
    return 0;
}

int
sendmail_run(int argc, char **argv)
{
    static struct sendmail_options o;
    std_open();
    int status = sendmail_options(argc, argv, &o);
    if (status)
        return status;
    switch (o.mode) {
    case SENDMAIL_DELIVER:
        return sendmail_submit(&o);
    case SENDMAIL_SMTP:
        return sendmail_proxy(&o);
    case SENDMAIL_QUEUE:
        return sendmail_list(&o);
    case SENDMAIL_VERIFY:
        return sendmail_verify(&o);
    case SENDMAIL_ALIASES:
        puts("newaliases: nothing to compile; a change counts after: bulkhead reload");
        return EX_OK;
    case SENDMAIL_DAEMON:
        fputs("sendmail: daemons and queue runs are the business of bulkhead(8)\n", stderr);
        return EX_UNAVAILABLE;
    case SENDMAIL_NOTHING:
        break;
    }
    return EX_OK;
}
