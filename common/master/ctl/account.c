#include "common/master/ctl/ctl.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

enum { PASSWORD_MAX = 512, ACCOUNT_DIRECTORY_MAX = 1024 };

static int
usage(void)
{
    fprintf(stderr, "usage: bulkhead account add NAME [-u USER-ID [-g GROUP-ID]] [-d DIRECTORY]\n"
                    "       bulkhead account passwd NAME | list | remove NAME\n"
                    "The password is read from standard input.\n");
    return 64;
}

static int
read_line(struct buf *line)
{
    int c;
    while ((c = getchar()) != EOF && c != '\n')
        buf_addc(line, (char)c);
    return buf_ok(line) && line->n ? 0 : -1;
}

static struct termios terminal; /* as it was */

static void
interrupted(int signo)
{
    tcsetattr(0, TCSAFLUSH, &terminal);
    signal(signo, SIG_DFL);
    raise(signo);
}

/* From a terminal twice, without echo, which comes back however this ends; else one line. */
static int
read_password(struct buf *password)
{
    static const int ends[] = {SIGINT, SIGQUIT, SIGTERM, SIGHUP};
    struct buf again = buf_new(PASSWORD_MAX);
    if (tcgetattr(0, &terminal) < 0)
        return read_line(password);
    struct termios quiet = terminal;
    quiet.c_lflag &= ~(tcflag_t)ECHO;
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
        signal(ends[i], interrupted);
    tcsetattr(0, TCSAFLUSH, &quiet);
    fprintf(stderr, "Password: ");
    int ok = read_line(password);
    if (ok == 0) {
        fprintf(stderr, "\nAgain: ");
        ok = read_line(&again) == 0 && str_eq(buf_str(password), buf_str(&again)) ? 0 : -1;
    }
    fprintf(stderr, "\n");
    tcsetattr(0, TCSAFLUSH, &terminal);
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
        signal(ends[i], SIG_DFL);
    buf_wipe(&again);
    return ok;
}

static int
number(const char *z, uint32_t *v_r)
{
    return str_u32(str_z(z), INT32_MAX, v_r) == 0 && *v_r > 0 ? 0 : -1;
}

/* As authd does it: in lower case, and the primary domain is not written. */
static struct str
plain_name(const struct conf *conf, const char *given, struct buf *out)
{
    struct str rest = str_z(given), user;
    for (size_t i = 0; i < rest.n; i++)
        buf_addc(out, ch_lower(rest.p[i]));
    rest = user = buf_str(out);
    user = str_cut(&rest, '@');
    return str_eq(rest, conf->domains[0]) ? user : buf_str(out);
}

int
ctl_find_account(struct ctl *ctl, const char *given, struct ctl_account *account_r)
{
    struct msg m = {0};
    struct buf last = buf_new(512), place = buf_new(strlen(given) + 1);
    struct str wanted = plain_name(&ctl->conf, given, &place);
    bool more = true, found = false;
    int ok = 0;
    while (more && !found) {
        msg_begin(&m, M_ACCOUNT_LIST);
        msg_put_str(&m, buf_str(&last));
        if ((ok = ctl_ask(ctl, R_AUTHD, &m, M_ACCOUNT_ROWS)) < 0)
            break;
        more = msg_get_bool(&m);
        for (uint32_t n = msg_get_u32(&m); n > 0 && !m.bad && !found; n--) {
            struct str name = msg_get_str(&m);
            *account_r = (struct ctl_account){msg_get_u32(&m), msg_get_u32(&m), ""};
            struct str dir = msg_get_str(&m);
            found = str_eq(name, wanted) && dir.n < sizeof account_r->directory;
            if (found)
                memcpy(account_r->directory, dir.p, dir.n);
            buf_reset(&last);
            buf_add(&last, name);
        }
        more = more && !m.bad;
    }
    msg_free(&m);
    buf_free(&last);
    buf_free(&place);
    return ok < 0 ? -69 : found;
}

/* A new account gets a user ID that nobody had, so a directory that is there is not its own. */
static bool
is_free(const struct ctl *ctl, struct str account, const char *directory)
{
    struct buf path = buf_new(ACCOUNT_DIRECTORY_MAX);
    struct stat st;
    const char *z;
    if (account.n == 0 || account.p[0] == '.' || account.p[0] == '@')
        return true; /* no name: authd says so */
    if (*directory)
        buf_addz(&path, directory);
    else
        (void)conf_maildir(&ctl->conf, account, &path);
    z = buf_z(&path);
    bool there = z && geteuid() == 0 && lstat(z, &st) == 0;
    if (there)
        fprintf(stderr,
                "bulkhead: %s is there and belongs to user ID %u. Is there such an account? If "
                "not, move it, or give the account its mail with -u %u\n",
                z, st.st_uid, st.st_uid);
    buf_free(&path);
    return !there;
}

/* add and passwd: the password goes to authd as it is, over a socket only root can open; authd
 * hashes. */
static int
set(struct ctl *ctl, enum msg_type type, int argc, char **argv)
{
    struct msg m = {0};
    struct buf password = buf_new(PASSWORD_MAX);
    uint32_t uid = 0, gid = 0;
    const char *directory = "";
    for (int i = 3; i < argc; i += 2) {
        if (i + 1 == argc || type != M_ACCOUNT_ADD)
            return usage();
        if (strcmp(argv[i], "-u") == 0 && number(argv[i + 1], &uid) == 0)
            continue;
        if (strcmp(argv[i], "-g") == 0 && number(argv[i + 1], &gid) == 0)
            continue;
        if (strcmp(argv[i], "-d") != 0)
            return usage();
        directory = argv[i + 1];
    }
    if (gid && !uid)
        return usage();
    struct ctl_account known;
    int found = type == M_ACCOUNT_ADD ? ctl_find_account(ctl, argv[2], &known) : 0;
    if (found > 0)
        fprintf(stderr, "bulkhead: there is an account %s already\n", argv[2]);
    if (found != 0)
        return 69;
    if (type == M_ACCOUNT_ADD && !uid && !is_free(ctl, str_z(argv[2]), directory))
        return 73; /* EX_CANTCREAT */
    if (read_password(&password) < 0) {
        fprintf(stderr, "bulkhead: no password of 1 to 512 bytes, or the two differ\n");
        buf_wipe(&password);
        return 65; /* EX_DATAERR */
    }
    msg_begin(&m, type);
    msg_put_str(&m, str_z(argv[2]));
    msg_put_str(&m, buf_str(&password));
    if (type == M_ACCOUNT_ADD) {
        msg_put_u32(&m, uid);
        msg_put_u32(&m, gid ? gid : uid);
        msg_put_str(&m, str_z(directory));
    }
    int ok = ctl_ask(ctl, R_AUTHD, &m, M_ACCOUNT_OK);
    buf_wipe(&password);
    msg_free(&m);
    if (ok < 0)
        return 69;
    printf("account %s: %s\n", argv[2], type == M_ACCOUNT_ADD ? "added" : "password changed");
    return 0;
}

static int
remove_account(struct ctl *ctl, const char *name)
{
    struct msg m = {0};
    msg_begin(&m, M_ACCOUNT_REMOVE);
    msg_put_str(&m, str_z(name));
    int ok = ctl_ask(ctl, R_AUTHD, &m, M_ACCOUNT_OK);
    msg_free(&m);
    if (ok < 0)
        return 69;
    printf("account %s: removed; its mail directory is still there\n", name);
    return 0;
}

static void
print_account(const struct ctl *ctl, struct str name, uint32_t uid, uint32_t gid, struct str dir,
              bool first)
{
    if (!ctl->json) {
        printf("%-32.*s %8u %8u  %.*s\n", STR_ARG(name), uid, gid, STR_ARG(dir));
        return;
    }
    printf("%s\n  {\"name\": ", first ? "" : ",");
    ctl_json_str(name);
    printf(", \"uid\": %u, \"gid\": %u, \"directory\": ", uid, gid);
    ctl_json_str(dir);
    printf("}");
}

static int
list(struct ctl *ctl)
{
    struct msg m = {0};
    struct buf last = buf_new(512);
    bool more = true, first = true;
    while (more) {
        msg_begin(&m, M_ACCOUNT_LIST);
        msg_put_str(&m, buf_str(&last));
        if (ctl_ask(ctl, R_AUTHD, &m, M_ACCOUNT_ROWS) < 0)
            return 69;
        more = msg_get_bool(&m);
        for (uint32_t n = msg_get_u32(&m); n > 0 && !m.bad; n--, first = false) {
            struct str name = msg_get_str(&m);
            uint32_t uid = msg_get_u32(&m), gid = msg_get_u32(&m);
            struct str dir = msg_get_str(&m);
            if (first && ctl->json)
                printf("[");
            else if (first)
                printf("%-32s %8s %8s  %s\n", "account", "user", "group", "directory");
            print_account(ctl, name, uid, gid, dir, first);
            buf_reset(&last);
            buf_add(&last, name);
        }
        if (!msg_end(&m))
            return 76;
    }
    if (ctl->json)
        printf("%s\n]\n", first ? "[" : "");
    msg_free(&m);
    buf_free(&last);
    return 0;
}

int
ctl_account(struct ctl *ctl, int argc, char **argv)
{
    const char *verb = argc > 1 ? argv[1] : "";
    if (argc >= 3 && strcmp(verb, "add") == 0)
        return set(ctl, M_ACCOUNT_ADD, argc, argv);
    if (argc == 3 && strcmp(verb, "passwd") == 0)
        return set(ctl, M_ACCOUNT_PASSWD, argc, argv);
    if (argc == 3 && strcmp(verb, "remove") == 0)
        return remove_account(ctl, argv[2]);
    if (argc == 2 && strcmp(verb, "list") == 0)
        return list(ctl);
    return usage();
}
