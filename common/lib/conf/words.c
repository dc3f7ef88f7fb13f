#include "lib/conf/words.h"

#define AT(field) offsetof(struct conf, field)
enum { DAY = 86400, IDS = 0x7fffffff };

#define SERVICE_WORDS(b)                                                                           \
    {#b, "listen", CT_LISTEN, AT(b), 0, 0, true},                                                  \
        {#b, "sessions", CT_COUNT, AT(b.sessions_max), 1, 100000, false},                          \
        {#b, "sessions-per-address", CT_COUNT, AT(b.sessions_per_ip_max), 1, 100000, false},       \
    {                                                                                              \
#b, "idle", CT_TIME, AT(b.idle_s), 1, DAY, false                                           \
    }

static const struct conf_word words[] = {
    {"", "hostname", CT_NAME, AT(hostname), 0, 0, false},
    {"", "domain", CT_NAMES, AT(domains), 0, 0, true},
    {"", "postmaster", CT_TEXT, AT(postmaster), 0, 0, false},
    {"", "aliases", CT_PATH, AT(aliases), 0, 0, false},
    {"", "certificate", CT_KEY, AT(keys), 0, 0, true},
    {"", "resolver", CT_RESOLVER, AT(resolvers), 0, 0, true},
    {"", "message-size", CT_SIZE, AT(message_size_max), 1024, 1ull << 40, false},
    {"", "recipients", CT_COUNT, AT(recipients_max), 1, 1000, false},
    {"", "hops", CT_COUNT, AT(hops_max), 1, 1000, false},
    {"", "log", CT_TEXT, AT(log), 0, 0, false},
    {"", "log-debug", CT_YESNO, AT(log_debug), 0, 0, false},
    {"", "users-prefix", CT_TEXT, AT(user_prefix), 0, 0, false},
    {"directories", "run", CT_PATH, AT(run_dir), 0, 0, false},
    {"directories", "queue", CT_PATH, AT(queue_dir), 0, 0, false},
    {"directories", "state", CT_PATH, AT(state_dir), 0, 0, false},
    {"directories", "mail", CT_PATH, AT(mail_dir), 0, 0, false},
    {"directories", "programs", CT_PATH, AT(libexec_dir), 0, 0, false},
    {"accounts", "user-ids", CT_RANGE, AT(uid_first), 1000, IDS, false},
    {"accounts", "delimiter", CT_TEXT, AT(delimiter), 0, 0, false},
    {"accounts", "quota", CT_SIZE, AT(quota_bytes), 1 << 16, 1ull << 50, false},
    {"accounts", "quota-messages", CT_COUNT, AT(quota_messages), 1, 1000000, false},
    {"accounts", "quota-wait", CT_YESNO, AT(quota_wait), 0, 0, false},
    {"queue", "retry", CT_TIME, AT(queue.retry_min_s), 1, DAY, false},
    {"queue", "retry-max", CT_TIME, AT(queue.retry_max_s), 1, 7 * DAY, false},
    {"queue", "expire", CT_TIME, AT(queue.expire_s), 1, 60 * DAY, false},
    {"queue", "bounce-expire", CT_TIME, AT(queue.bounce_expire_s), 1, 60 * DAY, false},
    {"queue", "list-expire", CT_TIME, AT(queue.list_expire_s), 1, 60 * DAY, false},
    {"queue", "warn-after", CT_TIME, AT(queue.warn_after_s), 1, 60 * DAY, false},
    {"queue", "user-messages", CT_COUNT, AT(queue.user_messages_max), 1, 1000000, false},
    {"queue", "user-size", CT_SIZE, AT(queue.user_size_max), 1 << 16, 1ull << 50, false},
    {"queue", "local-deliveries", CT_COUNT, AT(queue.local_max), 1, 1000, false},
    {"queue", "relay-sessions", CT_COUNT, AT(queue.relay_max), 1, 10000, false},
    {"queue", "destination-sessions", CT_COUNT, AT(queue.destination_max), 1, 1000, false},
    {"relay", "via", CT_VIA, AT(relay), 0, 0, false},
    {"relay", "port", CT_PORT, AT(relay.port), 1, 65535, false},
    {"relay", "source", CT_ADDRESS, AT(relay.source), 0, 0, false},
    {"relay", "tls", CT_YESNO, AT(relay.tls), 0, 0, false},
    {"relay", "connect-time", CT_TIME, AT(relay.connect_s), 1, 3600, false},
    {"relay", "command-time", CT_TIME, AT(relay.command_s), 1, 3600, false},
    {"relay", "data-time", CT_TIME, AT(relay.data_s), 1, DAY, false},
    SERVICE_WORDS(smtpd),
    {"smtpd", "session-time", CT_TIME, AT(smtpd.session_s), 1, 30 * DAY, false},
    {"submitd", "session-time", CT_TIME, AT(submitd.session_s), 1, 30 * DAY, false},
    {"smtpd", "relay-from", CT_NETWORKS, AT(relay_from), 0, 0, true},
    {"smtpd", "relayclient", CT_YESNO, AT(relayclient), 0, 0, false},
    SERVICE_WORDS(submitd),
    SERVICE_WORDS(pop3d),
    SERVICE_WORDS(imapd),
    {"imapd", "park", CT_TIME, AT(imapd.park_s), 1, DAY, false},
};
static const char *const blocks[] = {"directories", "accounts", "queue", "relay",
                                     "smtpd",       "submitd",  "pop3d", "imapd"};

const struct conf_word *
conf_words(size_t *n_r)
{
    *n_r = sizeof words / sizeof words[0];
    return words;
}

struct conf_service *
conf_service_of(struct conf *conf, struct str block)
{
    if (str_eq(block, STR("smtpd")))
        return &conf->smtpd;
    if (str_eq(block, STR("submitd")))
        return &conf->submitd;
    if (str_eq(block, STR("pop3d")))
        return &conf->pop3d;
    return str_eq(block, STR("imapd")) ? &conf->imapd : NULL;
}

bool
conf_is_block(struct str word)
{
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++)
        if (str_eq(word, str_z(blocks[i])))
            return true;
    return false;
}

static void
nearer(struct str written, const char *word, unsigned *best, const char **found)
{
    unsigned distance = str_distance(written, str_z(word));
    if (distance < *best) {
        *best = distance;
        *found = word;
    }
}

const char *
conf_nearest(const char *block, struct str written)
{
    unsigned best = 4;
    const char *found = NULL;
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strcmp(words[i].block, block) == 0)
            nearer(written, words[i].word, &best, &found);
    for (size_t i = 0; *block == '\0' && i < sizeof blocks / sizeof blocks[0]; i++)
        nearer(written, blocks[i], &best, &found);
    return found;
}
