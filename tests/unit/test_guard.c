/* guard: what a session may not call kills it; the lists are short. */
#include "lib/guard/guard.h"
#include "lib/guard/table.h"
#include "tests/unit/temp.h"
#include "tests/unit/unit.h"
#include <netinet/in.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

static bool
is_among(int nr, unsigned sets)
{
    int calls[256];
    size_t n = guard_calls(sets, calls, 256);
    while (n-- > 0)
        if (calls[n] == nr)
            return true;
    return false;
}

START_TEST(a_session_has_at_most_40_calls)
{
    size_t n;
    const struct guard_row *rows = guard_rows(&n);
    int calls[256];
    for (size_t i = 0; i < n; i++) {
        size_t count = guard_calls(rows[i].session_sets, calls, 256);
        ck_assert_msg(count <= 40, "%s: %zu", role_name(rows[i].role), count);
        for (size_t k = 0; k < count; k++) {
            const char *name = guard_call_name(calls[k]);
            ck_assert_msg(is_among(calls[k], rows[i].sets), "%s: %s is not its listener's",
                          role_name(rows[i].role), name);
            ck_assert_ptr_nonnull(name);
            ck_assert_msg(rows[i].role == R_RELAY ||
                              (strcmp(name, "socket") && strcmp(name, "connect")),
                          "%s may %s", role_name(rows[i].role), name);
            ck_assert(strcmp(name, "openat") && strcmp(name, "clone") && strcmp(name, "execveat"));
        }
    }
    ck_assert_ptr_null(guard_call_name(SYS_ptrace));
    ck_assert_ptr_null(guard_call_name(SYS_execve));
    ck_assert_ptr_null(guard_row(R_MASTER));
}
END_TEST

#ifndef BH_SANITIZE
static void
call_open(void)
{
    (void)!open("/etc/passwd", O_RDONLY);
}
static void
call_socket(void)
{
    (void)!socket(AF_INET, SOCK_STREAM, 0);
}
static void
call_connect(void)
{
    struct sockaddr_in in = {.sin_family = AF_INET};
    (void)!connect(0, (struct sockaddr *)&in, sizeof in);
}
static void
call_fork(void)
{
    (void)!fork();
}
static void
call_execve(void)
{
    char *none[] = {NULL};
    execve("/bin/true", none, none);
}
static void
call_ptrace(void)
{
    syscall(SYS_ptrace, 0, 0, 0, 0);
}
static void
call_kill(void)
{
    kill(getppid(), 0);
}
static void
call_mmap_exec(void)
{
    (void)!mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}
static void
call_mprotect_exec(void)
{
    void *p = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(p, 4096, PROT_READ | PROT_EXEC);
}
static void
call_x32(void)
{
    syscall(0x40000000 | SYS_getpid);
}
static void
call_unlink(void)
{
    unlink("/tmp/nothing");
}
static void
call_setuid(void)
{
    syscall(SYS_setuid, 0);
}
static void
call_what_is_allowed(void)
{
    char c = 0;
    int pair[2];
    struct timespec t;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) < 0 || write(pair[0], &c, 1) != 1 ||
        read(pair[1], &c, 1) != 1 || clock_gettime(CLOCK_MONOTONIC, &t) < 0)
        _exit(1);
    free(malloc(1 << 20));
}

static const struct {
    const char *name;
    void (*call)(void);
    bool allowed, allowed_to_relay;
} calls[] = {
    {"nothing forbidden", call_what_is_allowed, true, true},
    {"open", call_open, false, false},
    {"socket", call_socket, false, true},
    {"connect", call_connect, false, true},
    {"fork", call_fork, false, false},
    {"execve", call_execve, false, false},
    {"ptrace", call_ptrace, false, false},
    {"kill", call_kill, false, false},
    {"mmap exec", call_mmap_exec, false, false},
    {"mprotect exec", call_mprotect_exec, false, false},
    {"x32", call_x32, false, false},
    {"unlink", call_unlink, false, false},
    {"setuid", call_setuid, false, false},
};
enum { CALLS = sizeof calls / sizeof calls[0] };
static const enum role sessions[] = {R_SMTPD, R_SUBMITD, R_RELAY, R_LOCAL,
                                     R_POP3D, R_IMAPD,   R_TLSD,  R_AUTHD};

static int
in_session(enum role role, void (*call)(void))
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        guard_enter(&(struct guard){.role = role, .root_fd = -1});
        guard_session(role);
        call();
        syscall(SYS_exit_group, 0);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    return status;
}

START_TEST(a_forbidden_call_kills)
{
    for (size_t i = 0; i < CALLS; i++) {
        enum role role = sessions[_i];
        int status = in_session(role, calls[i].call);
        bool allowed = role == R_RELAY ? calls[i].allowed_to_relay : calls[i].allowed;
        bool lived = WIFEXITED(status) && WEXITSTATUS(status) == 0;
        bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS;
        ck_assert_msg(allowed ? lived : killed, "%s: %s: status %x", role_name(role), calls[i].name,
                      (unsigned)status);
    }
}
END_TEST

static int
entered(enum role role, void (*call)(void))
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        struct guard g = {.role = role, .uid = 65534, .gid = 65534, .root_fd = -1};
        temp_quiet();
        guard_enter(&g);
        call();
        syscall(SYS_exit_group, 0);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    return status;
}

static void
prove_confined(void)
{
    /* Names lead nowhere, root does not come back, nobody reads our memory. */
    if (getpid() <= 0 || syscall(SYS_openat, AT_FDCWD, "/etc/passwd", O_RDONLY) >= 0)
        syscall(SYS_exit_group, 1);
}

START_TEST(a_role_is_entered_for_good)
{
    int status = entered(R_QMGR, prove_confined);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", (unsigned)status);
    status = entered(R_SMTPD, call_open);
    ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
    status = entered(R_KEYD, call_fork);
    ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
    status = entered(R_MASTER, call_what_is_allowed); /* a role without a row */
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 71);
}
END_TEST
#endif

Suite *suite_guard(void);
Suite *
suite_guard(void)
{
    Suite *s = suite_create("guard");
    TCase *t = tcase_create("guard");
    tcase_add_test(t, a_session_has_at_most_40_calls);
#ifndef BH_SANITIZE
    tcase_add_loop_test(t, a_forbidden_call_kills, 0, sizeof sessions / sizeof sessions[0]);
    tcase_add_test(t, a_role_is_entered_for_good);
#endif
    suite_add_tcase(s, t);
    return s;
}
