/*
 * tlsd: TLS for the fronts.
 *
 * A front gives its client away and gets the bytes in clear; OpenSSL is in this process alone, one
 * for each connection. See tlsd(8).
 */
#include "lib/guard/guard.h"
#include "lib/loop/image.h"
#include "tlsd/session.h"

int
main(int argc, char **argv)
{
    static struct tlsd d;
    image_enlarge();
    start_read(&d.start, R_TLSD, argc, argv);
    start_config(&d.start, &d.conf);
    start_sockets(&d.start, &d.conf);
    tlsd_prepare(&d);
    guard_enter(&(struct guard){.role = R_TLSD, .root_fd = start_fd(&d.start, "root")});
    listener_serve(&(struct listener){
        .start = &d.start,
        .sessions_max = tlsd_sessions_max(&d),
        .give_way = true,
        .door_max = tlsd_door_max,
        .before_session = tlsd_before_session,
        .session = tlsd_session,
        .arg = &d,
    });
    return 0;
}
