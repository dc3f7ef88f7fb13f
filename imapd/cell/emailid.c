/* EMAILID (RFC 8474 5.1): the message's SHA-256, cut. */
#include "imapd/cell/fetch.h"
#include "lib/base/sha256.h"
#include <stdlib.h>

enum { SHOWN = 20 };

int
icell_emailid(struct buf *out, struct mailfile *f, struct err *e)
{
    struct sha256 h;
    struct str piece;
    unsigned char digest[SHA256_BYTES];
    struct mailreader *r = malloc(sizeof *r);
    int got = r ? 1 : err_set(e, ERR_TEMPORARY, "out of memory");
    uint64_t size = 0;
    if (r && mailfile_size(f, &size, e) < 0)
        got = -1;
    if (got > 0)
        mailreader_begin(r, f, 0, size);
    sha256_begin(&h);
    while (got > 0 && (got = mailreader_next(r, &piece, e)) > 0)
        sha256_add(&h, piece);
    free(r);
    if (got < 0)
        return -1;
    sha256_end(&h, digest);
    buf_addz(out, "(M");
    for (size_t i = 0; i < SHOWN; i++)
        buf_addf(out, "%02x", digest[i]);
    buf_addc(out, ')');
    return 0;
}
