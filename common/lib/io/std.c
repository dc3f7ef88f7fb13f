#include "lib/io/std.h"
#include <fcntl.h>
#include <unistd.h>

void
std_open(void)
{
    int fd;
    while ((fd = open("/dev/null", O_RDWR)) >= 0 && fd <= 2)
        ;
    if (fd > 2)
        close(fd);
}
