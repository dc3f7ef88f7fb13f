/* guard: what a session's filter lets through, seen from a process inside it. */
#include "lib/guard/sandbox.h"
#include "lib/guard/table.h"
#include "tests/unit/unit.h"
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef BH_SANITIZE /* a sanitized build has no filter */
/* Exit status of act inside the session filter of role, or minus the signal that ended it. */
static int
inside(enum role role, int (*act)(void))
{
    int status = 0, calls[128];
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        const struct guard_row *row = guard_row(role);
        size_t n = guard_calls(row->session_sets ? row->session_sets : row->sets, calls, 128);
        prctl(PR_SET_DUMPABLE, 0);
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || sandbox_seccomp(calls, n) < 0)
            _exit(99);
        _exit(act());
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static int
takes_signals(void)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
        return 1;
    return fcntl(pair[0], F_SETOWN, getpid()) < 0;
}

static int
chooses_signal(void)
{
    return fcntl(0, F_SETSIG, SIGKILL) < 0;
}

static int
asks_for_signals(void)
{
    return fcntl(0, F_SETFL, O_RDWR | O_ASYNC) < 0;
}

static int
writes_over_the_log(void)
{
    return fcntl(2, F_SETFL, O_NONBLOCK) < 0;
}

static int
cuts_the_log(void)
{
    return ftruncate(2, 0) < 0;
}

static int
makes_datagrams(void)
{
    int pair[2];
    return socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, pair) == 0;
}

static int
does_what_it_may(void)
{
    int a[2], b[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, a) < 0 ||
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, b) < 0)
        return 1;
    int flags = fcntl(a[0], F_GETFL);
    if (flags < 0 || fcntl(a[0], F_SETFL, flags | O_NONBLOCK | O_APPEND) < 0 ||
        fcntl(a[0], F_SETFD, FD_CLOEXEC) < 0 || fcntl(a[0], F_GETFD) != FD_CLOEXEC)
        return 2;
    return fcntl(a[0], F_DUPFD_CLOEXEC, 3) < 0 ? 3 : 0;
}

START_TEST(descriptors_send_no_signals_and_are_not_cut)
{
    ck_assert_int_eq(inside(R_SMTPD, takes_signals), -SIGSYS);
    ck_assert_int_eq(inside(R_IMAPD, chooses_signal), -SIGSYS);
    ck_assert_int_eq(inside(R_RELAY, asks_for_signals), -SIGSYS);
    ck_assert_int_eq(inside(R_RELAY, writes_over_the_log), -SIGSYS);
    ck_assert_int_eq(inside(R_CELL, takes_signals), -SIGSYS);
    ck_assert_int_eq(inside(R_CELL, cuts_the_log), -SIGSYS);
}
END_TEST

START_TEST(sessions_make_streams_only)
{
    ck_assert_int_eq(inside(R_SMTPD, makes_datagrams), 0);
    ck_assert_int_eq(inside(R_SMTPD, does_what_it_may), 0);
    ck_assert_int_eq(inside(R_CELL, does_what_it_may), 0);
}
END_TEST

#endif

Suite *suite_filter(void);
Suite *
suite_filter(void)
{
    Suite *s = suite_create("filter");
    TCase *c = tcase_create("filter");
#ifndef BH_SANITIZE
    tcase_add_test(c, descriptors_send_no_signals_and_are_not_cut);
    tcase_add_test(c, sessions_make_streams_only);
#endif
    suite_add_tcase(s, c);
    return s;
}
