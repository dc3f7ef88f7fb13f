/*
 * local(8): see local.h.
 */
#include "lib/guard/guard.h"
#include "lib/log/log.h"
#include "local/local.h"
#include <fcntl.h>
#include <unistd.h>

static struct start start;
static struct conf conf;
static struct local local;

static void
report(size_t line, const char *what)
{
    log_error("aliases:%zu: %s", line, what);
}

int
main(int argc, char **argv)
{
    struct err e = {0};
    start_read(&start, R_LOCAL, argc, argv);
    start_config(&start, &conf);
    start_sockets(&start, &conf);
    known_open(&local.known, &start, false);
    int aliases = start_fd(&start, "dir.aliases");
    if (aliases < 0 && !start.given)
        aliases = open(conf.aliases.p, O_RDONLY | O_CLOEXEC);
    struct guard guard = {.role = R_LOCAL, .root_fd = start_fd(&start, "root")};
    guard_enter(&guard);

    local.start = &start;
    local.conf = &conf;
    if (aliases >= 0 && aliases_read(&local.aliases, aliases, conf.domains[0],
                                     conf_other_name(&conf), report, &e) < 0)
        log_fatal("%s", e.text);
    struct listener listener = {.start = &start,
                                .sessions_max = conf.queue.local_max + 10,
                                .sessions_per_ip_max = conf.queue.local_max + 10,
                                .session = local_session,
                                .arg = &local};
    listener_serve(&listener);
    return 0;
}
