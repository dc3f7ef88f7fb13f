#include "dnsd/answer.h"
#include "lib/mail/address.h"

enum { HEAD = 12, LABEL_MAX = 63, JUMPS_MAX = 64, RRS_MAX = 256, CLASS_IN = 1 };
enum { RCODE_OK = 0, RCODE_NXDOMAIN = 3 };
enum { FLAG_QR = 0x8000, FLAG_AA = 0x0400, FLAG_TC = 0x0200, FLAG_RA = 0x0080 };

struct name {
    size_t n;
    char p[DNS_NAME_MAX + 1]; /* lower case, without the last dot; empty: the root */
};

struct rr {
    struct name owner;
    uint16_t type;
    uint32_t ttl;
    size_t data_at, data_n;
};

struct reply {
    struct str all;
    size_t at; /* read position */
    unsigned flags, questions, answers;
};

bool
dns_host_ok(struct str host)
{
    char plain[DNS_NAME_MAX];
    if (host.n > sizeof plain)
        return false;
    for (size_t i = 0; i < host.n; i++)
        plain[i] = host.p[i] == '_' ? 'a' : host.p[i];
    return address_is_domain(str_of(plain, host.n));
}

static int
byte_at(const struct reply *r, size_t at)
{
    return at < r->all.n ? (unsigned char)r->all.p[at] : -1;
}

/* Big-endian n bytes at *at, which moves on; -1 at the end. */
static int64_t
take_number(const struct reply *r, size_t *at, size_t n)
{
    uint64_t v = 0;
    if (*at > r->all.n || n > r->all.n - *at)
        return -1;
    for (size_t i = 0; i < n; i++)
        v = v << 8 | (unsigned char)r->all.p[*at + i];
    *at += n;
    return (int64_t)v;
}

/* One label of length n at `at`, appended. Bytes that would look like something else in text (dots,
 * blanks, controls, 8-bit) make the name unusable, not the reply: *odd. */
static bool
add_label(const struct reply *r, size_t at, size_t n, struct name *name, bool *odd)
{
    size_t need = n + (name->n ? 1 : 0);
    if (at > r->all.n || n > r->all.n - at || need > DNS_NAME_MAX - name->n)
        return false;
    if (name->n)
        name->p[name->n++] = '.';
    for (size_t i = 0; i < n; i++) {
        char c = r->all.p[at + i];
        if (!ch_print(c) || c == '.' || c == ' ')
            *odd = true;
        name->p[name->n++] = ch_lower(c);
    }
    return true;
}

/* The name at *at, which moves behind it. Pointers may only lead backwards, so they end (RFC 1035
 * 4.1.4, catalogue I2). An odd name comes back empty with *odd_r. */
static bool
take_name(const struct reply *r, size_t *at, struct name *name_r, bool *odd_r)
{
    size_t here = *at, lowest = *at;
    bool jumped = false;
    name_r->n = 0;
    *odd_r = false;
    for (int jumps = 0; jumps <= JUMPS_MAX;) {
        int n = byte_at(r, here);
        if (n < 0)
            return false;
        if (n == 0) {
            if (!jumped)
                *at = here + 1;
            name_r->p[name_r->n] = '\0';
            return true;
        }
        if (n <= LABEL_MAX) {
            if (!add_label(r, here + 1, (size_t)n, name_r, odd_r))
                return false;
            here += 1 + (size_t)n;
            continue;
        }
        int64_t to = (n & 0xc0) == 0xc0 ? take_number(r, &here, 2) : -1;
        if (to < 0 || (size_t)(to & 0x3fff) >= lowest)
            return false;
        if (!jumped)
            *at = here;
        jumped = true;
        here = lowest = (size_t)(to & 0x3fff);
        jumps++;
    }
    return false;
}

static bool
take_head(struct reply *r)
{
    size_t at = 2;
    int64_t flags = take_number(r, &at, 2), questions = take_number(r, &at, 2),
            answers = take_number(r, &at, 2);
    if (r->all.n < HEAD || answers < 0)
        return false;
    r->flags = (unsigned)flags;
    r->questions = (unsigned)questions;
    r->answers = (unsigned)answers;
    r->at = HEAD;
    return (r->flags & FLAG_QR) && !(r->flags & FLAG_TC) && r->questions == 1;
}

static bool
same(const struct name *a, struct str b)
{
    return str_caseeq(str_of(a->p, a->n), b);
}

static bool
take_question(struct reply *r, struct str name, enum dns_type type)
{
    struct name asked;
    bool odd;
    if (!take_name(r, &r->at, &asked, &odd) || odd || !same(&asked, name))
        return false;
    int64_t got_type = take_number(r, &r->at, 2), class = take_number(r, &r->at, 2);
    return got_type == (int64_t)type && class == CLASS_IN;
}

/* The next record; *skip_r when it is none we could use. */
static bool
take_rr(struct reply *r, struct rr *rr, bool *skip_r)
{
    bool odd;
    if (!take_name(r, &r->at, &rr->owner, &odd))
        return false;
    int64_t type = take_number(r, &r->at, 2), class = take_number(r, &r->at, 2);
    int64_t ttl = take_number(r, &r->at, 4), n = take_number(r, &r->at, 2);
    if (n < 0 || (size_t)n > r->all.n - r->at)
        return false;
    rr->type = (uint16_t)type;
    rr->ttl = ttl > INT32_MAX ? 0 : (uint32_t)ttl; /* RFC 2181 8 */
    rr->data_at = r->at;
    rr->data_n = (size_t)n;
    r->at += (size_t)n;
    *skip_r = odd || class != CLASS_IN;
    return true;
}

/* A host in the data of rr at offset; false when it does not fill the data exactly. */
static bool
data_name(const struct reply *r, const struct rr *rr, size_t offset, struct name *name_r,
          bool *odd_r)
{
    size_t at = rr->data_at + offset;
    if (rr->data_n <= offset)
        return false;
    return take_name(r, &at, name_r, odd_r) && at == rr->data_at + rr->data_n;
}

static void
add_host(struct dns_answer *a, unsigned preference, const struct name *host)
{
    struct dns_record *to = &a->at[a->n++];
    to->preference = (uint16_t)preference;
    to->n = (uint8_t)host->n;
    memcpy(to->data, host->p, host->n);
}

/* Take what rr says into the answer; false when it is not well-formed. */
static bool
add_data(const struct reply *r, const struct rr *rr, struct dns_answer *a)
{
    struct name host;
    bool odd = false;
    size_t at = rr->data_at;
    if (rr->type == DNS_T_A || rr->type == DNS_T_AAAA) {
        size_t n = rr->type == DNS_T_A ? 4 : 16;
        if (rr->data_n != n)
            return false;
        struct dns_record *to = &a->at[a->n++];
        to->n = (uint8_t)n;
        memcpy(to->data, r->all.p + at, n);
        return true;
    }
    bool mx = rr->type == DNS_T_MX;
    int64_t preference = mx && rr->data_n > 2 ? take_number(r, &at, 2) : 0;
    if (!data_name(r, rr, mx ? 2 : 0, &host, &odd))
        return false;
    if (!odd && mx && host.n == 0) {
        host.p[host.n++] = '.'; /* null MX; whether it is alone is looked at later */
        add_host(a, (unsigned)preference, &host);
    } else if (!odd && dns_host_ok(str_of(host.p, host.n))) {
        add_host(a, (unsigned)preference, &host);
    }
    return true;
}

/* RFC 7505 3: "." means no mail only when it is the one record. */
static void
settle_null_mx(struct dns_answer *a)
{
    size_t kept = 0;
    if (a->n == 1)
        return;
    for (size_t i = 0; i < a->n; i++)
        if (!(a->at[i].n == 1 && a->at[i].data[0] == '.'))
            a->at[kept++] = a->at[i];
    a->n = kept;
}

/* Follow CNAMEs from name: the last owner, or false when they loop or are too many. */
static bool
follow(const struct reply *r, const struct rr *rrs, size_t n, struct name *name,
       struct dns_answer *a)
{
    for (int hops = 0; hops <= DNS_CNAMES_MAX; hops++) {
        size_t i = 0;
        while (i < n &&
               !(rrs[i].type == DNS_T_CNAME && same(&rrs[i].owner, str_of(name->p, name->n))))
            i++;
        if (i == n)
            return true;
        bool odd;
        struct name next;
        if (!data_name(r, &rrs[i], 0, &next, &odd) || odd || next.n == 0)
            return false;
        *name = next;
        if (rrs[i].ttl < a->ttl_s)
            a->ttl_s = rrs[i].ttl;
    }
    return false;
}

static bool
read_records(struct reply *r, struct str name, enum dns_type type, struct dns_answer *a)
{
    static struct rr rrs[RRS_MAX]; /* 70 KiB: dnsd has one thread, and this is no recursion */
    struct name owner = {0};
    size_t n = 0, seen = 0;
    for (unsigned i = 0; i < r->answers && n < RRS_MAX; i++) {
        bool skip;
        if (!take_rr(r, &rrs[n], &skip))
            return false;
        n += !skip;
    }
    memcpy(owner.p, name.p, name.n);
    owner.n = name.n;
    if (!follow(r, rrs, n, &owner, a))
        return false;
    for (size_t i = 0; i < n && a->n < DNS_RECORDS_MAX; i++) {
        if (rrs[i].type != type || !same(&rrs[i].owner, str_of(owner.p, owner.n)))
            continue;
        seen++;
        if (!add_data(r, &rrs[i], a))
            return false;
        if (rrs[i].ttl < a->ttl_s)
            a->ttl_s = rrs[i].ttl;
    }
    settle_null_mx(a);
    return a->n > 0 || seen == 0; /* records, but no usable one: garbage */
}

static void
conclude(struct dns_answer *a, enum dns_status status, uint32_t ttl_s)
{
    a->status = status;
    a->ttl_s = ttl_s < DNS_TTL_MIN_S ? DNS_TTL_MIN_S : ttl_s;
    if (status != DNS_FOUND)
        a->n = 0;
}

void
dns_answer_read(struct str reply, struct str name, enum dns_type type, struct dns_answer *answer_r)
{
    struct reply r = {.all = reply};
    answer_r->n = 0;
    answer_r->ttl_s = DNS_TTL_MAX_S;
    conclude(answer_r, DNS_TRY_AGAIN, DNS_TTL_MIN_S);
    if (name.n > DNS_NAME_MAX || !take_head(&r) || !take_question(&r, name, type))
        return;
    unsigned rcode = r.flags & 15;
    answer_r->ttl_s = DNS_TTL_MAX_S;
    if (rcode == RCODE_NXDOMAIN)
        conclude(answer_r, DNS_NO_DOMAIN, DNS_TTL_NEGATIVE_S);
    else if (rcode != RCODE_OK || !read_records(&r, name, type, answer_r))
        conclude(answer_r, DNS_TRY_AGAIN, DNS_TTL_MIN_S);
    else if (answer_r->n)
        conclude(answer_r, DNS_FOUND, answer_r->ttl_s);
    else if (!(r.flags & (FLAG_AA | FLAG_RA))) /* a referral: it does not look further for us */
        conclude(answer_r, DNS_TRY_AGAIN, DNS_TTL_MIN_S);
    else
        conclude(answer_r, DNS_NO_DATA, DNS_TTL_NEGATIVE_S);
}
