#include "lib/sasl/plain.h"
#include "lib/base/encode.h"

void
sasl_plain_wipe(struct sasl_plain *r)
{
    buf_wipe(&r->decoded);
    *r = (struct sasl_plain){0};
}

/* RFC 4616 2: [authzid] NUL authcid NUL passwd. */
static int
take_apart(struct sasl_plain *r, struct err *e)
{
    struct str rest = buf_str(&r->decoded);
    ptrdiff_t first = str_chr(rest, '\0');
    if (first < 0)
        return err_set(e, ERR_PROTOCOL, "malformed PLAIN response");
    struct str authzid = str_cut(&rest, '\0');
    if (str_chr(rest, '\0') < 0)
        return err_set(e, ERR_PROTOCOL, "malformed PLAIN response");
    r->user = str_cut(&rest, '\0');
    r->password = rest;
    /* str_utf8() is false for text with a NUL. */
    if (!str_utf8(authzid) || !str_utf8(r->user) || !str_utf8(r->password) || r->user.n == 0 ||
        r->password.n == 0)
        return err_set(e, ERR_PROTOCOL, "malformed PLAIN response");
    if (authzid.n > SASL_USER_MAX || r->user.n > SASL_USER_MAX || r->password.n > SASL_PASSWORD_MAX)
        return err_set(e, ERR_LIMIT, "user name or password too long");
    if (authzid.n && !str_eq(authzid, r->user))
        return err_set(e, ERR_PERMANENT, "authorization as another user is not offered");
    return 0;
}

int
sasl_plain_decode(struct str response, struct sasl_plain *r, struct err *e)
{
    *r = (struct sasl_plain){.decoded = buf_new(SASL_PLAIN_MAX)};
    int n = base64_decode(&r->decoded, response);
    if (n < 0 && !buf_ok(&r->decoded))
        err_set(e, ERR_LIMIT, "user name or password too long");
    else if (n < 0)
        err_set(e, ERR_PROTOCOL, "malformed base64");
    else if (take_apart(r, e) == 0)
        return 0;
    sasl_plain_wipe(r);
    return -1;
}
