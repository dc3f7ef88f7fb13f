#include "common/master/ctl/ctl.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

static void
print_errors(const char *path, const struct conf_errors *errors)
{
    for (size_t i = 0; i < errors->n; i++)
        fprintf(stderr, "%s:%u:%u: %s\n", path, errors->at[i].line, errors->at[i].column,
                errors->at[i].text);
    if (errors->suppressed)
        fprintf(stderr, "%s: and %zu more errors\n", path, errors->suppressed);
}

int
ctl_read_config_from(struct ctl *ctl, int fd)
{
    static struct conf_errors errors;
    if (conf_read(&ctl->conf, str_z(ctl->config_path), fd, &errors) == 0)
        return 0;
    print_errors(ctl->config_path, &errors);
    return 78; /* EX_CONFIG */
}

int
ctl_read_config(struct ctl *ctl)
{
    int fd = open(ctl->config_path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        fprintf(stderr, "%s: %s\n", ctl->config_path, strerror(errno));
        return 78;
    }
    int status = ctl_read_config_from(ctl, fd);
    close(fd);
    return status;
}

int
ctl_check(struct ctl *ctl, int argc, char **argv)
{
    (void)argv;
    if (argc != 1) {
        fprintf(stderr, "usage: bulkhead [-f FILE] check\n");
        return 64;
    }
    int status = ctl_read_config(ctl);
    if (status == 0)
        printf("%s: good\n", ctl->config_path);
    return status;
}
