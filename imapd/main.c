/* imapd: the front of the IMAP server: TLS, and who somebody is. See imapd(8). */
#include "imapd/front.h"
#include "lib/guard/guard.h"
#include "lib/login/login.h"

int
main(int argc, char **argv)
{
    static struct login_front front;
    static struct listener listener;
    start_read(&front.start, R_IMAPD, argc, argv);
    front.conf = &front.confs[0];
    start_config(&front.start, front.conf);
    start_sockets(&front.start, front.conf);
    login_prepare(&front, "imap-login", "imap");
    guard_enter(&(struct guard){.role = R_IMAPD, .root_fd = start_fd(&front.start, "root")});
    front.listener = &listener;
    listener = (struct listener){.start = &front.start,
                                 .sessions_max = front.conf->imapd.sessions_max,
                                 .sessions_per_ip_max = front.conf->imapd.sessions_per_ip_max,
                                 .busy_line = "* BYE too many connections\r\n",
                                 .session = imapd_session,
                                 .reload = login_reload,
                                 .arg = &front};
    listener_serve(&listener);
    return 0;
}
