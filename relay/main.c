/*
 * relay: carries mail to other hosts by SMTP.
 *
 * qmgr opens a channel for each destination it has mail for; a session serves it, and is the only
 * process of the suite that talks to foreign servers of its own accord. See relay(8).
 */
#include "lib/guard/guard.h"
#include "lib/log/log.h"
#include "relay/session.h"

int
main(int argc, char **argv)
{
    static struct start st;
    static struct conf conf;
    static struct relay relay;
    struct err e = {0};
    start_read(&st, R_RELAY, argc, argv);
    start_config(&st, &conf);
    start_sockets(&st, &conf);
    relay = (struct relay){.start = &st, .conf = &conf};
    if (conf.relay.tls && !(relay.tls = tls_client_new(&e)))
        log_fatal("%s", e.text);
    guard_enter(&(struct guard){
        .role = R_RELAY, .root_fd = start_fd(&st, "root"), .ports = &conf.relay.port, .nports = 1});
    struct listener listener = {.start = &st,
                                /* qmgr counts; one that it has just closed may still be here. */
                                .sessions_max = conf.queue.relay_max + 20,
                                .sessions_per_ip_max = conf.queue.relay_max + 20,
                                .session = relay_session,
                                .arg = &relay};
    listener_serve(&listener);
    return 0;
}
