#include "lib/loop/listener.h"
#include "lib/base/siphash.h"
#include "lib/guard/guard.h"
#include "lib/ipc/message.h"
#include "lib/log/log.h"
#include "lib/loop/giveway.h"
#include "lib/loop/loop.h"
#include "lib/role/sockets.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* LEAVING_MAX: sessions that were told to leave and have not yet, beyond the limit. */
/* STACK_USED: by a usual session. */
enum {
    PAGE = 4096,
    STACK_USED = 8192,
    PER_TURN = 16,
    BUCKETS = 1024,
    PAUSE_MS = 100,
    LEAVING_MAX = 256,
    TELL_MS = 60000
};
enum { UNSETTLED, SETTLED }; /* what a session says of itself */

struct entry {
    struct loop_io io;
    const char *name;
    enum role door_of; /* R_NONE: a socket to accept clients from */
    bool unix_stream;
    bool accepted; /* a door that came by a path, ours to close */
    bool used;
};

/* What the listener knows and its sessions do not: the memory is not there after the fork, so it
 * is neither copied nor told. */
struct listening {
    struct loop loop;
    struct entry entries[START_FDS_MAX];
    size_t nentries;
    struct session *by_pid[BUCKETS];
    struct session *unused;
    unsigned sessions, leaving;
    int64_t told_ms;        /* when the log was told that sessions give way */
    struct loop_io settled; /* what sessions say: that they have settled */
    struct sipkey key;
    struct loop_timer resume; /* accepting pauses when fork or accept finds no resources */
    bool doors_wait;          /* until a session ends */
    struct msg in;
    size_t nplaces;
    struct session places[];
};
static struct listening *the;

/* What a session starts with. */
static struct {
    struct listener *l;
    int not_mine[START_FDS_MAX + 4]; /* the listener's descriptors */
    size_t nnot_mine;
    int settled_fd; /* where a session says that it has settled */
} child = {.settled_fd = -1};

/* So many bytes of a peer's address as a number; 0: it has none. */
static uint64_t
prefix_key(const struct sockaddr_storage *ss, size_t of_ipv4, size_t of_ipv6)
{
    const struct sockaddr_in *in = (const void *)ss;
    const struct sockaddr_in6 *in6 = (const void *)ss;
    struct str raw = str_of("", 0);
    if (ss->ss_family == AF_INET)
        raw = str_of((const char *)&in->sin_addr, of_ipv4);
    else if (ss->ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr))
        raw = str_of((const char *)&in6->sin6_addr.s6_addr[12], of_ipv4);
    else if (ss->ss_family == AF_INET6)
        raw = str_of((const char *)&in6->sin6_addr, of_ipv6);
    return raw.n ? siphash(&the->key, raw) | 1 : 0;
}

/* All of IPv4, the /64 of IPv6. */
static uint64_t
address_key(const struct sockaddr_storage *ss)
{
    return prefix_key(ss, 4, 8);
}

/* And its network: the /24 of IPv4, the /48 of IPv6. */
static uint64_t
network_key(const struct sockaddr_storage *ss)
{
    return prefix_key(ss, 3, 6);
}

static unsigned
sessions_of(uint64_t address)
{
    unsigned n = 0;
    for (size_t i = 0; address && i < BUCKETS; i++)
        for (struct session *s = the->by_pid[i]; s; s = s->next)
            n += s->address == address && !s->leaving;
    return n;
}

/* A door counts as an address: the client program behind it may be taken over. */
static uint64_t
door_key(enum role client)
{
    return (uint64_t)client;
}

/* Somebody is told to leave for a newcomer of this network (of_it: one of it); there is a place for
 * it meanwhile. */
static bool
one_leaves(uint64_t network, bool of_it)
{
    if (!child.l->give_way || the->leaving == LEAVING_MAX || !the->unused)
        return false;
    struct session *s = giveway(the->places, the->nplaces, network, of_it, now_ms());
    if (!s || kill(s->pid, SIGTERM) < 0)
        return false;
    if (the->told_ms == 0 || now_ms() - the->told_ms > TELL_MS) {
        log_warn("%u sessions: old ones give way to new ones", the->sessions);
        the->told_ms = now_ms();
    }
    s->leaving = true;
    the->leaving++;
    return true;
}

static bool
within_door(enum role client)
{
    unsigned max =
        child.l->door_max ? child.l->door_max(child.l->arg, client) : child.l->sessions_max;
    if (the->sessions - the->leaving < max || sessions_of(door_key(client)) < max ||
        one_leaves(door_key(client), true))
        return true;
    log_warn("too many sessions of %s: one more refused", role_name(client));
    return false;
}

static bool
within_limits(uint64_t address, uint64_t network, const char *ip)
{
    /* First: nobody leaves for one who is refused. */
    if (address && child.l->sessions_per_ip_max < child.l->sessions_max &&
        the->sessions >= child.l->sessions_per_ip_max &&
        sessions_of(address) >= child.l->sessions_per_ip_max) {
        log_warn("%u sessions of %s: one more refused", child.l->sessions_per_ip_max, ip);
        return false;
    }
    if (the->sessions - the->leaving >= child.l->sessions_max &&
        /* Doors have places of their own; a local user, who has no network, has not. */
        !one_leaves(network, address == 0 && network != 0)) {
        log_warn("%u sessions: %s refused", the->sessions, *ip ? ip : "a peer");
        return false;
    }
    return true;
}

/* Accepting goes on in a moment: descriptors, memory or processes are short (catalogue J5, J6). */
static void
pause_accepting(const char *why)
{
    log_error("%s: %s; accepting pauses", why, strerror(errno));
    for (size_t i = 0; i < the->nentries; i++)
        loop_want(&the->loop, &the->entries[i].io, 0);
    loop_timer_set(&the->loop, &the->resume, now_ms() + PAUSE_MS);
}

static void
resume_accepting(struct loop_timer *t)
{
    (void)t;
    for (size_t i = 0; i < the->nentries; i++)
        loop_want(&the->loop, &the->entries[i].io, EPOLLIN);
}

/* Written down whenever they change, for the sessions to close. */
static void
note_descriptors(void)
{
    int control = start_fd(child.l->start, "control");
    size_t n = 0;
    for (size_t i = 0; i < the->nentries; i++)
        if (the->entries[i].used)
            child.not_mine[n++] = the->entries[i].io.fd;
    child.not_mine[n++] = the->loop.epoll_fd;
    child.not_mine[n++] = the->loop.signal_fd;
    child.not_mine[n++] = the->settled.fd;
    if (control >= 0)
        child.not_mine[n++] = control;
    child.nnot_mine = n;
}

void
listener_own(const void *from, size_t n)
{
    uintptr_t at = (uintptr_t)from & ~(uintptr_t)(PAGE - 1);
    /* Linux before 5.14 does not know it; then each fault brings its page. */
    (void)madvise((void *)at, (uintptr_t)from + n - at, MADV_POPULATE_WRITE);
}

/* In the child: nothing of the listener but what a session uses. */
static void
become_session(const struct peer *peer)
{
    sigset_t none;
    struct listener *l = child.l;
    listener_own((char *)__builtin_frame_address(0) - STACK_USED, STACK_USED);
    for (size_t i = 0; i < child.nnot_mine; i++)
        close(child.not_mine[i]);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    guard_session(l->start->role);
    l->session(peer, l->arg);
    _exit(0);
}

/* fork() without what the C library does around it for threads and stdio, of which a session has
 * neither: that alone writes to four pages. */
static pid_t
fork_plainly(void)
{
#ifndef BH_SANITIZE
    return (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
#else
    return fork();
#endif
}

/* Fork a session; the descriptor is closed here in any case. */
static void
start_session(struct peer *peer, uint64_t address, uint64_t network)
{
    struct session *s = the->unused; /* there is one: within_limits() */
    (void)log_stamp();               /* made once a second here, and not in each session; */
    (void)zone_min(wall_s());        /* once a minute */
    if (child.l->before_session)
        child.l->before_session(child.l->arg);
    pid_t pid = fork_plainly();
    if (pid == 0) {
        become_session(peer);
    } else if (pid < 0) {
        pause_accepting("cannot start a session");
    } else {
        size_t bucket = (size_t)pid % BUCKETS;
        the->unused = s->next;
        *s = (struct session){.pid = pid,
                              .address = address,
                              .network = network,
                              .began_ms = now_ms(),
                              .next = the->by_pid[bucket]};
        the->by_pid[bucket] = s;
        the->sessions++;
    }
    close(peer->fd_in);
}

static void
reap(void)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        struct session **link = &the->by_pid[(size_t)pid % BUCKETS];
        while (*link && (*link)->pid != pid)
            link = &(*link)->next;
        struct session *s = *link;
        if (!s)
            continue;
        *link = s->next;
        the->leaving -= s->leaving;
        *s = (struct session){.next = the->unused};
        the->unused = s;
        the->sessions--;
        if (WIFSIGNALED(status) && WTERMSIG(status) != SIGTERM)
            log_error("session %d died of signal %d%s", (int)pid, WTERMSIG(status),
                      WTERMSIG(status) == SIGSYS ? " (a system call it may not make)" : "");
    }
    if (the->doors_wait && !loop_timer_is_set(&the->resume)) {
        the->doors_wait = false;
        resume_accepting(&the->resume);
    }
}

/* What a program of ours asks for waits in its door: a session that is saying goodbye to a slow
 * host still has its place. */
static bool
waits(struct loop_io *io, unsigned events)
{
    if (child.l->door_max || the->sessions < child.l->sessions_max || (events & EPOLLHUP))
        return false;
    loop_want(&the->loop, io, 0);
    the->doors_wait = true;
    return true;
}

static void
refuse(int fd)
{
    const char *line = child.l->busy_line;
    if (line)
        (void)!send(fd, line, strlen(line), MSG_DONTWAIT | MSG_NOSIGNAL);
    close(fd);
}

static void
describe_peer(struct peer *peer, const struct entry *entry, const struct sockaddr_storage *ss)
{
    if (entry->unix_stream) {
        struct ucred cred = {.uid = (uid_t)-1};
        socklen_t n = sizeof cred;
        if (getsockopt(peer->fd_in, SOL_SOCKET, SO_PEERCRED, &cred, &n) < 0)
            cred.uid = (uid_t)-1;
        peer->uid = cred.uid;
        peer->from = R_USER;
        return;
    }
    struct sockaddr_storage local = {0};
    socklen_t n = sizeof local;
    uint16_t local_port;
    sockets_describe(ss, peer->ip, sizeof peer->ip, &peer->port);
    if (getsockname(peer->fd_in, (struct sockaddr *)&local, &n) == 0)
        sockets_describe(&local, peer->local_ip, sizeof peer->local_ip, &local_port);
}

static void
on_accept(struct loop_io *io, unsigned events)
{
    struct entry *entry = io->arg;
    (void)events;
    for (int i = 0; i < PER_TURN; i++) {
        struct sockaddr_storage ss = {0};
        socklen_t n = sizeof ss;
        int fd = accept4(io->fd, (struct sockaddr *)&ss, &n, SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
                pause_accepting("accept");
            return;
        }
        struct peer peer = {.fd_in = fd, .fd_out = fd, .service = entry->name};
        uint64_t address = address_key(&ss), network = network_key(&ss);
        describe_peer(&peer, entry, &ss);
        if (within_limits(address, network, peer.ip))
            start_session(&peer, address, network);
        else
            refuse(fd);
    }
}

static void
on_door(struct loop_io *io, unsigned events)
{
    struct entry *entry = io->arg;
    for (int i = 0; i < PER_TURN && !waits(io, events); i++) {
        int n = msg_recv(io->fd, &the->in, entry->door_of, child.l->start->role);
        if (n < 0 && errno == EAGAIN)
            return;
        /* master's doors outlive any garbage; one that came by a path is its sender's. */
        bool bad = n <= 0 || the->in.type != M_DOOR_OPEN;
        if (bad && (entry->accepted || (events & EPOLLHUP))) {
            loop_del(&the->loop, io);
            if (entry->accepted) {
                close(io->fd);
                entry->used = false;
                note_descriptors();
            }
            return;
        }
        if (bad) {
            log_warn("garbage at the door of %s", role_name(entry->door_of));
            continue;
        }
        int fd = msg_take_fd(&the->in, 0);
        struct peer peer = {
            .fd_in = fd, .fd_out = fd, .service = entry->name, .from = entry->door_of};
        uint64_t door = door_key(entry->door_of);
        if (within_limits(0, door, "") && within_door(entry->door_of))
            start_session(&peer, door, door);
        else
            close(fd);
    }
}

static void
on_signal(struct loop *loop, int signo)
{
    if (signo == SIGCHLD)
        reap();
    else
        loop->stop = true;
}

/* The service a listening descriptor is for: "smtp" for "smtp" (a supervisor's) and for
 * "listen.smtp.0" (master's); NULL when the name is of something else. */
static const char *
service_of(const char *name)
{
    static const char *const services[] = {"smtp",  "smtps", "submission", "submissions", "pop3",
                                           "pop3s", "imap",  "imaps",      "submit"};
    struct str s = str_z(name);
    if (str_starts(s, STR("listen."))) {
        s = str_from(s, 7);
        s = str_cut(&s, '.');
    }
    for (size_t i = 0; i < sizeof services / sizeof services[0]; i++)
        if (str_eq(s, str_z(services[i])))
            return services[i];
    return NULL;
}

/* -1 when there is no place for it. */
static int
add_entry(int fd, const char *name, enum role door_of, void (*ready)(struct loop_io *, unsigned))
{
    struct entry *entry = the->entries;
    while (entry < the->entries + the->nentries && entry->used)
        entry++;
    if (entry == the->entries + START_FDS_MAX)
        return -1;
    *entry = (struct entry){.io = {.fd = fd, .ready = ready, .arg = entry},
                            .name = name,
                            .door_of = door_of,
                            .unix_stream = strcmp(name, "submit") == 0,
                            .accepted = ready == on_door && str_starts(str_z(name), STR("path.")),
                            .used = true};
    guard_unblock(fd);
    if (loop_add(&the->loop, &entry->io, EPOLLIN) < 0) {
        entry->used = false;
        return -1;
    }
    if (entry == the->entries + the->nentries)
        the->nentries++;
    note_descriptors();
    return 0;
}

/* A program that was started by hand: its connection to our path is its door. */
static void
on_path(struct loop_io *io, unsigned events)
{
    const struct entry *entry = io->arg;
    (void)events;
    int fd = accept4(io->fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd >= 0 && add_entry(fd, entry->name, entry->door_of, on_door) < 0)
        close(fd);
}

static void
watch(int fd, const char *name, enum role door_of, void (*ready)(struct loop_io *, unsigned))
{
    if (add_entry(fd, name, door_of, ready) < 0)
        log_fatal("cannot watch %s: %s", name, strerror(errno));
}

/* Who it is the kernel says, so no session can speak for another. */
static void
on_settled(struct loop_io *io, unsigned events)
{
    char byte;
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(sizeof(struct ucred))];
    } control;
    struct iovec iov = {&byte, 1};
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = &control,
                       .msg_controllen = sizeof control};
    (void)events;
    ssize_t n = recvmsg(io->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    const struct cmsghdr *head = n > 0 ? CMSG_FIRSTHDR(&m) : NULL;
    struct ucred who;
    if (!head || head->cmsg_type != SCM_CREDENTIALS || head->cmsg_len != CMSG_LEN(sizeof who))
        return;
    memcpy(&who, CMSG_DATA(head), sizeof who);
    for (struct session *s = the->by_pid[(size_t)who.pid % BUCKETS]; s; s = s->next)
        if (s->pid == who.pid)
            s->settled = byte == SETTLED;
}

static void
tell_listener(char what)
{
    if (child.settled_fd >= 0)
        (void)!send(child.settled_fd, &what, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}

void
listener_settled(void)
{
    tell_listener(SETTLED);
}

void
listener_unsettled(void)
{
    tell_listener(UNSETTLED);
}

static void
hear_sessions(void)
{
    static const int on = 1;
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0 ||
        setsockopt(pair[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof on) < 0)
        log_fatal("socketpair: %s", strerror(errno));
    child.settled_fd = pair[1];
    the->settled = (struct loop_io){.fd = pair[0], .ready = on_settled};
    if (loop_add(&the->loop, &the->settled, EPOLLIN) < 0)
        log_fatal("cannot hear sessions: %s", strerror(errno));
}

static void
serve_one(struct listener *l)
{
    const struct start *st = l->start;
    struct peer peer = {
        .fd_in = 0, .fd_out = 1, .port = st->remote_port, .relayclient = st->relayclient};
    peer.service = st->role == R_SMTPD     ? "smtp"
                   : st->role == R_SUBMITD ? "submission"
                   : st->role == R_POP3D   ? "pop3"
                                           : "imap";
    memcpy(peer.ip, st->remote_ip, sizeof peer.ip);
    memcpy(peer.local_ip, st->local_ip, sizeof peer.local_ip);
    guard_session(st->role);
    l->session(&peer, l->arg);
}

/* Zeroed, and not for children. */
static void
make_room(unsigned sessions_max)
{
    size_t size = sizeof *the + (sessions_max + LEAVING_MAX) * sizeof the->places[0];
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED || madvise(p, size, MADV_DONTFORK) < 0)
        log_fatal("no memory for %u sessions: %s", sessions_max, strerror(errno));
    the = p;
    the->nplaces = sessions_max + LEAVING_MAX;
    for (size_t i = the->nplaces; i-- > 0;) {
        the->places[i].next = the->unused;
        the->unused = &the->places[i];
    }
}

void
listener_serve(struct listener *l)
{
    static const int signals[] = {SIGCHLD, SIGTERM, SIGINT, 0};
    const struct start *st = l->start;
    if (st->inetd) {
        serve_one(l);
        return;
    }
    child.l = l;
    make_room(l->sessions_max);
    if (getrandom(&the->key, sizeof the->key, 0) != sizeof the->key)
        log_fatal("getrandom: %s", strerror(errno));
    the->loop.on_signal = on_signal;
    the->resume.fire = resume_accepting;
    if (loop_init(&the->loop, signals) < 0)
        log_fatal("event loop: %s", strerror(errno));
    hear_sessions();
    for (size_t i = 0; i < st->nfds; i++) {
        const char *name = st->fds[i].name;
        if (str_starts(str_z(name), STR("from.")))
            watch(st->fds[i].fd, name, role_named(str_z(name + 5)), on_door);
        else if (str_starts(str_z(name), STR("path.")))
            watch(st->fds[i].fd, name, role_named(str_z(name + 5)), on_path);
        else if (service_of(name))
            watch(st->fds[i].fd, service_of(name), R_NONE, on_accept);
    }
    if (the->nentries == 0)
        log_fatal("nothing to listen on");
    start_ready(st);
    loop_run(&the->loop);
}
