/*
 * std: descriptors 0, 1 and 2, for the commands that anybody starts: bulkhead(8) and sendmail(1).
 *
 * Some callers close them. Then a socket or a file of ours would be where errors are printed.
 */
#pragma once

/* Open /dev/null at each of the three that is not open. */
void std_open(void);
