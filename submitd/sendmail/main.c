/* sendmail, mailq, newaliases: see sendmail(1). */
#include "submitd/sendmail/sendmail.h"

int
main(int argc, char **argv)
{
    return sendmail_run(argc, argv);
}
