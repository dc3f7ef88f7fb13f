#include "lib/tls/connection.h"
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/rand.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static BIO_METHOD *method;

static struct tls *
of(BIO *bio)
{
    return BIO_get_data(bio);
}

static int
bio_read(BIO *bio, char *to, int n)
{
    struct tls *t = of(bio);
    ssize_t got;
    BIO_clear_retry_flags(bio);
    if (n <= 0)
        return 0;
    do
        got = read(t->fd_in, to, (size_t)n);
    while (got < 0 && errno == EINTR);
    if (got < 0 && errno == EAGAIN)
        BIO_set_retry_read(bio);
    if (got == 0)
        t->eof = true;
    return (int)got;
}

static int
bio_write(BIO *bio, const char *from, int n)
{
    struct tls *t = of(bio);
    ssize_t sent;
    BIO_clear_retry_flags(bio);
    if (n <= 0)
        return 0;
    do {
        sent = send(t->fd_out, from, (size_t)n, MSG_NOSIGNAL);
        if (sent < 0 && errno == ENOTSOCK)
            sent = write(t->fd_out, from, (size_t)n);
    } while (sent < 0 && errno == EINTR);
    if (sent < 0 && errno == EAGAIN)
        BIO_set_retry_write(bio);
    return (int)sent;
}

static long
bio_ctrl(BIO *bio, int what, long number, void *pointer)
{
    (void)number, (void)pointer;
    if (what == BIO_CTRL_EOF)
        return of(bio)->eof;
    return what == BIO_CTRL_FLUSH;
}

static int
bio_create(BIO *bio)
{
    BIO_set_init(bio, 1);
    return 1;
}

static bool
method_ready(void)
{
    if (method)
        return true;
    method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "stream");
    return method && BIO_meth_set_read(method, bio_read) && BIO_meth_set_write(method, bio_write) &&
           BIO_meth_set_ctrl(method, bio_ctrl) && BIO_meth_set_create(method, bio_create);
}

int
tls_library_error(struct err *e, enum err_class class, const char *what)
{
    unsigned long code = ERR_get_error();
    const char *why = code ? ERR_reason_error_string(code) : NULL;
    ERR_clear_error();
    return err_set(e, class, "%s: %s", what, why ? why : "no reason given");
}

int
tls_library_ready(struct err *e)
{
    static bool done;
    unsigned char byte;
    if (done)
        return 0;
    /* openssl.cnf is not ours: what it says must not change what we promise. */
    if (!OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_LOAD_SSL_STRINGS |
                              OPENSSL_INIT_LOAD_CRYPTO_STRINGS,
                          NULL) ||
        RAND_bytes(&byte, 1) != 1 || !method_ready())
        return tls_library_error(e, ERR_PERMANENT, "OpenSSL");
    done = true;
    return 0;
}

void
tls_profile(SSL_CTX *ctx)
{
    SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                 SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                              SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_clear_mode(ctx, SSL_MODE_AUTO_RETRY);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_read_ahead(ctx, 0);
}

/* After a call that did not succeed: 0 the peer said close; -1 with errno, *wait_r when EAGAIN. */
static ssize_t
outcome(struct tls *t, int r, short *wait_r)
{
    switch (SSL_get_error(t->ssl, r)) {
    case SSL_ERROR_ZERO_RETURN:
        return 0;
    case SSL_ERROR_WANT_READ:
        *wait_r = POLLIN;
        errno = EAGAIN;
        return -1;
    case SSL_ERROR_WANT_WRITE:
        *wait_r = POLLOUT;
        errno = EAGAIN;
        return -1;
    default: /* a cut without close_notify is never the end of data */
        t->dead = true;
        errno = ECONNABORTED;
        return -1;
    }
}

static ssize_t
under_read(void *self, char *to, size_t n, short *wait_r)
{
    struct tls *t = self;
    size_t got = 0;
    if (t->dead) {
        errno = ECONNABORTED;
        return -1;
    }
    ERR_clear_error();
    int r = SSL_read_ex(t->ssl, to, n, &got);
    return r > 0 ? (ssize_t)got : outcome(t, r, wait_r);
}

static ssize_t
under_write(void *self, const char *from, size_t n, short *wait_r)
{
    struct tls *t = self;
    size_t sent = 0;
    if (t->dead) {
        errno = ECONNABORTED;
        return -1;
    }
    ERR_clear_error();
    int r = SSL_write_ex(t->ssl, from, n, &sent);
    if (r > 0)
        return (ssize_t)sent;
    ssize_t end = outcome(t, r, wait_r);
    if (end == 0) /* closed by the peer: for a writer that is a broken pipe */
        errno = EPIPE;
    return -1;
}

/* Until the handshake is done or the deadline has passed. */
static int
shake(struct tls *t, int64_t deadline, struct err *e)
{
    for (;;) {
        short wait = 0;
        ERR_clear_error();
        int r = SSL_do_handshake(t->ssl);
        if (r == 1)
            return 0;
        unsigned long code = ERR_peek_error();
        if (outcome(t, r, &wait) == 0 || errno != EAGAIN) {
            const char *why = code ? ERR_reason_error_string(code) : NULL;
            if (t->eof)
                why = "connection closed by peer";
            ERR_clear_error();
            return err_set(e, ERR_CLOSED, "TLS handshake: %s", why ? why : "connection lost");
        }
        struct pollfd p = {.fd = wait == POLLIN ? t->fd_in : t->fd_out, .events = wait};
        int n = poll(&p, 1, ms_left(deadline));
        if (n == 0)
            return err_set(e, ERR_TIMEOUT, "TLS handshake: timeout");
        if (n < 0 && errno != EINTR)
            return err_errno(e, "poll");
    }
}

static void
tls_free(struct tls *t)
{
    SSL_free(t->ssl);
    free(t);
}

static struct tls *
tls_new(SSL_CTX *ctx, bool server, const char *sni, const struct stream *s)
{
    struct tls *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    t->fd_in = s->fd_in;
    t->fd_out = s->fd_out;
    t->server = server;
    t->ssl = SSL_new(ctx);
    BIO *bio = t->ssl ? BIO_new(method) : NULL;
    if (!bio || (sni && !SSL_set_tlsext_host_name(t->ssl, sni))) {
        BIO_free(bio);
        tls_free(t);
        return NULL;
    }
    BIO_set_data(bio, t);
    SSL_set_bio(t->ssl, bio, bio);
    if (server)
        SSL_set_accept_state(t->ssl);
    else
        SSL_set_connect_state(t->ssl);
    return t;
}

int
tls_handshake(SSL_CTX *ctx, bool server, const char *sni, struct stream *s, struct tls **tls_r,
              struct err *e)
{
    int64_t deadline = now_ms() + TLS_HANDSHAKE_MS;
    if (s->deadline_ms < deadline)
        deadline = s->deadline_ms;
    /* What came before TLS must not be taken for what comes inside it (catalogue B1, B3). */
    if (stream_buffered(s))
        return err_set(e, ERR_PROTOCOL, "data in clear behind the start of TLS");
    if (s->under.read)
        return err_set(e, ERR_PROTOCOL, "TLS is already there");
    if (stream_flush(s, e) < 0)
        return -1;
    stream_unblock(s);
    struct tls *t = tls_new(ctx, server, sni, s);
    if (!t)
        return tls_library_error(e, ERR_TEMPORARY, "TLS");
    /* A ticket and a greeting are two small writes: the second must not wait for the peer's delayed
     * acknowledgement of the first. (Not TCP in tests and with inetd: then it is no matter.) */
    static const int on = 1;
    setsockopt(s->fd_out, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (shake(t, deadline, e) < 0) {
        tls_free(t);
        return -1;
    }
    const SSL_CIPHER *cipher = SSL_get_current_cipher(t->ssl);
    struct buf b = buf_on(t->version, sizeof t->version, sizeof t->version - 1);
    buf_addz(&b, SSL_get_version(t->ssl));
    t->version[b.n] = '\0';
    b = buf_on(t->cipher, sizeof t->cipher, sizeof t->cipher - 1);
    buf_addz(&b, cipher ? SSL_CIPHER_get_name(cipher) : "");
    t->cipher[b.n] = '\0';
    t->bits = cipher ? SSL_CIPHER_get_bits(cipher, NULL) : 0;
    s->under = (struct transport){under_read, under_write, t};
    *tls_r = t;
    return 0;
}

const char *
tls_version(const struct tls *t)
{
    return t->version;
}

const char *
tls_cipher(const struct tls *t)
{
    return t->cipher;
}

int
tls_bits(const struct tls *t)
{
    return t->bits;
}

void
tls_end(struct tls *t, int wait_ms)
{
    struct pollfd p = {.fd = t->fd_out, .events = POLLOUT};
    int64_t end = now_ms() + wait_ms;
    bool again = !t->dead && !t->eof;
    while (again) {
        ERR_clear_error();
        int r = SSL_shutdown(t->ssl);
        again = r < 0 && SSL_get_error(t->ssl, r) == SSL_ERROR_WANT_WRITE &&
                poll(&p, 1, ms_left(end)) > 0;
        ERR_clear_error();
    }
}

void
tls_close(struct tls *t, struct stream *s)
{
    if (!t)
        return;
    tls_end(t, 0);
    s->under = (struct transport){0};
    s->broken = true;
    tls_free(t);
}
