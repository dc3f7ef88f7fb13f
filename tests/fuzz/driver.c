/*
 * Runs targets without libFuzzer: each over its seeds, then over changed seeds.
 *
 *     fuzz-driver [-n RUNS] [-t SECONDS] [-s SEED] [-d SEEDS] [TARGET...]
 *
 * The same SEED makes the same inputs. A target is a process of its own; the input that kills it,
 * or takes longer than LIMIT_S, is left in crash-TARGET. Ends with "N passed, N failed".
 */
#include "lib/base/clock.h"
#include "tests/fuzz/fuzz.h"
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SEEDS_MAX = 200, INPUT_MAX = 65536, LIMIT_S = 20 };

static const struct {
    const char *name;
    void (*run)(struct str in);
} targets[] = {
#define TARGET(name) {#name, fuzz_##name},
#include "tests/fuzz/targets.def"
#undef TARGET
};

static struct {
    unsigned long runs;
    unsigned seconds;
    uint64_t seed;
    const char *seeds;
} options = {2000, 0, 1, "tests/fuzz/seeds"};

static struct { /* shared with the process that runs the target */
    size_t n;
    unsigned long done;
    char bytes[INPUT_MAX];
} * input;

static uint64_t state;

static uint64_t
chance(uint64_t below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return below ? state % below : 0;
}

/* ---- seeds ---- */

static struct buf seeds[SEEDS_MAX];
static size_t nseeds;

static int
by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int
no_dot(const struct dirent *d)
{
    return d->d_name[0] != '.';
}

static void
load_seeds(const char *target)
{
    char path[600];
    struct dirent **names = NULL;
    snprintf(path, sizeof path, "%s/%s", options.seeds, target);
    int n = scandir(path, &names, no_dot, by_name);
    while (nseeds)
        buf_free(&seeds[--nseeds]);
    for (int i = 0; i < n; i++) {
        snprintf(path, sizeof path, "%s/%s/%s", options.seeds, target, names[i]->d_name);
        int fd = nseeds < SEEDS_MAX ? open(path, O_RDONLY | O_CLOEXEC) : -1;
        free(names[i]);
        if (fd < 0)
            continue;
        seeds[nseeds] = buf_new(INPUT_MAX);
        char *to = buf_reserve(&seeds[nseeds], INPUT_MAX - 1);
        ssize_t got = to ? read(fd, to, INPUT_MAX - 1) : -1;
        if (got >= 0)
            buf_commit(&seeds[nseeds++], (size_t)got);
        close(fd);
    }
    free(names);
}

/* ---- changes ---- */

static void
replace(size_t at, size_t n, struct str with)
{
    if (input->n - n + with.n > INPUT_MAX)
        return;
    memmove(input->bytes + at + with.n, input->bytes + at + n, input->n - at - n);
    memcpy(input->bytes + at, with.p, with.n);
    input->n = input->n - n + with.n;
}

static struct str
piece_of(struct str whole, size_t n_max)
{
    size_t at = (size_t)chance(whole.n + 1);
    return str_sub(whole, at, (size_t)chance(n_max) + 1);
}

static void
change(void)
{
    static const char *const words[] = {
        "\r\n", "\"",  "\\", "(",          ")",    "{",  "}",
        "*",    "%",   "$",  "4294967295", "0",    "-1", "{3+}\r\n",
        "=?",   "?=",  ";",  ":",          ",",    "@",  "&",
        "\xff", "1:*", "<>", "\n.\n",      "%00*", " ",  "99999999999999999999"};
    char copy[256], byte = (char)chance(256);
    size_t at = (size_t)chance(input->n + 1), left = input->n - at;
    struct str all = str_of(input->bytes, input->n), piece;
    switch (chance(8)) {
    case 0:
        if (left)
            input->bytes[at] = (char)(input->bytes[at] ^ (1 << chance(8)));
        break;
    case 1:
        replace(at, left > 0, str_of(&byte, 1));
        break;
    case 2:
        replace(at, (size_t)chance(left < 8 ? left + 1 : 8), STR(""));
        break;
    case 3:
        replace(at, 0, str_z(words[chance(sizeof words / sizeof words[0])]));
        break;
    case 4: /* a piece of itself again, maybe often */
        piece = piece_of(all, sizeof copy - 1);
        piece.n = piece.n < sizeof copy ? piece.n : sizeof copy;
        memcpy(copy, piece.p, piece.n);
        for (uint64_t k = chance(10) ? 1 : chance(100); k; k--)
            replace(at, 0, str_of(copy, piece.n));
        break;
    case 5: /* a piece of another seed */
        replace(at, (size_t)chance(left + 1), piece_of(buf_str(&seeds[chance(nseeds)]), 200));
        break;
    case 6:
        input->n = chance(4) ? input->n : at;
        break;
    default:
        memset(copy, byte, sizeof copy);
        replace(at, 0, str_of(copy, (size_t)chance(sizeof copy)));
        break;
    }
}

/* ---- running ---- */

static void
run_all(void (*run)(struct str in))
{
    int64_t end = now_ms() + (int64_t)options.seconds * 1000;
    state = options.seed * 0x9e3779b97f4a7c15u + 1;
    for (unsigned long i = 0; options.seconds ? now_ms() < end : i < nseeds + options.runs; i++) {
        struct str from = buf_str(&seeds[i < nseeds ? i : chance(nseeds)]);
        memcpy(input->bytes, from.p, from.n);
        input->n = from.n;
        for (uint64_t k = i < nseeds ? 0 : chance(6) + 1; k; k--)
            change();
        /* In memory of exactly its size, so that a sanitizer sees a step beyond it. */
        char *exact = malloc(input->n ? input->n : 1);
        memcpy(exact, input->bytes, input->n);
        alarm(LIMIT_S);
        run(str_of(exact, input->n));
        free(exact);
        input->done++;
    }
    alarm(0);
}

static bool
run_target(size_t i)
{
    int64_t began = now_ms();
    load_seeds(targets[i].name);
    if (!nseeds) {
        printf("%-16s has no seeds\n", targets[i].name);
        return false;
    }
    *input = (typeof(*input)){0};
    (void)fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        run_all(targets[i].run);
        exit(0);
    }
    int status = -1;
    waitpid(pid, &status, 0);
    printf("%-16s %4zu seeds %8lu runs %6lld ms  %s\n", targets[i].name, nseeds, input->done,
           (long long)(now_ms() - began), status ? "FAILED" : "ok");
    if (status) {
        char path[100];
        snprintf(path, sizeof path, "crash-%s", targets[i].name);
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        if (fd >= 0 && write(fd, input->bytes, input->n) == (ssize_t)input->n)
            printf("  status %d; its input is in %s\n", status, path);
    }
    return status == 0;
}

static bool
chosen(int argc, char **argv, const char *name)
{
    for (int i = optind; i < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return true;
    return optind == argc;
}

int
main(int argc, char **argv)
{
    unsigned passed = 0, failed = 0;
    for (int c; (c = getopt(argc, argv, "n:t:s:d:")) != -1;)
        switch (c) {
        case 'n':
            options.runs = strtoul(optarg, NULL, 10);
            break;
        case 't':
            options.seconds = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 's':
            options.seed = strtoull(optarg, NULL, 10);
            break;
        case 'd':
            options.seeds = optarg;
            break;
        default:
            return 2;
        }
    input = mmap(NULL, sizeof *input, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (input == MAP_FAILED)
        return 1;
    for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++)
        if (chosen(argc, argv, targets[i].name))
            *(run_target(i) ? &passed : &failed) += 1;
    printf("%u passed, %u failed\n", passed, failed);
    return failed || !passed;
}
