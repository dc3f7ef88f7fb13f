#include "tests/unit/keyring.h"
#include "keyd/serve.h"
#include "lib/base/str.h"
#include "lib/ipc/message.h"
#include "lib/log/log.h"
#include "lib/role/sockets.h"
#include "tests/unit/unit.h"
#include "tlsd/session.h"
#include <fcntl.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static X509 *
certificate(const char *name, EVP_PKEY *key)
{
    char alt[300];
    X509 *cert = X509_new();
    snprintf(alt, sizeof alt, "DNS:%s", name);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, alt);
    ck_assert(cert && extension);
    ck_assert(X509_set_version(cert, 2));
    ck_assert(ASN1_INTEGER_set(X509_get_serialNumber(cert), 1));
    ck_assert_ptr_nonnull(X509_gmtime_adj(X509_getm_notBefore(cert), 0));
    ck_assert_ptr_nonnull(X509_gmtime_adj(X509_getm_notAfter(cert), 3600));
    ck_assert(X509_set_pubkey(cert, key));
    ck_assert(X509_add_ext(cert, extension, -1));
    ck_assert(X509_sign(cert, key, EVP_sha256()));
    X509_EXTENSION_free(extension);
    return cert;
}

static int
memory_file(BIO *bio)
{
    char *p;
    long n = BIO_get_mem_data(bio, &p);
    int fd = memfd_create("pem", MFD_CLOEXEC);
    ck_assert(fd >= 0 && write(fd, p, (size_t)n) == n);
    BIO_free(bio);
    return fd;
}

void
keyring_pair(const char *name, int *key_fd, int *chain_fd)
{
    EVP_PKEY *key = str_starts(str_z(name), STR("rsa.")) ? EVP_RSA_gen(2048) : EVP_EC_gen("P-256");
    X509 *cert = certificate(name, key);
    BIO *a = BIO_new(BIO_s_mem()), *b = BIO_new(BIO_s_mem());
    ck_assert(PEM_write_bio_PrivateKey(a, key, NULL, NULL, 0, NULL, NULL));
    ck_assert(PEM_write_bio_X509(b, cert));
    *key_fd = memory_file(a);
    *chain_fd = memory_file(b);
    X509_free(cert);
    EVP_PKEY_free(key);
}

void
keyring_door(struct start *client, struct start *service, enum role from, enum role to)
{
    const char *more;
    for (size_t i = 0; (more = sockets_door(from, to, i)); i++) {
        int pair[2];
        char name[32];
        ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
        snprintf(name, sizeof name, "to.%s%s", role_name(to), more);
        start_add_fd(client, pair[0], name);
        snprintf(name, sizeof name, "from.%s%s", role_name(from), more);
        start_add_fd(service, pair[1], name);
    }
}

static void
keyring_close(const struct start *st)
{
    for (size_t i = 0; i < st->nfds; i++)
        close(st->fds[i].fd);
}

void
keyring_start(struct keyring *k, enum role client, const char *const *names)
{
    struct start service = {.role = R_KEYD};
    struct keyd keyd = {0};
    struct err e = {0};
    *k = (struct keyring){.start.role = client};
    keyring_door(&k->start, &service, client, R_KEYD);
    ck_assert_int_eq(keyd_keys_prepare(&e), 0);
    for (; *names; names++) {
        int key_fd, chain_fd;
        keyring_pair(*names, &key_fd, &chain_fd);
        ck_assert_msg(keyd_keys_add(&keyd.keys, key_fd, chain_fd, R_ANY, &e) == 0, "%s", e.text);
        close(key_fd);
        close(chain_fd);
    }
    k->pid = fork();
    if (k->pid == 0) {
        keyring_close(&k->start);
        log_open(open("/dev/null", O_WRONLY), "keyd");
        signal(SIGTERM, SIG_DFL); /* the test library's handler ends the tests */
        keyd_serve(&keyd, &service);
        _exit(0);
    }
    keyring_close(&service);
    keyd_keys_free(&keyd.keys);
}

void
keyring_stop(struct keyring *k)
{
    kill(k->pid, SIGTERM);
    waitpid(k->pid, NULL, 0);
    keyring_close(&k->start);
}

pid_t
keyring_tlsd(struct keyring *k, struct start *front)
{
    static struct tlsd d;
    struct start service = {.role = R_TLSD};
    struct msg m = {0};
    keyring_door(front, &service, front->role, R_TLSD);
    pid_t pid = fork();
    if (pid == 0) {
        signal(SIGCHLD, SIG_IGN);
        close(start_door(front, R_TLSD));
        d.start = k->start;
        d.conf.nkeys = 1;
        d.conf.keys[0].fronts = (unsigned)front->role;
        tlsd_prepare(&d);
        struct pollfd p = {.fd = service.fds[0].fd, .events = POLLIN};
        while (poll(&p, 1, -1) == 1 && msg_recv(p.fd, &m, front->role, R_TLSD) == 1) {
            struct peer peer = {.fd_in = msg_take_fd(&m, 0), .from = front->role};
            peer.fd_out = peer.fd_in;
            tlsd_before_session(&d);
            if (fork() == 0) {
                close(service.fds[0].fd);
                tlsd_session(&peer, &d);
                _exit(0);
            }
            close(peer.fd_in);
        }
        _exit(0);
    }
    close(service.fds[0].fd);
    return pid;
}
