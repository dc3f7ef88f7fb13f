#!/usr/bin/env python3
"""SORT and THREAD (RFC 5256, RFC 5957) with imapd-cell."""
import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cell_harness import main  # noqa: E402
import test_imap_cell  # noqa: E402


class Base(test_imap_cell.Base):
    def fill(self, *messages):
        for i, m in enumerate(messages, 1):
            name = "cur/%d.m%d.h:2," % (1000 + i, i)
            self.plant(name, m.replace("\n", "\r\n").encode() + b"\r\n\r\nx\r\n")
            os.utime(os.path.join(self.dir, name), (1000 + i, 1000 + i))

    def selected(self):
        c = self.raw()
        self.assertIn(b" OK", self.send(c, b"s SELECT INBOX")[-1])
        return c

    def asked(self, c, command):
        got = self.send(c, b"q " + command)
        self.assertIn(b"q OK", got[-1], command)
        return [x for x in got if not x.startswith(b"* OK")][0].decode().rstrip("\r\n")


class Sort(Base):
    def setUp(self):
        super().setUp()
        self.fill(
            "From: Zoe <b@x>\nTo: k@x\nSubject: Re: beta\nDate: Fri, 21 Nov 2025 10:00:00 +0100",
            "From: a@x\nTo: \"=?utf-8?q?=C3=84rger?=\" <j@x>\nSubject: alpha\nDate: Fri, 21 Nov 2025 10:00:00 -0100",
            "From: Anna <c@x>\nTo: g: l@x;\nSubject: [l] BETA (fwd)\nDate: Fri, 21 Nov 2025 09:30:00 +0000\nCc: z@x",
            "From: =?iso-8859-1?q?=E4rger?= <d@x>\nSubject: gamma\nDate: nonsense\nX-Long: " + "y" * 500)

    def test_keys(self):
        c = self.selected()
        for keys, want in ((b"ARRIVAL", "1 2 3 4"), (b"REVERSE ARRIVAL", "4 3 2 1"), (b"DATE", "4 1 3 2"),
                           (b"FROM", "2 1 3 4"), (b"SUBJECT", "2 1 3 4"), (b"SUBJECT DATE", "2 1 3 4"),
                           (b"SUBJECT REVERSE DATE", "2 3 1 4"), (b"REVERSE SUBJECT", "4 1 3 2"),
                           (b"CC", "1 2 4 3"), (b"TO", "4 3 2 1"), (b"REVERSE SIZE", "4 3 2 1"),
                           (b"DISPLAYFROM", "2 3 4 1"), (b"DISPLAYTO", "4 2 3 1")):
            self.assertEqual(self.asked(c, b"SORT (" + keys + b") UTF-8 ALL"), "* SORT " + want, keys)
        self.assertEqual(self.asked(c, b"UID SORT (REVERSE ARRIVAL) US-ASCII NOT SUBJECT gamma"), "* SORT 3 2 1")
        self.assertEqual(self.asked(c, b"SORT (DATE) UTF-8 SUBJECT nothing"), "* SORT")
        self.assertRegex(self.asked(c, b"SORT (REVERSE ARRIVAL) UTF-8 MODSEQ 1"), r"^\* SORT 4 3 2 1 \(MODSEQ \d+\)$")

    def test_refused(self):
        c = self.selected()
        for line in (b"SORT () UTF-8 ALL", b"SORT (DATES) UTF-8 ALL", b"SORT (DATE) ALL", b"SORT DATE UTF-8 ALL",
                     b"SORT (DATE)", b"SORT (REVERSE) UTF-8 ALL", b"THREAD REFS UTF-8 ALL", b"THREAD REFERENCES UTF-8",
                     b"SORT (DATE) UTF-8 CHARSET UTF-8 ALL"):
            self.assertIn(b"q BAD", self.send(c, b"q " + line)[-1], line)
        self.assertIn(b"q NO [BADCHARSET", self.send(c, b"q SORT (DATE) KOI8-R ALL")[-1])

    def test_many_in_order(self):
        for i in range(10, 510):
            self.plant("cur/%d.n%d.h:2," % (5000 + i, i), b"Subject: s%d\r\n\r\nx\r\n" % (i * 7919 % 501))
        c = self.selected()
        order = self.asked(c, b"SORT (REVERSE SUBJECT) UTF-8 SUBJECT s").split()[2:]
        subjects = {5 + i: b"s%d" % ((10 + i) * 7919 % 501) for i in range(500)}
        got = [subjects[int(n)] for n in order]
        self.assertEqual(got, sorted(subjects.values(), reverse=True))

    def test_texts_as_far_as_they_are_compared(self):
        for name in os.listdir(self.dir + "/cur"):
            os.unlink(self.dir + "/cur/" + name)
        self.fill(*("From: \"%s\" <a@x>\nSubject: s" % name for name in
                    ("c" * 255 + "b", "c" * 255 + "a", "d" * 256 + "b", "d" * 256 + "a")))
        c = self.selected()
        self.assertEqual(self.asked(c, b"SORT (DISPLAYFROM) UTF-8 ALL"), "* SORT 2 1 3 4")
        self.assertEqual(self.asked(c, b"SORT (REVERSE DISPLAYFROM) UTF-8 ALL"), "* SORT 3 4 1 2")


class Thread(Base):
    def message(self, ident, refs="", subject="", extra=""):
        day = self.day = getattr(self, "day", 0) + 1
        return ("Message-ID: <%s@x>\nDate: %d Nov 2025 10:00:00 +0000\nSubject: %s" % (ident, day, subject)
                + ("\nReferences: " + " ".join("<%s@x>" % r for r in refs.split()) if refs else "") + extra)

    def test_references(self):
        m = self.message
        self.fill(m("a", "", "one"), m("b", "a", "Re: one"), m("c", "a b", "Re: one"), m("d", "a", "Re: one"),
                  m("e", "", "two"), m("f", "gone", "x"), m("g", "gone", "y"), m("h", "", "Re: two"),
                  m("i", "", "other", "\nIn-Reply-To: <h@x> <a@x>"))
        c = self.selected()
        self.assertEqual(self.asked(c, b"THREAD REFERENCES UTF-8 ALL"), "* THREAD (1 (2 3)(4))(5 8 9)((6)(7))")
        self.assertEqual(self.asked(c, b"UID THREAD REFERENCES UTF-8 2:4"), "* THREAD ((2 3)(4))")
        self.assertEqual(self.asked(c, b"THREAD ORDEREDSUBJECT UTF-8 ALL"),
                         "* THREAD (1 (2)(3)(4))(5 8)(6)(7)(9)")
        self.assertEqual(self.asked(c, b"THREAD REFERENCES US-ASCII SUBJECT nothing"), "* THREAD")
        # Another session has what this one kept, also when that is lost.
        for path in (None, "bulkhead.cache", "bulkhead.index"):
            if path:
                os.unlink(os.path.join(self.dir, path))
            c = self.selected()
            self.assertEqual(self.asked(c, b"THREAD REFERENCES UTF-8 ALL"), "* THREAD (1 (2 3)(4))(5 8 9)((6)(7))")
            self.assertEqual(self.asked(c, b"SORT (REVERSE SUBJECT) UTF-8 1:3,6"), "* SORT 6 1 2 3")

    def test_loops(self):
        m = self.message
        self.fill(m("a", "a"), m("b", "c b"), m("c", "b"), m("d", "d d d e"), m("e", "d"))
        c = self.selected()
        got = self.asked(c, b"THREAD REFERENCES UTF-8 ALL")
        self.assertEqual(sorted(n for n in got if n.isdigit()), list("12345"))

    def test_references_at_their_ceiling(self):
        """Of a hundred and one the second is left out; the first and the last are known."""
        m = self.message
        top = self.dir
        for n, want in ((100, "* THREAD (1 2 3)"), (101, "* THREAD (1 3)(2)")):
            self.dir = os.path.join(top, str(n))
            os.mkdir(self.dir)
            self.fill(m("r0"), m("r1"), m("last", " ".join("r%d" % i for i in range(n))))
            self.assertEqual(self.asked(self.selected(), b"THREAD REFERENCES UTF-8 ALL"), want)
        self.dir = top

    def test_a_field_of_64_kb(self):
        self.fill(self.message("a"), self.message("b", " ".join("r%d" % i for i in range(5000)) + " a"))
        self.assertEqual(self.asked(self.selected(), b"THREAD REFERENCES UTF-8 ALL"), "* THREAD (1 2)")


if __name__ == "__main__":
    main("imapd-cell")
