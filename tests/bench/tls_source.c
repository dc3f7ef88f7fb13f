/*
 * tls_source: a client that makes TLS connections, one after the other in each of some processes,
 * and counts them.
 *
 *   tls_source PORT smtp|imap PROCESSES SECONDS full|resume
 *
 * smtp: banner, EHLO, STARTTLS, the handshake, EHLO inside. imap: the handshake, the greeting.
 * resume: each process offers the ticket of its last connection. Prints: connections, those that
 * were resumed, failures, microseconds in all.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct counts {
    unsigned long done, resumed, failed;
};

static double
now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static SSL_SESSION *ticket;

static int
keep(SSL *ssl, SSL_SESSION *session)
{
    (void)ssl;
    SSL_SESSION_free(ticket);
    ticket = session;
    return 1;
}

/* Until a line whose fourth byte is a space: the end of an SMTP reply. */
static bool
reply(int fd, SSL *ssl)
{
    char text[4096];
    size_t n = 0;
    while (n < sizeof text - 1) {
        int got = ssl ? SSL_read(ssl, text + n, (int)(sizeof text - 1 - n))
                      : (int)read(fd, text + n, sizeof text - 1 - n);
        if (got <= 0)
            return false;
        n += (size_t)got;
        text[n] = '\0';
        if (text[n - 1] != '\n')
            continue;
        text[n - 1] = '\0';
        const char *last = strrchr(text, '\n');
        text[n - 1] = '\n';
        last = last ? last + 1 : text;
        if (strlen(last) > 3 && last[3] != '-')
            return true;
    }
    return false;
}

static bool
one(SSL_CTX *ctx, unsigned short port, bool smtp, bool resume, struct counts *c)
{
    struct sockaddr_in in = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    static const int on = 1;
    static const struct linger gone = {1, 0}; /* the ports of the client do not run out */
    static const char ehlo[] = "EHLO x.example\r\n", start[] = "STARTTLS\r\n";
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    bool ok = fd >= 0 && connect(fd, (struct sockaddr *)&in, sizeof in) == 0;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    static const struct timeval patience = {5, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (ok && smtp)
        ok = reply(fd, NULL) && write(fd, ehlo, sizeof ehlo - 1) > 0 && reply(fd, NULL) &&
             write(fd, start, sizeof start - 1) > 0 && reply(fd, NULL);
    SSL *ssl = SSL_new(ctx);
    SSL_set_fd(ssl, fd);
    if (resume && ticket)
        SSL_set_session(ssl, ticket);
    ok = ok && SSL_connect(ssl) == 1;
    if (ok && smtp)
        ok = SSL_write(ssl, ehlo, sizeof ehlo - 1) > 0;
    if (ok)
        ok = reply(fd, ssl);
    if (ok)
        c->resumed += SSL_session_reused(ssl) != 0;
    SSL_set_shutdown(ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(ssl);
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &gone, sizeof gone);
    close(fd);
    ERR_clear_error();
    return ok;
}

int
main(int argc, char **argv)
{
    if (argc != 6)
        return 64;
    unsigned short port = (unsigned short)strtoul(argv[1], NULL, 10);
    bool smtp = strcmp(argv[2], "smtp") == 0, resume = strcmp(argv[5], "resume") == 0;
    unsigned long processes = strtoul(argv[3], NULL, 10);
    double began = now(), end = began + strtod(argv[4], NULL);
    struct counts *all = mmap(NULL, processes * sizeof *all, PROT_READ | PROT_WRITE,
                              MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (processes == 0 || processes > 500 || all == MAP_FAILED)
        return 64;
    for (unsigned long i = 0; i < processes; i++)
        if (fork() == 0) {
            SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
            SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
            SSL_CTX_sess_set_new_cb(ctx, keep);
            while (now() < end) {
                if (one(ctx, port, smtp, resume, &all[i]))
                    all[i].done++;
                else if (all[i].failed++ > 1000)
                    break;
            }
            _exit(0);
        }
    while (wait(NULL) > 0)
        ;
    struct counts sum = {0};
    for (unsigned long i = 0; i < processes; i++) {
        sum.done += all[i].done;
        sum.resumed += all[i].resumed;
        sum.failed += all[i].failed;
    }
    printf("%lu %lu %lu %.0f\n", sum.done, sum.resumed, sum.failed, (now() - began) * 1e6);
    return 0;
}
