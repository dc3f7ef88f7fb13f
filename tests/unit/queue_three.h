/* A message to three, and its journal, for the tests of what is on record. */
#pragma once
#include "tests/unit/queue_world.h"

static const char *const three[] = {"a@example.org", "b@example.org", "c@far.example"};

static inline void
journal_path(const struct entry *entry, char path[700])
{
    snprintf(path, 700, "%s/journal/%.2s/%.*s", dir, entry->id + ID_LEN - 2, ID_LEN, entry->id);
}

static inline size_t
journal_size(const struct entry *entry)
{
    char path[700];
    struct stat seen;
    journal_path(entry, path);
    return stat(path, &seen) < 0 ? 0 : (size_t)seen.st_size;
}

/* With the directory of its journal, whose making is another thing. */
static inline struct entry *
accept_three(void)
{
    struct entry *entry = accept_message("s@example.com", three, 3);
    int sub = store_subdir(qmgr.journal, entry->id, true);
    ck_assert_int_ge(sub, 0);
    close(sub);
    return entry;
}

static inline void
answer(struct message *m, size_t i, enum outcome outcome, const char *text)
{
    m->open = 1;
    message_outcome(m, m->rcpts[i], outcome, STR("4.2.1"), str_z(text), STR("none"));
}

static inline void
write_record(struct message *m, const struct buf *b)
{
    struct err e = {0};
    ck_assert_msg(journal_append(m, b, true, &e) == 0, "%s", e.text);
}

/* As a process that knows nothing but the files reads it. */
static inline struct message *
successor(struct entry *entry)
{
    entry_detach(entry);
    entry->flags = 0;
    entry->attempts = 0;
    entry->born_s = 0;
    return load(entry);
}

/* Our own messages. */
static inline size_t
notices(void)
{
    size_t n = 0;
    struct index_at at = index_after(STR(""));
    for (struct entry *entry; (entry = index_next(&at));)
        n += entry->origin == 'b';
    return n;
}
