/* bulkhead mailbox: import, export, check, rebuild. The work is done by a child that has become the
 * account's user and is locked to the account's Maildir and the other directory, as a cell is; this
 * process, which may be root, reads no message and no name in these directories. It syncs. */
#include "common/master/ctl/ctl.h"
#include "lib/guard/guard.h"
#include "lib/log/log.h"
#include "lib/mailbox/folder.h"
#include "lib/mailbox/mailexport.h"
#include "lib/mailbox/mailimport.h"
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BAR = 40 };

struct job {
    char verb;           /* i e c r */
    bool mboxo, to_mbox; /* -o, -m */
    const char *folder, *account, *path;
    uint32_t uid, gid;
    char directory[CTL_DIRECTORY_MAX];
    int root_fd;        /* the Maildir */
    int other_fd;       /* the source, or where to export */
    int ask_fd, say_fd; /* of the child: to have things synced */
    bool terminal;
    bool kib; /* these are bytes, not messages: */
    uint64_t total, shown;
};

static int
usage(void)
{
    fprintf(stderr, "usage: bulkhead mailbox import [-o] [-f FOLDER] ACCOUNT MAILDIR-OR-MBOX\n"
                    "       bulkhead mailbox export [-m] ACCOUNT DIRECTORY\n"
                    "       bulkhead mailbox check ACCOUNT\n"
                    "       bulkhead mailbox rebuild ACCOUNT\n");
    return 64;
}

/* ---- the child ---- */

static int
sync_by_parent(void *arg)
{
    struct job *j = arg;
    char c = 's';
    return write(j->ask_fd, &c, 1) == 1 && read(j->say_fd, &c, 1) == 1 && c == 'y' ? 0 : -1;
}

/* A bar on a terminal, a hundred times at most. */
static void
show(void *arg, uint64_t done)
{
    struct job *j = arg;
    uint64_t step = j->total / 100 + 1;
    if (!j->terminal || (done < j->shown + step && done != j->total))
        return;
    j->shown = done;
    char bar[BAR + 1];
    size_t full = j->total ? (size_t)(done * BAR / j->total) : 0;
    for (size_t i = 0; i < BAR; i++)
        bar[i] = i < full ? '#' : '.';
    bar[BAR] = '\0';
    if (j->kib)
        fprintf(stderr, "\r[%s] %llu of %llu KiB", bar, (unsigned long long)done / 1024,
                (unsigned long long)j->total / 1024);
    else
        fprintf(stderr, "\r[%s] %llu", bar, (unsigned long long)done);
}

static void
report(void *arg, struct str folder, const char *what)
{
    (void)arg;
    printf("%.*s: %s\n", STR_ARG(folder), what);
}

static int
import(struct job *j, struct err *e)
{
    struct stat st;
    struct mailimport im = {.sync = sync_by_parent, .progress = show, .arg = j};
    int result;
    if (fstat(j->other_fd, &st) < 0)
        return err_errno(e, "%s", j->path);
    if (S_ISDIR(st.st_mode)) {
        j->total = mailimport_count(j->other_fd);
        result = mailimport_maildir(&im, j->other_fd, j->root_fd, e);
    } else {
        j->kib = true;
        j->total = (uint64_t)st.st_size;
        result = mailimport_mbox(&im, j->other_fd, j->mboxo, j->root_fd, str_z(j->folder), e);
    }
    if (j->terminal)
        fprintf(stderr, "\r\033[K");
    printf("%llu messages taken in, %llu were there already\n", (unsigned long long)im.added,
           (unsigned long long)im.already);
    return result;
}

static int
other_verbs(struct job *j, struct err *e)
{
    struct mailexport x = {.root_fd = j->root_fd,
                           .to_fd = j->other_fd,
                           .mbox = j->to_mbox,
                           .progress = show,
                           .report = report,
                           .arg = j};
    j->total = mailimport_count(j->root_fd);
    int result = j->verb == 'e'   ? mailexport_all(&x, e)
                 : j->verb == 'c' ? mailexport_check(&x, e)
                                  : mailexport_rebuild(&x, e);
    if (j->terminal)
        fprintf(stderr, "\r\033[K");
    if (result == 0 && j->verb == 'e' && sync_by_parent(j) < 0)
        result = err_set(e, ERR_TEMPORARY, "%s cannot be synced", j->path);
    printf("%llu folders, %llu messages", (unsigned long long)x.folders,
           (unsigned long long)x.messages);
    if (x.already)
        printf(", %llu were there already", (unsigned long long)x.already);
    if (j->verb == 'c')
        printf(", %llu problems", (unsigned long long)x.problems);
    printf("\n");
    return result == 0 && x.problems ? 1 : result;
}

static int
become(const struct job *j)
{
    if (geteuid() != 0)
        return geteuid() == j->uid ? 0 : -1;
    return setgroups(0, NULL) < 0 || setresgid(j->gid, j->gid, j->gid) < 0 ||
                   setresuid(j->uid, j->uid, j->uid) < 0
               ? -1
               : 0;
}

/* As the account's user: what that user cannot read is not imported. */
static int
open_source(struct job *j)
{
    if (j->verb != 'i')
        return 0;
    j->other_fd = open(j->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (j->other_fd >= 0)
        return 0;
    fprintf(stderr, "bulkhead: user %u of the account cannot open %s: %s\n", j->uid, j->path,
            strerror(errno));
    return -1;
}

static int
child(struct job *j)
{
    struct err e = {0};
    umask(077);
    if (become(j) < 0) {
        fprintf(stderr, "bulkhead: cannot become user %u\n", j->uid);
        return 77;
    }
    if (open_source(j) < 0)
        return 66;
    if (fchdir(j->root_fd) < 0)
        return 66;
    const struct guard_dir dirs[] = {
        {.dirfd = j->root_fd, .write = true},
        {.dirfd = j->other_fd, .write = j->verb == 'e'},
    };
    struct stat st;
    bool both = j->other_fd >= 0 && fstat(j->other_fd, &st) == 0 && S_ISDIR(st.st_mode);
    guard_enter(&(struct guard){
        .role = R_CELL, .root_fd = -1, .keep_root_dir = true, .dirs = dirs, .ndirs = both ? 2 : 1});
    int result = j->verb == 'i' ? import(j, &e) : other_verbs(j, &e);
    fflush(stdout);
    if (result < 0)
        fprintf(stderr, "bulkhead: %s\n", e.text);
    return result < 0 ? 75 : result;
}

/* ---- this process ---- */

static int
find_account(struct ctl *ctl, struct job *j)
{
    struct ctl_account account = {0};
    int found = ctl_find_account(ctl, j->account, &account);
    if (found == 0)
        fprintf(stderr, "bulkhead: there is no account %s\n", j->account);
    if (found <= 0)
        return found == 0 ? 67 : -found;
    j->uid = account.uid;
    j->gid = account.gid;
    memcpy(j->directory, account.directory, sizeof j->directory);
    return 0;
}

/* The account's Maildir; it must be the user's. It is made by the first session, or here below the
 * suite's mail directory, where only root and the account's own user can be at work. */
static int
open_maildir(const struct ctl *ctl, struct job *j)
{
    struct stat st;
    size_t base = ctl->conf.mail_dir.n;
    bool ours = strncmp(j->directory, ctl->conf.mail_dir.p, base) == 0 && j->directory[base] == '/';
    for (char *slash = j->directory + base; ours && (slash = strchr(slash + 1, '/'));) {
        *slash = '\0';
        (void)mkdir(j->directory, 0711);
        *slash = '/';
    }
    if (ours && mkdir(j->directory, 0700) == 0 && geteuid() == 0 &&
        lchown(j->directory, j->uid, j->gid) < 0)
        perror(j->directory);
    j->root_fd = open(j->directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (j->root_fd >= 0 && fstat(j->root_fd, &st) == 0 && st.st_uid == j->uid)
        return 0;
    fprintf(stderr, "bulkhead: %s: %s\n", j->directory,
            j->root_fd < 0 ? strerror(errno) : "it does not belong to the account's user");
    return 66;
}

/* Where to export: made here and given to the account's user, if it is not there; else it must be
 * the user's already. */
static int
open_target(struct job *j)
{
    struct stat st;
    if (j->verb != 'e')
        return 0;
    if (mkdir(j->path, 0700) == 0 && geteuid() == 0 && lchown(j->path, j->uid, j->gid) < 0)
        perror(j->path);
    j->other_fd = open(j->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (j->other_fd >= 0 && fstat(j->other_fd, &st) == 0 && st.st_uid == j->uid)
        return 0;
    fprintf(stderr, "bulkhead: %s: %s\n", j->path,
            j->other_fd < 0 ? strerror(errno) : "it does not belong to the account's user");
    return 73;
}

/* Sync when the child asks, until it has gone. */
static int
serve(const struct job *j, int ask_fd, int say_fd, pid_t pid)
{
    char c;
    int status;
    while (read(ask_fd, &c, 1) == 1) {
        bool ok = syncfs(j->root_fd) == 0 && (j->verb != 'e' || syncfs(j->other_fd) == 0);
        c = ok ? 'y' : 'n';
        if (write(say_fd, &c, 1) != 1)
            break;
    }
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return 71;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 70;
}

static int
run(struct job *j)
{
    int ask[2], say[2];
    j->terminal = isatty(2);
    if (pipe2(ask, O_CLOEXEC) < 0 || pipe2(say, O_CLOEXEC) < 0)
        return 71;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        close(ask[0]);
        close(say[1]);
        j->ask_fd = ask[1];
        j->say_fd = say[0];
        _exit(child(j));
    }
    close(ask[1]);
    close(say[0]);
    int status = pid < 0 ? 71 : serve(j, ask[0], say[1], pid);
    close(ask[0]);
    close(say[1]);
    return status;
}

static int
parse(int argc, char **argv, struct job *j)
{
    static const char *const verbs[] = {"import", "export", "check", "rebuild"};
    int i = 2;
    for (size_t k = 0; argc > 1 && k < 4; k++)
        if (strcmp(argv[1], verbs[k]) == 0)
            j->verb = verbs[k][0];
    j->folder = "INBOX";
    for (; i < argc && argv[i][0] == '-'; i++) {
        if (j->verb == 'i' && strcmp(argv[i], "-o") == 0)
            j->mboxo = true;
        else if (j->verb == 'i' && strcmp(argv[i], "-f") == 0 && i + 1 < argc)
            j->folder = argv[++i];
        else if (j->verb == 'e' && strcmp(argv[i], "-m") == 0)
            j->to_mbox = true;
        else
            return -1;
    }
    bool two = j->verb == 'i' || j->verb == 'e';
    if (!j->verb || argc - i != 1 + two)
        return -1;
    if (!folder_is_inbox(str_z(j->folder)) && !folder_check(str_z(j->folder))) {
        fprintf(stderr, "bulkhead: this cannot be a folder's name: %s\n", j->folder);
        return -1;
    }
    j->account = argv[i];
    j->path = two ? argv[i + 1] : NULL;
    return 0;
}

int
ctl_mailbox(struct ctl *ctl, int argc, char **argv)
{
    static struct job j = {.root_fd = -1, .other_fd = -1};
    if (parse(argc, argv, &j) < 0)
        return usage();
    int status = find_account(ctl, &j);
    if (status == 0)
        status = open_maildir(ctl, &j);
    if (status == 0)
        status = open_target(&j);
    return status ? status : run(&j);
}
