#include "common/master/ctl/ctl.h"
#include "lib/ipc/channel.h"
#include <stdio.h>
#include <unistd.h>

enum { ASK_MS = 30000 };

int
ctl_ask(struct ctl *ctl, enum role service, struct msg *m, enum msg_type want)
{
    char path[320];
    struct err e;
    snprintf(path, sizeof path, "%.*s/%s.bulkhead", STR_ARG(ctl->conf.run_dir), role_name(service));
    int fd = chan_connect(path, &e);
    int ok = fd < 0 ? -1 : chan_ask(fd, m, want, R_CTL, service, ASK_MS, &e);
    if (fd >= 0)
        close(fd);
    if (ok < 0) {
        fprintf(stderr, "bulkhead: %s\n", e.text);
        msg_free(m);
    }
    return ok;
}

void
ctl_json_str(struct str s)
{
    putchar('"');
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c == '"' || c == '\\')
            printf("\\%c", c);
        else if (c < 0x20 || c >= 0x7f)
            printf("\\u%04x", c);
        else
            putchar(c);
    }
    putchar('"');
}
