/* dnsd: replies read by hand, the cache, and the daemon against a resolver that lies. */
#include "dnsd/lookup.h"
#include "lib/ipc/channel.h"
#include "lib/log/log.h"
#include "tests/unit/keyring.h"
#include "tests/unit/unit.h"
#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* Building packets. */

static void
put16(struct buf *b, unsigned v)
{
    buf_addc(b, (char)(v >> 8));
    buf_addc(b, (char)v);
}

static void
put_name(struct buf *b, const char *name)
{
    struct str s = str_z(name);
    while (s.n) {
        struct str label = str_cut(&s, '.');
        buf_addc(b, (char)label.n);
        buf_add(b, label);
    }
    buf_addc(b, 0);
}

static void
put_head(struct buf *b, unsigned id, unsigned flags, unsigned answers, const char *name,
         unsigned type)
{
    buf_reset(b);
    put16(b, id);
    put16(b, flags);
    put16(b, 1);
    put16(b, answers);
    put16(b, 0);
    put16(b, 0);
    put_name(b, name);
    put16(b, type);
    put16(b, 1);
}

static void
put_rr(struct buf *b, const char *owner, unsigned type, unsigned ttl, struct str data)
{
    if (owner)
        put_name(b, owner);
    else
        put16(b, 0xc00c); /* the name in the question */
    put16(b, type);
    put16(b, 1);
    put16(b, ttl >> 16);
    put16(b, ttl);
    put16(b, (unsigned)data.n);
    buf_add(b, data);
}

static struct str
name_data(struct buf *b, const char *name)
{
    buf_reset(b);
    put_name(b, name);
    return buf_str(b);
}

static struct str
mx_data(struct buf *b, unsigned preference, const char *host)
{
    buf_reset(b);
    put16(b, preference);
    put_name(b, host);
    return buf_str(b);
}

static struct buf packet, data;
static struct dns_answer answer;

static void
setup(void)
{
    packet = buf_new(65536);
    data = buf_new(4096);
}

static void
teardown(void)
{
    buf_free(&packet);
    buf_free(&data);
}

static enum dns_status
read_it(const char *name, enum dns_type type)
{
    dns_answer_read(buf_str(&packet), str_z(name), type, &answer);
    return answer.status;
}

START_TEST(mx_is_read_in_lower_case_with_its_ttl)
{
    put_head(&packet, 1, 0x8180, 2, "example.org", DNS_T_MX);
    put_rr(&packet, NULL, DNS_T_MX, 900, mx_data(&data, 10, "MX1.example.org"));
    put_rr(&packet, "EXAMPLE.org", DNS_T_MX, 600, mx_data(&data, 20, "mx2.example.org"));
    ck_assert_int_eq(read_it("example.org", DNS_T_MX), DNS_FOUND);
    ck_assert_uint_eq(answer.n, 2);
    ck_assert_uint_eq(answer.at[0].preference, 10);
    ck_str(str_of(answer.at[0].data, answer.at[0].n), "mx1.example.org");
    ck_assert_uint_eq(answer.ttl_s, 600);
}
END_TEST

START_TEST(status_has_three_kinds)
{
    put_head(&packet, 1, 0x8183, 0, "example.org", DNS_T_MX);
    ck_assert_int_eq(read_it("example.org", DNS_T_MX), DNS_NO_DOMAIN);
    put_head(&packet, 1, 0x8182, 0, "example.org", DNS_T_MX);
    ck_assert_int_eq(read_it("example.org", DNS_T_MX), DNS_TRY_AGAIN);
    put_head(&packet, 1, 0x8185, 0, "example.org", DNS_T_MX);
    ck_assert_int_eq(read_it("example.org", DNS_T_MX), DNS_TRY_AGAIN);
    put_head(&packet, 1, 0x8180, 0, "example.org", DNS_T_MX);
    ck_assert_int_eq(read_it("example.org", DNS_T_MX), DNS_NO_DATA);
    put_head(&packet, 1, 0x8500, 0, "example.org", DNS_T_MX); /* no recursion, but authoritative */
    ck_assert_int_eq(read_it("example.org", DNS_T_MX), DNS_NO_DATA);
    put_head(&packet, 1, 0x8100, 0, "example.org", DNS_T_MX); /* neither: a referral */
    ck_assert_int_eq(read_it("example.org", DNS_T_MX), DNS_TRY_AGAIN);
    put_head(&packet, 1, 0x8180, 0, "other.org", DNS_T_MX);
    ck_assert_int_eq(read_it("example.org", DNS_T_MX), DNS_TRY_AGAIN);
    put_head(&packet, 1, 0x8180, 0, "example.org", DNS_T_A);
    ck_assert_int_eq(read_it("example.org", DNS_T_MX), DNS_TRY_AGAIN);
    put_head(&packet, 1, 0x0180, 0, "example.org", DNS_T_MX); /* a question */
    ck_assert_int_eq(read_it("example.org", DNS_T_MX), DNS_TRY_AGAIN);
}
END_TEST

/* Catalogue I2: lengths are looked at before the fields. */
START_TEST(wrong_lengths_are_no_answer)
{
    for (unsigned n = 0; n <= 2; n++) {
        put_head(&packet, 1, 0x8180, 1, "example.org", DNS_T_MX);
        put_rr(&packet, NULL, DNS_T_MX, 60, str_of("\0\1", n));
        ck_assert_int_eq(read_it("example.org", DNS_T_MX), DNS_TRY_AGAIN);
    }
    for (unsigned n = 0; n <= 20; n++) {
        put_head(&packet, 1, 0x8180, 1, "example.org", DNS_T_A);
        put_rr(&packet, NULL, DNS_T_A, 60, str_of("aaaaaaaaaaaaaaaaaaaaa", n));
        ck_assert_int_eq(read_it("example.org", DNS_T_A), n == 4 ? DNS_FOUND : DNS_TRY_AGAIN);
        put_head(&packet, 1, 0x8180, 1, "example.org", DNS_T_AAAA);
        put_rr(&packet, NULL, DNS_T_AAAA, 60, str_of("aaaaaaaaaaaaaaaaaaaaa", n));
        ck_assert_int_eq(read_it("example.org", DNS_T_AAAA), n == 16 ? DNS_FOUND : DNS_TRY_AGAIN);
    }
}
END_TEST

START_TEST(every_cut_of_a_reply_is_no_answer)
{
    put_head(&packet, 1, 0x8180, 2, "example.org", DNS_T_MX);
    put_rr(&packet, NULL, DNS_T_MX, 60, mx_data(&data, 10, "mx1.example.org"));
    put_rr(&packet, NULL, DNS_T_MX, 60, mx_data(&data, 20, "mx2.example.org"));
    for (size_t n = 0; n < packet.n; n++) {
        char *exact = malloc(n ? n : 1); /* so that a sanitizer sees one byte too many */
        memcpy(exact, packet.p, n);
        dns_answer_read(str_of(exact, n), STR("example.org"), DNS_T_MX, &answer);
        ck_assert_int_eq(answer.status, DNS_TRY_AGAIN);
        free(exact);
    }
    for (size_t i = 0; i < packet.n; i++) /* and no single wrong byte does harm */
        for (unsigned bit = 0; bit < 8; bit++) {
            packet.p[i] ^= (char)(1 << bit);
            read_it("example.org", DNS_T_MX);
            packet.p[i] ^= (char)(1 << bit);
        }
}
END_TEST

START_TEST(compression_loops_end)
{
    put_head(&packet, 1, 0x8180, 1, "example.org", DNS_T_MX);
    size_t here = packet.n;
    put16(&packet, 0xc000 | (unsigned)here); /* itself */
    put_rr(&packet, "", DNS_T_MX, 60, STR("x"));
    ck_assert_int_eq(read_it("example.org", DNS_T_MX), DNS_TRY_AGAIN);
    put_head(&packet, 1, 0x8180, 1, "example.org", DNS_T_MX);
    here = packet.n;
    put16(&packet, 0xc000 | (unsigned)(here + 2)); /* forward, and back */
    put16(&packet, 0xc000 | (unsigned)here);
    ck_assert_int_eq(read_it("example.org", DNS_T_MX), DNS_TRY_AGAIN);
}
END_TEST

/* Catalogue I10, I3: names that are no host names go no further. */
START_TEST(odd_names_are_dropped)
{
    static const struct {
        const char *p;
        size_t n;
    } odd[] = {{"\x04"
                "a\nbc"
                "\x00",
                6},
               {"\x08<script>\x00", 10},
               {"\x03"
                "a.b"
                "\x00",
                5},
               {"\x03"
                "a\0b"
                "\x00",
                5},
               {"\x03"
                "-ab"
                "\x00",
                5},
               {"\x03"
                "a/b"
                "\x00",
                5},
               {"\x02\xc3\xbc\x00", 4}};
    for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++) {
        put_head(&packet, 1, 0x8180, 1, "1.0.0.127.in-addr.arpa", DNS_T_PTR);
        put_rr(&packet, NULL, DNS_T_PTR, 60, str_of(odd[i].p, odd[i].n));
        ck_assert_int_eq(read_it("1.0.0.127.in-addr.arpa", DNS_T_PTR), DNS_TRY_AGAIN);
        put_rr(&packet, NULL, DNS_T_PTR, 60, name_data(&data, "good.example"));
        packet.p[7] = 2;
        ck_assert_int_eq(read_it("1.0.0.127.in-addr.arpa", DNS_T_PTR), DNS_FOUND);
        ck_assert_uint_eq(answer.n, 1);
        ck_str(str_of(answer.at[0].data, answer.at[0].n), "good.example");
    }
}
END_TEST

START_TEST(host_names_have_limits)
{
    char name[300];
    memset(name, 'a', sizeof name);
    ck_assert(dns_host_ok(str_of(name, 63)));
    ck_assert(!dns_host_ok(str_of(name, 64)));
    for (size_t i = 63; i < sizeof name; i += 64)
        name[i] = '.';
    ck_assert(dns_host_ok(str_of(name, 253)));
    ck_assert(!dns_host_ok(str_of(name, 254)));
    ck_assert(!dns_host_ok(STR("")));
    ck_assert(!dns_host_ok(STR(".")));
    ck_assert(!dns_host_ok(STR("a.")));
    ck_assert(!dns_host_ok(STR("a..b")));
    ck_assert(!dns_host_ok(STR("a-.b")));
    ck_assert(!dns_host_ok(STR("-_.b")));
    ck_assert(dns_host_ok(STR("_a_b._")));
}
END_TEST

/* Such are the names of some people's mail servers. */
START_TEST(a_host_with_an_underscore_is_one)
{
    put_head(&packet, 1, 0x8180, 1, "example.org", DNS_T_MX);
    put_rr(&packet, NULL, DNS_T_MX, 60, mx_data(&data, 10, "_dc-mx.Mail_1.example.org"));
    ck_assert_int_eq(read_it("example.org", DNS_T_MX), DNS_FOUND);
    ck_assert_uint_eq(answer.n, 1);
    ck_str(str_of(answer.at[0].data, answer.at[0].n), "_dc-mx.mail_1.example.org");
}
END_TEST

/* Catalogue I4. */
START_TEST(cnames_are_followed_but_not_for_ever)
{
    char from[32], to[32];
    for (int hops = 1; hops <= 10; hops++) {
        put_head(&packet, 1, 0x8180, (unsigned)hops + 1, "h0.example", DNS_T_A);
        put_rr(&packet, "h10.example", DNS_T_A, 60, STR("aaaa"));
        packet.p[7] = (char)(hops + 2);
        snprintf(to, sizeof to, "h%d.example", hops);
        put_rr(&packet, to, DNS_T_A, 60, STR("\x7f\0\0\1"));
        for (int i = hops; i > 0; i--) { /* in the wrong order, too */
            snprintf(from, sizeof from, "h%d.example", i - 1);
            snprintf(to, sizeof to, "h%d.example", i);
            put_rr(&packet, from, DNS_T_CNAME, 30, name_data(&data, to));
        }
        ck_assert_int_eq(read_it("h0.example", DNS_T_A),
                         hops <= DNS_CNAMES_MAX ? DNS_FOUND : DNS_TRY_AGAIN);
        if (hops <= DNS_CNAMES_MAX)
            ck_assert_uint_eq(answer.n, 1);
    }
    put_head(&packet, 1, 0x8180, 2, "a.example", DNS_T_A);
    put_rr(&packet, "a.example", DNS_T_CNAME, 30, name_data(&data, "b.example"));
    put_rr(&packet, "b.example", DNS_T_CNAME, 30, name_data(&data, "a.example"));
    ck_assert_int_eq(read_it("a.example", DNS_T_A), DNS_TRY_AGAIN);
}
END_TEST

START_TEST(null_mx_counts_only_alone)
{
    put_head(&packet, 1, 0x8180, 1, "example.org", DNS_T_MX);
    put_rr(&packet, NULL, DNS_T_MX, 60, mx_data(&data, 0, ""));
    ck_assert_int_eq(read_it("example.org", DNS_T_MX), DNS_FOUND);
    ck_assert_uint_eq(answer.n, 1);
    ck_str(str_of(answer.at[0].data, answer.at[0].n), ".");
    packet.p[7] = 2;
    put_rr(&packet, NULL, DNS_T_MX, 60, mx_data(&data, 5, "mx.example.org"));
    ck_assert_int_eq(read_it("example.org", DNS_T_MX), DNS_FOUND);
    ck_assert_uint_eq(answer.n, 1);
    ck_str(str_of(answer.at[0].data, answer.at[0].n), "mx.example.org");
}
END_TEST

START_TEST(records_have_a_ceiling)
{
    put_head(&packet, 1, 0x8180, 1000, "example.org", DNS_T_A);
    for (int i = 0; i < 1000; i++)
        put_rr(&packet, NULL, DNS_T_A, 60, STR("\x7f\0\0\1"));
    ck_assert_int_eq(read_it("example.org", DNS_T_A), DNS_FOUND);
    ck_assert_uint_eq(answer.n, DNS_RECORDS_MAX);
}
END_TEST

START_TEST(ttls_are_clamped)
{
    static const unsigned given[] = {0, 1, 5, 3600, 86400, 0x80000000u, 0xffffffffu};
    static const unsigned want[] = {5, 5, 5, 3600, 3600, 5, 5};
    for (size_t i = 0; i < sizeof given / sizeof given[0]; i++) {
        put_head(&packet, 1, 0x8180, 1, "example.org", DNS_T_A);
        put_rr(&packet, NULL, DNS_T_A, given[i], STR("\x7f\0\0\1"));
        read_it("example.org", DNS_T_A);
        ck_assert_uint_eq(answer.ttl_s, want[i]);
    }
}
END_TEST

START_TEST(cache_forgets_in_order)
{
    struct cache c;
    struct str value;
    char name[32];
    ck_assert_int_eq(cache_init(&c), 0);
    cache_put(&c, STR("a"), STR("1"), 100);
    ck_assert(cache_get(&c, STR("a"), 99, &value));
    ck_str(value, "1");
    cache_put(&c, STR("a"), STR("2"), 100);
    ck_assert(cache_get(&c, STR("a"), 99, &value));
    ck_str(value, "2");
    ck_assert(!cache_get(&c, STR("a"), 100, &value));
    ck_assert_uint_eq(c.n, 0);
    for (int i = 0; i <= DNSD_CACHE_MAX; i++) {
        snprintf(name, sizeof name, "m%d", i);
        cache_put(&c, str_z(name), STR("x"), 1000);
        if (i > 0)
            ck_assert(cache_get(&c, STR("m0"), 1, &value)); /* used: not the oldest */
    }
    ck_assert_uint_eq(c.n, DNSD_CACHE_MAX);
    ck_assert(!cache_get(&c, STR("m1"), 1, &value));
    ck_assert(cache_get(&c, STR("m0"), 1, &value));
    cache_free(&c);
}
END_TEST

START_TEST(cache_has_a_ceiling_in_bytes)
{
    static char big[60000];
    struct cache c;
    char name[32];
    ck_assert_int_eq(cache_init(&c), 0);
    for (int i = 0; i < 1000; i++) {
        snprintf(name, sizeof name, "m%d", i);
        cache_put(&c, str_z(name), str_of(big, sizeof big), 1000);
        ck_assert_uint_le(c.bytes, DNSD_CACHE_BYTES);
    }
    ck_assert_uint_gt(c.n, 200);
    cache_free(&c);
}
END_TEST

/* The daemon, and a resolver that does what the asked name says. */

struct stage {
    pid_t dnsd, resolver;
    struct start start; /* of the client */
    uint16_t port;      /* the resolver's */
};

static int deadline_ms = 1500; /* of the daemon */
static unsigned long asked;    /* in the resolver's process: questions so far */

/* The reply to a question, or nothing. */
static void
lie(struct buf *out, struct str question, bool tcp)
{
    struct buf d = buf_new(1024);
    char name[256] = "";
    size_t at = 12, n = 0;
    while (at < question.n && question.p[at]) {
        if (n)
            name[n++] = '.';
        for (int k = question.p[at++]; k > 0; k--)
            name[n++] = ch_lower(question.p[at++]);
    }
    unsigned type = (unsigned char)question.p[at + 2];
    unsigned id = (unsigned)(unsigned char)question.p[0] << 8 | (unsigned char)question.p[1];
    struct str what = str_z(name);
    what = str_cut(&what, '.');
    asked++;
    put_head(out, id, 0x8180, 1, name, type);
    if (str_eq(what, STR("silent"))) {
        buf_reset(out);
    } else if (str_eq(what, STR("nobody"))) {
        put_head(out, id, 0x8183, 0, name, type);
    } else if (str_eq(what, STR("failing"))) {
        put_head(out, id, 0x8182, 0, name, type);
    } else if (str_eq(what, STR("refusing"))) {
        put_head(out, id, 0x8185, 0, name, type);
    } else if (str_eq(what, STR("wrongid"))) {
        put_head(out, id ^ 1, 0x8183, 0, name, type);
    } else if (str_eq(what, STR("other"))) {
        put_head(out, id, 0x8183, 0, "else.example", type);
    } else if (str_eq(what, STR("broken"))) {
        buf_truncate(out, 9);
    } else if (str_eq(what, STR("big")) && !tcp) {
        put_head(out, id, 0x8380, 0, name, type);
    } else if (str_eq(what, STR("big"))) {
        put_head(out, id, 0x8180, 80, name, type);
        for (unsigned i = 0; i < 80; i++) {
            char host[64];
            snprintf(host, sizeof host, "mx%u.with-a-rather-long-name.example", i);
            put_rr(out, NULL, type, 300, mx_data(&d, i, host));
        }
    } else if (str_eq(what, STR("half")) && type == DNS_T_AAAA) {
        put_head(out, id, 0x8182, 0, name, type);
    } else if (type == DNS_T_MX) {
        put_rr(out, NULL, type, 300, mx_data(&d, 10, "mx.example"));
    } else if (type == DNS_T_A) {
        put_rr(out, NULL, type, 300, STR("\xc0\0\2\1"));
    } else if (type == DNS_T_PTR) {
        put_rr(out, NULL, type, 300, name_data(&d, "client.example"));
    } else {
        put_head(out, id, 0x8180, 0, name, type);
    }
    buf_free(&d);
}

static void
serve_tcp(int listener)
{
    char in[1024];
    struct buf out = buf_new(65000), framed = buf_new(65536);
    int fd = accept(listener, NULL, NULL);
    ssize_t n = read(fd, in, sizeof in);
    if (n > 14) {
        lie(&out, str_of(in + 2, (size_t)n - 2), true);
        put16(&framed, (unsigned)out.n);
        buf_add(&framed, buf_str(&out));
        (void)!write(fd, framed.p, framed.n);
    }
    close(fd);
    buf_free(&out);
    buf_free(&framed);
}

/* Questions with a label "held" are answered when one with "release" has come. */
struct held {
    struct sockaddr_in from;
    size_t n;
    char in[100];
};

static bool
hold(int udp, const struct sockaddr_in *from, struct str in)
{
    static struct held all[10000];
    static size_t n;
    static bool released;
    if (str_find(in, STR("\7release")) >= 0) {
        struct buf out = buf_new(1000);
        released = true;
        for (size_t i = 0; i < n; i++) {
            lie(&out, str_of(all[i].in, all[i].n), false);
            sendto(udp, out.p, out.n, 0, (struct sockaddr *)&all[i].from, sizeof all[i].from);
            if (i % 20 == 0)
                usleep(1000); /* so that they find room there */
        }
        buf_free(&out);
        return true;
    }
    if (released || str_find(in, STR("\4held")) < 0 || n == sizeof all / sizeof all[0])
        return false;
    all[n] = (struct held){.from = *from, .n = in.n};
    memcpy(all[n++].in, in.p, in.n < sizeof all[0].in ? in.n : 0);
    return true;
}

static void
resolve(int udp, int tcp)
{
    struct buf out = buf_new(65000);
    for (;;) {
        struct pollfd p[2] = {{.fd = udp, .events = POLLIN}, {.fd = tcp, .events = POLLIN}};
        char in[1024];
        struct sockaddr_in from;
        socklen_t from_n = sizeof from;
        poll(p, 2, -1);
        if (p[1].revents)
            serve_tcp(tcp);
        if (!p[0].revents)
            continue;
        ssize_t n = recvfrom(udp, in, sizeof in, 0, (struct sockaddr *)&from, &from_n);
        if (n < 17 || hold(udp, &from, str_of(in, (size_t)n)))
            continue;
        /* Catalogue I3: an empty packet before each answer. */
        sendto(udp, "", 0, 0, (struct sockaddr *)&from, from_n);
        lie(&out, str_of(in, (size_t)n), false);
        if (out.n)
            sendto(udp, out.p, out.n, 0, (struct sockaddr *)&from, from_n);
        if (asked > 100000)
            _exit(1);
    }
}

static uint16_t
bind_both(int *udp, int *tcp)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof in;
    *udp = socket(AF_INET, SOCK_DGRAM, 0);
    *tcp = socket(AF_INET, SOCK_STREAM, 0);
    for (int i = 0; i < 20; i++) {
        in.sin_port = 0;
        ck_assert_int_eq(bind(*udp, (struct sockaddr *)&in, sizeof in), 0);
        ck_assert_int_eq(getsockname(*udp, (struct sockaddr *)&in, &n), 0);
        if (bind(*tcp, (struct sockaddr *)&in, sizeof in) == 0 && listen(*tcp, 5) == 0)
            return ntohs(in.sin_port);
        close(*udp);
        *udp = socket(AF_INET, SOCK_DGRAM, 0);
    }
    ck_abort_msg("no port is free for both");
}

static void
set_the_stage(struct stage *s)
{
    static struct conf conf;
    static struct dnsd d;
    struct start service = {.role = R_DNSD};
    struct err e = {0};
    int udp, tcp;
    uint16_t port = bind_both(&udp, &tcp);
    *s = (struct stage){.start.role = R_RELAY, .port = port};
    keyring_door(&s->start, &service, R_RELAY, R_DNSD);
    s->resolver = fork();
    if (s->resolver == 0)
        resolve(udp, tcp);
    close(udp);
    close(tcp);
    conf.nresolvers = 1;
    conf.resolvers[0] = (struct conf_resolver){STR("127.0.0.1"), port};
    s->dnsd = fork();
    if (s->dnsd == 0) {
        if (dnsd_prepare(&d, &conf, &e) < 0)
            _exit(1);
        d.deadline_ms = deadline_ms;
        log_open(open("/dev/null", O_WRONLY), "dnsd");
        close(s->start.fds[0].fd);
        dnsd_serve(&d, &service);
        _exit(0);
    }
    close(service.fds[0].fd);
}

static void
strike(struct stage *s)
{
    int status;
    kill(s->resolver, SIGKILL);
    waitpid(s->resolver, NULL, 0);
    kill(s->dnsd, SIGTERM);
    ck_assert_int_eq(waitpid(s->dnsd, &status, 0), s->dnsd);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "dnsd: status %d", status);
    close(s->start.fds[0].fd);
}

static void
release(struct stage *s)
{
    struct buf b = buf_new(512);
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                             .sin_port = htons(s->port)};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    put_head(&b, 1, 0x100, 0, "release.example", DNS_T_MX);
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(sendto(fd, b.p, b.n, 0, (struct sockaddr *)&to, sizeof to), (ssize_t)b.n);
    close(fd);
    buf_free(&b);
}

static int
channel(struct stage *s)
{
    struct err e = {0};
    int fd = start_channel(&s->start, R_DNSD, NULL, &e);
    ck_assert_msg(fd >= 0, "%s", e.text);
    return fd;
}

static enum dns_status
ask(int fd, enum msg_type question, struct str name, struct msg *m, uint32_t *n_r)
{
    struct err e = {0};
    enum msg_type want = question == M_DNS_MX ? M_DNS_MX_IS : M_DNS_ADDR_IS;
    msg_begin(m, question);
    msg_put_str(m, name);
    ck_assert_msg(chan_ask(fd, m, want, R_RELAY, R_DNSD, 30000, &e) == 0, "%s", e.text);
    enum dns_status status = (enum dns_status)msg_get_u32(m);
    *n_r = msg_get_u32(m);
    return status;
}

START_TEST(the_daemon_tells_lies_from_answers)
{
    static const struct {
        const char *name;
        enum dns_status mx, addr;
    } rows[] = {
        {"good.example", DNS_FOUND, DNS_FOUND},
        {"GOOD.example", DNS_FOUND, DNS_FOUND},
        {"nobody.example", DNS_NO_DOMAIN, DNS_NO_DOMAIN},
        {"failing.example", DNS_TRY_AGAIN, DNS_TRY_AGAIN},
        {"refusing.example", DNS_TRY_AGAIN, DNS_TRY_AGAIN},
        {"broken.example", DNS_TRY_AGAIN, DNS_TRY_AGAIN},
        {"half.example", DNS_FOUND, DNS_FOUND},
    };
    struct stage s;
    struct msg m = {0};
    uint32_t n;
    set_the_stage(&s);
    int fd = channel(&s);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        ck_assert_msg(ask(fd, M_DNS_MX, str_z(rows[i].name), &m, &n) == rows[i].mx, "MX %s",
                      rows[i].name);
        ck_assert_msg(ask(fd, M_DNS_ADDR, str_z(rows[i].name), &m, &n) == rows[i].addr, "A %s",
                      rows[i].name);
    }
    ck_assert_int_eq(ask(fd, M_DNS_MX, STR("good.example"), &m, &n), DNS_FOUND);
    ck_assert_uint_eq(n, 1);
    ck_assert_uint_eq(msg_get_u32(&m), 10);
    ck_str(msg_get_str(&m), "mx.example");
    ck_assert(msg_end(&m));
    ck_assert_int_eq(ask(fd, M_DNS_ADDR, STR("good.example"), &m, &n), DNS_FOUND);
    ck_assert_uint_eq(n, 1);
    ck_assert(str_eq(msg_get_str(&m), STR("\xc0\0\2\1")));
    ck_assert(msg_end(&m));
    close(fd);
    msg_free(&m);
    strike(&s);
}
END_TEST

/* Catalogue I5. */
START_TEST(large_answers_come_over_tcp)
{
    struct stage s;
    struct msg m = {0};
    uint32_t n;
    set_the_stage(&s);
    int fd = channel(&s);
    ck_assert_int_eq(ask(fd, M_DNS_MX, STR("big.example"), &m, &n), DNS_FOUND);
    ck_assert_uint_eq(n, 80);
    for (uint32_t i = 0; i < n; i++) {
        ck_assert_uint_eq(msg_get_u32(&m), i);
        ck_assert(str_starts(msg_get_str(&m), STR("mx")));
    }
    ck_assert(msg_end(&m));
    close(fd);
    msg_free(&m);
    strike(&s);
}
END_TEST

/* Silence, and replies to other questions: in the end "try again", and nobody else waits for it. */
START_TEST(silence_is_not_an_answer)
{
    static const char *const names[] = {"silent.example", "wrongid.example", "other.example"};
    struct stage s;
    struct msg m = {0};
    struct err e = {0};
    uint32_t n;
    int slow[3];
    set_the_stage(&s);
    int64_t began = now_ms();
    for (int i = 0; i < 3; i++) {
        slow[i] = channel(&s);
        msg_begin(&m, M_DNS_MX);
        msg_put_str(&m, str_z(names[i]));
        ck_assert_int_eq(chan_send(slow[i], &m, 1000, &e), 0);
    }
    int gone = channel(&s);
    msg_begin(&m, M_DNS_MX);
    msg_put_str(&m, STR("silent.example"));
    ck_assert_int_eq(chan_send(gone, &m, 1000, &e), 0);
    close(gone); /* it does not wait for its answer */
    int fd = channel(&s);
    ck_assert_int_eq(ask(fd, M_DNS_MX, STR("good.example"), &m, &n), DNS_FOUND);
    ck_assert_int_lt(now_ms() - began, 1000);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(chan_recv(slow[i], &m, R_DNSD, R_RELAY, 25000, &e), 1);
        ck_assert_int_eq(m.type, M_DNS_MX_IS);
        ck_assert_uint_eq(msg_get_u32(&m), DNS_TRY_AGAIN);
        close(slow[i]);
    }
    ck_assert_int_lt(now_ms() - began, 4000);
    close(fd);
    msg_free(&m);
    strike(&s);
}
END_TEST

START_TEST(bad_questions_cost_their_asker)
{
    struct stage s;
    struct msg m = {0};
    struct err e = {0};
    uint32_t n;
    set_the_stage(&s);
    int fd = channel(&s), bad = channel(&s);
    msg_begin(&m, M_DNS_MX);
    msg_put_str(&m, STR("not a host"));
    ck_assert_int_eq(chan_ask(bad, &m, M_DNS_MX_IS, R_RELAY, R_DNSD, 5000, &e), -1);
    ck_assert_int_eq(e.class, ERR_PERMANENT);
    for (int i = 0; i < 2; i++) { /* a second question before the first answer */
        msg_begin(&m, M_DNS_MX);
        msg_put_str(&m, STR("silent.example"));
        ck_assert_int_eq(chan_send(bad, &m, 1000, &e), 0);
    }
    ck_assert_int_eq(chan_recv(bad, &m, R_DNSD, R_RELAY, 5000, &e), 0);
    close(bad);
    ck_assert_int_eq(ask(fd, M_DNS_MX, STR("good.example"), &m, &n), DNS_FOUND);
    close(fd);
    msg_free(&m);
    strike(&s);
}
END_TEST

static void
ask_only(int fd, struct str name)
{
    struct msg m = {0};
    struct err e = {0};
    msg_begin(&m, M_DNS_MX);
    msg_put_str(&m, name);
    ck_assert_int_eq(chan_send(fd, &m, 5000, &e), 0);
    msg_free(&m);
}

/* With so many under way a new question is put off at once, and what needs none is answered: one
 * that is kept, and one that is asked already. All that are under way end well. */
START_TEST(questions_at_their_ceiling)
{
    static int fds[DNSD_LOOKUPS_MAX];
    struct stage s;
    struct msg m = {0};
    struct err e = {0};
    uint32_t n, tries = 0;
    char name[40];
    deadline_ms = 60000;
    set_the_stage(&s);
    int fd = channel(&s), same = channel(&s);
    ck_assert_int_eq(ask(fd, M_DNS_MX, STR("good.example"), &m, &n), DNS_FOUND);
    for (size_t i = 0; i < DNSD_LOOKUPS_MAX; i++) {
        snprintf(name, sizeof name, "d%zu.held.example", i);
        fds[i] = channel(&s);
        ask_only(fds[i], str_z(name));
        snprintf(name, sizeof name, "d%zu.example", i);
        if (i % 20 == 0) /* so that neither falls behind, and what is sent finds room */
            ck_assert_int_eq(ask(fd, M_DNS_MX, str_z(name), &m, &n), DNS_FOUND);
    }
    do { /* until it has heard them all */
        ck_assert_uint_lt(tries, 10000);
        snprintf(name, sizeof name, "new%u.example", tries++);
    } while (ask(fd, M_DNS_MX, str_z(name), &m, &n) != DNS_TRY_AGAIN);
    ask_only(same, STR("d1999.held.example"));
    ck_assert_int_eq(ask(fd, M_DNS_MX, STR("good.example"), &m, &n), DNS_FOUND);
    release(&s);
    for (size_t i = 0; i <= DNSD_LOOKUPS_MAX; i++) {
        int one = i < DNSD_LOOKUPS_MAX ? fds[i] : same;
        ck_assert_int_eq(chan_recv(one, &m, R_DNSD, R_RELAY, 60000, &e), 1);
        ck_assert_uint_eq(msg_get_u32(&m), DNS_FOUND);
        close(one);
    }
    ck_assert_int_eq(ask(fd, M_DNS_MX, str_z(name), &m, &n), DNS_FOUND);
    close(fd);
    msg_free(&m);
    strike(&s);
}
END_TEST

Suite *suite_dnsd(void);
Suite *
suite_dnsd(void)
{
    Suite *s = suite_create("dnsd");
    TCase *t = tcase_create("answer");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, mx_is_read_in_lower_case_with_its_ttl);
    tcase_add_test(t, status_has_three_kinds);
    tcase_add_test(t, wrong_lengths_are_no_answer);
    tcase_add_test(t, every_cut_of_a_reply_is_no_answer);
    tcase_add_test(t, compression_loops_end);
    tcase_add_test(t, odd_names_are_dropped);
    tcase_add_test(t, host_names_have_limits);
    tcase_add_test(t, a_host_with_an_underscore_is_one);
    tcase_add_test(t, cnames_are_followed_but_not_for_ever);
    tcase_add_test(t, null_mx_counts_only_alone);
    tcase_add_test(t, records_have_a_ceiling);
    tcase_add_test(t, ttls_are_clamped);
    tcase_add_test(t, cache_forgets_in_order);
    tcase_add_test(t, cache_has_a_ceiling_in_bytes);
    suite_add_tcase(s, t);
    t = tcase_create("daemon");
    tcase_set_timeout(t, 300);
    tcase_add_test(t, the_daemon_tells_lies_from_answers);
    tcase_add_test(t, large_answers_come_over_tcp);
    tcase_add_test(t, silence_is_not_an_answer);
    tcase_add_test(t, bad_questions_cost_their_asker);
    tcase_add_test(t, questions_at_their_ceiling);
    suite_add_tcase(s, t);
    return s;
}
