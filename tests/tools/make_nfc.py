#!/usr/bin/env python3
"""Writes common/lib/mail/nfc_table.h from the Unicode data that Python has."""
import os
import sys
import unicodedata as u

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def text():
    pairs, classes = [], []
    for c in range(0x110000):
        if 0xd800 <= c <= 0xdfff or 0xac00 <= c <= 0xd7a3:  # Hangul is made by arithmetic
            continue
        d = u.decomposition(chr(c))
        if d and not d.startswith("<"):
            parts = [int(x, 16) for x in d.split()] + [0]
            joins = parts[1] and u.normalize("NFC", chr(parts[0]) + chr(parts[1])) == chr(c)
            pairs.append("{0x%x, 0x%x, 0x%x, %d}" % (c, parts[0], parts[1], bool(joins)))
        k = u.combining(chr(c))
        if k and classes and classes[-1][1] == c - 1 and classes[-1][2] == k:
            classes[-1][1] = c
        elif k:
            classes.append([c, c, k])
    out = ["/* Written by tests/tools/make_nfc.py from Unicode %s; not to be changed by hand. */" % u.unidata_version,
           "/* clang-format off */",
           "static const struct {", "    uint32_t c, first, second;", "    bool joins; /* first and second become c */",
           "} nfc_pairs[] = {"]
    out += ["    " + " ".join(x + "," for x in pairs[i:i + 5]) for i in range(0, len(pairs), 5)]
    out += ["};", "static const struct {", "    uint32_t from, to;", "    uint8_t ccc;", "} nfc_classes[] = {"]
    rows = ["{0x%x, 0x%x, %d}" % tuple(x) for x in classes]
    out += ["    " + " ".join(x + "," for x in rows[i:i + 6]) for i in range(0, len(rows), 6)]
    return "\n".join(out + ["};", "/* clang-format on */", ""])


if __name__ == "__main__":
    with open(os.path.join(ROOT, "common/lib/mail/nfc_table.h"), "w") as f:
        f.write(text())
    sys.exit(0)
