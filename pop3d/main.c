/* pop3d: the front of the POP3 server: who somebody is. See pop3d(8). */
#include "pop3d/front.h"
#include "lib/guard/guard.h"
#include "lib/login/login.h"

int
main(int argc, char **argv)
{
    static struct login_front front = {.name = "pop3-login", .delay_ms = LOGIN_DELAY_MS};
    start_read(&front.start, R_POP3D, argc, argv);
    start_config(&front.start, &front.conf);
    start_sockets(&front.start, &front.conf);
    guard_enter(&(struct guard){.role = R_POP3D, .root_fd = start_fd(&front.start, "root")});
    listener_serve(&(struct listener){
        .start = &front.start,
        .sessions_max = front.conf.pop3d.sessions_max,
        .sessions_per_ip_max = front.conf.pop3d.sessions_per_ip_max,
        .give_way = true,
        .busy_line = "-ERR too many connections\r\n",
        .session = pop3d_session,
        .arg = &front,
    });
    return 0;
}
