/*
 * dnsd: resolves names for relay and smtpd, and remembers the answers for a while.
 *
 * c-ares and the bytes of foreign name servers stay in this process, which has nothing to lose;
 * what leaves it are host names and addresses that were checked. See dnsd(8).
 */
#include "dnsd/lookup.h"
#include "lib/guard/guard.h"
#include "lib/log/log.h"

enum { NAME_SERVER_PORT = 53 };

int
main(int argc, char **argv)
{
    static struct start st;
    static struct conf conf;
    static struct dnsd dnsd;
    struct err e = {0};
    start_read(&st, R_DNSD, argc, argv);
    start_config(&st, &conf);
    start_sockets(&st, &conf);
    if (dnsd_prepare(&dnsd, &conf, &e) < 0)
        log_fatal("%s", e.text);
    uint16_t ports[sizeof conf.resolvers / sizeof conf.resolvers[0]] = {NAME_SERVER_PORT};
    size_t nports = conf.nresolvers ? conf.nresolvers : 1; /* the system's */
    for (size_t i = 0; i < conf.nresolvers; i++)
        ports[i] = conf.resolvers[i].port;
    guard_enter(&(struct guard){
        .role = R_DNSD, .root_fd = start_fd(&st, "root"), .ports = ports, .nports = nports});
    dnsd_serve(&dnsd, &st);
    return 0;
}
