/* imapd: the front of the IMAP server: who somebody is. See imapd(8). */
#include "imapd/front.h"
#include "lib/guard/guard.h"
#include "lib/login/login.h"

int
main(int argc, char **argv)
{
    static struct login_front front = {.name = "imap-login", .delay_ms = LOGIN_DELAY_MS};
    start_read(&front.start, R_IMAPD, argc, argv);
    start_config(&front.start, &front.conf);
    start_sockets(&front.start, &front.conf);
    guard_enter(&(struct guard){.role = R_IMAPD, .root_fd = start_fd(&front.start, "root")});
    listener_serve(&(struct listener){
        .start = &front.start,
        .sessions_max = front.conf.imapd.sessions_max,
        .sessions_per_ip_max = front.conf.imapd.sessions_per_ip_max,
        .give_way = true,
        .busy_line = "* BYE too many connections\r\n",
        .session = imapd_session,
        .arg = &front,
    });
    return 0;
}
