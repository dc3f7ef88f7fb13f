#include "common/master/ctl/priv.h"
#include "lib/guard/table.h"
#include "lib/role/sockets.h"
#include <linux/capability.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>

/* What the tables of the library do not say of a role. docs/SECURITY.md is compared with it. */
static const struct priv_role roles[] = {
    {R_MASTER, "nothing", "all", "listens", false},
    {R_LAUNCHER, "nothing", "all", "none", true},
    {R_AUTHD, "names, passwords, addresses", "state", "none", true},
    {R_KEYD, "digests to sign, from tlsd", "none", "none", true},
    {R_TLSD, "TLS", "none", "none", true},
    {R_IDLED, "nothing", "none", "none", true},
    {R_DNSD, "DNS replies", "none", "connects", true},
    {R_SMTPD, "SMTP, header fields", "none", "accepts", true},
    {R_SUBMITD, "SMTP, header fields, passwords", "none", "accepts", true},
    {R_QMGR, "envelopes, header fields", "queue", "none", true},
    {R_RELAY, "SMTP replies, TLS", "none", "connects", true},
    {R_LOCAL, "header fields, addresses", "none", "none", true},
    {R_POP3D, "POP3 before the login", "none", "accepts", true},
    {R_IMAPD, "IMAP before the login", "none", "accepts", true},
    {R_CELL, "IMAP, POP3, MIME, mail, the Maildir", "Maildir", "none", true},
};
enum { ROLES = sizeof roles / sizeof roles[0] };

const struct priv_role *
priv_roles(size_t *n_r)
{
    *n_r = ROLES;
    return roles;
}

unsigned
priv_receivers(enum role role, const struct msg_row *row)
{
    unsigned to = 0;
    if (!(row->from & (unsigned)role))
        return 0;
    if (row->type == M_READY)
        return role == R_MASTER || role == R_CELL ? 0 : R_MASTER;
    if (row->to != R_ANY)
        return row->to & ~(unsigned)role;
    /* A door leads from client to service; a refusal goes the other way. */
    for (unsigned other = 1; other < R_ANY; other <<= 1)
        if (row->type == M_DOOR_OPEN ? sockets_linked(role, (enum role)other)
                                     : sockets_linked((enum role)other, role))
            to |= other;
    return to;
}

static const char *const kinds[] = {"program", "session", "watcher"};
static const char *const readings[] = {"not read", "as the table", "differs", "none"};

static void
put_caps(uint64_t caps)
{
    static const char *const names[] = {"CHOWN",           "DAC_OVERRIDE",     "DAC_READ_SEARCH",
                                        "FOWNER",          "FSETID",           "KILL",
                                        "SETGID",          "SETUID",           "SETPCAP",
                                        "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST",
                                        "NET_ADMIN",       "NET_RAW",          "IPC_LOCK",
                                        "IPC_OWNER",       "SYS_MODULE",       "SYS_RAWIO",
                                        "SYS_CHROOT"};
    const char *between = "";
    if (caps == 0)
        printf("none");
    for (unsigned i = 0; i < 64; i++) {
        if (!(caps & 1ull << i))
            continue;
        if (i < sizeof names / sizeof names[0])
            printf("%s%s", between, names[i]);
        else
            printf("%s%u", between, i);
        between = " ";
    }
}

static void
put_user(uid_t uid)
{
    const struct passwd *pw = getpwuid(uid);
    if (pw)
        printf("%s", pw->pw_name);
    else
        printf("%u", uid);
}

static void
put_limit(rlim_t v)
{
    if (v == RLIM_INFINITY)
        printf("null");
    else
        printf("%llu", (unsigned long long)v);
}

static void
json_proc(const struct priv_proc *p, bool first)
{
    printf("%s\n  {\"role\": \"%s\", \"kind\": \"%s\", \"pid\": %d, \"user\": \"", first ? "" : ",",
           role_name(p->role), kinds[p->kind], p->pid);
    put_user(p->uids[1]);
    printf("\", \"uids\": [%u, %u, %u, %u], \"gid\": %u, \"groups\": %u, \"capabilities\": \"",
           p->uids[0], p->uids[1], p->uids[2], p->uids[3], p->gid, p->groups);
    put_caps(p->cap_eff);
    printf("\", \"permitted\": \"");
    put_caps(p->cap_prm);
    printf("\", \"inheritable\": \"");
    put_caps(p->cap_inh);
    printf("\", \"ambient\": \"");
    put_caps(p->cap_amb);
    printf("\", \"no_new_privs\": %s, \"seccomp\": %u, \"filters\": %u, \"calls_read\": ",
           p->no_new_privs ? "true" : "false", p->seccomp, p->filters);
    if (p->read == PR_AS_TABLE || p->read == PR_DIFFERS)
        printf("%u", p->calls);
    else
        printf("null");
    printf(", \"read_back\": \"%s\", \"root\": ", readings[p->read]);
    ctl_json_str(str_z(p->root));
    printf(", \"limits\": {");
    for (size_t i = 0; i < PRIV_LIMITS; i++) {
        printf("%s\"%s\": ", i ? ", " : "", priv_limit_names[i]);
        put_limit(p->limits[i]);
    }
    printf("}, \"descriptors\": ");
    if (p->unreadable_fd)
        printf("null");
    for (size_t i = 0, shown = 0; i < FD_KINDS && !p->unreadable_fd; i++)
        if (p->fds[i] || i == 0)
            printf("%s\"%s\": %u", shown++ ? ", " : "{", priv_fd_names[i], p->fds[i]);
    printf("%s}", p->unreadable_fd ? "" : "}");
}

static void
json_calls(const char *name, unsigned sets)
{
    int list[PRIV_CALLS];
    size_t n = guard_calls(sets, list, PRIV_CALLS);
    printf(",\n   \"%s\": [", name);
    for (size_t i = 0; i < n; i++)
        printf("%s\"%s\"", i ? ", " : "", guard_call_name(list[i]));
    printf("]");
}

static void
json_messages(enum role role)
{
    size_t n;
    const struct msg_row *rows = msg_rows(&n);
    const char *between = "";
    printf(",\n   \"sends\": {");
    for (size_t i = 0; i < n; i++) {
        unsigned to = priv_receivers(role, &rows[i]);
        const char *comma = "";
        if (!to)
            continue;
        printf("%s\"%s\": [", between, rows[i].name);
        for (unsigned other = 1; other < R_ANY; other <<= 1)
            if (to & other) {
                printf("%s\"%s\"", comma, role_name((enum role)other));
                comma = ", ";
            }
        printf("]");
        between = ", ";
    }
    printf("}");
}

static void
json_role(const struct priv_role *r, bool first)
{
    const struct guard_row *row = guard_row(r->role);
    printf("%s\n  {\"role\": \"%s\", \"reads\": \"%s\", \"directory\": \"%s\", \"network\": \"%s\"",
           first ? "" : ",", role_name(r->role), r->reads, r->directory, r->network);
    json_calls("calls", row ? row->sets : 0);
    json_calls("session_calls", row ? row->session_sets : 0);
    json_messages(r->role);
    printf("}");
}

static void
print_json(const struct priv *p)
{
    printf("{\"landlock\": %d, \"inherited_filters\": %u,\n \"roles\": [", p->landlock,
           p->inherited);
    for (size_t i = 0; i < ROLES; i++)
        json_role(&roles[i], i == 0);
    printf("\n ],\n \"processes\": [");
    for (size_t i = 0; i < p->n; i++)
        json_proc(&p->procs[i], i == 0);
    printf("\n ]}\n");
}

static void
print_proc(const struct priv_proc *p)
{
    printf("%-9s %-8s %8d  ", role_name(p->role), kinds[p->kind], p->pid);
    put_user(p->uids[1]);
    printf(", root directory: %s\n    capabilities: ", p->root);
    put_caps(p->cap_eff);
    printf("; no_new_privs: %s\n    system calls: ", p->no_new_privs ? "yes" : "NO");
    if (p->read == PR_AS_TABLE)
        printf("%u, read back from the kernel and as the table has them", p->calls);
    else if (p->read == PR_DIFFERS)
        printf("NOT AS THE TABLE HAS THEM (%u, first %d)", p->calls, p->differs_nr);
    else if (p->read == PR_NONE_WANTED)
        printf("all");
    else
        printf("as the table (not read back)");
    printf("; seccomp mode %u, %u filters\n    limits:", p->seccomp, p->filters);
    for (size_t i = 0; i < PRIV_LIMITS; i++)
        if (p->limits[i] == RLIM_INFINITY)
            printf(" %s none", priv_limit_names[i]);
        else
            printf(" %s %llu", priv_limit_names[i], (unsigned long long)p->limits[i]);
    printf("\n    descriptors:");
    for (size_t i = 0; i < FD_KINDS; i++)
        if (p->fds[i])
            printf(" %s %u", priv_fd_names[i], p->fds[i]);
    printf("%s\n", p->unreadable_fd ? " (not readable)" : "");
}

static void
print_role(const struct priv_role *r, int landlock)
{
    size_t n;
    const struct msg_row *rows = msg_rows(&n);
    printf("%-9s parses of strangers: %s\n    files: %s; network: %s%s\n    sends:",
           role_name(r->role), r->reads, r->directory, r->network,
           !r->confined || r->role == R_LAUNCHER ? "; no Landlock"
           : landlock                            ? "; Landlock"
                                                 : "; this kernel has no Landlock");
    for (size_t i = 0; i < n; i++) {
        unsigned to = priv_receivers(r->role, &rows[i]);
        const char *between = ">";
        if (to)
            printf(" %s", rows[i].name);
        for (unsigned other = 1; to && other < R_ANY; other <<= 1)
            if (to & other) {
                printf("%s%s", between, role_name((enum role)other));
                between = "+";
            }
    }
    printf("\n");
}

static void
print_text(const struct priv *p)
{
    printf("Landlock: %s", p->landlock ? "version " : "this kernel has none");
    if (p->landlock)
        printf("%d", p->landlock);
    if (p->inherited)
        printf(
            "\nmaster was started under %u filters, which hold for all and are counted below; they "
            "are not read",
            p->inherited);
    printf("\n\nTHE PROCESSES\n");
    for (size_t i = 0; i < p->n; i++)
        print_proc(&p->procs[i]);
    printf("\nTHE ROLES\n");
    for (size_t i = 0; i < ROLES; i++)
        print_role(&roles[i], p->landlock);
}

int
ctl_privileges(struct ctl *ctl, int argc, char **argv)
{
    struct control_answer answer;
    struct priv p = {0};
    const char *svg = argc == 3 && strcmp(argv[1], "--svg") == 0 ? argv[2] : NULL;
    if (argc != 1 && !svg) {
        fprintf(stderr, "usage: bulkhead [-f FILE] privileges [--json | --svg FILE]\n");
        return 64;
    }
    if (ctl_master_status(ctl, &answer) < 0)
        return 69;
    if (priv_find(ctl, &answer, &p) < 0)
        return 71;
    int status = 0;
    if (svg)
        status = priv_svg(&p, svg);
    else if (ctl->json)
        print_json(&p);
    else
        print_text(&p);
    for (size_t i = 0; i < p.n; i++)
        if (p.procs[i].read == PR_DIFFERS)
            status = 70; /* EX_SOFTWARE: not confined as it should be */
    free(p.procs);
    return status;
}
