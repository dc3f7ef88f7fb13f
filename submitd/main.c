/* submitd: takes mail from our own users. See submitd(8). */
#include "lib/guard/guard.h"
#include "submitd/session.h"

int
main(int argc, char **argv)
{
    static struct submitd d;
    start_read(&d.start, R_SUBMITD, argc, argv);
    start_config(&d.start, &d.conf);
    start_sockets(&d.start, &d.conf);
    known_open(&d.known, &d.start, false);
    guard_enter(&(struct guard){
        .role = R_SUBMITD,
        .root_fd = start_fd(&d.start, "root"),
    });
    listener_serve(&(struct listener){
        .start = &d.start,
        .sessions_max = d.conf.submitd.sessions_max,
        .sessions_per_ip_max = d.conf.submitd.sessions_per_ip_max,
        .give_way = true,
        .busy_line = "421 4.3.2 too many connections, try again later\r\n",
        .session = submitd_session,
        .arg = &d,
    });
    return 0;
}
