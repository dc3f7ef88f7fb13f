/* Tokens of parked IMAP sessions: "account" NUL and a MAC over it and the account's password hash.
 */
#include "common/authd/authd.h"
#include "lib/base/hmac.h"
#include "lib/log/log.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/random.h>
#include <unistd.h>

static const char file_name[] = "park-key";
static unsigned char key[HMAC_KEY];

/* Kept over a restart, so that sessions outlive one. If it cannot be kept, they do not. */
void
token_open(int state_dir)
{
    int fd = openat(state_dir, file_name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, key, sizeof key);
    if (fd >= 0)
        close(fd);
    if (n == (ssize_t)sizeof key)
        return;
    if (getrandom(key, sizeof key, 0) != (ssize_t)sizeof key)
        log_fatal("no random bytes");
    fd = openat(state_dir, file_name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, key, sizeof key) != (ssize_t)sizeof key)
        log_warn("%s: %s: parked sessions will not outlive this process", file_name,
                 strerror(errno));
    if (fd >= 0)
        close(fd);
}

static void
mac_of(const struct account *account, unsigned char mac_r[HMAC_BYTES])
{
    struct buf text = buf_new(ACCOUNT_NAME_MAX + HASH_MAX + 2);
    buf_add(&text, account->name);
    buf_addc(&text, '\0');
    buf_add(&text, account->hash);
    hmac_sha256(key, buf_str(&text), mac_r);
    buf_wipe(&text);
}

void
token_put(struct buf *out, const struct account *account)
{
    unsigned char mac[HMAC_BYTES];
    mac_of(account, mac);
    buf_add(out, account->name);
    buf_addc(out, '\0');
    buf_add(out, str_of((const char *)mac, sizeof mac));
}

struct account *
token_account(struct str token)
{
    unsigned char mac[HMAC_BYTES];
    ptrdiff_t end = str_chr(token, '\0');
    if (end < 0 || token.n != (size_t)end + 1 + sizeof mac)
        return NULL;
    struct account *account = accounts_find(&authd.accounts, str_sub(token, 0, (size_t)end));
    if (!account)
        return NULL;
    mac_of(account, mac);
    return hmac_same(mac, (const unsigned char *)token.p + end + 1) ? account : NULL;
}
