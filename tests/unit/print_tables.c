/*
 * print_tables: the tables of the code as lines of text, for tests/protocol/test_docs.py, which
 * compares them with what the documents say. A program of its own, not a suite.
 *
 *   message NAME NUMBER FROM TO DESCRIPTORS     roles with '+' between them, or "any"
 *   link CLIENT SERVICE                         a door of sockets_linked()
 *   word BLOCK WORD TYPE DEFAULT                block "-" is the top, default "-" is none
 *   role NAME CALLS SESSION_CALLS FILES         counts of system calls; 0: no sessions
 *   call NAME SETS                              each system call, and the sets it is in
 */
#include "lib/conf/words.h"
#include "lib/guard/table.h"
#include "lib/role/sockets.h"
#include <stdio.h>
#include <stdlib.h>

enum { CALLS_MAX = 256 };

static void
print_roles(unsigned set)
{
    const char *between = "";
    if (set == R_ANY) {
        printf(" any");
        return;
    }
    putchar(' ');
    for (unsigned bit = 1; bit < R_ANY; bit <<= 1)
        if (set & bit) {
            printf("%s%s", between, role_name((enum role)bit));
            between = "+";
        }
}

static void
print_messages(void)
{
    size_t n;
    const struct msg_row *rows = msg_rows(&n);
    for (size_t i = 0; i < n; i++) {
        printf("message %s %d", rows[i].name, (int)rows[i].type);
        print_roles(rows[i].from);
        print_roles(rows[i].to);
        printf(" %u\n", rows[i].fds);
    }
}

static void
print_links(void)
{
    for (unsigned client = 1; client < R_ANY; client <<= 1)
        for (unsigned service = 1; service < R_ANY; service <<= 1)
            if (sockets_linked((enum role)client, (enum role)service))
                printf("link %s %s\n", role_name((enum role)client), role_name((enum role)service));
}

/* As bulkhead.conf would have it: the greatest unit that divides the number. */
static void
print_scaled(uint64_t v, const char *units, const uint64_t *scales)
{
    for (size_t i = 0; units[i]; i++)
        if (v && v % scales[i] == 0) {
            printf("%llu%c", (unsigned long long)(v / scales[i]), units[i]);
            return;
        }
    printf("%llu", (unsigned long long)v);
}

static void
print_default(const struct conf *conf, const struct conf_word *w)
{
    static const uint64_t seconds[] = {86400, 3600, 60, 1}, bytes[] = {1 << 30, 1 << 20, 1 << 10};
    const void *field = (const char *)conf + w->offset;
    const struct str *text = field;
    switch (w->type) {
    case CT_COUNT:
        printf("%u", *(const uint32_t *)field);
        break;
    case CT_PORT:
        printf("%u", *(const uint16_t *)field);
        break;
    case CT_TIME:
        print_scaled(*(const uint32_t *)field, "dhms", seconds);
        break;
    case CT_SIZE:
        print_scaled(*(const uint64_t *)field, "GMK", bytes);
        break;
    case CT_YESNO:
        printf("%s", *(const bool *)field ? "yes" : "no");
        break;
    case CT_RANGE:
        printf("%u to %u", conf->uid_first, conf->uid_last);
        break;
    case CT_TEXT:
    case CT_PATH:
    case CT_ADDRESS:
        printf("%s", text->n ? text->p : "-");
        break;
    default: /* names, keys, addresses to listen on: nothing, or told in words */
        printf("-");
    }
}

/* Defaults are those of a text that says nothing but what must be said. */
static void
print_words(void)
{
    static struct conf conf;
    static struct conf_errors errors;
    size_t n;
    const struct conf_word *words = conf_words(&n);
    if (conf_parse(&conf, STR("none"), STR("version 1\nhostname h\ndomain d\n"), &errors) < 0)
        exit(1);
    for (size_t i = 0; i < n; i++) {
        printf("word %s %s ", words[i].block[0] ? words[i].block : "-", words[i].word);
        printf("%d ", (int)words[i].type);
        print_default(&conf, &words[i]);
        putchar('\n');
    }
    conf_free(&conf);
}

static void
print_guard(void)
{
    size_t n, calls;
    const struct guard_row *rows = guard_rows(&n);
    int list[CALLS_MAX];
    for (size_t i = 0; i < n; i++)
        printf("role %s %zu %zu %u\n", role_name(rows[i].role),
               guard_calls(rows[i].sets, list, CALLS_MAX),
               guard_calls(rows[i].session_sets, list, CALLS_MAX), rows[i].files_max);
    for (unsigned set = 1; set <= GS_START; set <<= 1) {
        calls = guard_calls(set, list, CALLS_MAX);
        for (size_t i = 0; i < calls; i++)
            printf("call %s %u\n", guard_call_name(list[i]), set);
    }
}

int
main(void)
{
    print_messages();
    print_links();
    print_words();
    print_guard();
    return 0;
}
