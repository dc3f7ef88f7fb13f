#include "lib/mail/nfc.h"
#include "lib/base/utf8.h"
#include "lib/mail/nfc_table.h"

enum {
    PAIRS = sizeof nfc_pairs / sizeof nfc_pairs[0],
    CLASSES = sizeof nfc_classes / sizeof nfc_classes[0],
    LONGEST = 4, /* characters that one can be taken apart to */
    HANGUL = 0xac00,
    LEADING = 0x1100,
    VOWEL = 0x1161,
    TRAILING = 0x11a7,
    LEADINGS = 19,
    VOWELS = 21,
    TRAILINGS = 28,
};

struct text {
    uint32_t at[NFC_MAX * LONGEST];
    size_t n;
};

static uint8_t
class_of(uint32_t c)
{
    size_t low = 0, high = CLASSES;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (nfc_classes[mid].to < c)
            low = mid + 1;
        else
            high = mid;
    }
    return low < CLASSES && nfc_classes[low].from <= c ? nfc_classes[low].ccc : 0;
}

/* Into its place among the marks before it (canonical ordering). */
static void
add(struct text *t, uint32_t c)
{
    uint8_t class = class_of(c);
    size_t i = t->n++;
    while (class && i && class_of(t->at[i - 1]) > class) {
        t->at[i] = t->at[i - 1];
        i--;
    }
    t->at[i] = c;
}

static ptrdiff_t
pair_of(uint32_t c)
{
    size_t low = 0, high = PAIRS;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (nfc_pairs[mid].c < c)
            low = mid + 1;
        else
            high = mid;
    }
    return low < PAIRS && nfc_pairs[low].c == c ? (ptrdiff_t)low : -1;
}

/* Only the first of a pair can be taken apart again. */
static void
take_apart(struct text *t, uint32_t c)
{
    uint32_t later[LONGEST];
    size_t n = 0;
    if (c >= HANGUL && c < HANGUL + LEADINGS * VOWELS * TRAILINGS) {
        uint32_t s = c - HANGUL, trailing = s % TRAILINGS;
        add(t, LEADING + s / (VOWELS * TRAILINGS));
        add(t, VOWEL + s % (VOWELS * TRAILINGS) / TRAILINGS);
        if (trailing)
            add(t, TRAILING + trailing);
        return;
    }
    for (ptrdiff_t i; (i = pair_of(c)) >= 0 && n < LONGEST; c = nfc_pairs[i].first)
        if (nfc_pairs[i].second)
            later[n++] = nfc_pairs[i].second;
    add(t, c);
    while (n)
        add(t, later[--n]);
}

/* What two become, or 0. */
static uint32_t
joined(uint32_t a, uint32_t b)
{
    if (a >= LEADING && a < LEADING + LEADINGS && b >= VOWEL && b < VOWEL + VOWELS)
        return HANGUL + ((a - LEADING) * VOWELS + (b - VOWEL)) * TRAILINGS;
    if (a >= HANGUL && a < HANGUL + LEADINGS * VOWELS * TRAILINGS &&
        (a - HANGUL) % TRAILINGS == 0 && b > TRAILING && b < TRAILING + TRAILINGS)
        return a + (b - TRAILING);
    for (size_t i = 0; i < PAIRS; i++)
        if (nfc_pairs[i].first == a && nfc_pairs[i].second == b && nfc_pairs[i].joins)
            return nfc_pairs[i].c;
    return 0;
}

static void
put_together(struct text *t)
{
    size_t out = 0, base = SIZE_MAX;
    for (size_t i = 0; i < t->n; i++) {
        uint8_t class = class_of(t->at[i]);
        /* A mark joins its base unless one of its own class, or another base, is between. */
        bool near =
            base != SIZE_MAX && (out == base + 1 || (class && class_of(t->at[out - 1]) < class));
        uint32_t one = near ? joined(t->at[base], t->at[i]) : 0;
        if (one) {
            t->at[base] = one;
            continue;
        }
        if (class == 0)
            base = out;
        t->at[out++] = t->at[i];
    }
    t->n = out;
}

int
nfc_normalise(struct buf *out, struct str text)
{
    struct text t = {.n = 0};
    struct cursor c = cursor_of(text);
    if (text.n > NFC_MAX || !str_utf8(text))
        return -1;
    while (!cur_end(&c))
        take_apart(&t, (uint32_t)utf8_take(&c));
    put_together(&t);
    for (size_t i = 0; i < t.n; i++)
        utf8_put(out, t.at[i]);
    return 0;
}
