/*
 * keyd: holds the TLS private keys, and signs.
 *
 * tlsd has certificates and no keys. What a handshake needs signed comes here, over a
 * channel; what comes back is a signature. See keyd(8).
 */
#include "keyd/serve.h"
#include "lib/guard/guard.h"
#include "lib/log/log.h"

int
main(int argc, char **argv)
{
    static struct start st;
    static struct conf conf;
    static struct keyd keyd;
    struct err e = {0};
    if (argc == 3 && strcmp(argv[1], "-t") == 0)
        return keyd_keys_try(0, 1, argv[2]);
    start_read(&st, R_KEYD, argc, argv);
    start_config(&st, &conf);
    if (!st.given && keyd_open_files(&st, &conf, &e) < 0)
        log_fatal("%s", e.text);
    start_sockets(&st, &conf);
    if (keyd_keys_prepare(&e) < 0)
        log_fatal("%s", e.text);
    guard_enter(&(struct guard){.role = R_KEYD, .root_fd = start_fd(&st, "root")});
    if (keyd_keys_load(&keyd.keys, &st, &conf, &e) < 0)
        log_fatal("%s", e.text);
    keyd_serve(&keyd, &st);
    return 0;
}
