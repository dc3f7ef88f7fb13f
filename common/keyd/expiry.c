#include "keyd/expiry.h"
#include "lib/log/log.h"
#include <openssl/x509v3.h>
#include <stdio.h>
#include <time.h>

enum { DAY_S = 86400 };
static const int warn_at[] = {30, 14, 7, 1};
enum { STEPS = sizeof warn_at / sizeof warn_at[0] };

static void
name_of(X509 *cert, char *to, size_t size)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    struct str found = STR("?");
    for (int i = 0; i < sk_GENERAL_NAME_num(names) && found.p[0] == '?'; i++) {
        const GENERAL_NAME *n = sk_GENERAL_NAME_value(names, i);
        if (n->type == GEN_DNS && ASN1_STRING_length(n->d.dNSName) > 0)
            found = str_of((const char *)ASN1_STRING_get0_data(n->d.dNSName),
                           (size_t)ASN1_STRING_length(n->d.dNSName));
    }
    snprintf(to, size, "%s", log_str(found));
    GENERAL_NAMES_free(names);
}

int
expiry_read(struct keyd_key *k, X509 *cert)
{
    struct tm tm = {0};
    if (ASN1_TIME_to_tm(X509_get0_notAfter(cert), &tm) != 1)
        return -1;
    k->end_s = timegm(&tm);
    name_of(cert, k->name, sizeof k->name);
    return 0;
}

int
expiry_days(const struct keyd_key *k, int64_t at_s)
{
    int64_t left = k->end_s - at_s;
    int64_t days = left >= 0 ? left / DAY_S : -1 - (-left - 1) / DAY_S;
    return days > INT32_MAX ? INT32_MAX : days < INT32_MIN ? INT32_MIN : (int)days;
}

/* How far it has come: 0 while there is time, STEPS + 1 when it is over. */
static unsigned
step_of(int days)
{
    unsigned step = 0;
    while (step < STEPS && days <= warn_at[step])
        step++;
    return days < 0 ? STEPS + 1 : step;
}

unsigned
expiry_tell(struct keyd_keys *keys, int64_t at_s)
{
    unsigned told = 0;
    for (uint32_t i = 0; i < keys->n; i++) {
        struct keyd_key *k = &keys->at[i];
        int days = expiry_days(k, at_s);
        unsigned step = step_of(days);
        if (step > STEPS)
            log_error("the certificate of %s has expired", k->name);
        else if (step > k->told)
            log_warn("the certificate of %s expires in %d day%s: renew it, then bulkhead reload",
                     k->name, days, days == 1 ? "" : "s");
        told += step > STEPS || step > k->told;
        k->told = step;
    }
    return told;
}
