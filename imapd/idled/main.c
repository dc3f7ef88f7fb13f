/*
 * idled: waits for clients of imapd that are waiting themselves. See idled(8).
 */
#include "imapd/idled/idled.h"
#include "lib/guard/guard.h"
#include "lib/role/sockets.h"

int
main(int argc, char **argv)
{
    static struct start st;
    static struct conf conf;
    start_read(&st, R_IDLED, argc, argv);
    start_config(&st, &conf);
    start_sockets(&st, &conf);
    guard_enter(&(struct guard){.role = R_IDLED, .root_fd = start_fd(&st, "root")});
    idled_serve(&st);
    return 0;
}
