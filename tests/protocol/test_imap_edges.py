#!/usr/bin/env python3
"""Where limits and features of imapd-cell meet: numbers at their ends, literals nobody wants, folders that are renamed."""
import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cell_harness import main  # noqa: E402
import test_imap_more  # noqa: E402


class Numbers(test_imap_more.Base):
    def setUp(self):
        super().setUp()
        for i in (1, 2):
            self.plant("cur/%d.a.h:2," % i, b"x: y\r\n\r\n1234\r\n")

    def test_the_largest_number_is_no_star(self):
        c = self.selected()
        self.assertEqual(self.ask(c, b"UID FETCH 4294967295 FLAGS"), [])
        self.assertEqual(self.ask(c, b"UID FETCH 100:4294967295 FLAGS"), [])
        self.assertEqual(len(self.ask(c, b"UID FETCH 2:4294967295 FLAGS")), 1)
        self.assertEqual(len(self.ask(c, b"UID FETCH 100:* FLAGS")), 1)
        self.assertEqual(len(self.ask(c, b"FETCH * FLAGS")), 1)
        self.assertEqual(self.ask(c, b"UID SEARCH UID 4294967295"), [b"* SEARCH\r\n"])
        self.assertEqual(self.ask(c, b"UID STORE 4294967295 +FLAGS (\\Deleted)"), [])
        self.assertEqual(self.ask(c, b"UID EXPUNGE 4294967295"), [])
        for line in (b"FETCH 4294967295 FLAGS", b"STORE 4294967295 +FLAGS (\\Deleted)", b"FETCH 1:4294967295 FLAGS"):
            self.assertIn(b"q BAD", self.send(c, b"q " + line)[-1])

    def test_vanished_are_those_asked_for(self):
        c = self.raw()
        self.ask(c, b"ENABLE QRESYNC")
        self.ask(c, b"SELECT INBOX")
        self.ask(c, b"STORE 2 +FLAGS.SILENT (\\Deleted)")
        self.ask(c, b"EXPUNGE")
        for uids, want in ((b"500:600", []), (b"1", []), (b"4294967295", []), (b"2:600", [b"* VANISHED (EARLIER) 2\r\n"])):
            self.assertEqual(self.ask(c, b"UID FETCH %s (UID) (CHANGEDSINCE 1 VANISHED)" % uids), want, uids)

    def test_numbers_of_64_bits(self):
        """RFC 9051 9: number64."""
        c = self.selected()
        self.assertEqual(self.ask(c, b"SEARCH SMALLER 4294967296"), [b"* SEARCH 1 2\r\n"])
        self.assertEqual(self.ask(c, b"SEARCH LARGER 9223372036854775807"), [b"* SEARCH\r\n"])
        self.assertEqual(b"".join(self.ask(c, b"FETCH 1 BODY.PEEK[TEXT]<1.4294967296>")),
                         b"* 1 FETCH (BODY[TEXT]<1> {5}\r\n234\r\n)\r\n")
        self.assertEqual(b"".join(self.ask(c, b"FETCH 1 BODY.PEEK[TEXT]<9223372036854775807.9223372036854775807>")),
                         b"* 1 FETCH (BODY[TEXT]<9223372036854775807> {0}\r\n)\r\n")
        self.assertEqual(b"".join(self.ask(c, b"FETCH 1 BINARY.PEEK[1]<9223372036854775807.9223372036854775807>")),
                         b"* 1 FETCH (BINARY[1]<9223372036854775807> {0}\r\n)\r\n")

    def test_the_mod_sequence_of_what_is_told(self):
        """RFC 4731 3.2: of MIN and MAX, that of these messages."""
        c = self.selected()
        self.ask(c, b"ENABLE CONDSTORE")
        self.ask(c, b"STORE 1 +FLAGS.SILENT (\\Seen)")
        first, second = (int(b"".join(self.ask(c, b"FETCH %d MODSEQ" % i)).split(b"(")[2].split(b")")[0]) for i in (1, 2))
        self.assertGreater(first, second)
        for options, want in ((b"MAX", second), (b"MIN", first), (b"MIN MAX", first), (b"ALL", first), (b"MAX COUNT", first)):
            got = b"".join(self.ask(c, b"SEARCH RETURN (%s) MODSEQ 1" % options))
            self.assertTrue(got.endswith(b" MODSEQ %d\r\n" % want), (options, got))


class Texts(test_imap_more.Base):
    def plant_all(self, *messages):
        for i, m in enumerate(messages):
            self.plant("cur/%d.a.h:2," % (i + 1), m)
        return self.selected()

    def test_no_empty_line_is_made_up(self):
        """RFC 3501 6.4.5: but in a message that has neither a body nor the empty line."""
        c = self.plant_all(b"Subject: x\r\nX-A: y\r\n", b"Subject: x", b"Subject: x\r\nX-A: y\r\n\r\n", b"\r\nbody\r\n")
        for section, want in ((b"HEADER.FIELDS (Subject)", (b"Subject: x\r\n", b"Subject: x\r\n", b"Subject: x\r\n\r\n", b"\r\n")),
                              (b"HEADER.FIELDS (X-A)", (b"X-A: y\r\n", b"", b"X-A: y\r\n\r\n", b"\r\n")),
                              (b"HEADER.FIELDS.NOT (Subject)", (b"X-A: y\r\n", b"", b"X-A: y\r\n\r\n", b"\r\n"))):
            for _ in range(2):  # made, and kept
                for i, text in enumerate(want):
                    said = b"".join(self.ask(c, b"FETCH %d BODY.PEEK[%s]" % (i + 1, section)))
                    self.assertEqual(said, b"* %d FETCH (BODY[%s] {%d}\r\n%s)\r\n" % (i + 1, section, len(text), text))

    def test_the_header_of_a_part_is_in_the_body(self):
        part = b"--b\r\nContent-Type: %s; name=%s\r\n\r\nabc\r\n"
        c = self.plant_all(b"Subject: x\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" +
                           part % (b"text/plain", b"first.txt") + part % (b"application/pdf", b"second.pdf") + b"--b--\r\n",
                           b"Content-Type: application/pdf; name=second.pdf\r\n\r\nabc\r\n")
        for key, want in ((b"TEXT second.pdf", b" 1 2"), (b"BODY second.pdf", b" 1"), (b"BODY first.txt", b" 1"), (b"BODY Subject", b""),
                          (b'BODY ""', b" 1 2"), (b'NOT BODY ""', b"")):
            self.assertEqual(self.ask(c, b"SEARCH " + key), [b"* SEARCH%s\r\n" % want], key)

    def test_the_bytes_of_windows_1252(self):
        c = self.plant_all(b"Subject: =?windows-1252?q?it=92s?=\r\nContent-Type: text/plain; charset=windows-1252\r\n\r\n5 \x80\r\n")
        for key, text in ((b"SUBJECT", "it\u2019s"), (b"BODY", "5 \u20ac")):
            raw = text.encode()
            self.assertEqual(self.ask(c, b"SEARCH CHARSET UTF-8 %s {%d+}\r\n%s" % (key, len(raw), raw)), [b"* SEARCH 1\r\n"])
        self.assertIn("5 \u20ac".encode(), b"".join(self.ask(c, b"FETCH 1 PREVIEW")))


class Literals(test_imap_more.Base):
    def folders(self, c):
        return b"".join(self.ask(c, b'LIST "" *'))

    def test_several_messages_to_no_folder(self):
        """What a refused APPEND brings along are messages, not commands."""
        body = b"q CREATE evil\r\n"
        c = self.raw()
        c.sock.sendall(b"a APPEND nowhere {3+}\r\nabc {%d+}\r\n%s\r\nb NOOP\r\n" % (len(body), body))
        self.assertIn(b"a NO [TRYCREATE]", c.file.readline())
        self.assertIn(b"b OK", c.file.readline())
        self.assertNotIn(b"evil", self.folders(c))

    def test_a_line_too_long_with_a_literal(self):
        for before in (b"a SEARCH SUBJECT " + b"x" * 70000, b"a SEARCH " + (b"SUBJECT {60000+}\r\n" + b"x" * 60000 + b" ") * 4
                       + b"SUBJECT " + b"x" * 60000 + b" TEXT"):
            c = self.selected()
            body = b"q CREATE evil\r\n"
            c.sock.sendall(before + b" {%d+}\r\n%s\r\nb LOGOUT\r\n" % (len(body), body))
            c.file.read()
            self.assertNotIn(b"evil", self.folders(self.raw()))

    def test_a_line_too_long(self):
        c = self.selected()
        self.assertIn(b"* BAD", self.send(c, b"a SEARCH SUBJECT " + b"x" * 70000, b"*")[-1])
        self.ask(c, b"NOOP")


class Keywords(test_imap_more.Base):
    def test_a_letter_that_means_nothing(self):
        """It stays so, when a client makes up a keyword."""
        for name in ("1.a.h:2,Sa", "2.a.h:2,"):
            self.plant("cur/" + name, b"a: b\r\n")
        self.plant("new/3.a.h:2,b", b"a: b\r\n")
        self.plant(".two/cur/4.a.h:2,ad", b"a: b\r\n")
        c = self.selected()
        self.ask(c, b"STORE 2 +FLAGS.SILENT ($Junk $Other)")
        self.assertEqual([row.split(b"FLAGS ")[1] for row in self.ask(c, b"FETCH 1:3 FLAGS")],
                         [b"(\\Seen))\r\n", b"($Junk $Other))\r\n", b"(\\Recent))\r\n"])
        self.ask(c, b"COPY 2 two")
        self.ask(c, b"APPEND two ($Third) {4+}\r\na: b")
        self.ask(c, b"SELECT two")
        self.assertEqual([row.split(b"FLAGS ")[1] for row in self.ask(c, b"FETCH 1:3 FLAGS")],
                         [b"())\r\n", b"($Junk $Other))\r\n", b"($Third))\r\n"])


class Folders(test_imap_more.Base):
    def test_selected_again_after_a_rename(self):
        c, other = self.raw(), self.raw()
        for name in (b"one", b"two"):
            self.ask(c, b"CREATE " + name)
        self.ask(c, b"APPEND one {4+}\r\na: b")
        self.ask(c, b"SELECT one")
        self.ask(other, b"RENAME one three")
        self.no(c, b"SELECT one", b"[NONEXISTENT]")
        self.ask(c, b"SELECT three")
        self.ask(other, b"RENAME three one")
        self.ask(c, b"SELECT one")
        self.ask(other, b"RENAME one three")
        self.ask(other, b"CREATE one")
        self.assertIn(b"* 0 EXISTS\r\n", self.ask(c, b"SELECT one"))

    def test_an_inbox_that_cannot_be_renamed(self):
        """It may be tried again."""
        self.plant("cur/1.a.h:2,", b"a: b\r\n")
        file = os.path.join(self.dir, "cur/1.a.h:2,")
        for path in (self.dir, os.path.dirname(file), file):
            os.chown(path, 65534, 65534)
        os.chmod(file, 0)
        c = self.cell(uid=65534)
        c.file.readline()
        self.no(c, b"RENAME INBOX old")
        self.assertNotIn(b"old", b"".join(self.ask(c, b'LIST "" *')))
        for name in os.listdir(os.path.dirname(file)):
            os.chmod(os.path.join(os.path.dirname(file), name), 0o600)
        self.ask(c, b"RENAME INBOX old")
        self.assertEqual(self.ask(c, b"STATUS old (MESSAGES)"), [b"* STATUS old (MESSAGES 1)\r\n"])

    def test_create_of_a_folder_half_made(self):
        """Another that made it was killed before cur/ had its name."""
        os.mkdir(os.path.join(self.dir, ".half"))
        c = self.raw()
        self.assertNotIn(b"half", b"".join(self.ask(c, b'LIST "" *')))
        self.ask(c, b"CREATE half")
        self.assertIn(b'* LIST (\\HasNoChildren) "." half\r\n', self.ask(c, b'LIST "" *'))
        self.no(c, b"CREATE half", b"[ALREADYEXISTS]")
        self.no(c, b"CREATE inbox", b"[ALREADYEXISTS]")
        self.ask(c, b"SELECT half")

    def test_folders_below_inbox_in_any_case(self):
        c = self.raw()
        self.ask(c, b"CREATE inbox.a")
        self.ask(c, b"SELECT Inbox.a")
        self.ask(c, b"RENAME inbox.a InBox.b")
        self.assertIn(b'* LIST (\\HasNoChildren) "." INBOX.b\r\n', self.ask(c, b'LIST "" *'))
        self.ask(c, b"SUBSCRIBE inbox.b")
        self.assertIn(b'* LSUB () "." INBOX.b\r\n', self.ask(c, b'LSUB "" *'))
        self.ask(c, b"RENAME inbox.b c")
        self.ask(c, b"SELECT c")


if __name__ == "__main__":
    main("imapd-cell")
