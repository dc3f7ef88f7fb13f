#include "common/master/ctl/ctl.h"
#include "common/master/plan.h"
#include "lib/base/clock.h"
#include "lib/ipc/channel.h"
#include <errno.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ANSWER_MS = 15000, START_MS = 15000, TICK_US = 20000 };

/* One request to master. 0; -1 when it does not run (silently if quiet) or says no. */
static int
control(struct ctl *ctl, uint32_t what, struct control_answer *answer, bool quiet)
{
    char path[320];
    struct err e;
    struct control_request request = {PLAN_MAGIC, what};
    snprintf(path, sizeof path, "%.*s/master", STR_ARG(ctl->conf.run_dir));
    int fd = chan_connect(path, &e);
    bool denied = fd < 0 && access(path, F_OK) == 0 && access(path, W_OK) < 0;
    if (fd < 0) {
        if (!quiet)
            fprintf(stderr, "bulkhead: %s (%s)\n",
                    denied ? "this is for the user who started it" : "not running", e.text);
        return -1;
    }
    struct pollfd p = {.fd = fd, .events = POLLIN};
    ssize_t n = -1;
    if (send(fd, &request, sizeof request, MSG_NOSIGNAL) == (ssize_t)sizeof request &&
        poll(&p, 1, ANSWER_MS) > 0)
        n = recv(fd, answer, sizeof *answer, 0);
    close(fd);
    if (n != (ssize_t)sizeof *answer || answer->magic != PLAN_MAGIC ||
        answer->nrows > PLAN_ROLES + 1) {
        if (!quiet)
            fprintf(stderr, "bulkhead: master gives no answer\n");
        return -1;
    }
    if (answer->result == 0)
        return 0;
    fprintf(stderr, "bulkhead: %.*s\n", (int)sizeof answer->text - 1, answer->text);
    return -1;
}

int
ctl_master_status(struct ctl *ctl, struct control_answer *answer_r)
{
    return control(ctl, CONTROL_STATUS, answer_r, false);
}

/* A word behind these commands would be ignored: "stop smtpd" is no order to stop everything. */
static int
alone(int argc, char **argv)
{
    if (argc == 1)
        return 0;
    fprintf(stderr, "usage: bulkhead [-f FILE] %s\n", argv[0]);
    return 64;
}

static bool
all_ready(const struct control_answer *a)
{
    for (size_t i = 0; i < a->nrows; i++)
        if (!a->rows[i].ready)
            return false;
    return a->nrows > 0;
}

/* Whether this process, a child or another's, has ended. 0 is nobody, who has not. */
static bool
has_gone(pid_t pid, int *status_r)
{
    pid_t got = waitpid(pid, status_r, WNOHANG);
    return got == pid || (got < 0 && kill(pid, 0) < 0 && errno == ESRCH);
}

/* Until all programs are ready, at most START_MS and while this process runs. 0, or an exit status
 * after saying what is wrong. */
static int
wait_ready(struct ctl *ctl, pid_t pid, struct control_answer *answer_r)
{
    int status = 0;
    *answer_r = (struct control_answer){0};
    for (int64_t end = now_ms() + START_MS; now_ms() < end; usleep(TICK_US)) {
        if (has_gone(pid, &status)) {
            fprintf(stderr, "bulkhead: not started\n");
            return WIFEXITED(status) && WEXITSTATUS(status) ? WEXITSTATUS(status) : 71;
        }
        if (control(ctl, CONTROL_STATUS, answer_r, true) == 0 && all_ready(answer_r))
            return 0;
    }
    for (size_t i = 0; i < answer_r->nrows; i++)
        if (!answer_r->rows[i].ready)
            fprintf(stderr, "bulkhead: %s does not come up: see the log\n",
                    role_name((enum role)answer_r->rows[i].role));
    if (answer_r->nrows == 0)
        fprintf(stderr, "bulkhead: not running\n");
    return 71;
}

int
ctl_start(struct ctl *ctl, int argc, char **argv)
{
    struct control_answer answer = {0};
    char program[320];
    if (alone(argc, argv))
        return 64;
    if (control(ctl, CONTROL_STATUS, &answer, true) == 0) {
        printf("bulkhead runs already\n");
        return 0;
    }
    if (ctl_try_certificates(ctl) < 0)
        return 78;
    snprintf(program, sizeof program, "%.*s/master", STR_ARG(ctl->conf.libexec_dir));
    pid_t pid = fork();
    if (pid == 0) {
        setsid();
        execl(program, "master", "-p", ctl->conf.libexec_dir.p, "-f", ctl->config_path,
              (char *)NULL);
        fprintf(stderr, "bulkhead: %s: %s\n", program, strerror(errno));
        _exit(71);
    }
    if (pid < 0) {
        fprintf(stderr, "bulkhead: fork: %s\n", strerror(errno));
        return 71;
    }
    int status = wait_ready(ctl, pid, &answer);
    if (status == 0)
        printf("bulkhead started: %u programs\n", answer.nrows);
    return status;
}

int
ctl_wait(struct ctl *ctl, int argc, char **argv)
{
    struct control_answer answer;
    uint32_t pid = 0;
    if (argc > 2 || (argc == 2 && (str_u32(str_z(argv[1]), INT32_MAX, &pid) < 0 || pid == 0))) {
        fprintf(stderr, "usage: bulkhead [-f FILE] wait [PROCESS]\n");
        return 64;
    }
    return wait_ready(ctl, (pid_t)pid, &answer);
}

int
ctl_stop(struct ctl *ctl, int argc, char **argv)
{
    struct control_answer answer;
    if (alone(argc, argv))
        return 64;
    if (control(ctl, CONTROL_STOP, &answer, false) < 0)
        return 69; /* EX_UNAVAILABLE */
    for (int64_t end = now_ms() + START_MS; now_ms() < end; usleep(TICK_US))
        if (control(ctl, CONTROL_STATUS, &answer, true) < 0) {
            printf("bulkhead stopped\n");
            return 0;
        }
    fprintf(stderr, "bulkhead: it does not stop\n");
    return 71;
}

int
ctl_reload(struct ctl *ctl, int argc, char **argv)
{
    struct control_answer answer;
    if (alone(argc, argv))
        return 64;
    if (ctl_try_certificates(ctl) < 0)
        return 78;
    if (control(ctl, CONTROL_RELOAD, &answer, false) < 0)
        return 78;
    printf("bulkhead reloaded\n");
    if (ctl_try_aliases(ctl) < 0)
        fprintf(stderr, "bulkhead: mail for these aliases waits until they are mended\n");
    return 0;
}

/* Of each certificate the days that are left; keyd says. */
static void
print_certificates(struct ctl *ctl)
{
    struct msg m = {0};
    msg_begin(&m, M_KEY_DATES);
    uint32_t n = ctl_ask(ctl, R_KEYD, &m, M_KEY_DATES_ARE) < 0 ? 0 : msg_get_u32(&m);
    if (ctl->json)
        printf(", \"certificates\": [");
    for (uint32_t i = 0; i < n && !m.bad; i++) {
        struct str name = msg_get_str(&m);
        int64_t left_s = (int64_t)msg_get_u64(&m) - wall_s();
        long days = left_s < 0 ? -1 : (long)(left_s / 86400);
        if (ctl->json) {
            printf("%s{\"name\": ", i ? ", " : "");
            ctl_json_str(name);
            printf(", \"days\": %ld}", days);
        } else if (days < 0) {
            printf("certificate of %.*s: expired\n", STR_ARG(name));
        } else {
            printf("certificate of %.*s: %ld days left\n", STR_ARG(name), days);
        }
    }
    if (ctl->json)
        printf("]");
    msg_free(&m);
}

static void
print_row(struct ctl *ctl, const struct control_row *row, bool first)
{
    const struct passwd *pw = getpwuid(row->uid);
    char number[16];
    long up = (long)(wall_s() - row->since_s);
    const char *state = row->pid == 0 ? "down" : row->ready ? "ready" : "starting";
    snprintf(number, sizeof number, "%u", row->uid);
    const char *user = pw ? pw->pw_name : number;
    if (ctl->json)
        printf("%s\n  {\"program\": \"%s\", \"user\": \"%s\", \"pid\": %d, \"state\": \"%s\", "
               "\"seconds\": %ld, \"restarts\": %u",
               first ? "" : ",", role_name((enum role)row->role), user, row->pid, state, up,
               row->restarts);
    else
        printf("%-10s %-14s %8d  %-9s %8lds %8u\n", role_name((enum role)row->role), user, row->pid,
               state, up, row->restarts);
    if (ctl->json && row->role == R_KEYD && row->ready)
        print_certificates(ctl);
    if (ctl->json)
        printf("}");
}

int
ctl_status(struct ctl *ctl, int argc, char **argv)
{
    struct control_answer answer;
    if (alone(argc, argv))
        return 64;
    if (control(ctl, CONTROL_STATUS, &answer, false) < 0)
        return 69;
    if (ctl->json)
        printf("[");
    else
        printf("%-10s %-14s %8s  %-9s %9s %8s\n", "program", "user", "process", "state", "up",
               "restarts");
    for (size_t i = 0; i < answer.nrows; i++)
        print_row(ctl, &answer.rows[i], i == 0);
    for (size_t i = 0; !ctl->json && i < answer.nrows; i++)
        if (answer.rows[i].role == R_KEYD && answer.rows[i].ready)
            print_certificates(ctl);
    printf(ctl->json ? "\n]\n" : "");
    return all_ready(&answer) ? 0 : 69;
}
