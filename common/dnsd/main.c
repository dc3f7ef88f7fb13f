/*
 * dnsd: resolves names for relay and smtpd, and remembers the answers for a while.
 *
 * c-ares and the bytes of foreign name servers stay in this process, which has nothing to lose;
 * what leaves it are host names and addresses that were checked. See dnsd(8).
 */
#include "dnsd/lookup.h"
#include "lib/guard/guard.h"
#include "lib/log/log.h"

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
    guard_enter(&(struct guard){.role = R_DNSD, .root_fd = start_fd(&st, "root")});
    dnsd_serve(&dnsd, &st);
    return 0;
}
